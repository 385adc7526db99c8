"""Matrix products, attention and convolution with their gradients."""

from predictor.frontends.config.arithmetic import flat, scale, to
from predictor.frontends.config.layout import elementwise_stride
from predictor.frontends.config.tape import Value
from predictor.frontends.config.views import reshape, transpose, unsafe_view, view


def cast(x: Value) -> Value:
    """``x`` in autocast's type; a weight is cast once a step. Callers cast their last argument first."""
    tape = x.tape
    if tape.half is None or x.dtype != "float32" or tape.phase != "forward":
        return x
    if not x.shape or x.memory.number not in tape.weights:
        return to(x, tape.half)
    kept = tape.casts.get(x.memory.number)
    if kept is None:
        kept = tape.casts[x.memory.number] = to(x, tape.half)
    return kept


def product(a: Value, b: Value) -> Value:
    """[m, k] @ [k, n]; no gradient of its own."""
    out = a.tape.new((a.shape[0], b.shape[1]), a.dtype)
    a.tape.emit("aten.mm", (a, b), (out,))
    return out


def _columns(x: Value) -> bool:
    """True when a matrix is stored column by column."""
    return x.stride[-2] == 1 and x.stride[-1] == x.shape[-2]


def _left(g: Value, a: Value, b: Value) -> Value:
    """Gradient of the left factor, in its own layout."""
    if _columns(a):
        return transpose(product(b, transpose(g, 0, 1)), 0, 1)
    return product(g, transpose(b, 0, 1))


def _right(g: Value, a: Value, b: Value) -> Value:
    """Gradient of the right factor, in its own layout."""
    if _columns(b):
        return transpose(product(transpose(g, 0, 1), a), 0, 1)
    return product(transpose(a, 0, 1), g)


def mm(a: Value, b: Value) -> Value:
    """[m, k] @ [k, n] -> [m, n]."""
    out = product(a, b)
    wants_a, wants_b = a.node is not None, b.node is not None
    if wants_a or wants_b:

        def back(g: Value) -> tuple[Value | None, Value | None]:
            right = _right(g, a, b) if wants_b else None
            return (_left(g, a, b) if wants_a else None), right

        out.tape.node(back, (a, b), out)
    return out


def addmm(bias: Value, a: Value, b: Value) -> Value:
    """bias [n] + [m, k] @ [k, n] -> [m, n]."""
    out = a.tape.new((a.shape[0], b.shape[1]), a.dtype)
    a.tape.emit("aten.addmm", (bias, a, b), (out,))
    wants_a, wants_b = a.node is not None, b.node is not None
    if wants_a or wants_b:

        def back(g: Value) -> tuple[Value, Value | None, Value | None]:
            left = _left(g, a, b) if wants_a else None
            return g, left, (_right(g, a, b) if wants_b else None)

        out.tape.node(back, (bias, a, b), out)
    return out


def linear(x: Value, weight: Value, bias: Value | None = None) -> Value:
    """[..., k] times weight [n, k] transposed, plus bias [n]."""
    bias = cast(bias) if bias is not None else None
    weight = cast(weight)
    x = cast(x)
    turned = transpose(weight, 0, 1)
    lead = x.shape[:-1]
    rows = flat(x) if len(lead) != 1 else x
    if bias is None:
        out = mm(rows, turned)
        return out if len(lead) == 1 else unsafe_view(out, (*lead, weight.shape[0]))
    return view(addmm(bias, rows, turned), (*lead, weight.shape[0]))


def bmm(a: Value, b: Value) -> Value:
    """[g, m, k] @ [g, k, n] -> [g, m, n]."""
    out = _batched(a, b)
    wants_a, wants_b = a.node is not None, b.node is not None
    if wants_a or wants_b:

        def back(g: Value) -> tuple[Value | None, Value | None]:
            right = _batched(transpose(a, 1, 2), g) if wants_b else None
            return (_batched(g, transpose(b, 1, 2)) if wants_a else None), right

        out.tape.node(back, (a, b), out)
    return out


def _batched(a: Value, b: Value) -> Value:
    out = a.tape.new((a.shape[0], a.shape[1], b.shape[2]), a.dtype)
    a.tape.emit("aten.bmm", (a, b), (out,))
    return out


def baddbmm(bias: Value, a: Value, b: Value, factor: float) -> Value:
    """bias + factor * [g, m, k] @ [g, k, n]; the bias takes no gradient."""
    b = cast(b)
    a = cast(a)
    bias = cast(bias)
    out = a.tape.new((a.shape[0], a.shape[1], b.shape[2]), a.dtype)
    a.tape.emit("aten.baddbmm", (bias, a, b), (out,), {"alpha": factor})

    def back(g: Value) -> tuple[Value, Value]:
        left = scale(_batched(g, transpose(b, 1, 2)), factor)
        return left, scale(_batched(transpose(a, 1, 2), g), factor)

    out.tape.node(back, (a, b), out)
    return out


def matmul(a: Value, b: Value) -> Value:
    """[b, h, m, k] @ [b, h, k, n] -> [b, h, m, n]."""
    b = cast(b)
    a = cast(a)
    lead = a.shape[:2]
    groups = lead[0] * lead[1]
    left, right = reshape(a, (groups, *a.shape[2:])), reshape(b, (groups, *b.shape[2:]))
    out = bmm(left, right)
    return unsafe_view(out, (*lead, a.shape[2], b.shape[3]))


def attention(
    q: Value, k: Value, v: Value, bias: Value | None = None, causal: bool = False, window: int = 0
) -> Value:
    """q [b, h, s, d], k and v [b, kv, t, d], bias broadcast to [b, h, s, t] -> [b, h, s, d].

    causal hides the keys after a query, window those at this distance or further. A fused kernel: it
    keeps its arguments, its result and one number a row, never the scores.
    """
    tape = q.tape
    if bias is not None:
        bias = cast(bias)
    v = cast(v)
    k = cast(k)
    q = cast(q)
    b, h, s, _ = q.shape
    d = v.shape[-1]
    out = tape.new((b, h, s, d), q.dtype, (s * h * d, d, h * d, 1))
    rows = tape.new((b, h, s), "float32")
    inputs = (q, k, v) if bias is None else (q, k, v, bias)
    attrs = {"is_causal": causal, "window": window, "pairs": 0}
    tape.emit("predictor.attention", inputs, (out, rows), attrs)
    if any(x.node is not None for x in inputs):
        wants_bias = bias is not None and bias.node is not None

        def back(g: Value) -> tuple[Value | None, ...]:
            made = [_like(x) for x in (q, k, v)]
            bias_gradient = _like(bias) if wants_bias and bias is not None else tape.new((0,), q.dtype)
            tape.emit("predictor.attention_backward", (g, *inputs, out, rows), (*made, bias_gradient), attrs)
            return (*made, bias_gradient if wants_bias else None)

        tape.node(back, (q, k, v, bias), out)
    return out


def _like(x: Value) -> Value:
    """An empty tensor that keeps the order of ``x`` in memory."""
    return x.tape.new(x.shape, x.dtype, elementwise_stride(x.shape, ((x.shape, x.stride),)))


def grouped_mm(a: Value, b: Value, ends: Value) -> Value:
    """Rows [t, k], sorted by expert, times that expert's own b [e, k, n]; autocast leaves it alone."""
    tape = a.tape
    out = _grouped(a, b, ends)

    def back(g: Value) -> tuple[Value, Value]:
        left = _grouped(g, transpose(b, 1, 2), ends)
        right = tape.new(b.shape, a.dtype)
        tape.emit("predictor.grouped_mm_weight", (a, g, ends), (right,))
        return left, right

    tape.node(back, (a, b), out)
    return out


def _grouped(a: Value, b: Value, ends: Value) -> Value:
    out = a.tape.new((a.shape[0], b.shape[2]), a.dtype)
    a.tape.emit("predictor.grouped_mm", (a, b, ends), (out,))
    return out


def convolution(x: Value, weight: Value, bias: Value, stride: int, padding: int) -> Value:
    """x [b, c, ...], weight [n, c, ...], bias [n] -> [b, n, ...], the same stride along every axis."""
    bias, weight = cast(bias), cast(weight)
    x = cast(x)
    tape, axes = x.tape, len(x.shape) - 2
    sides = ((n + 2 * padding - w) // stride + 1 for n, w in zip(x.shape[2:], weight.shape[2:], strict=True))
    out = tape.new((x.shape[0], weight.shape[0], *sides), x.dtype)
    attrs = {
        "stride": (stride,) * axes,
        "padding": (padding,) * axes,
        "dilation": (1,) * axes,
        "transposed": False,
        "output_padding": (0,) * axes,
        "groups": 1,
    }
    tape.emit("aten.convolution", (x, weight, bias), (out,), attrs)
    wants_x = x.node is not None

    def back(g: Value) -> tuple[Value | None, Value, Value]:
        made = [tape.new(t.shape, t.dtype) for t in (x, weight, bias)[0 if wants_x else 1 :]]
        mask = {"bias_sizes": bias.shape, "output_mask": (wants_x, True, True)}
        tape.emit("aten.convolution_backward", (g, x, weight), made, attrs | mask)
        return (made[0] if wants_x else None), made[-2], made[-1]

    tape.node(back, (x, weight, bias), out)
    return out
