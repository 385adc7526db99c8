"""Lifetimes of one micro-batch's storages on one time axis, whoever the frontend was.

Time is the place in the order of storage events; ``Tape.after(k)`` is the moment after operator k took its
results and before anything that followed. What lives across the turn from forward to backward was saved
for it.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import NamedTuple

from predictor.ir import FORWARD, Graph, StorageEvent
from predictor.memory.saved import forward_only_events

ACTIVATIONS, TEMPORARIES, GRADIENTS = "activations", "temporaries", "gradients"


class Life(NamedTuple):
    """One stretch of memory: taken at ``start`` by operator ``op``, given back at ``end``."""

    start: float
    end: float
    byte: int
    kind: str
    op: int


@dataclass(frozen=True, slots=True)
class Tape:
    """All lifetimes of one micro-batch.

    ats        number of operators before each event, to turn operator numbers into times
    turn       number of forward operators
    turn_time  when the backward pass begins
    """

    lives: tuple[Life, ...]
    ats: tuple[int, ...]
    turn: int
    turn_time: float

    def after(self, op: int) -> float:
        """The time just after operator number ``op`` took its results."""
        return bisect_right(self.ats, op) - 0.5

    def with_lives(self, lives: list[Life]) -> "Tape":
        """The same time axis with other lifetimes."""
        return replace(self, lives=tuple(lives))


def read(graph: Graph, train: bool) -> Tape:
    """Lifetimes of a graph; by rule where the frontend recorded no storages.

    Storages still alive at the end are gradients, or end with the pass.
    """
    turn = sum(op.phase == FORWARD for op in graph.ops)
    events, gradients = graph.events, graph.gradients
    if not events:
        events, gradients = forward_only_events(graph, train)
    ats = tuple(event.at for event in events)
    turn_time = bisect_right(ats, turn - 1) - 0.5
    return Tape(_lives(events, gradients, turn_time if train else inf), ats, turn, turn_time)


def _lives(events: Sequence[StorageEvent], gradients: frozenset[int], turn_time: float) -> tuple[Life, ...]:
    """Pair what was taken with what was given back; a storage given back before it was taken is not ours."""
    taken: dict[int, tuple[int, StorageEvent]] = {}
    lives: list[Life] = []

    def close(start: int, event: StorageEvent, end: float) -> None:
        if event.storage in gradients:
            kind = GRADIENTS
        else:
            kind = ACTIVATIONS if start < turn_time < end else TEMPORARIES
        lives.append(Life(start, end, event.byte, kind, event.at))

    for place, event in enumerate(events):
        if event.byte > 0:
            taken[event.storage] = (place, event)
        elif event.storage in taken:
            start, first = taken.pop(event.storage)
            close(start, first, place)
    for start, first in taken.values():
        close(start, first, inf if first.storage in gradients else len(events))
    return tuple(lives)
