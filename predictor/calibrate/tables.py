"""Which reader a file is for, told by its header."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from predictor.calibrate.case import Read
from predictor.calibrate.readers import (
    convnets,
    gpumemnet,
    kernel_collectives,
    kernel_sources,
    kernels,
    latency,
    neusight,
    own,
    runs,
    simumax,
    throughput,
)
from predictor.calibrate.readers.format import Format
from predictor.calibrate.rows import is_table, read_rows
from predictor.errors import InputError

# A further reader is one more module here.
FORMATS: tuple[Format, ...] = (
    *throughput.FORMATS,
    *convnets.FORMATS,
    *neusight.FORMATS,
    *simumax.FORMATS,
    *gpumemnet.FORMATS,
    *runs.FORMATS,
    *latency.FORMATS,
    *own.FORMATS,
    *kernels.FORMATS,
    *kernel_sources.FORMATS,
    *kernel_collectives.FORMATS,
)


def format_of(header: Iterable[str]) -> Format | None:
    """The format with the most columns among those whose columns are all in the header."""
    found = [form for form in FORMATS if form.columns <= set(header)]
    return max(found, key=lambda form: len(form.columns), default=None)


def tables_in(places: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Tables among files and folders, in order of name, and other ``.csv`` files found in folders.

    Raises InputError for a place that is not there, a file of no known format, and a folder without any.
    """
    known: list[Path] = []
    other: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = sorted(path for path in place.rglob("*") if path.is_file() and is_table(path))
            recognised = [path for path in inside if format_of(read_rows(path)[0])]
            if not recognised:
                raise InputError(f"{place}: no table of a known format in this folder; {_accepted()}")
            known += recognised
            other += [path for path in inside if path not in recognised]
        elif place.is_file():
            header = read_rows(place)[0]
            if not format_of(header):
                raise InputError(f"{place}: {_missing(header)}; {_accepted()}")
            known.append(place)
        else:
            raise InputError(f"{place}: no such file or folder")
    return list(dict.fromkeys(known)), other


def _missing(header: list[str]) -> str:
    """What keeps a header from being that of a user's own table, or that it is like none."""
    missing = [name for name in ("model", "hardware", "batch") if name not in header]
    if len(missing) > 1:
        return "its columns are those of no known table"
    if missing:
        return f"column '{missing[0]}' is missing"
    return f"no column of measurements; give one of {', '.join(own.MEASURED)}"


def _accepted() -> str:
    return "write your own with the columns model, hardware, batch and step_s: docs/reference/validate.md"


def read_tables(paths: Iterable[Path]) -> Iterator[Read]:
    """Cases and refusals of all tables."""
    for path in paths:
        header, rows = read_rows(path)
        form = format_of(header)
        assert form is not None, path
        yield from form.read(path, rows)
