"""Falcon, with rotations or with a bias on the scores. Source: ``modeling_falcon.py`` in transformers 5."""

from functools import partial

from predictor.frontends.config import arithmetic as ar
from predictor.frontends.config.alibi import slopes
from predictor.frontends.config.fields import Fields
from predictor.frontends.config.layers import (
    Mask,
    merged,
    normed,
    numbers,
    plain_rope,
    positions,
    projection,
    rotary,
    rotated,
    window_mask,
)
from predictor.frontends.config.lookup import compare, embedding, filled, masked_fill, pick
from predictor.frontends.config.model import Model, Text, text_model
from predictor.frontends.config.plain import Plain, head_loss, rotary_frequencies, sizes, stacked
from predictor.frontends.config.products import attention
from predictor.frontends.config.tape import Hold, Tape, Value
from predictor.frontends.config.views import expand, part, reshape, select, transpose, unsqueeze, view

Angles = tuple[Value, ...]


def falcon(fields: Fields) -> Model:
    """Falcon: three layouts of heads, attention and feed-forward side by side or in turn."""
    plain_rope(fields)
    width = "hidden_size" if fields.content.get("n_embed") is None else "n_embed"
    inner = "ffn_hidden_size" if fields.content.get("ffn_hidden_size") is not None else None
    p = sizes(fields, "gelu", width, inner=inner)
    longest = fields.optional_size("max_position_embeddings")
    return text_model(partial(_falcon_step, p, fields), longest)


def _falcon_step(p: Plain, fields: Fields, tape: Tape, text: Text) -> Value:
    tape.scope = "transformer"
    words = tape.parameter("transformer.word_embeddings.weight", (p.vocabulary, p.width))
    x = _falcon_body(p, fields, tape, text, words)
    tied = fields.flag("tie_word_embeddings", default=True)
    head = words if tied else tape.parameter("lm_head.weight", (p.vocabulary, p.width))
    return head_loss(tape, x, head, text)


def _falcon_body(p: Plain, fields: Fields, tape: Tape, text: Text, words: Value) -> Value:
    alibi = fields.flag("alibi")
    frequencies = rotary_frequencies(tape, p.head_size)
    x = embedding(words, text.ids)
    bias = falcon_bias(tape, text, p.heads, x.dtype) if alibi else None
    places = positions(tape, text.length)
    mask = Mask(_biased(tape, bias, text, p), causal=False) if bias is not None else None
    mask = mask or window_mask(tape, text, None, always=True)
    angles = rotary(tape, places, frequencies, x.dtype)
    carried, kept = [x], Hold(x)
    del x, places
    block = partial(_falcon_block, tape, angles=() if alibi else angles, mask=mask, p=p, fields=fields)
    x = stacked(tape, p.layers, "transformer.h.*.", carried, block)
    x = normed(tape, x, "transformer.ln_f", p.eps)
    del kept
    return x


def falcon_bias(tape: Tape, text: Text, count: int, dtype: str) -> Value:
    """Slopes in bfloat16 times counted positions [b * h, 1, s]."""
    b, s = text.batch, text.length
    ones = filled(tape, "ones", (b, s), "int64")
    slope = slopes(tape, count)
    places = ar.pointwise("aten.cumsum", (ones,), "int64")
    places = ar.pointwise("aten.sub", (places,), attrs={"other": 1})
    places = view(ar.pointwise("aten.mul", (places, ones)), (b, 1, s))
    slope = ar.copied_to(view(slope, (count, 1)), "bfloat16")
    bias = ar.pointwise("aten.mul", (slope, places), "bfloat16")
    return ar.to(view(bias, (b * count, 1, s)), dtype)


def _biased(tape: Tape, bias: Value, text: Text, p: Plain) -> Value:
    """The bias where a key is seen, the least number elsewhere [b, h, s, s]."""
    s = text.length
    seen = expand(filled(tape, "empty", (1, 1, 1, 1), "bool"), (text.batch, 1, s, s))
    mask = numbers(seen, bias.dtype, "full")
    bias = ar.ratio(view(bias, (text.batch, p.heads, 1, text.length)), p.head_size**0.5)
    return masked_fill(bias, compare("lt", mask, -1))


def matrix(tape: Tape, x: Value, name: str, width: int, bias: bool) -> Value:
    """Falcon's linear layer: the bias is added by an operator of its own."""
    y = projection(tape, x, name, width)
    return ar.add(y, tape.parameter(f"{name}.bias", (width,))) if bias else y


def _falcon_block(tape: Tape, x: Value, angles: Angles, mask: Mask, p: Plain, fields: Fields) -> Value:
    newer, beside = fields.flag("new_decoder_architecture"), fields.flag("parallel_attn", default=True)
    norms = fields.size("num_ln_in_parallel_attn", default=2 if newer else 1)
    bias = fields.flag("bias")
    tape.scope = "transformer.h.*.self_attention"
    two = newer and norms == 2
    first = normed(tape, x, "ln_attn" if two else "input_layernorm", p.eps)
    z = normed(tape, x, "ln_mlp", p.eps) if two else first
    y = _falcon_attention(tape, first, angles, mask, p, fields)
    tape.scope = "transformer.h.*.mlp"
    if not newer and not beside:
        x = ar.add(x, ar.dropout(y, fields.share("attention_dropout")))
        z = normed(tape, x, "post_attention_layernorm", p.eps)
    fed = p.act(matrix(tape, z, "mlp.dense_h_to_4h", p.inner, bias))
    fed = matrix(tape, fed, "mlp.dense_4h_to_h", p.width, bias)
    if newer or beside:
        fed = ar.added_in_place(fed, y)
    return ar.add(x, ar.dropout(fed, fields.share("hidden_dropout")))


def _falcon_attention(tape: Tape, x: Value, angles: Angles, mask: Mask, p: Plain, fields: Fields) -> Value:
    b, s, _ = x.shape
    bias = fields.flag("bias")
    if fields.flag("new_decoder_architecture"):
        q, k, v = _grouped(tape, x, p, fields, bias)
    elif fields.flag("multi_query", default=True):
        q, k, v = _one_key(tape, x, p, bias)
    else:
        qkv = matrix(tape, x, "self_attention.query_key_value", 3 * p.width, bias)
        qkv = view(qkv, (b, s, p.heads, 3, p.head_size))
        q, k, v = (select(qkv, 3) for _ in range(3))
        del qkv
    q, k, v = transpose(q, 1, 2), transpose(k, 1, 2), transpose(v, 1, 2)
    if angles:
        cosine, sine = (unsqueeze(a, 1) for a in angles)
        q, k = rotated(q, cosine, sine), rotated(k, cosine, sine)
    y = merged(attention(q, k, v, mask.bias, causal=mask.causal))
    return matrix(tape, y, "self_attention.dense", p.width, bias)


def _one_key(tape: Tape, x: Value, p: Plain, bias: bool) -> tuple[Value, Value, Value]:
    """All query heads share one key and one value head, picked by index."""
    b, s, _ = x.shape
    qkv = matrix(tape, x, "self_attention.query_key_value", p.width + 2 * p.head_size, bias)
    qkv = view(qkv, (b, s, p.heads + 2, p.head_size))
    return part(qkv, 2, 0, p.heads), pick(qkv, 2), pick(qkv, 2)


def _grouped(tape: Tape, x: Value, p: Plain, fields: Fields, bias: bool) -> tuple[Value, Value, Value]:
    """Groups of query heads, each with a key and a value head copied for all of them."""
    b, s, _ = x.shape
    kv = fields.size("num_kv_heads", default=p.heads)
    group = fields.divides(kv, p.heads, "num_attention_heads by num_kv_heads")
    width = (2 * kv + p.heads) * p.head_size
    qkv = view(
        matrix(tape, x, "self_attention.query_key_value", width, bias), (b, s, kv, group + 2, p.head_size)
    )
    q, k, v = part(qkv, 3, 0, group), pick(qkv, 3), pick(qkv, 3)
    del qkv
    k, v = expand(k, q.shape), expand(v, q.shape)
    q, k, v = (reshape(y, (b, s, p.heads, p.head_size)) for y in (q, k, v))
    return q, k, v
