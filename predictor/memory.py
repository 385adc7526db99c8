"""Peak memory of one accelerator: live tensors, the allocator's reserve, the device's total."""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from predictor.ir import Graph
from predictor.parallel import Plan
from predictor.stack import Stack
from predictor.training import OPTIMIZERS, Recipe
from predictor.values import Array, draw
from predictor.workload import Workload

# Spread of allocated bytes around the replay of recorded storages: libraries' workspaces, rounding.
_ALLOCATED_SPREAD = (0.95, 1.02, 1.15)
# The same where storages are not recorded and activations follow from what the operators write.
_ESTIMATED_SPREAD = (0.7, 1.0, 1.4)


@dataclass(frozen=True, slots=True)
class Peak:
    """Bytes of one accelerator, as draws; ``parts`` are the named terms of allocated at mid values."""

    allocated: Array
    reserved: Array
    device: Array
    parts: dict[str, float]


def activation_byte(graph: Graph, recipe: Recipe, train: bool) -> int:
    """Most bytes alive beyond weights at any moment of the recorded step, gradients as the recipe keeps them.

    Gradients that persist in a buffer of their own are counted there, not here.
    """
    if not graph.events:
        return _without_events(graph, train)
    skip = graph.gradients if recipe.gradient_persists else frozenset()
    change = np.array([0 if e.storage in skip else e.byte for e in graph.events], dtype=np.int64)
    return int(np.cumsum(change).max(initial=0))


def _without_events(graph: Graph, train: bool) -> int:
    """Training keeps what every operator wrote; inference keeps the two largest neighbours."""
    known = {t.storage for op in graph.ops[:1] for t in op.inputs}
    written = []
    for op in graph.ops:
        new = {t.storage: t.byte for t in op.outputs if t.storage not in known}
        known |= set(new)
        written.append(sum(new.values()))
    if train:
        return sum(written)
    return max((a + b for a, b in zip(written, [*written[1:], 0], strict=True)), default=0)


def _recomputed(activations: float, plan: Plan, work: Workload) -> float:
    """Activations left when blocks are computed again: their inputs, and one block's inside.

    A transformer keeps one residual stream per block; any other graph is cut into about sqrt(n) pieces
    (Chen et al., sublinear memory cost, 2016).
    """
    if plan.recompute != "full":
        return activations
    if work.attention_count:
        kept = work.attention_count * work.hidden_byte
        return min(activations, kept + activations / work.attention_count)
    pieces = max(sqrt(work.layers), 1)
    return activations * min(1.0, 2 / pieces)


def peak_memory(
    graph: Graph, work: Workload, plan: Plan, stack: Stack, recipe: Recipe, optimizer: str, train: bool
) -> Peak:
    """Peak bytes of the rank that holds the most.

    weights, master, gradients and state are divided by tensor and pipeline parallel ranks (experts also
    by expert parallel ones), and by data parallel ranks as the ZeRO stage says (Rajbhandari et al. 2020:
    1 state, 2 gradients, 3 weights). A 1F1B pipeline keeps as many micro-batches in flight as it has
    stages, each a stage's part of the activations: together one micro-batch of the whole model.
    """
    split = plan.tp * plan.pp
    dense = sum(p.elements for p in graph.parameters if not p.expert)
    expert = sum(p.elements for p in graph.parameters if p.expert)
    own = dense / split + expert / (split * plan.ep)
    trained = own * graph.trainable_count / max(graph.parameter_count, 1)
    over = [plan.dp if plan.zero >= stage else 1 for stage in (1, 2, 3)]
    in_flight = min(plan.pp, plan.accumulate) / plan.pp
    activations = activation_byte(graph, recipe, train) + work.saved_byte
    kept = _recomputed(activations, plan, work) if train else activations
    cost = OPTIMIZERS[optimizer]
    parts = {
        "weights": own * (recipe.weight + recipe.copies) / over[2] + graph.buffers_byte / split,
        "activations": kept * in_flight / (plan.tp * plan.cp) + graph.input_byte,
    }
    if train:
        parts["master weights"] = trained * recipe.master / over[0]
        parts["optimizer state"] = trained * cost.states * recipe.state / over[0]
        persists = recipe.gradient_persists or plan.accumulate > 1
        if persists:
            parts["gradients"] = trained * recipe.gradient / over[1]
        temporaries = cost.temporaries * trained * 4 / over[0] if stack.optimizer_passes.mid > 1.3 else 0.0
        waiting = temporaries + (0 if persists else trained * recipe.gradient / over[1])
        parts["activations"] = max(parts["activations"], waiting)
    low, mid, high = _ALLOCATED_SPREAD if graph.events else _ESTIMATED_SPREAD
    total = sum(parts.values())
    allocated = total * draw("memory.allocated", low, mid, high)
    reserved = allocated * stack.reserved_share.draw(f"{stack.id}.reserved_share")
    device = reserved + stack.context_byte.draw(f"{stack.id}.context_byte")
    return Peak(allocated, reserved, device, parts)
