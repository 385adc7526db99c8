"""Where the time and the energy of a step go: rows by kind and phase, adding up to the step."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from predictor.answer import BreakdownRow
from predictor.energy import Watts
from predictor.ir import FORWARD, OPTIMIZER
from predictor.machine import Machine
from predictor.parallel import Plan
from predictor.power import ACTIVE_SHARE, BYTE_SHARE, FLOP_SHARE
from predictor.timing import StepTime, columns
from predictor.training import Recipe
from predictor.values import Array
from predictor.workload import Row, Workload


@dataclass(slots=True)
class _Sum:
    time_s: float = 0.0
    flop: int = 0
    byte: int = 0
    count: int = 0
    heat: float = 0.0


def breakdown(
    work: Workload, optimizer: Row, plan: Plan, machine: Machine, recipe: Recipe, time: StepTime, power: Watts
) -> list[BreakdownRow]:
    """Times and energies at mid values.

    Times are scaled to add up to the middle of the step's time, energies to that of all accelerators;
    flop and bytes are those of the whole job. Energy is shared out by the power model's terms: time,
    flop over peak, bytes over bandwidth.
    """
    sums: dict[tuple[str, str], _Sum] = defaultdict(_Sum)
    table = columns(work.rows, plan, recipe, machine.accelerator)
    bandwidth = machine.accelerator.memory_byte_per_s.value
    copies = plan.dp * plan.accumulate
    again = _again(work, time)
    for index, row in enumerate(work.rows):
        repeats = [(row.phase, 1.0)] + ([("recompute", 1.0)] if again[index] else [])
        kernel = row.kernel
        for phase, times in repeats:
            part = sums[kernel.kind, phase]
            seconds = float(time.row_s[index]) * times
            part.time_s += seconds
            part.flop += (kernel.work.matrix_flop + kernel.work.recompute_flop) * row.count * copies
            part.byte += (kernel.work.read_byte + kernel.work.write_byte) * row.count * copies
            part.count += row.count * copies
            scale = table.count[index] * plan.accumulate
            part.heat += ACTIVE_SHARE.value * seconds + scale * (
                FLOP_SHARE.value * table.flop[index] / table.peak[index]
                + BYTE_SHARE.value * table.byte[index] / bandwidth
            )
    _further(sums, optimizer, plan, time, bandwidth)
    return _rows(sums, machine, time, power)


def _again(work: Workload, time: StepTime) -> list[bool]:
    """Which forward rows are done again in the backward pass."""
    share = float(np.median(time.recompute_s))
    if share == 0.0:
        return [False] * len(work.rows)
    forward = float(np.median(time.forward_s))
    everything = share > 0.99 * forward
    return [r.phase == FORWARD and (everything or r.kernel.kind == "attention") for r in work.rows]


def _further(
    sums: dict[tuple[str, str], _Sum], optimizer: Row, plan: Plan, time: StepTime, bandwidth: float
) -> None:
    """Rows that are not kernels of the model: the optimizer, the host, the network, waiting."""
    update = optimizer.kernel.work
    ranks = plan.dp * plan.model_ranks if optimizer.count else 0
    seconds = _mid(time.optimizer_s)
    byte = update.read_byte + update.write_byte
    heat = ACTIVE_SHARE.value * seconds + BYTE_SHARE.value * byte / bandwidth
    sums["optimizer", OPTIMIZER] = _Sum(seconds, update.vector_flop * ranks, byte * ranks, ranks, heat)
    for kind, waited_s in (
        ("host", time.host_s),
        ("communication", time.communication_s),
        ("pipeline bubble", time.bubble_s),
        ("stragglers", time.straggler_s),
    ):
        sums[kind, "step"] = _Sum(time_s=max(_mid(waited_s), 0.0))


def _mid(draws: Array) -> float:
    return float(np.median(draws))


def _rows(
    sums: dict[tuple[str, str], _Sum], machine: Machine, time: StepTime, power: Watts
) -> list[BreakdownRow]:
    total_s = sum(part.time_s for part in sums.values())
    step_s = _mid(time.total_s)
    step_j = machine.count * _mid(power.accelerator * time.total_s)
    idle_j = machine.count * _mid(power.idle_accelerator * time.total_s)
    heat = sum(part.heat for part in sums.values()) or 1.0
    rows = [
        BreakdownRow(
            kind=kind,
            phase=phase,
            time_s=part.time_s / total_s * step_s,
            flop=part.flop,
            bytes=part.byte,
            energy_j=idle_j * part.time_s / total_s + max(step_j - idle_j, 0.0) * part.heat / heat,
            count=part.count,
        )
        for (kind, phase), part in sums.items()
        if part.time_s > 0
    ]
    return sorted(rows, key=lambda row: -row.time_s)
