"""Convolutions of one to three axes, grouped, depthwise and transposed, and their gradients."""

from dataclasses import replace
from math import prod

from predictor.ir import Op, TensorSpec, Work
from predictor.ops import Kernel, channels_last, formula, gradient, wanted


def _kind(groups: int, x: TensorSpec, channels: int) -> str:
    """Depthwise kernels do not use the matrix units; others run faster with channels last."""
    if groups > 1 and groups == channels:
        return "depthwise"
    return "conv-channels-last" if channels_last(x) else "conv"


def _shape_of(op: Op) -> tuple[TensorSpec, TensorSpec, TensorSpec, int, bool]:
    """Input, weight, output, groups and whether transposed, of a forward convolution."""
    x, weight = op.inputs[:2]
    groups = int(op.attrs.get("groups", op.attrs.get("group", 1)))
    transposed = bool(op.attrs.get("transposed", op.name == "onnx.ConvTranspose"))
    return x, weight, op.outputs[0], groups, transposed


def _stride_of(op: Op) -> int:
    """The longest step of the window; frontends spell it stride or strides."""
    return max((*op.attrs.get("stride", ()), *op.attrs.get("strides", ())), default=1)


def _forward(
    x: TensorSpec, weight: TensorSpec, y: TensorSpec, groups: int, transposed: bool, stride: int
) -> Kernel:
    """y [b, n, ...] = x [b, c, ...] * weight: each element meets one filter of one group.

    flop = 2 * y.elements * prod(weight.shape[1:]); a transposed one scatters x instead of gathering y.
    """
    dense, sparse = (x, y) if transposed else (y, x)
    per_element = prod(weight.shape[1:])
    flop = 2 * dense.elements * per_element
    m = dense.elements // max(dense.shape[1], 1)
    n = dense.shape[1] // groups
    dims = (groups, m, n, per_element) if not transposed else (groups, m, per_element, n)
    work = Work(matrix_flop=flop, read_byte=x.byte + weight.byte, write_byte=y.byte)
    return Kernel(
        _kind(groups, x, sparse.shape[1]),
        work,
        x.dtype,
        dims,
        family="conv-forward",
        window=max(weight.shape[2:], default=1),
        stride=stride,
        line=prod(dense.shape[2:]),
        last=channels_last(x),
    )


@formula(
    "aten.convolution", "aten._convolution", "onnx.Conv", "onnx.ConvTranspose", "com.microsoft.FusedConv"
)
def convolution(op: Op) -> tuple[Kernel, ...]:
    """One implicit product per group."""
    return (_forward(*_shape_of(op), _stride_of(op)),)


def _backward(
    x: TensorSpec,
    weight: TensorSpec,
    y: TensorSpec,
    groups: int,
    transposed: bool,
    stride: int,
    wanted: tuple[bool, bool, bool],
) -> tuple[Kernel, ...]:
    """Gradients of input, weight and bias that are ``wanted``; each product has the forward's flop."""
    forward = _forward(x, weight, y, groups, transposed, stride)
    g, m, n, k = forward.dims
    flop = forward.work.matrix_flop
    kernels = []
    if wanted[0]:
        work = Work(matrix_flop=flop, read_byte=y.byte + weight.byte, write_byte=x.byte)
        kernels.append(replace(forward, work=work, dims=(g, m, k, n), family="conv-input"))
    if wanted[1]:
        work = Work(matrix_flop=flop, read_byte=y.byte + x.byte, write_byte=weight.byte)
        kernels.append(replace(forward, work=work, dims=(g, n, k, m), family="conv-weight"))
    if wanted[2]:
        work = Work(vector_flop=y.elements, read_byte=y.byte, write_byte=0)
        kernels.append(Kernel("reduce", work, y.dtype))
    return tuple(kernels)


@formula("aten.convolution_backward")
def convolution_backward(op: Op) -> tuple[Kernel, ...]:
    """(dy, x, weight) -> the gradients its output mask asks for."""
    dy, x, weight = op.inputs[:3]
    mask = op.attrs.get("output_mask", (True, True, True))
    wanted = (bool(mask[0]), bool(mask[1]), bool(mask[2]))
    groups, transposed = int(op.attrs["groups"]), bool(op.attrs["transposed"])
    return _backward(x, weight, dy, groups, transposed, _stride_of(op), wanted)


@gradient("onnx.Conv", "onnx.ConvTranspose", "com.microsoft.FusedConv")
def convolution_gradient(op: Op) -> tuple[Kernel, ...]:
    """Those of input, weight and bias that are wanted: the first layer has no input gradient."""
    needed = wanted(op)
    return _backward(*_shape_of(op), _stride_of(op), (needed[0], needed[1], any(needed[2:3])))
