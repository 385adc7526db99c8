"""Peak memory of the accelerator that holds the most: allocated, reserved and device bytes.

    allocated = most bytes of blocks during two replayed steps
    reserved  = allocated + theta * (segments of the replay - allocated)
    device    = reserved + context + convolution library + k * largest convolution

theta < 1, since a replay leaves more holes than a device does, where memory runs short or caches are
emptied. All terms with sources: ``data/stacks``; measured errors: ``calibration/MEMORY.md``.
"""

from dataclasses import dataclass

import numpy as np

from predictor.ir import DTYPE_BYTE, Graph
from predictor.memory.blocks import pieces_of, stage_ends, stage_of_parameters
from predictor.memory.lifetimes import ACTIVATIONS, Tape, read
from predictor.memory.rewrite import (
    add_scores,
    brief_gradients,
    divided,
    fuse,
    fuse_loss,
    of_stage,
    recompute_full,
)
from predictor.memory.step import Held, Replayed, run_steps
from predictor.memory.terms import (
    convolutions,
    has_attention,
    largest_convolution_byte,
    summed_apart,
    update_bytes,
    weight_bytes,
)
from predictor.parallel import Plan
from predictor.stack import Stack
from predictor.training import Recipe
from predictor.values import Array, draw

# Measured over predicted bytes beyond the context, 5th and 95th percentile over unseen model families by
# class of model (calibration/MEMORY.md); training in float32 on one accelerator.
_RESIDUAL = {
    "convolution": (0.94, 1.0, 1.17),
    "attention": (0.93, 1.0, 1.05),
    "other": (0.88, 1.0, 1.06),
}
# Up to this many are the patch embedding of a net of another class.
_FEW_CONVOLUTIONS = 6
# Widening where nothing was measured: storages by rule instead of recorded, a divided model.
_BY_RULE = (0.75, 1.0, 1.35)
_DIVIDED = (0.93, 1.0, 1.08)


@dataclass(frozen=True, slots=True)
class Peak:
    """Bytes of one accelerator, as draws; ``parts`` are the named terms of the device's at mid values."""

    allocated: Array
    reserved: Array
    device: Array
    parts: dict[str, float]


def peak_memory(graph: Graph, plan: Plan, stack: Stack, recipe: Recipe, optimizer: str, train: bool) -> Peak:
    """Peak bytes of the rank that holds the most: the first or the last stage of a pipeline."""
    tape = lifetimes(graph, plan, stack, recipe, train)
    most = max(
        (replay_stage(graph, tape, plan, stack, recipe, optimizer, train, s) for s in {0, plan.pp - 1}),
        key=lambda found: found.allocated,
    )
    return _with_ranges(graph, plan, stack, most, train)


def lifetimes(graph: Graph, plan: Plan, stack: Stack, recipe: Recipe, train: bool) -> Tape:
    """The graph's lifetimes as the stack, the recompute strategy and the plan make them."""
    tape = read(graph, train)
    if train:
        if stack.attention == "plain":
            tape = add_scores(tape, graph, recompute=plan.recompute == "selective")
        if stack.logit_byte:
            tape = fuse_loss(tape, graph, stack.logit_byte)
        if stack.fuse_elementwise:
            tape = fuse(tape, graph)
        if plan.recompute == "full":
            tape = recompute_full(tape, pieces_of(graph))
    if plan.model_ranks * plan.ep > 1:
        byte = DTYPE_BYTE["float32"] if recipe.weight == 4 else recipe.weight
        experts = frozenset(p.elements * byte for p in graph.parameters if p.expert)
        tape = divided(tape, plan.tp * plan.cp, plan.tp, experts, plan.ep)
    if train and summed_apart(recipe, plan):
        tape = brief_gradients(tape)
    return tape


def replay_stage(
    graph: Graph,
    tape: Tape,
    plan: Plan,
    stack: Stack,
    recipe: Recipe,
    optimizer: str,
    train: bool,
    stage: int,
) -> Replayed:
    """Two steps of one pipeline stage; a 1F1B schedule keeps as many micro-batches as stages follow."""
    parameters = graph.parameters
    if plan.pp > 1:
        pieces = pieces_of(graph)
        tape = of_stage(tape, pieces, stage, plan.pp)
        places = stage_of_parameters(graph, stage_ends(pieces, plan.pp))
        parameters = tuple(p for p, place in zip(parameters, places, strict=True) if place == stage)
    standing = weight_bytes(parameters, plan, recipe, stack, train)
    standing["buffers"] = [graph.buffers_byte // plan.pp]
    standing["library workspaces"] = [round(stack.blas_byte.mid)]
    waiting = min(plan.pp - stage, plan.accumulate) - 1 if train else 0
    if waiting > 0:
        saved = sum(x.byte for x in tape.lives if x.kind == ACTIVATIONS)
        standing["activations of waiting micro-batches"] = [saved] * waiting
    state, temporaries = update_bytes(parameters, plan, recipe, stack, optimizer) if train else ([], [])
    held = Held(standing, graph.input_byte // plan.cp, state, temporaries, plan.accumulate)
    return run_steps(tape, held)


def _with_ranges(graph: Graph, plan: Plan, stack: Stack, found: Replayed, train: bool) -> Peak:
    """Three answers with their ranges; the parts add up to the device's bytes at mid values."""
    segments = max(found.reserved - found.allocated, 0)
    has_convolution = bool(convolutions(graph))
    largest = largest_convolution_byte(graph) / (plan.tp * plan.cp) if train else 0.0
    spread = _residual(graph, plan)
    allocated = found.allocated * spread
    if stack.fragmentation is not None:
        unused = segments * spread * stack.fragmentation.draw(f"{stack.id}.fragmentation")
        fragmentation = segments * stack.fragmentation.mid
    else:
        share = stack.reserved_share
        assert share is not None, "a stack has one of the two"
        unused = allocated * np.maximum(share.draw(f"{stack.id}.reserved_share") - 1, 0.0)
        fragmentation = found.allocated * (share.mid - 1)
    reserved = allocated + unused
    library, workspace = stack.convolution_byte, stack.convolution_workspace
    context = stack.context_byte.draw(f"{stack.id}.context_byte")
    device = reserved + context + workspace.draw(f"{stack.id}.convolution_workspace") * largest * spread
    if has_convolution:
        device = device + library.draw(f"{stack.id}.convolution_byte")
    parts: dict[str, float] = {name: float(byte) for name, byte in found.parts.items() if byte}
    parts["fragmentation"] = fragmentation
    parts["convolution workspace"] = workspace.mid * largest
    parts["context"] = stack.context_byte.mid + (library.mid if has_convolution else 0.0)
    return Peak(allocated, reserved, device, {name: byte for name, byte in parts.items() if byte})


def _residual(graph: Graph, plan: Plan) -> Array:
    """Draws of measured over predicted for this class of model."""
    convolutional = len(convolutions(graph)) > _FEW_CONVOLUTIONS
    kind = "convolution" if convolutional else "attention" if has_attention(graph) else "other"
    spread = draw(f"memory.{kind}", *_RESIDUAL[kind])
    if not graph.events:
        spread = spread * draw("memory.by rule", *_BY_RULE)
    if plan.model_ranks > 1:
        spread = spread * draw("memory.divided", *_DIVIDED)
    return spread
