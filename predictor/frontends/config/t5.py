"""T5. The first block of a stack makes the bias that all its blocks add; every decoder block reads the
encoder's result. Their gradients gather over the blocks, which is why the last block, the first to run
backward, is a kind of its own. Source of every step: ``modeling_t5.py`` in transformers 5.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from predictor.frontends.config import arithmetic as ar
from predictor.frontends.config.fields import Fields, NoTemplateError
from predictor.frontends.config.layers import activation, heads, merged, projection, shifted
from predictor.frontends.config.lookup import arange, compare, embedding, filled
from predictor.frontends.config.model import Model, Text, text_model
from predictor.frontends.config.norms import cross_entropy
from predictor.frontends.config.plain import pattern
from predictor.frontends.config.products import attention, linear
from predictor.frontends.config.tape import Tape, Value
from predictor.frontends.config.views import dense, permute, unsqueeze, view

Carried = tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class T5:
    """Sizes of a T5."""

    vocabulary: int
    width: int
    heads: int
    head_size: int
    inner: int
    layers: int
    decoder_layers: int
    buckets: int
    drop: float
    eps: float
    gated: bool
    act: Callable[[Value], Value]
    tied: bool
    scaled: bool


def t5(fields: Fields) -> Model:
    """T5: https://arxiv.org/abs/1910.10683."""
    named = fields.words("architectures") or []
    if named and named[0] not in {"T5ForConditionalGeneration", "T5WithLMHeadModel"}:
        raise NoTemplateError(f"architecture '{named[0]}'")
    kind = fields.text("feed_forward_proj", default="relu")
    gated = kind.startswith("gated-")
    name = "gelu_new" if kind == "gated-gelu" else kind.removeprefix("gated-")
    layers = fields.layers("num_layers")
    tied = fields.flag("tie_word_embeddings", default=True)
    p = T5(
        vocabulary=fields.size("vocab_size"),
        width=fields.size("d_model"),
        heads=fields.size("num_heads"),
        head_size=fields.size("d_kv"),
        inner=fields.size("d_ff"),
        layers=layers,
        decoder_layers=fields.size("num_decoder_layers", default=layers, most=10_000),
        buckets=fields.size("relative_attention_num_buckets", default=32),
        drop=fields.share("dropout_rate", default=0.1),
        eps=fields.number("layer_norm_epsilon", default=1e-6),
        gated=gated,
        act=activation(Fields({"act": name}, fields.path), "act", default="relu"),
        tied=tied,
        scaled=fields.flag("scale_decoder_outputs", default=tied),
    )
    return text_model(partial(_t5_step, p), fields.optional_size("n_positions"))


def _t5_step(p: T5, tape: Tape, text: Text) -> Value:
    if tape.dtype == "float16":
        raise NoTemplateError("T5 in float16 clamps its results")
    words = tape.parameter("shared.weight", (p.vocabulary, p.width))
    found = _t5_stack(tape, p, words, text.ids, None)
    ids = shifted(tape, text.labels)
    decoded = _t5_stack(tape, p, words, ids, found)
    x = ar.scale(decoded, p.width**-0.5) if p.scaled else decoded
    tape.scope = "lm_head"
    head = words if p.tied else tape.parameter("lm_head.weight", (p.vocabulary, p.width))
    logits = linear(x, head)
    tape.scope = ""
    rows = text.batch * text.length
    return cross_entropy(view(logits, (rows, p.vocabulary)), view(text.labels, (rows,)))


def _t5_stack(tape: Tape, p: T5, words: Value, ids: Value, found: Value | None) -> Value:
    """The encoder, or with the encoder's result ``found`` the decoder."""
    name, layers = ("encoder", p.layers) if found is None else ("decoder", p.decoder_layers)
    tape.scope = f"{name}.embed_tokens"
    embeds = embedding(words, ids)
    x = ar.dropout(embeds, p.drop)
    tape.prefix = f"{name}.block.0."
    carried = list(_t5_block(tape, p, name, (x,) if found is None else (x, found), first=True))
    del x
    tape.prefix = f"{name}.block.*."
    if layers > 1:
        tape.stack(pattern(layers - 1), lambda _, given: _t5_block(tape, p, name, given, False), carried)
    x = carried.pop(0)
    tape.prefix, tape.scope = "", name
    x = t5_norm(tape, x, f"{name}.final_layer_norm", p.eps)
    del embeds
    carried.clear()
    return ar.dropout(x, p.drop)


def t5_norm(tape: Tape, x: Value, name: str, eps: float) -> Value:
    """weight * x / rms(x), where only the mean square is taken in float32."""
    weight = tape.parameter(f"{name}.weight", (x.shape[-1],))
    square = ar.mean(ar.power(ar.to(x, "float32"), 2))
    x = ar.mul(x, ar.rsqrt(ar.shift(square, eps)))
    return ar.mul(weight, x if weight.dtype == "float32" else ar.to(x, weight.dtype))


def _t5_block(tape: Tape, p: T5, name: str, given: Carried, first: bool) -> Carried:
    """(x, bias) of an encoder block, (x, encoder's result, bias, cross bias) of a decoder block."""
    decoder = name == "decoder"
    x, found = given[0], given[1] if decoder else None
    bias = None if first else given[2 if decoder else 1]
    cross = None if first or not decoder else given[3]
    del given
    tape.scope = f"{tape.prefix}layer.0"
    y = t5_norm(tape, x, "layer.0.layer_norm", p.eps)
    z, bias = _t5_attention(tape, p, y, y, bias, "layer.0.SelfAttention", decoder, relative=first)
    x = ar.add(x, ar.dropout(z, p.drop))
    del y, z
    if found is not None:
        tape.scope = f"{tape.prefix}layer.1"
        y = t5_norm(tape, x, "layer.1.layer_norm", p.eps)
        z, cross = _t5_attention(tape, p, y, found, cross, "layer.1.EncDecAttention", False, False)
        x = ar.add(x, ar.dropout(z, p.drop))
        del y, z
    x = ar.add(x, ar.dropout(_t5_feed(tape, p, x, "layer.2" if decoder else "layer.1"), p.drop))
    if found is None or cross is None:
        return x, bias
    return x, found, bias, cross


def _t5_feed(tape: Tape, p: T5, x: Value, name: str) -> Value:
    tape.scope = f"{tape.prefix}{name}"
    y = t5_norm(tape, x, f"{name}.layer_norm", p.eps)
    return _t5_dense(tape, p, y, f"{name}.DenseReluDense")


def _t5_dense(tape: Tape, p: T5, x: Value, inside: str) -> Value:
    if p.gated:
        gate = p.act(projection(tape, x, f"{inside}.wi_0", p.inner))
        straight = projection(tape, x, f"{inside}.wi_1", p.inner)
        x = ar.mul(gate, straight)
    else:
        x = p.act(projection(tape, x, f"{inside}.wi", p.inner))
    x = ar.to(ar.dropout(x, p.drop), tape.dtype)
    return projection(tape, x, f"{inside}.wo", p.width)


def _t5_attention(
    tape: Tape, p: T5, x: Value, source: Value, bias: Value | None, name: str, causal: bool, relative: bool
) -> tuple[Value, Value]:
    """Attention of x [b, s, k] to source [b, t, k]; returns the bias [1, h, s, t] for the next block."""
    wide = p.heads * p.head_size
    q = heads(projection(tape, x, f"{name}.q", wide), p.head_size)
    k = heads(projection(tape, source, f"{name}.k", wide), p.head_size)
    v = heads(projection(tape, source, f"{name}.v", wide), p.head_size)
    s, t = q.shape[2], k.shape[2]
    if bias is None and relative:
        table = tape.parameter(f"{name}.relative_attention_bias.weight", (p.buckets, p.heads))
        values = embedding(table, distances(tape, s, t, p.buckets, both_ways=not causal))
        bias = unsqueeze(permute(values, (2, 0, 1)), 0)
        del values
    elif bias is None:
        bias = filled(tape, "zeros", (1, p.heads, s, t), q.dtype)
    mask = _only_before(tape, bias, s, t) if causal else bias
    y = merged(attention(q, k, v, dense(mask), causal=causal))
    del mask
    return projection(tape, y, f"{name}.o", p.width), bias


def _only_before(tape: Tape, bias: Value, s: int, t: int) -> Value:
    """The bias where a key comes before, the least number elsewhere."""
    rows, columns = view(arange(tape, s), (s, 1)), view(arange(tape, t), (1, t))
    seen = view(compare("ge", rows, columns), (1, 1, s, t))
    least = filled(tape, "scalar_tensor", (), bias.dtype)
    return ar.chosen(seen, bias, least)


def distances(tape: Tape, s: int, t: int, buckets: int, both_ways: bool) -> Value:
    """Buckets of relative positions [s, t], finer for neighbours than for far tokens."""
    rows = ar.shift(view(arange(tape, s), (s, 1)), 0)
    far = ar.pointwise("aten.sub", (view(arange(tape, t), (1, t)), rows))
    base = None
    if both_ways:
        after = ar.copied_to(compare("gt", far, 0), "int64")
        base = ar.shift(ar.scale(after, buckets // 2), 0)
        far = ar.pointwise("aten.abs", (far,))
    else:
        zeros = filled(tape, "zeros_like", far.shape, "int64", far)
        far = ar.pointwise("aten.neg", (ar.pointwise("aten.minimum", (far, zeros)),))
    exact = buckets // (4 if both_ways else 2)
    near = compare("lt", far, exact)
    coarse = ar.shift(_logarithmic(far, exact), exact)
    limit = filled(tape, "full_like", coarse.shape, "int64", coarse)
    coarse = ar.pointwise("aten.minimum", (coarse, limit))
    del limit
    bucket = ar.pointwise("aten.where", (near, far, coarse), "int64")
    return ar.added_in_place(base, bucket) if base is not None else ar.shift(bucket, 0)


def _logarithmic(far: Value, exact: int) -> Value:
    scaled = ar.pointwise("aten.log", (ar.ratio(ar.copied_to(far, "float32"), exact),))
    return ar.copied_to(ar.scale(ar.ratio(scaled, 1.0), exact), "int64")
