"""What an operator costs: one table from the names frontends use to formulas.

A formula takes an ``Op`` and returns the kernels a good implementation launches for it: an empty
tuple claims that nothing is moved (views). A name that is not in the table is priced by its bytes and
listed, never skipped. A gradient formula says what the backward of an operator costs, for sources
that hold the forward pass only.

To add an operator, write a formula in one of this package's files and give it its names.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from predictor.ir import Op, Work

KINDS = (
    "matmul",
    "conv",
    "depthwise",
    "attention",
    "norm",
    "softmax",
    "elementwise",
    "reduce",
    "pool",
    "gather",
    "copy",
    "optimizer",
    "unpriced",
)


@dataclass(frozen=True, slots=True)
class Kernel:
    """One launch: its kind, its work, the type it computes in, and its matrix sides.

    dims  (g, m, n, k): g independent products [m, k] @ [k, n]; zeros where there is no product
    """

    kind: str
    work: Work
    dtype: str
    dims: tuple[int, int, int, int] = (0, 0, 0, 0)


Formula = Callable[[Op], tuple[Kernel, ...]]
FORMULAS: dict[str, Formula] = {}
GRADIENTS: dict[str, Formula] = {}
_FILES = ("matmul", "conv", "attention", "normalize", "elementwise", "movement")


def _register(table: dict[str, Formula], names: tuple[str, ...]) -> Callable[[Formula], Formula]:
    def add(formula: Formula) -> Formula:
        for name in names:
            if name in table:
                raise ValueError(f"operator {name} has two formulas: {table[name].__module__}, {formula.__module__}")
            table[name] = formula
        return formula

    return add


def formula(*names: str) -> Callable[[Formula], Formula]:
    """Enter the function below as the formula of these operator names."""
    return _register(FORMULAS, names)


def gradient(*names: str) -> Callable[[Formula], Formula]:
    """Enter the function below as the cost of the backward of these operator names."""
    return _register(GRADIENTS, names)


def by_bytes(op: Op) -> tuple[Kernel, ...]:
    """An operator without a formula: it reads its inputs and writes its outputs."""
    return (Kernel("unpriced", streamed(op), compute_dtype(op)),)


def streamed(op: Op, flop_per_element: int = 0) -> Work:
    """Every input read once, every output written once."""
    return Work(
        vector_flop=flop_per_element * sum(t.elements for t in op.outputs[:1]),
        read_byte=sum(t.byte for t in op.inputs),
        write_byte=sum(t.byte for t in op.outputs),
    )


def compute_dtype(op: Op) -> str:
    """The type an operator computes in: that of its first floating argument or result."""
    for tensor in (*op.inputs, *op.outputs):
        if "float" in tensor.dtype:
            return tensor.dtype
    return "float32"


for _file in _FILES:
    import_module(f"{__name__}.{_file}")
