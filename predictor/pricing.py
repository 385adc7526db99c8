"""One job to one answer: the only place where the parts are joined."""

import hashlib
import json
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import metadata
from typing import Any, TypeVar

import numpy as np

from predictor import ledger
from predictor.accelerator import check_figures
from predictor.answer import (
    BytesPart,
    CarbonPart,
    Coverage,
    EnergyPart,
    Estimate,
    FlopPart,
    LedgerEntry,
    MachinePart,
    MemoryPart,
    ModelPart,
    OperationalCarbon,
    PlanPart,
    Provenance,
    Range,
    RunPart,
    RunTime,
    StackPart,
    StepPart,
    WaterPart,
)
from predictor.breakdown import breakdown
from predictor.carbon import embodied_notes, run_carbon, run_water
from predictor.cost import per_second, rent_usd
from predictor.energy import Watts, run_energy, watts
from predictor.errors import InputError, UnsupportedError
from predictor.frontends import ReadOptions, load_graph
from predictor.frontends.cache import cached_graph
from predictor.graph_file import to_plain
from predictor.ir import BACKWARD, FORWARD, OPTIMIZER, RECOMPUTE, Graph
from predictor.job import Job
from predictor.machine import Machine, build_machine
from predictor.memory import Peak, peak_memory
from predictor.parallel import Divisible, Plan, Share, check_model, collectives, make_plan, with_batch
from predictor.rent import find_price, list_providers
from predictor.run import run_time
from predictor.stack import Stack, default_stack, find_stack
from predictor.timing import StepTime, accepted_precisions, check_precision, half_of, step_time
from predictor.training import (
    OPTIMIZERS,
    RECIPES,
    Executed,
    Recipe,
    executed,
    optimizer_kernel,
    own_parameters,
    run_steps,
)
from predictor.units import GIGA, HOUR, KWH
from predictor.values import Array, Sourced
from predictor.workload import Row, Workload, count
from predictor.world import Region, default_pue, find_region, list_regions

DATA_DATE = "2026-11-20"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Setting:
    """What a job resolves to before its model is read."""

    machine: Machine
    stack: Stack
    recipe: Recipe
    plan: Plan
    region: Region


def resolve(job: Job) -> Setting:
    """Look everything up and refuse early: nothing is read or recorded before all names hold."""
    machine = build_machine(job.hardware, job.count, job.nodes, job.profile)
    accelerator = machine.accelerator
    if job.mode == "train" and not accelerator.training:
        reason = f"{accelerator.id} cannot train: {accelerator.training_note}"
        raise UnsupportedError(f"{reason}; use --mode infer")
    check_figures(accelerator)
    recipe = RECIPES[job.precision]
    check_precision(recipe, job.precision, accelerator, accepted_precisions(accelerator, RECIPES))
    stack = find_stack(
        default_stack(accelerator.kind, accelerator.release_date) if job.stack is None else job.stack
    )
    return Setting(
        machine=machine,
        stack=stack,
        recipe=recipe,
        plan=make_plan(job, machine.count),
        region=_anywhere() if job.region is None else find_region(job.region),
    )


@cache
def _anywhere() -> Region:
    """The place when none is given: the world's average, in the range of all countries."""
    world = find_region("world")
    grid = world.kgco2e_per_j
    found = [find_region(id_).kgco2e_per_j.value for id_ in list_regions("country")]
    low, high = (float(x) for x in np.percentile(found, (5, 95)))
    source = f"{grid.source}; the range is that of {len(found)} countries"
    return replace(world, kgco2e_per_j=replace(grid, low=low, high=high, source=source))


def read_model(job: Job, plan: Plan, cache: bool = True) -> Graph:
    """Read the job's model at the plan's micro-batch, or find its recording on disk."""
    options = ReadOptions(
        batch=plan.micro_batch or None,
        seq_len=job.seq_len,
        image_size=job.image_size,
        precision=job.precision,
        channels_last=job.memory_format == "channels-last",
        train=job.mode == "train",
        inputs=job.inputs,
        dims=job.dim_sizes,
    )
    return cached_graph(job.model, options) if cache else load_graph(job.model, options)


def estimate(job: Job, command: str = "", cache: bool = True) -> Estimate:
    """Predict one job. Raises InputError with what to change when the job cannot be priced.

    ``cache`` keeps the model's recording on disk and uses it again while its sources are unchanged.
    """
    setting = resolve(job)
    return price(job, setting, read_model(job, setting.plan, cache), command)


class Shared:
    """What depends on the graph, the stack and the plan alone, kept for the next machine."""

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], tuple[Graph, Any]] = {}

    def get(self, function: Callable[..., T], graph: Graph, *args: Hashable) -> T:
        """``function(graph, *args)``; a graph is told by its identity, and kept so that no other gets it."""
        key = (function, id(graph), *args)
        if key not in self._kept:
            self._kept[key] = graph, function(graph, *args)
        found: T = self._kept[key][1]
        return found


def price(
    job: Job, setting: Setting, graph: Graph, command: str = "", shared: Shared | None = None
) -> Estimate:
    """Price a recorded graph, so that one recording serves many machines, plans and regions.

    ``shared`` keeps what several of them have in common.
    """
    shared = shared or Shared()
    machine, stack, recipe = setting.machine, setting.stack, setting.recipe
    train = job.mode == "train"
    plan = with_batch(setting.plan, graph.batch, job.batch_size)
    work = shared.get(count, graph, stack, train)
    if job.strict and work.unpriced:
        raise InputError(f"--strict: operators without a formula: {', '.join(work.unpriced)}")
    check_model(plan, _divisible(graph, work))
    optimizer = optimizer_row(job, graph, plan, recipe)
    exchanges = collectives(plan, work, _share(graph, plan, recipe), machine.per_node, train)
    tensors = sum(p.trainable for p in graph.parameters)
    time = step_time(work, optimizer, plan, machine, stack, recipe, exchanges, tensors)
    peak = shared.get(peak_memory, graph, plan, stack, recipe, job.optimizer, train)
    done = executed(work, optimizer, plan)
    flop = _flop(done)
    power = _power(optimizer, plan, machine, time)
    step = _step_part(graph, plan, machine, recipe, time, peak, flop, done, power)
    run, lines = _run_part(job, setting, graph, plan, time, power)
    lines = _ledger(job, setting, graph, work, plan, time) + lines
    if step.fits is False:
        lines.insert(0, _no_fit(peak, machine, plan))
    return Estimate(
        model=ModelPart(
            name=graph.name,
            source=graph.source,
            parameters=graph.parameter_count,
            trainable_parameters=graph.trainable_count,
        ),
        machine=MachinePart(
            accelerator=machine.accelerator.id,
            count=machine.count,
            nodes=machine.nodes,
            profile_status=machine.accelerator.status,
            memory_bytes=machine.accelerator.memory_byte.value,
        ),
        stack=StackPart(id=stack.id, status=stack.status),
        plan=_plan_part(job, plan),
        step=step,
        run=run,
        breakdown=breakdown(done, optimizer, plan, machine, time, power),
        coverage=Coverage(bytes_by_formula=work.bytes_by_formula, unpriced_ops=list(work.unpriced)),
        ledger=sorted(lines, key=lambda line: -(line.share or 0.0)),
        provenance=Provenance(
            version=version(),
            data_date=DATA_DATE,
            command=command,
            input_hash=_input_hash(job, shared.get(_content, graph), setting),
        ),
    )


def version() -> str:
    """Version of the installed package."""
    return metadata.version("predictor")


def optimizer_row(job: Job, graph: Graph, plan: Plan, recipe: Recipe) -> Row:
    """The update of one rank's own parameters."""
    if job.mode != "train" or not OPTIMIZERS[job.optimizer].flop:
        return Row(optimizer_kernel("none", recipe, 0), OPTIMIZER, 0)
    own = own_parameters(graph.parameters, plan)
    return Row(optimizer_kernel(job.optimizer, recipe, round(own)), OPTIMIZER, 1)


def _divisible(graph: Graph, work: Workload) -> Divisible:
    return Divisible(
        blocks=work.attention_count,
        heads=work.attention_heads,
        key_heads=work.key_heads,
        sequence=work.sequence,
        experts=any(p.expert for p in graph.parameters),
    )


def _share(graph: Graph, plan: Plan, recipe: Recipe) -> Share:
    """One rank's part of the model as it is sent: weights in their type, gradients as they are summed."""
    split = plan.tp * plan.pp
    dense = sum(p.elements for p in graph.parameters if p.trainable and not p.expert) / split
    expert = sum(p.elements for p in graph.parameters if p.trainable and p.expert) / (split * plan.ep)
    return Share(
        weight_byte=dense * recipe.weight,
        gradient_byte=dense * recipe.gradient,
        expert_weight_byte=expert * recipe.weight,
        expert_gradient_byte=expert * recipe.gradient,
    )


def _flop(done: list[Executed]) -> FlopPart:
    """Exact counts of one step over all accelerators."""

    def matrix(phase: str) -> int:
        return sum(e.times * e.kernel.work.matrix_flop for e in done if e.phase == phase)

    forward, backward = matrix(FORWARD), matrix(BACKWARD)
    again = matrix(RECOMPUTE) + sum(e.times * e.kernel.work.recompute_flop for e in done)
    update = sum(e.times * e.kernel.work.vector_flop for e in done if e.phase == OPTIMIZER)
    model = forward + backward
    return FlopPart(
        forward=forward,
        backward=backward,
        optimizer=update,
        recompute=again,
        model=model,
        total=model + update + again,
    )


def _power(optimizer: Row, plan: Plan, machine: Machine, time: StepTime) -> Watts:
    """Average power from the shares of peak that the step reaches."""
    table = time.table
    again = 1 + float(np.median(time.recompute_s / np.maximum(time.forward_s + time.backward_s, 1e-30)))
    repeats = plan.accumulate * again
    bandwidth = machine.accelerator.memory_byte_per_s.value
    update = optimizer.kernel.work
    moved = float((table.count * table.byte).sum()) * repeats + update.read_byte + update.write_byte
    at_peak_s = float((table.count * table.flop / table.peak).sum()) * repeats
    return watts(
        machine, at_peak_s / time.total_s, moved / bandwidth / time.total_s, np.minimum(time.busy, 1.0)
    )


def _step_part(
    graph: Graph,
    plan: Plan,
    machine: Machine,
    recipe: Recipe,
    time: StepTime,
    peak: Peak,
    flop: FlopPart,
    done: list[Executed],
    power: Watts,
) -> StepPart:
    capacity = machine.accelerator.memory_byte
    per_s = plan.batch_size / time.total_s
    most = machine.count * _compute_peak(recipe, machine) * time.total_s
    tokens = graph.tokens_per_sample
    return StepPart(
        flop=flop,
        bytes=BytesPart(
            read=sum(e.times * e.kernel.work.read_byte for e in done),
            written=sum(e.times * e.kernel.work.write_byte for e in done),
        ),
        communication_bytes=round(time.sent_byte * machine.count),
        time_s=Range.of(time.total_s),
        samples_per_s=Range.of(per_s),
        tokens_per_s=None if tokens is None else Range.of(per_s * tokens),
        mfu=Range.of(flop.model / most),
        hfu=Range.of((flop.model + flop.recompute) / most),
        peak_memory_bytes=MemoryPart(
            allocated=Range.of(peak.allocated),
            reserved=Range.of(peak.reserved),
            device=Range.of(peak.device),
            parts=peak.parts,
        ),
        fits=bool(np.median(peak.device) <= capacity.value),
        accelerator_power_w=Range.of(power.accelerator),
        node_power_w=Range.of(power.node),
    )


def _compute_peak(recipe: Recipe, machine: Machine) -> float:
    """The dense peak that utilisation is measured against [flop/s]."""
    peaks = machine.accelerator.peak_flop_per_s
    name = recipe.compute
    if name == "fp32":
        name = half_of(machine.accelerator) or name
    if name not in peaks:
        name = "bf16" if "bf16" in peaks else "fp16" if "fp16" in peaks else "fp32"
    return peaks[name].value


def _run_part(
    job: Job, setting: Setting, graph: Graph, plan: Plan, time: StepTime, power: Watts
) -> tuple[RunPart | None, list[LedgerEntry]]:
    """The whole run, and what pricing it assumed; None without a length."""
    if not job.has_length:
        return None, []
    machine, region = setting.machine, setting.region
    steps = run_steps(job, plan.batch_size, graph.tokens_per_sample)
    run = run_time(steps, time.total_s, machine.nodes)
    provider = provider_of(job)
    pue_data = None if job.pue is not None else (region.pue or _fleet_pue(provider))
    pue_name = f"{region.id}.pue" if region.pue else f"{provider or 'default'}.pue"
    pue = np.asarray(job.pue) if pue_data is None else pue_data.draw(pue_name)
    energy = run_energy(machine, power, run.steady_s, run.wall_s, pue)
    carbon = run_carbon(energy, region, machine, run.wall_s)
    water = run_water(energy, region)
    cost, lines = _cost(job, setting, run.wall_s)
    lines += ledger.place_lines(job, region, pue_data) + ledger.notes(embodied_notes(machine.accelerator))
    part = RunPart(
        steps=steps,
        time_s=RunTime(steady=Range.of(run.steady_s), wall=Range.of(run.wall_s)),
        accelerator_hours=Range.of(machine.count * run.wall_s / HOUR),
        node_hours=Range.of(machine.nodes * run.wall_s / HOUR),
        energy_kwh=EnergyPart(
            accelerators=Range.of(energy.accelerators / KWH),
            nodes=Range.of(energy.nodes / KWH),
            facility=Range.of(energy.facility / KWH),
        ),
        carbon_kgco2e=CarbonPart(
            operational=OperationalCarbon(
                location=Range.of(carbon.location),
                market=None if carbon.market is None else Range.of(carbon.market),
            ),
            embodied=Range.of(carbon.embodied),
            total=Range.of(carbon.total),
        ),
        water_l=WaterPart(
            on_site=None if water.on_site is None else Range.of(water.on_site),
            off_site=None if water.off_site is None else Range.of(water.off_site),
        ),
        cost_usd=cost,
    )
    return part, lines


def provider_of(job: Job) -> str | None:
    """The cloud that the hardware or the region names, "aws" in "aws:p5.48xlarge"."""
    for name in (job.hardware, job.region or ""):
        provider, colon, _ = name.partition(":")
        if colon and provider.isalpha():
            return provider.casefold()
    return None


def _fleet_pue(provider: str | None) -> Sourced:
    """The operator's average where it is published, else that of an unknown data centre."""
    try:
        return default_pue(provider or "unknown")
    except InputError:
        return default_pue()


def _cost(job: Job, setting: Setting, wall_s: Array) -> tuple[Range | None, list[LedgerEntry]]:
    """Rent of the run, at the user's price or over the offers known for the accelerator."""
    accelerator, machine = setting.machine.accelerator, setting.machine
    if job.price is not None:
        return Range.of(rent_usd(machine.count, wall_s, per_second(job.price))), []
    found = _offer(accelerator.id, provider_of(job), setting.region)
    if found is None:
        line = ledger.entry(
            "price", f"no rent is known for {accelerator.id}", "give --price USD per accelerator-hour"
        )
        return None, [line]
    low, mid, high = (usd_per_s * HOUR for usd_per_s in (found.low, found.value, found.high))
    text = f"rent {mid:.2f} ({low:.2f}-{high:.2f}) USD per accelerator-hour: {found.source}, {found.as_of}"
    line = ledger.entry("price", text, "give --price with your quote", 1.0)
    return Range.of(rent_usd(machine.count, wall_s, found)), [line]


def _offer(accelerator_id: str, provider: str | None, region: Region) -> Sourced | None:
    """Rent asked in the region, else anywhere by its provider, else by anyone [USD/s]."""
    provider = provider or region.provider
    if provider in list_providers():
        place = region.id.partition(":")[2] if region.provider == provider else None
        here = find_price(accelerator_id, provider, region=place) or find_price(accelerator_id, provider)
        if here is not None:
            return here
    return find_price(accelerator_id)


def _ledger(
    job: Job, setting: Setting, graph: Graph, work: Workload, plan: Plan, time: StepTime
) -> list[LedgerEntry]:
    attention = [r.kernel.kind in {"attention", "softmax"} for r in work.rows]
    plain_share = float(time.row_s[attention].sum() / time.row_s.sum()) if work.attention_count else 0.0
    communication = float(np.median(time.communication_s / time.total_s))
    bubble = float(np.median(time.bubble_s / time.total_s))
    return [
        *ledger.model_lines(graph, work, job),
        *ledger.unused_lines(job, plan, setting.machine.accelerator),
        *ledger.stack_lines(setting.stack, job.stack is not None, plain_share, setting.machine.accelerator),
        *ledger.machine_lines(setting.machine, job.mode == "train"),
        *ledger.arithmetic_lines(setting.recipe, half_of(setting.machine.accelerator)),
        *ledger.plan_lines(plan, work, communication, bubble),
    ]


def _no_fit(peak: Peak, machine: Machine, plan: Plan) -> LedgerEntry:
    largest = max(peak.parts, key=lambda name: peak.parts[name])
    advice = "try --recompute full" if largest == "activations" else "try --zero 3, --tp or --pp"
    if largest == "activations" and plan.micro_batch > 1:
        advice += " or a smaller --micro-batch"
    needed, there = float(np.median(peak.device)) / GIGA, machine.accelerator.memory_byte.value / GIGA
    where = f"{there:.1f} GB on {machine.accelerator.id}"
    text = f"does not fit: {needed:.1f} GB needed, {where}; most of it {largest}"
    return ledger.entry("memory", text, advice, 1.0)


def _plan_part(job: Job, plan: Plan) -> PlanPart:
    return PlanPart(
        dp=plan.dp,
        tp=plan.tp,
        pp=plan.pp,
        ep=plan.ep,
        cp=plan.cp,
        zero=plan.zero,
        recompute=plan.recompute,
        batch_size=plan.batch_size,
        micro_batch=plan.micro_batch,
        accumulation=plan.accumulate,
        precision=job.precision,
        optimizer=job.optimizer,
        memory_format=job.memory_format,
        mode=job.mode,
    )


def _content(graph: Graph) -> str:
    """The recorded graph as JSON, without where it came from."""
    return json.dumps(to_plain(graph) | {"source": "", "origin": {}}, sort_keys=True, default=str)


def _input_hash(job: Job, content: str, setting: Setting) -> str:
    """Hash of the request, the recorded graph, the machine's facts and the data's date."""
    request = {k: v for k, v in job.model_dump(exclude={"model", "inputs"}).items() if v is not None}
    asked = json.dumps(request, sort_keys=True, default=str)
    digest = hashlib.sha256(f"[{asked}, {content}, {json.dumps(DATA_DATE)}]".encode())
    digest.update(repr(asdict(setting.machine)).encode())
    digest.update(setting.stack.model_dump_json().encode())
    return digest.hexdigest()[:16]
