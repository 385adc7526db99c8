"""The report as text for a terminal, drawn by rich; text from outside is never read as markup."""

import io
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Literal

from rich.cells import cell_len
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
_INDENT, _GAP = 2, 2
_NAME_WIDTH, _VALUE_WIDTH, _LABEL_WIDTH = 17, 32, 24
_MARKS = {"does not fit": "bold red", "fits": "green", "no": "bold red", "yes": "green"}


def draw(parts: Iterable[RenderableType], color: bool, width: int) -> str:
    """The parts as text, without the environment having a say in it."""
    console = Console(
        file=io.StringIO(),
        width=width,
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
    wide = max(width or WIDTH, LEAST_WIDTH)
    more = len(found.further_assumptions)
    parts: list[RenderableType] = [
        Text(found.question, style="bold"),
        *(Text(f"Warning: {words}", style="bold red") for words in found.warnings),
        heading("One step: middle value (5th-95th percentile)"),
        name_and_value(found.step, wide),
        heading("Whole run"),
        name_and_value(found.run, wide),
        heading("How well it is known"),
        name_and_value(found.basis, wide),
        heading("Largest assumptions"),
        _assumptions(found.main_assumptions, wide),
        *([_aside(f"{more} more, and long ones in full: --format markdown, html or json")] if more else []),
        heading("Where the time of a step goes"),
        _breakdown(found.breakdown, wide),
        heading("How to reproduce"),
        name_and_value(found.reproduce, wide),
    ]
    return draw(parts, color, wide)


def render_comparison(found: Comparison, color: bool, width: int | None) -> str:
    """Several answers side by side."""
    wide = max(width or WIDTH, LEAST_WIDTH)
    parts: list[RenderableType] = [Text(found.question, style="bold")]
    if found.findings:
        parts += [heading("Best: middle value (5th-95th percentile)"), name_and_value(found.findings, wide)]
    for grid in found.grids:
        parts.append(heading(grid.name))
        for index, part in enumerate(in_width(grid, wide)):
            parts.append(Padding(_grid(part, wide), (min(index, 1), 0, 0, 0)))
    parts += [Padding(Text(words), (1, 0, 0, _INDENT)) for words in found.remarks]
    if found.refused:
        parts += [heading("Not priced"), name_and_value(found.refused, wide)]
    if found.assumptions:
        parts += [heading("Largest assumptions"), _assumptions(found.assumptions, wide)]
    parts += [heading("How to reproduce"), name_and_value(found.reproduce, wide)]
    return draw(parts, color, wide)


def heading(words: str) -> RenderableType:
    """A line that opens a section."""
    return Padding(Text(words, style="bold cyan"), (1, 0, 0, 0))


def _aside(words: str) -> RenderableType:
    return Padding(Text(words, style="dim"), (0, 0, 0, _INDENT))


def _table(widths: Sequence[int], right: Sequence[bool], header: Sequence[str] = ()) -> Table:
    """A table without lines whose columns have just these widths."""
    table = Table(
        box=None, padding=(0, _GAP, 0, 0), pad_edge=False, show_header=bool(header), header_style="dim"
    )
    for index, width in enumerate(widths):
        justify: Literal["left", "right"] = "right" if right[index] else "left"
        head = Text(header[index]) if header else ""
        table.add_column(head, width=width, justify=justify, overflow="fold")
    return table


def name_and_value(lines: Sequence[Line], width: int, style: str = "bold") -> RenderableType:
    """Name, value and note in three columns; a line without a note has the width for its value."""
    name = min(max(_NAME_WIDTH, *(cell_len(line.name) for line in lines)), _LABEL_WIDTH)
    noted = [cell_len(line.value) for line in lines if line.note]
    value = min(max(noted, default=0), _VALUE_WIDTH)
    left = width - _INDENT - name - _GAP
    tables = []
    for has_note, group in groupby(lines, lambda line: bool(line.note)):
        widths = [name, value, left - value - _GAP] if has_note else [name, left]
        table = _table(widths, [False] * len(widths))
        for line in group:
            cells = [Text(line.name), _marked(line.value, style), Text(line.note, style="dim")]
            table.add_row(*cells[: len(widths)])
        tables.append(_indented(table))
    return Group(*tables)


def _marked(value: str, style: str = "bold") -> Text:
    """A value in bold, its verdict on memory in colour."""
    text = Text(value, style=style)
    for words, color in _MARKS.items():
        if value.endswith(f": {words}") or value == words:
            text.stylize(color, len(value) - len(words))
            break
    return text


def _assumptions(found: Sequence[Assumption], width: int) -> RenderableType:
    if not found:
        return _aside("none")
    topic = min(max(_NAME_WIDTH, *(cell_len(entry.topic) for entry in found)), _LABEL_WIDTH)
    table = _table([topic, width - _INDENT - topic - _GAP], [False, False])
    for entry in found:
        words = Text(fmt.clipped(entry.text, _LONGEST))
        if entry.touches:
            words.append(f" ({entry.touches})", style="dim")
        if entry.advice:
            words.append(f"\n-> {entry.advice}", style="dim")
        table.add_row(Text(entry.topic), words)
    return _indented(table)


def _breakdown(rows: Sequence[Row], width: int) -> RenderableType:
    """Numbers in one piece; a long kind folds."""
    if not rows:
        return _aside("not known for this answer")
    head = ("kind", "phase", "time", "share", "work", "moved", "energy")
    cells = [(r.kind, r.phase, r.time, r.share, r.flop, r.moved, r.energy) for r in rows]
    widths = [max(cell_len(line[index]) for line in [head, *cells]) for index in range(len(head))]
    widths[0] = min(widths[0], max(10, width - _INDENT - sum(widths[1:]) - _GAP * (len(head) - 1)))
    table = _table(widths, [False, False, *[True] * 5], head)
    for line in cells:
        table.add_row(*(Text(cell) for cell in line))
    return _indented(table)


def in_width(grid: Grid, width: int) -> list[Grid]:
    """The grid cut into as many as it takes for every number to stay in one piece."""
    room = width - _INDENT - _label_width(grid)
    parts: list[list[int]] = [[]]
    left = room
    for index in range(len(grid.columns)):
        needed = _column_width(grid, index, str.split) + _GAP
        if parts[-1] and needed > left:
            parts.append([])
            left = room
        parts[-1].append(index)
        left -= needed
    return [_with_columns(grid, part) for part in parts]


def _label_width(grid: Grid) -> int:
    return min(max(cell_len(label) for label, _ in grid.rows), _LABEL_WIDTH)


def _column_width(grid: Grid, index: int, split: Callable[[str], list[str]]) -> int:
    """Width of the longest piece of a column; its heading is always split into words."""
    pieces = [piece for _, cells in grid.rows for piece in split(cells[index])]
    return max(cell_len(piece) for piece in [*grid.columns[index].split(), *pieces])


def _with_columns(grid: Grid, chosen: Sequence[int]) -> Grid:
    columns = tuple(grid.columns[index] for index in chosen)
    rows = tuple((label, tuple(cells[index] for index in chosen)) for label, cells in grid.rows)
    return Grid(grid.name, columns, rows)


def _grid(grid: Grid, width: int) -> RenderableType:
    """One line per candidate where there is room, else the ranges below the middle values."""
    indices = range(len(grid.columns))
    label = _label_width(grid)
    whole = [_column_width(grid, index, lambda cell: [cell]) for index in indices]
    if _INDENT + label + sum(whole) + _GAP * len(whole) > width:
        whole = [_column_width(grid, index, str.split) for index in indices]
    table = _table([label, *whole], [False, *[True] * len(whole)], ["", *grid.columns])
    for name, cells in grid.rows:
        table.add_row(Text(name), *(_marked(cell) for cell in cells))
    return _indented(table)


def _indented(table: Table) -> RenderableType:
    return Padding(table, (0, 0, 0, _INDENT))
