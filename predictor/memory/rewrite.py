"""What a stack, a recipe and a plan change about recorded lifetimes; each function one change.

All take and return a ``Tape``; none changes the time axis.
"""

from bisect import bisect_left
from math import inf

from predictor.ir import FORWARD, Graph
from predictor.memory.blocks import Range, stage_ends
from predictor.memory.lifetimes import ACTIVATIONS, GRADIENTS, TEMPORARIES, Life, Tape
from predictor.memory.saved import FUSIBLE, kinds_of

_POINTWISE = frozenset({"elementwise", "copy"})
# Readers whose gradient needs no value of what they read: elementwise kernels compute it again, gathers and
# scatters need the indices alone.
_NEED_NO_COPY = _POINTWISE | {"gather"}


def backward_starts(tape: Tape, pieces: list[Range]) -> list[float]:
    """When each piece's backward begins: just before the operator that first gives back what it saved.

    A piece that saved nothing begins with the one after it.
    """
    piece_of = piece_of_operator(pieces)
    first_end = [inf] * len(pieces)
    for life in tape.lives:
        piece = piece_of.get(life.op)
        if piece is not None and tape.turn_time < life.end < first_end[piece]:
            first_end[piece] = life.end
    starts: list[float] = []
    later = tape.turn_time
    for end in reversed(first_end):
        if end < len(tape.ats):
            later = max(later, tape.after(tape.ats[int(end)] - 2))
        starts.append(later)
    return starts[::-1]


def piece_of_operator(pieces: list[Range]) -> dict[int, int]:
    """The piece that each operator of a piece lies in."""
    return {op: k for k, (first, last) in enumerate(pieces) for op in range(first, last + 1)}


def recompute_full(tape: Tape, pieces: list[Range]) -> Tape:
    """Keep only what pieces hand on; run each piece's forward again when its backward begins.

    What the last operator of a piece took is its result and lives until the next piece was recomputed.
    The last piece is recomputed too, as checkpointing by module does; what follows a piece's last saved
    tensor is not (``torch.utils.checkpoint`` stops early).
    """
    starts = backward_starts(tape, pieces)
    piece_of = piece_of_operator(pieces)
    kept: list[list[int]] = [[] for _ in pieces]
    for x in tape.lives:
        k = piece_of.get(x.op)
        if k is not None and x.end > tape.turn_time:
            kept[k].append(x.op)
    results = [max(ops, default=-1) for ops in kept]
    stops = [max((op for op in ops if op != r), default=-1) for ops, r in zip(kept, results, strict=True)]
    lives: list[Life] = []
    for life in tape.lives:
        k = piece_of.get(life.op)
        if k is None or life.start > tape.turn_time:
            lives.append(life)
            continue
        a, z = pieces[k]
        forward_end = tape.after(z)
        if life.op == results[k] and life.end > forward_end:
            until = starts[k + 1] + 0.45 if k + 1 < len(pieces) else life.end
            kind = ACTIVATIONS if max(life.end, until) > tape.turn_time else life.kind
            lives.append(life._replace(end=max(life.end, until), kind=kind))
            continue
        lives.append(life._replace(end=min(life.end, forward_end), kind=TEMPORARIES))
        if life.op <= stops[k]:
            lives.append(_again(life, tape.after(a - 1), forward_end, starts[k]))
    return tape.with_lives(lives)


def _again(life: Life, begin: float, end: float, moment: float) -> Life:
    """The life of a forward storage when its piece is run again at ``moment``, between two events."""
    scale = 0.8 / max(end - begin, 1.0)

    def moved(time: float) -> float:
        return moment - 0.4 + scale * (time - begin)

    until = life.end if life.end > moment else moved(min(life.end, end))
    return life._replace(start=moved(life.start), end=until, kind=TEMPORARIES)


def add_scores(tape: Tape, graph: Graph, recompute: bool) -> Tape:
    """Softmax results, dropped-out copies and masks that plain attention keeps: [b, h, s, t] each.

    With selective recompute they live only while each attention runs.
    """
    forward = [k for k, op in enumerate(graph.ops) if op.name == "predictor.attention"]
    backward = [k for k, op in enumerate(graph.ops) if op.name == "predictor.attention_backward"]
    if len(backward) != len(forward):
        backward = [2 * tape.turn - 1 - k for k in reversed(forward)]
    lives = list(tape.lives)
    for ahead, back in zip(forward, reversed(backward), strict=True):
        q, k = graph.ops[ahead].inputs[:2]
        byte = q.elements // q.shape[-1] * k.shape[2] * (2 * (q.byte // max(q.elements, 1)) + 1)
        start, end = tape.after(ahead), tape.after(back)
        if recompute:
            lives.append(Life(start, tape.after(ahead + 1) + 0.1, byte, TEMPORARIES, ahead))
            start = tape.after(back - 1)
        lives.append(Life(start, end + 0.1, byte, TEMPORARIES if recompute else ACTIVATIONS, ahead))
    return tape.with_lives(lives)


def fuse(tape: Tape, graph: Graph) -> Tape:
    """Compiled and hand-fused kernels: elementwise results are not kept when they follow from what is.

    A saved result of an elementwise operator is computed again inside the fused backward kernel when all
    that operator read is there and only elementwise operators and scatters read the result; a cast is
    kept in the narrower of its types. Inside an unbroken run of fusible operators, what is taken and given
    back is never written.
    """
    kinds = kinds_of(graph)
    again = _recomputable(tape, graph, kinds)
    run_end = _run_ends(graph, kinds)
    lives: list[Life] = []
    for life in tape.lives:
        key = (id(graph.ops[life.op]), life.byte) if life.op < len(graph.ops) else None
        kept = life
        if life.kind == ACTIVATIONS and key in again:
            kept = life._replace(end=tape.after(life.op + again[key]) + 0.1, kind=TEMPORARIES)
        elif life.kind == ACTIVATIONS and key is not None and graph.ops[life.op].name.endswith("to_copy"):
            kept = life._replace(byte=min(life.byte, graph.ops[life.op].inputs[0].byte))
        end = run_end.get(life.op)
        if kept.kind == TEMPORARIES and end is not None and kept.end <= tape.after(end) + 1:
            continue
        lives.append(kept)
    return tape.with_lives(lives)


def _recomputable(tape: Tape, graph: Graph, kinds: list[frozenset[str]]) -> dict[tuple[int, int] | None, int]:
    """(operator, bytes of a result that is free to make again) -> operators until its last forward reader."""
    readers: dict[int, list[int]] = {}
    writer: dict[int, int] = {}
    seen: set[int] = set()
    for k, op in enumerate(graph.ops[: tape.turn]):
        if id(op) in seen:
            continue
        seen.add(id(op))
        for tensor in op.inputs:
            readers.setdefault(tensor.storage, []).append(k)
        for tensor in op.outputs:
            writer.setdefault(tensor.storage, k)
    # A block that another stands for may read a storage that none of the operators at hand wrote.
    made = writer.keys() | {event.storage for event in graph.events}
    saved = {(life.op, life.byte) for life in tape.lives if life.kind == ACTIVATIONS}
    there: set[int] = set()
    found: dict[tuple[int, int] | None, int] = {}
    for storage, k in sorted(writer.items(), key=lambda entry: entry[1]):
        op = graph.ops[k]
        byte = max(t.byte for t in op.outputs if t.storage == storage)
        if (k, byte) not in saved:
            continue
        there.add(storage)
        read = readers.get(storage, [])
        inputs_there = all(t.storage in there or t.storage not in made for t in op.inputs)
        free = kinds[k] and kinds[k] <= _POINTWISE and inputs_there
        if free and read and all(kinds[r] <= _NEED_NO_COPY for r in read):
            found[id(op), byte] = max(read) - k
    return found


def _run_ends(graph: Graph, kinds: list[frozenset[str]]) -> dict[int, int]:
    """For every operator in a run of fusible ones, the last operator of the run; views do not end a run."""
    ends: dict[int, int] = {}
    run: list[int] = []
    for k, op in enumerate(graph.ops):
        joins = kinds[k] <= FUSIBLE and (not run or op.phase == graph.ops[run[0]].phase)
        if not joins:
            ends.update(dict.fromkeys(run, run[-1] if run else k))
            run = []
        if kinds[k] <= FUSIBLE:
            run.append(k)
    ends.update(dict.fromkeys(run, run[-1] if run else 0))
    return ends


def fuse_loss(tape: Tape, graph: Graph, logit_byte: float) -> Tape:
    """A fused cross-entropy keeps ``logit_byte`` per logit from the head's product to its gradient.

    Logits, their log-softmax and its gradients, all of one number of elements, become one storage.
    """
    for op in graph.ops:
        if op.phase != FORWARD or "log_softmax" not in op.name.lower() or len(op.inputs[0].shape) < 2:
            continue
        elements = op.inputs[0].elements
        sizes = {elements * width for width in (1, 2, 4)}
        mine = [x for x in tape.lives if x.byte in sizes and x.kind != GRADIENTS]
        if not mine:
            continue
        start, end = min(x.start for x in mine), max(x.end for x in mine)
        fused = Life(start, end, round(elements * logit_byte), ACTIVATIONS, min(x.op for x in mine))
        others = [x for x in tape.lives if x.byte not in sizes or x.kind == GRADIENTS]
        tape = tape.with_lives([*others, fused])
    return tape


def brief_gradients(tape: Tape) -> Tape:
    """Weight gradients that are added to a buffer of their own live until the operator after theirs."""
    lives = [x._replace(end=tape.after(x.op + 1) + 0.2) if x.kind == GRADIENTS else x for x in tape.lives]
    return tape.with_lives(lives)


def divided(tape: Tape, activations: int, gradients: int, expert_bytes: frozenset[int], ep: int) -> Tape:
    """One rank's share of every storage: activations over tp and cp, gradients over tp, experts' over ep."""
    lives = []
    for x in tape.lives:
        over = activations
        if x.kind == GRADIENTS:
            over = gradients * (ep if x.byte in expert_bytes else 1)
        lives.append(x._replace(byte=-(-x.byte // over)))
    return tape.with_lives(lives)


def of_stage(tape: Tape, pieces: list[Range], stage: int, stages: int) -> Tape:
    """What one pipeline stage holds: its run of pieces; embedding with the first, head with the last.

    A stage's result is kept by the next one, which receives it.
    """
    ends = stage_ends(pieces, stages)
    # Backward runs through the pieces from the last to the first, so its starts fall.
    falling = [-start for start in backward_starts(tape, pieces)]

    def stage_of(life: Life) -> int:
        if life.start > tape.turn_time:
            return min(bisect_left(falling, -life.start) * stages // len(pieces), stages - 1)
        handed_on = life.op in ends and life.end > tape.after(life.op) + 1
        return min(bisect_left(ends, life.op) + handed_on, stages - 1)

    return tape.with_lives([x for x in tape.lives if stage_of(x) == stage])
