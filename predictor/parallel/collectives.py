"""What the ranks of a plan send each other in one step: kinds, bytes and groups, still without seconds."""

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


def collectives(
    plan: Plan, work: Workload, gradient_byte: float, weight_byte: float, per_node: int, train: bool
) -> tuple[Collective, ...]:
    """All exchanges of one rank in one optimizer step.

    gradient_byte, weight_byte  of the rank's own part of the model [byte]

    Tensor parallel: two all-reduces (or gather and scatter pairs) of the residual stream per block and
    pass (Shoeybi et al., Megatron-LM, 2019). Data parallel: one all-reduce of the gradients, as
    reduce-scatter and all-gather under ZeRO 1 and 2; ZeRO 3 gathers weights in both passes of every
    micro-batch (Rajbhandari et al., ZeRO, 2020). Context parallel: keys and values once around the ring.
    """
    found: list[Collective] = []
    inside_tp = min(plan.tp, per_node)
    inside_cp = min(plan.cp, max(per_node // plan.tp, 1))
    inside_dp = min(plan.dp, max(per_node // (plan.tp * plan.cp * plan.pp), 1))
    passes = 2 if train else 1
    again = 1 if plan.recompute == "full" and train else 0
    blocks = -(-work.attention_count // plan.pp)
    hidden_byte = work.hidden_byte / plan.cp
    if plan.tp > 1:
        each = 2 * ring_byte(hidden_byte, plan.tp)
        count = 2 * (passes + again) * blocks * plan.accumulate
        found.append(Collective("tensor", each, plan.tp, inside_tp, count, hidden=False))
    if plan.cp > 1:
        each = ring_byte(work.key_value_byte / plan.tp, plan.cp)
        count = (passes + 1 if train else 1) * plan.accumulate
        found.append(Collective("context", each / plan.pp, plan.cp, inside_cp, count, hidden=True))
    if plan.ep > 1:
        each = ring_byte(work.expert_byte / (plan.tp * plan.cp * plan.pp), plan.ep)
        inside = min(plan.ep, inside_dp)
        found.append(Collective("expert", each, plan.ep, inside, 2 * passes * plan.accumulate, hidden=False))
    if plan.pp > 1:
        each = hidden_byte / plan.tp
        found.append(
            Collective("pipeline", each, 2, 1 if plan.pp > 1 else 2, passes * plan.accumulate, hidden=False)
        )
    if plan.dp > 1 and train:
        found.extend(_data_parallel(plan, gradient_byte, weight_byte, inside_dp))
    return tuple(found)


def _data_parallel(plan: Plan, gradient_byte: float, weight_byte: float, inside: int) -> list[Collective]:
    if plan.zero < 3:
        each = 2 * ring_byte(gradient_byte, plan.dp)
        return [Collective("data", each, plan.dp, inside, 1, hidden=True)]
    gather = 2 * ring_byte(weight_byte, plan.dp)
    scatter = ring_byte(gradient_byte, plan.dp)
    return [Collective("data", gather + scatter, plan.dp, inside, plan.accumulate, hidden=True)]
