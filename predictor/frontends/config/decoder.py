"""The decoder of the llama line: rotary positions, norms around attention and feed-forward.

A family chooses the parts: which norm, which attention, which feed-forward for which layer. Source of every
step: ``modeling_*.py`` of each family in transformers 5.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from predictor.frontends.config import activations
from predictor.frontends.config import arithmetic as ar
from predictor.frontends.config.fields import Fields
from predictor.frontends.config.layers import (
    Mask,
    activation,
    heads,
    language_loss,
    masks_of,
    merged,
    plain_rope,
    positions,
    projection,
    repeated,
    rotary,
    rotated,
)
from predictor.frontends.config.lookup import embedding
from predictor.frontends.config.model import Model, Text, text_model
from predictor.frontends.config.norms import rms_norm
from predictor.frontends.config.products import attention, linear
from predictor.frontends.config.tape import Hold, Tape, Value
from predictor.frontends.config.views import transpose, unsqueeze, view

Feed = Callable[[Tape, Value], Value]
Norm = Callable[[Tape, Value, str], Value]
Angles = tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Decoder:
    """Sizes and parts of one model.

    kinds       kind of every layer
    windows     kind of mask -> sliding window, None for plain causal attention
    feeds       kind of layer -> its feed-forward part
    masked_as   kind of layer -> kind of mask; the kind's own name where absent
    residual    where norms stand: "before" a part, "after" it, or "both"
    angles      how many sets of rotary frequencies there are, and how a set is computed
    attend      the attention part
    longest     tokens it was made for
    cast_back   rotated queries and keys return to the type they had
    """

    vocabulary: int
    width: int
    heads: int
    kv_heads: int
    head_size: int
    eps: float
    tied: bool
    kinds: Sequence[str]
    feeds: dict[str, Feed]
    norm: Norm
    attend: "Attend"
    windows: dict[str, int | None]
    masked_as: dict[str, str]
    residual: str = "before"
    rotary_size: int = 0
    angles: Callable[..., Angles] = rotary
    rotary_sets: tuple[str, ...] = ("",)
    qkv_bias: bool = False
    out_bias: bool = False
    scaled: bool = False
    cap: float = 0.0
    eager: bool = False
    cast_back: bool = False
    dropout: float = 0.0
    longest: int | None = None


Attend = Callable[[Tape, Value, Angles, Mask, Decoder], Value]


def weighted_rms(eps: float) -> Norm:
    """The RMS norm most families use."""

    def norm(tape: Tape, x: Value, name: str) -> Value:
        return rms_norm(x, tape.parameter(f"{name}.weight", (x.shape[-1],)), eps)

    return norm


def gated(fields: Fields, inner: int, bias: bool = False, name: str = "mlp") -> Feed:
    """down(act(gate(x)) * up(x))."""
    act = activation(fields, "hidden_activation", "hidden_act", default="silu")
    width = fields.size("hidden_size")

    def feed(tape: Tape, x: Value) -> Value:
        gate = act(projection(tape, x, f"{name}.gate_proj", inner, bias))
        x = ar.mul(gate, projection(tape, x, f"{name}.up_proj", inner, bias))
        del gate
        return projection(tape, x, f"{name}.down_proj", width, bias)

    return feed


def common(fields: Fields, **changes: Any) -> Decoder:
    """What these configurations have in common, under the names they share."""
    plain_rope(fields)
    width = fields.size("hidden_size")
    count = fields.size("num_attention_heads")
    kv = fields.size("num_key_value_heads", default=count)
    head_size = fields.optional_size("head_dim")
    if head_size is None:
        head_size = fields.divides(count, width, "hidden_size by num_attention_heads")
    fields.divides(kv, count, "num_attention_heads by num_key_value_heads")
    eps = fields.number("rms_norm_eps", default=1e-6)
    given: dict[str, Any] = {
        "vocabulary": fields.size("vocab_size"),
        "width": width,
        "heads": count,
        "kv_heads": kv,
        "head_size": head_size,
        "rotary_size": head_size,
        "eps": eps,
        "tied": fields.flag("tie_word_embeddings"),
        "kinds": ("full",) * fields.layers("num_hidden_layers"),
        "windows": {"full": None},
        "masked_as": {},
        "norm": weighted_rms(eps),
        "attend": grouped_attention,
        "dropout": fields.share("attention_dropout"),
        "longest": fields.optional_size("max_position_embeddings"),
    }
    return Decoder(**(given | changes))


def causal(d: Decoder) -> Model:
    """A causal language model."""
    return text_model(partial(_step, d), d.longest)


def _step(d: Decoder, tape: Tape, text: Text) -> Value:
    tape.scope = "model"
    table = tape.parameter("model.embed_tokens.weight", (d.vocabulary, d.width))
    x = _body(d, tape, text, table)
    tape.scope = "lm_head"
    logits = linear(x, table if d.tied else tape.parameter("lm_head.weight", (d.vocabulary, d.width)))
    if d.cap:
        logits = ar.ratio(logits, d.cap)
        logits = activations.tanh(logits)
        logits = ar.scale(logits, d.cap)
    return language_loss(tape, logits, text.labels)


def _body(d: Decoder, tape: Tape, text: Text, table: Value) -> Value:
    """Tokens to the last hidden state [b, s, k]; what it made for all blocks ends with it."""
    frequencies = {name: _frequencies(tape, d) for name in d.rotary_sets}
    x = embedding(table, text.ids)
    if d.scaled:
        x = ar.mul(x, tape.buffer(()))
    places = positions(tape, text.length)
    masks = masks_of(tape, text, d.windows, x.dtype if d.eager else None)
    wide = "float32" if d.cast_back else x.dtype
    angles = {name: d.angles(tape, places, own, wide) for name, own in frequencies.items()}

    def block(kind: str, given: tuple[Value, ...]) -> tuple[Value]:
        mask = d.masked_as.get(kind, kind)
        return (_block(tape, kind, given[0], angles.get(mask, angles.get("", ())), masks[mask], d),)

    kept = Hold(x)
    carried = [x]
    del x
    tape.prefix = "model.layers.*."
    (x,) = tape.stack(d.kinds, block, carried)
    carried.clear()
    tape.prefix, tape.scope = "", "model"
    x = d.norm(tape, x, "model.norm")
    del kept
    return x


def _frequencies(tape: Tape, d: Decoder) -> Value:
    """Inverse frequencies [d / 2], kept twice."""
    tape.buffer((d.rotary_size // 2,))
    return tape.buffer((d.rotary_size // 2,))


def _block(tape: Tape, kind: str, x: Value, angles: Angles, mask: Mask, d: Decoder) -> Value:
    before, after = d.residual != "after", d.residual != "before"
    second = "pre_feedforward_layernorm" if d.residual == "both" else "post_attention_layernorm"
    tape.scope = "model.layers.*.self_attn"
    y = d.norm(tape, x, "input_layernorm") if before else x
    y = d.attend(tape, y, angles, mask, d)
    if after:
        y = d.norm(tape, y, "post_attention_layernorm")
    x = ar.add(x, y)
    del y
    tape.scope = "model.layers.*.mlp"
    y = d.norm(tape, x, second) if before else x
    y = d.feeds[kind](tape, y)
    if after:
        y = d.norm(tape, y, "post_feedforward_layernorm")
    return ar.add(x, y)


def grouped_attention(tape: Tape, x: Value, angles: Angles, mask: Mask, d: Decoder) -> Value:
    """Queries, keys and values of their own projections, rotated."""
    q = heads(projection(tape, x, "self_attn.q_proj", d.heads * d.head_size, d.qkv_bias), d.head_size)
    k = heads(projection(tape, x, "self_attn.k_proj", d.kv_heads * d.head_size, d.qkv_bias), d.head_size)
    v = heads(projection(tape, x, "self_attn.v_proj", d.kv_heads * d.head_size, d.qkv_bias), d.head_size)
    made = [q, k, v]
    del q, k, v
    return attended(tape, made, angles, mask, d)


def clipped_attention(tape: Tape, x: Value, angles: Angles, mask: Mask, d: Decoder, clip: bool) -> Value:
    """The same with the projections made first and limited in place."""
    q = projection(tape, x, "self_attn.q_proj", d.heads * d.head_size, d.qkv_bias)
    k = projection(tape, x, "self_attn.k_proj", d.kv_heads * d.head_size, d.qkv_bias)
    v = projection(tape, x, "self_attn.v_proj", d.kv_heads * d.head_size, d.qkv_bias)
    if clip:
        q, k, v = ar.clamped(q), ar.clamped(k), ar.clamped(v)
    made = [heads(q, d.head_size), heads(k, d.head_size), heads(v, d.head_size)]
    del q, k, v
    return attended(tape, made, angles, mask, d)


def head_normed_attention(
    tape: Tape, x: Value, angles: Angles, mask: Mask, d: Decoder, turned: bool = False
) -> Value:
    """Every head of queries and keys normalised; ``turned`` when heads already stand before positions."""
    made = []
    for name, count in (("q", d.heads), ("k", d.kv_heads)):
        y = projection(tape, x, f"self_attn.{name}_proj", count * d.head_size, d.qkv_bias)
        y = view(y, (*x.shape[:2], count, d.head_size))
        if turned:
            made.append(transpose(y, 1, 2))
        else:
            made.append(transpose(d.norm(tape, y, f"self_attn.{name}_norm"), 1, 2))
    v = heads(projection(tape, x, "self_attn.v_proj", d.kv_heads * d.head_size, d.qkv_bias), d.head_size)
    del y
    for place, name in enumerate("qk" if turned else ""):
        made[place] = d.norm(tape, made[place], f"self_attn.{name}_norm")
    made.append(v)
    del v
    return attended(tape, made, angles, mask, d)


def whole_normed_attention(tape: Tape, x: Value, angles: Angles, mask: Mask, d: Decoder) -> Value:
    """Queries and keys normalised over all heads together."""
    made = []
    for name, count in (("q", d.heads), ("k", d.kv_heads)):
        y = projection(tape, x, f"self_attn.{name}_proj", count * d.head_size, d.qkv_bias)
        made.append(d.norm(tape, y, f"self_attn.{name}_norm"))
    v = projection(tape, x, "self_attn.v_proj", d.kv_heads * d.head_size, d.qkv_bias)
    made = [heads(y, d.head_size) for y in (*made, v)]
    del v, y
    return attended(tape, made, angles, mask, d)


def attended(tape: Tape, made: list[Value], angles: Angles, mask: Mask, d: Decoder) -> Value:
    """Rotate, attend, project back; takes queries, keys and values out of ``made``."""
    q, k, v = made
    made.clear()
    cosine, sine = (unsqueeze(a, 1) for a in angles)
    dtype = q.dtype
    q, k = rotated(q, cosine, sine), rotated(k, cosine, sine)
    if d.cast_back:
        q, k = ar.to(q, dtype), ar.to(k, dtype)
    if d.head_size > 256:
        k, v = repeated(k, d.heads // d.kv_heads), repeated(v, d.heads // d.kv_heads)
    y = merged(attention(q, k, v, causal=True, window=mask.window))
    return projection(tape, y, "self_attn.o_proj", d.width, d.out_bias)
