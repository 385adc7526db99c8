"""What operators keep for their backward pass, for sources that hold the forward pass only.

Products, convolutions, attention and norms keep what they read; softmax and attention what they wrote;
elementwise functions what their derivative needs: sums and casts nothing, a few what they wrote, the
others what they read.
"""

from functools import cache

from predictor.ir import BACKWARD, Graph, Op, StorageEvent
from predictor.ops import FORMULAS

_READ = {"matmul", "conv", "conv-channels-last", "depthwise", "attention", "norm", "norm-channels-last"}
_WRITTEN = {"attention", "softmax"}
_RESULT = set("relu relu_ sigmoid tanh exp sqrt rsqrt reciprocal".split())
_NOTHING = set("add add_ sub rsub neg cast to_copy _to_copy clone sum mean identity where".split())
FUSIBLE = frozenset({"elementwise", "copy", "norm", "norm-channels-last", "softmax", "reduce"})


def kinds_of(graph: Graph) -> list[frozenset[str]]:
    """Kinds of the kernels of every operator; empty for views and for operators without a formula."""
    known: dict[str, frozenset[str]] = {}
    for op in graph.ops:
        if op.name not in known:
            formula = FORMULAS.get(op.name)
            known[op.name] = frozenset(k.kind for k in formula(op)) if formula else frozenset()
    return [known[op.name] for op in graph.ops]


@cache
def short_name(name: str) -> str:
    """Name of an operator without its source, in lower case: ``onnx.Add`` -> ``add``."""
    return name.rpartition(".")[2].lower()


def saved_by(op: Op, kinds: frozenset[str]) -> set[int]:
    """Storages that the gradient of ``op`` reads again."""
    if not op.attrs.get("backward", True) or not kinds:
        return set()
    read = {t.storage for t in op.inputs if "float" in t.dtype}
    written = {t.storage for t in op.outputs}
    if kinds & _WRITTEN:
        return written | (read if "attention" in kinds else set())
    if kinds & _READ:
        return read
    if "elementwise" not in kinds or short_name(op.name) in _NOTHING:
        return set()
    return written if short_name(op.name) in _RESULT else read


def forward_only_events(graph: Graph, train: bool) -> tuple[tuple[StorageEvent, ...], frozenset[int]]:
    """Storage events of a pass in the order of the operators and, when training, back through them.

    The backward of operator j of n is operator 2n - 1 - j: it takes the gradients of what j read, then
    gives back the gradients of what j wrote and what j had saved. Weight gradients stay.
    """
    ops = [op for op in graph.ops if op.phase != BACKWARD]
    made = {t.storage: (k, t.byte) for k, op in reversed(list(enumerate(ops))) for t in op.outputs}
    kinds = kinds_of(graph)
    last = {t.storage: k for k, op in enumerate(ops) for t in (*op.outputs, *op.inputs)}
    ends = {storage: last[storage] + 1 for storage in made}
    if train:
        for k, op in reversed(list(enumerate(ops))):
            for storage in saved_by(op, kinds[k]) & made.keys():
                ends[storage] = 2 * len(ops) - k
    events = [(made[s][0], 1, StorageEvent(made[s][0], made[s][1], s)) for s in made]
    events += [(end, 0, StorageEvent(end, -made[s][1], s)) for s, end in ends.items()]
    gradients: frozenset[int] = frozenset()
    if train:
        back, gradients = _backward_events(graph, ops, made)
        events += back
    ordered = sorted(events, key=lambda entry: entry[:2])
    return tuple(event for *_, event in ordered if event.byte), gradients


def _backward_events(
    graph: Graph, ops: list[Op], made: dict[int, tuple[int, int]]
) -> tuple[list[tuple[int, int, StorageEvent]], frozenset[int]]:
    """Gradients on the way back: taken by the last reader of a tensor, given back by its writer."""
    shapes = {p.shape for p in graph.parameters if p.trainable}
    number = max((t.storage for op in ops for t in (*op.inputs, *op.outputs)), default=0) + 1
    events: list[tuple[int, int, StorageEvent]] = []
    weights: dict[int, int] = {}
    taken: dict[int, int] = {}
    for k, op in reversed(list(enumerate(ops))):
        at = 2 * len(ops) - 1 - k
        if not op.attrs.get("backward", True):
            continue
        for tensor in op.inputs:
            storage = tensor.storage
            own = storage not in made and (tensor.shape in shapes or tensor.shape[::-1] in shapes)
            if storage in taken or "float" not in tensor.dtype or not (own or storage in made):
                continue
            taken[storage] = number
            events.append((at, 1, StorageEvent(at, tensor.byte, number)))
            if own:
                weights[storage] = number
            else:
                end = 2 * len(ops) - made[storage][0]
                events.append((end, 0, StorageEvent(end, -tensor.byte, number)))
            number += 1
    return events, frozenset(weights.values())
