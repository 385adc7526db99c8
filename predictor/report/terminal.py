"""The report as text for a terminal, drawn by rich; text from outside is never read as markup."""

import io
from collections.abc import Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from predictor.report import format as fmt
from predictor.report.comparison import Comparison, Grid
from predictor.report.content import Assumption, Line, Report, Row

WIDTH = 80
LEAST_WIDTH = 50
_LONGEST = 220
_NAME_WIDTH = 17
_VALUE_WIDTH = 32
_LABEL_WIDTH = 24
_MARKS = {"does not fit": "bold red", "fits": "green"}


def draw(parts: Iterable[RenderableType], color: bool, width: int | None) -> str:
    """The parts as text, without the environment having a say in it."""
    console = Console(
        file=io.StringIO(),
        width=max(width or WIDTH, LEAST_WIDTH),
        color_system="standard" if color else None,
        force_terminal=color,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
        _environ={},
    )
    with console.capture() as drawn:
        console.print(Group(*parts))
    return "\n".join(line.rstrip() for line in drawn.get().splitlines()).strip("\n") + "\n"


def render_report(found: Report, color: bool, width: int | None) -> str:
    """One answer."""
    more = len(found.further_assumptions)
    parts: list[RenderableType] = [
        Text(found.question, style="bold"),
        *(Text(f"Warning: {words}", style="bold red") for words in found.warnings),
        _heading("One step: middle value (5th-95th percentile)"),
        _lines(found.step),
        _heading("Whole run"),
        _lines(found.run),
        _heading("How well it is known"),
        _lines(found.basis),
        _heading("Largest assumptions"),
        _assumptions(found.main_assumptions),
        *([_aside(f"{more} more, and long ones in full: --format markdown, html or json")] if more else []),
        _heading("Where the time of a step goes"),
        _breakdown(found.breakdown),
        _heading("How to reproduce"),
        _lines(found.reproduce),
    ]
    return draw(parts, color, width)


def render_comparison(found: Comparison, color: bool, width: int | None) -> str:
    """Several answers side by side."""
    parts: list[RenderableType] = [Text(found.question, style="bold")]
    if found.findings:
        parts += [_heading("Best: middle value (5th-95th percentile)"), _lines(found.findings)]
    for grid in found.grids:
        parts += [_heading(grid.name), *(_grid(part) for part in in_width(grid, width or WIDTH))]
    parts += [Padding(Text(words), (1, 0, 0, 2)) for words in found.remarks]
    if found.refused:
        parts += [_heading("Not priced"), _lines(found.refused)]
    if found.assumptions:
        parts += [_heading("Largest assumptions"), _assumptions(found.assumptions)]
    parts += [_heading("How to reproduce"), _lines(found.reproduce)]
    return draw(parts, color, width)


def _heading(words: str) -> RenderableType:
    return Padding(Text(words, style="bold cyan"), (1, 0, 0, 0))


def _aside(words: str) -> RenderableType:
    return Padding(Text(words, style="dim"), (0, 0, 0, 2))


def _lines(lines: Sequence[Line]) -> RenderableType:
    """Name, value and note in three columns; two where no line has a note."""
    noted = any(line.note for line in lines)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(min_width=_NAME_WIDTH, max_width=30, overflow="fold")
    if noted:
        longest = max(len(line.value) for line in lines)
        table.add_column(min_width=min(longest, _VALUE_WIDTH), max_width=_VALUE_WIDTH, overflow="fold")
    table.add_column(ratio=1, overflow="fold")
    for line in lines:
        notes = [Text(line.note, style="dim")] if noted else []
        table.add_row(Text(line.name), _marked(line.value), *notes)
    return Padding(table, (0, 0, 0, 2))


def _marked(value: str) -> Text:
    """A value in bold, its verdict on memory in colour."""
    text = Text(value, style="bold")
    for words, style in _MARKS.items():
        if value.endswith(f": {words}") or value == words:
            text.stylize(style, len(value) - len(words))
            break
    return text


def _assumptions(found: Sequence[Assumption]) -> RenderableType:
    if not found:
        return _aside("none")
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    for entry in found:
        words = Text(fmt.clipped(entry.text, _LONGEST))
        if entry.touches:
            words.append(f" ({entry.touches})", style="dim")
        if entry.advice:
            words.append(f"\n-> {entry.advice}", style="dim")
        table.add_row(Text(entry.topic), words)
    return Padding(table, (0, 0, 0, 2))


def _breakdown(rows: Sequence[Row]) -> RenderableType:
    if not rows:
        return _aside("not known for this answer")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("kind", overflow="fold")
    table.add_column("phase", overflow="fold")
    for name in ("time", "share", "work", "moved", "energy"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = (row.kind, row.phase, row.time, row.share, row.flop, row.moved, row.energy)
        table.add_row(*(Text(cell) for cell in cells))
    return Padding(table, (0, 0, 0, 2))


def in_width(grid: Grid, width: int) -> list[Grid]:
    """The grid cut into as many as it takes for every number to stay in one piece."""
    label = min(max(len(name) for name, _ in grid.rows), _LABEL_WIDTH)
    parts: list[list[int]] = [[]]
    left = width - label - 4
    for index in range(len(grid.columns)):
        needed = _least_width(grid, index) + 2
        if parts[-1] and needed > left:
            parts.append([])
            left = width - label - 4
        parts[-1].append(index)
        left -= needed
    return [_with_columns(grid, part) for part in parts]


def _least_width(grid: Grid, index: int) -> int:
    """Length of the longest word in a column."""
    cells = [grid.columns[index], *(cells[index] for _, cells in grid.rows)]
    return max(len(word) for cell in cells for word in cell.split())


def _with_columns(grid: Grid, chosen: Sequence[int]) -> Grid:
    columns = tuple(grid.columns[index] for index in chosen)
    rows = tuple((label, tuple(cells[index] for index in chosen)) for label, cells in grid.rows)
    return Grid(grid.name, columns, rows)


def _grid(grid: Grid) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("", overflow="fold", max_width=_LABEL_WIDTH)
    for index, column in enumerate(grid.columns):
        table.add_column(Text(column), justify="right", min_width=_least_width(grid, index))
    for label, cells in grid.rows:
        table.add_row(Text(label), *(_marked(cell) for cell in cells))
    return Padding(table, (0, 0, 0, 2))
