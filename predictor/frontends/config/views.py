"""Views, and the copies that PyTorch makes where memory cannot be viewed; with their gradients."""

from predictor.frontends.config.layout import Shape, contiguous, elementwise_stride, view_stride
from predictor.frontends.config.tape import Value


def alias(x: Value, shape: Shape, stride: Shape) -> Value:
    """The same memory under another shape; no gradient flows yet."""
    return Value(shape, x.dtype, stride, x.memory)


def view(x: Value, shape: Shape) -> Value:
    """[...] -> shape without a copy, which must be possible."""
    if shape == x.shape:
        return x
    stride = view_stride(x.shape, x.stride, shape)
    assert stride is not None
    out = alias(x, shape, stride)
    if x.node is not None:
        old = x.shape
        x.tape.node(lambda g: (reshape(g, old),), (x,), out)
    return out


def reshape(x: Value, shape: Shape) -> Value:
    """[...] -> shape, copied where it cannot be viewed."""
    if view_stride(x.shape, x.stride, shape) is not None:
        return view(x, shape)
    return unsafe_view(clone(x), shape)


def unsafe_view(x: Value, shape: Shape) -> Value:
    """A view that PyTorch lists as an operator of its own; it moves nothing."""
    out = alias(x, shape, contiguous(shape))
    x.tape.emit("aten._unsafe_view", (x,), (out,))
    if x.node is not None:
        old = x.shape
        x.tape.node(lambda g: (reshape(g, old),), (x,), out)
    return out


def clone(x: Value, dense: bool = True) -> Value:
    """A copy, in the order of its axes or, when not ``dense``, in the order in which it is stored."""
    tape = x.tape
    stride = None if dense else elementwise_stride(x.shape, ((x.shape, x.stride),))
    out = tape.new(x.shape, x.dtype, stride)
    tape.emit("aten.clone", (x,), (out,))
    if x.node is not None:
        tape.node(lambda g: (g,), (x,), out)
    return out


def dense(x: Value) -> Value:
    """``x`` in the order of its axes, copied where it is not."""
    return x if x.dense else clone(x)


def permute(x: Value, order: tuple[int, ...]) -> Value:
    """Axes in another order."""
    out = alias(x, tuple([x.shape[i] for i in order]), tuple([x.stride[i] for i in order]))
    if x.node is not None:
        back = tuple([order.index(i) for i in range(len(order))])
        x.tape.node(lambda g: (permute(g, back),), (x,), out)
    return out


def transpose(x: Value, a: int, b: int) -> Value:
    """Two axes exchanged."""
    shape, stride = list(x.shape), list(x.stride)
    shape[a], shape[b] = shape[b], shape[a]
    stride[a], stride[b] = stride[b], stride[a]
    out = alias(x, tuple(shape), tuple(stride))
    if x.node is not None:
        x.tape.node(lambda g: (transpose(g, a, b),), (x,), out)
    return out


def unsqueeze(x: Value, axis: int) -> Value:
    """A new axis of size 1."""
    step = x.shape[axis] * x.stride[axis] if axis < len(x.shape) else 1
    out = alias(x, (*x.shape[:axis], 1, *x.shape[axis:]), (*x.stride[:axis], step, *x.stride[axis:]))
    if x.node is not None:
        old = x.shape
        x.tape.node(lambda g: (reshape(g, old),), (x,), out)
    return out


def expand(x: Value, shape: Shape) -> Value:
    """Axes of size 1 repeated without a copy; the gradient is summed by the engine."""
    lead = len(shape) - len(x.shape)
    stride = tuple([0] * lead) + tuple(
        [0 if n == 1 and m != 1 else s for n, m, s in zip(x.shape, shape[lead:], x.stride, strict=True)]
    )
    out = alias(x, shape, stride)
    if x.node is not None:
        x.tape.node(lambda g: (g,), (x,), out)
    return out


def part(x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    """x[..., start:stop:step, ...] along one axis; its gradient is written into zeros."""
    axis %= len(x.shape)
    if start == 0 and stop == x.shape[axis] and step == 1:
        return x
    out = _cut(x, axis, start, stop, step)
    if x.node is not None:
        old, tape = x.shape, x.tape

        def back(g: Value) -> tuple[Value]:
            whole = tape.new(old, g.dtype)
            tape.emit("aten.slice_backward", (g,), (whole,))
            return (whole,)

        tape.node(back, (x,), out)
    return out


def _cut(x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    """A slice of the memory; no gradient flows."""
    size = (stop - start + step - 1) // step
    stride = (*x.stride[:axis], x.stride[axis] * step, *x.stride[axis + 1 :]) if step > 1 else x.stride
    return alias(x, (*x.shape[:axis], size, *x.shape[axis + 1 :]), stride)


def select(x: Value, axis: int) -> Value:
    """x[..., i, ...]: one entry of an axis."""
    out = alias(x, (*x.shape[:axis], *x.shape[axis + 1 :]), (*x.stride[:axis], *x.stride[axis + 1 :]))
    if x.node is not None:
        old, tape = x.shape, x.tape

        def back(g: Value) -> tuple[Value]:
            whole = tape.new(old, g.dtype)
            tape.emit("aten.select_backward", (g,), (whole,))
            return (whole,)

        tape.node(back, (x,), out)
    return out


def split(x: Value, sizes: tuple[int, ...], axis: int) -> list[Value]:
    """Consecutive parts of an axis; their gradients are joined, absent ones as zeros."""
    axis %= len(x.shape)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    parts = [_cut(x, axis, start, start + size) for start, size in zip(starts, sizes, strict=True)]
    if x.node is not None:
        tape, shapes, dtype = x.tape, [p.shape for p in parts], x.dtype

        def back(*gradients: Value | None) -> tuple[Value]:
            given = list(gradients)
            for i, g in enumerate(given):
                if g is None:
                    given[i] = tape.new(shapes[i], dtype)
                    tape.emit("aten.zeros", (), (given[i],))  # type: ignore[arg-type]
            return (joined([g for g in given if g is not None], axis),)

        tape.node(back, (x,), *parts)
    return parts


def joined(parts: list[Value], axis: int) -> Value:
    """Concatenation without a gradient of its own; ``cat`` adds one."""
    axis %= len(parts[0].shape)
    shape = list(parts[0].shape)
    shape[axis] = sum(p.shape[axis] for p in parts)
    tape = parts[0].tape
    out = tape.new(tuple(shape), parts[0].dtype)
    tape.emit("aten.cat", parts, (out,), {"dim": axis})
    return out


def cat(parts: list[Value], axis: int) -> Value:
    """Concatenation; the gradient is handed on in views."""
    axis %= len(parts[0].shape)
    parts = _one_type(parts)
    out = joined(parts, axis)
    if any(p.node is not None for p in parts):
        sizes = [p.shape[axis] for p in parts]

        def back(g: Value) -> list[Value]:
            starts = [sum(sizes[:i]) for i in range(len(sizes))]
            return [_cut(g, axis, start, start + size) for start, size in zip(starts, sizes, strict=True)]

        out.tape.node(back, parts, out)
    return out


def as_complex(x: Value) -> Value:
    """Pairs [..., 2] of float32 seen as complex numbers."""
    out = Value(x.shape[:-1], "complex64", tuple([s // 2 for s in x.stride[:-1]]), x.memory)
    x.tape.node(lambda g: (as_real(g),), (x,), out)
    return out


def as_real(x: Value) -> Value:
    """Complex numbers seen as pairs of float32."""
    out = Value((*x.shape, 2), "float32", (*[s * 2 for s in x.stride], 1), x.memory)
    x.tape.node(lambda g: (as_complex(dense(g)),), (x,), out)
    return out


def written(like: Value, parts: list[Value], axis: int) -> Value:
    """Parts copied one by one into a new tensor typed as ``like``; their gradients are copied out again."""
    axis %= len(parts[0].shape)
    shape = list(parts[0].shape)
    shape[axis] = sum(p.shape[axis] for p in parts)
    tape = parts[0].tape
    whole = tape.new(tuple(shape), like.dtype)
    tape.emit("aten.new_empty", (like,), (whole,))
    start = 0
    for source in parts:
        whole = _copied_in(whole, source, axis, start)
        start += source.shape[axis]
    return whole


def _copied_in(whole: Value, source: Value, axis: int, start: int) -> Value:
    tape, stop = whole.tape, start + source.shape[axis]
    place = _cut(whole, axis, start, stop)
    tape.emit("aten.copy_", (place, source), (place,))
    out = alias(whole, whole.shape, whole.stride)
    earlier = whole.node is not None

    def back(g: Value) -> tuple[Value | None, Value]:
        twin = tape.new(out_shape, g.dtype)
        tape.emit("aten.new_empty_strided", (g,), (twin,))
        tape.emit("aten.copy_", (twin, g), (twin,))
        hole = _cut(twin, axis, start, stop)
        piece = clone(hole)
        if earlier:
            zeros = tape.new(piece.shape, piece.dtype)
            tape.emit("aten.zeros_like", (piece,), (zeros,))
            tape.emit("aten.copy_", (hole, zeros), (hole,))
        return (twin if earlier else None), piece

    out_shape = whole.shape
    tape.node(back, (whole, source), out)
    return out


def _one_type(parts: list[Value]) -> list[Value]:
    """Autocast widens the parts of a concatenation to the widest of them."""
    dtypes = {p.dtype for p in parts}
    if len(dtypes) == 1 or parts[0].tape.half is None:
        return parts
    return [p if p.dtype == "float32" else _widened(p) for p in parts]


def _widened(x: Value) -> Value:
    out = x.tape.new(x.shape, "float32", elementwise_stride(x.shape, ((x.shape, x.stride),)))
    x.tape.emit("aten._to_copy", (x,), (out,))
    old = x.dtype

    def back(g: Value) -> tuple[Value]:
        narrow = g.tape.new(g.shape, old, elementwise_stride(g.shape, ((g.shape, g.stride),)))
        g.tape.emit("aten._to_copy", (g,), (narrow,))
        return (narrow,)

    x.tape.node(back, (x,), out)
    return out
