"""What a software stack does to a recorded graph: plain attention, fused elementwise chains.

A pass turns steps (an operator and its kernels) into steps; the graph itself is not changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from predictor.ir import BACKWARD, Graph, Op, TensorSpec, Work
from predictor.ops import FORMULAS, Kernel, by_bytes, gradient_of

_FUSIBLE = {"elementwise", "copy", "norm", "norm-channels-last", "softmax", "reduce"}


@dataclass(frozen=True, slots=True)
class Step:
    """The kernels of one operator; ``priced`` is False when they were priced by bytes alone.

    A step whose phase is not its operator's is that operator's gradient by rule.
    """

    op: Op
    kernels: tuple[Kernel, ...]
    phase: str
    priced: bool = True

    @property
    def by_rule(self) -> bool:
        """True for a gradient whose tensors were not recorded."""
        return self.phase != self.op.phase


def steps_of(graph: Graph, train: bool) -> tuple[Step, ...]:
    """The kernels of every operator; a graph that holds the forward pass alone gets its backward by rule."""
    ids = list(map(id, graph.ops))
    distinct = dict(zip(ids, graph.ops, strict=True))  # repeated blocks share their operators
    made = {key: _step(op) for key, op in distinct.items()}
    steps = tuple(map(made.__getitem__, ids))
    if not train or any(op.phase == BACKWARD for op in distinct.values()):
        return steps
    gradients = {
        key: Step(op, gradient_of(op), BACKWARD, op.name in FORMULAS) for key, op in distinct.items()
    }
    return steps + tuple(gradients[key] for key in reversed(ids) if gradients[key].kernels)


def _step(op: Op) -> Step:
    formula = FORMULAS.get(op.name)
    return Step(op, (formula or by_bytes)(op), op.phase, formula is not None)


def plain_attention(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Attention as two products around a softmax whose scores go through memory.

    All s*t scores are computed and masked afterwards; those above a causal diagonal are executed work
    beyond the model. Forward: q k^T, mask, softmax, dropout, (scores) v. Backward: the four products.
    """
    plain = {
        id(step): replace(step, kernels=_plain(step))
        for step in {id(step): step for step in steps}.values()
        if step.op.name.startswith("predictor.attention")
    }
    return tuple(plain.get(id(step), step) for step in steps)


def _plain(step: Step) -> tuple[Kernel, ...]:
    """The plain kernels in the place of the fused one; gradient sums beside it stay."""
    fused = next(kernel for kernel in step.kernels if kernel.kind == "attention")
    others = tuple(kernel for kernel in step.kernels if kernel is not fused)
    recorded_backward = step.op.name == "predictor.attention_backward"
    q, k, v = step.op.inputs[1:4] if recorded_backward else step.op.inputs[:3]
    scores = q.elements // q.shape[-1] * k.shape[2]
    score_byte = scores * (q.byte // max(q.elements, 1))
    sides = (q.elements // (q.shape[-1] * q.shape[2]), q.shape[2], k.shape[2], q.shape[-1])
    products = 4 if step.phase == BACKWARD else 2
    executed = products * scores * (q.shape[-1] + v.shape[-1])
    per_product = Work(
        matrix_flop=fused.work.matrix_flop // products,
        recompute_flop=max(executed - fused.work.matrix_flop, 0) // products,
        read_byte=q.byte + score_byte,
        write_byte=q.byte,
    )
    passes = Work(vector_flop=10 * scores, read_byte=2 * score_byte, write_byte=score_byte)
    softmax = Kernel("softmax", passes, fused.dtype)
    mask = Kernel("elementwise", replace(passes, read_byte=score_byte), fused.dtype)
    matmuls = (Kernel("matmul", per_product, fused.dtype, sides) for _ in range(products))
    return (*matmuls, mask, softmax, *others)


def saved_scores_byte(steps: Sequence[Step]) -> int:
    """Bytes of softmax results and dropout masks that plain attention keeps for the backward pass."""
    total = 0
    for step in steps:
        if step.op.name == "predictor.attention":
            q, k = step.op.inputs[:2]
            scores = q.elements // q.shape[-1] * k.shape[2]
            total += scores * (2 * (q.byte // max(q.elements, 1)) + 1)
    return total


def fuse_elementwise(steps: Sequence[Step], graph: Graph) -> tuple[Step, ...]:
    """Join runs of elementwise kernels, casts and row reductions into one kernel each.

    Inside a run a tensor that was just made is not read again, and one that dies there is never
    written. Products, convolutions, attention, gathers and pools end a run, as does the change from
    forward to backward. Gradients by rule stay as they are: their tensors are not known.
    """
    lives = _Lives(graph)
    fused: list[Step] = []
    run: list[tuple[int, Step]] = []

    def close() -> None:
        if run:
            fused.append(_join(run, lives))
            run.clear()

    for index, step in enumerate(steps):
        if not step.kernels:
            continue
        joins = step.priced and not step.by_rule and all(kernel.kind in _FUSIBLE for kernel in step.kernels)
        if run and not (joins and step.phase == run[0][1].phase):
            close()
        if joins:
            run.append((index, step))
        else:
            fused.append(step)
    close()
    return tuple(fused)


class _Lives:
    """When the recorded storages are taken and given back, by the number of operators before."""

    def __init__(self, graph: Graph) -> None:
        self.born = {event.storage: event.at for event in graph.events if event.byte > 0}
        self.dies = {event.storage: event.at for event in graph.events if event.byte < 0}

    def dies_by(self, storage: int, index: int, end: int) -> bool:
        """Whether a result of operator ``index`` is given back by the time operator ``end`` is done.

        Operators of repeated blocks are shared and name the storages of one instance: the distance from
        where a storage is taken to where it is given back is the same in all.
        """
        if storage not in self.dies or storage not in self.born:
            return False
        return self.dies[storage] - self.born[storage] <= end + 1 - index


def _join(indexed: list[tuple[int, Step]], lives: _Lives) -> Step:
    run = [step for _, step in indexed]
    if len(run) == 1:
        return run[0]
    end = indexed[-1][0]
    made: set[int] = set()
    read: dict[int, TensorSpec] = {}
    written: dict[int, TensorSpec] = {}
    for index, step in indexed:
        for tensor in step.op.inputs:
            if tensor.storage not in made:
                read[tensor.storage] = tensor
        for tensor in step.op.outputs:
            made.add(tensor.storage)
            if not lives.dies_by(tensor.storage, index, end):
                written[tensor.storage] = tensor
    work = Work(
        vector_flop=sum(kernel.work.vector_flop for step in run for kernel in step.kernels),
        read_byte=sum(t.byte for t in read.values()),
        write_byte=sum(t.byte for t in written.values()),
    )
    kinds = {kernel.kind for step in run for kernel in step.kernels}
    kind = next((k for k in ("norm", "norm-channels-last", "softmax", "reduce") if k in kinds), "elementwise")
    slowest = next((k for step in run for k in step.kernels if k.kind == kind), run[0].kernels[0])
    return replace(run[-1], kernels=(replace(slowest, kind=kind, work=work, dtype=run[0].kernels[0].dtype),))
