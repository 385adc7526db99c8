"""Operators that move or reduce data: views, copies, gathers, pools, reductions, sorts."""

from dataclasses import replace

from predictor.ir import Op, TensorSpec, Work
from predictor.ops import Kernel, compute_dtype, formula, images_last

_VIEWS = (
    "view _unsafe_view expand permute transpose t unsqueeze squeeze slice select split "
    "split_with_sizes unbind detach alias as_strided diagonal unfold view_as_real view_as_complex "
    "_reshape_alias lift_fresh movedim narrow expand_as reshape chunk swapaxes _conj _neg_view "
    "lift_fresh_copy as_strided_ detach_ unsqueeze_ squeeze_ transpose_ t_ resolve_conj resolve_neg "
    "unsafe_chunk unsafe_split unsafe_split_with_sizes tensor_split hsplit vsplit mT mH adjoint "
    "unflatten flatten swapdims moveaxis sym_size sym_stride sym_numel sym_storage_offset "
    "_assert_async _assert_scalar _assert_tensor_metadata _version record_stream"
).split()
_SCATTERS = (
    "index_add index_put _index_put_impl _unsafe_index_put _unsafe_masked_index_put_accumulate scatter "
    "scatter_add scatter_reduce masked_scatter index_copy index_fill index_reduce put"
).split()
_JOINS = ("aten.cat", "aten.stack", "aten.slice_scatter", "aten.select_scatter")
_ALLOCATIONS = (
    "empty empty_strided empty_like new_empty new_empty_strided empty_permuted scalar_tensor "
    "_local_scalar_dense item is_same_size set_ resize_"
).split()


@formula(
    *(f"aten.{name}" for name in _VIEWS + _ALLOCATIONS),
    "profiler._record_function_enter_new",
    "profiler._record_function_exit",
)
def moves_nothing(op: Op) -> tuple[Kernel, ...]:
    """A view, or memory that is taken and not written."""
    return ()


def _kernel(
    kind: str, op: Op, read_byte: int, write_byte: int, flop: int = 0, family: str = ""
) -> tuple[Kernel, ...]:
    work = Work(vector_flop=flop, read_byte=read_byte, write_byte=write_byte)
    return (Kernel(kind, work, compute_dtype(op), family=family, last=images_last(op)),)


def _moved(op: Op) -> tuple[Kernel, ...]:
    """Inputs read, outputs written; a change of type, a joining and a plain copy run at their own speeds."""
    types = {t.dtype for t in (*op.inputs[-1:], *op.outputs[:1])}
    family = "cast" if len(types) > 1 else "cat" if op.name in _JOINS else ""
    return _kernel("copy", op, _byte(op.inputs), _byte(op.outputs), family=family)


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
    "aten.pad",
    "aten.rot90",
    "aten.tile",
    "aten.diag_embed",
    "aten.diag",
    "aten.block_diag",
    "aten._pack_padded_sequence",
    "aten.slice_scatter",
    "aten.select_scatter",
    "aten.diagonal_scatter",
    "aten.as_strided_scatter",
    "aten.as_strided_copy",
    "aten.expand_copy",
    "aten.permute_copy",
    "aten.view_copy",
    "aten.unfold_copy",
    "aten.to_padded_tensor",
    "aten._nested_from_padded",
    "aten.pixel_shuffle",
    "aten.pixel_unshuffle",
    "aten.im2col",
    "aten.col2im",
    "aten.repeat_interleave",
    "aten.channel_shuffle",
)
def copy(op: Op) -> tuple[Kernel, ...]:
    """Reads its inputs, writes its outputs, computes next to nothing."""
    return _moved(op)


@formula("aten.copy_")
def copy_into(op: Op) -> tuple[Kernel, ...]:
    """(target, source): the target is written, not read."""
    (kernel,) = _moved(op)
    return (replace(kernel, work=Work(read_byte=op.inputs[-1].byte, write_byte=_byte(op.outputs))),)


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
    "aten.tril_indices",
    "aten.triu_indices",
    "aten.logspace",
    "aten.range",
    "aten.fill_diagonal_",
    "aten.cauchy_",
    "aten.exponential_",
    "aten.geometric_",
    "aten.log_normal_",
    "aten.rand_like",
    "aten.randn_like",
    "aten.randint_like",
    "aten.fill",
    "aten.fill_",
    "aten.zero",
    "aten.zero_",
)
def write_only(op: Op) -> tuple[Kernel, ...]:
    """Outputs are written; a tensor given as an example is not read."""
    return _kernel("copy", op, 0, _byte(op.outputs), family="fill")


@formula("aten.tril", "aten.triu", "aten.tril_", "aten.triu_")
def triangle(op: Op) -> tuple[Kernel, ...]:
    """Half of the input survives; all of it is read."""
    return _moved(op)


@formula(
    "aten.slice_backward",
    "aten.select_backward",
    "aten.unfold_backward",
    "aten.diagonal_backward",
    "aten.as_strided_backward",
)
def view_backward(op: Op) -> tuple[Kernel, ...]:
    """A zero tensor of the whole shape, with the gradient copied into its part."""
    return _kernel("copy", op, op.inputs[0].byte, _byte(op.outputs) + op.inputs[0].byte, family="cat")


@formula(
    "aten.index_select",
    "aten.gather",
    "aten.index",
    "aten._unsafe_index",
    "aten.embedding",
    "aten.take",
    "aten._unsafe_masked_index",
)
def gather(op: Op) -> tuple[Kernel, ...]:
    """Only the rows that are asked for are read: as many bytes as are written, and the indices."""
    indices = sum(t.byte for t in op.inputs[1:])
    return _kernel("gather", op, _byte(op.outputs) + indices, _byte(op.outputs))


@formula("aten.embedding_dense_backward")
def embedding_backward(op: Op) -> tuple[Kernel, ...]:
    """(dy, indices) -> gradient of the whole table: zeroed, then rows are added into it."""
    dy, indices = op.inputs[:2]
    return _kernel("gather", op, 2 * dy.byte + indices.byte, _byte(op.outputs) + dy.byte, dy.elements)


@formula("aten._embedding_bag", "aten._embedding_bag_forward_only")
def embedding_bag(op: Op) -> tuple[Kernel, ...]:
    """(table, indices, offsets): one row is read per index, one is written per bag."""
    table, indices = op.inputs[:2]
    rows = indices.elements * table.shape[1]
    read = rows * (table.byte // max(table.elements, 1)) + _byte(op.inputs[1:])
    return _kernel("gather", op, read, _byte(op.outputs), rows)


@formula("aten._embedding_bag_dense_backward", "aten._embedding_bag_backward")
def embedding_bag_backward(op: Op) -> tuple[Kernel, ...]:
    """(dy, indices, ...) -> gradient of the whole table: zeroed, then a row is added per index."""
    dy, indices = op.inputs[:2]
    rows = indices.elements * dy.shape[-1]
    added = rows * (dy.byte // max(dy.elements, 1))
    return _kernel("gather", op, 2 * added + indices.byte, _byte(op.outputs) + added, rows)


@formula("aten.embedding_renorm_")
def embedding_renorm(op: Op) -> tuple[Kernel, ...]:
    """(table, indices): the rows asked for are read twice and written."""
    table, indices = op.inputs[:2]
    rows = indices.elements * table.shape[1]
    byte = rows * (table.byte // max(table.elements, 1))
    return _kernel("gather", op, 2 * byte + indices.byte, byte, 3 * rows)


@formula(*(f"aten.{name}{end}" for name in _SCATTERS for end in ("", "_")))
def scatter(op: Op) -> tuple[Kernel, ...]:
    """(target, index, source): places of the target are written, and read where the source adds to them.

    A source of one element, or none, fills as many places as the index names. Out of place, the rest of the
    target is copied.
    """
    target, rest = op.inputs[0], op.inputs[1:]
    size = target.byte // max(target.elements, 1)
    places = max((t.elements for t in rest), default=0) * size
    read = _byte(rest) + (places if _adds(op) else 0)
    copied = 0 if op.name.endswith("_") else target.byte
    return _kernel("gather", op, read + copied, min(places, target.byte) + copied)


def _adds(op: Op) -> bool:
    """True when what is there is read first."""
    return "add" in op.name or "reduce" in op.name or bool(op.attrs.get("accumulate"))


@formula("aten.masked_select", "aten.masked_scatter_backward")
def masked_select(op: Op) -> tuple[Kernel, ...]:
    """Mask and source are read, the mask twice: to find the places, and to pick."""
    mask = op.inputs[-1]
    return _kernel("gather", op, _byte(op.inputs) + mask.byte, _byte(op.outputs))


@formula("aten.searchsorted", "aten.bucketize")
def search(op: Op) -> tuple[Kernel, ...]:
    """Bisection in a row that stays on chip."""
    return _kernel("gather", op, _byte(op.inputs), _byte(op.outputs))


@formula("aten._cdist_forward", "aten._pdist_forward")
def distances(op: Op) -> tuple[Kernel, ...]:
    """Distances of rows of d values: 3 flop per pair and coordinate; tiles of rows stay on chip."""
    flop = 3 * op.outputs[0].elements * op.inputs[0].shape[-1]
    return _kernel("reduce", op, _byte(op.inputs), _byte(op.outputs), flop)


@formula("aten._cdist_backward", "aten._pdist_backward")
def distances_backward(op: Op) -> tuple[Kernel, ...]:
    """(gradient per pair, rows, ...) -> gradient of the rows: 4 flop per pair and coordinate."""
    flop = 4 * op.inputs[0].elements * op.inputs[1].shape[-1]
    return _kernel("reduce", op, _byte(op.inputs), _byte(op.outputs), flop)


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
    "aten.cumsum_",
    "aten.cumprod_",
    "aten.cummax",
    "aten.cummin",
    "aten._cummax_helper",
    "aten._cummin_helper",
    "aten.logcumsumexp",
    "aten.aminmax",
    "aten._aminmax",
    "aten.nansum",
    "aten.nanmean",
    "aten.trace",
    "aten.dist",
    "aten.renorm",
    "aten.equal",
    "aten.allclose",
    "aten.is_nonzero",
    "aten._is_all_true",
    "aten._is_any_true",
    "aten.linalg_norm",
    "aten.segment_reduce",
    "aten._segment_reduce_backward",
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
    "aten.sort",
    "aten.argsort",
    "aten.topk",
    "aten.kthvalue",
    "aten.median",
    "aten.nanmedian",
    "aten.mode",
    "aten.unique2",
    "aten._unique2",
    "aten._unique",
    "aten.unique_dim",
    "aten.unique_consecutive",
    "aten.multinomial",
)
def sort(op: Op) -> tuple[Kernel, ...]:
    """Radix sort: about four passes over keys and values (Merrill and Grimshaw, 2011)."""
    return _kernel("gather", op, 4 * _byte(op.inputs), 4 * _byte(op.outputs))
