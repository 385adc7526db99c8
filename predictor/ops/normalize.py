"""Normalisations, softmax and losses, and their gradients: passes over memory."""

from dataclasses import replace
from math import prod

from predictor.ir import Op, Work
from predictor.ops import Kernel, channels_last, compute_dtype, formula, images_last, streamed


def _passes(
    op: Op, kind: str, extra_reads: int, flop_per_element: int, family: str, line: int
) -> tuple[Kernel, ...]:
    """The streamed bytes, and the first input read ``extra_reads`` more times for its statistics."""
    work = streamed(op, flop_per_element) + Work(read_byte=extra_reads * op.inputs[0].byte)
    return (Kernel(kind, work, compute_dtype(op), family=family, line=line, last=images_last(op)),)


def _plane(op: Op) -> int:
    """Elements of a channel of one sample."""
    return prod(op.inputs[0].shape[2:])


def _row(op: Op) -> int:
    """Elements of a row: those of its weight, else of the last axis."""
    weights = [t.elements for t in op.inputs[1:] if len(t.shape) == 1 and t.elements > 1]
    return weights[0] if weights else op.inputs[0].shape[-1] if op.inputs[0].shape else 1


def _batch_norm_kind(op: Op) -> str:
    """Sums over a channel run faster with channels last."""
    return "norm-channels-last" if channels_last(op.inputs[0]) else "norm"


@formula(
    "aten.native_batch_norm",
    "aten._native_batch_norm_legit",
    "aten._native_batch_norm_legit_functional",
    "aten._batch_norm_with_update",
    "aten.cudnn_batch_norm",
)
def batch_norm(op: Op) -> tuple[Kernel, ...]:
    """Statistics over a channel's whole plane: the input is read twice, written once.

    With the running statistics, as in evaluation or of a frozen layer, one read is enough.
    """
    reads = int(bool(op.attrs.get("training", True)))
    return _passes(op, _batch_norm_kind(op), reads, 6, "batch_norm", _plane(op))


@formula(
    "aten.native_batch_norm_backward",
    "aten.batch_norm_backward",
    "aten.cudnn_batch_norm_backward",
)
def batch_norm_backward(op: Op) -> tuple[Kernel, ...]:
    """(dy, x, ...) -> dx: dy and x are read for the sums and again for dx, which needs them in training."""
    needs_sums = bool(op.attrs.get("train", True))
    again = Work(read_byte=op.inputs[1].byte if needs_sums else 0)
    (kernel,) = _passes(op, _batch_norm_kind(op), int(needs_sums), 10, "batch_norm", _plane(op))
    return (replace(kernel, work=kernel.work + again),)


@formula(
    "aten._native_batch_norm_legit_no_training",
    "aten.native_layer_norm",
    "aten.native_layer_norm_backward",
    "aten._fused_rms_norm",
    "aten._fused_rms_norm_backward",
    "predictor.rms_norm",
    "predictor.rms_norm_backward",
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
    """A row fits on chip: each tensor moves once."""
    return _passes(op, "norm", 0, 8, "layer_norm", _row(op))


@formula(
    "aten.native_group_norm",
    "aten.native_group_norm_backward",
    "aten._weight_norm_interface",
    "aten._weight_norm_interface_backward",
    "onnx.InstanceNormalization",
    "onnx.GroupNormalization",
    "onnx.MeanVarianceNormalization",
)
def group_norm(op: Op) -> tuple[Kernel, ...]:
    """A group's plane does not fit on chip: the first input is read twice."""
    return _passes(op, "norm", 1, 8, "group_norm", _plane(op))


@formula(
    "aten._softmax",
    "aten._log_softmax",
    "aten._safe_softmax",
    "aten._softmax_backward_data",
    "aten._log_softmax_backward_data",
    "aten.logsumexp",
    "onnx.Softmax",
    "onnx.LogSoftmax",
    "onnx.Hardmax",
    "onnx.SoftmaxCrossEntropyLoss",
)
def softmax(op: Op) -> tuple[Kernel, ...]:
    """One read and one write of each tensor, an exponential per element."""
    return _passes(op, "softmax", 0, 5, "softmax", op.inputs[0].shape[-1] if op.inputs[0].shape else 1)


@formula("aten.nll_loss_forward", "aten.nll_loss2d_forward")
def nll_loss(op: Op) -> tuple[Kernel, ...]:
    """Picks one log-probability per target: the rest of the input stays unread."""
    log_p, target = op.inputs[:2]
    picked = target.elements * (log_p.byte // max(log_p.elements, 1))
    work = Work(vector_flop=target.elements, read_byte=picked + target.byte, write_byte=4)
    return (Kernel("gather", work, compute_dtype(op)),)


@formula("aten.nll_loss_backward", "aten.nll_loss2d_backward")
def nll_loss_backward(op: Op) -> tuple[Kernel, ...]:
    """Writes a gradient that is zero but for one element per target."""
    target = op.inputs[2]
    work = Work(read_byte=target.byte, write_byte=sum(t.byte for t in op.outputs))
    return (Kernel("copy", work, compute_dtype(op)),)
