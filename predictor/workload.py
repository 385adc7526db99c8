"""Counted rows: equal kernels of one micro-batch, merged, with how often they run."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from predictor.ir import BACKWARD, FORWARD, Graph, Op, Work
from predictor.ops import Kernel
from predictor.passes import Step, fuse_elementwise, plain_attention, saved_scores_byte, steps_of
from predictor.stack import Stack


@dataclass(frozen=True, slots=True)
class Row:
    """``count`` equal kernels; ``priced`` is False without a formula, ``core`` True inside attention."""

    kernel: Kernel
    phase: str
    count: int
    priced: bool = True
    core: bool = False

    def runs_again(self, recompute: str) -> bool:
        """Whether activation recompute runs the row a second time: all of the forward pass, or attention."""
        return self.phase == FORWARD and (recompute == "full" or (recompute == "selective" and self.core))


@dataclass(frozen=True, slots=True)
class Workload:
    """One micro-batch of the whole model, before a plan divides it.

    unpriced          names of operators without a formula, most bytes first
    saved_byte        activations the stack keeps beyond those recorded [byte]
    attention_count   attention operators of the forward pass: the blocks of a transformer
    attention_heads   query heads of each, 0 without attention
    key_heads         fewest key-value heads
    sequence          most queries of one attention operator
    hidden_byte       the residual stream: what the product after attention writes, at most [byte]
    reductions        results that tensor parallel ranks sum: one after attention, one after a feed-forward
    reduced_byte      bytes of these results together [byte]
    key_value_byte    keys and values of all attention operators [byte]
    expert_byte       tokens routed to experts, all layers [byte]
    layers            products and convolutions of the forward pass
    """

    rows: tuple[Row, ...]
    unpriced: tuple[str, ...]
    saved_byte: int
    attention_count: int
    attention_heads: int
    key_heads: int
    sequence: int
    hidden_byte: int
    reductions: int
    reduced_byte: int
    key_value_byte: int
    expert_byte: int
    layers: int

    def total(self, phase: str) -> Work:
        """Work of all rows of a phase."""
        work = Work()
        for row in self.rows:
            if row.phase == phase:
                work += scaled(row.kernel.work, row.count)
        return work

    @property
    def bytes_by_formula(self) -> float:
        """Share of all bytes moved by operators that have a formula."""
        moved = [
            (r.count * (r.kernel.work.read_byte + r.kernel.work.write_byte), r.priced) for r in self.rows
        ]
        total = sum(byte for byte, _ in moved)
        return sum(byte for byte, priced in moved if priced) / total if total else 1.0


def scaled(work: Work, times: int) -> Work:
    """``times`` times the work."""
    return Work(
        work.matrix_flop * times,
        work.recompute_flop * times,
        work.vector_flop * times,
        work.read_byte * times,
        work.write_byte * times,
    )


def count(graph: Graph, stack: Stack, train: bool) -> Workload:
    """Count a graph as a stack runs it."""
    steps = steps_of(graph, train)
    plain = stack.attention == "plain"
    saved_byte = saved_scores_byte(steps) if plain and train else 0
    if plain:
        steps = plain_attention(steps)
    if stack.fuse_elementwise:
        steps = fuse_elementwise(steps, graph)
    merged: Counter[tuple[Kernel, str, bool, bool]] = Counter()
    unpriced: Counter[str] = Counter()
    ids = list(map(id, steps))
    times = Counter(ids)
    for step in dict(zip(ids, steps, strict=True)).values():
        for kernel in step.kernels:
            core = step.op.name.startswith("predictor.attention")
            merged[kernel, step.phase, step.priced, core] += times[id(step)]
            if not step.priced:
                moved = kernel.work.read_byte + kernel.work.write_byte
                unpriced[step.op.name] += moved * times[id(step)]
    rows = tuple(Row(kernel, phase, n, priced, core) for (kernel, phase, priced, core), n in merged.items())
    found = _streams(steps)
    streams = [byte for byte, _ in found]
    own = [
        byte for byte, crossed in found if not crossed
    ]  # a block has one feed-forward, however many attentions
    attention = [op for op in graph.ops if op.name == "predictor.attention"]
    return Workload(
        rows=rows,
        unpriced=tuple(name for name, _ in unpriced.most_common()),
        saved_byte=saved_byte,
        attention_count=len(attention),
        attention_heads=max((op.inputs[0].shape[1] for op in attention), default=0),
        key_heads=min((op.inputs[1].shape[1] for op in attention), default=0),
        sequence=max((op.inputs[0].shape[2] for op in attention), default=0),
        hidden_byte=max(streams, default=0),
        reductions=len(streams) + len(own),
        reduced_byte=sum(streams) + sum(own),
        key_value_byte=sum(op.inputs[1].byte + op.inputs[2].byte for op in attention),
        expert_byte=_expert_byte(graph),
        layers=sum(r.count for r in rows if r.phase == FORWARD and r.kernel.dims[1]),
    )


def _streams(steps: Iterable[Step]) -> list[tuple[int, bool]]:
    """For each forward attention the bytes that the product after it writes, and whether it crossed.

    Cross attention is told by queries and keys of other lengths.
    """
    found: list[tuple[int, bool]] = []
    waiting: bool | None = None
    for step in steps:
        if step.phase != FORWARD:
            continue
        if step.op.name == "predictor.attention":
            q, k = step.op.inputs[:2]
            waiting = q.shape[2] != k.shape[2]
        elif waiting is not None and any(kernel.kind == "matmul" for kernel in step.kernels):
            found.append((step.op.outputs[0].byte, waiting))
            waiting = None
    return found


def _expert_byte(graph: Graph) -> int:
    """Bytes of the tokens that expert layers receive: their products' left factor, once a layer.

    An expert layer reads its tokens in its first product and works on the inner width in the others, so
    the smallest left factor among the products of one module, or of one place, stands for the tokens.
    """
    experts = {p.shape for p in graph.parameters if p.expert}
    shapes = experts | {(*s[:-2], s[-1], s[-2]) for s in experts if len(s) > 1}
    if not experts:
        return 0
    scopes: dict[str, list[Op]] = {}
    times = Counter(map(id, graph.ops))
    for op in {id(op): op for op in graph.ops}.values():
        if op.phase == BACKWARD or len(op.inputs) < 2 or not op.outputs:
            continue
        if op.inputs[1].shape in shapes or op.inputs[-1].shape in shapes:
            scopes.setdefault(op.scope, []).append(op)
    smallest = (min(ops, key=lambda op: op.inputs[0].byte) for ops in scopes.values())
    return sum(op.inputs[0].byte * times[id(op)] for op in smallest)
