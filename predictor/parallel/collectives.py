"""What the ranks of a plan send each other in one step: kinds, bytes and groups, still without seconds."""

import math
from dataclasses import dataclass

from predictor.parallel.plan import Plan
from predictor.workload import Workload


@dataclass(frozen=True, slots=True)
class Collective:
    """``count`` equal exchanges of one rank in one step.

    purpose    data, tensor, context, expert or pipeline
    send_byte  bytes one rank sends in one exchange, by a bandwidth-optimal algorithm [byte]
    group      ranks taking part
    inside     how many ranks of the group share a node
    hidden     True when compute can hide it
    """

    purpose: str
    send_byte: float
    group: int
    inside: int
    count: int
    hidden: bool


def ring_byte(byte: float, group: int) -> float:
    """Bytes one rank sends to gather, or to reduce-scatter, ``byte`` over a ring: (n-1)/n of them."""
    return byte * (group - 1) / group


@dataclass(frozen=True, slots=True)
class Share:
    """One rank's part of the model as it is sent: dense weights and experts, their gradients [byte]."""

    weight_byte: float
    gradient_byte: float
    expert_weight_byte: float
    expert_gradient_byte: float


def inside(group: int, apart: int, per_node: int) -> int:
    """Ranks of one group that share a node, when its neighbours lie ``apart`` ranks from each other.

    Ranks are numbered tensor first, then context, data (experts within), pipeline last.

    >>> inside(8, 1, 8), inside(16, 2, 8), inside(4, 8, 8)
    (8, 4, 1)
    """
    return min(group, max(per_node // apart, 1))


def collectives(
    plan: Plan, work: Workload, share: Share, per_node: int, train: bool
) -> tuple[Collective, ...]:
    """All exchanges of one rank in one optimizer step.

    Tensor parallel: an all-reduce (or gather and scatter) of the residual stream after every attention
    and every feed-forward layer, in each pass (Shoeybi et al., Megatron-LM, 2019). Context parallel: keys
    and values once around the ring in each pass, their gradients once more. Pipeline: the residual stream
    to the next stage, its gradient back.
    """
    found: list[Collective] = []
    passes = 2 if train else 1
    again = 1 if plan.recompute == "full" and train else 0
    stage = 1 / plan.pp
    if plan.tp > 1:
        each = 2 * ring_byte(work.reduced_byte / max(work.reductions, 1) / plan.cp, plan.tp)
        count = math.ceil(work.reductions * stage) * (passes + again) * plan.accumulate
        found.append(Collective("tensor", each, plan.tp, inside(plan.tp, 1, per_node), count, hidden=False))
    if plan.cp > 1:
        each = ring_byte(work.key_value_byte * stage / plan.tp, plan.cp)
        near = inside(plan.cp, plan.tp, per_node)
        found.append(
            Collective("context", each, plan.cp, near, (2 * passes - 1) * plan.accumulate, hidden=True)
        )
    if plan.ep > 1:
        each = ring_byte(work.expert_byte * stage / (plan.tp * plan.cp), plan.ep)
        near = inside(plan.ep, plan.tp * plan.cp, per_node)
        found.append(Collective("expert", each, plan.ep, near, 2 * passes * plan.accumulate, hidden=False))
    if plan.pp > 1:
        near = inside(2, plan.tp * plan.cp * plan.dp, per_node)
        each = work.hidden_byte / (plan.tp * plan.cp)
        found.append(Collective("pipeline", each, 2, near, passes * plan.accumulate, hidden=False))
    found += _data_parallel(plan, plan.data_ranks, share.weight_byte, share.gradient_byte, per_node, train)
    found += _data_parallel(
        plan, plan.expert_ranks, share.expert_weight_byte, share.expert_gradient_byte, per_node, train
    )
    return tuple(found)


def _data_parallel(
    plan: Plan, group: int, weight_byte: float, gradient_byte: float, per_node: int, train: bool
) -> list[Collective]:
    """Exchanges among the ranks that hold the same weights.

    Gradients are reduced once a step; ZeRO 1 and 2 scatter them and gather the new weights. ZeRO 3 gathers
    weights for every pass of every micro-batch and scatters its gradients (Rajbhandari et al., ZeRO, 2020).
    """
    near = inside(group, plan.tp, per_node)
    gather, scatter = ring_byte(weight_byte, group), ring_byte(gradient_byte, group)
    if group == 1 or not weight_byte:
        return []
    if plan.zero == 3:
        each = 2 * gather + scatter if train else gather
        return [Collective("data", each, group, near, plan.accumulate, hidden=True)]
    if not train:
        return []
    each = scatter + gather if plan.zero else 2 * scatter
    return [Collective("data", each, group, near, 1, hidden=True)]
