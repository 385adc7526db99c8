"""A small GPT in plain PyTorch: what a model of your own needs for a prediction.

    predictor estimate examples/tiny_gpt.py:tiny_gpt --hardware h100 --batch-size 32 --tokens 1B

The factory takes no arguments and returns the module. ``example_inputs`` beside it says what ``forward``
takes; it is called with those of ``batch_size``, ``seq_len`` and ``image_size`` that it names and the job
gives. No weights are made and nothing is trained.
"""

import torch
from torch import nn


class Block(nn.Module):
    """Causal self-attention and a feed-forward layer, each after a norm and around a residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, s, w = x.shape
        heads = self.query_key_value(self.before_attention(x)).view(b, s, 3, self.heads, w // self.heads)
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # each [b, h, s, d]
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.projection(mixed.transpose(1, 2).reshape(b, s, w))
        return x + self.feed_forward(x)


class TinyGPT(nn.Module):
    """Next-token logits [b, s, vocabulary] for token ids [b, s]."""

    def __init__(self, vocabulary: int, width: int, depth: int, heads: int, longest: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(longest, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.places.weight[: ids.shape[1]]
        return self.head(self.norm(self.blocks(x)))


def tiny_gpt() -> nn.Module:
    """Four blocks of width 256: 7.5 million parameters."""
    return TinyGPT(vocabulary=8192, width=256, depth=4, heads=8, longest=512)


def example_inputs(batch_size: int = 8, seq_len: int = 256) -> dict[str, torch.Tensor]:
    """One batch of token ids."""
    return {"ids": torch.zeros(batch_size, seq_len, dtype=torch.int64)}
