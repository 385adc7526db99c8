"""The report as Markdown with the tables that GitHub renders; text from outside is always escaped."""

import re
from collections.abc import Iterable, Sequence

from predictor.report.comparison import Comparison
from predictor.report.content import Assumption, Line, Report, Row
from predictor.report.many import ABSENT, Many

_SPECIAL = re.compile(r"([\\`*\[\]<>|#~$&!@])")
_OUTER_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
_VALUE_HEAD = "middle value (5th-95th percentile)"


def escape(text: str) -> str:
    """Text that shows as it is, in a paragraph or a table cell.

    >>> escape("a|b <script> *x* snake_case _y_ $1")
    'a\\\\|b \\\\<script\\\\> \\\\*x\\\\* snake_case \\\\_y\\\\_ \\\\$1'
    """
    return _OUTER_UNDERSCORE.sub(r"\\_", _SPECIAL.sub(r"\\\1", text))


def fenced(text: str) -> str:
    """A code block whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: int = 99) -> str:
    """A table; columns from ``right`` on hold numbers and are aligned to that side."""
    rule = ["---:" if index >= right else "---" for index in range(len(head))]
    lines = [[escape(cell) for cell in head], rule, *([escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def render_report(found: Report) -> str:
    """One answer."""
    parts = [
        f"# {escape(found.title)}",
        escape(found.question),
        *(f"**{escape(words)}**" for words in found.warnings),
        "## One step",
        _lines(found.step, _VALUE_HEAD),
        "## Whole run",
        _lines(found.run, _VALUE_HEAD),
        "## How well it is known",
        _lines(found.basis, "answer"),
        "## Largest assumptions",
        _assumptions(found.main_assumptions),
        "## Where the time of a step goes",
        _breakdown(found.breakdown),
        *_further(found.further_assumptions),
        "## How to reproduce",
        *_reproduce(found.reproduce),
    ]
    return "\n\n".join(parts) + "\n"


def render_comparison(found: Comparison) -> str:
    """Several answers side by side."""
    parts = [f"# {escape(found.title)}", escape(found.question)]
    if found.findings:
        parts += ["## Best", _lines(found.findings, _VALUE_HEAD)]
    for grid in found.grids:
        rows = [(label, *cells) for label, cells in grid.rows]
        parts += [f"## {escape(grid.name)}", table(("candidate", *grid.columns), rows, right=1)]
    parts += [escape(words) for words in found.remarks]
    if found.refused:
        rows = [(line.name, line.value) for line in found.refused]
        parts += ["## Not priced", table(("candidate", "reason"), rows)]
    if found.assumptions:
        parts += ["## Largest assumptions", _assumptions(found.assumptions)]
    parts += ["## How to reproduce", _lines(found.reproduce, "value")]
    return "\n\n".join(parts) + "\n"


def render_many(found: Many) -> str:
    """Many answers, ranked in one table."""
    head = ("candidate", *(column.heading for column in found.columns), "fits")
    entries = [entry for part in found.parts for entry in part.entries]
    rows = [(entry.name, *(cell.text for cell in entry.cells), entry.fits) for entry in entries]
    rows += [
        (line.name, *[ABSENT] * len(found.columns), f"not priced: {line.value}") for line in found.refused
    ]
    parts = [f"# {escape(found.title)}", escape(found.question), escape(found.counts)]
    if found.findings:
        parts += ["## Best", _lines(found.findings, _VALUE_HEAD)]
    parts += ["## Candidates, fastest first", f"Each figure: {_VALUE_HEAD}.", table(head, rows, right=1)]
    parts += [escape(words) for words in found.remarks]
    if found.assumptions:
        parts += ["## Assumed", _assumptions(found.assumptions)]
    parts += ["## How to reproduce", _lines(found.reproduce, "value")]
    return "\n\n".join(parts) + "\n"


def _lines(lines: Sequence[Line], value_head: str) -> str:
    noted = any(line.note for line in lines)
    head = ("", value_head, "notes")[: 3 if noted else 2]
    return table(head, [(line.name, line.value, line.note)[: len(head)] for line in lines])


def _assumptions(found: Sequence[Assumption]) -> str:
    if not found:
        return "none"
    head = ("about", "assumed", "reach", "advice")
    return table(head, [(a.topic, a.text, a.touches, a.advice) for a in found])


def _further(found: Sequence[Assumption]) -> list[str]:
    return ["## Further assumptions", _assumptions(found)] if found else []


def _breakdown(rows: Sequence[Row]) -> str:
    if not rows:
        return "not known for this answer"
    head = ("kind", "phase", "time", "share", "work", "moved", "energy")
    cells = [(r.kind, r.phase, r.time, r.share, r.flop, r.moved, r.energy) for r in rows]
    return table(head, cells, right=2)


def _reproduce(lines: Sequence[Line]) -> list[str]:
    """The command as a block to copy, the rest as a table."""
    command, *rest = lines
    return [fenced(command.value), table(("", "value"), [(line.name, line.value) for line in rest])]
