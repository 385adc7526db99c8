"""Activations and their gradients."""

from predictor.frontends.config.arithmetic import add, mul, pointwise, power, scale, shift
from predictor.frontends.config.tape import Value


def _with_saved(name: str, x: Value, saves_result: bool) -> Value:
    """An activation whose gradient is one operator of g and its argument or result."""
    out = pointwise(f"aten.{name}", (x,))
    if x.node is not None:
        saved = out if saves_result else x
        x.tape.node(lambda g: (pointwise(f"aten.{name}_backward", (g, saved)),), (x,), out)
    return out


def silu(x: Value) -> Value:
    """x * sigmoid(x)."""
    return _with_saved("silu", x, False)


def gelu(x: Value) -> Value:
    """x * Phi(x), in one operator whatever the approximation."""
    return _with_saved("gelu", x, False)


def tanh(x: Value) -> Value:
    """Hyperbolic tangent."""
    return _with_saved("tanh", x, True)


def sigmoid(x: Value) -> Value:
    """Logistic function."""
    return _with_saved("sigmoid", x, True)


def relu(x: Value) -> Value:
    """max(x, 0)."""
    out = pointwise("aten.relu", (x,))
    if x.node is not None:
        x.tape.node(lambda g: (pointwise("aten.threshold_backward", (g, out)),), (x,), out)
    return out


def gelu_tanh(x: Value) -> Value:
    """The tanh approximation of GELU written out, as GPT-2 was published: eight operators."""
    half = scale(x, 0.5)
    return mul(half, shift(tanh(scale(add(x, scale(power(x, 3.0), 0.044715)), 0.7978845608028654)), 1.0))


def bloom_gelu(x: Value) -> Value:
    """BLOOM's GELU: nine operators forward; backward they are run again and followed by the derivative."""
    tape = x.tape
    train, tape.train = tape.train, False
    half = scale(x, 0.5)
    bent = _bloom_tanh(x)
    out = pointwise("aten.mul", (half, shift(bent, 1.0)))
    del half, bent
    tape.train = train

    def back(g: Value) -> tuple[Value]:
        bent = _bloom_tanh(x)
        return (_times(_plus(_bloom_slope(x, bent), scale(shift(bent, 1), 0.5)), g),)

    if x.node is not None:
        tape.node(back, (x,), out)
    return out


def _bloom_tanh(x: Value) -> Value:
    return pointwise("aten.tanh", (_times(scale(x, 0.79788456), shift(_times(scale(x, 0.044715), x), 1)),))


def _bloom_slope(x: Value, bent: Value) -> Value:
    """x / 2 times the derivative of the hyperbolic tangent within."""
    half = scale(x, 0.5)
    return _times(
        half,
        _times(
            pointwise("aten.rsub", (_times(bent, bent),)),
            shift(_times(scale(x, 0.1070322243), x), 0.79788456),
        ),
    )


def _times(a: Value, b: Value) -> Value:
    return pointwise("aten.mul", (a, b))


def _plus(a: Value, b: Value) -> Value:
    return pointwise("aten.add", (a, b))
