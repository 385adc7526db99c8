"""What a report says about many answers: one table, one row per candidate, the fastest first.

From MANY candidates on, side by side means searching; a list that is ranked can be read from the top.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low

from predictor.answer import Estimate, LedgerEntry, Range
from predictor.report import format as fmt
from predictor.report.assumed import together
from predictor.report.comparison import (
    RUN_FIGURES,
    Candidate,
    Figure,
    common_question,
    findings,
    shared_origin,
)
from predictor.report.content import Assumption, Line
from predictor.units import GIGA, KILO, MEGA

MANY = 7
MARK = "*"
ABSENT = "-"
_UNUSED = "that no answer rests on"

# A table of rates from 0.3 to 200 thousand tokens/s reads better in thousands than with all its zeros
_RATE: fmt.Ladder = (
    fmt.Rung("", 1.0),
    fmt.Rung("thousand", KILO, KILO),
    fmt.Rung("million", MEGA, MEGA),
    fmt.Rung("billion", GIGA, GIGA),
)
_TOKENS = Figure("tokens/s", "step.tokens_per_s", _RATE, "fastest", "tokens/s")
_SAMPLES = Figure("samples/s", "step.samples_per_s", _RATE, "fastest", "samples/s")
_STEP_TIME = Figure("step time", "step.time_s", fmt.SECONDS)
_MEMORY = Figure("peak memory", "step.peak_memory_bytes.device", fmt.BYTES)
_POWER = Figure("power", "step.accelerator_power_w", fmt.WATT)
_RUN = tuple(figure for figure in RUN_FIGURES if figure.best)
_CAPACITY = "memory capacity"
# What a narrow terminal keeps first
_WEIGHT = ("tokens/s", "samples/s", "peak memory", _CAPACITY, *(f.name for f in _RUN), "step time", "power")


@dataclass(frozen=True, slots=True)
class Cell:
    """A middle value and its range in brackets, in the unit of the column; both may be empty."""

    mid: str
    spread: str = ""

    @property
    def text(self) -> str:
        """Both together."""
        return f"{self.mid} {self.spread}".rstrip()


@dataclass(frozen=True, slots=True)
class Column:
    """A quantity: its name, the heading with its unit, and how early a narrow terminal keeps it."""

    name: str
    heading: str
    rank: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One candidate; ``marked`` when its answer rests on figures from memory."""

    label: str
    cells: tuple[Cell, ...]
    fits: str
    marked: bool

    @property
    def name(self) -> str:
        """The label with its mark."""
        return f"{self.label} {MARK}" if self.marked else self.label


@dataclass(frozen=True, slots=True)
class Part:
    """Candidates with the same verdict on memory, fastest first."""

    name: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Many:
    """The whole report in reading order."""

    title: str
    question: str
    counts: str
    findings: tuple[Line, ...]
    columns: tuple[Column, ...]
    parts: tuple[Part, ...]
    refused: tuple[Line, ...]
    remarks: tuple[str, ...]
    assumptions: tuple[Assumption, ...]
    reproduce: tuple[Line, ...]


def many_of(answers: Sequence[tuple[str, Estimate | str]]) -> Many:
    """The report of the answers; their own order only decides between equals."""
    place = shared_place([label for label, _ in answers])
    named = [(fmt.plain(label.removesuffix(place)), found) for label, found in answers]
    priced = [(label, found) for label, found in named if not isinstance(found, str)]
    refused = [(label, found) for label, found in named if isinstance(found, str)]
    figures = _figures(priced)
    order = sorted(priced, key=lambda pair: -_mid(figures[0], pair[1]))
    entries, columns = _entries(figures, order)
    parts = _parts(entries)
    return Many(
        title=f"Comparison of {len(answers)} candidates",
        question=common_question(priced),
        counts=_counts(f"{len(answers):,} candidates{place and f' {fmt.plain(place)}'}", parts, len(refused)),
        findings=findings(priced, figures),
        columns=columns,
        parts=parts,
        refused=tuple(Line(label, short_reason(label, message)) for label, message in refused),
        remarks=_remarks(priced, entries),
        assumptions=together(priced),
        reproduce=_reproduce(priced),
    )


def shared_place(labels: Sequence[str]) -> str:
    """The end " / PLACE" that all labels have, to be said once.

    >>> shared_place(["x1 / FR", "x2 / FR"]), shared_place(["x1 / FR", "x1 / PL"]), shared_place(["x1", "x2"])
    (' / FR', '', '')
    """
    ends = {"".join(label.rpartition(" / ")[1:]) for label in labels if " / " in label}
    one = len(ends) == 1 and all(" / " in label for label in labels)
    return ends.pop() if one else ""


def _figures(priced: Sequence[Candidate]) -> tuple[Figure, ...]:
    """The rate that suits the model, then step, and the run where one was asked for."""
    rate = _TOKENS if any(answer.step.tokens_per_s for _, answer in priced) else _SAMPLES
    run = _RUN if any(answer.run for _, answer in priced) else ()
    return (rate, _STEP_TIME, _MEMORY, _POWER, *run)


def _mid(figure: Figure, answer: Estimate) -> float:
    found = figure.pick(answer)
    return found.mid if found else 0.0


def _entries(
    figures: Sequence[Figure], order: Sequence[Candidate]
) -> tuple[tuple[Entry, ...], tuple[Column, ...]]:
    """A row per candidate and the headings; a column has the unit of its middle candidate."""
    columns, cells = [], []
    for figure in figures:
        found = [figure.pick(answer) for _, answer in order]
        known = [value.mid for value in found if value]
        rung = fmt.rung_for(median_low(known), figure.ladder) if known else fmt.Rung("", 1.0)
        columns.append(Column(figure.name, _heading(figure, rung), _WEIGHT.index(figure.name)))
        cells.append([_cell(figure, value, rung) for value in found])
        if figure is _MEMORY:
            columns.append(Column(_CAPACITY, f"of [{rung.unit}]", _WEIGHT.index(_CAPACITY)))
            cells.append([_capacity(answer, rung) for _, answer in order])
    entries = tuple(
        Entry(label, tuple(row), _FITS[answer.step.fits], _remembers(answer))
        for (label, answer), row in zip(order, zip(*cells, strict=True), strict=True)
    )
    return entries, tuple(columns)


def _heading(figure: Figure, rung: fmt.Rung) -> str:
    """Name and unit; a rate is its own unit."""
    if figure.unit:
        return f"{rung.unit} {figure.unit}".strip()
    return f"{figure.name} [{rung.unit}]" if rung.unit else figure.name


def _cell(figure: Figure, found: Range | None, rung: fmt.Rung) -> Cell:
    """Memory has three digits: whether it fits is often decided by the third."""
    if found is None:
        return Cell(ABSENT)
    digits = 3 if figure is _MEMORY else 2
    return Cell(fmt.significant(found.mid / rung.size, digits), fmt.interval(found, rung.size))


def _capacity(answer: Estimate, rung: fmt.Rung) -> Cell:
    there = answer.machine.memory_bytes
    return Cell(ABSENT if there is None else fmt.significant(there / rung.size, 3))


_FITS = {True: "yes", False: "no", None: fmt.UNKNOWN}
_PARTS = {
    "yes": "Fits in memory",
    fmt.UNKNOWN: "Memory capacity unknown",
    "no": "Does not fit in memory; figures as if it did",
}


def _parts(entries: Sequence[Entry]) -> tuple[Part, ...]:
    found = {fits: tuple(entry for entry in entries if entry.fits == fits) for fits in _PARTS}
    return tuple(Part(f"{_PARTS[fits]} ({len(same):,})", same) for fits, same in found.items() if same)


def _counts(total: str, parts: Sequence[Part], refused: int) -> str:
    words = {"yes": "fit", fmt.UNKNOWN: "of unknown capacity", "no": "do not fit"}
    found = [f"{len(part.entries):,} {words[part.entries[0].fits]}" for part in parts]
    found += [f"{refused:,} not priced"] if refused else []
    return f"{total}: {', '.join(found)}."


def _remembers(answer: Estimate) -> bool:
    """Whether a figure that the answer rests on was typed from memory."""
    return any(_rests_on_memory(entry) for entry in answer.ledger)


def _rests_on_memory(entry: LedgerEntry) -> bool:
    figures = entry.text.rpartition(": ")[2]
    only_unused = figures.endswith(_UNUSED) and ";" not in figures
    return entry.topic == "profile" and "from memory" in entry.text and not only_unused


def short_reason(label: str, message: str) -> str:
    """Why a candidate was refused, without its name and without what to do next.

    >>> short_reason("x1", "x1 cannot train: analog memory; use --mode infer\\nsee x2")
    'cannot train: analog memory'
    >>> short_reason("x1", "x1 cannot be priced: its profile lacks memory.bandwidth")
    'its profile lacks memory.bandwidth'
    """
    first = fmt.plain(message.strip().partition("\n")[0])
    name = label.partition(" / ")[0]
    return first.removeprefix(f"{name} ").removeprefix("cannot be priced: ").partition("; use --")[0]


def _remarks(priced: Sequence[Candidate], entries: Sequence[Entry]) -> tuple[str, ...]:
    remarks = []
    marked = sum(entry.marked for entry in entries)
    if marked:
        which = "which: predictor hardware show ID"
        remarks.append(
            f"{MARK} rests on figures from memory, not checked against a source ({marked:,}); {which}"
        )
    if any(cell.mid == ABSENT for entry in entries for cell in entry.cells):
        remarks.append(f"{ABSENT} not known")
    without = sum(answer.run is None for _, answer in priced)
    if without:
        who = "" if without == len(priced) else f" ({without:,} candidates)"
        remarks.append(f"Whole run {fmt.NOT_ASKED}{who}.")
    return tuple(remarks)


def _reproduce(priced: Sequence[Candidate]) -> tuple[Line, ...]:
    """What is the same for all; hashes of hundreds are for programs."""
    lines = shared_origin(priced)
    return (*lines, Line("input hashes", "one per candidate: --format json")) if priced else tuple(lines)
