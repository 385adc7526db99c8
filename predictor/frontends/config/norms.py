"""Normalisations, softmax and the losses with their gradients."""

from predictor.frontends.config.arithmetic import mean, mul, pointwise, power, rsqrt, shift, to, widened
from predictor.frontends.config.tape import Value
from predictor.frontends.config.views import clone, reshape


def rms_norm(x: Value, weight: Value, eps: float) -> Value:
    """weight * x / rms(x), computed in float32 and written out in six operators, as transformers does."""
    return mul(weight, to(rms_scaled(x, eps), x.dtype))


def rms_scaled(x: Value, eps: float) -> Value:
    """x / rms(x) in float32."""
    wide = to(x, "float32")
    variance = mean(power(wide, 2))
    return mul(wide, rsqrt(shift(variance, eps)))


def layer_norm(x: Value, weight: Value | None, bias: Value | None, eps: float = 1e-5) -> Value:
    """(x - mean) / deviation * weight + bias over the last axis; float32 under autocast."""
    tape = x.tape
    x = widened(x)
    given = tuple([v for v in (x, weight, bias) if v is not None])
    rows = (*x.shape[:-1], 1)
    out, middle, spread = tape.new(x.shape, x.dtype), tape.new(rows, x.dtype), tape.new(rows, x.dtype)
    attrs = {"normalized_shape": (x.shape[-1],), "eps": eps}
    tape.emit("aten.native_layer_norm", given, (out, middle, spread), attrs)

    def back(g: Value) -> tuple[Value, ...]:
        made = [tape.new(v.shape, v.dtype) for v in given]
        tape.emit("aten.native_layer_norm_backward", (g, given[0], middle, spread, *given[1:]), made, attrs)
        return tuple(made)

    tape.node(back, given, out)
    return out


def softmax(x: Value, wide: bool = False) -> Value:
    """Softmax of the last axis, in float32 where ``wide`` or autocast says so."""
    return _soft(x, "_softmax", wide)


def log_softmax(x: Value) -> Value:
    """Logarithm of the softmax of the last axis."""
    return _soft(x, "_log_softmax", False)


def _soft(x: Value, name: str, wide: bool) -> Value:
    x = to(x, "float32") if wide else widened(x)
    out = pointwise(f"aten.{name}", (x,), attrs={"dim": len(x.shape) - 1})
    if x.node is not None:
        attrs = {"dim": len(x.shape) - 1}

        def back(g: Value) -> tuple[Value]:
            return (pointwise(f"aten.{name}_backward_data", (g, out), attrs=attrs),)

        x.tape.node(back, (x,), out)
    return out


def cross_entropy(logits: Value, labels: Value) -> Value:
    """Mean over rows of -log softmax(logits [t, v])[labels [t]]."""
    log_p = log_softmax(logits)
    tape = logits.tape
    out, weight = tape.new((), log_p.dtype), tape.new((), log_p.dtype)
    tape.emit("aten.nll_loss_forward", (log_p, labels), (out, weight), {"reduction": 1})
    if log_p.node is not None:

        def back(g: Value) -> tuple[Value]:
            made = tape.new(log_p.shape, log_p.dtype)
            tape.emit("aten.nll_loss_backward", (g, log_p, labels, weight), (made,), {"reduction": 1})
            return (made,)

        tape.node(back, (log_p,), out)
    return out


def next_token_loss(logits: Value, labels: Value) -> Value:
    """Cross entropy of float32 logits [b, s, v] against the labels [b, s] moved by one token."""
    logits = to(logits, "float32")
    b, s, v = logits.shape
    tape = logits.tape
    padded = tape.new((b, s + 1), "int64")
    tape.emit("aten.constant_pad_nd", (labels,), (padded,))
    moved = clone(_without_first(padded, s))
    del padded
    return cross_entropy(reshape(logits, (b * s, v)), reshape(moved, (b * s,)))


def _without_first(x: Value, size: int) -> Value:
    return Value((x.shape[0], size), x.dtype, x.stride, x.memory)
