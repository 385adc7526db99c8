"""Where the time and the energy of a step go: rows by kind and phase, adding up to the step."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from predictor.answer import BreakdownRow
from predictor.energy import Watts
from predictor.ir import OPTIMIZER
from predictor.machine import Machine
from predictor.parallel import Plan
from predictor.power import power_draws
from predictor.timing import StepTime
from predictor.training import Executed
from predictor.values import Array
from predictor.workload import Row


@dataclass(slots=True)
class _Sum:
    time_s: float = 0.0
    flop: int = 0
    byte: int = 0
    count: int = 0
    heat: float = 0.0


def breakdown(
    done: list[Executed],
    optimizer: Row,
    plan: Plan,
    machine: Machine,
    time: StepTime,
    power: Watts,
) -> list[BreakdownRow]:
    """Times and energies at mid values.

    Times are scaled to add up to the middle of the step's time, energies to that of all accelerators;
    flop and bytes are those of the whole job. Energy is shared out by the power model's terms: time,
    flop over peak, bytes over bandwidth.
    """
    sums: dict[tuple[str, str], _Sum] = defaultdict(_Sum)
    table, draws = time.table, power_draws(machine.accelerator)
    bandwidth = machine.accelerator.memory_byte_per_s.value
    active_w, flop_w, byte_w = (_mid(w) for w in (draws.active_w, draws.flop_w, draws.byte_w))
    for each in done:
        spent = each.kernel.work
        part = sums[each.kernel.kind, each.phase]
        flop = spent.vector_flop if each.phase == OPTIMIZER else spent.matrix_flop + spent.recompute_flop
        part.flop += each.times * flop
        part.byte += each.times * (spent.read_byte + spent.write_byte)
        part.count += each.times
        if each.row >= 0:
            seconds = float(time.row_s[each.row])
            scale = table.count[each.row] * plan.accumulate
            part.time_s += seconds
            part.heat += active_w * seconds + scale * (
                flop_w * table.flop[each.row] / table.peak[each.row]
                + byte_w * table.byte[each.row] / bandwidth
            )
    _further(sums, optimizer, time)
    update = optimizer.kernel
    if optimizer.count:
        part = sums[update.kind, OPTIMIZER]
        moved_s = (update.work.read_byte + update.work.write_byte) / bandwidth
        part.heat = active_w * part.time_s + byte_w * moved_s
    return _rows(sums, machine, time, power)


def _further(sums: dict[tuple[str, str], _Sum], optimizer: Row, time: StepTime) -> None:
    """Times that are not kernels of the model: the optimizer, the host, the network, waiting."""
    if optimizer.count:
        sums[optimizer.kernel.kind, OPTIMIZER].time_s = _mid(time.optimizer_s)
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
