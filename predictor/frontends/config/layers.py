"""Parts that families share: projections, rotary positions, masks, the language-model head."""

from collections.abc import Callable
from dataclasses import dataclass

from predictor.frontends.config import activations
from predictor.frontends.config import arithmetic as ar
from predictor.frontends.config.fields import Fields, NoTemplateError
from predictor.frontends.config.lookup import arange, compare, filled
from predictor.frontends.config.model import Text
from predictor.frontends.config.norms import layer_norm, next_token_loss
from predictor.frontends.config.products import linear
from predictor.frontends.config.tape import Tape, Value
from predictor.frontends.config.views import (
    alias,
    cat,
    expand,
    part,
    reshape,
    transpose,
    unsqueeze,
    view,
)

ACTIVATIONS: dict[str, Callable[[Value], Value]] = {
    "silu": activations.silu,
    "swish": activations.silu,
    "gelu": activations.gelu,
    "gelu_pytorch_tanh": activations.gelu,
    "gelu_new": activations.gelu_tanh,
    "relu": activations.relu,
    "tanh": activations.tanh,
}


def activation(fields: Fields, *names: str, default: str) -> Callable[[Value], Value]:
    """The configured activation."""
    name = fields.text(*names, default=default)
    if name not in ACTIVATIONS:
        raise NoTemplateError(f"activation '{name}'")
    return ACTIVATIONS[name]


def projection(tape: Tape, x: Value, name: str, width: int, bias: bool = False) -> Value:
    """A linear layer with weights of its own: [..., k] -> [..., width]."""
    weight = tape.parameter(f"{name}.weight", (width, x.shape[-1]))
    offset = tape.parameter(f"{name}.bias", (width,)) if bias else None
    return linear(x, weight, offset)


def normed(
    tape: Tape, x: Value, name: str, eps: float = 1e-5, bias: bool = True, weights: bool = True
) -> Value:
    """A layer norm with weights of its own, where it has any."""
    if not weights:
        return layer_norm(x, None, None, eps)
    weight = tape.parameter(f"{name}.weight", (x.shape[-1],))
    offset = tape.parameter(f"{name}.bias", (x.shape[-1],)) if bias else None
    return layer_norm(x, weight, offset, eps)


def heads(x: Value, size: int) -> Value:
    """[b, s, h * d] -> [b, h, s, d]."""
    b, s, width = x.shape
    return transpose(view(x, (b, s, width // size, size)), 1, 2)


def merged(x: Value) -> Value:
    """[b, h, s, d] -> [b, s, h * d]."""
    b, h, s, d = x.shape
    return reshape(transpose(x, 1, 2), (b, s, h * d))


def repeated(x: Value, times: int) -> Value:
    """Every key or value head [b, kv, s, d] copied for the query heads that share it."""
    if times == 1:
        return x
    b, kv, s, d = x.shape
    return reshape(expand(unsqueeze(x, 2), (b, kv, times, s, d)), (b, kv * times, s, d))


def positions(tape: Tape, s: int) -> Value:
    """Position ids [1, s]: counted, then moved by the length of a cache that is empty."""
    return view(ar.shift(arange(tape, s), 0), (1, s))


def rotary(tape: Tape, places: Value, frequencies: Value, dtype: str) -> tuple[Value, Value]:
    """Cosine and sine [1, s, d] of positions times frequencies [d / 2], in float32, then in ``dtype``."""
    wide = ar.copied_to(unsqueeze(places, 2), "float32")
    angles = ar.pointwise("aten.mul", (wide, ar.to(frequencies, "float32")))
    angles = cat([angles, angles], -1)
    cosine = ar.scale(ar.pointwise("aten.cos", (angles,)), 1.0)
    sine = ar.scale(ar.pointwise("aten.sin", (angles,)), 1.0)
    return ar.to(cosine, dtype), ar.to(sine, dtype)


def plain_rope(fields: Fields) -> None:
    """Leave rotary embeddings that compute with the length of the sequence to the real class."""
    for name in ("rope_parameters", "rope_scaling"):
        section = fields.content.get(name)
        groups = section.values() if isinstance(section, dict) else ()
        for one in (section, *groups):
            if isinstance(one, dict):
                kind = one.get("rope_type", one.get("type", "default"))
                if kind not in {"default", "linear", "llama3", "yarn", "proportional"}:
                    raise NoTemplateError(f"rope_type {kind!r}")


def rotated(x: Value, cosine: Value, sine: Value) -> Value:
    """x * cos + (its halves exchanged, one negated) * sin; x [b, h, s, d]."""
    first = ar.mul(x, cosine)
    half = x.shape[-1] // 2
    lower, upper = part(x, -1, 0, half), part(x, -1, half, x.shape[-1])
    return ar.add(first, ar.mul(cat([ar.negative(upper), lower], -1), sine))


def part_rotated(
    q: Value, k: Value, cosine: Value, sine: Value, together: bool = True
) -> tuple[Value, Value]:
    """The first elements of every head rotated, the rest, even an empty one, joined again."""
    size, whole = cosine.shape[-1], q.shape[-1]
    cuts = [(part(x, -1, 0, size), part(x, -1, size, whole)) for x in (q, k)]
    if not together:
        q, k = (cat([rotated(turning, cosine, sine), rest], -1) for turning, rest in cuts)
        return q, k
    turned = [rotated(turning, cosine, sine) for turning, _ in cuts]
    q, k = (cat([one, rest], -1) for one, (_, rest) in zip(turned, cuts, strict=True))
    return q, k


def rotary_share(fields: Fields, default: float) -> float:
    """Which part of a head is rotated."""
    rope = fields.section("rope_parameters")
    share = fields.share("partial_rotary_factor", "rotary_pct", default=default)
    return rope.share("partial_rotary_factor", default=share)


@dataclass(frozen=True, slots=True)
class Mask:
    """What attention adds to or hides of its scores.

    bias    numbers to add, [b, 1, s, s] or broadcast to it
    window  keys at this distance or further are hidden, 0 for none
    """

    bias: Value | None = None
    causal: bool = True
    window: int = 0


def masks_of(
    tape: Tape, text: Text, windows: dict[str, int | None], written: str | None = None
) -> dict[str, Mask]:
    """The mask of each kind of layer; ``written`` asks for numbers of this type to add to plain scores."""
    if written is not None:
        return {kind: Mask(written_mask(tape, text, window, written)) for kind, window in windows.items()}
    return {kind: window_mask(tape, text, window) for kind, window in windows.items()}


def window_mask(tape: Tape, text: Text, window: int | None, always: bool = False) -> Mask:
    """A mask that the kernel knows by its pattern; of its tensor one element is made, where one is."""
    inside = window if window is not None and window < text.length else 0
    if inside or always:
        filled(tape, "empty", (1, 1, 1, 1), "bool")
    return Mask(window=inside)


def written_mask(tape: Tape, text: Text, window: int | None, written: str) -> Value:
    """Zero where a query sees a key, the least number elsewhere: [b, 1, s, s]."""
    b, s = text.batch, text.length
    arange(tape, b)
    arange(tape, 1)
    queries = ar.shift(arange(tape, s), 0)
    keys = ar.shift(arange(tape, s), 0)
    rows, columns = alias(queries, (1, 1, s, 1), (s, s, 1, 1)), alias(keys, (1, 1, 1, s), (s, s, s, 1))
    inside = None
    if window is not None:
        every = filled(tape, "new_ones", (), "bool", rows)
        inside = compare("gt", columns, ar.pointwise("aten.sub", (rows,), attrs={"other": window}))
        inside = ar.pointwise("aten.bitwise_and", (every, inside))
    mask = compare("le", columns, rows)
    if inside is not None:
        mask = ar.pointwise("aten.bitwise_and", (inside, mask))
    return numbers(expand(mask, (b, 1, s, s)), written, "zeros")


def numbers(mask: Value, dtype: str, zero_name: str) -> Value:
    """Zero where the mask holds, the least number elsewhere."""
    zero = filled(mask.tape, zero_name, (), dtype)
    least = filled(mask.tape, "scalar_tensor", (), dtype)
    return ar.pointwise("aten.where", (mask, zero, least), dtype)


def language_loss(tape: Tape, logits: Value, labels: Value) -> Value:
    """The loss of predicting the next token, in training and in evaluation alike."""
    tape.scope = ""
    return next_token_loss(logits, labels)


def shifted(tape: Tape, labels: Value) -> Value:
    """Labels [b, s] moved by one token, as the decoder reads them."""
    b, s = labels.shape
    ids = filled(tape, "new_zeros", (b, s), "int64", labels)
    copy = tape.new((b, s - 1), "int64")
    source, target = alias(labels, (b, s - 1), (s, 1)), alias(ids, (b, s - 1), (s, 1))
    tape.emit("aten.clone", (source,), (copy,))
    tape.emit("aten.copy_", (target, copy), (target,))
    del copy
    first = alias(ids, (b,), (s,))
    tape.emit("aten.fill_", (first, tape.known((), "int64")), (first,))
    padded = compare("eq", ids, -100)
    tape.emit("aten.masked_fill_", (ids, padded), (ids,))
    return ids
