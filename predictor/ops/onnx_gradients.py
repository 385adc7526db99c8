"""What the backward of an ONNX operator costs, for files that hold the forward pass alone.

``wanted`` says which inputs receive a gradient; the gradient of a result has the shape of the result.
"""

from dataclasses import replace

from predictor.ir import Op, TensorSpec, Work
from predictor.ops import FORMULAS, Kernel, compute_dtype, gradient, mirrored, wanted
from predictor.ops.elementwise import ONNX_FLOP_PER_ELEMENT
from predictor.ops.matmul import product, product_gradient
from predictor.ops.onnx_ops import REDUCTIONS, einsum_sides, priced_as, selects


def _targets(op: Op) -> tuple[TensorSpec, ...]:
    """The inputs that receive a gradient."""
    return tuple(t for t, needed in zip(op.inputs, wanted(op), strict=True) if needed)


def _dense(tensor: TensorSpec) -> TensorSpec:
    """The gradient of a tensor: every element is stored."""
    return TensorSpec(tensor.shape, tensor.dtype)


def _saved_byte(op: Op, index: int) -> int:
    """Bytes of forward tensors that the gradient of input ``index`` reads."""
    match op.name.rpartition(".")[2]:
        case "Add" | "Sub" | "Sum" | "Mean" | "Neg":
            return 0
        case "Mul" | "Div":
            return sum(t.byte for i, t in enumerate(op.inputs) if i != index)
        case "Where":
            return op.inputs[0].byte
        case "Dropout":
            return sum(t.byte for t in op.outputs[1:])
        case _:
            return sum(t.byte for t in op.inputs)


@gradient(*ONNX_FLOP_PER_ELEMENT)
def elementwise(op: Op) -> tuple[Kernel, ...]:
    """One pass for each input: reads dy and what was saved, writes the gradient.

    A sum hands dy on as it is. Where an input was broadcast, its gradient is summed while it is made.
    """
    dy = _dense(op.outputs[0])
    flop = max(ONNX_FLOP_PER_ELEMENT[op.name], 1) * dy.elements
    kernels = []
    for index, (x, needed) in enumerate(zip(op.inputs, wanted(op), strict=True)):
        broadcast = x.elements < dy.elements
        hands_on = op.name in {"onnx.Add", "onnx.Sum"} or (op.name == "onnx.Sub" and index == 0)
        if needed and (broadcast or not hands_on):
            work = Work(0, 0, flop, dy.byte + _saved_byte(op, index), x.byte)
            kernels.append(Kernel("reduce" if broadcast else "elementwise", work, compute_dtype(op)))
    return tuple(kernels)


def _norm(op: Op, name: str) -> tuple[Kernel, ...]:
    return priced_as(name, op, (_dense(op.outputs[0]), *op.inputs[:2]), _targets(op))


@gradient("onnx.BatchNormalization")
def batch_norm(op: Op) -> tuple[Kernel, ...]:
    """(dy, x, scale) -> gradients of the input, scale and bias."""
    return _norm(op, "aten.native_batch_norm_backward")


@gradient(
    "onnx.LayerNormalization",
    "onnx.RMSNormalization",
    "onnx.SimplifiedLayerNormalization",
    "onnx.LpNormalization",
    "onnx.LRN",
    "com.microsoft.SkipLayerNormalization",
    "com.microsoft.SimplifiedLayerNormalization",
    "com.microsoft.SkipSimplifiedLayerNormalization",
)
def row_norm(op: Op) -> tuple[Kernel, ...]:
    """(dy, x, scale) -> gradients of the input, scale and bias."""
    return _norm(op, "aten.native_layer_norm_backward")


@gradient("onnx.GroupNormalization", "onnx.InstanceNormalization", "onnx.MeanVarianceNormalization")
def group_norm(op: Op) -> tuple[Kernel, ...]:
    """(dy, x, scale) -> gradients of the input, scale and bias."""
    return _norm(op, "aten.native_group_norm_backward")


@gradient("onnx.Softmax", "onnx.LogSoftmax")
def softmax(op: Op) -> tuple[Kernel, ...]:
    """(dy, y) -> dx."""
    return priced_as("aten._softmax_backward_data", op, (_dense(op.outputs[0]), op.outputs[0]), op.inputs[:1])


@gradient("onnx.AveragePool", "onnx.LpPool", "onnx.GlobalAveragePool", "onnx.GlobalLpPool")
def average_pool(op: Op) -> tuple[Kernel, ...]:
    """(dy, x for its shape) -> dx."""
    inputs = (op.outputs[0], op.inputs[0])
    return priced_as("aten._adaptive_avg_pool2d_backward", op, inputs, op.inputs[:1])


@gradient("onnx.MaxPool", "onnx.GlobalMaxPool")
def max_pool(op: Op) -> tuple[Kernel, ...]:
    """(dy, x for its shape, places of the maxima) -> dx."""
    dy = op.outputs[0]
    places = TensorSpec(dy.shape, "int64")
    return priced_as("aten.max_pool2d_with_indices_backward", op, (dy, op.inputs[0], places), op.inputs[:1])


@gradient(*(f"onnx.Reduce{name}" for name in REDUCTIONS))
def reduction(op: Op) -> tuple[Kernel, ...]:
    """dy is spread over the input's shape; all but sums and means compare with or scale by the input."""
    x, dy = op.inputs[0], op.outputs[0]
    saved_byte = 0 if op.name in {"onnx.ReduceSum", "onnx.ReduceMean"} else x.byte
    work = Work(0, 0, x.elements, dy.byte + saved_byte, x.byte)
    return (Kernel("elementwise", work, compute_dtype(op)),)


@gradient("onnx.Slice")
def part(op: Op) -> tuple[Kernel, ...]:
    """dy is copied into its part of the whole gradient, which starts from zeros unless parts cover it."""
    dy, x = op.outputs[0], op.inputs[0]
    zeros_byte = x.byte if op.attrs.get("zero_fill", True) else 0
    return (Kernel("copy", Work(read_byte=dy.byte, write_byte=dy.byte + zeros_byte), compute_dtype(op)),)


@gradient("onnx.Split")
def split(op: Op) -> tuple[Kernel, ...]:
    """The parts' gradients are joined."""
    return priced_as("aten.cat", op, op.outputs, op.inputs[:1])


@gradient("onnx.Expand")
def expand(op: Op) -> tuple[Kernel, ...]:
    """dy is summed over the axes that were repeated."""
    return priced_as("aten.sum", op, (_dense(op.outputs[0]),), op.inputs[:1])


@gradient("onnx.Gather")
def gather(op: Op) -> tuple[Kernel, ...]:
    """The whole table is zeroed, then dy is added into its rows; one index is as a slice."""
    if selects(op):
        return part(op)
    return gather_elements(op)


@gradient("onnx.GatherElements", "onnx.GatherND")
def gather_elements(op: Op) -> tuple[Kernel, ...]:
    """(dy, indices) -> zeros of the whole shape with dy added in its places."""
    inputs = (op.outputs[0], op.inputs[1])
    return priced_as("aten.embedding_dense_backward", op, inputs, op.inputs[:1])


@gradient("onnx.TopK")
def top(op: Op) -> tuple[Kernel, ...]:
    """(dy, indices) -> zeros of the whole shape with dy added in its places."""
    return priced_as("aten.embedding_dense_backward", op, op.outputs, op.inputs[:1])


@gradient("predictor.attention")
def attention(op: Op) -> tuple[Kernel, ...]:
    """(dout, q, k, v, out, logsumexp) -> dq, dk, dv."""
    q, k, v = op.inputs[:3]
    out = op.outputs[0]
    logsumexp = TensorSpec(q.shape[:-1], "float32")
    inputs = (_dense(out), q, k, v, out, logsumexp, *op.inputs[3:])
    return priced_as("predictor.attention_backward", op, inputs, (q, k, v))


@gradient("onnx.Einsum")
def einsum(op: Op) -> tuple[Kernel, ...]:
    """Two products, as for any contraction of two tensors."""
    sides = einsum_sides(op)
    if sides is None:
        return mirrored(op)
    return product_gradient(op, (op.inputs[0], op.inputs[1]), sides)


@gradient("onnx.LSTM", "onnx.GRU", "onnx.RNN")
def recurrent(op: Op) -> tuple[Kernel, ...]:
    """Backwards through time: two products for each one of the forward, and the gates once more."""
    from_input, from_state, gates = FORMULAS[op.name](op)
    x, w, r = op.inputs[:3]
    gates_byte = from_input.work.write_byte
    state_byte = gates_byte * r.shape[2] // r.shape[1]
    steps = from_state.dims[0] // w.shape[0]
    (p, m, n, k), (g, b, _, h) = from_input.dims, from_state.dims
    needed = wanted(op)
    kernels = [
        replace(gates, work=replace(gates.work, write_byte=gates_byte)),
        product(g, b, h, n, x.dtype, gates_byte + steps * r.byte, state_byte),
    ]
    if needed[0]:
        kernels.append(product(p, m, k, n, x.dtype, gates_byte + w.byte, x.byte))
    if needed[1]:
        kernels.append(product(p, k, n, m, x.dtype, gates_byte + x.byte, w.byte))
    if needed[2]:
        kernels.append(product(p, h, n, m, x.dtype, gates_byte + state_byte, r.byte))
    return tuple(kernels)
