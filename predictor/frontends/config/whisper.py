"""Whisper: an encoder of sound, a decoder of text. Source: ``modeling_whisper.py`` in transformers 5."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from predictor.frontends.config import activations
from predictor.frontends.config import arithmetic as ar
from predictor.frontends.config.fields import Fields, NoTemplateError
from predictor.frontends.config.layers import (
    activation,
    heads,
    merged,
    normed,
    positions,
    projection,
    shifted,
)
from predictor.frontends.config.lookup import arange, embedding, index
from predictor.frontends.config.model import TEXT_BATCH, Model, usual_tokens
from predictor.frontends.config.norms import cross_entropy
from predictor.frontends.config.plain import pattern
from predictor.frontends.config.products import attention, convolution, linear
from predictor.frontends.config.tape import Tape, Value
from predictor.frontends.config.views import dense, permute, view

Carried = tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Whisper:
    """Sizes of a Whisper."""

    vocabulary: int
    width: int
    mels: int
    frames: int
    tokens: int
    layers: tuple[int, int]
    heads: tuple[int, int]
    inner: tuple[int, int]
    drops: tuple[float, float]
    act: Callable[[Value], Value]
    tied: bool


def whisper(fields: Fields) -> Model:
    """Whisper: https://arxiv.org/abs/2212.04356."""
    named = fields.words("architectures") or []
    if named and named[0] != "WhisperForConditionalGeneration":
        raise NoTemplateError(f"architecture '{named[0]}'")
    fields.without("encoder_layerdrop", "decoder_layerdrop", "apply_spec_augment")
    counts = fields.size("encoder_attention_heads"), fields.size("decoder_attention_heads")
    width = fields.size("d_model")
    for count in counts:
        fields.divides(count, width, "d_model by attention heads")
    p = Whisper(
        vocabulary=fields.size("vocab_size"),
        width=width,
        mels=fields.size("num_mel_bins", default=80),
        frames=fields.size("max_source_positions", default=1500),
        tokens=fields.size("max_target_positions", default=448),
        layers=(fields.layers("encoder_layers"), fields.layers("decoder_layers")),
        heads=counts,
        inner=(fields.size("encoder_ffn_dim"), fields.size("decoder_ffn_dim")),
        drops=(fields.share("dropout"), fields.share("activation_dropout")),
        act=activation(fields, "activation_function", default="gelu"),
        tied=fields.flag("tie_word_embeddings", default=True),
    )
    return Model(partial(_whisper_step, p), TEXT_BATCH, usual_tokens(p.tokens), p.tokens)


def _whisper_step(p: Whisper, tape: Tape, b: int, s: int) -> Value:
    if tape.dtype == "float16":
        raise NoTemplateError("Whisper in float16 clamps its results")
    features, labels = tape.input((b, p.mels, 2 * p.frames), tape.dtype), tape.input((b, s), "int64")
    ids = shifted(tape, labels)
    found = _whisper_encoder(p, tape, features)
    tape.scope = "model.decoder"
    words = tape.parameter("model.decoder.embed_tokens.weight", (p.vocabulary, p.width))
    table = tape.parameter("model.decoder.embed_positions.weight", (p.tokens, p.width))
    x = embedding(words, ids)
    places = positions(tape, s)
    every = tape.new((b, s), "int64")
    tape.emit("aten.repeat", (places,), (every,))
    x = ar.dropout(ar.add(x, index(table, every)), p.drops[0])
    del places, every
    carried = [x, found]
    del x, found
    tape.prefix = "model.decoder.layers.*."
    tape.stack(pattern(p.layers[1]), lambda _, given: _whisper_decoder_block(p, tape, *given), carried)
    x = carried[0]
    carried.clear()
    tape.prefix = ""
    x = normed(tape, x, "model.decoder.layer_norm")
    tape.scope = "proj_out"
    logits = linear(x, words if p.tied else tape.parameter("proj_out.weight", (p.vocabulary, p.width)))
    tape.scope = ""
    return cross_entropy(view(logits, (b * s, p.vocabulary)), view(labels, (b * s,)))


def _whisper_encoder(p: Whisper, tape: Tape, features: Value) -> Value:
    tape.scope = "model.encoder"
    x = features
    for name, width, stride in (("conv1", p.mels, 1), ("conv2", p.width, 2)):
        weight = tape.parameter(f"model.encoder.{name}.weight", (p.width, width, 3))
        bias = tape.parameter(f"model.encoder.{name}.bias", (p.width,))
        x = activations.gelu(convolution(x, weight, bias, stride, 1))
    table = tape.parameter("model.encoder.embed_positions.weight", (p.frames, p.width), trained=False)
    x = ar.add(permute(x, (0, 2, 1)), embedding(table, arange(tape, p.frames)))
    carried = [ar.dropout(x, p.drops[0])]
    del x
    tape.prefix = "model.encoder.layers.*."
    kinds = ("block",) * p.layers[0]
    (x,) = tape.stack(kinds, lambda _, given: (_whisper_encoder_block(p, tape, given[0]),), carried)
    carried.clear()
    tape.prefix = ""
    return normed(tape, x, "model.encoder.layer_norm")


def _whisper_encoder_block(p: Whisper, tape: Tape, x: Value) -> Value:
    tape.scope = "model.encoder.layers.*.self_attn"
    y = normed(tape, x, "self_attn_layer_norm")
    y = _whisper_attention(p, tape, y, y, "self_attn", p.heads[0], causal=False)
    x = ar.add(x, ar.dropout(y, p.drops[0]))
    return _whisper_feed(p, tape, x, p.inner[0])


def _whisper_decoder_block(p: Whisper, tape: Tape, x: Value, found: Value) -> Carried:
    tape.scope = "model.decoder.layers.*.self_attn"
    y = normed(tape, x, "self_attn_layer_norm")
    y = _whisper_attention(p, tape, y, y, "self_attn", p.heads[1], causal=True)
    x = ar.add(x, ar.dropout(y, p.drops[0]))
    tape.scope = "model.decoder.layers.*.encoder_attn"
    y = normed(tape, x, "encoder_attn_layer_norm")
    y = _whisper_attention(p, tape, y, found, "encoder_attn", p.heads[1], causal=False)
    x = ar.add(x, ar.dropout(y, p.drops[0]))
    return _whisper_feed(p, tape, x, p.inner[1]), found


def _whisper_feed(p: Whisper, tape: Tape, x: Value, inner: int) -> Value:
    y = normed(tape, x, "final_layer_norm")
    y = ar.dropout(p.act(projection(tape, y, "fc1", inner, True)), p.drops[1])
    return ar.add(x, ar.dropout(projection(tape, y, "fc2", p.width, True), p.drops[0]))


def _whisper_attention(
    p: Whisper, tape: Tape, x: Value, source: Value, name: str, count: int, causal: bool
) -> Value:
    size = p.width // count
    q = ar.scale(projection(tape, x, f"{name}.q_proj", p.width, True), size**-0.5)
    q = dense(heads(q, size))
    k = dense(heads(projection(tape, source, f"{name}.k_proj", p.width), size))
    v = dense(heads(projection(tape, source, f"{name}.v_proj", p.width, True), size))
    y = merged(attention(q, k, v, causal=causal))
    return projection(tape, y, f"{name}.out_proj", p.width, True)
