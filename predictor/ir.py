"""The graph every frontend produces, and the work that formulas count.

A frontend spells operator names; ``ops`` knows what a name costs; neither knows the other.
Dtypes are the short names of ``DTYPE_BYTE``. Shapes are tuples of whole numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

DTYPE_BYTE: dict[str, int] = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8": 1,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "bool": 1,
    "complex64": 8,
    "complex128": 16,
}

FORWARD, BACKWARD, RECOMPUTE, OPTIMIZER = "forward", "backward", "recompute", "optimizer"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Shape, type and place of one tensor; ``storage`` is shared by all views of the same memory."""

    shape: tuple[int, ...]
    dtype: str
    stride: tuple[int, ...] = ()
    storage: int = -1

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def byte(self) -> int:
        """Bytes that reading every element once moves; a broadcast axis (stride 0) is read once."""
        if len(self.stride) == len(self.shape) and 0 in self.stride:
            own = prod(n for n, step in zip(self.shape, self.stride, strict=True) if step)
            return own * DTYPE_BYTE[self.dtype]
        return self.elements * DTYPE_BYTE[self.dtype]


@dataclass(frozen=True, slots=True)
class Work:
    """What one call of an operator costs, whatever the machine.

    matrix_flop     flop of products (matmul, convolution, attention), a multiply-add is 2 [flop]
    recompute_flop  flop a fused kernel repeats for its own reasons, not part of the model [flop]
    vector_flop     elementwise arithmetic [flop]
    read_byte       bytes a good implementation reads from device memory [byte]
    write_byte      bytes it writes [byte]
    """

    matrix_flop: int = 0
    recompute_flop: int = 0
    vector_flop: int = 0
    read_byte: int = 0
    write_byte: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.matrix_flop + other.matrix_flop,
            self.recompute_flop + other.recompute_flop,
            self.vector_flop + other.vector_flop,
            self.read_byte + other.read_byte,
            self.write_byte + other.write_byte,
        )


@dataclass(frozen=True, slots=True)
class Op:
    """One call of an operator.

    name     as its frontend spells it: "aten.mm", "onnx.Conv"
    inputs   tensor arguments in the order of the operator's schema, absent ones left out
    outputs  tensor results in order
    attrs    all other arguments by their schema name
    phase    forward, backward, or recompute (forward work that the backward pass does again)
    scope    path of the module that called it, "" when unknown
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    phase: str = FORWARD
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One weight of the model; tied weights appear once, under their first name."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    trainable: bool = True
    expert: bool = False

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class StorageEvent:
    """Memory taken (``byte`` > 0) or given back (``byte`` < 0) before operator number ``at`` + 1."""

    at: int
    byte: int
    storage: int


@dataclass(frozen=True, slots=True)
class Graph:
    """One forward pass, and the backward pass when training, of one micro-batch.

    ops                every operator in order of execution
    parameters         weights, tied ones once
    buffers_byte       state that is not trained (running means, masks) [byte]
    batch              samples in the micro-batch
    tokens_per_sample  length of the token sequence of one sample, None for models without tokens
    events             storages allocated and freed, empty when the frontend cannot know
    gradients          storages that hold parameter gradients when the step ends
    origin             frontend, versions and arguments, for provenance
    notes              what the frontend had to assume: (topic, text, advice)
    """

    name: str
    source: str
    ops: tuple[Op, ...]
    parameters: tuple[Parameter, ...]
    batch: int
    buffers_byte: int = 0
    input_byte: int = 0
    tokens_per_sample: int | None = None
    events: Sequence[StorageEvent] = ()
    gradients: frozenset[int] = frozenset()
    origin: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[tuple[str, str, str], ...] = ()

    @property
    def parameter_count(self) -> int:
        """All parameters, frozen ones included."""
        return sum(p.elements for p in self.parameters)

    @property
    def trainable_count(self) -> int:
        """Parameters that receive a gradient."""
        return sum(p.elements for p in self.parameters if p.trainable)


def at_batch(graph: Graph, batch: int) -> Graph:
    """The graph of another batch size, for one recorded at a prime batch that divides nothing else.

    A size that the prime divides grows with the batch (with its square, when the prime's square divides
    it); every other size stays. Operators that were shared stay shared.
    """
    prime = graph.batch
    if batch == prime:
        return graph
    specs: dict[TensorSpec, TensorSpec] = {}
    ops: dict[int, Op] = {}

    def size(number: int) -> int:
        power = 1
        while number and number % prime == 0:
            number, power = number // prime, power * batch
        return number * power

    def resized(spec: TensorSpec) -> TensorSpec:
        if spec not in specs:
            shape, stride = tuple(map(size, spec.shape)), tuple(map(size, spec.stride))
            specs[spec] = TensorSpec(shape, spec.dtype, stride, spec.storage)
        return specs[spec]

    def argument(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(argument, value))
        return size(value) if type(value) is int and value > 0 else value

    for op in graph.ops:
        if id(op) not in ops:
            ops[id(op)] = replace(
                op,
                inputs=tuple(map(resized, op.inputs)),
                outputs=tuple(map(resized, op.outputs)),
                attrs={name: argument(value) for name, value in op.attrs.items()},
            )
    return replace(
        graph,
        ops=tuple(ops[id(op)] for op in graph.ops),
        batch=batch,
        input_byte=size(graph.input_byte),
        events=tuple(StorageEvent(e.at, _signed(size, e.byte), e.storage) for e in graph.events),
    )


def _signed(size: Callable[[int], int], byte: int) -> int:
    return size(byte) if byte > 0 else -size(-byte)
