"""Repeated blocks of a model in its operators and in its weights.

A block is a module whose path ends in a number (``layers.3``, ``stages.2.blocks.5``) and holds attention.
A recorder may stand in one block's operators for all equal ones: then the same calls come again
under the first block's path, and a block begins whenever its first operator does.
"""

from bisect import bisect_left
from itertools import groupby, pairwise
from math import isqrt

import numpy as np

from predictor.ir import FORWARD, Graph, Op
from predictor.memory.saved import kinds_of

_DEPTHS = 3
# Self and cross attention of a decoder's block.
_MOST_ATTENTION = 2
Range = tuple[int, int]


def blocks_of(graph: Graph) -> list[Range]:
    """First and last operator of each block, in order; empty without attention under numbered modules.

    The shallowest numbering is taken under which no block has more than two attention operators.
    """
    ops = [op for op in graph.ops if op.phase == FORWARD]
    for depth in range(1, _DEPTHS + 1):
        found = [r for r in _instances(ops, depth) if _attention(ops, r)]
        if found and all(_attention(ops, r) <= _MOST_ATTENTION for r in found):
            return found
    return []


def pieces_of(graph: Graph) -> list[Range]:
    """Blocks, or about sqrt(n) equal pieces of a graph with n products and no blocks.

    Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174, 2016.
    """
    found = blocks_of(graph)
    turn = sum(op.phase == FORWARD for op in graph.ops)
    if found or not turn:
        return found
    products = sum(bool(kinds & {"matmul", "conv", "depthwise"}) for kinds in kinds_of(graph)[:turn])
    count = min(max(isqrt(products), 1), turn)
    edges = [turn * i // count for i in range(count + 1)]
    return [(a, z - 1) for a, z in pairwise(edges)]


def _instances(ops: list[Op], depth: int) -> list[Range]:
    """Runs of operators under one numbered module, cut where its first operator comes again."""
    found: list[Range] = []
    names: dict[str, str | None] = {}
    for op in ops:
        if op.scope not in names:
            names[op.scope] = numbered(op.scope, depth)
    for name, run in groupby(enumerate(ops), key=lambda entry: names[entry[1].scope]):
        if name is None:
            continue
        places = [place for place, _ in run]
        starts = [place for place in places if _again(ops[place], ops[places[0]])]
        found += [(a, z - 1) for a, z in zip(starts, [*starts[1:], places[-1] + 1], strict=True)]
    return found


def _again(op: Op, first: Op) -> bool:
    """Whether an operator is the same call of an equal block: all but its storages."""
    if op is first:
        return True
    if (op.scope, op.name) != (first.scope, first.name):
        return False
    return [t.shape for t in op.inputs] == [t.shape for t in first.inputs] and op.attrs == first.attrs


def _attention(ops: list[Op], block: Range) -> int:
    return sum(op.name == "predictor.attention" for op in ops[block[0] : block[1] + 1])


def numbered(path: str, depth: int = 1) -> str | None:
    """The path up to its ``depth``-th number, None when it has fewer.

    >>> numbered("stages.2.blocks.5.attn", 2)
    'stages.2.blocks.5'
    """
    parts = path.split(".")
    places = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: places[depth - 1] + 1]) if len(places) >= depth else None


def stage_ends(pieces: list[Range], stages: int) -> list[int]:
    """Last operator of every stage but the last: pieces in runs as equal as they can be."""
    return [pieces[-(-len(pieces) * (s + 1) // stages) - 1][1] for s in range(stages - 1)]


def stage_of_parameters(graph: Graph, ends: list[int]) -> list[int]:
    """Pipeline stage of each weight, by the first operator of the module that owns it.

    Modules without operators of their own (equal blocks that another stands for) lie evenly between
    those before and after them.
    """
    first: dict[str, int] = {}
    for place, op in enumerate(op for op in graph.ops if op.phase == FORWARD):
        first.setdefault(op.scope, place)
    owners = [p.name.rpartition(".")[0] for p in graph.parameters]
    known = {i: first[owner] for i, owner in enumerate(owners) if owner in first}
    known = known or {0: 0, len(owners): len(graph.ops)}
    places = np.interp(np.arange(len(owners)), list(known), list(known.values()))
    return [bisect_left(ends, place) for place in places]
