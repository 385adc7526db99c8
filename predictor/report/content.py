"""What a report says about one answer, in words, before any format gives it its looks.

Every format for people shows these same strings, so none of them can round or omit differently.
"""

from dataclasses import dataclass

from predictor.answer import BreakdownRow, Estimate, LedgerEntry, Range, RunPart, StepPart
from predictor.report import format as fmt
from predictor.report.question import question, title

TOP_ROWS = 8
TOP_ASSUMPTIONS = 3


@dataclass(frozen=True, slots=True)
class Line:
    """One quantity: its name, its value with range, and what belongs to it."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the breakdown; ``part`` is its share of the step as a number."""

    kind: str
    phase: str
    time: str
    share: str
    flop: str
    moved: str
    energy: str
    part: float


@dataclass(frozen=True, slots=True)
class Assumption:
    """One line of the ledger."""

    topic: str
    text: str
    touches: str
    advice: str


@dataclass(frozen=True, slots=True)
class Report:
    """The whole report in reading order."""

    title: str
    question: str
    warnings: tuple[str, ...]
    step: tuple[Line, ...]
    run: tuple[Line, ...]
    basis: tuple[Line, ...]
    assumptions: tuple[Assumption, ...]
    breakdown: tuple[Row, ...]
    reproduce: tuple[Line, ...]

    @property
    def main_assumptions(self) -> tuple[Assumption, ...]:
        """The largest few."""
        return self.assumptions[:TOP_ASSUMPTIONS]

    @property
    def further_assumptions(self) -> tuple[Assumption, ...]:
        """All but the largest few."""
        return self.assumptions[TOP_ASSUMPTIONS:]


def report_of(answer: Estimate) -> Report:
    """The report of one answer."""
    return Report(
        title=title(answer),
        question=question(answer),
        warnings=_warnings(answer),
        step=_step_lines(answer),
        run=_run_lines(answer.run),
        basis=_basis_lines(answer),
        assumptions=tuple(assumption(entry) for entry in largest_first(answer.ledger)),
        breakdown=_breakdown_rows(answer.breakdown),
        reproduce=_reproduce_lines(answer),
    )


def _warnings(answer: Estimate) -> tuple[str, ...]:
    if answer.step.fits is False:
        return ("It does not fit in memory; every other figure is for the case that it did.",)
    return ()


FITS = {True: "fits", False: "does not fit", None: "capacity unknown"}


def _speed(step: StepPart) -> tuple[Range, str]:
    """Tokens per second where the model has tokens, else samples."""
    if step.tokens_per_s is not None:
        return step.tokens_per_s, "tokens/s"
    return step.samples_per_s, "samples/s"


def _step_lines(answer: Estimate) -> tuple[Line, ...]:
    step = answer.step
    name = "step time" if answer.plan.mode == "train" else "batch time"
    rate, unit = _speed(step)
    rate_note = fmt.ranged(step.samples_per_s, fmt.PLAIN, "samples/s") if unit == "tokens/s" else ""
    return (
        Line(name, fmt.ranged(step.time_s, fmt.SECONDS), _work(answer)),
        Line("speed", fmt.ranged(rate, fmt.PLAIN, unit), rate_note),
        Line("MFU", fmt.ranged(step.mfu, fmt.PERCENT), _mfu_note(step)),
        _memory(step),
        _power(step),
    )


def _mfu_note(step: StepPart) -> str:
    note = "of the dense peak"
    if step.flop.recompute:
        note += f"; HFU, with recomputed work, {fmt.ranged(step.hfu, fmt.PERCENT)}"
    return note


def _work(answer: Estimate) -> str:
    step = answer.step
    moved = f"{fmt.size(step.bytes.read)} read, {fmt.size(step.bytes.written)} written"
    words = [fmt.flop(step.flop.total), moved]
    if answer.machine.count > 1:
        words.append(f"{fmt.size(step.communication_bytes)} sent between accelerators")
    return "; ".join(words)


def _memory(step: StepPart) -> Line:
    peak = step.peak_memory_bytes
    note = (
        f"per accelerator; allocator {fmt.ranged(peak.reserved, fmt.BYTES)}, "
        f"tensors {fmt.ranged(peak.allocated, fmt.BYTES)}"
    )
    return Line("peak memory", f"{fmt.ranged(peak.device, fmt.BYTES)}: {FITS[step.fits]}", note)


def _power(step: StepPart) -> Line:
    return Line(
        "power",
        maybe(step.accelerator_power_w, fmt.WATT),
        f"per accelerator; per node {maybe(step.node_power_w, fmt.WATT)}",
    )


def maybe(found: Range | None, ladder: fmt.Ladder) -> str:
    """A range, or the word for not knowing it."""
    return fmt.UNKNOWN if found is None else fmt.ranged(found, ladder)


def _run_lines(run: RunPart | None) -> tuple[Line, ...]:
    if run is None:
        return (Line("whole run", fmt.NOT_ASKED),)
    steady = fmt.ranged(run.time_s.steady, fmt.SECONDS)
    wall_note = f"{fmt.count(run.steps)} steps; without interruptions {steady}"
    cost_note = "rent" if run.cost_usd else "give --price USD per accelerator-hour"
    return (
        Line("run time", fmt.ranged(run.time_s.wall, fmt.SECONDS), wall_note),
        Line(
            "accelerator-hours",
            fmt.ranged(run.accelerator_hours, fmt.PLAIN),
            f"node-hours {fmt.ranged(run.node_hours, fmt.PLAIN)}",
        ),
        _energy(run),
        _carbon(run),
        *_water(run),
        Line("cost", maybe(run.cost_usd, fmt.USD), cost_note),
    )


def _energy(run: RunPart) -> Line:
    energy = run.energy_kwh
    if energy is None:
        return Line("energy", fmt.UNKNOWN, "the accelerator's power is not known")
    unit = (fmt.rung_for(energy.facility.mid, fmt.KWH),)
    note = (
        f"facility; nodes {fmt.ranged(energy.nodes, unit)}, "
        f"accelerators {fmt.ranged(energy.accelerators, unit)}"
    )
    return Line("energy", fmt.ranged(energy.facility, fmt.KWH), note)


def _carbon(run: RunPart) -> Line:
    carbon = run.carbon_kgco2e
    if carbon is None:
        return Line("carbon (CO2e)", fmt.UNKNOWN, "follows from energy, which is not known")
    unit = (fmt.rung_for(carbon.total.mid, fmt.KG),)
    note = (
        f"location-based electricity {fmt.ranged(carbon.operational.location, unit)}, "
        f"hardware {maybe(carbon.embodied, unit)}; "
        f"market-based electricity {maybe(carbon.operational.market, unit)}"
    )
    return Line("carbon (CO2e)", fmt.ranged(carbon.total, fmt.KG), note)


def _water(run: RunPart) -> tuple[Line, ...]:
    on_site = run.water_l.on_site if run.water_l else None
    off_site = run.water_l.off_site if run.water_l else None
    return (
        Line("water on site", maybe(on_site, fmt.LITRE), "cooling"),
        Line("water off site", maybe(off_site, fmt.LITRE), "power plants"),
    )


_PROFILES = {
    "fitted": "fitted to measurements",
    "spec-only": "datasheet only, with the range of its class",
}


def _basis_lines(answer: Estimate) -> tuple[Line, ...]:
    coverage = answer.coverage
    unpriced = [fmt.plain(name) for name in coverage.unpriced_ops]
    note = f"priced by their bytes alone: {fmt.listed(unpriced)}" if unpriced else "no operator without one"
    status = answer.machine.profile_status
    return (
        Line("coverage", f"{fmt.share(coverage.bytes_by_formula)} of bytes by formula", note),
        Line("accelerator", fmt.plain(status), _PROFILES.get(status, "")),
        Line("software stack", fmt.plain(answer.stack.status), fmt.plain(answer.stack.id)),
    )


def largest_first(ledger: list[LedgerEntry]) -> list[LedgerEntry]:
    """Entries by the share of the answer they touch; equal ones keep their order."""
    return sorted(ledger, key=lambda entry: -(entry.share or 0.0))


def assumption(entry: LedgerEntry) -> Assumption:
    """One line of the ledger in words."""
    return Assumption(
        topic=fmt.plain(entry.topic),
        text=fmt.plain(entry.text),
        touches="" if entry.share is None else f"touches {fmt.share(entry.share)} of the total",
        advice=fmt.plain(entry.advice),
    )


def _breakdown_rows(rows: list[BreakdownRow]) -> tuple[Row, ...]:
    """The longest rows, the sum of the rest, and the sum of all."""
    if not rows:
        return ()
    total = _sum(rows, "whole step", "")
    ordered = sorted(rows, key=lambda row: -row.time_s)
    top, rest = ordered[:TOP_ROWS], ordered[TOP_ROWS:]
    if len(rest) == 1:
        top, rest = ordered, []
    shown = [*top, *([_sum(rest, f"other ({len(rest)} rows)", "")] if rest else []), total]
    return tuple(_row(row, total.time_s) for row in shown)


def _sum(rows: list[BreakdownRow], kind: str, phase: str) -> BreakdownRow:
    energies = [row.energy_j for row in rows if row.energy_j is not None]
    return BreakdownRow(
        kind=kind,
        phase=phase,
        time_s=sum(row.time_s for row in rows),
        flop=sum(row.flop for row in rows),
        bytes=sum(row.bytes for row in rows),
        energy_j=sum(energies) if len(energies) == len(rows) else None,
        count=sum(row.count for row in rows),
    )


def _row(row: BreakdownRow, total_s: float) -> Row:
    part = row.time_s / total_s if total_s else 0.0
    return Row(
        kind=fmt.plain(row.kind),
        phase=fmt.plain(row.phase),
        time=fmt.quantity(row.time_s, fmt.SECONDS),
        share=fmt.share(part),
        flop=fmt.flop(row.flop) if row.flop else "-",
        moved=fmt.size(row.bytes) if row.bytes else "-",
        energy=fmt.UNKNOWN if row.energy_j is None else fmt.quantity(row.energy_j, fmt.JOULE),
        part=part,
    )


def _reproduce_lines(answer: Estimate) -> tuple[Line, ...]:
    made = answer.provenance
    return (
        Line("command", fmt.plain(made.command) or "none: asked from Python with estimate(Job(...))"),
        Line("predictor", fmt.plain(made.version)),
        Line("data of", fmt.plain(made.data_date)),
        Line("input hash", fmt.plain(made.input_hash)),
    )
