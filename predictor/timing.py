"""Seconds of one step: kernels against a bounded roofline, the host, what ranks send, the pipeline.

Kernels take the time that ``kernels.steps`` gives them at mid values; what is uncertain is drawn once per
chip, per family of kernels and per step, and shared by all kernels it touches. Arrays are [draws, rows].
"""

from dataclasses import dataclass, replace

import numpy as np

from predictor.errors import InputError
from predictor.ir import FORWARD
from predictor.kernels.chip import rates
from predictor.kernels.classes import Class, class_of
from predictor.kernels.steps import Form, Parts, chip_factors, parts_of, step_form, table_of
from predictor.machine import Machine
from predictor.ops import Kernel
from predictor.parallel import Collective, Plan
from predictor.power import CLOCKED_COMPUTE, CLOCKED_MEMORY, power_draws, slowdown
from predictor.profile import Accelerator
from predictor.stack import Stack
from predictor.training import Recipe
from predictor.values import DRAWS, Array, Sourced, log_normal
from predictor.workload import Row, Workload

_OWN_TYPE = {"float32": "fp32", "float64": "fp64", "float16": "fp16", "bfloat16": "bf16"}
# Sharpness of the maximum of device and host in a step.
_STEP_NORM = 7.0
# Standard deviation of ln(time of a kernel that does nothing): 1.3 to 4 us replayed from graphs.
_LAUNCH_SPREAD = 0.35
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
    """Rows of one rank's micro-batch as arrays [rows].

    flop, byte  what one kernel of the row executes and moves
    peak        dense peak of the units it runs on [flop/s]
    parts       its times at mid values
    """

    phase: tuple[str, ...]
    classes: tuple[Class, ...]
    count: Array
    flop: Array
    byte: Array
    peak: Array
    parts: Parts


@dataclass(frozen=True, slots=True)
class StepTime:
    """One step, every entry draws of seconds; ``row_s`` is [rows] at mid values for the breakdown.

    slowdown  device time under the power limit over that at full clock, contained in the others [-]
    """

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
    slowdown: Array
    table: Columns


def peak_of(kernel: Kernel, recipe: Recipe, accelerator: Accelerator) -> float:
    """Dense peak of the units a kernel runs on [flop/s].

    float32 products follow the recipe (tf32 where it says so); under fp8 the single bf16 products run in
    8 bit. TPUs and other chips with a compiler of their own multiply float32 in 16 bit, see ``half_of``.
    """
    peaks = accelerator.peak_flop_per_s
    return (peaks.get(unit_of(kernel, recipe, accelerator)) or peaks["fp32"]).value


def half_of(accelerator: Accelerator) -> str | None:
    """The 16-bit arithmetic in which this chip's compiler multiplies float32 by default; None on GPUs, CPUs.

    Source: XLA on TPU, jax.default_matmul_precision; AWS Neuron, --auto-cast=matmult.
    """
    if accelerator.kind not in {"tpu", "asic"}:
        return None
    return next((unit for unit in ("bf16", "fp16") if unit in accelerator.peak_flop_per_s), None)


def unit_of(kernel: Kernel, recipe: Recipe, accelerator: Accelerator) -> str:
    """The arithmetic a kernel's products run in; fp32 for kernels on the vector units."""
    if class_of(kernel, FORWARD, "").vector:
        return "fp32"
    own = _OWN_TYPE.get(kernel.dtype, "fp32")
    if own == "fp32" and recipe.compute == "tf32":
        return "tf32"
    half = half_of(accelerator)
    if own == "fp32" and half:
        return half
    if recipe.compute == "fp8" and own == "bf16" and kernel.kind == "matmul" and kernel.dims[0] == 1:
        return "fp8"
    return own


def check_precision(recipe: Recipe, precision: str, accelerator: Accelerator, accepted: list[str]) -> None:
    """Raise InputError when the accelerator has no units for a precision."""
    if recipe.compute in accelerator.peak_flop_per_s:
        return
    raise InputError(
        f"{accelerator.id} has no {recipe.compute} peak, asked for by precision '{precision}'; "
        f"accepted there: {', '.join(accepted)}"
    )


def columns(
    rows: tuple[Row, ...], plan: Plan, recipe: Recipe, accelerator: Accelerator, blocks: int
) -> Columns:
    """Rows of one rank, of the stage with the most layers.

    A transformer's products and streams are divided by tensor and context parallel ranks, its layers by
    pipeline stages; where the stages are uneven, the largest decides.
    """
    split = plan.tp * plan.cp
    stage = -(-blocks // plan.pp) / blocks if blocks else 1 / plan.pp
    kernels = [_sides_of_rank(r.kernel, plan) for r in rows]
    arithmetic = [unit_of(k, recipe, accelerator) for k in kernels]
    classes = tuple(
        class_of(kernel, row.phase, unit) for kernel, row, unit in zip(kernels, rows, arithmetic, strict=True)
    )
    flop = np.array([executed_flop(k) / split for k in kernels])
    byte = np.array([moved_byte(k) / split for k in kernels])
    peak = np.array([peak_of(k, recipe, accelerator) for k in kernels])
    table = table_of(kernels, classes, arithmetic, flop, byte, peak, rates(accelerator))
    return Columns(
        phase=tuple(r.phase for r in rows),
        classes=classes,
        count=np.array([r.count * stage for r in rows]),
        flop=flop,
        byte=byte,
        peak=peak,
        parts=parts_of(table, classes, step_form()),
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


def executed_flop(kernel: Kernel) -> float:
    """Executed flop of the units the kernel runs on."""
    work = kernel.work
    return work.matrix_flop + work.recompute_flop if work.matrix_flop else work.vector_flop


def moved_byte(kernel: Kernel) -> float:
    """Bytes read and written."""
    return kernel.work.read_byte + kernel.work.write_byte


def row_seconds(table: Columns, machine: Machine, form: Form) -> Array:
    """Device time of every row with its count, [draws, rows].

    t = f * ([(compute / c)^p + (memory / b)^p]^(1/p) + stream / b) + launch, where c and b are drawn for
    the chip and f for each family of kernels and for the step.
    """
    parts = table.parts
    faster, wider = _chip_draws(table, machine.accelerator, form)
    compute, memory = parts.compute_s / faster, parts.memory_s / wider
    longer = np.maximum(compute, memory)
    p = parts.norm
    busy = longer * (1 + (np.minimum(compute, memory) / longer) ** p) ** (1 / p) + parts.stream_s / wider
    factor = _family_draws(table.classes, form) * form.step.draw("timing.step")[:, None]
    launch = np.exp(form.shape["launch"]) * log_normal("timing.launch", _LAUNCH_SPREAD)[:, None]
    return np.asarray(table.count * (busy * factor + launch))


def _chip_draws(table: Columns, accelerator: Accelerator, form: Form) -> tuple[Array, Array]:
    """Compute and memory rates of every row over their middles, [draws, rows] and [draws, 1]."""
    chip, own = rates(accelerator), chip_factors(accelerator.id, form)
    bandwidth = accelerator.memory_byte_per_s
    wider = bandwidth.draw(f"{chip.id}.bandwidth") / bandwidth.value
    wider = wider * chip.em.draw(f"{chip.id}.em") / chip.em.value * own.memory.draw(f"{chip.id}.memory")
    eta = chip.eta.draw(f"{chip.id}.eta") / chip.eta.value
    kinds = np.stack(
        [
            own.vector.draw(f"{chip.id}.vector"),
            eta * own.compute.draw(f"{chip.id}.compute"),
            eta * own.products.draw(f"{chip.id}.products"),
        ]
    )
    kind = np.where([c.vector for c in table.classes], 0, np.where(table.parts.given, 2, 1))
    return kinds[kind].T, wider[:, None]


def _family_draws(classes: tuple[Class, ...], form: Form) -> Array:
    """What a family of kernels takes over its middle, [draws, rows]: one draw for all ways of a family."""
    bases = [c.family.rpartition("-")[0] or c.family for c in classes]
    names = sorted(set(bases))
    place = np.array([names.index(base) for base in bases])
    spread = {base: form.family(c.family).spread for base, c in zip(bases, classes, strict=True)}
    drawn = np.stack([log_normal(f"timing.{name}", spread[name]) for name in names], axis=1)
    return np.asarray(drawn[:, place])


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
    exchanges: tuple[Collective, ...],
    parameter_tensors: int,
) -> StepTime:
    """Evaluate one step of the rank that decides it.

    A micro-batch takes the smooth maximum of device and host; a 1F1B pipeline runs ``accumulate``
    micro-batches and fills and drains (stages - 1) more (Narayanan et al. 2021); hidden exchanges show
    only what compute cannot cover; nodes wait for the slowest.
    """
    table = columns(work.rows, plan, recipe, machine.accelerator, work.attention_count)
    rows = row_seconds(table, machine, step_form())
    slower = _slowdown(table, rows, machine)
    rows = rows * slower[:, None]
    forward = rows[:, [p == FORWARD for p in table.phase]].sum(axis=1)
    backward = rows[:, [p != FORWARD for p in table.phase]].sum(axis=1)
    again = rows[:, [r.runs_again(plan.recompute) for r in work.rows]].sum(axis=1)
    device = forward + backward + again
    host = _launch_s(stack, machine.accelerator) * table.count.sum() * (1 + (again / device).mean())
    micro = _smooth_max(device, host)
    shown = [(c, collective_s(c, machine)) for c in exchanges]
    overlap = stack.overlap.draw(f"{stack.id}.overlap")
    compute = micro * plan.accumulate
    sent = np.zeros(DRAWS)
    for each, seconds in shown:
        cover = overlap * (backward if each.purpose == "data" and plan.zero < 3 else compute)
        sent = sent + (np.maximum(seconds - cover, seconds * 0.03) if each.hidden else seconds)
    bubble = (plan.pp - 1) * (micro + sent / plan.accumulate if plan.pp > 1 else micro) * (plan.pp > 1)
    update = _optimizer_s(optimizer, machine, stack, recipe, parameter_tensors, plan)
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
        slowdown=slower,
        table=table,
    )


def _slowdown(table: Columns, rows: Array, machine: Machine) -> Array:
    """What the power limit costs while the device is busy [draws]; 1 where the host or the network decide."""
    device_s = rows.sum(axis=1)
    parts = table.parts
    bound = parts.compute_s**parts.norm
    bound = bound / (bound + parts.memory_s**parts.norm)
    clocked = CLOCKED_MEMORY + CLOCKED_COMPUTE * (rows * bound).sum(axis=1) / device_s
    flop_s = float((table.count * table.flop / table.peak).sum())
    byte_s = float((table.count * table.byte).sum()) / machine.accelerator.memory_byte_per_s.value
    draws = power_draws(machine.accelerator)
    return slowdown(draws, flop_s / device_s, byte_s / device_s, clocked)


def _optimizer_s(
    optimizer: Row,
    machine: Machine,
    stack: Stack,
    recipe: Recipe,
    parameter_tensors: int,
    plan: Plan,
) -> Array:
    """One update of the rank's own parameters, in the passes its stack makes."""
    if not optimizer.count:
        return np.zeros(DRAWS)
    alone = Plan(1, 1, 1, 1, 1, 0, "none", 1, 1)
    table = columns((optimizer,), alone, recipe, machine.accelerator, 0)
    device = row_seconds(table, machine, step_form())[:, 0]
    device = device * stack.optimizer_passes.draw(f"{stack.id}.optimizer_passes")
    launches = stack.optimizer_launches * parameter_tensors / plan.pp
    return _smooth_max(device, _launch_s(stack, machine.accelerator) * launches)


def _launch_s(stack: Stack, accelerator: Accelerator) -> Array:
    """Host time of a launch [draws, s]; of the user's own host where steps were measured on it."""
    own = chip_factors(accelerator.id, step_form()).host
    return np.asarray(stack.host_s.draw(f"{stack.id}.host_s") * own.draw(f"{accelerator.id}.host"))


def accepted_precisions(accelerator: Accelerator, recipes: dict[str, Recipe]) -> list[str]:
    """Names of the precisions an accelerator has units for."""
    return [name for name, recipe in recipes.items() if recipe.compute in accelerator.peak_flop_per_s]
