"""A small automatic differentiation over tensor specs: the operators PyTorch would run, without PyTorch.

A template calls functions on ``Value``; each writes its operator down and, when training, a node that
writes the operators of its gradient. Storages are counted by reference, as PyTorch counts them, so their
lives fall out of the order of the template's statements.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from predictor.frontends.config.layout import Shape, contiguous, is_contiguous
from predictor.ir import BACKWARD, DTYPE_BYTE, FORWARD, Op, Parameter, TensorSpec

_EMPTY: dict[str, Any] = {}


class Memory:
    """One storage; its end of life is an event."""

    __slots__ = ("byte", "number", "tape")

    def __init__(self, tape: "Tape", byte: int) -> None:
        self.tape, self.byte, self.number = tape, byte, tape.storages
        tape.storages += 1

    def __del__(self) -> None:
        tape = self.tape
        if self.byte:
            tape.events.append((len(tape.ops), -self.byte, self.number))
            if self.number in tape.held:
                tape.held[self.number] = self.byte


class Hold:
    """Keeps the first block's input alive, as a caller does that still has its name.

    The block itself must see its input die, for so it does in every later instance; what a hold outlives
    is freed once more when the hold ends, and the expansion drops the first instance's own event.
    """

    __slots__ = ("number", "tape")

    def __init__(self, value: "Value") -> None:
        self.tape, self.number = value.tape, value.memory.number
        self.tape.held[self.number] = 0

    def __del__(self) -> None:
        byte = self.tape.held[self.number]
        if byte:
            self.tape.events.append((len(self.tape.ops), -byte, self.number))
            self.tape.outlived.add(self.number)
        else:
            del self.tape.held[self.number]


class Value:
    """A tensor without content; ``node`` is what made it, where it takes part in the gradient."""

    __slots__ = ("_spec", "dtype", "memory", "node", "shape", "slot", "stride")

    def __init__(self, shape: Shape, dtype: str, stride: Shape, memory: Memory) -> None:
        self.shape, self.dtype, self.stride, self.memory = shape, dtype, stride, memory
        self.node: Node | None = None
        self.slot = 0
        self._spec: TensorSpec | None = None

    @property
    def spec(self) -> TensorSpec:
        """What operators keep of it."""
        if self._spec is None:
            self._spec = TensorSpec(self.shape, self.dtype, self.stride, self.memory.number)
        return self._spec

    @property
    def tape(self) -> "Tape":
        """Where its operators are written."""
        return self.memory.tape

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def dense(self) -> bool:
        """True when it is stored in the order of its axes."""
        return is_contiguous(self.shape, self.stride)


Gradient = Value | None
Backward = Callable[..., Sequence[Gradient]]


class Node:
    """One step of the backward pass: gradients of its results in, gradients of its inputs out."""

    __slots__ = ("block", "edges", "gradients", "run")

    def __init__(self, run: Backward, edges: "list[Edge | None]", results: int, block: int) -> None:
        self.run: Backward | None = run
        self.edges = edges
        self.gradients: list[Gradient] = [None] * results
        self.block = block


Edge = tuple[Node, int, Shape, str]


def _nothing() -> tuple[()]:
    return ()


class Leaf(Node):
    """A weight: gathers its gradient over all its uses."""

    __slots__ = ("dtype", "stride", "uses")

    def __init__(self, stride: Shape, dtype: str) -> None:
        super().__init__(_nothing, [], 1, -1)
        self.stride, self.dtype, self.uses = stride, dtype, 0


Place = tuple[int, Node | None, int]


def _place(value: Value) -> Place:
    return value.memory.number, value.node, value.slot


def _gradient_of(place: Place) -> int:
    """Storage of the gradient that waits for a tensor, -1 for none."""
    _, node, slot = place
    waiting = node.gradients[slot] if node is not None and node.gradients else None
    return -1 if waiting is None else waiting.memory.number


@dataclass(slots=True)
class Block:
    """One kind of repeated block: what is handed on through it, forward and backward, by storage."""

    stack: int
    kind: str
    enters: list[Place]
    leaves: list[Place] = field(default_factory=list)
    gradients_entered: list[int] = field(default_factory=list)
    gradients_left: list[int] = field(default_factory=list)
    parameters: list[Parameter] = field(default_factory=list)


class Tape:
    """Operators, storage events and weights in order, and marks where repeated blocks begin and end.

    half   type that autocast computes in, None without autocast
    dtype  type of the weights and of floating inputs
    """

    def __init__(self, train: bool, dtype: str, half: str | None) -> None:
        self.train, self.dtype, self.half = train, dtype, half
        self.ops: list[Op] = []
        self.events: list[tuple[int, int, int]] = []
        self.parameters: list[Parameter] = []
        self.nodes: list[Node] = []
        self.casts: dict[int, Value] = {}
        self.gradients: list[int] = []
        self.storages, self.buffers_byte, self.input_byte = 0, 0, 0
        self.phase, self.scope, self.prefix = FORWARD, "", ""
        self.block = -1
        self.blocks: list[Block] = []
        self.patterns: list[tuple[str, ...]] = []
        self.cuts: list[tuple[int, str, int, int]] = []
        self.kept: list[Value] = []
        self.weights: set[int] = set()
        self.held: dict[int, int] = {}
        self.outlived: set[int] = set()
        self.cut(-1)

    def known(self, shape: Shape, dtype: str) -> Value:
        """A tensor that lives before the step: an input, a buffer."""
        memory = Memory(self, 0)
        value = Value(shape, dtype, contiguous(shape), memory)
        self.kept.append(value)
        return value

    def input(self, shape: Shape, dtype: str) -> Value:
        """What a batch brings."""
        self.input_byte += prod(shape) * DTYPE_BYTE[dtype]
        return self.known(shape, dtype)

    def buffer(self, shape: Shape, dtype: str = "float32") -> Value:
        """State that is not trained; floating buffers take the type of the weights."""
        dtype = self.dtype if dtype == "float32" else dtype
        block = self.blocks[self.block] if self.block >= 0 else None
        times = self.patterns[block.stack].count(block.kind) if block is not None else 1
        self.buffers_byte += times * prod(shape) * DTYPE_BYTE[dtype]
        return self.known(shape, dtype)

    def parameter(self, name: str, shape: Shape, expert: bool = False, trained: bool = True) -> Value:
        """A weight of the model."""
        value = self.known(shape, self.dtype)
        if trained:
            self.weights.add(value.memory.number)
        owner = self.parameters if self.block < 0 else self.blocks[self.block].parameters
        owner.append(Parameter(self.prefix + name, shape, "float32", trained, expert))
        if self.train and trained:
            value.node = Leaf(value.stride, self.dtype)
        return value

    def new(self, shape: Shape, dtype: str, stride: Shape | None = None) -> Value:
        """A fresh result; ``emit`` writes down what made it."""
        memory = Memory(self, prod(shape) * DTYPE_BYTE[dtype])
        if memory.byte:
            self.events.append((len(self.ops), memory.byte, memory.number))
        return Value(shape, dtype, contiguous(shape) if stride is None else stride, memory)

    def emit(
        self, name: str, inputs: Sequence[Value], outputs: Sequence[Value], attrs: dict[str, Any] = _EMPTY
    ) -> None:
        """Write one operator."""
        read = tuple([v._spec or v.spec for v in inputs])
        written = tuple([v._spec or v.spec for v in outputs])
        self.ops.append(Op(name, read, written, attrs, self.phase, self.scope))

    def node(self, run: Backward, inputs: Sequence[Value | None], *outputs: Value) -> None:
        """Let gradients flow from ``outputs`` to those ``inputs`` that take part."""
        if not self.train or self.phase is BACKWARD:
            return
        edges = [None if v is None or v.node is None else (v.node, v.slot, v.shape, v.dtype) for v in inputs]
        if not any(edges):
            return
        made = Node(run, edges, len(outputs), self.block)
        for edge in edges:
            if edge is not None and edge[0].__class__ is Leaf:
                edge[0].uses += 1
        for slot, output in enumerate(outputs):
            output.node, output.slot = made, slot
        self.nodes.append(made)

    def stack(
        self,
        pattern: Sequence[str],
        run: Callable[[str, tuple[Value, ...]], tuple[Value, ...]],
        carried: list[Value],
    ) -> list[Value]:
        """Repeated blocks: ``pattern`` names the kind of each; every kind runs once, in order of appearance.

        ``carried`` is handed from block to block and emptied, so that nothing outlives its last reader.
        """
        self.patterns.append(tuple(pattern))
        for kind in dict.fromkeys(pattern):
            block = Block(len(self.patterns) - 1, kind, [_place(v) for v in carried])
            self.blocks.append(block)
            self.block = len(self.blocks) - 1
            self.cut(self.block)
            given = tuple(carried)
            carried.clear()
            carried.extend(run(kind, given))
            del given
            block.leaves = [_place(v) for v in carried]
            self.block = -1
            self.cut(-1)
        return carried

    def cut(self, block: int) -> None:
        """What follows belongs to this block, or to none (-1)."""
        self.cuts.append((block, self.phase, len(self.ops), len(self.events)))

    def turn(self, old: int, new: int) -> None:
        """The backward pass leaves one block for another: note which gradients cross."""
        if old >= 0:
            self.blocks[old].gradients_left = [_gradient_of(place) for place in self.blocks[old].enters]
        if new >= 0:
            self.blocks[new].gradients_entered = [_gradient_of(place) for place in self.blocks[new].leaves]
        self.cut(new)

    def close(self) -> None:
        """Let go of everything but what was written: a tape and its values hold each other."""
        self.nodes.clear()
        self.kept.clear()
        self.casts.clear()
        for block in self.blocks:
            block.enters = [(number, None, 0) for number, _, _ in block.enters]
            block.leaves = [(number, None, 0) for number, _, _ in block.leaves]
