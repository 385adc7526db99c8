"""From a tape on which every kind of block ran once to a graph in which it runs as often as it should.

Operators of repeated blocks are the same objects. What blocks hand on (the residual stream and its
gradient) has one storage number for all of them; in the events every instance has its own numbers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import overload

from predictor.frontends.config.tape import Block, Tape
from predictor.ir import BACKWARD, FORWARD, Op, Parameter, StorageEvent, TensorSpec

Change = tuple[int, int, int]


class Expansion:
    """Where each storage of a finished tape was made, and how its pieces repeat."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        ends = [*tape.cuts[1:], (-1, "", len(tape.ops), len(tape.events))]
        self.pieces = [
            (block, phase, slice(a, b), slice(c, d))
            for (block, phase, a, c), (_, _, b, d) in zip(tape.cuts, ends, strict=True)
        ]
        self.made: dict[int, tuple[int, str]] = {}
        for block, phase, _, events in self.pieces:
            for _, byte, number in tape.events[events]:
                if byte > 0:
                    self.made[number] = (block, phase)
        self.by_kind = {(b.stack, b.kind): i for i, b in enumerate(tape.blocks)}
        self.alike = [_instances(tape.patterns[b.stack], b.kind) for b in tape.blocks]
        self.shared = self._shared()
        self.order = list(self._ordered())

    def _shared(self) -> dict[int, int]:
        """Storage that crosses a border of blocks -> the one number all operators give it.

        Numbers of their own, which no event has: what crosses always goes through memory.
        """
        layers = max((len(pattern) for pattern in self.tape.patterns), default=0)
        first = self.tape.storages * (layers + 1)
        shared: dict[int, int] = {}
        heads: dict[tuple[int, int, str], int] = {}
        for b in self.tape.blocks:
            crossing = [(p, q, FORWARD) for p, q in zip(_numbers(b.enters), _numbers(b.leaves), strict=True)]
            crossing += [(p, q, BACKWARD) for p, q in zip(b.gradients_entered, b.gradients_left, strict=True)]
            for slot, (inside, outside, phase) in enumerate(crossing):
                head = heads.setdefault((b.stack, slot, phase), first + len(heads))
                shared[inside] = shared[outside] = head
        shared.pop(-1, None)
        return shared

    def _ordered(self) -> Iterator[tuple[int, int]]:
        """(piece, instance) in order of execution; instance -1 outside of blocks."""
        done: set[tuple[int, str]] = set()
        place = {(block, phase): i for i, (block, phase, _, _) in enumerate(self.pieces) if block >= 0}
        for i, (block, phase, _, _) in enumerate(self.pieces):
            if block < 0:
                yield i, -1
                continue
            stack = self.tape.blocks[block].stack
            if (stack, phase) in done:
                continue
            done.add((stack, phase))
            pattern = self.tape.patterns[stack]
            instances = range(len(pattern)) if phase == FORWARD else range(len(pattern) - 1, -1, -1)
            for instance in instances:
                piece = place.get((self.by_kind[stack, pattern[instance]], phase))
                if piece is not None:
                    yield piece, instance

    def ops(self) -> tuple[Op, ...]:
        """Every operator in order."""
        renamed = [_renamed(op, self.shared) for op in self.tape.ops] if self.shared else self.tape.ops
        pieces = [renamed[ops] for _, _, ops, _ in self.pieces]
        result: list[Op] = []
        for piece, _ in self.order:
            result += pieces[piece]
        return tuple(result)

    def parameters(self) -> tuple[Parameter, ...]:
        """Every weight; those of equal blocks are the same objects."""
        result = list(self.tape.parameters)
        for stack, pattern in enumerate(self.tape.patterns):
            for kind in pattern:
                result += self.tape.blocks[self.by_kind[stack, kind]].parameters
        return tuple(result)

    def gradients(self) -> frozenset[int]:
        """Storages of the weights' gradients, of every instance."""
        return frozenset(n for number in self.tape.gradients for n in self._everywhere(number))

    def events(self) -> Iterator[StorageEvent]:
        """Every storage event in order."""
        start = 0
        for piece, instance in self.order:
            _, _, ops, events = self.pieces[piece]
            for at, byte, number in self.tape.events[events]:
                for own in self._names(number, piece, instance, byte):
                    yield StorageEvent(start + at - ops.start, byte, own)
            start += ops.stop - ops.start

    def _own(self, number: int, instance: int) -> int:
        """Name of a storage made by one instance; the first of its kind to run keeps its own number."""
        block, phase = self.made[number]
        alike = self.alike[block]
        turn = alike.index(instance) if phase == FORWARD else len(alike) - 1 - alike.index(instance)
        return number + turn * self.tape.storages

    def _everywhere(self, number: int) -> list[int]:
        """Its names in all instances."""
        block, _ = self.made[number]
        return [number] if block < 0 else [self._own(number, i) for i in self.alike[block]]

    def _names(self, number: int, piece: int, instance: int, byte: int) -> Sequence[int]:
        """Which storages an event stands for in this instance of its piece."""
        block = self.pieces[piece][0]
        maker = self.made[number][0]
        if block < 0:
            return self._outside(number)
        if maker == block:
            return (self._own(number, instance),)
        b = self.tape.blocks[block]
        enters = _numbers(b.enters)
        if number in enters and number not in _numbers(b.leaves):
            if instance == 0 and number in self.tape.outlived:
                return ()
            return (self._handed(b.stack, instance - 1, enters.index(number)),)
        if number in b.gradients_entered:
            return (self._gradient(b.stack, instance + 1, b.gradients_entered.index(number)),)
        last = self.alike[block][-1 if self.pieces[piece][1] == FORWARD else 0]
        return self._everywhere(number) if instance == last else ()

    def _outside(self, number: int) -> Sequence[int]:
        """An event between blocks: the last block's result, the first block's gradient, or every instance."""
        block, _ = self.made[number]
        if block < 0:
            return (number,)
        b = self.tape.blocks[block]
        pattern = self.tape.patterns[b.stack]
        final, first = self._kind(b.stack, len(pattern) - 1), self._kind(b.stack, 0)
        if number in _numbers(b.leaves):
            slot = _numbers(b.leaves).index(number)
            return (self._own(_numbers(final.leaves)[slot], len(pattern) - 1),)
        if number in b.gradients_left:
            return (self._own(first.gradients_left[b.gradients_left.index(number)], 0),)
        return self._everywhere(number)

    def _kind(self, stack: int, instance: int) -> Block:
        return self.tape.blocks[self.by_kind[stack, self.tape.patterns[stack][instance]]]

    def _handed(self, stack: int, instance: int, slot: int) -> int:
        """What the block before handed on, or what the first block received."""
        if instance < 0:
            return _numbers(self._kind(stack, 0).enters)[slot]
        made = _numbers(self._kind(stack, instance).leaves)[slot]
        if made in _numbers(self._kind(stack, instance).enters):
            return self._handed(stack, instance - 1, slot)
        return self._own(made, instance)

    def _gradient(self, stack: int, instance: int, slot: int) -> int:
        """The gradient that the block after handed back, or that entered the last block."""
        if instance >= len(self.tape.patterns[stack]):
            last_run = [b for b in self.tape.blocks if b.stack == stack][-1]
            return last_run.gradients_entered[slot]
        return self._own(self._kind(stack, instance).gradients_left[slot], instance)


def _numbers(places: Sequence[tuple[int, object, int]]) -> list[int]:
    return [number for number, _, _ in places]


def _instances(pattern: Sequence[str], kind: str) -> list[int]:
    """Places of the blocks of one kind."""
    return [i for i, k in enumerate(pattern) if k == kind]


def _renamed(op: Op, shared: dict[int, int]) -> Op:
    """The operator with the shared numbers of storages that cross blocks."""
    for tensor in (*op.inputs, *op.outputs):
        if tensor.storage in shared:
            break
    else:
        return op

    def named(group: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple([replace(t, storage=shared[t.storage]) if t.storage in shared else t for t in group])

    return replace(op, inputs=named(op.inputs), outputs=named(op.outputs))


class Events(Sequence[StorageEvent]):
    """Storage events, written out when they are first asked for: counting alone never does."""

    def __init__(self, expansion: Expansion) -> None:
        self._expansion: Expansion | None = expansion
        self._events: tuple[StorageEvent, ...] = ()

    def _all(self) -> tuple[StorageEvent, ...]:
        if self._expansion is not None:
            self._events, self._expansion = tuple(self._expansion.events()), None
        return self._events

    @overload
    def __getitem__(self, place: int) -> StorageEvent: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[StorageEvent, ...]: ...
    def __getitem__(self, place: int | slice) -> StorageEvent | tuple[StorageEvent, ...]:
        return self._all()[place]

    def __len__(self) -> int:
        return len(self._all())

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[StorageEvent]:
        return iter(self._all())
