"""JAX primitives, as a good compiler runs them: broadcasts, reshapes and transposes move nothing.

Names and parameters: jax.lax of JAX 0.10. An operator computed again under ``jax.checkpoint`` carries
``recompute``: its flop are not the model's.
"""

from dataclasses import replace
from math import prod

from predictor.ir import Op, TensorSpec, Work
from predictor.ops import Formula, Kernel, compute_dtype, formula, streamed
from predictor.ops.matmul import product
from predictor.ops.onnx_ops import priced_as


def _again(op: Op, kernel: Kernel) -> tuple[Kernel, ...]:
    """The kernel, its flop as recomputation where the operator says so."""
    if not op.attrs.get("recompute"):
        return (kernel,)
    work = replace(kernel.work, matrix_flop=0, recompute_flop=kernel.work.matrix_flop)
    return (replace(kernel, work=work),)


@formula("jax.dot_general")
def dot_general(op: Op) -> tuple[Kernel, ...]:
    """Axes contracted (k), shared (g), and the rest of each factor (m, n): 2*g*m*n*k flop."""
    a, b = op.inputs[:2]
    (contracted, other_contracted), (shared, other_shared) = op.attrs["dimension_numbers"]
    k = prod(a.shape[i] for i in contracted)
    g = prod(a.shape[i] for i in shared)
    m = prod(n for i, n in enumerate(a.shape) if i not in {*contracted, *shared})
    n = prod(n for i, n in enumerate(b.shape) if i not in {*other_contracted, *other_shared})
    return _again(op, product(g, m, n, k, a.dtype, a.byte + b.byte, op.outputs[0].byte))


@formula("jax.ragged_dot", "jax.ragged_dot_general")
def ragged_dot(op: Op) -> tuple[Kernel, ...]:
    """Rows [t, k] of e groups, each times its own [k, n]; the load is taken as balanced."""
    a, b = op.inputs[:2]
    e, k, n = b.shape
    kernel = product(1, a.elements // max(k, 1), n, k, a.dtype, a.byte + b.byte, op.outputs[0].byte)
    return _again(op, replace(kernel, dims=(e, max(a.elements // max(k * e, 1), 1), n, k)))


@formula("jax.conv_general_dilated")
def convolution(op: Op) -> tuple[Kernel, ...]:
    """A convolution or one of its gradients, which JAX writes as convolutions too.

    Along an axis a filter of k places meets min(result, input) positions: the others are zeros that padding
    or dilation put in. With [b, c, ...] * [n, c/g, ...] -> [b, n, ...]:

    flop = 2 * b * n * (c/g) * prod(k_i * min(result_i, input_i))
    """
    x, weight, y = op.inputs[0], op.inputs[1], op.outputs[0]
    lhs, rhs, out = op.attrs["dimension_numbers"]
    per_group = weight.shape[rhs[1]]
    positions = prod(
        weight.shape[r] * min(y.shape[o], x.shape[i])
        for i, r, o in zip(lhs[2:], rhs[2:], out[2:], strict=True)
    )
    flop = 2 * y.shape[out[0]] * y.shape[out[1]] * per_group * positions
    groups = max(op.attrs.get("feature_group_count", 1), op.attrs.get("batch_group_count", 1))
    k = per_group * prod(weight.shape[r] for r in rhs[2:])
    m = y.elements // max(y.shape[out[1]], 1)
    work = Work(matrix_flop=flop, read_byte=x.byte + weight.byte, write_byte=y.byte)
    kind = _kind(op, x, lhs)
    return _again(op, Kernel(kind, work, x.dtype, (groups, m, y.shape[out[1]] // groups, k)))


def _kind(op: Op, x: TensorSpec, lhs: tuple[int, ...]) -> str:
    """Depthwise kernels do not use the matrix units; others run faster with channels last."""
    by_feature, by_batch = op.attrs.get("feature_group_count", 1), op.attrs.get("batch_group_count", 1)
    if (by_feature, by_batch) != (1, 1) and (by_feature == x.shape[lhs[1]] or by_batch == x.shape[lhs[0]]):
        return "depthwise"
    return "conv-channels-last" if lhs[1] == len(lhs) - 1 else "conv"


_FLOP_PER_ELEMENT = {
    0: "select_n select_and_gather eq ne lt le gt ge and or xor not sign floor ceil round is_finite abs real "
    "imag conj shift_left shift_right_logical shift_right_arithmetic population_count clz nextafter",
    1: "add add_any sub mul neg max min clamp square integer_pow rem complex mulhi",
    4: "div sqrt rsqrt cbrt reciprocal",
    10: "exp exp2 log log1p expm1 sin cos tan tanh logistic pow erf erfc erf_inv asin acos atan atan2 sinh "
    "cosh asinh acosh atanh lgamma digamma",
}


def _elementwise(flop: int) -> Formula:
    def elementwise(op: Op) -> tuple[Kernel, ...]:
        return (Kernel("elementwise", streamed(op, flop), compute_dtype(op)),)

    return elementwise


for _flop, _names in _FLOP_PER_ELEMENT.items():
    formula(*(f"jax.{name}" for name in _names.split()))(_elementwise(_flop))

_VIEWS = (
    "reshape squeeze expand_dims broadcast_in_dim transpose split stop_gradient bitcast_convert_type name "
    "sharding_constraint device_put optimization_barrier random_wrap random_unwrap copy_p empty empty2 "
    "pvary mesh_cast reshard create_token debug_callback debug_print"
)


@formula(*(f"jax.{name}" for name in _VIEWS.split()))
def view(op: Op) -> tuple[Kernel, ...]:
    """The same values seen differently: read in place by whatever uses them."""
    return ()


@formula(
    "jax.convert_element_type",
    "jax.reduce_precision",
    "jax.copy",
    "jax.concatenate",
    "jax.pad",
    "jax.rev",
    "jax.tile",
)
def copy(op: Op) -> tuple[Kernel, ...]:
    """Every input read, the result written."""
    return priced_as("aten.cat", op, op.inputs, op.outputs)


@formula("jax.slice", "jax.dynamic_slice")
def part(op: Op) -> tuple[Kernel, ...]:
    """Only the part is read."""
    return priced_as("aten.clone", op, op.outputs, op.outputs)


@formula("jax.dynamic_update_slice")
def update(op: Op) -> tuple[Kernel, ...]:
    """The part is written in place."""
    return priced_as("aten.clone", op, op.inputs[1:2], op.inputs[1:2])


@formula("jax.gather")
def gather(op: Op) -> tuple[Kernel, ...]:
    """Only the rows that are asked for are read."""
    return priced_as("aten.gather", op, op.inputs, op.outputs)


@formula(
    "jax.scatter",
    "jax.scatter_mul",
    "jax.scatter_min",
    "jax.scatter_max",
    "jax.scatter-add",
    "jax.scatter_add",
)
def scatter(op: Op) -> tuple[Kernel, ...]:
    """(target, indices, updates): the updates are read, added to their rows and written."""
    return priced_as("aten.embedding_dense_backward", op, (op.inputs[2], op.inputs[1]), op.outputs)


@formula(
    *(f"jax.reduce_{name}" for name in ("sum", "max", "min", "prod", "and", "or", "xor")),
    *(f"jax.cum{name}" for name in ("sum", "prod", "max", "min", "logsumexp")),
    "jax.argmax",
    "jax.argmin",
    "jax.reduce",
)
def reduce(op: Op) -> tuple[Kernel, ...]:
    """Every element is read once."""
    return priced_as("aten.sum", op, op.inputs[:1], op.outputs)


@formula("jax.sort", "jax.top_k", "jax.approx_top_k")
def sort(op: Op) -> tuple[Kernel, ...]:
    """As a sort of its inputs."""
    return priced_as("aten.sort", op, op.inputs, op.outputs)


@formula("jax.iota", "jax.random_bits", "jax.threefry2x32", "jax.rng_bit_generator", "jax.rng_uniform")
def write_only(op: Op) -> tuple[Kernel, ...]:
    """Made from a counter: written, nothing is read."""
    return priced_as("aten.full", op, (), op.outputs)


@formula("jax.random_seed", "jax.random_fold_in", "jax.random_split", "jax.random_clone")
def keys(op: Op) -> tuple[Kernel, ...]:
    """A few words."""
    return priced_as("aten.full", op, (), op.outputs)


@formula(
    "jax.reduce_window_max",
    "jax.reduce_window_min",
    "jax.reduce_window_sum",
    "jax.reduce_window",
    "jax.select_and_scatter_add",
    "jax.select_and_gather_add",
)
def pool(op: Op) -> tuple[Kernel, ...]:
    """Windows overlap in cache: each tensor moves once."""
    return priced_as("aten.avg_pool2d", op, op.inputs, op.outputs)
