"""The sizes of a parallel plan, checked against the count, the batch and the model."""

from dataclasses import dataclass, replace

from predictor.errors import InputError
from predictor.job import Job


@dataclass(frozen=True, slots=True)
class Plan:
    """Data, tensor, pipeline, context and expert parallel sizes; zero is the sharding stage.

    micro_batch  samples that one data-parallel rank works on at a time
    accumulate   micro-batches of one optimizer step
    """

    dp: int
    tp: int
    pp: int
    ep: int
    cp: int
    zero: int
    recompute: str
    micro_batch: int
    accumulate: int

    @property
    def batch_size(self) -> int:
        """Samples of one optimizer step over all accelerators."""
        return self.dp * self.micro_batch * self.accumulate

    @property
    def data_ranks(self) -> int:
        """Accelerators that hold the same weights; context parallel ranks differ in their tokens alone."""
        return self.dp * self.cp

    @property
    def expert_ranks(self) -> int:
        """Accelerators that hold the same experts."""
        return max(self.data_ranks // self.ep, 1)

    @property
    def model_ranks(self) -> int:
        """Accelerators that hold one copy of the model."""
        return self.tp * self.pp * self.cp


def make_plan(job: Job, count: int) -> Plan:
    """The plan of a job, before the model's own batch is known (``micro_batch`` 0 leaves it to the model).

    Raises InputError when the sizes do not multiply to the count or do not divide the batch.
    """
    model_ranks = job.tp * job.pp * job.cp
    dp = job.dp or max(count // model_ranks, 1)
    if dp * model_ranks != count:
        raise InputError(
            f"plan: dp {dp} x tp {job.tp} x pp {job.pp} x cp {job.cp} = {dp * model_ranks} accelerators, "
            f"the machine has {count}; change --count or the plan"
        )
    if dp % job.ep:
        raise InputError(f"plan: ep {job.ep} does not divide dp {dp}")
    micro_batch = job.micro_batch or 0
    if job.batch_size:
        if job.batch_size % (dp * (micro_batch or 1)):
            ranks = f"dp {dp}" + (f" x micro-batch {micro_batch}" if micro_batch else "")
            raise InputError(f"plan: batch size {job.batch_size} is not divisible by {ranks}")
        per_rank = job.batch_size // dp
        micro_batch = micro_batch or per_rank // _micro_batches(per_rank, job.pp)
    return Plan(dp, job.tp, job.pp, job.ep, job.cp, job.zero, job.recompute, micro_batch, 1)


def _micro_batches(per_rank: int, stages: int) -> int:
    """A pipeline gets as many micro-batches as divide its rank's batch, up to 4 a stage."""
    if stages == 1:
        return 1
    return next(m for m in range(min(4 * stages, per_rank), 0, -1) if per_rank % m == 0)


def with_batch(plan: Plan, micro_batch: int, batch_size: int | None) -> Plan:
    """The plan with the micro-batch the model was read at."""
    plan = replace(plan, micro_batch=micro_batch)
    if batch_size is None:
        return plan
    if batch_size % (plan.dp * micro_batch):
        raise InputError(
            f"plan: batch size {batch_size} is not divisible by dp {plan.dp} x micro-batch {micro_batch}"
        )
    return replace(plan, accumulate=batch_size // (plan.dp * micro_batch))


@dataclass(frozen=True, slots=True)
class Divisible:
    """What of a model a plan can divide: attention blocks, query and key heads, tokens, experts."""

    blocks: int
    heads: int
    key_heads: int
    sequence: int
    experts: bool


def check_model(plan: Plan, model: Divisible) -> None:
    """Raise InputError where the model cannot be divided as the plan says."""
    if plan.tp * plan.cp * plan.pp > 1 and not model.blocks:
        raise InputError(
            "plan: tp, cp and pp divide attention blocks, and no attention operator was found in this model "
            "(scaled_dot_product_attention is recognised); use dp or zero"
        )
    if plan.tp > 1 and model.heads % plan.tp:
        raise InputError(f"plan: tp {plan.tp} does not divide {model.heads} attention heads")
    if plan.tp > 1 and model.key_heads % plan.tp and plan.tp % model.key_heads:
        raise InputError(f"plan: tp {plan.tp} neither divides nor repeats {model.key_heads} key-value heads")
    if plan.cp > 1 and model.sequence % plan.cp:
        raise InputError(f"plan: cp {plan.cp} does not divide a sequence of {model.sequence}")
    if plan.ep > 1 and not model.experts:
        raise InputError("plan: ep divides experts, and this model has no parameter named expert")
    if plan.pp > max(model.blocks, 1):
        raise InputError(f"plan: pp {plan.pp} stages, the model has {model.blocks} attention blocks")
