"""Seconds of one step: kernels against a bounded roofline, the host, what ranks send, the pipeline.

A kernel takes the smooth maximum of its compute and memory time, plus a launch. Shares of peak are
drawn once per kind and shared by all kernels of the kind. Arrays are [draws, rows].
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from predictor.efficiency import Efficiency
from predictor.errors import InputError
from predictor.ir import FORWARD
from predictor.machine import Machine
from predictor.ops import Kernel
from predictor.parallel import Collective, Plan
from predictor.profile import Accelerator
from predictor.stack import Stack
from predictor.training import Recipe
from predictor.values import DRAWS, Array, Sourced
from predictor.workload import Row, Workload

_OWN_TYPE = {"float32": "fp32", "float64": "fp64", "float16": "fp16", "bfloat16": "bf16"}
_ON_MATRIX_UNITS = {"matmul", "conv", "conv-channels-last", "attention"}
# Sharpness of the maxima: of compute and memory in a kernel (fitted to training kernels, 3 to 4), and of
# device and host in a step.
_KERNEL_NORM, _STEP_NORM = 3.5, 7.0
# Time of a kernel that does nothing, on the device.
_LAUNCH_S = Sourced(
    2.5e-6, 1.5e-6, 4.5e-6, "graph-replayed empty kernels, 1.3 to 4 us", "2026-11-20", "estimate"
)
# What the form itself misses, common to a step, beyond the shares of the kinds.
_FORM = Sourced(1.0, 0.82, 1.25, "residual of class defaults over model families", "2026-11-20", "estimate")
_TILE, _SLICE, _WAVE_TILE, _WAVE_POWER, _SHORT_K = 64, 256, 128, 0.37, 60
_NODE_SHARE = Sourced(
    0.75, 0.60, 0.88, "share of link rate, NVLink collectives over 4 MiB", "2026-11-20", "estimate"
)
_NETWORK_SHARE = Sourced(
    0.50, 0.32, 0.80, "share of NIC rate, 0.37 to 0.6 over stacks", "2026-11-20", "estimate"
)
_HOP_S = Sourced(
    12e-6, 6e-6, 30e-6, "latency of a collective over NVLink, 8 to 18 us", "2026-11-20", "estimate"
)
_STRAGGLE = Sourced(0.008, 0.003, 0.020, "step time per doubling of nodes", "2026-11-20", "estimate")


@dataclass(frozen=True, slots=True)
class Columns:
    """Rows of one rank's micro-batch as arrays [rows]; an empty type means no product."""

    kind: tuple[str, ...]
    phase: tuple[str, ...]
    count: Array
    flop: Array
    byte: Array
    peak: Array
    shape: Array


@dataclass(frozen=True, slots=True)
class StepTime:
    """One step, every entry draws of seconds; ``row_s`` is [rows] at mid values for the breakdown."""

    total_s: Array
    forward_s: Array
    backward_s: Array
    recompute_s: Array
    host_s: Array
    optimizer_s: Array
    communication_s: Array
    bubble_s: Array
    straggler_s: Array
    busy: Array
    row_s: Array
    sent_byte: float


def peak_of(kernel: Kernel, recipe: Recipe, accelerator: Accelerator) -> float:
    """Dense peak of the units a kernel runs on [flop/s].

    float32 products follow the recipe (tf32 where it says so); under fp8 the single bf16 products run in
    8 bit. A TPU multiplies float32 in one bf16 pass, as XLA does by default.
    """
    peaks = accelerator.peak_flop_per_s
    if kernel.kind not in _ON_MATRIX_UNITS:
        return peaks["fp32"].value
    own = _OWN_TYPE.get(kernel.dtype, "fp32")
    if own == "fp32" and recipe.compute == "tf32":
        own = "tf32"
    if own == "fp32" and accelerator.kind in {"tpu", "asic"}:
        own = "bf16"
    if recipe.compute == "fp8" and own == "bf16" and kernel.kind == "matmul" and kernel.dims[0] == 1:
        own = "fp8"
    return (peaks.get(own) or peaks["fp32"]).value


def check_precision(recipe: Recipe, precision: str, accelerator: Accelerator, accepted: list[str]) -> None:
    """Raise InputError when the accelerator has no units for a precision."""
    if recipe.compute in accelerator.peak_flop_per_s:
        return
    raise InputError(
        f"{accelerator.id} has no {recipe.compute} peak, asked for by precision '{precision}'; "
        f"accepted there: {', '.join(accepted)}"
    )


def shape_share(kernel: Kernel, units: float) -> float:
    """Share of the rate that a product's sides leave: tiles, waves over the chip's units, a short sum.

    Sides are filled up to tiles of 64; 128 x 128 tiles run in whole waves of ``units``; a product with
    few tiles and a long sum is split along the sum. 1 for kernels off the matrix units.
    """
    g, m, n, k = kernel.dims
    if kernel.kind not in _ON_MATRIX_UNITS or not m or not n or not k:
        return 1.0
    filled = (m / (_TILE * -(-m // _TILE))) * (n / (_TILE * -(-n // _TILE)))
    tiles = g * -(-m // _WAVE_TILE) * -(-n // _WAVE_TILE)
    splits = max(1.0, min(units / tiles, k / _SLICE))
    waves = tiles * splits / units
    full = waves / np.ceil(waves)
    return float(filled**0.5 * full**_WAVE_POWER * k / (k + _SHORT_K))


def columns(
    rows: tuple[Row, ...], plan: Plan, recipe: Recipe, accelerator: Accelerator, blocks: int
) -> Columns:
    """Rows of one rank, of the stage with the most layers.

    A transformer's products and streams are divided by tensor and context parallel ranks, its layers by
    pipeline stages; where the stages are uneven, the largest decides.
    """
    split = plan.tp * plan.cp
    units = accelerator.compute_units.value if accelerator.compute_units else 100.0
    stage = -(-blocks // plan.pp) / blocks if blocks else 1 / plan.pp
    return Columns(
        kind=tuple(r.kernel.kind for r in rows),
        phase=tuple(r.phase for r in rows),
        count=np.array([r.count * stage for r in rows]),
        flop=np.array([_flop(r.kernel) / split for r in rows]),
        byte=np.array([(r.kernel.work.read_byte + r.kernel.work.write_byte) / split for r in rows]),
        peak=np.array([peak_of(r.kernel, recipe, accelerator) for r in rows]),
        shape=np.array([shape_share(_sides_of_rank(r.kernel, plan), units) for r in rows]),
    )


def _sides_of_rank(kernel: Kernel, plan: Plan) -> Kernel:
    """The kernel with the sides that one tensor and context parallel rank has."""
    g, m, n, k = kernel.dims
    if plan.tp * plan.cp == 1 or not m:
        return kernel
    if kernel.kind == "attention":
        return replace(kernel, dims=(max(g // plan.tp, 1), max(m // plan.cp, 1), n, k))
    wide, deep = (n // plan.tp, k) if n >= k else (n, k // plan.tp)
    return replace(kernel, dims=(g, max(m // plan.cp, 1), max(wide, 1), max(deep, 1)))


def _flop(kernel: Kernel) -> float:
    """Executed flop of the units the kernel runs on."""
    work = kernel.work
    return work.matrix_flop + work.recompute_flop if work.matrix_flop else work.vector_flop


def kernel_s(
    flop: Array, byte: Array, flop_per_s: Array, byte_per_s: Array, launch_s: Array
) -> npt.NDArray[np.float64]:
    """Smooth maximum of computing and moving, plus a launch [s].

    t = ((flop / flop_per_s)^p + (byte / byte_per_s)^p)^(1/p) + launch_s

    Source: the roofline (Williams, Waterman, Patterson, CACM 52(4), 2009) with a rounded corner.
    """
    compute_s = flop / flop_per_s
    memory_s = byte / byte_per_s
    longer = np.maximum(np.maximum(compute_s, memory_s), 1e-30)
    shorter = np.minimum(compute_s, memory_s)
    return longer * (1 + (shorter / longer) ** _KERNEL_NORM) ** (1 / _KERNEL_NORM) + launch_s


def _rates(table: Columns, machine: Machine, efficiency: Efficiency) -> tuple[Array, Array]:
    """Reached flop and byte rates of every row, [draws, rows]."""
    accelerator = machine.accelerator
    sustained = efficiency.sustained_of(accelerator.vendor).draw(f"sustained.{accelerator.vendor}")
    bandwidth = accelerator.memory_byte_per_s.draw(f"{accelerator.id}.memory_byte_per_s")
    kinds = sorted(set(table.kind))
    place = np.array([kinds.index(kind) for kind in table.kind])
    compute = np.stack([efficiency.kind[k].compute.draw(f"efficiency.{k}.compute") for k in kinds], axis=1)
    memory = np.stack([efficiency.kind[k].memory.draw(f"efficiency.{k}.memory") for k in kinds], axis=1)
    flop_per_s = compute[:, place] * (table.peak * table.shape) * sustained[:, None]
    return flop_per_s, memory[:, place] * bandwidth[:, None]


def row_seconds(table: Columns, machine: Machine, efficiency: Efficiency) -> Array:
    """Device time of every row with its count, [draws, rows]."""
    flop_per_s, byte_per_s = _rates(table, machine, efficiency)
    launch_s = _LAUNCH_S.draw("timing.launch")[:, None]
    form = _FORM.draw("timing.form")[:, None]
    return table.count * kernel_s(table.flop, table.byte, flop_per_s, byte_per_s, launch_s) * form


def _smooth_max(a: Array, b: Array) -> Array:
    return np.asarray((a**_STEP_NORM + b**_STEP_NORM) ** (1 / _STEP_NORM))


def collective_s(each: Collective, machine: Machine) -> Array:
    """Seconds of all exchanges of one purpose: a latency per hop and the slower of link and network [draws].

    A group inside a node uses its links; across nodes, the ranks that share a node use their network
    cards together, never faster than the links.
    """
    link = machine.intranode_byte_per_s.draw("machine.intranode") * _NODE_SHARE.draw("timing.node_share")
    if each.group <= each.inside:
        rate = link
    else:
        card = machine.internode_byte_per_s.draw("machine.internode") * _NETWORK_SHARE.draw(
            "timing.network_share"
        )
        rate = np.minimum(card * max(each.inside, 1), link)
    hops = np.log2(each.group) + 1
    return np.asarray(each.count * (each.send_byte / rate + hops * _HOP_S.draw("timing.hop")))


def step_time(
    work: Workload,
    optimizer: Row,
    plan: Plan,
    machine: Machine,
    stack: Stack,
    recipe: Recipe,
    efficiency: Efficiency,
    exchanges: tuple[Collective, ...],
    parameter_tensors: int,
) -> StepTime:
    """Evaluate one step of the rank that decides it.

    A micro-batch takes the smooth maximum of device and host; a 1F1B pipeline runs ``accumulate``
    micro-batches and fills and drains (stages - 1) more (Narayanan et al. 2021); hidden exchanges show
    only what compute cannot cover; nodes wait for the slowest.
    """
    table = columns(work.rows, plan, recipe, machine.accelerator, work.attention_count)
    rows = row_seconds(table, machine, efficiency)
    forward = rows[:, [p == FORWARD for p in table.phase]].sum(axis=1)
    backward = rows[:, [p != FORWARD for p in table.phase]].sum(axis=1)
    again = rows[:, [r.runs_again(plan.recompute) for r in work.rows]].sum(axis=1)
    device = forward + backward + again
    host = stack.host_s.draw(f"{stack.id}.host_s") * table.count.sum() * (1 + (again / device).mean())
    micro = _smooth_max(device, host)
    shown = [(c, collective_s(c, machine)) for c in exchanges]
    overlap = stack.overlap.draw(f"{stack.id}.overlap")
    compute = micro * plan.accumulate
    sent = np.zeros(DRAWS)
    for each, seconds in shown:
        cover = overlap * (backward if each.purpose == "data" and plan.zero < 3 else compute)
        sent = sent + (np.maximum(seconds - cover, seconds * 0.03) if each.hidden else seconds)
    bubble = (plan.pp - 1) * (micro + sent / plan.accumulate if plan.pp > 1 else micro) * (plan.pp > 1)
    update = _optimizer_s(optimizer, machine, stack, recipe, efficiency, parameter_tensors, plan)
    steady = compute + sent + bubble + update
    straggle = steady * _STRAGGLE.draw("timing.straggle") * np.log2(max(machine.nodes, 1))
    total = steady + straggle
    return StepTime(
        total_s=total,
        forward_s=forward * plan.accumulate,
        backward_s=backward * plan.accumulate,
        recompute_s=again * plan.accumulate,
        host_s=(micro - device) * plan.accumulate,
        optimizer_s=update,
        communication_s=sent,
        bubble_s=np.asarray(bubble),
        straggler_s=straggle,
        busy=(device * plan.accumulate + update) / total,
        row_s=np.median(rows, axis=0) * plan.accumulate,
        sent_byte=sum(c.send_byte * c.count for c in exchanges),
    )


def _optimizer_s(
    optimizer: Row,
    machine: Machine,
    stack: Stack,
    recipe: Recipe,
    efficiency: Efficiency,
    parameter_tensors: int,
    plan: Plan,
) -> Array:
    """One update of the rank's own parameters, in the passes its stack makes."""
    if not optimizer.count:
        return np.zeros(DRAWS)
    alone = Plan(1, 1, 1, 1, 1, 0, "none", 1, 1)
    table = columns((optimizer,), alone, recipe, machine.accelerator, 0)
    device = row_seconds(table, machine, efficiency)[:, 0]
    device = device * stack.optimizer_passes.draw(f"{stack.id}.optimizer_passes")
    launches = stack.optimizer_launches * parameter_tensors / plan.pp
    return _smooth_max(device, stack.host_s.draw(f"{stack.id}.host_s") * launches)


def accepted_precisions(accelerator: Accelerator, recipes: dict[str, Recipe]) -> list[str]:
    """Names of the precisions an accelerator has units for."""
    return [name for name, recipe in recipes.items() if recipe.compute in accelerator.peak_flop_per_s]
