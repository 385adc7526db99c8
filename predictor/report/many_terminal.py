"""The ranked table of many candidates as text for a terminal: one line per candidate, whatever the width.

What has no room is left out and named, the least telling first; ranges come back as the width allows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, chop_cells
from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from predictor.report import format as fmt
from predictor.report.content import Assumption, Line
from predictor.report.many import MARK, Cell, Column, Entry, Many
from predictor.report.terminal import LEAST_WIDTH, draw, heading, name_and_value

WIDTH = 100
_GAP = 2
_LABEL_MOST = 48
_TOPICS = 6
_LONGEST = 160
_CUT = " ..."
_MORE = "--format markdown, html or json"


@dataclass(frozen=True, slots=True)
class Slot:
    """A column as it is drawn: its place in a row, widths of the middle values and of the ranges."""

    index: int
    mid: int
    spread: int
    words: tuple[str, ...]

    @property
    def width(self) -> int:
        """Of the whole column, without the gap before it."""
        return max(self.mid + (self.spread and self.spread + 1), *(cell_len(word) for word in self.words))


def render_many(found: Many, color: bool, width: int | None) -> str:
    """The whole report."""
    wide = max(width or WIDTH, LEAST_WIDTH)
    label, slots = layout(found, wide)
    parts: list[RenderableType] = [Text(found.question, style="bold"), Text(found.counts)]
    if found.findings:
        best = [Line(line.name, f"{line.value}; {line.note}") for line in found.findings]
        parts += [heading("Best: middle value (5th-95th percentile)"), name_and_value(best, wide, "not bold")]
    parts += [heading("Candidates, fastest first"), *_table(found, label, slots, wide)]
    parts.append(Text())
    parts += [Text(words) for words in (*_left_out(found, slots), *found.remarks)]
    if found.assumptions:
        parts += [heading("Assumed"), *_assumed(found.assumptions, wide)]
    parts += [heading("How to reproduce"), name_and_value(found.reproduce, wide)]
    return draw(parts, color, wide)


def layout(found: Many, width: int) -> tuple[int, tuple[Slot, ...]]:
    """Width of the labels and the columns that have room, in reading order."""
    entries = [entry for part in found.parts for entry in part.entries]
    full = [_slot(column, index, entries) for index, column in enumerate(found.columns)]
    order = sorted(full, key=lambda slot: found.columns[slot.index].rank)
    names = [entry.label for entry in entries] + [line.name for line in found.refused]
    least = _GAP + _bare(order[0]).width if order else 0
    longest = max((cell_len(name) for name in names), default=0)
    label = max(min(longest, _LABEL_MOST, width - least), 1)
    room = width - label
    kept: dict[int, Slot] = {}
    for slot in order[:1]:
        kept[slot.index] = slot if slot.width + _GAP <= room else _bare(slot)
    for slot in order[1:]:
        if _needed({**kept, slot.index: _bare(slot)}) <= room:
            kept[slot.index] = _bare(slot)
    for slot in order:
        if slot.index in kept and _needed({**kept, slot.index: slot}) <= room:
            kept[slot.index] = slot
    return label, tuple(kept[index] for index in sorted(kept))


def _slot(column: Column, index: int, entries: Sequence[Entry]) -> Slot:
    cells = [entry.cells[index] for entry in entries]
    mid = max((cell_len(cell.mid) for cell in cells), default=0)
    spread = max((cell_len(cell.spread) for cell in cells), default=0)
    return Slot(index, mid, spread, tuple(column.heading.split()))


def _bare(slot: Slot) -> Slot:
    """The column without its ranges."""
    return Slot(slot.index, slot.mid, 0, slot.words)


def _needed(slots: dict[int, Slot]) -> int:
    return sum(_GAP + slot.width for slot in slots.values())


def _table(found: Many, label: int, slots: Sequence[Slot], width: int) -> Iterator[RenderableType]:
    """Headings, then each part of the table under its name, refused candidates last."""
    for line in range(rows := max((len(slot.words) for slot in slots), default=0)):
        words = [_word(slot, line - rows + len(slot.words)) for slot in slots]
        yield Text(" " * label + "".join(words), style="dim")
    for part in found.parts:
        yield _part(part.name, "bold red" if part.entries[0].fits == "no" else "bold")
        for entry in part.entries:
            cells = [_cell(entry.cells[slot.index], slot) for slot in slots]
            yield _row(entry.label, label, cells, entry.marked)
    if found.refused:
        yield _part(f"Not priced ({len(found.refused):,})", "bold")
    for refusal in found.refused:
        reason = fmt.clipped(refusal.value, width - label - _GAP - len(_CUT))
        yield _row(refusal.name, label, [" " * _GAP + reason])


def _part(name: str, style: str) -> RenderableType:
    return Padding(Text(name, style=style), (1, 0, 0, 0))


def _word(slot: Slot, line: int) -> str:
    word = slot.words[line] if line >= 0 else ""
    return " " * (_GAP + slot.width - cell_len(word)) + word


def _cell(cell: Cell, slot: Slot) -> str:
    """Middle values to the right, ranges to the left, so that both stand below each other."""
    own = cell.mid.rjust(slot.mid)
    if slot.spread:
        own += " " + cell.spread.ljust(slot.spread)
    return " " * _GAP + own.rjust(slot.width)


def _row(name: str, label: int, cells: Sequence[str], marked: bool = False) -> Text:
    """A name longer than its column goes on in the next line; its mark stands in the gap at the latest."""
    *before, last = chop_cells(name, label) or [""]
    last += MARK if marked else ""
    line = last + " " * (label + 1 - cell_len(last)) + "".join(cells)[1:]
    return Text("\n".join([*before, line.rstrip()]), no_wrap=True, overflow="ignore")


def _left_out(found: Many, slots: Sequence[Slot]) -> list[str]:
    """What the width has no room for."""
    shown = {slot.index for slot in slots}
    missing = [column.name for index, column in enumerate(found.columns) if index not in shown]
    spread = {
        index
        for part in found.parts
        for entry in part.entries
        for index, cell in enumerate(entry.cells)
        if cell.spread
    }
    bare = [found.columns[slot.index].name for slot in slots if not slot.spread and slot.index in spread]
    words = ", ".join([*missing, *([f"ranges of {', '.join(bare)}"] if bare else [])])
    return [f"Left out for want of room: {words}. See a wider terminal or {_MORE}."] if words else []


def _assumed(found: Sequence[Assumption], width: int) -> Iterator[RenderableType]:
    """The topics that touch most, in few words; the others by name."""
    lines = [Line(entry.topic, " ".join(_words(entry))) for entry in found[:_TOPICS]]
    yield name_and_value(lines, width, "not bold")
    if rest := [entry.topic for entry in found[_TOPICS:]]:
        words = f"And about {fmt.listed(rest, len(rest))}; in full: {_MORE}."
        yield Padding(Text(words, style="dim"), (0, 0, 0, _GAP))


def _words(entry: Assumption) -> Iterator[str]:
    yield fmt.clipped(entry.text, _LONGEST)
    if entry.touches:
        yield f"({entry.touches})"
    if entry.advice:
        yield f"-> {entry.advice}"
