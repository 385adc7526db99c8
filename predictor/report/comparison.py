"""What a report says about several answers side by side, before any format gives it its looks.

A column has one unit for all candidates, so that the eye can compare.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Any

from predictor.answer import Estimate, LedgerEntry, Range
from predictor.report import format as fmt
from predictor.report.content import TOP_ASSUMPTIONS, Assumption, Line, assumption, largest_first
from predictor.report.question import circumstances, division, machine, sentence, subject

Candidate = tuple[str, Estimate]


@dataclass(frozen=True, slots=True)
class Grid:
    """One table: a row per candidate."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The whole comparison in reading order."""

    title: str
    question: str
    findings: tuple[Line, ...]
    grids: tuple[Grid, ...]
    remarks: tuple[str, ...]
    refused: tuple[Line, ...]
    assumptions: tuple[Assumption, ...]
    reproduce: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A quantity to compare: its key in the answer, units, what the best is called, what None says."""

    name: str
    key: str
    ladder: fmt.Ladder
    best: str = ""
    unit: str = ""
    missing: str = fmt.UNKNOWN

    def pick(self, answer: Estimate) -> Range | None:
        """The quantity's range, or None where any part on the way to it is None."""
        value: Any = answer
        for name in self.key.split("."):
            value = getattr(value, name)
            if value is None:
                return None
        return Range.model_validate(value)


STEP_FIGURES = (
    Figure("step time", "step.time_s", fmt.SECONDS),
    Figure("samples/s", "step.samples_per_s", fmt.PLAIN, "fastest", "samples/s"),
    Figure("tokens/s", "step.tokens_per_s", fmt.PLAIN, missing="no tokens"),
    Figure("MFU", "step.mfu", fmt.PERCENT),
    Figure("peak memory", "step.peak_memory_bytes.device", fmt.BYTES),
)
RUN_FIGURES = (
    Figure("run time", "run.time_s.wall", fmt.SECONDS, "shortest run"),
    Figure("accelerator-hours", "run.accelerator_hours", fmt.PLAIN),
    Figure("energy", "run.energy_kwh.facility", fmt.KWH, "least energy"),
    Figure("carbon (CO2e)", "run.carbon_kgco2e.total", fmt.KG, "least carbon"),
    Figure("cost", "run.cost_usd", fmt.USD, "least cost"),
)
ORIGIN_FIGURES = (
    Figure("location-based electricity", "run.carbon_kgco2e.operational.location", fmt.KG),
    Figure("market-based electricity", "run.carbon_kgco2e.operational.market", fmt.KG),
    Figure("making the hardware", "run.carbon_kgco2e.embodied", fmt.KG),
    Figure("water on site", "run.water_l.on_site", fmt.LITRE),
    Figure("water off site", "run.water_l.off_site", fmt.LITRE),
)


def split(answers: Sequence[tuple[str, Estimate | str]]) -> tuple[list[Candidate], list[tuple[str, str]]]:
    """The candidates that were priced, and those refused with their message."""
    priced = [(fmt.plain(label), found) for label, found in answers if not isinstance(found, str)]
    refused = [(fmt.plain(label), _one_line(found)) for label, found in answers if isinstance(found, str)]
    return priced, refused


def _one_line(message: str) -> str:
    return fmt.plain("; ".join(message.splitlines()))


def comparison_of(answers: Sequence[tuple[str, Estimate | str]]) -> Comparison:
    """The comparison of the answers, in the order given."""
    priced, refused = split(answers)
    return Comparison(
        title=f"Comparison of {len(answers)} candidates",
        question=common_question(priced),
        findings=findings(priced, (*STEP_FIGURES, *RUN_FIGURES)),
        grids=_grids(priced),
        remarks=_remarks(priced),
        refused=tuple(Line(label, message) for label, message in refused),
        assumptions=_shared_assumptions(priced),
        reproduce=_reproduce(priced),
    )


def common_question(priced: Sequence[Candidate]) -> str:
    """What is the same in all candidates, in one sentence."""
    if not priced:
        return "No candidate could be priced."
    answers = [answer for _, answer in priced]
    about = list(dict.fromkeys(subject(answer) for answer in answers))
    where = {machine(answer) for answer in answers}
    words = [w for w in circumstances(answers[0]) if all(w in circumstances(other) for other in answers)]
    return sentence(fmt.listed(about, 3, "; "), where.pop() if len(where) == 1 else "", words)


def fitting(priced: Sequence[Candidate]) -> list[Candidate]:
    """Candidates that are not known to run out of memory."""
    return [(label, answer) for label, answer in priced if answer.step.fits is not False]


def ranked(figure: Figure, priced: Sequence[Candidate]) -> list[tuple[str, Range]]:
    """Label and range of those that fit and have the figure, best first."""
    found = [(label, figure.pick(answer)) for label, answer in fitting(priced)]
    known = [(label, value) for label, value in found if value is not None]
    sign = -1.0 if figure.name.endswith("/s") else 1.0
    return sorted(known, key=lambda pair: sign * pair[1].mid)


def groups(figure: Figure, priced: Sequence[Candidate]) -> list[tuple[list[str], Range]]:
    """Candidates that read the same are one group, best first."""
    found: dict[str, tuple[list[str], Range]] = {}
    for label, value in ranked(figure, priced):
        found.setdefault(fmt.quantity(value.mid, figure.ladder), ([], value))[0].append(label)
    return list(found.values())


def findings(priced: Sequence[Candidate], figures: Sequence[Figure]) -> tuple[Line, ...]:
    """The best and the next of each figure in which the candidates differ."""
    lines = []
    for figure in figures:
        order = groups(figure, priced) if figure.best else []
        if len(order) > 1:
            first, second = (_finding(figure, labels, value) for labels, value in order[:2])
            lines.append(Line(figure.best, first, f"next {second}"))
    return tuple(lines)


def _finding(figure: Figure, labels: list[str], value: Range) -> str:
    return f"{_several(labels)}: {fmt.ranged(value, figure.ladder, figure.unit)}"


def _grids(priced: Sequence[Candidate]) -> tuple[Grid, ...]:
    if not priced:
        return ()
    tokens = any(answer.step.tokens_per_s for _, answer in priced)
    step = [figure for figure in STEP_FIGURES if tokens or figure.name != "tokens/s"]
    grids = [_with_fit(_grid("One step", step, priced), priced)]
    asked = [(label, answer) for label, answer in priced if answer.run]
    if asked:
        grids.append(_grid("Whole run", RUN_FIGURES, asked))
        grids.append(_grid("Carbon (CO2e) by origin, water", ORIGIN_FIGURES, asked))
    return tuple(grids)


def _grid(name: str, figures: Sequence[Figure], priced: Sequence[Candidate]) -> Grid:
    """A table in which figures of one ladder have one unit, that of the first one's middle candidate."""
    found = {figure.key: [figure.pick(answer) for _, answer in priced] for figure in figures}
    columns = []
    for figure in figures:
        alike = [found[other.key] for other in figures if other.ladder is figure.ladder]
        leading = next((ranges for ranges in alike if any(ranges)), [])
        mids = [value.mid for value in leading if value]
        columns.append(_column(figure, found[figure.key], mids))
    rows = tuple(
        (label, tuple(cells[index] for _, cells in columns)) for index, (label, _) in enumerate(priced)
    )
    return Grid(name, tuple(head for head, _ in columns), rows)


def _column(figure: Figure, found: Sequence[Range | None], mids: Sequence[float]) -> tuple[str, list[str]]:
    """Heading with the column's unit, and its cells."""
    if not any(found):
        return figure.name, [figure.missing] * len(found)
    rung = fmt.rung_for(median_low(mids), figure.ladder)
    head = f"{figure.name} [{rung.unit}]" if rung.unit else figure.name
    return head, [figure.missing if value is None else fmt.in_rung(value, rung) for value in found]


_FITS = {True: "yes", False: "no", None: fmt.UNKNOWN}


def _with_fit(grid: Grid, priced: Sequence[Candidate]) -> Grid:
    rows = tuple(
        (label, (*cells, _FITS[answer.step.fits]))
        for (label, cells), (_, answer) in zip(grid.rows, priced, strict=True)
    )
    return Grid(grid.name, (*grid.columns, "fits"), rows)


def _remarks(priced: Sequence[Candidate]) -> tuple[str, ...]:
    remarks = []
    too_large = [label for label, answer in priced if answer.step.fits is False]
    if too_large:
        remarks.append(f"Does not fit, so neither among the best nor in plots: {_several(too_large)}.")
    without = [label for label, answer in priced if answer.run is None]
    if without:
        who = "" if len(without) == len(priced) else f" ({_several(without)})"
        remarks.append(f"Whole run {fmt.NOT_ASKED}{who}.")
    return tuple(remarks)


def _several(labels: list[str]) -> str:
    return fmt.listed(labels, 3, "; ")


def _shared_assumptions(priced: Sequence[Candidate]) -> tuple[Assumption, ...]:
    """The largest assumption of each of the largest topics, with the candidates it is about."""
    entries = largest_first([entry for _, answer in priced for entry in answer.ledger])
    first = {entry.topic: entry for entry in reversed(entries)}
    topics = list(dict.fromkeys(entry.topic for entry in entries))[:TOP_ASSUMPTIONS]
    return tuple(_about(first[topic], priced) for topic in topics)


def _about(entry: LedgerEntry, priced: Sequence[Candidate]) -> Assumption:
    """One assumption, the candidates that share it, and those that have another of its topic."""
    same = [label for label, answer in priced if any(e.text == entry.text for e in answer.ledger)]
    alike = [
        label
        for label, answer in priced
        if label not in same and any(e.topic == entry.topic for e in answer.ledger)
    ]
    words = assumption(entry)
    who = "" if len(same) == len(priced) else f"{_several(same)}: "
    others = f"; alike for {_several(alike)}" if alike else ""
    return Assumption(words.topic, who + words.text + others, words.touches, words.advice)


def shared_origin(priced: Sequence[Candidate]) -> list[Line]:
    """The command where all have one, the version and the date of the data."""
    made = [answer.provenance for _, answer in priced]
    commands = sorted({fmt.plain(p.command) for p in made if p.command})
    return [
        *([Line("command", commands[0])] if len(commands) == 1 else []),
        Line("predictor", fmt.listed(sorted({fmt.plain(p.version) for p in made})) or fmt.UNKNOWN),
        Line("data of", fmt.listed(sorted({fmt.plain(p.data_date) for p in made})) or fmt.UNKNOWN),
    ]


def _reproduce(priced: Sequence[Candidate]) -> tuple[Line, ...]:
    """What is the same for all once, then what was asked for each candidate."""
    lines = shared_origin(priced)
    shared = lines[0].name == "command"
    for label, answer in priced:
        words = "; ".join([machine(answer), *division(answer.plan)])
        own = "" if shared else fmt.plain(answer.provenance.command)
        note = f"hash {fmt.plain(answer.provenance.input_hash)}" + (f"; {own}" if own else "")
        lines.append(Line(label, words, note))
    return tuple(lines)
