"""Pooling and sampling over windows, and their gradients: windows overlap in cache."""

from predictor.ir import Op, Work
from predictor.ops import Kernel, compute_dtype, formula, images_last

_POOLS = (
    "max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices max_pool1d max_pool2d "
    "max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d fractional_max_pool2d fractional_max_pool3d max_unpool2d max_unpool3d "
    "grid_sampler_2d grid_sampler_3d grid_sampler_2d_backward grid_sampler_3d_backward "
    "affine_grid_generator"
).split()
# (dy, x, ...): x gives its shape, and is not read.
_SHAPE_ONLY = (
    "max_pool2d_with_indices max_pool3d_with_indices avg_pool2d avg_pool3d _adaptive_avg_pool2d "
    "_adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d fractional_max_pool2d fractional_max_pool3d"
).split()


def _family(op: Op) -> str:
    return "pool-average" if "avg" in op.name else "pool-max" if "max" in op.name else "pool"


@formula(*(f"aten.{name}" for name in _POOLS))
def pool(op: Op) -> tuple[Kernel, ...]:
    """Each tensor moves once."""
    flop = max(t.elements for t in (*op.inputs, *op.outputs))
    work = Work(0, 0, flop, sum(t.byte for t in op.inputs), sum(t.byte for t in op.outputs))
    return (Kernel("pool", work, compute_dtype(op), family=_family(op), last=images_last(op)),)


@formula(*(f"aten.{name}_backward" for name in _SHAPE_ONLY))
def pool_backward(op: Op) -> tuple[Kernel, ...]:
    """(dy, x, indices where there are any) -> dx."""
    dy, _, *indices = op.inputs
    dx = op.outputs[0]
    work = Work(0, 0, dx.elements, dy.byte + sum(t.byte for t in indices), dx.byte)
    return (Kernel("pool", work, compute_dtype(op), family=_family(op), last=images_last(op)),)
