"""``predictor validate``: predictions against measured tables."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from predictor.cli.guard import guarded
from predictor.cli.jobs import reading
from predictor.cli.options import Force, Output, Quiet, Verbose
from predictor.cli.output import check_output, choose_form, deliver
from predictor.cli.tables import plain_table
from predictor.errors import InputError

if TYPE_CHECKING:
    from predictor.calibrate.case import Read

Tables = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE-OR-FOLDER...", help="Tables (.csv, .csv.gz), or folders of them.", show_default=False
    ),
]
Form = Annotated[
    str | None,
    typer.Option("--format", metavar="table|json|markdown", help="Default: by the suffix of -o, else table."),
]
Only = Annotated[
    list[str] | None,
    typer.Option(metavar="SOURCE", help="Score this source alone. Repeatable.", show_default=False),
]
Every = Annotated[int, typer.Option(metavar="N", min=1, help="Score every Nth case of each source.")]
Limit = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="At most N cases of each source.", show_default=False)
]
Workers = Annotated[int, typer.Option(metavar="N", min=1, help="Processes that record models.")]
Details = Annotated[
    Path | None,
    typer.Option(metavar="FILE.csv", help="Also write every row's figures or reason.", show_default=False),
]


@guarded
def validate(
    tables: Tables,
    *,
    only: Only = None,
    every: Every = 1,
    limit: Limit = None,
    workers: Workers = 1,
    details: Details = None,
    form: Form = None,
    output: Output = None,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare predictions with measurements.

    Every table of a known format is read, each row's job is rebuilt and priced without its measured figures,
    and errors are reported by source. A row that cannot be priced carries a reason of a fixed list.
    """
    form = choose_form(form, output, ("table", "json", "markdown"))
    check_output(output, force)
    check_output(details, force)
    with reading(verbose):
        found = _outcomes(tables, only, every, limit, workers, quiet)
    from predictor.calibrate.details import details_csv
    from predictor.calibrate.report import report

    if details is not None:
        deliver(details_csv(found), details, force, quiet)
    text = report(found)
    deliver(json.dumps(text, indent=2) if form == "json" else _tables(text, form), output, force, quiet)


def _outcomes(
    places: list[Path], only: list[str] | None, every: int, limit: int | None, workers: int, quiet: bool
) -> list[Any]:
    """Read, sample and price; what is not sampled is not counted."""
    from predictor.calibrate.case import Case
    from predictor.calibrate.tables import read_tables, tables_in
    from predictor.calibrate.validate import outcomes

    known, other = tables_in(places)
    for path in other if not quiet else ():
        typer.echo(f"skipped {path}: its columns are those of no known table", err=True)
    chosen = _sampled(_of_sources(list(read_tables(known)), only), every, limit)
    cases = [item for item in chosen if isinstance(item, Case)]
    priced = outcomes(cases, workers, _progress(len(cases), quiet))
    return [*priced, *(item for item in chosen if not isinstance(item, Case))]


def _of_sources(items: "list[Read]", only: list[str] | None) -> "list[Read]":
    """Rows of the sources asked for; InputError names those there are."""
    there = sorted({item.source for item in items})
    for name in only or ():
        if name not in there:
            raise InputError(f"--only {name}: no such source; there are: {', '.join(there)}")
    return items if not only else [item for item in items if item.source in only]


def _sampled(items: "Iterable[Read]", every: int, limit: int | None) -> "list[Read]":
    """Every Nth item of each source, in the order of its table, and at most ``limit`` of them."""
    seen: dict[str, int] = {}
    chosen = []
    for item in items:
        place = seen.get(item.source, 0)
        seen[item.source] = place + 1
        if place % every == 0 and (limit is None or place // every < limit):
            chosen.append(item)
    return chosen


def _progress(total: int, quiet: bool) -> Callable[[int], None] | None:
    """A line on a terminal that counts finished cases."""
    if quiet or not sys.stderr.isatty():
        return None
    finished = 0

    def tell(count: int) -> None:
        nonlocal finished
        finished += count
        end = "\n" if finished == total else "\r"
        print(f"{finished} of {total} cases", end=end, file=sys.stderr, flush=True)

    return tell


_COLUMNS = ("rows", "median", "mean", "p90", "bias", "tau", "inside 90 %")


def _tables(report: dict[str, Any], form: str) -> str:
    """The report as text: a table for each quantity, one by accelerator, and the refusals."""
    grid = plain_table if form == "table" else _markdown_table
    parts = []
    for quantity in ("time", "memory", "power"):
        rows = [
            (name, *_cells(part[quantity]))
            for name, part in report["sources"].items()
            if part[quantity] is not None
        ]
        if rows:
            right = frozenset(range(1, 8))
            parts.append(_title(f"{quantity} by source", form) + grid((quantity, *_COLUMNS), rows, right))
    by_chip = [
        (name, chip, *_cells(part["time"]))
        for name, chips in report["accelerators"].items()
        for chip, part in chips.items()
        if part["time"] is not None and len(chips) > 1
    ]
    if by_chip:
        right = frozenset(range(2, 9))
        parts.append(
            _title("time by accelerator", form) + grid(("source", "accelerator", *_COLUMNS), by_chip, right)
        )
    counts = [
        (name, str(part["rows"]), str(part["scored"]), _refusals(part["refused"]))
        for name, part in report["sources"].items()
    ]
    headings = ("source", "rows", "scored", "refused")
    parts.append(_title("rows", form) + grid(headings, counts, frozenset({1, 2})))
    parts += [f"{code}: {sentence}" for code, sentence in report["reasons"].items()]
    return "\n\n".join(parts)


def _title(text: str, form: str) -> str:
    return f"## {text}\n\n" if form == "markdown" else ""


def _refusals(refused: dict[str, int]) -> str:
    return ", ".join(f"{code} {count}" for code, count in refused.items())


def _cells(part: dict[str, Any]) -> tuple[str, ...]:
    """One row of errors, in per cent."""
    tau = part.get("tau")
    return (
        str(part["rows"]),
        *(f"{100 * part[key]:.1f} %" for key in ("median_ape", "mean_ape", "p90_ape")),
        f"{100 * part['bias']:+.1f} %",
        "-" if tau is None else f"{tau:.3f}",
        f"{100 * part['coverage']:.0f} %",
    )


def _markdown_table(
    headers: tuple[str, ...], rows: Sequence[tuple[str, ...]], right: frozenset[int] = frozenset()
) -> str:
    rule = ["---:" if place in right else "---" for place in range(len(headers))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (headers, tuple(rule), *rows))
