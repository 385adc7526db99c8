"""A log in which marks stand for repeated blocks, and the full log they stand for.

A block's border tensors (inputs, results, their gradients, weight gradients) are real to the rest of the
graph, so they have storages of their own in the log. Where the first instance's border tensor was taken or
given back inside the block, a copy says when; the stand-in's own events are dropped.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from predictor.ir import BACKWARD, Op, TensorSpec


@dataclass(slots=True)
class Border:
    """Storages at the border of one instance, in the order of its tensors; -1 where there is none."""

    inputs: list[int] = field(default_factory=list)
    results: list[int] = field(default_factory=list)
    result_gradients: list[int] = field(default_factory=list)
    input_gradients: list[int] = field(default_factory=list)
    weight_gradients: list[int] = field(default_factory=list)

    def all(self) -> list[int]:
        """Every border storage, in a fixed order."""
        return [
            *self.inputs,
            *self.results,
            *self.result_gradients,
            *self.input_gradients,
            *self.weight_gradients,
        ]


@dataclass(slots=True, eq=False)
class Template:
    """The first instance of a block: what it recorded and the shapes of its border.

    results         shape, stride and type of each result that the block makes, and whether it gets a gradient
    passed          for each result, the place of the input that it is, else None
    gradients       the same of each input's gradient, learnt from the last instance
    held            for each input, whether the block keeps it for its backward
    """

    border: Border
    structure: Any
    results: list[Any]
    gradients: dict[int, Any] = field(default_factory=dict)
    held: list[bool] = field(default_factory=list)
    passed: list[int | None] = field(default_factory=list)
    forward: tuple[int, int] = (0, 0)
    backward: tuple[int, int] = (0, 0)


@dataclass(slots=True, eq=False)
class Mark:
    """A place in the log where an instance's forward or backward stands."""

    template: Template
    border: Border
    backward: bool


def expanded(log: list[Any], fresh: Callable[[], int]) -> list[Any]:
    """The log with every mark replaced by a copy of its block, as if each instance had been recorded."""
    marks = [entry for entry in log if isinstance(entry, Mark)]
    if not marks:
        return log
    copies = _Copies(log, fresh)
    for mark in marks:
        copies.add(mark)
    return copies.written(log)


class _Copies:
    """Storage numbers of the copies, and the border events that a copy speaks for."""

    def __init__(self, log: list[Any], fresh: Callable[[], int]) -> None:
        self.fresh = fresh
        self.log = log
        self.facts: dict[Template, _Facts] = {}
        self.numbers: dict[int, dict[int, int]] = {}
        self.borders: dict[int, dict[int, int]] = {}
        self.dropped: set[tuple[int, bool]] = set()
        self.dies_later: dict[int, list[tuple[int, int]]] = defaultdict(list)

    def add(self, mark: Mark) -> None:
        """Number the storages of one instance, once for its forward and backward."""
        if id(mark.border) in self.numbers:
            return
        if mark.template not in self.facts:
            self.facts[mark.template] = _Facts(self.log, mark.template)
        facts = self.facts[mark.template]
        numbers = {
            ours: theirs
            for ours, theirs in zip(mark.template.border.all(), mark.border.all(), strict=False)
            if ours >= 0 and theirs >= 0 and ours != theirs  # all instances share some inputs
        }
        self.borders[id(mark.border)] = dict(numbers)
        for ours, theirs in numbers.items():
            self.dropped |= {(theirs, taken) for taken in (True, False) if (ours, taken) in facts.inside}
        for storage, byte in facts.born.items():
            if storage not in numbers:
                numbers[storage] = self.fresh()
                if (storage, False) not in facts.inside:
                    self.dies_later[storage].append((numbers[storage], -byte))
        self.numbers[id(mark.border)] = numbers

    def written(self, log: list[Any]) -> list[Any]:
        """All entries in order, copies in the place of marks."""
        out: list[Any] = []
        for entry in log:
            if isinstance(entry, Mark):
                out.extend(self._copy(entry))
            elif isinstance(entry, Op):
                out.append(entry)
            elif (entry[0], entry[1] > 0) not in self.dropped:
                out.append(entry)
                if entry[1] < 0:
                    out.extend(self.dies_later.get(entry[0], ()))
        return out

    def _copy(self, mark: Mark) -> Iterator[Any]:
        """The block's entries with this instance's storages.

        Operators inside the block are shared with the first instance and keep its numbers; those at the
        border name the instance's own tensors, so that neighbours are seen to hand them on.
        """
        numbers, border = self.numbers[id(mark.border)], self.borders[id(mark.border)]
        start, stop = mark.template.backward if mark.backward else mark.template.forward
        beside = self.facts[mark.template].beside
        for entry in self.log[start:stop]:
            if isinstance(entry, Op):
                if id(entry) not in beside:
                    yield _renumbered(entry, border)
            elif entry[0] in numbers:
                yield (numbers[entry[0]], entry[1])


class _Facts:
    """Of one template: which storages are taken and given back inside its two parts.

    Sums of an input's gradients over several blocks are made between the blocks, although the first one's
    may stand inside its backward: ``beside`` names those operators.
    """

    def __init__(self, log: list[Any], template: Template) -> None:
        self.born: dict[int, int] = {}
        self.inside: set[tuple[int, bool]] = set()
        self.beside: set[int] = set()
        summed: set[int] = set()
        gradients = {storage for storage in template.border.input_gradients if storage >= 0}
        for start, stop in (template.forward, template.backward):
            for entry in log[start:stop]:
                if not isinstance(entry, Op):
                    self.inside.add((entry[0], entry[1] > 0))
                    if entry[1] > 0:
                        self.born[entry[0]] = entry[1]
                elif _sums(entry, gradients):
                    self.beside.add(id(entry))
                    summed |= {t.storage for t in entry.outputs}
        for storage in summed - gradients:
            self.born.pop(storage, None)
            self.inside -= {(storage, True), (storage, False)}


def _sums(op: Op, gradients: set[int]) -> bool:
    """Whether an operator adds to one of these gradients."""
    adds = op.phase == BACKWARD and op.name in {"aten.add", "aten.add_"}
    return adds and bool(gradients & {t.storage for t in op.inputs})


def _renumbered(op: Op, border: dict[int, int]) -> Op:
    """The operator with border tensors named as in another instance; itself when it touches none."""
    if not any(t.storage in border for t in (*op.inputs, *op.outputs)):
        return op

    def renamed(tensors: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(replace(t, storage=border.get(t.storage, t.storage)) for t in tensors)

    return replace(op, inputs=renamed(op.inputs), outputs=renamed(op.outputs))
