"""What the backward of a PyTorch operator costs, for programs that hold the forward pass alone.

The names are those that the recorder and ``frontends.exported_steps`` write; ``wanted`` says which inputs
receive a gradient; the gradient of a result has the shape of the result. The rules follow what autograd
runs (tools/autograd/derivatives.yaml of PyTorch 2.13).
"""

from collections.abc import Callable

from predictor.ir import Op, TensorSpec, Work
from predictor.ops import FORMULAS, Formula, Kernel, compute_dtype, formula, gradient, wanted
from predictor.ops import onnx_gradients as by_rule
from predictor.ops.conv import convolution_gradient
from predictor.ops.elementwise import _FLOP_PER_ELEMENT
from predictor.ops.matmul import general_matmul, general_matmul_gradient, product, product_gradient
from predictor.ops.onnx_ops import einsum, priced_as, recurrent

formula("aten.matmul")(general_matmul)
formula("aten.einsum")(einsum)
formula("predictor.lstm", "predictor.gru", "predictor.rnn")(recurrent)
gradient("aten.matmul")(general_matmul_gradient)
gradient("aten.einsum")(by_rule.einsum)
gradient("predictor.lstm", "predictor.gru", "predictor.rnn")(by_rule.recurrent)
gradient("aten.convolution")(convolution_gradient)


def _dense(tensor: TensorSpec) -> TensorSpec:
    """The gradient of a tensor: every element is stored."""
    return TensorSpec(tensor.shape, tensor.dtype)


def _targets(op: Op) -> tuple[TensorSpec, ...]:
    """The gradients that are written: one for every input that wants one."""
    return tuple(_dense(t) for t, needed in zip(op.inputs, wanted(op), strict=True) if needed)


@gradient("aten.linear")
def linear(op: Op) -> tuple[Kernel, ...]:
    """dx = dy [m, n] @ weight [n, k], dw = dy^T @ x; the bias sums dy."""
    x, weight = op.inputs[:2]
    n, k = weight.shape
    return product_gradient(op, (x, weight), (1, x.elements // max(k, 1), n, k))


def _sides(a: TensorSpec, b: TensorSpec) -> tuple[int, int, int, int]:
    g = a.shape[0] if len(a.shape) == 3 else 1
    return g, a.shape[-2], b.shape[-1], a.shape[-1]


@gradient("aten.mm", "aten.bmm")
def matmul(op: Op) -> tuple[Kernel, ...]:
    """Two products, those that are wanted."""
    a, b = op.inputs[:2]
    return product_gradient(op, (a, b), _sides(a, b))


@gradient("aten.addmm", "aten.baddbmm")
def add_matmul(op: Op) -> tuple[Kernel, ...]:
    """(c, a, b): two products, and dy summed where c was broadcast."""
    c, a, b = op.inputs[:3]
    needs_c, needs_a, needs_b = wanted(op)[:3]
    summed = needs_c and c.elements < op.outputs[0].elements
    attrs = {**op.attrs, "needs_grad": (needs_a, needs_b, summed)}
    reordered = Op(op.name, (a, b, c), op.outputs, attrs, op.phase, op.scope)
    return product_gradient(reordered, (a, b), _sides(a, b))


@gradient("aten.mv", "aten.dot", "aten.vdot")
def matrix_vector(op: Op) -> tuple[Kernel, ...]:
    """y = A [m, k] @ v [k]: dv = A^T @ dy is a product; dA = dy v^T meets each element once."""
    a, v = op.inputs
    k, dy = v.elements, op.outputs[0]
    m = a.elements // max(k, 1)
    needs_a, needs_v = wanted(op)
    kernels = []
    if needs_a:
        kernels.append(Kernel("elementwise", Work(0, 0, a.elements, dy.byte + v.byte, a.byte), a.dtype))
    if needs_v and op.name != "aten.mv":
        kernels.append(Kernel("elementwise", Work(0, 0, v.elements, dy.byte + a.byte, v.byte), a.dtype))
    elif needs_v:
        kernels.append(product(1, k, 1, m, a.dtype, a.byte + dy.byte, v.byte))
    return tuple(kernels)


@gradient("predictor.recurrent")
def recurrent_layers(op: Op) -> tuple[Kernel, ...]:
    """One call makes the gradients of the input, the states and the weights, wanted or not."""
    backward = Op("predictor.recurrent_backward", op.inputs, tuple(map(_dense, op.inputs)), op.attrs)
    return FORMULAS[backward.name](backward)


# What the gradient of an elementwise operator reads beside dy: nothing, the result, the other inputs.
_NOTHING = frozenset("add sub rsub neg lift clone alias detach".split())
_RESULT = frozenset("relu sigmoid tanh exp sqrt rsqrt reciprocal expm1 erfinv".split())
_OTHERS = frozenset("mul div".split())
_HANDS_ON = frozenset("add sub".split())


def _read_byte(op: Op, base: str, index: int) -> int:
    """Bytes of forward tensors that the gradient of input ``index`` reads."""
    if base in _NOTHING:
        return 0
    if base in _RESULT:
        return op.outputs[0].byte
    if base in _OTHERS:
        return sum(t.byte for i, t in enumerate(op.inputs) if i != index)
    if base == "where":
        return op.inputs[0].byte
    if base == "native_dropout":
        return sum(t.byte for t in op.outputs[1:])
    return sum(t.byte for t in op.inputs)


def _elementwise(flop_per_element: int) -> Formula:
    def elementwise(op: Op) -> tuple[Kernel, ...]:
        """One pass per input: reads dy and what was saved; summed where the input was broadcast."""
        base = op.name.removeprefix("aten.").removesuffix("_")
        dy = _dense(op.outputs[0])
        kernels = []
        for index, (x, needed) in enumerate(zip(op.inputs, wanted(op), strict=True)):
            broadcast = x.elements < dy.elements
            handed_on = base in _HANDS_ON and not broadcast and not (base == "sub" and index == 1)
            if needed and not handed_on:
                flop = max(flop_per_element, 1) * dy.elements
                work = Work(0, 0, flop, dy.byte + _read_byte(op, base, index), _dense(x).byte)
                kernels.append(Kernel("reduce" if broadcast else "elementwise", work, compute_dtype(op)))
        return tuple(kernels)

    return elementwise


for _flop, _names in _FLOP_PER_ELEMENT.items():
    _rule = _elementwise(_flop)
    for _name in _names.split():
        if "backward" not in _name:
            gradient(f"aten.{_name}", f"aten.{_name}_")(_rule)


def _as(backward: str, *names: str) -> Callable[[Callable[[Op], tuple[TensorSpec, ...]]], Formula]:
    """The gradient is another operator; the function below says what that operator reads."""

    def add(reads: Callable[[Op], tuple[TensorSpec, ...]]) -> Formula:
        def rule(op: Op) -> tuple[Kernel, ...]:
            return priced_as(backward, op, reads(op), _targets(op))

        return gradient(*names)(rule)

    return add


@_as("aten.native_batch_norm_backward", "aten.native_batch_norm", "aten._native_batch_norm_legit_no_training")
def _batch_norm(op: Op) -> tuple[TensorSpec, ...]:
    return (_dense(op.outputs[0]), *op.inputs[:2])


@_as("aten.native_layer_norm_backward", "aten.native_layer_norm", "aten._fused_rms_norm")
def _row_norm(op: Op) -> tuple[TensorSpec, ...]:
    return (_dense(op.outputs[0]), *op.inputs[:2])


@_as("aten.native_group_norm_backward", "aten.native_group_norm")
def _group_norm(op: Op) -> tuple[TensorSpec, ...]:
    return (_dense(op.outputs[0]), *op.inputs[:2])


@_as("aten._softmax_backward_data", "aten._softmax", "aten._log_softmax", "aten._safe_softmax")
def _softmax(op: Op) -> tuple[TensorSpec, ...]:
    return (_dense(op.outputs[0]), op.outputs[0])


@_as(
    "aten.max_pool2d_with_indices_backward",
    "aten.max_pool2d_with_indices",
    "aten.max_pool3d_with_indices",
    "aten.adaptive_max_pool2d",
)
def _max_pool(op: Op) -> tuple[TensorSpec, ...]:
    dy = _dense(op.outputs[0])
    return (dy, op.inputs[0], TensorSpec(dy.shape, "int64"))


@_as(
    "aten.avg_pool2d_backward",
    "aten.avg_pool1d",
    "aten.avg_pool2d",
    "aten.avg_pool3d",
    "aten._adaptive_avg_pool2d",
    "aten._adaptive_avg_pool3d",
)
def _average_pool(op: Op) -> tuple[TensorSpec, ...]:
    return (_dense(op.outputs[0]), op.inputs[0])


@_as(
    "aten.embedding_dense_backward",
    "aten.embedding",
    "aten.index_select",
    "aten.gather",
    "aten.index",
    "aten._unsafe_index",
)
def _rows(op: Op) -> tuple[TensorSpec, ...]:
    return (_dense(op.outputs[0]), op.inputs[1])


@_as("aten.embedding_dense_backward", "aten.topk", "aten.sort")
def _sorted(op: Op) -> tuple[TensorSpec, ...]:
    return (_dense(op.outputs[0]), op.outputs[-1])


@_as("aten.slice_backward", "aten.slice", "aten.select", "aten.narrow", "aten.diagonal")
def _part(op: Op) -> tuple[TensorSpec, ...]:
    return (_dense(op.outputs[0]),)


@_as("aten.cat", "aten.split", "aten.split_with_sizes", "aten.chunk", "aten.unbind")
def _parts(op: Op) -> tuple[TensorSpec, ...]:
    return tuple(map(_dense, op.outputs))


@_as("aten.sum", "aten.expand")
def _expanded(op: Op) -> tuple[TensorSpec, ...]:
    return (_dense(op.outputs[0]),)


@_as("aten._to_copy", "aten._to_copy", "aten.constant_pad_nd")
def _cast(op: Op) -> tuple[TensorSpec, ...]:
    return (_dense(op.inputs[0]),) if op.name == "aten.constant_pad_nd" else (_dense(op.outputs[0]),)


@gradient("aten.sum", "aten.cat", "aten.clone", "aten.stack", "aten.contiguous")
def handed_on(op: Op) -> tuple[Kernel, ...]:
    """dy itself, or a view of it."""
    return ()


@gradient("aten.mean", "aten.amax", "aten.amin", "aten.prod", "aten.logsumexp", "aten.var", "aten.std")
def spread(op: Op) -> tuple[Kernel, ...]:
    """dy over the input's shape, scaled; all but the mean read the input."""
    x, dy = op.inputs[0], op.outputs[0]
    read_byte = dy.byte if op.name == "aten.mean" else dy.byte + x.byte
    work = Work(0, 0, x.elements, read_byte, _dense(x).byte)
    return (Kernel("elementwise", work, compute_dtype(op)),)
