"""What a report says about several answers side by side, before any format gives it its looks.

A column has one unit for all candidates, so that the eye can compare.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median_low

from predictor.answer import Estimate, Range, RunPart
from predictor.report import format as fmt
from predictor.report.content import (
    FITS,
    TOP_ASSUMPTIONS,
    Assumption,
    Line,
    assumption,
    division,
    largest_first,
    machine,
    question,
)

Candidate = tuple[str, Estimate]
_Pick = Callable[[Estimate], Range | None]


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
    """A quantity to compare: how to find it, its units, what the best is called, and what None says."""

    name: str
    pick: _Pick
    ladder: fmt.Ladder
    best: str = ""
    unit: str = ""
    missing: str = fmt.UNKNOWN


def _of_run(pick: Callable[[RunPart], Range | None]) -> _Pick:
    return lambda answer: pick(answer.run) if answer.run else None


STEP_FIGURES = (
    Figure("step time", lambda a: a.step.time_s, fmt.SECONDS),
    Figure("samples/s", lambda a: a.step.samples_per_s, fmt.PLAIN, "fastest", "samples/s"),
    Figure("tokens/s", lambda a: a.step.tokens_per_s, fmt.PLAIN, missing="no tokens"),
    Figure("MFU", lambda a: a.step.mfu, fmt.PERCENT),
    Figure("peak memory", lambda a: a.step.peak_memory_bytes.device, fmt.BYTES),
)
RUN_FIGURES = (
    Figure("run time", _of_run(lambda r: r.time_s.wall), fmt.SECONDS, "shortest run"),
    Figure("accelerator-hours", _of_run(lambda r: r.accelerator_hours), fmt.PLAIN),
    Figure("energy", _of_run(lambda r: r.energy_kwh and r.energy_kwh.facility), fmt.KWH, "least energy"),
    Figure(
        "carbon (CO2e)", _of_run(lambda r: r.carbon_kgco2e and r.carbon_kgco2e.total), fmt.KG, "least carbon"
    ),
    Figure("cost", _of_run(lambda r: r.cost_usd), fmt.USD, "least cost"),
)
ORIGIN_FIGURES = (
    Figure(
        "electricity by location",
        _of_run(lambda r: r.carbon_kgco2e and r.carbon_kgco2e.operational.location),
        fmt.KG,
    ),
    Figure(
        "electricity by market",
        _of_run(lambda r: r.carbon_kgco2e and r.carbon_kgco2e.operational.market),
        fmt.KG,
    ),
    Figure("making the hardware", _of_run(lambda r: r.carbon_kgco2e and r.carbon_kgco2e.embodied), fmt.KG),
    Figure("water on site", _of_run(lambda r: r.water_l and r.water_l.on_site), fmt.LITRE),
    Figure("water off site", _of_run(lambda r: r.water_l and r.water_l.off_site), fmt.LITRE),
)


def split(answers: Sequence[tuple[str, Estimate | str]]) -> tuple[list[Candidate], list[tuple[str, str]]]:
    """The candidates that were priced, and those refused with their message."""
    priced = [(fmt.plain(label), found) for label, found in answers if not isinstance(found, str)]
    refused = [(fmt.plain(label), fmt.plain("; ".join(found.splitlines()))) for label, found in answers if isinstance(found, str)]
    return priced, refused


def comparison(answers: Sequence[tuple[str, Estimate | str]]) -> Comparison:
    """The comparison of the answers, in the order given."""
    priced, refused = split(answers)
    return Comparison(
        title=f"Comparison of {len(answers)} candidates",
        question=_question(priced, len(answers)),
        findings=_findings(priced),
        grids=_grids(priced),
        remarks=_remarks(priced),
        refused=tuple(Line(label, message) for label, message in refused),
        assumptions=_shared_assumptions(priced),
        reproduce=_reproduce(priced),
    )


def _question(priced: Sequence[Candidate], total: int) -> str:
    """What is the same in all candidates, in one sentence."""
    asked = {question(answer) for _, answer in priced}
    if len(asked) == 1:
        return f"{total} candidates: {asked.pop()}"
    names = sorted({fmt.plain(answer.model.name) for _, answer in priced})
    return f"{total} candidates" + (f" for {fmt.listed(names, 3)}." if names else ", none of them priced.")


def fitting(priced: Sequence[Candidate]) -> list[Candidate]:
    """Candidates that are not known to run out of memory."""
    return [(label, answer) for label, answer in priced if answer.step.fits is not False]


def ranked(figure: Figure, priced: Sequence[Candidate]) -> list[tuple[str, Range]]:
    """Label and range of those that fit and have the figure, best first."""
    found = [(label, figure.pick(answer)) for label, answer in fitting(priced)]
    known = [(label, value) for label, value in found if value is not None]
    sign = -1.0 if figure.name.endswith("/s") else 1.0
    return sorted(known, key=lambda pair: sign * pair[1].mid)


def _findings(priced: Sequence[Candidate]) -> tuple[Line, ...]:
    figures = [f for f in (*STEP_FIGURES, *RUN_FIGURES) if f.best]
    lines = []
    for figure in figures:
        order = ranked(figure, priced)
        if len(order) > 1:
            (label, best), (next_label, following) = order[:2]
            value = f"{label}: {fmt.ranged(best, figure.ladder, figure.unit)}"
            lines.append(
                Line(figure.best, value, f"next {next_label}: {fmt.ranged(following, figure.ladder, figure.unit)}")
            )
    return tuple(lines)


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
    columns = [_column(figure, priced) for figure in figures]
    rows = tuple(
        (label, tuple(cells[index] for _, cells in columns)) for index, (label, _) in enumerate(priced)
    )
    return Grid(name, tuple(head for head, _ in columns), rows)


def _with_fit(grid: Grid, priced: Sequence[Candidate]) -> Grid:
    rows = tuple(
        (label, (*cells, FITS[answer.step.fits]))
        for (label, cells), (_, answer) in zip(grid.rows, priced, strict=True)
    )
    return Grid(grid.name, (*grid.columns, "memory"), rows)


def _column(figure: Figure, priced: Sequence[Candidate]) -> tuple[str, list[str]]:
    """Heading with the column's unit, and its cells."""
    found = [figure.pick(answer) for _, answer in priced]
    mids = [value.mid for value in found if value is not None]
    if not mids:
        return figure.name, [figure.missing] * len(found)
    rung = fmt.rung_for(median_low(mids), figure.ladder)
    head = f"{figure.name} [{rung.unit}]" if rung.unit else figure.name
    return head, [figure.missing if value is None else fmt.in_rung(value, rung) for value in found]


def _remarks(priced: Sequence[Candidate]) -> tuple[str, ...]:
    without = [label for label, answer in priced if answer.run is None]
    if not without:
        return ()
    if len(without) == len(priced):
        return (f"Whole run {fmt.NOT_ASKED}.",)
    return (f"Whole run {fmt.NOT_ASKED} ({_several(without)}).",)


def _several(labels: list[str]) -> str:
    return fmt.listed(labels, 3, "; ")


def _shared_assumptions(priced: Sequence[Candidate]) -> tuple[Assumption, ...]:
    """The largest assumptions of any candidate, each with the candidates it is about."""
    about: dict[tuple[str, str], list[str]] = {}
    entries = largest_first([entry for _, answer in priced for entry in answer.ledger])
    for label, answer in priced:
        for entry in answer.ledger:
            about.setdefault((entry.topic, entry.text), []).append(label)
    chosen: dict[tuple[str, str], Assumption] = {}
    for entry in entries:
        key = (entry.topic, entry.text)
        if key not in chosen and len(chosen) < TOP_ASSUMPTIONS:
            words = assumption(entry)
            who = "" if len(about[key]) == len(priced) else f"{_several(about[key])}: "
            chosen[key] = Assumption(words.topic, who + words.text, words.touches, words.advice)
    return tuple(chosen.values())


def _reproduce(priced: Sequence[Candidate]) -> tuple[Line, ...]:
    """Version and data once, then what was asked for each candidate."""
    made = [answer.provenance for _, answer in priced]
    lines = [
        Line("predictor", fmt.listed(sorted({fmt.plain(p.version) for p in made})) or fmt.UNKNOWN),
        Line("data of", fmt.listed(sorted({fmt.plain(p.data_date) for p in made})) or fmt.UNKNOWN),
    ]
    for label, answer in priced:
        words = "; ".join([machine(answer), *division(answer.plan)])
        command = fmt.plain(answer.provenance.command)
        note = f"input hash {fmt.plain(answer.provenance.input_hash)}" + (f"; {command}" if command else "")
        lines.append(Line(label, words, note))
    return tuple(lines)
