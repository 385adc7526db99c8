"""Operators that pick: embeddings, indexing, routing, and their gradients."""

from predictor.frontends.config.arithmetic import pointwise
from predictor.frontends.config.layout import Shape
from predictor.frontends.config.tape import Tape, Value


def arange(tape: Tape, count: int) -> Value:
    """0 ... count - 1."""
    out = tape.new((count,), "int64")
    tape.emit("aten.arange", (), (out,))
    return out


def filled(tape: Tape, name: str, shape: Shape, dtype: str, source: Value | None = None) -> Value:
    """A new tensor of one value: ``zeros``, ``full``, ``new_zeros``, ``ones_like``, ..."""
    out = tape.new(shape, dtype)
    tape.emit(f"aten.{name}", () if source is None else (source,), (out,))
    return out


def compare(name: str, a: Value, b: Value | float) -> Value:
    """True where the comparison holds."""
    if isinstance(b, Value):
        return pointwise(f"aten.{name}", (a, b), "bool")
    return pointwise(f"aten.{name}", (a,), "bool", {"other": b})


def embedding(weight: Value, ids: Value) -> Value:
    """Rows of weight [v, k] by ids [...] -> [..., k]; the gradient fills a tensor like the weight."""
    tape = weight.tape
    out = tape.new((*ids.shape, weight.shape[1]), weight.dtype)
    tape.emit("aten.embedding", (weight, ids), (out,))
    if weight.node is not None:
        shape = weight.shape

        def back(g: Value) -> tuple[Value]:
            made = tape.new(shape, g.dtype)
            tape.emit("aten.embedding_dense_backward", (g, ids), (made,), {"num_weights": shape[0]})
            return (made,)

        tape.node(back, (weight,), out)
    return out


def index(x: Value, places: Value) -> Value:
    """x[places]: rows of the first axis, repeated or not; gradients of a row are added."""
    tape = x.tape
    out = tape.new((*places.shape, *x.shape[1:]), x.dtype)
    tape.emit("aten.index", (x, places), (out,))
    if x.node is not None:
        shape = x.shape

        def back(g: Value) -> tuple[Value]:
            zeros = filled(tape, "new_zeros", shape, g.dtype, g)
            made = tape.new(shape, g.dtype)
            tape.emit("aten.index_put", (zeros, places, g), (made,), {"accumulate": True})
            return (made,)

        tape.node(back, (x,), out)
    return out


def pick(x: Value, axis: int) -> Value:
    """One entry of an axis, which stays, taken by a list of one index rather than by a slice."""
    tape = x.tape
    out = tape.new((*x.shape[:axis], 1, *x.shape[axis + 1 :]), x.dtype)
    place = tape.known((1,), "int64")
    tape.emit("aten.index", (x, place), (out,))
    if x.node is not None:
        shape = x.shape

        def back(g: Value) -> tuple[Value]:
            zeros = filled(tape, "new_zeros", shape, g.dtype, g)
            made = tape.new(shape, g.dtype)
            tape.emit("aten.index_put", (zeros, place, g), (made,), {"accumulate": True})
            return (made,)

        tape.node(back, (x,), out)
    return out


def topk(x: Value, count: int) -> tuple[Value, Value]:
    """The largest ``count`` of the last axis and where they are."""
    tape = x.tape
    shape = (*x.shape[:-1], count)
    values, places = tape.new(shape, x.dtype), tape.new(shape, "int64")
    tape.emit("aten.topk", (x,), (values, places), {"k": count})
    if x.node is not None:
        old = x.shape
        tape.node(lambda g: (_scattered(g, old, places, "scatter"),), (x,), values)
    return values, places


def gather(x: Value, places: Value) -> Value:
    """Entries of the last axis by place."""
    tape = x.tape
    out = tape.new(places.shape, x.dtype)
    tape.emit("aten.gather", (x, places), (out,), {"dim": len(x.shape) - 1})
    if x.node is not None:
        old = x.shape
        tape.node(lambda g: (_scattered(g, old, places, "scatter_add"),), (x,), out)
    return out


def _scattered(g: Value, shape: Shape, places: Value, name: str) -> Value:
    zeros = filled(g.tape, "new_zeros", shape, g.dtype, g)
    out = g.tape.new(shape, g.dtype)
    g.tape.emit(f"aten.{name}", (zeros, places, g), (out,), {"dim": len(shape) - 1})
    return out


def sort(x: Value) -> tuple[Value, Value]:
    """Sorted values [t] and where they were; whole numbers only, so no gradient."""
    values, places = x.tape.new(x.shape, x.dtype), x.tape.new(x.shape, "int64")
    x.tape.emit("aten.sort", (x,), (values, places))
    return values, places


def masked_fill(x: Value, mask: Value) -> Value:
    """x with one value where the mask holds; no gradient there."""
    out = pointwise("aten.masked_fill", (x, mask), x.dtype)
    if x.node is not None:
        x.tape.node(lambda g: (pointwise("aten.masked_fill", (g, mask), g.dtype),), (x,), out)
    return out
