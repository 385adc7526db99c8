"""The families of the llama line: what each changes about the common decoder."""

from dataclasses import replace
from functools import partial
from typing import Any

from predictor.frontends.config import activations
from predictor.frontends.config import arithmetic as ar
from predictor.frontends.config.decoder import (
    Angles,
    Decoder,
    Norm,
    causal,
    clipped_attention,
    common,
    gated,
    head_normed_attention,
    whole_normed_attention,
)
from predictor.frontends.config.fields import Fields
from predictor.frontends.config.layers import (
    Mask,
    activation,
    heads,
    merged,
    part_rotated,
    projection,
    repeated,
    rotary_share,
    rotated,
)
from predictor.frontends.config.model import Model
from predictor.frontends.config.norms import layer_norm, rms_scaled, softmax
from predictor.frontends.config.products import attention, matmul
from predictor.frontends.config.tape import Tape, Value
from predictor.frontends.config.views import dense, part, split, transpose, unsqueeze, view


def llama(fields: Fields) -> Model:
    """Llama: https://arxiv.org/abs/2302.13971."""
    bias = fields.flag("attention_bias")
    feed = gated(fields, fields.size("intermediate_size"), fields.flag("mlp_bias"))
    return causal(common(fields, feeds={"full": feed}, qkv_bias=bias, out_bias=bias))


def mistral(fields: Fields) -> Model:
    """Mistral: llama with a sliding window."""
    feed = gated(fields, fields.size("intermediate_size"))
    window = fields.size_or_none("sliding_window", 4096)
    return causal(common(fields, feeds={"full": feed}, windows={"full": window}))


def layer_types(fields: Fields, default: list[str]) -> list[str]:
    """Kind of every layer: the configured list, or the family's rule."""
    given = fields.words("layer_types")
    if given is None:
        return default
    count = fields.layers("num_hidden_layers")
    if len(given) != count or set(given) - {"full_attention", "sliding_attention"}:
        raise fields.refuse("layer_types", f"{count} of full_attention and sliding_attention")
    return given


def windowed(fields: Fields, default: list[str] | None = None) -> dict[str, Any]:
    """Layers with and without a sliding window, as qwen names them."""
    count = fields.layers("num_hidden_layers")
    window = fields.size_or_none("sliding_window", 4096) if fields.flag("use_sliding_window") else None
    first = fields.size("max_window_layers", default=28, least=0)
    if default is None:
        default = ["sliding_attention" if window and i >= first else "full_attention" for i in range(count)]
    kinds = layer_types(fields, default)
    feed = gated(fields, fields.size("intermediate_size"))
    windows: dict[str, int | None] = {"full_attention": None}
    if "sliding_attention" in kinds:
        windows["sliding_attention"] = window
    return {"kinds": kinds, "windows": windows, "feeds": dict.fromkeys(windows, feed)}


def qwen2(fields: Fields) -> Model:
    """Qwen2: biases on queries, keys and values."""
    return causal(common(fields, qkv_bias=True, **windowed(fields)))


def qwen3(fields: Fields) -> Model:
    """Qwen3: every head of queries and keys normalised."""
    bias = fields.flag("attention_bias")
    size = fields.size("head_dim", default=128)
    changes = {"attend": head_normed_attention, "qkv_bias": bias, "out_bias": bias}
    return causal(common(fields, **changes, head_size=size, rotary_size=size, **windowed(fields)))


def gemma_norm(eps: float) -> Norm:
    """x / rms(x) * (1 + weight) in float32."""

    def norm(tape: Tape, x: Value, name: str) -> Value:
        weight = tape.parameter(f"{name}.weight", (x.shape[-1],))
        wide = rms_scaled(x, eps)
        return ar.to(ar.mul(wide, ar.shift(ar.to(weight, "float32"), 1.0)), x.dtype)

    return norm


def _gemma(fields: Fields, **changes: Any) -> Decoder:
    bias = fields.flag("attention_bias")
    fields.without("use_bidirectional_attention")
    size = fields.size("head_dim", default=256)
    norm = gemma_norm(fields.number("rms_norm_eps", default=1e-6))
    tied = fields.flag("tie_word_embeddings", default=True)
    base = {"qkv_bias": bias, "out_bias": bias, "head_size": size, "rotary_size": size, "scaled": True}
    return common(fields, **(base | {"norm": norm, "tied": tied} | changes))


def _gelu_gated(fields: Fields) -> Fields:
    """Gemma's configurations leave the activation out, or name GELU and mean its tanh form."""
    given = {"hidden_act": "gelu_pytorch_tanh"} | dict(fields.content)
    return Fields(given, fields.path)


def gemma(fields: Fields) -> Model:
    """Gemma: scaled embeddings, norms with an offset."""
    feed = gated(_gelu_gated(fields), fields.size("intermediate_size"))
    return causal(_gemma(fields, feeds={"full": feed}))


def _alternating(fields: Fields, period: int) -> dict[str, Any]:
    count = fields.layers("num_hidden_layers")
    default = ["sliding_attention" if (i + 1) % period else "full_attention" for i in range(count)]
    kinds = layer_types(fields, default)
    feed = gated(_gelu_gated(fields), fields.size("intermediate_size"))
    windows = {"full_attention": None, "sliding_attention": fields.size("sliding_window", default=4096)}
    return {"kinds": kinds, "windows": windows, "feeds": dict.fromkeys(windows, feed), "residual": "both"}


def gemma2(fields: Fields) -> Model:
    """Gemma 2: scores and logits capped by tanh, so attention is written out; every second layer slides."""
    cap = fields.number_or_none("final_logit_softcapping", 30.0)
    scores = fields.number_or_none("attn_logit_softcapping", 50.0)
    attend = partial(_capped_attention, cap=scores)
    return causal(_gemma(fields, attend=attend, cap=cap, eager=True, **_alternating(fields, 2)))


def _capped_attention(tape: Tape, x: Value, angles: Angles, mask: Mask, d: Decoder, cap: float) -> Value:
    """Attention written out, its scores capped before the mask is added."""
    size, times = d.head_size, d.heads // d.kv_heads
    q = heads(projection(tape, x, "self_attn.q_proj", d.heads * size, d.qkv_bias), size)
    k = heads(projection(tape, x, "self_attn.k_proj", d.kv_heads * size, d.qkv_bias), size)
    v = heads(projection(tape, x, "self_attn.v_proj", d.kv_heads * size, d.qkv_bias), size)
    cosine, sine = (unsqueeze(a, 1) for a in angles)
    q, k = rotated(q, cosine, sine), rotated(k, cosine, sine)
    y = _written_out(q, k, v, mask, d, cap, times)
    return projection(tape, view(y, (*x.shape[:2], d.heads * size)), "self_attn.o_proj", d.width, d.out_bias)


def _written_out(q: Value, k: Value, v: Value, mask: Mask, d: Decoder, cap: float, times: int) -> Value:
    """softmax(cap * tanh(q k^T / cap) + mask) v, operator by operator; the scale is a number."""
    k, v = repeated(k, times), repeated(v, times)
    scores = ar.scale(matmul(q, transpose(k, 2, 3)), 1.0)
    if cap:
        scores = ar.ratio(scores, cap)
        scores = activations.tanh(scores)
        scores = ar.scale(scores, cap)
    if mask.bias is not None:
        scores = ar.add(scores, mask.bias)
    shares = ar.to(softmax(scores, wide=True), q.dtype)
    del scores
    shares = ar.dropout(shares, d.dropout)
    return dense(transpose(matmul(shares, v), 1, 2))


def gemma3(fields: Fields) -> Model:
    """Gemma 3 (text): normalised heads, five sliding layers for each full one, frequencies for each kind."""
    fields.without("attn_logit_softcapping")
    cap = fields.number("final_logit_softcapping")
    attend = partial(head_normed_attention, turned=True)
    parts = _alternating(fields, fields.size("sliding_window_pattern", default=6))
    sets = tuple(dict.fromkeys(parts["kinds"]))
    return causal(_gemma(fields, attend=attend, cap=cap, rotary_sets=sets, **parts))


def phi3(fields: Fields) -> Model:
    """Phi-3: queries, keys and values of one projection, gate and up of another."""
    inner = fields.size("intermediate_size")
    act = activation(fields, "hidden_act", default="silu")
    drop = fields.share("resid_pdrop")
    width = fields.size("hidden_size")

    def feed(tape: Tape, x: Value) -> Value:
        gate, up = split(projection(tape, x, "mlp.gate_up_proj", 2 * inner), (inner, inner), -1)
        up = ar.mul(up, act(gate))
        del gate
        return ar.dropout(projection(tape, up, "mlp.down_proj", width), drop)

    window = fields.optional_size("sliding_window")
    d = common(fields, feeds={"full": feed}, windows={"full": window}, attend=partial(_fused, drop=drop))
    share = rotary_share(fields, 1.0)
    return causal(d if share == 1.0 else _partly(d, share))


def _partly(d: Decoder, share: float) -> Decoder:
    return replace(d, rotary_size=int(d.head_size * share))


def _fused(tape: Tape, x: Value, angles: Angles, mask: Mask, d: Decoder, drop: float) -> Value:
    size, b, s = d.head_size, *x.shape[:2]
    widths = [n * size for n in (d.heads, d.kv_heads, d.kv_heads)]
    qkv = projection(tape, x, "self_attn.qkv_proj", sum(widths))
    ends = [sum(widths[: i + 1]) for i in range(3)]
    cuts = [part(qkv, -1, end - width, end) for end, width in zip(ends, widths, strict=True)]
    q, k, v = (transpose(view(c, (b, s, c.shape[-1] // size, size)), 1, 2) for c in cuts)
    cosine, sine = (unsqueeze(a, 1) for a in angles)
    q, k = part_rotated(q, k, cosine, sine, together=False)
    y = merged(attention(q, k, v, causal=True, window=mask.window))
    return ar.dropout(projection(tape, y, "self_attn.o_proj", d.width), drop)


def olmo(fields: Fields) -> Model:
    """OLMo: layer norms without weights; queries, keys and values clipped."""

    def norm(tape: Tape, x: Value, name: str) -> Value:
        return ar.to(layer_norm(ar.to(x, "float32"), None, None), x.dtype)

    bias = fields.flag("attention_bias")
    attend = partial(clipped_attention, clip=fields.number("clip_qkv") > 0)
    feed = gated(fields, fields.size("intermediate_size"))
    changes = {"qkv_bias": bias, "out_bias": bias, "norm": norm, "attend": attend}
    return causal(common(fields, feeds={"full": feed}, cast_back=True, **changes))


def olmo2(fields: Fields) -> Model:
    """OLMo 2: norms after each part, queries and keys normalised over all heads."""
    eps = fields.number("rms_norm_eps", default=1e-5)

    def norm(tape: Tape, x: Value, name: str) -> Value:
        weight = tape.parameter(f"{name}.weight", (x.shape[-1],))
        return ar.to(ar.mul(weight, rms_scaled(x, eps)), x.dtype)

    bias = fields.flag("attention_bias")
    feed = gated(fields, fields.size("intermediate_size"))
    changes = {"qkv_bias": bias, "out_bias": bias, "norm": norm, "attend": whole_normed_attention}
    return causal(common(fields, feeds={"full": feed}, residual="after", cast_back=True, **changes))
