"""BLOOM and MPT: positions are a bias on scores that are written out.

Source of every step: their ``modeling_*.py`` in transformers 5.
"""

from functools import partial
from math import ceil, floor, log2

from predictor.frontends.config import activations
from predictor.frontends.config import arithmetic as ar
from predictor.frontends.config.fields import Fields, NoTemplateError
from predictor.frontends.config.layers import heads, merged, normed, projection, written_mask
from predictor.frontends.config.lookup import arange, embedding, filled, masked_fill
from predictor.frontends.config.model import Model, Text, text_model
from predictor.frontends.config.norms import softmax
from predictor.frontends.config.plain import Plain, head_loss, lingering, sizes
from predictor.frontends.config.products import baddbmm, bmm, matmul
from predictor.frontends.config.tape import Tape, Value
from predictor.frontends.config.views import (
    alias,
    dense,
    joined,
    part,
    reshape,
    select,
    split,
    transpose,
    view,
)


def slopes(tape: Tape, count: int) -> Value:
    """A slope per head [h]: powers of a base, and those in between where h is no power of two."""
    power = 2 ** floor(log2(count))
    parts = [_powers(tape, power)]
    if power != count:
        parts.append(_powers(tape, min(power, count - power)))
    return joined(parts, 0) if len(parts) > 1 else parts[0]


def _powers(tape: Tape, count: int) -> Value:
    base = filled(tape, "full", (), "float32")
    exponents = filled(tape, "arange", (count,), "int32")
    return ar.pointwise("aten.pow", (base, exponents), "float32")


def bloom(fields: Fields) -> Model:
    """BLOOM: attention written out around a biased product."""
    fields.without("slow_but_exact", "apply_residual_connection_post_layernorm")
    width = "hidden_size" if fields.content.get("n_embed") is None else "n_embed"
    heads, layers = "n_head", "n_layer"
    if fields.content.get(heads) is None:
        heads, layers = "num_attention_heads", "num_hidden_layers"
    p = sizes(fields, "gelu", width, heads, layers)
    drops = fields.share("attention_dropout"), fields.share("hidden_dropout")
    tied = fields.flag("tie_word_embeddings", default=True)
    return text_model(partial(_bloom_step, p, drops, tied), None)


def _bloom_step(p: Plain, drops: tuple[float, float], tied: bool, tape: Tape, text: Text) -> Value:
    tape.scope = "transformer"
    words = tape.parameter("transformer.word_embeddings.weight", (p.vocabulary, p.width))
    x = _bloom_body(p, drops, tape, text, words)
    head = words if tied else tape.parameter("lm_head.weight", (p.vocabulary, p.width))
    return head_loss(tape, x, head, text)


def _bloom_body(p: Plain, drops: tuple[float, float], tape: Tape, text: Text, words: Value) -> Value:
    embeds = embedding(words, text.ids)
    x = normed(tape, embeds, "transformer.word_embeddings_layernorm", p.eps)
    bias = bloom_bias(tape, text, p.heads, x.dtype)
    mask = written_mask(tape, text, None, x.dtype)
    carried = [x]
    del x

    def block(x: Value, before: Value | None = None) -> tuple[Value, Value]:
        tape.scope = "transformer.h.*.self_attention"
        y = normed(tape, x, "input_layernorm", p.eps)
        x, shares = _bloom_attention(tape, y, x, bias, mask, p, drops)
        tape.scope = "transformer.h.*.mlp"
        y = normed(tape, x, "post_attention_layernorm", p.eps)
        z = activations.bloom_gelu(projection(tape, y, "mlp.dense_h_to_4h", p.inner, True))
        out = ar.dropout(projection(tape, z, "mlp.dense_4h_to_h", p.width, True), drops[1])
        return ar.add(x, out), shares

    x = lingering(tape, p.layers, "transformer.h.*.", carried, block)
    return normed(tape, x, "transformer.ln_f", p.eps)


def bloom_bias(tape: Tape, text: Text, count: int, dtype: str) -> Value:
    """Slopes times positions [b * h, 1, s]."""
    b, s = text.batch, text.length
    slope = slopes(tape, count)
    places = arange(tape, s)
    bias = ar.pointwise("aten.mul", (alias(slope, (count, 1, 1), (1, 1, 1)), places), "float32")
    every = tape.new((b * count, 1, s), "float32")
    tape.emit("aten.repeat", (bias,), (every,))
    return ar.to(every, dtype)


def _bloom_attention(
    tape: Tape, x: Value, residual: Value, bias: Value, mask: Value, p: Plain, drops: tuple[float, float]
) -> tuple[Value, Value]:
    b, s, _ = x.shape
    qkv = projection(tape, x, "self_attention.query_key_value", 3 * p.width, True)
    heads_of = view(qkv, (b, s, p.heads, 3, p.head_size))
    q, k, v = (transpose(select(heads_of, 3), 1, 2) for _ in range(3))
    flat = (b * p.heads, s, p.head_size)
    q, k, v = reshape(q, flat), transpose(reshape(k, flat), 1, 2), reshape(v, flat)
    raw = baddbmm(bias, q, k, p.head_size**-0.5)
    scores = view(raw, (b, p.heads, s, s))
    scores = ar.add(scores, mask)
    shares = ar.dropout(ar.to(softmax(scores, wide=True), q.dtype), drops[0])
    y = merged(view(bmm(view(shares, (b * p.heads, s, s)), v), (b, p.heads, s, p.head_size)))
    out = projection(tape, y, "self_attention.dense", p.width, True)
    return ar.add(residual, ar.dropout(out, drops[1])), shares


def mpt(fields: Fields) -> Model:
    """MPT: norms without bias, attention written out."""
    attention_fields = fields.section("attn_config")
    attention_fields.without("clip_qkv", "qk_ln")
    p = sizes(fields, "gelu", "d_model", "n_heads", "n_layers")
    if fields.number("expansion_ratio", default=4) != 4:
        raise NoTemplateError("expansion_ratio other than 4")
    longest = fields.size("max_seq_len", default=2048)
    drop = attention_fields.share("attn_pdrop")
    tied = fields.flag("tie_word_embeddings", default=True)
    return text_model(partial(_mpt_step, p, longest, drop, tied), None)


def _mpt_step(p: Plain, longest: int, drop: float, tied: bool, tape: Tape, text: Text) -> Value:
    tape.scope = "transformer"
    words = tape.parameter("transformer.wte.weight", (p.vocabulary, p.width))
    x = _mpt_body(p, longest, drop, tape, text, words)
    head = words if tied else tape.parameter("lm_head.weight", (p.vocabulary, p.width))
    return head_loss(tape, x, head, text)


def _mpt_body(p: Plain, longest: int, drop: float, tape: Tape, text: Text, words: Value) -> Value:
    embeds = embedding(words, text.ids)
    bias = mpt_bias(tape, p.heads, longest)
    mask = written_mask(tape, text, None, embeds.dtype)
    mask = ar.copied_to(mask, "bool")
    carried = [embeds]

    def block(x: Value, before: Value | None = None) -> tuple[Value, Value]:
        tape.scope = "transformer.blocks.*.attn"
        y = normed(tape, x, "norm_1", p.eps, bias=False)
        z, shares = _mpt_attention(tape, y, bias, mask, p, drop)
        x = ar.add(ar.dropout(z, drop), x)
        tape.scope = "transformer.blocks.*.ffn"
        y = normed(tape, x, "norm_2", p.eps, bias=False)
        return _mpt_feed(tape, y, x, p, drop), shares

    x = lingering(tape, p.layers, "transformer.blocks.*.", carried, block)
    return normed(tape, x, "transformer.norm_f", p.eps, bias=False)


def mpt_bias(tape: Tape, count: int, longest: int) -> Value:
    """Slopes times distances [h, 1, longest], always of the longest sequence."""
    places = filled(tape, "arange", (longest,), "int32")
    power = 2 ** ceil(log2(count))
    base = ar.copied_to(filled(tape, "arange", (power,), "int64"), "float32")
    base = ar.pointwise("aten.pow", (ar.scale(base, 1.0),))
    slope = ar.scale(ar.pointwise("aten.reciprocal", (base,)), 1.0)
    if power != count:
        half = alias(slope, (1, power // 2, 1, 1), (power, 2, 1, 1))
        slope = joined([half, half], 1)
    slope = alias(slope, (1, count, 1, 1), (power, 1, 1, 1))
    bias = ar.pointwise("aten.mul", (view(places, (1, 1, 1, longest)), slope), "float32")
    return alias(bias, (count, 1, longest), (longest, longest, 1))


def _mpt_feed(tape: Tape, x: Value, residual: Value, p: Plain, drop: float) -> Value:
    y = activations.gelu(projection(tape, x, "ffn.up_proj", p.inner))
    z = ar.dropout(projection(tape, y, "ffn.down_proj", p.width), drop)
    return ar.add(z, residual)


def _mpt_attention(
    tape: Tape, x: Value, bias: Value, mask: Value, p: Plain, drop: float
) -> tuple[Value, Value]:
    """The attended values, and the shares, which the block holds on to until it ends."""
    b, s, _ = x.shape
    qkv = projection(tape, x, "attn.Wqkv", 3 * p.width)
    q, k, v = (heads(y, p.head_size) for y in split(qkv, (p.width,) * 3, 2))
    scores = ar.scale(matmul(q, transpose(k, 2, 3)), p.head_size**-0.5)
    first = max(0, bias.shape[2] - s)
    scores = ar.add(scores, part(bias, 2, first, bias.shape[2]))
    scores = masked_fill(scores, mask)
    shares = ar.dropout(ar.to(softmax(ar.to(scores, "float32")), v.dtype), drop)
    y = view(dense(transpose(matmul(shares, v), 1, 2)), (b, s, p.width))
    return projection(tape, y, "attn.out_proj", p.width), shares
