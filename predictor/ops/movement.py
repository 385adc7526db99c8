"""Operators that move or reduce data: views, copies, gathers, pools, reductions, sorts."""

from predictor.ir import Op, TensorSpec, Work
from predictor.ops import Kernel, compute_dtype, formula, streamed

_VIEWS = (
    "view _unsafe_view expand permute transpose t unsqueeze squeeze slice select split split_with_sizes "
    "unbind detach alias as_strided diagonal unfold view_as_real view_as_complex _reshape_alias lift_fresh "
    "movedim narrow expand_as reshape chunk swapaxes _conj _neg_view lift_fresh_copy "
    "as_strided_ detach_ unsqueeze_ squeeze_ transpose_ t_ resolve_conj resolve_neg"
).split()
_ALLOCATIONS = (
    "empty empty_strided empty_like new_empty new_empty_strided empty_permuted scalar_tensor "
    "_local_scalar_dense item is_same_size set_ resize_"
).split()


@formula(*(f"aten.{name}" for name in _VIEWS + _ALLOCATIONS))
def moves_nothing(op: Op) -> tuple[Kernel, ...]:
    """A view, or memory that is taken and not written."""
    return ()


def _kernel(kind: str, op: Op, read_byte: int, write_byte: int, flop: int = 0) -> tuple[Kernel, ...]:
    return (
        Kernel(kind, Work(vector_flop=flop, read_byte=read_byte, write_byte=write_byte), compute_dtype(op)),
    )


def _byte(tensors: tuple[TensorSpec, ...]) -> int:
    return sum(t.byte for t in tensors)


@formula(
    "aten.clone",
    "aten._to_copy",
    "aten.contiguous",
    "aten.cat",
    "aten.stack",
    "aten.roll",
    "aten.flip",
    "aten.repeat",
    "aten.constant_pad_nd",
    "aten.reflection_pad1d",
    "aten.reflection_pad2d",
    "aten.replication_pad2d",
    "aten.pixel_shuffle",
    "aten.pixel_unshuffle",
    "aten.im2col",
    "aten.col2im",
    "aten.upsample_nearest2d",
    "aten.upsample_bilinear2d",
    "aten.upsample_bicubic2d",
    "aten.upsample_nearest2d_backward",
    "aten.upsample_bilinear2d_backward",
    "aten.upsample_bicubic2d_backward",
    "aten.repeat_interleave",
    "aten.channel_shuffle",
)
def copy(op: Op) -> tuple[Kernel, ...]:
    """Reads its inputs, writes its outputs, computes next to nothing."""
    return (Kernel("copy", streamed(op), compute_dtype(op)),)


@formula("aten.copy_")
def copy_into(op: Op) -> tuple[Kernel, ...]:
    """(target, source): the target is written, not read."""
    return _kernel("copy", op, op.inputs[-1].byte, _byte(op.outputs))


@formula(
    "aten.zeros",
    "aten.ones",
    "aten.full",
    "aten.zeros_like",
    "aten.ones_like",
    "aten.full_like",
    "aten.new_zeros",
    "aten.new_ones",
    "aten.new_full",
    "aten.arange",
    "aten.linspace",
    "aten.eye",
    "aten.rand",
    "aten.randn",
    "aten.randint",
    "aten.randperm",
    "aten.fill",
    "aten.fill_",
    "aten.zero",
    "aten.zero_",
)
def write_only(op: Op) -> tuple[Kernel, ...]:
    """Outputs are written; a tensor given as an example is not read."""
    return _kernel("copy", op, 0, _byte(op.outputs))


@formula("aten.tril", "aten.triu", "aten.tril_", "aten.triu_")
def triangle(op: Op) -> tuple[Kernel, ...]:
    """Half of the input survives; all of it is read."""
    return (Kernel("copy", streamed(op), compute_dtype(op)),)


@formula("aten.slice_backward", "aten.select_backward", "aten.unfold_backward")
def view_backward(op: Op) -> tuple[Kernel, ...]:
    """A zero tensor of the whole shape, with the gradient copied into its part."""
    return _kernel("copy", op, op.inputs[0].byte, _byte(op.outputs) + op.inputs[0].byte)


@formula("aten.index_select", "aten.gather", "aten.index", "aten._unsafe_index", "aten.embedding")
def gather(op: Op) -> tuple[Kernel, ...]:
    """Only the rows that are asked for are read: as many bytes as are written, and the indices."""
    indices = sum(t.byte for t in op.inputs[1:])
    return _kernel("gather", op, _byte(op.outputs) + indices, _byte(op.outputs))


@formula("aten.embedding_dense_backward")
def embedding_backward(op: Op) -> tuple[Kernel, ...]:
    """(dy, indices) -> gradient of the whole table: zeroed, then rows are added into it."""
    dy, indices = op.inputs[:2]
    return _kernel("gather", op, 2 * dy.byte + indices.byte, _byte(op.outputs) + dy.byte, dy.elements)


@formula(
    "aten.index_add",
    "aten.index_add_",
    "aten.index_put",
    "aten.index_put_",
    "aten._index_put_impl_",
    "aten._unsafe_index_put",
    "aten.scatter",
    "aten.scatter_",
    "aten.scatter_add",
    "aten.scatter_add_",
    "aten.scatter_reduce",
    "aten.scatter_reduce_",
    "aten.masked_scatter",
    "aten.index_copy",
    "aten.index_copy_",
    "aten.index_fill",
    "aten.index_fill_",
    "aten.masked_select",
)
def scatter(op: Op) -> tuple[Kernel, ...]:
    """(target, ..., source): rows of the target are read and written; out of place, the rest is copied."""
    target, rest = op.inputs[0], _byte(op.inputs[1:])
    copied = 0 if op.name.endswith("_") else target.byte
    return _kernel("gather", op, 2 * rest + copied, rest + copied)


@formula(
    "aten.sum",
    "aten.mean",
    "aten.amax",
    "aten.amin",
    "aten.max",
    "aten.min",
    "aten.argmax",
    "aten.argmin",
    "aten.prod",
    "aten.any",
    "aten.all",
    "aten.var",
    "aten.var_mean",
    "aten.std",
    "aten.std_mean",
    "aten.norm",
    "aten.linalg_vector_norm",
    "aten.cumsum",
    "aten.cumprod",
    "aten.count_nonzero",
    "aten.native_norm",
    "aten.bincount",
    "aten.histc",
    "aten.nonzero",
    "aten.evenly_distribute_backward",
)
def reduce(op: Op) -> tuple[Kernel, ...]:
    """Every input element is read once."""
    flop = sum(t.elements for t in op.inputs)
    return _kernel("reduce", op, _byte(op.inputs), _byte(op.outputs), flop)


@formula(
    "aten.sort", "aten.argsort", "aten.topk", "aten.kthvalue", "aten.median", "aten.mode", "aten.unique2"
)
def sort(op: Op) -> tuple[Kernel, ...]:
    """Radix sort: about four passes over keys and values (Merrill and Grimshaw, 2011)."""
    return _kernel("gather", op, 4 * _byte(op.inputs), 4 * _byte(op.outputs))


@formula(
    "aten.max_pool2d_with_indices",
    "aten.max_pool3d_with_indices",
    "aten.avg_pool1d",
    "aten.avg_pool2d",
    "aten.avg_pool3d",
    "aten._adaptive_avg_pool2d",
    "aten._adaptive_avg_pool3d",
    "aten.adaptive_max_pool1d",
    "aten.adaptive_max_pool2d",
    "aten.max_pool2d_with_indices_backward",
    "aten.max_pool3d_with_indices_backward",
    "aten.avg_pool2d_backward",
    "aten.avg_pool3d_backward",
    "aten._adaptive_avg_pool2d_backward",
    "aten._adaptive_avg_pool3d_backward",
    "aten.adaptive_max_pool2d_backward",
    "aten.grid_sampler_2d",
    "aten.grid_sampler_2d_backward",
)
def pool(op: Op) -> tuple[Kernel, ...]:
    """Windows overlap in cache: each tensor moves once."""
    flop = max(t.elements for t in (*op.inputs, *op.outputs))
    return _kernel("pool", op, _byte(op.inputs), _byte(op.outputs), flop)


@formula("aten.mkldnn_rnn_layer")
def recurrent_layer(op: Op) -> tuple[Kernel, ...]:
    """One layer and direction of an LSTM (4 gates) or GRU (3): x [t, b, i], weights [g*h, i], [g*h, h].

    Per step [b, i + h] @ [i + h, g*h]; the weights are read again at every step.
    """
    x, w_input, w_hidden = op.inputs[:3]
    steps, batch = x.shape[0], x.shape[1]
    sides = (steps, batch, w_input.shape[0], w_input.shape[1] + w_hidden.shape[1])
    g, m, n, k = sides
    work = Work(
        matrix_flop=2 * g * m * n * k,
        vector_flop=30 * steps * batch * w_hidden.shape[1],
        read_byte=x.byte + steps * (w_input.byte + w_hidden.byte),
        write_byte=_byte(op.outputs),
    )
    return (Kernel("matmul", work, x.dtype, sides),)
