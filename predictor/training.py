"""What training adds to a forward and backward pass: precisions, optimizers, recompute, run length."""

import math
from dataclasses import dataclass

from predictor.errors import InputError
from predictor.ir import OPTIMIZER, RECOMPUTE, Parameter, Work
from predictor.job import Job
from predictor.ops import Kernel
from predictor.parallel import Plan
from predictor.workload import Row, Workload


@dataclass(frozen=True, slots=True)
class Recipe:
    """Bytes per parameter that a precision keeps.

    weight    as used in the forward pass
    copies    further low-precision copies of the weights
    master    float32 weights that the optimizer updates, 0 when ``weight`` are they
    gradient  kept until the optimizer has run
    state     each of the optimizer's values
    compute   type of the matrix products, as the profiles name peaks
    """

    weight: int
    copies: int
    master: int
    gradient: int
    state: int
    compute: str

    @property
    def gradient_persists(self) -> bool:
        """True when gradients are summed in a buffer that lives through the step."""
        return self.gradient > self.weight


# bf16 and fp16 are pure: half weights, with the float32 main gradients, master weights and state that
# Megatron-LM keeps. amp-* is torch autocast over float32 weights, whose half copies are activations.
# fp8 holds bf16 weights and their 8-bit copies, straight and transposed, as Transformer Engine does.
RECIPES: dict[str, Recipe] = {
    "fp32": Recipe(4, 0, 0, 4, 4, "fp32"),
    "tf32": Recipe(4, 0, 0, 4, 4, "tf32"),
    "fp16": Recipe(2, 0, 4, 4, 4, "fp16"),
    "bf16": Recipe(2, 0, 4, 4, 4, "bf16"),
    "amp-fp16": Recipe(4, 0, 0, 4, 4, "fp16"),
    "amp-bf16": Recipe(4, 0, 0, 4, 4, "bf16"),
    "fp8": Recipe(2, 2, 4, 4, 4, "fp8"),
}


@dataclass(frozen=True, slots=True)
class OptimizerCost:
    """Per parameter: values of state, and flop of one update."""

    states: float
    flop: int


# flop: SGD with momentum 2 for the buffer, 2 for the weight. Adam 3 + 4 for the moments, 5 for bias
# correction, root, division and step; AdamW 2 more for decay. Lion 3 + 4 and a sign. Adafactor keeps
# row and column sums (Shazeer and Stern 2018), small against one value per parameter.
OPTIMIZERS: dict[str, OptimizerCost] = {
    "sgd": OptimizerCost(1, 4),
    "adam": OptimizerCost(2, 12),
    "adamw": OptimizerCost(2, 14),
    "adafactor": OptimizerCost(0.01, 14),
    "lion": OptimizerCost(1, 8),
    "none": OptimizerCost(0, 0),
}


def optimizer_kernel(optimizer: str, recipe: Recipe, parameters: int) -> Kernel:
    """One update of ``parameters`` weights, everything read once and written once.

    Reads the gradient, the weight the optimizer owns and its state; writes weight and state, and the
    low-precision copy where there is one.
    """
    cost = OPTIMIZERS[optimizer]
    if not cost.flop:
        return Kernel("optimizer", Work(), "float32")
    owned = recipe.master or recipe.weight
    state = round(cost.states * recipe.state * parameters)
    copies = (recipe.weight + recipe.copies if recipe.master else 0) * parameters
    work = Work(
        vector_flop=cost.flop * parameters,
        read_byte=(recipe.gradient + owned) * parameters + state,
        write_byte=owned * parameters + state + copies,
    )
    return Kernel(OPTIMIZER, work, "float32")


@dataclass(frozen=True, slots=True)
class Executed:
    """Equal kernels that all accelerators together run in one step; ``row`` is their row of the workload."""

    row: int
    kernel: Kernel
    phase: str
    times: int


def executed(work: Workload, optimizer: Row, plan: Plan) -> list[Executed]:
    """Everything one optimizer step runs, recomputed rows and the updates of all ranks included."""
    copies = plan.dp * plan.accumulate
    found = []
    for place, row in enumerate(work.rows):
        found.append(Executed(place, row.kernel, row.phase, row.count * copies))
        if row.runs_again(plan.recompute):
            found.append(Executed(place, row.kernel, RECOMPUTE, row.count * copies))
    if optimizer.count:
        found.append(Executed(-1, optimizer.kernel, OPTIMIZER, plan.dp * plan.model_ranks))
    return found


def own_parameters(parameters: tuple[Parameter, ...], plan: Plan) -> float:
    """Trainable parameters that one rank updates: its part of the model, its shard of that under ZeRO."""
    dense = sum(p.elements for p in parameters if p.trainable and not p.expert) / (plan.tp * plan.pp)
    expert = sum(p.elements for p in parameters if p.trainable and p.expert) / (plan.tp * plan.pp * plan.ep)
    if plan.zero:
        return dense / plan.data_ranks + expert / plan.expert_ranks
    return dense + expert


def run_steps(job: Job, batch_size: int, tokens_per_sample: int | None) -> int:
    """Optimizer steps that the job's length makes; the last one may be short and counts whole."""
    if job.steps is not None:
        return job.steps
    if job.tokens is not None:
        if tokens_per_sample is None:
            raise InputError(
                "--tokens: this model has no token sequence; give --steps, --samples or --epochs"
            )
        return math.ceil(job.tokens / (batch_size * tokens_per_sample))
    if job.samples is not None:
        return math.ceil(job.samples / batch_size)
    if job.epochs is None or job.dataset_size is None:
        raise InputError(
            "the job has no length; give --steps, --samples, --tokens, or --epochs with --dataset-size"
        )
    return math.ceil(job.epochs * job.dataset_size / batch_size)
