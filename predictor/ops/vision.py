"""Operators of detectors and of sampling: regions, boxes, deformable convolutions, resizing, padding."""

from math import prod

from predictor.ir import Op, Work
from predictor.ops import Kernel, compute_dtype, formula, images_last, streamed
from predictor.ops.matmul import product

_RESIZE = (
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d "
    "_upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d "
    "upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa "
    "_upsample_lanczos2d_aa"
).split()
_PAD = (
    "reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d"
).split()


@formula(
    *(f"aten.{name}{end}" for name in _RESIZE for end in ("", "_backward")), *(f"aten.{n}" for n in _PAD)
)
def resample(op: Op) -> tuple[Kernel, ...]:
    """Reads its input, writes its output, computes next to nothing."""
    return (Kernel("copy", streamed(op), compute_dtype(op), family="resize", last=images_last(op)),)


@formula(*(f"aten.{name}_backward" for name in _PAD))
def pad_backward(op: Op) -> tuple[Kernel, ...]:
    """(dy, x) -> dx; x gives its shape and is not read."""
    work = Work(read_byte=op.inputs[0].byte, write_byte=sum(t.byte for t in op.outputs))
    return (Kernel("copy", work, compute_dtype(op)),)


def _samples(op: Op) -> int:
    """Points read per output of a region: sampling_ratio squared, adaptive where it is not positive."""
    ratio = int(op.attrs.get("sampling_ratio", 1))
    return ratio * ratio if ratio > 0 else 4


@formula(
    "torchvision.roi_align", "torchvision.roi_pool", "torchvision.ps_roi_align", "torchvision.ps_roi_pool"
)
def region(op: Op) -> tuple[Kernel, ...]:
    """(features, rois) -> [rois, c, h, w]: a point mixes four neighbours, 8 flop; features are read once."""
    features, rois = op.inputs[:2]
    y = op.outputs[0]
    read = min(features.byte, 4 * _samples(op) * y.byte)
    work = Work(
        vector_flop=8 * _samples(op) * y.elements,
        read_byte=read + rois.byte,
        write_byte=sum(t.byte for t in op.outputs),
    )
    return (Kernel("pool", work, compute_dtype(op)),)


@formula(
    "torchvision._roi_align_backward",
    "torchvision._roi_pool_backward",
    "torchvision._ps_roi_align_backward",
    "torchvision._ps_roi_pool_backward",
)
def region_backward(op: Op) -> tuple[Kernel, ...]:
    """(dy, rois, ...) -> gradient of the features: zeroed, then every point adds into four neighbours."""
    dy, dx = op.inputs[0], op.outputs[0]
    touched = min(dx.byte, 4 * _samples(op) * dy.byte)
    work = Work(
        vector_flop=8 * _samples(op) * dy.elements,
        read_byte=sum(t.byte for t in op.inputs) + touched,
        write_byte=dx.byte + touched,
    )
    return (Kernel("pool", work, compute_dtype(op)),)


@formula("torchvision.nms")
def suppression(op: Op) -> tuple[Kernel, ...]:
    """n boxes are sorted, every pair is compared (15 flop), and a bit per pair is written and read."""
    boxes, scores = op.inputs[:2]
    n = boxes.shape[0]
    bits = n * n // 16  # the pairs above the diagonal, a bit each
    work = Work(
        vector_flop=15 * n * (n - 1) // 2,
        read_byte=2 * boxes.byte + 4 * scores.byte + bits,
        write_byte=boxes.byte + 4 * scores.byte + bits + op.outputs[0].byte,
    )
    return (Kernel("gather", work, compute_dtype(op)),)


@formula("torchvision.box_iou_rotated")
def rotated_overlap(op: Op) -> tuple[Kernel, ...]:
    """Every pair: about 200 flop to clip one rectangle by the other."""
    return (Kernel("elementwise", streamed(op, 200), compute_dtype(op)),)


def _columns(op: Op, place: int) -> tuple[int, int, tuple[int, int, int, int]]:
    """Elements of the columns [c*k*k, positions], their bytes, and the sides of the product per group."""
    x, weight, offset = op.inputs[place : place + 3]
    groups = int(op.attrs.get("groups", 1))
    positions = x.shape[0] * prod(offset.shape[2:])
    taps = prod(weight.shape[2:])
    elements = x.shape[1] * taps * positions
    byte = elements * (x.byte // max(x.elements, 1))
    return elements, byte, (groups, positions, weight.shape[0] // groups, weight.shape[1] * taps)


@formula("torchvision.deform_conv2d")
def deformable(op: Op) -> tuple[Kernel, ...]:
    """(x, weight, offset, mask, bias): columns sampled at offsets, 10 flop each, then a product per group."""
    x, weight, offset, mask = op.inputs[:4]
    elements, byte, (g, m, n, k) = _columns(op, 0)
    gathered = Work(0, 0, 10 * elements, x.byte + offset.byte + mask.byte, byte)
    y = op.outputs[0]
    return (
        Kernel("gather", gathered, x.dtype),
        product(g, m, n, k, x.dtype, byte + weight.byte, y.byte),
    )


@formula("torchvision._deform_conv2d_backward")
def deformable_backward(op: Op) -> tuple[Kernel, ...]:
    """Gradient of the columns, back to x, offset and mask; the columns again, and the weight's gradient."""
    dy, x, weight, offset, mask = op.inputs[:5]
    elements, byte, (g, m, n, k) = _columns(op, 1)
    sampled = x.byte + offset.byte + mask.byte
    return (
        product(g, m, k, n, x.dtype, dy.byte + weight.byte, byte),
        Kernel("gather", Work(0, 0, 30 * elements, byte + 2 * sampled, 2 * sampled), x.dtype),
        Kernel("gather", Work(0, 0, 10 * elements, sampled, byte), x.dtype),
        product(g, n, k, m, x.dtype, dy.byte + byte, weight.byte),
        Kernel("reduce", Work(0, 0, dy.elements, dy.byte, 0), x.dtype),
    )
