"""What a reader declares about a table it recognises."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from predictor.calibrate.case import Read, Refused, RowError
from predictor.calibrate.rows import Row
from predictor.errors import InputError

ReadRow = Callable[[Row, str], Iterator[Read]]


@dataclass(frozen=True, slots=True)
class Format:
    """A table known by its header.

    name     the source as reports show it; a reader whose rows name their source ignores it
    columns  all must be there; the format with the most of them wins
    read     cases and refusals of the rows of one file
    """

    name: str
    columns: frozenset[str]
    read: Callable[[Path, Sequence[Row]], Iterator[Read]]


def each_row(
    name: str, read: Callable[[Row, str], Read | list[Read]], count: int = 1
) -> Callable[..., Iterator[Read]]:
    """A reader of a file from a reader of one row, which gets the row and its place in the file.

    ``count`` accelerators ran a row that is refused.
    """

    def run(path: Path, rows: Sequence[Row]) -> Iterator[Read]:
        for index, row in enumerate(rows):
            place = f"{path.name}:{index + 2}"
            try:
                found = read(row, place)
            except RowError as error:
                yield Refused(name, place, error.code, error.detail, count=count)
            except InputError as error:
                yield Refused(name, place, "plan", str(error), count=count)
            else:
                yield from found if isinstance(found, list) else [found]

    return run
