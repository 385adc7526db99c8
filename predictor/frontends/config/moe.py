"""Mixtures of experts: routers, grouped products over sorted tokens, and the families that use them.

The load is what a router sends: every token goes to k experts; nothing is dropped, as in transformers.
"""

from collections.abc import Callable, Sequence
from typing import Any

from predictor.frontends.config import activations
from predictor.frontends.config import arithmetic as ar
from predictor.frontends.config.decoder import Feed, causal, common, gated, head_normed_attention
from predictor.frontends.config.families import windowed
from predictor.frontends.config.fields import Fields
from predictor.frontends.config.layers import activation, projection
from predictor.frontends.config.lookup import arange, filled, index, sort, topk
from predictor.frontends.config.model import Model
from predictor.frontends.config.norms import softmax
from predictor.frontends.config.products import grouped_mm, linear
from predictor.frontends.config.tape import Tape, Value
from predictor.frontends.config.views import reshape, split, transpose, unsqueeze, view

Routed = tuple[Value, Value]
Router = Callable[[Tape, Value], Routed]


def experts(
    tape: Tape, x: Value, routed: Routed, count: int, inner: int, act: Callable[[Value], Value]
) -> Value:
    """Tokens x [t, k] through the experts chosen for each [t, n], weighted and added: [t, k]."""
    weights, chosen = routed
    del routed
    tape.scope = "model.layers.*.mlp.experts"
    tokens, width, dtype = *x.shape, x.dtype
    per_token = chosen.shape[1]
    rows = tokens * per_token
    up_weight = tape.parameter("mlp.experts.gate_up_proj", (count, 2 * inner, width), expert=True)
    down_weight = tape.parameter("mlp.experts.down_proj", (count, width, inner), expert=True)
    sorted_ids, places = sort(reshape(chosen, (rows,)))
    token = ar.pointwise("aten.floor_divide", (places,), attrs={"other": per_token})
    picked = index(x, token)
    del token
    share = index(reshape(weights, (rows,)), places)
    ends = expert_ends(tape, sorted_ids, count)
    gate, up = split(grouped_mm(picked, transpose(up_weight, 1, 2), ends), (inner, inner), -1)
    y = ar.mul(act(gate), up)
    del gate, up
    y = grouped_mm(y, transpose(down_weight, 1, 2), ends)
    weighted = ar.mul(y, unsqueeze(share, 1))
    back = filled(tape, "empty_like", (rows,), "int64", places)
    tape.emit("aten.index_put_", (back, places, arange(tape, rows)), (back,))
    weighted = index(weighted, back)
    return ar.to(ar.total(view(weighted, (tokens, per_token, width)), 1, keep=False), dtype)


def expert_ends(tape: Tape, sorted_ids: Value, count: int) -> Value:
    """Where each expert's rows end: a histogram and its running sum."""
    wide = ar.copied_to(sorted_ids, "float32")
    per_expert, ends = tape.new((count,), "float32"), tape.new((count,), "int32")
    tape.emit("aten.histc", (wide,), (per_expert,))
    tape.emit("aten.cumsum", (per_expert,), (ends,))
    return ends


def softmax_router(count: int, per_token: int, normalised: bool, returns: bool) -> Router:
    """Shares by softmax in float32, the largest kept; ``returns``: handed on in the type of the logits."""

    def route(tape: Tape, x: Value) -> Routed:
        tape.scope = "model.layers.*.mlp.gate"
        logits = linear(x, tape.parameter("mlp.gate.weight", (count, x.shape[1])))
        shares = softmax(logits, wide=True)
        values, places = topk(shares, per_token)
        if normalised:
            values = ar.divided_in_place(values, ar.total(values, 1, keep=True))
        return (ar.to(values, logits.dtype) if returns else values), places

    return route


def sparse(
    fields: Fields, route: Router, count: int, inner: int, shared: int = 0, shared_gate: bool = False
) -> Feed:
    """Experts, and for Qwen2 one more expert that every token passes, weighted by a gate of its own."""
    act = activation(fields, "hidden_act", default="silu")
    always = gated(fields, shared, name="mlp.shared_expert") if shared else None

    def feed(tape: Tape, x: Value) -> Value:
        shape = x.shape
        x = view(x, (shape[0] * shape[1], shape[2]))
        own = always(tape, x) if always is not None else None
        y = experts(tape, x, route(tape, x), count, inner, act)
        tape.scope = "model.layers.*.mlp"
        if own is not None:
            gate = activations.sigmoid(projection(tape, x, "mlp.shared_expert_gate", 1))
            own = ar.mul(gate, own)
            y = ar.add(y, own)
        return view(y, shape)

    return feed


def counts(fields: Fields, *names: str) -> tuple[int, int]:
    """How many experts there are, and how many a token visits."""
    fields.without("output_router_logits", "router_jitter_noise")
    count = fields.size(*names, most=10**5)
    return count, fields.size("num_experts_per_tok", most=count)


def mixtral(fields: Fields) -> Model:
    """Mixtral: https://arxiv.org/abs/2401.04088."""
    count, per_token = counts(fields, "num_local_experts", "num_experts")
    route = softmax_router(count, per_token, normalised=True, returns=False)
    feed = sparse(fields, route, count, fields.size("intermediate_size"))
    window = fields.optional_size("sliding_window")
    return causal(common(fields, feeds={"full": feed}, windows={"full": window}))


def _sparse_layers(fields: Fields) -> list[bool]:
    step = fields.size("decoder_sparse_step", default=1)
    dense = fields.content.get("mlp_only_layers") or []
    if not isinstance(dense, list):
        raise fields.refuse("mlp_only_layers", "a list of layers")
    count = fields.layers("num_hidden_layers")
    return [i not in dense and (i + 1) % step == 0 for i in range(count)]


def _mixed(fields: Fields, feed: Feed, parts: dict[str, Any]) -> dict[str, Any]:
    """Kinds of layers that say both how they attend and whether they are sparse."""
    masks: Sequence[str] = parts["kinds"]
    is_sparse = _sparse_layers(fields)
    kinds = [f"{mask} {'sparse' if s else 'dense'}" for mask, s in zip(masks, is_sparse, strict=True)]
    dense = next(iter(parts["feeds"].values()))
    feeds = {kind: feed if kind.endswith("sparse") else dense for kind in kinds}
    masked_as = dict(zip(kinds, masks, strict=True))
    return parts | {"kinds": kinds, "feeds": feeds, "masked_as": masked_as}


def qwen2_moe(fields: Fields) -> Model:
    """Qwen2-MoE: a shared expert beside the routed ones."""
    count, per_token = counts(fields, "num_experts")
    normalised = fields.flag("norm_topk_prob")
    route = softmax_router(count, per_token, normalised, returns=True)
    shared = fields.size("shared_expert_intermediate_size", default=5632)
    inner = fields.size("moe_intermediate_size", default=1408)
    feed = sparse(fields, route, count, inner, shared)
    layers = fields.layers("num_hidden_layers")
    slides = fields.flag("use_sliding_window")
    first = fields.size("max_window_layers", default=28, least=0)
    masks = [
        "sliding_attention" if (i + 1) % 2 and i < first and slides else "full_attention"
        for i in range(layers)
    ]
    bias = fields.flag("qkv_bias", default=True)
    return causal(common(fields, qkv_bias=bias, **_mixed(fields, feed, windowed(fields, masks))))


def qwen3_moe(fields: Fields) -> Model:
    """Qwen3-MoE: normalised heads, routed experts only."""
    count, per_token = counts(fields, "num_experts", "num_local_experts")
    route = softmax_router(count, per_token, fields.flag("norm_topk_prob"), returns=True)
    feed = sparse(fields, route, count, fields.size("moe_intermediate_size", default=768))
    window = fields.size_or_none("sliding_window", 4096) if fields.flag("use_sliding_window") else None
    layers = fields.layers("num_hidden_layers")
    dense = gated(fields, fields.size("intermediate_size"))
    parts = {"kinds": ["full"] * layers, "windows": {"full": window}, "feeds": {"full": dense}}
    bias = fields.flag("attention_bias")
    d = common(
        fields,
        attend=head_normed_attention,
        qkv_bias=bias,
        out_bias=bias,
        **_mixed(fields, feed, parts),
    )
    return causal(d)
