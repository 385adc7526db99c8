"""Llama 2 and 3, and Mixtral, which is a Llama whose feed-forward layers are mixtures of experts.

Sources: Touvron et al., "Llama 2: Open Foundation and Fine-Tuned Chat Models", arXiv 2307.09288; Llama
Team, "The Llama 3 Herd of Models", arXiv 2407.21783, table 3; Jiang et al., "Mixtral of Experts", arXiv
2401.04088, table 1. Sizes of the feed-forward layers as in the released configurations.

Tokens are [b, s], hidden states [b, s, width]; ``h`` query heads share ``kv`` key and value heads. No
projection has a bias; there is no dropout.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention, silu

from predictor.zoo.parts import merge_heads, split_heads

EPSILON = 1e-5


def rotary_table(length: int, head_size: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position times frequency, each [s, d]; Su et al., RoFormer, arXiv 2104.09864."""
    frequency = theta ** (-torch.arange(0, head_size, 2, device=device) / head_size)  # [d / 2]
    angle = torch.arange(length, device=device).unsqueeze(1) * frequency
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + d/2) of x [b, h, s, d] by its angle; cos, sin [s, d]."""
    low, high = x.chunk(2, dim=-1)
    return x * cos.to(x.dtype) + torch.cat((-high, low), dim=-1) * sin.to(x.dtype)


class GroupedAttention(nn.Module):
    """Causal attention with rotary positions, ``heads / kv_heads`` queries per key: [b, s, width] -> same."""

    def __init__(self, width: int, heads: int, kv_heads: int) -> None:
        """``heads`` for queries, ``kv_heads`` for keys and values."""
        super().__init__()
        self.heads = heads
        self.kv_heads = kv_heads
        head_size = width // heads
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, kv_heads * head_size, bias=False)
        self.v = nn.Linear(width, kv_heads * head_size, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x [b, s, width], cos and sin [s, d] -> [b, s, width]."""
        q = rotate(split_heads(self.q(x), self.heads), cos, sin)
        k = rotate(split_heads(self.k(x), self.kv_heads), cos, sin)
        v = split_heads(self.v(x), self.kv_heads)
        shared = self.kv_heads < self.heads
        mixed = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=shared)
        out: Tensor = self.out(merge_heads(mixed))
        return out


class SwiGLU(nn.Module):
    """(silu(x gate) * x up) down: [b, s, width] -> [b, s, width]; Shazeer, arXiv 2002.05202."""

    def __init__(self, width: int, inner: int) -> None:
        """``inner`` is the width of gate and up."""
        super().__init__()
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[b, s, width] -> [b, s, width]."""
        y: Tensor = self.down(silu(self.gate(x)) * self.up(x))
        return y


class Experts(nn.Module):
    """One SwiGLU per expert, weights stacked, each over its own rows: [e, r, width] -> [e, r, width]."""

    def __init__(self, experts: int, width: int, inner: int) -> None:
        """``experts`` SwiGLUs of width ``inner``."""
        super().__init__()
        self.gate = nn.Parameter(torch.empty(experts, inner, width))
        self.up = nn.Parameter(torch.empty(experts, inner, width))
        self.down = nn.Parameter(torch.empty(experts, width, inner))
        for weight in self.parameters():
            nn.init.normal_(weight, std=0.02)

    def forward(self, rows: Tensor) -> Tensor:
        """[e, r, width] -> [e, r, width]."""
        y = silu(torch.bmm(rows, self.gate.transpose(1, 2))) * torch.bmm(rows, self.up.transpose(1, 2))
        return torch.bmm(y, self.down.transpose(1, 2))


class MixtureOfExperts(nn.Module):
    """Each token goes to the ``top`` experts its router scores highest, weighted by softmax of the scores.

    Shapes must not depend on the data here, so every expert gets the same number of rows r, tokens * top /
    experts rounded up: tokens are sorted by expert and cut into equal pieces. A balanced router, which
    training aims at, gives exactly this, and then the result is exact too; an unbalanced one would make
    some experts, and the accelerators that hold them, work longer than counted.
    """

    def __init__(self, experts: int, top: int, width: int, inner: int) -> None:
        """``top`` of ``experts`` work on each token."""
        super().__init__()
        self.count = experts
        self.top = top
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = Experts(experts, width, inner)

    def forward(self, x: Tensor) -> Tensor:
        """[b, s, width] -> [b, s, width]."""
        tokens = x.flatten(0, 1)  # [n, width]
        scores, chosen = self.router(tokens).topk(self.top)  # [n, top]
        order = chosen.flatten().argsort(stable=True)  # the n * top choices, by expert
        token = order // self.top  # the token each choice belongs to
        share = -(-len(order) // self.count)  # r
        rows = pad(tokens.index_select(0, token), (0, 0, 0, share * self.count - len(order)))
        mixed = self.experts(rows.view(self.count, share, -1)).flatten(0, 1)[: len(order)]
        weight = scores.softmax(dim=-1).flatten().index_select(0, order).unsqueeze(1)
        summed = torch.zeros_like(tokens).index_add(0, token, (mixed * weight).to(tokens.dtype))
        return summed.view_as(x)


class LlamaLayer(nn.Module):
    """Attention and feed-forward ``mlp``, normalised before each: [b, s, width] -> [b, s, width]."""

    def __init__(self, width: int, heads: int, kv_heads: int, mlp: nn.Module) -> None:
        """``mlp`` is a ``SwiGLU`` or a ``MixtureOfExperts``."""
        super().__init__()
        self.attention = GroupedAttention(width, heads, kv_heads)
        self.mlp = mlp
        self.attention_norm = nn.RMSNorm(width, EPSILON)
        self.mlp_norm = nn.RMSNorm(width, EPSILON)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x [b, s, width], cos and sin [s, d] -> [b, s, width]."""
        x = x + self.attention(self.attention_norm(x), cos, sin)
        x = x + self.mlp(self.mlp_norm(x))
        return x


class Llama(nn.Module):
    """Decoder-only language model; embedding and output matrix are separate."""

    def __init__(
        self,
        *,
        layers: int,
        width: int,
        heads: int,
        kv_heads: int,
        inner: int,
        vocabulary: int,
        theta: float = 10_000.0,
        experts: tuple[int, int] | None = None,
    ) -> None:
        """Sizes of the network.

        inner    width between the matrices of a feed-forward layer, or of one expert
        theta    base of the rotary wavelengths
        experts  how many per layer, and how many of them a token uses; None for plain feed-forward layers
        """
        super().__init__()
        self.head_size = width // heads
        self.theta = theta

        def mlp() -> nn.Module:
            return MixtureOfExperts(*experts, width, inner) if experts else SwiGLU(width, inner)

        self.tokens = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(LlamaLayer(width, heads, kv_heads, mlp()) for _ in range(layers))
        self.norm = nn.RMSNorm(width, EPSILON)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """[b, s] -> logits [b, s, vocabulary]."""
        x = self.tokens(ids)
        cos, sin = rotary_table(ids.shape[1], self.head_size, self.theta, ids.device)
        cos, sin = cos.to(x.dtype), sin.to(x.dtype)
        for layer in self.layers:
            x = layer(x, cos, sin)
        logits: Tensor = self.head(self.norm(x))
        return logits


def llama2_7b() -> Llama:
    """Llama 2 7B."""
    return Llama(layers=32, width=4096, heads=32, kv_heads=32, inner=11008, vocabulary=32000)


def llama2_70b() -> Llama:
    """Llama 2 70B."""
    return Llama(layers=80, width=8192, heads=64, kv_heads=8, inner=28672, vocabulary=32000)


def llama3_8b() -> Llama:
    """Llama 3 8B."""
    return Llama(layers=32, width=4096, heads=32, kv_heads=8, inner=14336, vocabulary=128_256, theta=5e5)


def llama3_70b() -> Llama:
    """Llama 3 70B."""
    return Llama(layers=80, width=8192, heads=64, kv_heads=8, inner=28672, vocabulary=128_256, theta=5e5)


def llama3_405b() -> Llama:
    """Llama 3 405B."""
    return Llama(layers=126, width=16384, heads=128, kv_heads=8, inner=53248, vocabulary=128_256, theta=5e5)


def mixtral_8x7b() -> Llama:
    """Mixtral 8x7B: eight experts per layer, two per token."""
    return Llama(
        layers=32,
        width=4096,
        heads=32,
        kv_heads=8,
        inner=14336,
        vocabulary=32000,
        theta=1e6,
        experts=(8, 2),
    )
