"""OPT and Phi. Source of every step: their ``modeling_*.py`` in transformers 5."""

from functools import partial

from predictor.frontends.config import arithmetic as ar
from predictor.frontends.config.fields import Fields
from predictor.frontends.config.layers import (
    heads,
    merged,
    normed,
    part_rotated,
    plain_rope,
    positions,
    projection,
    rotary,
    rotary_share,
)
from predictor.frontends.config.lookup import embedding, filled
from predictor.frontends.config.model import Model, Text, text_model
from predictor.frontends.config.plain import (
    Plain,
    head_loss,
    keep,
    rotary_frequencies,
    sizes,
    stacked,
    two_layers,
)
from predictor.frontends.config.products import attention
from predictor.frontends.config.tape import Tape, Value
from predictor.frontends.config.views import reshape, unsqueeze, view


def opt(fields: Fields) -> Model:
    """OPT: learned positions counted from a mask of ones, queries scaled before attention."""
    fields.without("layerdrop")
    p = sizes(fields, "relu", inner="ffn_dim")
    longest = fields.size("max_position_embeddings", default=2048)
    return text_model(partial(_opt_step, p, fields), longest, learned=True)


def _opt_step(p: Plain, fields: Fields, tape: Tape, text: Text) -> Value:
    embedded = fields.size("word_embed_proj_dim", default=p.width)
    longest = fields.size("max_position_embeddings", default=2048)
    before = fields.flag("do_layer_norm_before", default=True)
    affine = fields.flag("layer_norm_elementwise_affine", default=True)
    drop = fields.share("dropout", default=0.1)
    bias = fields.flag("enable_bias", default=True)
    b, s = text.batch, text.length
    tape.scope = "model.decoder"
    words = tape.parameter("model.decoder.embed_tokens.weight", (p.vocabulary, embedded))
    table = tape.parameter("model.decoder.embed_positions.weight", (longest + 2, p.width))
    embeds = embedding(words, text.ids)
    ones = filled(tape, "ones", (b, s), "float32")
    count = ar.pointwise("aten.cumsum", (ones,))
    count = ar.pointwise("aten.mul", (count, ones))
    places = ar.copied_to(ar.pointwise("aten.sub", (count,), attrs={"other": 1}), "int64")
    places = embedding(table, ar.shift(places, 2))
    if embedded != p.width:
        embeds = projection(tape, embeds, "model.decoder.project_in", p.width)
    carried = [ar.add(embeds, places)]
    norm = partial(opt_norm, tape, affine=affine)

    def block(x: Value) -> Value:
        tape.scope = "model.decoder.layers.*.self_attn"
        y = norm(x, "self_attn_layer_norm") if before else x
        y = _opt_attention(tape, y, p, bias)
        x = ar.add(x, ar.dropout(y, drop))
        del y
        x = x if before else norm(x, "self_attn_layer_norm")
        tape.scope = "model.decoder.layers.*"
        x = reshape(x, (b * s, p.width))
        y = norm(x, "final_layer_norm") if before else x
        y = projection(tape, y, "fc1", p.inner, bias)
        y = p.act(y)
        y = ar.dropout(projection(tape, y, "fc2", p.width, bias), drop)
        x = view(ar.add(x, y), (b, s, p.width))
        return x if before else norm(x, "final_layer_norm")

    x = stacked(tape, p.layers, "model.decoder.layers.*.", carried, block)
    if before and not fields.flag("_remove_final_layer_norm"):
        x = norm(x, "model.decoder.final_layer_norm")
    del embeds, places, ones, count
    if embedded != p.width:
        x = projection(tape, x, "model.decoder.project_out", embedded)
    tied = fields.flag("tie_word_embeddings", default=True)
    return head_loss(
        tape, x, words if tied else tape.parameter("lm_head.weight", (p.vocabulary, embedded)), text
    )


def opt_norm(tape: Tape, x: Value, name: str, affine: bool) -> Value:
    """A layer norm, with weights or without."""
    return normed(tape, x, name) if affine else normed(tape, x, name, weights=False)


def _opt_attention(tape: Tape, x: Value, p: Plain, bias: bool) -> Value:
    q = ar.scale(projection(tape, x, "self_attn.q_proj", p.width, bias), p.head_size**-0.5)
    q = heads(q, p.head_size)
    k = projection(tape, x, "self_attn.k_proj", p.width, bias)
    v = projection(tape, x, "self_attn.v_proj", p.width, bias)
    k, v = heads(k, p.head_size), heads(v, p.head_size)
    y = merged(attention(q, k, v, causal=True))
    return projection(tape, y, "self_attn.out_proj", p.width, bias)


def phi(fields: Fields) -> Model:
    """Phi: one norm for attention and feed-forward side by side, part of each head rotated."""
    plain_rope(fields)
    step = partial(_phi_step, sizes(fields, "gelu_new", inner="intermediate_size"), fields)
    return text_model(step, fields.optional_size("max_position_embeddings"))


def _phi_step(p: Plain, fields: Fields, tape: Tape, text: Text) -> Value:
    drop = fields.share("resid_pdrop")
    tape.scope = "model"
    words = tape.parameter("model.embed_tokens.weight", (p.vocabulary, p.width))
    frequencies = rotary_frequencies(tape, int(p.head_size * rotary_share(fields, 0.5)))
    embeds = embedding(words, text.ids)
    places = positions(tape, text.length)
    x = ar.dropout(embeds, fields.share("embd_pdrop"))
    angles = rotary(tape, places, frequencies, x.dtype)
    carried, kept = [x], keep(embeds, x)
    del x, embeds

    def block(x: Value) -> Value:
        tape.scope = "model.layers.*.self_attn"
        z = normed(tape, x, "input_layernorm", p.eps)
        y = ar.dropout(_phi_attention(tape, z, angles, p, fields), drop)
        tape.scope = "model.layers.*.mlp"
        fed = ar.dropout(two_layers(tape, z, ("mlp.fc1", "mlp.fc2"), p), drop)
        return ar.add(ar.add(y, fed), x)

    x = stacked(tape, p.layers, "model.layers.*.", carried, block)
    x = normed(tape, x, "model.final_layernorm", p.eps)
    del kept
    weight = tape.parameter("lm_head.weight", (p.vocabulary, p.width))
    return head_loss(tape, x, weight, text, tape.parameter("lm_head.bias", (p.vocabulary,)))


def _phi_attention(tape: Tape, x: Value, angles: tuple[Value, ...], p: Plain, fields: Fields) -> Value:
    kv = fields.size("num_key_value_heads", default=p.heads)
    fields.divides(kv, p.heads, "num_attention_heads by num_key_value_heads")
    q = heads(projection(tape, x, "self_attn.q_proj", p.width, True), p.head_size)
    k = heads(projection(tape, x, "self_attn.k_proj", kv * p.head_size, True), p.head_size)
    v = heads(projection(tape, x, "self_attn.v_proj", kv * p.head_size, True), p.head_size)
    if fields.flag("qk_layernorm"):
        q = normed(tape, q, "self_attn.q_layernorm", p.eps)
        k = normed(tape, k, "self_attn.k_layernorm", p.eps)
    cosine, sine = (unsqueeze(a, 1) for a in angles)
    q, k = part_rotated(q, k, cosine, sine)
    y = merged(attention(q, k, v, causal=True))
    return projection(tape, y, "self_attn.dense", p.width, True)
