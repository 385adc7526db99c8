"""Elementwise operators and reductions with their gradients.

Formulas of the gradients: tools/autograd/derivatives.yaml of PyTorch; a product's second factor has its
gradient computed first, as the generated code does.
"""

from collections.abc import Callable, Sequence
from typing import Any

from predictor.frontends.config.layout import Shape, broadcast, elementwise_stride
from predictor.frontends.config.tape import Value
from predictor.frontends.config.views import expand, reshape, unsqueeze

_RANK = {"bool": 0, "int32": 1, "int64": 2, "float16": 3, "bfloat16": 3, "float32": 4}
_NONE: dict[str, Any] = {}


def pointwise(
    name: str, inputs: Sequence[Value], dtype: str | None = None, attrs: dict[str, Any] = _NONE
) -> Value:
    """One result element per broadcast input element; no gradient of its own."""
    first = inputs[0]
    tape = first.memory.tape
    if len(inputs) == 1:
        shape = first.shape
        stride = elementwise_stride(shape, ((shape, first.stride),))
        dtype = dtype or first.dtype
    else:
        shape = broadcast(tuple([v.shape for v in inputs]))
        stride = elementwise_stride(shape, tuple([(v.shape, v.stride) for v in inputs]))
        dtype = dtype or _promoted(inputs)
    out = tape.new(shape, dtype, stride)
    tape.emit(name, inputs, (out,), attrs)
    return out


def _promoted(inputs: Sequence[Value]) -> str:
    """The widest type; a tensor without axes does not widen its own kind."""
    first = inputs[0].dtype
    if all(v.dtype == first for v in inputs):
        return first
    shaped = [v for v in inputs if v.shape] or inputs
    return max([v.dtype for v in shaped], key=_RANK.__getitem__)


def _tied(name: str, x: Value, back: Callable[[Value], Value], attrs: dict[str, Any] = _NONE) -> Value:
    """An operator of one tensor with its gradient."""
    out = pointwise(name, (x,), attrs=attrs)
    if x.node is not None:
        x.tape.node(lambda g: (back(g),), (x,), out)
    return out


def add(a: Value, b: Value) -> Value:
    """a + b."""
    out = pointwise("aten.add", (a, b))
    if a.node is not None or b.node is not None:
        out.tape.node(lambda g: (g, g), (a, b), out)
    return out


def mul(a: Value, b: Value) -> Value:
    """a * b."""
    out = pointwise("aten.mul", (a, b))
    wants_a, wants_b = a.node is not None, b.node is not None
    if wants_a or wants_b:
        kept_a, kept_b = (a if wants_b else None), (b if wants_a else None)

        def back(g: Value) -> tuple[Value | None, Value | None]:
            second = pointwise("aten.mul", (g, kept_a)) if kept_a is not None else None
            first = pointwise("aten.mul", (g, kept_b)) if kept_b is not None else None
            return first, second

        out.tape.node(back, (a, b), out)
    return out


def complex_mul(x: Value, turn: Value) -> Value:
    """x times a constant complex tensor, whose conjugate the gradient writes out."""
    out = pointwise("aten.mul", (x, turn), "complex64")

    def back(g: Value) -> tuple[Value]:
        conjugate = pointwise("aten.clone", (turn,), "complex64")
        return (pointwise("aten.mul", (g, conjugate), "complex64"),)

    x.tape.node(back, (x,), out)
    return out


def sub(a: Value, b: Value) -> Value:
    """a - b."""
    out = pointwise("aten.sub", (a, b))
    wants_b = b.node is not None
    if a.node is not None or wants_b:
        out.tape.node(lambda g: (g, negative(g) if wants_b else None), (a, b), out)
    return out


def divided_in_place(x: Value, divisor: Value) -> Value:
    """x /= divisor: what x was is kept as a copy for the gradient."""
    tape = x.tape
    if x.node is None:
        tape.emit("aten.div_", (x, divisor), (x,))
        return x
    before = pointwise("aten.clone", (x,))
    out = Value(x.shape, x.dtype, x.stride, x.memory)
    tape.emit("aten.div_", (x, divisor), (out,))

    def back(g: Value) -> tuple[Value, Value]:
        inner = pointwise("aten.div", (pointwise("aten.div", (before, divisor)), divisor))
        second = pointwise("aten.mul", (pointwise("aten.neg", (g,)), inner))
        return pointwise("aten.div", (g, divisor)), second

    tape.node(back, (x, divisor), out)
    return out


def scale(x: Value, factor: float) -> Value:
    """x * number."""
    return _tied("aten.mul", x, lambda g: scale(g, factor), {"other": factor})


def shift(x: Value, offset: float) -> Value:
    """x + number."""
    return _tied("aten.add", x, lambda g: g, {"other": offset})


def ratio(x: Value, divisor: float) -> Value:
    """x / number."""
    return _tied("aten.div", x, lambda g: ratio(g, divisor), {"other": divisor})


def negative(x: Value) -> Value:
    """-x."""
    return _tied("aten.neg", x, negative)


def power(x: Value, exponent: float) -> Value:
    """x ** number: the gradient is g * (exponent * x ** (exponent - 1)); float32 under autocast."""
    x = widened(x)

    def back(g: Value) -> Value:
        inner = pointwise("aten.mul", (_raised(x, exponent - 1),), attrs={"other": exponent})
        return pointwise("aten.mul", (g, inner))

    return _tied("aten.pow", x, back, {"exponent": exponent})


def _raised(x: Value, exponent: float) -> Value:
    return pointwise("aten.pow", (x,), attrs={"exponent": exponent})


def rsqrt(x: Value) -> Value:
    """x ** -1/2: the gradient is -g/2 * y ** 3; float32 under autocast."""
    x = widened(x)
    out = pointwise("aten.rsqrt", (x,))
    if x.node is not None:

        def back(g: Value) -> tuple[Value]:
            cube = _raised(out, 3)
            return (pointwise("aten.mul", (scale(g, -0.5), cube)),)

        x.tape.node(back, (x,), out)
    return out


def reduce_sum(x: Value, axes: tuple[int, ...], keep: bool) -> Value:
    """Sum over ``axes``; no gradient of its own."""
    out = x.tape.new(_reduced(x.shape, axes, keep), "int64" if x.dtype == "bool" else x.dtype)
    x.tape.emit("aten.sum", (x,), (out,), {"dim": axes, "keepdim": keep})
    return out


def _reduced(shape: Shape, axes: tuple[int, ...], keep: bool) -> Shape:
    if keep:
        return tuple([1 if i in axes else n for i, n in enumerate(shape)])
    return tuple([n for i, n in enumerate(shape) if i not in axes])


def total(x: Value, axis: int, keep: bool) -> Value:
    """Sum over one axis, in float32 under autocast."""
    axis %= len(x.shape)
    x = widened(x)
    out = reduce_sum(x, (axis,), keep)
    if x.node is not None:
        old = x.shape
        x.tape.node(lambda g: (expand(g if keep else unsqueeze(g, axis), old),), (x,), out)
    return out


def mean(x: Value) -> Value:
    """Mean over the last axis, which stays as size 1."""
    last = len(x.shape) - 1
    out = x.tape.new(_reduced(x.shape, (last,), True), x.dtype)
    x.tape.emit("aten.mean", (x,), (out,), {"dim": (-1,), "keepdim": True})
    if x.node is not None:
        old = x.shape
        x.tape.node(lambda g: (ratio(expand(g, old), old[last]),), (x,), out)
    return out


def copied_to(x: Value, dtype: str) -> Value:
    """A copy in another type; no gradient of its own."""
    return pointwise("aten._to_copy", (x,), dtype)


def to(x: Value, dtype: str) -> Value:
    """``x`` in a type, copied where it has another one."""
    if x.dtype == dtype:
        return x
    out = copied_to(x, dtype)
    if x.node is not None:
        old = x.dtype
        x.tape.node(lambda g: (copied_to(g, old),), (x,), out)
    return out


def widened(x: Value) -> Value:
    """``x`` as an operator on autocast's float32 list receives it."""
    return to(x, "float32") if x.tape.half is not None and x.dtype != "float32" else x


def dropout(x: Value, p: float) -> Value:
    """Elements zeroed at random, with a mask of one byte each; nothing outside training."""
    tape = x.tape
    if not tape.train or p == 0:
        return x
    stride = elementwise_stride(x.shape, ((x.shape, x.stride),))
    out, mask = tape.new(x.shape, x.dtype, stride), tape.new(x.shape, "bool", stride)
    tape.emit("aten.native_dropout", (x,), (out, mask), {"p": p, "train": True})
    tape.node(lambda g: (pointwise("aten.native_dropout_backward", (g, mask), g.dtype),), (x,), out)
    return out


def flat(x: Value) -> Value:
    """[..., k] -> [rows, k]."""
    return reshape(x, (x.elements // max(x.shape[-1], 1), x.shape[-1]))


def chosen(condition: Value, x: Value, other: Value) -> Value:
    """x where the condition holds, a constant elsewhere."""
    tape = x.tape
    out = pointwise("aten.where", (condition, x, other), x.dtype)
    if x.node is not None:

        def back(g: Value) -> tuple[Value]:
            zero = tape.new((), g.dtype)
            tape.emit("aten.scalar_tensor", (), (zero,))
            return (pointwise("aten.where", (condition, g, zero), g.dtype),)

        tape.node(back, (x,), out)
    return out


def added_in_place(x: Value, other: Value) -> Value:
    """x += other."""
    out = Value(x.shape, x.dtype, x.stride, x.memory)
    x.tape.emit("aten.add_", (x, other), (out,))
    x.tape.node(lambda g: (g, g), (x, other), out)
    return out


def clamped(x: Value) -> Value:
    """x limited in place; the gradient passes where it was inside, and keeps a copy of x to know."""
    tape = x.tape
    if x.node is None:
        tape.emit("aten.clamp_", (x,), (x,))
        return x
    before = pointwise("aten.clone", (x,))
    out = Value(x.shape, x.dtype, x.stride, x.memory)
    tape.emit("aten.clamp_", (x,), (out,))

    def back(g: Value) -> tuple[Value]:
        zero = tape.new((), g.dtype)
        tape.emit("aten.scalar_tensor", (), (zero,))
        least, most = pointwise("aten.ge", (before,), "bool"), pointwise("aten.le", (before,), "bool")
        tape.emit("aten.logical_and_", (least, most), (least,))
        return (pointwise("aten.where", (least, g, zero), g.dtype),)

    tape.node(back, (x,), out)
    return out
