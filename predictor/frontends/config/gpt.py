"""GPT-2 and GPT-NeoX. Source of every step: their ``modeling_*.py`` in transformers 5."""

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
from predictor.frontends.config.lookup import embedding
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
from predictor.frontends.config.products import addmm, attention, cast
from predictor.frontends.config.tape import Tape, Value
from predictor.frontends.config.views import split, unsqueeze, view


def gpt2(fields: Fields) -> Model:
    """GPT-2: learned positions, projections stored as [in, out]."""
    fields.without("add_cross_attention", "reorder_and_upcast_attn")
    inner = "n_inner" if fields.content.get("n_inner") is not None else None
    p = sizes(fields, "gelu_new", "n_embd", "n_head", "n_layer", inner)
    drops = tuple(fields.share(name, default=0.1) for name in ("embd_pdrop", "resid_pdrop"))
    longest = fields.size("n_positions", default=1024)
    tied = fields.flag("tie_word_embeddings", default=True)
    return text_model(partial(_gpt2_step, p, drops, longest, tied), longest, learned=True)


def _gpt2_step(p: Plain, drops: tuple[float, ...], longest: int, tied: bool, tape: Tape, text: Text) -> Value:
    tape.scope = "transformer"
    words = tape.parameter("transformer.wte.weight", (p.vocabulary, p.width))
    places = tape.parameter("transformer.wpe.weight", (longest, p.width))
    embeds = embedding(words, text.ids)
    place_embeds = embedding(places, positions(tape, text.length))
    carried = [ar.dropout(ar.add(embeds, place_embeds), drops[0])]
    x = stacked(tape, p.layers, "transformer.h.*.", carried, lambda y: _gpt2_block(tape, y, p, drops[1]))
    x = normed(tape, x, "transformer.ln_f", p.eps)
    del embeds, place_embeds
    head = words if tied else tape.parameter("lm_head.weight", (p.vocabulary, p.width))
    return head_loss(tape, x, head, text)


def turned_projection(tape: Tape, x: Value, name: str, width: int) -> Value:
    """x [..., k] times a weight stored as [k, width], plus its bias."""
    weight = tape.parameter(f"{name}.weight", (x.shape[-1], width))
    bias = tape.parameter(f"{name}.bias", (width,))
    weight, rows, bias = cast(weight), cast(ar.flat(x)), cast(bias)
    return view(addmm(bias, rows, weight), (*x.shape[:-1], width))


def _gpt2_block(tape: Tape, x: Value, p: Plain, drop: float) -> Value:
    tape.scope = "transformer.h.*.attn"
    y = normed(tape, x, "ln_1", p.eps)
    attended = _gpt2_attention(tape, y, p, drop)
    x = ar.add(attended, x)
    del y
    tape.scope = "transformer.h.*.mlp"
    y = normed(tape, x, "ln_2", p.eps)
    return ar.add(x, _gpt2_feed(tape, y, p, drop))


def _gpt2_attention(tape: Tape, x: Value, p: Plain, drop: float) -> Value:
    qkv = split(turned_projection(tape, x, "attn.c_attn", 3 * p.width), (p.width,) * 3, 2)
    q, k, v = qkv
    qkv.clear()
    k, v, q = heads(k, p.head_size), heads(v, p.head_size), heads(q, p.head_size)
    y = merged(attention(q, k, v, causal=True))
    y = turned_projection(tape, y, "attn.c_proj", p.width)
    return ar.dropout(y, drop)


def _gpt2_feed(tape: Tape, x: Value, p: Plain, drop: float) -> Value:
    y = turned_projection(tape, x, "mlp.c_fc", p.inner)
    y = p.act(y)
    y = turned_projection(tape, y, "mlp.c_proj", p.width)
    return ar.dropout(y, drop)


def gpt_neox(fields: Fields) -> Model:
    """GPT-NeoX: attention and feed-forward side by side, part of each head rotated."""
    plain_rope(fields)
    p = sizes(fields, "gelu", inner="intermediate_size")
    share = rotary_share(fields, 0.25)
    bias = fields.flag("attention_bias", default=True)
    parallel = fields.flag("use_parallel_residual", default=True)
    drop = fields.share("hidden_dropout")
    tied = fields.flag("tie_word_embeddings")
    step = partial(_neox_step, p, int(p.head_size * share), bias, parallel, drop, tied)
    return text_model(step, fields.optional_size("max_position_embeddings"))


def _neox_step(
    p: Plain, turning: int, bias: bool, parallel: bool, drop: float, tied: bool, tape: Tape, text: Text
) -> Value:
    tape.scope = "gpt_neox"
    words = tape.parameter("gpt_neox.embed_in.weight", (p.vocabulary, p.width))
    frequencies = rotary_frequencies(tape, turning)
    embeds = embedding(words, text.ids)
    places = positions(tape, text.length)
    x = ar.dropout(embeds, drop)
    angles = rotary(tape, places, frequencies, x.dtype)
    carried, kept = [x], keep(embeds, x)
    del x, embeds

    def block(x: Value) -> Value:
        tape.scope = "gpt_neox.layers.*.attention"
        y = _neox_attention(tape, normed(tape, x, "input_layernorm", p.eps), angles, p, bias)
        y = ar.dropout(y, drop)
        if not parallel:
            x = ar.add(y, x)
        tape.scope = "gpt_neox.layers.*.mlp"
        names = ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
        z = two_layers(tape, normed(tape, x, "post_attention_layernorm", p.eps), names, p)
        z = ar.dropout(z, drop)
        return ar.add(ar.add(z, y), x) if parallel else ar.add(z, x)

    x = stacked(tape, p.layers, "gpt_neox.layers.*.", carried, block)
    x = normed(tape, x, "gpt_neox.final_layer_norm", p.eps)
    del kept
    head = words if tied else tape.parameter("lm_head.weight", (p.vocabulary, p.width))
    return head_loss(tape, x, head, text)


def _neox_attention(tape: Tape, x: Value, angles: tuple[Value, ...], p: Plain, bias: bool) -> Value:
    qkv = heads(projection(tape, x, "attention.query_key_value", 3 * p.width, bias), 3 * p.head_size)
    q, k, v = split(qkv, (p.head_size,) * 3, -1)
    del qkv
    cosine, sine = (unsqueeze(a, 1) for a in angles)
    q, k = part_rotated(q, k, cosine, sine)
    y = merged(attention(q, k, v, causal=True))
    return projection(tape, y, "attention.dense", p.width, bias)
