"""What was assumed and what could not be known, with the part of the answer it touches."""

from collections.abc import Iterable
from pathlib import Path

from predictor.accelerator import SHOWN_ONLY, Accelerator, quantities
from predictor.answer import LedgerEntry
from predictor.ir import Graph
from predictor.job import Job
from predictor.kernels.steps import step_form
from predictor.machine import Machine
from predictor.parallel import Plan
from predictor.stack import Stack
from predictor.training import Recipe
from predictor.values import Sourced
from predictor.workload import Workload
from predictor.world import Region


def entry(topic: str, text: str, advice: str, share: float | None = None) -> LedgerEntry:
    """One line of the ledger."""
    return LedgerEntry(topic=topic, text=text, share=share, advice=advice)


def notes(found: Iterable[tuple[str, str, str]]) -> list[LedgerEntry]:
    """Lines that a frontend, a profile or a region brings along."""
    return [entry(topic, text, advice) for topic, text, advice in found]


def model_lines(graph: Graph, work: Workload, job: Job) -> list[LedgerEntry]:
    """What reading and counting the model assumed."""
    lines = notes(graph.notes)
    if work.unpriced:
        names = ", ".join(work.unpriced[:5]) + (", ..." if len(work.unpriced) > 5 else "")
        text = f"{len(work.unpriced)} operators have no formula and were priced by their bytes: {names}"
        lines.append(entry("unpriced operators", text, "--strict stops instead", 1 - work.bytes_by_formula))
    if job.batch_size is None and job.micro_batch is None:
        text = f"no batch size given: the model's example, {graph.batch} samples per accelerator, was used"
        lines.append(entry("batch size", text, "give --batch-size", 1.0))
    if any(row.kernel.kind.startswith("conv") for row in work.rows) and job.mode == "train":
        text = "convolution libraries may be given far more workspace when they try their algorithms out"
        lines.append(entry("workspace", text, "without cudnn.benchmark the peak is as stated"))
    if any(p.expert for p in graph.parameters):
        text = "tokens are spread evenly over experts"
        lines.append(entry("expert balance", text, "skewed routing is slower; the fullest rank decides"))
    return lines


def stack_lines(
    stack: Stack, chosen: bool, plain_share: float, accelerator: Accelerator
) -> list[LedgerEntry]:
    """The software stack, and whether it was chosen by us."""
    lines = []
    if not chosen:
        text = f"no stack given: {stack.id} ({stack.title}), the usual one of this accelerator and year"
        if accelerator.kind == "asic":
            text = f"no stack of {accelerator.vendor} is modelled: {stack.id} ({stack.title}) stands in"
        lines.append(entry("stack", text, "give --stack; list: predictor stacks"))
    if stack.attention == "plain" and plain_share > 0:
        text = "attention writes its scores to memory, as before fused kernels"
        lines.append(entry("attention", text, "--stack eager-2 has fused attention", plain_share))
    return lines


def arithmetic_lines(recipe: Recipe, half: str | None) -> list[LedgerEntry]:
    """Where float32 is not multiplied as float32."""
    if recipe.compute != "fp32" or half is None:
        return []
    text = f"float32 products are taken in {half}, as this chip's compiler does by default"
    return [entry("precision", text, "compare with --precision bf16 or amp-bf16 elsewhere", 1.0)]


def machine_lines(machine: Machine, train: bool) -> list[LedgerEntry]:
    """What the machine's profile does not know."""
    accelerator = machine.accelerator
    lines = []
    if accelerator.status == "spec-only":
        text = (
            f"nothing was measured on {accelerator.id}: its datasheet, with shares of peak fitted on other "
            f"chips ({step_form().as_of})"
        )
        lines.append(
            entry("efficiency", text, "the range covers the class; measure one step and compare", 1.0)
        )
    if train and accelerator.training_note:
        text = f"training on {accelerator.id} is limited: {accelerator.training_note}"
        lines.append(entry("training", text, "check that its software takes your model", 1.0))
    return lines + _remembered(accelerator) + notes(accelerator.notes) + notes(machine.notes)


def _remembered(accelerator: Accelerator) -> list[LedgerEntry]:
    """One line that names the figures from memory which answers rest on, and counts the others."""
    names = [name for name, value, _ in quantities(accelerator) if value.status == "from memory"]
    if not names:
        return []
    used = [name for name in names if name not in SHOWN_ONLY]
    others = f"{len(names) - len(used)} that no answer rests on" if used != names else ""
    told = "; ".join(part for part in (", ".join(used), others) if part)
    text = f"{accelerator.id}: figures from memory, not checked against a source: {told}"
    return [entry("profile", text, f"check the datasheet; list: predictor hardware show {accelerator.id}")]


def unused_lines(job: Job, plan: Plan, accelerator: Accelerator) -> list[LedgerEntry]:
    """What was asked for and changes nothing."""
    lines = []
    if job.profile is not None and Path(job.profile).stem != accelerator.id:
        text = f"profile {job.profile} not used: the job runs on {accelerator.id}"
        lines.append(entry("not used", text, f"--hardware {Path(job.profile).stem}"))
    placed = [name for name in ("region", "pue", "price") if getattr(job, name) is not None]
    if placed and not job.has_length:
        text = f"{', '.join(placed)} not used: only one step was asked for"
        lines.append(entry("not used", text, "give --steps, --samples, --tokens or --epochs"))
    if plan.zero and plan.data_ranks == 1:
        text = f"zero {plan.zero} not used: one rank holds each weight, there is nothing to shard over"
        lines.append(entry("not used", text, "more data parallel ranks"))
    if job.mode == "infer":
        text = "one forward pass over the whole input, without generation or a key-value cache"
        lines.append(entry("inference", text, "for generation, price prompt and each new token apart"))
    return lines


def plan_lines(
    plan: Plan, work: Workload, communication_share: float, bubble_share: float
) -> list[LedgerEntry]:
    """What dividing the work assumed."""
    lines = []
    if plan.tp > 1 or plan.cp > 1:
        text = "tensor and context parallel ranks share every kernel evenly, norms included"
        lines.append(entry("plan", text, "sequence parallelism does this; without it expect a little more"))
    if plan.pp > 1:
        text = (
            f"a 1F1B schedule of {plan.accumulate} micro-batches over {plan.pp} stages waits while it fills"
        )
        lines.append(
            entry("pipeline", text, "interleaved stages wait less; more micro-batches too", bubble_share)
        )
    if plan.recompute == "full" and not work.attention_count:
        text = "recomputed activations after Chen et al. 2016: a graph without blocks in sqrt(n) pieces"
        lines.append(entry("recompute", text, "measure the peak once"))
    if communication_share > 0.01:
        text = "communication by link rates and shares common to NVLink and network collectives"
        lines.append(entry("communication", text, "fabric contention is not modelled", communication_share))
    return lines


def place_lines(job: Job, region: Region, pue: Sourced | None) -> list[LedgerEntry]:
    """Grid, facility and what they were assumed to be."""
    lines = []
    if job.region is None:
        text = f"no region given: {region.name} was assumed, which spans clean and coal grids"
        lines.append(entry("region", text, "give --region; list: predictor regions list", 1.0))
    if pue is not None:
        known = ", from memory" if pue.status == "from memory" else ""
        text = f"PUE {pue.value:g} ({pue.low:g}-{pue.high:g}): {pue.source}, {pue.as_of}{known}"
        lines.append(entry("PUE", text, "give --pue when the facility publishes it", 1 - 1 / pue.value))
    text = (
        f"grid of {region.name}: {region.kgco2e_per_j.source}, {region.kgco2e_per_j.as_of}, {region.method}"
    )
    lines.append(entry("grid", text, "an annual average; hours and contracts differ"))
    return lines + notes(region.notes)
