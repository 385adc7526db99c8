"""Operators as ONNX spells them: shapes and axes given as tensors are not data and are not counted."""

from dataclasses import replace
from math import prod

from predictor.ir import Op, TensorSpec, Work
from predictor.ops import FORMULAS, Kernel, by_bytes, compute_dtype, formula, gradient
from predictor.ops.matmul import product


def priced_as(
    name: str, op: Op, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> tuple[Kernel, ...]:
    """The formula of another operator on these tensors."""
    return FORMULAS[name](Op(name, inputs, outputs, op.attrs))


@formula(
    "onnx.Squeeze",
    "onnx.Unsqueeze",
    "onnx.Identity",
    "onnx.Shape",
    "onnx.Size",
    "onnx.Constant",
    "onnx.Transpose",
    "onnx.Slice",
    "onnx.Split",
    "onnx.Expand",
)
def view(op: Op) -> tuple[Kernel, ...]:
    """The same memory seen differently, as in PyTorch."""
    return ()


@formula("onnx.Reshape", "onnx.Flatten")
def reshape(op: Op) -> tuple[Kernel, ...]:
    """A view, but a broadcast tensor has to be written out first."""
    return priced_as("aten.clone", op, op.inputs[:1], op.outputs) if 0 in op.inputs[0].stride else ()


@formula("onnx.Concat")
def concat(op: Op) -> tuple[Kernel, ...]:
    """Every part is read and written once."""
    return priced_as("aten.cat", op, op.inputs, op.outputs)


@formula(
    "onnx.Tile",
    "onnx.Pad",
    "onnx.Cast",
    "onnx.CastLike",
    "onnx.Resize",
    "onnx.Upsample",
    "onnx.DepthToSpace",
    "onnx.SpaceToDepth",
    "onnx.ReverseSequence",
    "onnx.Trilu",
    "onnx.Col2Im",
    "onnx.CenterCropPad",
)
def copy(op: Op) -> tuple[Kernel, ...]:
    """The first input is read, the result is written."""
    return priced_as("aten.clone", op, op.inputs[:1], op.outputs)


@formula(
    "onnx.ConstantOfShape",
    "onnx.Range",
    "onnx.EyeLike",
    "onnx.OneHot",
    "onnx.RandomNormal",
    "onnx.RandomUniform",
    "onnx.RandomNormalLike",
    "onnx.RandomUniformLike",
)
def write_only(op: Op) -> tuple[Kernel, ...]:
    """The result is written; an example tensor is not read."""
    return priced_as("aten.full", op, (), op.outputs)


def selects(op: Op) -> bool:
    """A Gather at one index is PyTorch's ``x[i]``: a view."""
    return len(op.inputs[1].shape) == 0


@formula("onnx.Gather")
def gather(op: Op) -> tuple[Kernel, ...]:
    """Rows of a table: an embedding, or a view where one index is taken."""
    return () if selects(op) else priced_as("aten.embedding", op, op.inputs, op.outputs)


@formula("onnx.GatherElements", "onnx.GatherND", "onnx.Compress")
def gather_elements(op: Op) -> tuple[Kernel, ...]:
    """Only what is asked for is read."""
    return priced_as("aten.gather", op, op.inputs, op.outputs)


@formula("onnx.ScatterND", "onnx.ScatterElements", "onnx.Scatter")
def scatter(op: Op) -> tuple[Kernel, ...]:
    """(data, indices, updates): the data is copied, the updates are written into it."""
    return priced_as("aten.scatter", op, op.inputs, op.outputs)


@formula("onnx.TopK", "onnx.Unique")
def sort(op: Op) -> tuple[Kernel, ...]:
    """As a sort of the first input."""
    return priced_as("aten.topk", op, op.inputs[:1], op.outputs)


REDUCTIONS = ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")


@formula(
    *(f"onnx.Reduce{name}" for name in REDUCTIONS),
    "onnx.ArgMax",
    "onnx.ArgMin",
    "onnx.CumSum",
    "onnx.CumProd",
    "onnx.NonZero",
    "onnx.NegativeLogLikelihoodLoss",
)
def reduce(op: Op) -> tuple[Kernel, ...]:
    """Every element of the first input is read once."""
    return priced_as("aten.sum", op, op.inputs[:1], op.outputs)


@formula(
    "onnx.MaxPool",
    "onnx.AveragePool",
    "onnx.LpPool",
    "onnx.GlobalAveragePool",
    "onnx.GlobalMaxPool",
    "onnx.GlobalLpPool",
    "onnx.MaxUnpool",
    "onnx.MaxRoiPool",
    "onnx.RoiAlign",
    "onnx.GridSample",
)
def pool(op: Op) -> tuple[Kernel, ...]:
    """Windows overlap in cache: each tensor moves once."""
    return priced_as("aten.avg_pool2d", op, op.inputs, op.outputs)


@formula("onnx.BatchNormalization")
def batch_norm(op: Op) -> tuple[Kernel, ...]:
    """In training the input is read twice, for the statistics and for the result; else once."""
    training = op.attrs.get("backward") or op.attrs.get("training_mode")
    name = "aten.native_batch_norm" if training else "aten._native_batch_norm_legit_no_training"
    return priced_as(name, op, op.inputs, op.outputs)


@formula("com.microsoft.FusedMatMul")
def fused_matmul(op: Op) -> tuple[Kernel, ...]:
    """alpha A' B', either factor stored transposed."""
    a, b = op.inputs[:2]
    (y,) = op.outputs
    k = a.shape[-2] if op.attrs.get("transA") else a.shape[-1]
    m, n = y.shape[-2:]
    return (product(y.elements // max(m * n, 1), m, n, k, a.dtype, a.byte + b.byte, y.byte),)


def _in_integers(kernels: tuple[Kernel, ...]) -> tuple[Kernel, ...]:
    """Unsigned bytes run at the rate of signed ones."""
    return tuple(replace(k, dtype="int8") if k.dtype == "uint8" else k for k in kernels)


@formula("onnx.MatMulInteger", "onnx.QLinearMatMul")
def integer_matmul(op: Op) -> tuple[Kernel, ...]:
    """The product of the float form: (a, b, zero points) or (a, scale, zero point, b, ...)."""
    second = 3 if op.name == "onnx.QLinearMatMul" else 1
    return _in_integers(priced_as("onnx.MatMul", op, (op.inputs[0], op.inputs[second]), op.outputs))


@formula("onnx.ConvInteger", "onnx.QLinearConv")
def integer_convolution(op: Op) -> tuple[Kernel, ...]:
    """The products of the float form: (x, weight, zero points) or (x, scale, zero point, weight, ...)."""
    second = 3 if op.name == "onnx.QLinearConv" else 1
    return _in_integers(priced_as("onnx.Conv", op, (op.inputs[0], op.inputs[second]), op.outputs))


@gradient("onnx.MatMulInteger", "onnx.QLinearMatMul", "onnx.ConvInteger", "onnx.QLinearConv")
def no_gradient(op: Op) -> tuple[Kernel, ...]:
    """Quantised results have no gradient."""
    return ()


def _sizes(term: str, tensor: TensorSpec) -> dict[str, int]:
    """Size of every label; an ellipsis stands for as many capital labels as axes remain, right-aligned."""
    implied = len(tensor.shape) - len(term) + 3
    labels = term.replace("...", "ABCDEFGH"[8 - implied :]) if "..." in term else term
    return dict(zip(labels, tensor.shape, strict=True))


def einsum_sides(op: Op) -> tuple[int, int, int, int] | None:
    """g, m, n, k of a contraction of two tensors; None where it is not one product.

    A label in both factors and the result is g, in both factors alone k, in the first m, in the second n.
    """
    left, _, result = op.attrs["equation"].replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != 2 or not result:
        return None
    first, second = (_sizes(term, tensor) for term, tensor in zip(terms, op.inputs, strict=True))
    kept = result.replace("...", "ABCDEFGH")
    sides = {"g": 1, "m": 1, "n": 1, "k": 1}
    for label in first | second:
        shared = label in first and label in second
        side = ("g" if label in kept else "k") if shared else ("m" if label in first else "n")
        sides[side] *= max(first.get(label, 1), second.get(label, 1))
    return sides["g"], sides["m"], sides["n"], sides["k"]


@formula("onnx.Einsum")
def einsum(op: Op) -> tuple[Kernel, ...]:
    """Two factors make one batched product; anything else is priced by its bytes."""
    sides = einsum_sides(op)
    if sides is None:
        return by_bytes(op)
    moved = sum(t.byte for t in op.inputs)
    return (product(*sides, op.inputs[0].dtype, moved, op.outputs[0].byte),)


def recurrent_products(op: Op) -> tuple[Kernel, Kernel]:
    """x [s, b, i], w [p, g*h, i], r [p, g*h, h]; p directions, g gates (LSTM 4, GRU 3, RNN 1).

    The inputs of all steps meet w in one product; r is needed again at every step.
    """
    x, w, r = op.inputs[:3]
    p, gates, i = w.shape
    h = r.shape[2]
    batch = x.shape[0 if op.attrs.get("layout") else 1]
    steps = prod(x.shape[:2]) // max(batch, 1)
    element_byte = x.byte // max(x.elements, 1)
    gates_byte = p * steps * batch * gates * element_byte
    state_byte = p * steps * batch * h * element_byte
    return (
        product(p, steps * batch, gates, i, x.dtype, x.byte + w.byte, gates_byte),
        product(p * steps, batch, gates, h, x.dtype, steps * r.byte + state_byte, gates_byte),
    )


@formula("onnx.LSTM", "onnx.GRU", "onnx.RNN")
def recurrent(op: Op) -> tuple[Kernel, ...]:
    """One layer in one or both directions; the gates take some 10 flop for each element."""
    from_input, from_state = recurrent_products(op)
    p, m, n, _ = from_input.dims
    written = sum(t.byte for t in op.outputs)
    gates = Work(0, 0, 10 * p * m * n, 2 * from_input.work.write_byte, written)
    return (from_input, from_state, Kernel("elementwise", gates, compute_dtype(op)))
