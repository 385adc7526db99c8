"""DeepSeek V2 and V3: multi-head latent attention, sigmoid or softmax routers, experts shared by all."""

from collections.abc import Callable
from functools import partial

from predictor.frontends.config import activations
from predictor.frontends.config import arithmetic as ar
from predictor.frontends.config.decoder import Angles, Decoder, Feed, causal, common, gated
from predictor.frontends.config.fields import Fields, NoTemplateError
from predictor.frontends.config.layers import Mask, activation, merged, projection, rotary, rotated
from predictor.frontends.config.lookup import filled, gather, masked_fill, topk
from predictor.frontends.config.model import Model
from predictor.frontends.config.moe import Routed, Router, counts, experts
from predictor.frontends.config.norms import rms_norm, softmax
from predictor.frontends.config.products import attention, linear
from predictor.frontends.config.tape import Tape, Value
from predictor.frontends.config.views import (
    alias,
    as_complex,
    as_real,
    cat,
    expand,
    part,
    reshape,
    split,
    transpose,
    unsqueeze,
    view,
    written,
)

Rotation = Callable[[Value, Value, Angles], tuple[Value, Value]]


class Latent:
    """Sizes of latent attention; ``query_rank`` is None where queries have one plain projection."""

    def __init__(self, fields: Fields) -> None:
        self.query_rank = fields.size_or_none("q_lora_rank", 1536)
        self.rank = fields.size("kv_lora_rank", default=512)
        self.plain = fields.size("qk_nope_head_dim", default=128)
        self.turning = fields.size("qk_rope_head_dim", default=64)
        self.value = fields.size("v_head_dim", default=128)
        self.bias = fields.flag("attention_bias")


def _latent_attention(
    tape: Tape,
    x: Value,
    angles: Angles,
    mask: Mask,
    d: Decoder,
    sizes: Latent,
    turn: Rotation,
) -> Value:
    """Keys and values from one narrow projection, one rotated part shared by all heads."""
    b, s = x.shape[:2]
    whole = sizes.plain + sizes.turning
    q = transpose(view(_queries(tape, x, d, sizes, whole), (b, s, d.heads, whole)), 1, 2)
    q_plain, q_turning = split(q, (sizes.plain, sizes.turning), -1)
    narrow = projection(tape, x, "self_attn.kv_a_proj_with_mqa", sizes.rank + sizes.turning, sizes.bias)
    latent, k_turning = split(narrow, (sizes.rank, sizes.turning), -1)
    weight = tape.parameter("self_attn.kv_a_layernorm.weight", (sizes.rank,))
    latent = view(rms_norm(latent, weight, 1e-6), (b, 1, s, sizes.rank))
    k_turning = view(k_turning, (b, 1, s, sizes.turning))
    q_turning, k_turning = turn(q_turning, k_turning, angles)
    queries = cat([q_plain, q_turning], -1)
    k, v = _expanded(tape, latent, k_turning, d, sizes)
    y = merged(attention(queries, k, v, None, causal=True))
    return projection(tape, y, "self_attn.o_proj", d.width, sizes.bias)


def _queries(tape: Tape, x: Value, d: Decoder, sizes: Latent, whole: int) -> Value:
    if sizes.query_rank is None:
        return projection(tape, x, "self_attn.q_proj", d.heads * whole)
    x = projection(tape, x, "self_attn.q_a_proj", sizes.query_rank, sizes.bias)
    x = rms_norm(x, tape.parameter("self_attn.q_a_layernorm.weight", (sizes.query_rank,)), 1e-6)
    return projection(tape, x, "self_attn.q_b_proj", d.heads * whole)


def _expanded(tape: Tape, latent: Value, k_turning: Value, d: Decoder, sizes: Latent) -> tuple[Value, Value]:
    """Keys [b, h, s, plain + turning] and values [b, h, s, value] from the latent [b, 1, s, rank]."""
    b, _, s, _ = latent.shape
    size = sizes.plain + sizes.value
    both = projection(tape, latent, "self_attn.kv_b_proj", d.heads * size)
    both = transpose(view(both, (b, s, d.heads, size)), 1, 2)
    k_plain, v = split(both, (sizes.plain, sizes.value), -1)
    k_turning = expand(k_turning, (b, d.heads, s, sizes.turning))
    return written(both, [k_plain, k_turning], -1), v


def interleaved(q: Value, k: Value, angles: Angles) -> tuple[Value, Value]:
    """Pairs of neighbours rotated."""
    cosine, sine = (unsqueeze(part(a, -1, 0, a.shape[-1] // 2), 1) for a in angles)
    size = q.shape[-1]
    q_pair = part(q, -1, 0, size, 2), part(q, -1, 1, size, 2)
    k_pair = part(k, -1, 0, size, 2), part(k, -1, 1, size, 2)
    return _turned(*q_pair, cosine, sine), _turned(*k_pair, cosine, sine)


def _turned(first: Value, second: Value, cosine: Value, sine: Value) -> Value:
    lower = ar.sub(ar.mul(first, cosine), ar.mul(second, sine))
    return cat([lower, ar.add(ar.mul(second, cosine), ar.mul(first, sine))], -1)


def halves(q: Value, k: Value, angles: Angles) -> tuple[Value, Value]:
    """Halves rotated against each other."""
    cosine, sine = (unsqueeze(a, 1) for a in angles)
    return rotated(q, cosine, sine), rotated(k, cosine, sine)


def sparse(fields: Fields, route: Router, count: int) -> Feed:
    """Routed experts, and experts that every token passes as one wider gated network."""
    inner = fields.size("moe_intermediate_size", default=2048)
    shared = fields.size("n_shared_experts", default=1) * inner
    act = activation(fields, "hidden_act", default="silu")
    always = gated(fields, shared, name="mlp.shared_experts")

    def feed(tape: Tape, x: Value) -> Value:
        flat = (x.shape[0] * x.shape[1], x.shape[2])
        routed = route(tape, view(x, flat))
        y = view(experts(tape, view(x, flat), routed, count, inner, act), x.shape)
        del routed
        tape.scope = "model.layers.*.mlp"
        return ar.add(y, always(tape, x))

    return feed


def _scores(tape: Tape, x: Value, count: int) -> Value:
    """Router logits [t, e] of a product in float32, unless autocast narrows it."""
    tape.scope = "model.layers.*.mlp.gate"
    weight = tape.parameter("mlp.gate.weight", (count, x.shape[1]))
    return linear(ar.to(x, "float32"), ar.to(weight, "float32"))


def _allowed(groups: int, kept: int, of_groups: Value, count: int) -> Value:
    """Which experts a token may not visit [t, e]: those outside its ``kept`` best groups."""
    tape = of_groups.tape
    _, best = topk(of_groups, kept)
    mask = filled(tape, "zeros_like", of_groups.shape, of_groups.dtype, of_groups)
    tape.emit("aten.scatter_", (mask, best), (mask,))
    t = of_groups.shape[0]
    wide = reshape(expand(unsqueeze(mask, 2), (t, groups, count // groups)), (t, count))
    return ar.pointwise("aten.bitwise_not", (ar.copied_to(wide, "bool"),))


def _detached(x: Value) -> Value:
    return alias(x, x.shape, x.stride)


def sigmoid_router(fields: Fields, count: int, per_token: int) -> Router:
    """V3: sigmoid scores, a bias that steers the choice alone, experts chosen within the best groups."""
    groups = fields.size("n_group", default=8)
    kept = fields.size("topk_group", default=4, most=groups)
    fields.divides(groups, count, "n_routed_experts by n_group")
    normalised = fields.flag("norm_topk_prob", default=True)
    factor = fields.number("routed_scaling_factor", default=2.5)

    def route(tape: Tape, x: Value) -> Routed:
        scores = activations.sigmoid(_scores(tape, x, count))
        choice = ar.add(_detached(scores), tape.buffer((count,)))
        best, _ = topk(view(choice, (x.shape[0], groups, count // groups)), 2)
        of_groups = ar.total(best, -1, keep=False)
        choice = masked_fill(choice, _allowed(groups, kept, of_groups, count))
        _, places = topk(choice, per_token)
        values = gather(scores, places)
        if normalised:
            values = ar.divided_in_place(values, ar.shift(ar.total(values, 1, keep=True), 1e-20))
        return ar.scale(values, factor), places

    return route


def softmax_scores(fields: Fields, count: int, per_token: int) -> Router:
    """V2: softmax scores, greedy over all experts or over those of the best groups."""
    method = fields.text("topk_method", default="greedy")
    if method not in {"greedy", "group_limited_greedy"}:
        raise NoTemplateError(f"topk_method {method!r}")
    grouped = method != "greedy"
    groups = fields.size("n_group", default=1) if grouped else 1
    kept = fields.size("topk_group", default=1, most=groups) if grouped else 1
    fields.divides(groups, count, "n_routed_experts by n_group")
    factor = fields.number("routed_scaling_factor", default=1.0)

    def route(tape: Tape, x: Value) -> Routed:
        scores = softmax(_scores(tape, x, count), wide=True)
        if grouped:
            shaped = view(_detached(scores), (x.shape[0], groups, count // groups))
            best, where = tape.new(shaped.shape[:2], scores.dtype), tape.new(shaped.shape[:2], "int64")
            tape.emit("aten.max", (shaped,), (best, where))
            scores = masked_fill(scores, _allowed(groups, kept, best, count))
        values, places = topk(scores, per_token)
        return ar.scale(values, factor), places

    return route


def complex_angles(tape: Tape, places: Value, frequencies: Value, dtype: str) -> Angles:
    """V2's rotations as complex numbers [1, s, d / 2]."""
    wide = ar.copied_to(unsqueeze(places, 2), "float32")
    angles = ar.pointwise("aten.mul", (wide, ar.to(frequencies, "float32")))
    ones = filled(tape, "ones_like", angles.shape, "float32", angles)
    turns = ar.pointwise("aten.polar", (ones, angles), "complex64")
    return (ar.pointwise("aten.mul", (turns,), "complex64"),)


def complex_rotation(q: Value, k: Value, angles: Angles) -> tuple[Value, Value]:
    """Pairs of neighbours as complex numbers times the rotation."""
    turn = unsqueeze(angles[0], 1)
    pairs = [_complex(x) for x in (q, k)]
    q, k = (_real(ar.complex_mul(pair, turn), x.dtype) for pair, x in zip(pairs, (q, k), strict=True))
    return q, k


def _complex(x: Value) -> Value:
    wide = ar.to(x, "float32")
    return as_complex(reshape(wide, (*x.shape[:-1], x.shape[-1] // 2, 2)))


def _real(x: Value, dtype: str) -> Value:
    pairs = as_real(x)
    return ar.to(reshape(pairs, (*x.shape[:-1], x.shape[-1] * 2)), dtype)


def _model(fields: Fields, feed: Feed, turn: Rotation, angles: Callable[..., Angles]) -> Model:
    sizes = Latent(fields)
    first = fields.size("first_k_dense_replace", default=0, least=0)
    layers = fields.layers("num_hidden_layers")
    kinds = ["dense" if i < first else "sparse" for i in range(layers)]
    d = common(
        fields,
        head_size=sizes.turning,
        rotary_size=sizes.turning,
        kinds=kinds,
        feeds={
            "dense": gated(fields, fields.size("intermediate_size"), fields.flag("mlp_bias")),
            "sparse": feed,
        },
        masked_as=dict.fromkeys(kinds, "full"),
        attend=partial(_latent_attention, sizes=sizes, turn=turn),
        angles=angles,
    )
    return causal(d)


def deepseek_v2(fields: Fields) -> Model:
    """DeepSeek V2: https://arxiv.org/abs/2405.04434."""
    count, per_token = counts(fields, "n_routed_experts")
    route = softmax_scores(fields, count, per_token)
    return _model(fields, sparse(fields, route, count), complex_rotation, complex_angles)


def deepseek_v3(fields: Fields) -> Model:
    """DeepSeek V3: https://arxiv.org/abs/2412.19437; its extra prediction layers are not run in training."""
    count, per_token = counts(fields, "n_routed_experts")
    route = sigmoid_router(fields, count, per_token)
    turn = interleaved if fields.flag("rope_interleave", default=True) else halves
    return _model(fields, sparse(fields, route, count), turn, rotary)
