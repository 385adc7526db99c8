"""What an operator costs: one table from the names frontends use to formulas.

A formula takes an ``Op`` and returns the kernels a good implementation launches for it: an empty
tuple claims that nothing is moved (views). A name that is not in the table is priced by its bytes and
listed, never skipped. A gradient formula says what the backward of an operator costs, for sources
that hold the forward pass only.

To add an operator, write a formula in one of this package's files and give it its names.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module

from predictor.ir import Op, TensorSpec, Work

KINDS = (
    "matmul",
    "conv",
    "conv-channels-last",
    "depthwise",
    "attention",
    "scan",
    "norm",
    "norm-channels-last",
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
    """One launch: its kind, its work, the type it computes in, its matrix sides, and what sets its speed.

    dims    (g, m, n, k): g independent products [m, k] @ [k, n]; zeros where there is no product
    family  the class of kernels it belongs to, finer than its kind; the kind itself when empty
    window  side of a convolution's window, and its stride
    line    elements that are summed together: a row of a norm, a plane of an image [-]
    last    whether the image lies with its channels last
    """

    kind: str
    work: Work
    dtype: str
    dims: tuple[int, int, int, int] = (0, 0, 0, 0)
    family: str = ""
    window: int = 0
    stride: int = 1
    line: int = 0
    last: bool = False


Formula = Callable[[Op], tuple[Kernel, ...]]
FORMULAS: dict[str, Formula] = {}
GRADIENTS: dict[str, Formula] = {}
_FILES = (
    "matmul",
    "conv",
    "attention",
    "sequence",
    "normalize",
    "elementwise",
    "movement",
    "pool",
    "vision",
    "recurrent",
    "fft",
    "factor",
    "onnx_ops",
    "onnx_gradients",
    "aten_gradients",
    "jax_ops",
)


def _register(table: dict[str, Formula], names: tuple[str, ...]) -> Callable[[Formula], Formula]:
    def add(formula: Formula) -> Formula:
        for name in names:
            if name in table:
                raise ValueError(
                    f"operator {name} has two formulas: {table[name].__module__}, {formula.__module__}"
                )
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
    return (Kernel("unpriced", streamed(op), compute_dtype(op), last=images_last(op)),)


def streamed(op: Op, flop_per_element: int = 0) -> Work:
    """Every input read once, every output written once."""
    return Work(
        vector_flop=flop_per_element * sum(t.elements for t in op.outputs[:1]),
        read_byte=sum(t.byte for t in op.inputs),
        write_byte=sum(t.byte for t in op.outputs),
    )


def channels_last(tensor: TensorSpec) -> bool:
    """True when the channels of an image batch [b, c, h, w] lie next to each other in memory."""
    return len(tensor.shape) == 4 and tensor.shape[1] > 1 and tensor.stride[1:2] == (1,)


def images_last(op: Op) -> bool:
    """True when an operator's largest image has its channels last."""
    tensors = [t for t in (*op.inputs, *op.outputs) if len(t.shape) == 4]
    return channels_last(max(tensors, key=lambda t: t.elements)) if tensors else False


def compute_dtype(op: Op) -> str:
    """The type an operator computes in: that of its first floating argument or result."""
    for tensor in (*op.inputs, *op.outputs):
        if "float" in tensor.dtype:
            return tensor.dtype
    return "float32"


def wanted(op: Op) -> tuple[bool, ...]:
    """Which inputs receive a gradient; every floating one where the frontend does not say."""
    given = op.attrs.get("needs_grad")
    return tuple(given) if given is not None else tuple("float" in t.dtype for t in op.inputs)


def gradient_of(op: Op) -> tuple[Kernel, ...]:
    """The backward of a forward operator, for sources that hold the forward pass only.

    needs_grad  per input, whether it receives a gradient; backward  whether any does
    grad_sums   per output, how many gradients beyond the first meet there and are added
    """
    if not op.attrs.get("backward", True):
        return ()
    return GRADIENTS.get(op.name, mirrored)(op) + _gradient_sums(op)


def mirrored(op: Op) -> tuple[Kernel, ...]:
    """An operator without a gradient rule reads what it wrote and writes what it read.

    A product has two gradients, each with the flop and bytes of the forward.
    """
    kernels: list[Kernel] = []
    for kernel in FORMULAS.get(op.name, by_bytes)(op):
        work = kernel.work
        if work.matrix_flop:
            kernels += [kernel, kernel]
        else:
            mirror = replace(work, read_byte=work.write_byte, write_byte=work.read_byte)
            kernels.append(replace(kernel, work=mirror))
    return tuple(kernels)


def _gradient_sums(op: Op) -> tuple[Kernel, ...]:
    """A tensor with several readers receives several gradients; each one after the first is added."""
    sums = zip(op.outputs, op.attrs.get("grad_sums", ()), strict=False)
    return tuple(
        Kernel("elementwise", Work(0, 0, y.elements, 2 * y.byte, y.byte), y.dtype, last=channels_last(y))
        for y, count in sums
        for _ in range(count)
    )


for _file in _FILES:
    import_module(f"{__name__}.{_file}")
