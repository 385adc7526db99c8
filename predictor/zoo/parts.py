"""Pieces that several definitions share: two forms of attention, learned positions, a size check.

Shapes: ``b`` batch, ``s`` sequence of the queries, ``t`` sequence of the keys, ``h`` heads, ``d`` head size.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from predictor.errors import InputError


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[b, s, h * d] -> [b, h, s, d]."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[b, h, s, d] -> [b, s, h * d]."""
    return x.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself, one fused projection: [b, s, width] -> [b, s, width]."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0, causal: bool = False) -> None:
        """``dropout`` of the attention weights; ``causal``: position i sees positions up to i only."""
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.causal = causal
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[b, s, width] -> [b, s, width]."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        dropout = self.dropout if self.training else 0.0
        mixed = scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=self.causal)
        out: Tensor = self.out(merge_heads(mixed))
        return out


class Attention(nn.Module):
    """Multi-head attention of a sequence to itself or to another, one projection each for q, k, v, out."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        head_size: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        scale: float | None = None,
    ) -> None:
        """Projections and scores.

        head_size   width of one head, width / heads when not given
        bias        whether the projections have one
        dropout     of the attention weights
        scale       of the scores, 1 / sqrt(head_size) when not given
        """
        super().__init__()
        inner = heads * (head_size or width // heads)
        self.heads = heads
        self.dropout = dropout
        self.scale = scale
        self.q = nn.Linear(width, inner, bias=bias)
        self.k = nn.Linear(width, inner, bias=bias)
        self.v = nn.Linear(width, inner, bias=bias)
        self.out = nn.Linear(inner, width, bias=bias)

    def forward(
        self, x: Tensor, memory: Tensor | None = None, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Queries from x [b, s, width], keys and values from memory [b, t, width] -> [b, s, width].

        memory   x itself when not given
        mask     added to the scores, broadcast to [b, h, s, t]
        causal   position i sees positions up to i only
        """
        memory = x if memory is None else memory
        mixed = scaled_dot_product_attention(
            split_heads(self.q(x), self.heads),
            split_heads(self.k(memory), self.heads),
            split_heads(self.v(memory), self.heads),
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal,
            scale=self.scale,
        )
        out: Tensor = self.out(merge_heads(mixed))
        return out


def learned_positions(table: nn.Embedding, length: int) -> Tensor:
    """The embeddings of the first ``length`` positions [s, width]; a longer sequence has none."""
    if length > table.num_embeddings:
        raise InputError(
            f"sequence length {length}: this model has learned positions for {table.num_embeddings} tokens; "
            f"give a sequence length of at most {table.num_embeddings}"
        )
    positions: Tensor = table(torch.arange(length, device=table.weight.device))
    return positions


def check_image(image: Tensor, side: int) -> None:
    """Refuse images [b, 3, p, p] of another side than the weights were made for."""
    if image.shape[-2:] != (side, side):
        raise InputError(
            f"image size {image.shape[-2]} x {image.shape[-1]}: the weights of this model fit images of "
            f"{side} x {side} pixels only"
        )
