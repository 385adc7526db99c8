"""Experts and adapters whose shapes follow the router's choices, at the expected load.

Where transformers loops over the experts that were hit, nothing is known of a fake choice. Each expert is
taken to receive its equal share, and all of them run as one grouped product.
"""

from typing import Any

import torch

from predictor.frontends.torch_build import convert


def jetmoe_router(self: Any, hidden_states: Any) -> tuple[Any, ...]:
    """``JetMoeTopKGating.forward``: tokens sorted by expert; sizes stay a tensor, for the grouped product."""
    logits = self.layer(hidden_states).float()
    best, experts = logits.topk(self.top_k, dim=1)
    gates = torch.softmax(best, dim=1).type_as(hidden_states).flatten()
    chosen = torch.zeros_like(logits).scatter(1, experts, 1)
    ends = chosen.long().sum(0).cumsum(0).int()
    _, order = experts.flatten().sort(0)
    return order, order.div(self.top_k, rounding_mode="trunc"), gates[order], ends, logits


def jetmoe_experts(self: Any, inputs: Any, ends: Any) -> Any:
    """``JetMoeParallelExperts.forward``: rows [t, k] times each expert's weight [e, n, k] transposed."""
    return torch._grouped_mm(inputs, self.weight.transpose(-2, -1), offs=ends)


def longcat_experts(self: Any, hidden_states: Any, top_k_index: Any, top_k_weights: Any) -> Any:
    """``LongcatFlashExperts.forward``: experts that compute, and experts that return their input.

    The latter receive their equal share of the choices too, without a product.
    """
    routed = self.num_routed_experts
    order, tokens, ends = _sorted_by_expert(top_k_index, routed)
    rows = hidden_states[tokens]
    real = rows.shape[0] * routed // self.total_experts
    gate_up = torch._grouped_mm(rows[:real], self.gate_up_proj[:routed].transpose(-2, -1), offs=ends)
    gate, up = gate_up.chunk(2, dim=-1)
    out = torch._grouped_mm(self.act_fn(gate) * up, self.down_proj.transpose(-2, -1), offs=ends)
    weighted = torch.cat([out, rows[real:]]) * top_k_weights.reshape(-1)[order][:, None]
    return torch.zeros_like(hidden_states).index_add(0, tokens, weighted.to(hidden_states.dtype))


def dbrx_experts(self: Any, hidden_states: Any, top_k_index: Any, top_k_weights: Any) -> Any:
    """``DbrxExperts.forward``: gated units whose three weights hold all experts, [e * width, d] each."""
    flat = hidden_states.reshape(-1, self.hidden_size)
    order, tokens, ends = _sorted_by_expert(top_k_index, self.num_experts)
    weights = (getattr(self.mlp, name) for name in ("w1", "v1", "w2"))
    w1, v1, w2 = (w.view(self.num_experts, self.ffn_hidden_size, self.hidden_size) for w in weights)
    gate = torch._grouped_mm(flat[tokens], w1.transpose(-2, -1), offs=ends)
    up = torch._grouped_mm(flat[tokens], v1.transpose(-2, -1), offs=ends)
    out = torch._grouped_mm(self.mlp.activation_fn(gate) * up, w2, offs=ends)
    weighted = out * top_k_weights.reshape(-1)[order][:, None]
    total = torch.zeros_like(flat).index_add(0, tokens, weighted.to(flat.dtype))
    return total.view(hidden_states.shape[0], -1, self.hidden_size)


def _sorted_by_expert(top_k_index: Any, experts: int) -> tuple[Any, Any, Any]:
    """Order of the choices by expert, the token of each, and where each expert's rows end."""
    order = top_k_index.reshape(-1).argsort()
    return order, order // top_k_index.shape[-1], torch.zeros_like(order[:experts]).cumsum(0).int()


def xmod_adapter(self: Any, lang_ids: Any, hidden_states: Any) -> Any:
    """``XmodOutput.lang_adapter``: a batch in one language goes through that one's adapter."""
    residual = hidden_states
    if self.adapter_layer_norm is not None:
        hidden_states = self.adapter_layer_norm(hidden_states)
    elif self.adapter_reuse_layer_norm:
        hidden_states = self.LayerNorm(hidden_states)
    if self.ln_before_adapter:
        residual = hidden_states
    adapter = next(iter(self.adapter_modules.values()))
    return self.dropout(adapter(hidden_states)) + residual


def cast_router(self: Any) -> None:
    """A router's classifier to the router's type, which ``Module.to`` cannot do to fake weights."""
    mode: Any = torch._guards.detect_fake_mode(list(self.classifier.parameters()))
    convert(self.classifier, mode, self.dtype, channels_last=False)


def _one_by_one(self: Any, hidden_states: Any, weights: Any, choices: int, capacity: int) -> Any:
    """Each expert, a module of its own, on its share of ``choices`` rows, at most its capacity."""
    total = torch.zeros_like(hidden_states)
    count = len(self)
    for place, expert in enumerate(self.values()):
        rows = min(choices * (place + 1) // count - choices * place // count, capacity)
        tokens = torch.arange(rows)
        out = expert(hidden_states[tokens]) * weights[tokens, :1]
        total.index_add_(0, tokens, out.to(hidden_states.dtype))
    return total


def switch_mlp(self: Any, hidden_states: Any) -> Any:
    """``SwitchTransformersSparseMLP.forward``: one expert a token, limited per sequence."""
    b, s, d = hidden_states.shape
    cast_router(self.router)
    object.__setattr__(self.router.classifier, "to", lambda *_: self.router.classifier)
    _, weights, _ = self.router(hidden_states)
    capacity = b * self.router.expert_capacity
    flat = hidden_states.view(-1, d)
    return _one_by_one(self.experts, flat, weights.reshape(-1, 1), b * s, capacity).reshape(b, s, d)


def nllb_experts(self: Any, hidden_states: Any, router_mask: Any, router_probs: Any) -> Any:
    """``NllbMoeExperts.forward``: two experts a token; their capacity is at least the equal share."""
    choices = 2 * hidden_states.shape[0]
    out = _one_by_one(self, hidden_states, router_probs, choices, choices)
    return self.token_dropout(out) if self.moe_token_dropout > 0 else out
