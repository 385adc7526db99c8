"""Measured steps of a user as pairs of prediction and measurement, by asking the whole model what if.

A step is priced again with faster units, with a wider memory, with a host that costs nothing and one that
costs all: the differences are the seconds that ``step_factors`` needs, whatever is inside the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from predictor.answer import Range
from predictor.calibrate.case import Case, Refused
from predictor.calibrate.readers import own
from predictor.calibrate.recordings import Recordings
from predictor.calibrate.rows import read_rows
from predictor.calibrate.step_factors import StepPair, StepPrior
from predictor.calibrate.tables import format_of, read_tables
from predictor.calibrate.validate import groups_of, recordings, setting_of
from predictor.errors import InputError, PredictorError
from predictor.ir import Graph
from predictor.kernels.chip import rates
from predictor.kernels.steps import chip_factors, step_form
from predictor.pricing import Setting, price
from predictor.stack import Span
from predictor.values import Sourced

_FASTER = 1.05
_NO_HOST, _ALL_HOST = 1e-3, 1e4
_Z95 = 1.645
# Boards of one kind differ by their clocks, cooling and software.
_BOARD_SD = 0.06
# Models differ in what a launch costs their host, which no draw of a prediction says.
_HOST_SD = 0.12


@dataclass(frozen=True, slots=True)
class Steps:
    """Pairs of one device with the cases they come from, the prior, and what was left out and why."""

    pairs: tuple[StepPair, ...]
    cases: tuple[Case, ...]
    prior: StepPrior
    notes: tuple[str, ...]


def read_steps(path: Path, accelerator_id: str) -> Steps:
    """The steps in a user's table that ran on one device of this id.

    Raises InputError: no table of measured steps, a row of another device, no row that can be priced.
    """
    header, _ = read_rows(path)
    form = format_of(header)
    if form is None or form.name != own.NAME or not {"step_s", "samples_per_s"} & set(header):
        raise InputError(
            f"{path}: no table of measured steps; needed are the columns model, hardware, batch and step_s: "
            "docs/how-to/calibrate-a-device.md"
        )
    cases, notes = [], []
    for item in read_tables([path]):
        if isinstance(item, Refused):
            notes.append(f"{item.row} left out: {item.detail}")
        elif item.accelerator != accelerator_id:
            raise InputError(
                f"{item.row}: ran on {item.accelerator}, the fit is of {accelerator_id}; "
                "give one file for each"
            )
        elif item.step_s is None:
            notes.append(f"{item.row} left out: no step_s and no samples_per_s")
        elif item.job is not None and (item.job.count or 1) > 1:
            notes.append(
                f"{item.row} left out: {item.job.count} devices; what they exchange is no rate of one"
            )
        else:
            cases.append(item)
    steps = steps_of(cases)
    notes += steps.notes
    if not steps.pairs:
        raise InputError(f"{path}: no step can be used: " + "; ".join(notes or ["the table has no rows"]))
    return replace(steps, notes=tuple(notes))


def steps_of(cases: Sequence[Case]) -> Steps:
    """Pairs of measured steps of one accelerator; what cannot be priced is in the notes."""
    pairs: list[tuple[Case, StepPair]] = []
    notes: list[str] = []
    prior = StepPrior(0.0, 0.0, 0.0)
    for group in groups_of(cases):
        settings = [(case, setting_of(case)) for case in group]
        found = [(case, s) for case, s in settings if isinstance(s, Setting)]
        notes += [f"{c.row} left out: {s.detail}" for c, s in settings if isinstance(s, Refused)]
        if not found:
            continue
        recorded = recordings(found[0][0], sorted({s.plan.micro_batch for _, s in found}))
        for case, setting in found:
            prior = _widest(prior, prior_of(setting))
            pair = _pair(case, setting, recorded)
            if isinstance(pair, StepPair):
                pairs.append((case, pair))
            else:
                notes.append(f"{case.row} left out: {pair}")
    return Steps(tuple(p for _, p in pairs), tuple(c for c, _ in pairs), prior, tuple(notes))


def _widest(a: StepPrior, b: StepPrior) -> StepPrior:
    return StepPrior(max(a.compute, b.compute), max(a.memory, b.memory), max(a.host, b.host))


def prior_of(setting: Setting) -> StepPrior:
    """What predictions draw for the chip and for the host of a stack; another board than the fitted one."""
    chip = rates(setting.machine.accelerator)
    factors = chip_factors(chip.id, step_form())
    return StepPrior(
        compute=max(float(np.hypot(_sd(chip.eta), _sd(factors.compute))), _BOARD_SD),
        memory=max(float(np.hypot(_sd(chip.em), _sd(factors.memory))), _BOARD_SD),
        host=float(np.hypot(_sd(setting.stack.host_s), _sd(factors.host))),
    )


def _sd(number: Sourced | Span | Range) -> float:
    return float(np.log(number.high / number.low) / (2 * _Z95))


def _pair(case: Case, setting: Setting, recorded: Recordings) -> StepPair | str:
    """The pair of one case, or why there is none."""
    graph = recorded.at(setting.plan.micro_batch)
    if isinstance(graph, PredictorError):
        return str(graph)
    published = case.parameters
    if published and abs(graph.parameter_count - published) > 0.01 * published + case.slack:
        return f"the model has {graph.parameter_count:,} parameters, the row says {published:,.0f}"
    try:
        return _probed(case, setting, graph)
    except InputError as error:
        return str(error)


def _probed(case: Case, setting: Setting, graph: Graph) -> StepPair:
    assert case.job is not None
    assert case.step_s is not None
    job = case.job

    def step(changed: Setting) -> Range:
        return price(job, changed, graph).step.time_s

    host_s = step(with_host(setting, _ALL_HOST)).mid / _ALL_HOST
    alone = with_host(setting, _NO_HOST)
    device_s = step(alone).mid
    compute = _follows(device_s, step(with_rates(alone, _FASTER, 1.0)).mid)
    memory = _follows(device_s, step(with_rates(alone, 1.0, _FASTER)).mid)
    whole = max(1.0, compute + memory)
    compute, memory = compute / whole, memory / whole
    prior = prior_of(setting)
    predicted = step(setting)
    waits = 1 - min(1.0, (device_s / predicted.mid) ** 7)  # of the step, decided by the host
    known = np.hypot(compute * prior.compute, memory * prior.memory) * (1 - waits)
    known = np.hypot(known, waits * prior.host)
    return StepPair(
        compute_s=device_s * compute,
        memory_s=device_s * memory,
        rest_s=device_s * (1 - compute - memory),
        host_s=host_s,
        measured_s=case.step_s,
        sd=float(np.hypot(np.sqrt(max(_sd(predicted) ** 2 - known**2, 0.0)), waits * _HOST_SD)),
        family=case.family,
    )


def _follows(before_s: float, after_s: float) -> float:
    """Share of the time that follows a rate which was raised to ``_FASTER``: t (1 - s + s/f)."""
    return min(max((1 - after_s / before_s) / (1 - 1 / _FASTER), 0.0), 1.0)


def with_host(setting: Setting, factor: float) -> Setting:
    """The setting with launches that take ``factor`` times as long."""
    host = setting.stack.host_s
    slower = Span(low=host.low * factor, mid=host.mid * factor, high=host.high * factor)
    return replace(setting, stack=setting.stack.model_copy(update={"host_s": slower}))


def with_rates(setting: Setting, compute: float, memory: float) -> Setting:
    """The setting on a chip of so many times the clock, the peaks and the bandwidth, power too."""
    old = setting.machine.accelerator
    chip = replace(
        old,
        peak_flop_per_s={name: _times(peak, compute) for name, peak in old.peak_flop_per_s.items()},
        bandwidth_byte_per_s=_times(old.memory_byte_per_s, memory),
        clock_hz=None if old.clock_hz is None else _times(old.clock_hz, compute),
        limit_w=None if old.limit_w is None else _times(old.limit_w, compute),
    )
    return replace(setting, machine=replace(setting.machine, accelerator=chip))


def _times(number: Sourced, factor: float) -> Sourced:
    return replace(number, value=number.value * factor, low=number.low * factor, high=number.high * factor)
