"""T5 1.0: encoder and decoder with relative position biases.

Source: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer", JMLR 21, 2020, sections 2.1 and 3.7; google/t5-11b config.

Tokens are [b, s], hidden states [b, s, width], position biases [1, h, s, t]. Nothing has a bias term,
normalisation has a scale only, scores are not divided by sqrt(d), and one matrix serves both embeddings
and the output. The position bias is learned, so attention takes it as a mask with a gradient.

Span corruption of 568 tokens gives 512 inputs and 114 targets: 85 tokens are dropped (15 %) in 28 spans
(3 tokens each); 568 - 85 + 28 marks + 1 end = 512, and 85 + 28 + 1 = 114.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from predictor.zoo.parts import Attention

EPSILON = 1e-6


class PositionBias(nn.Module):
    """A learned number per head and distance: exact when near, in buckets of growing width up to 128."""

    def __init__(self, heads: int, both_sides: bool, buckets: int = 32, furthest: int = 128) -> None:
        """``both_sides`` as in an encoder, which also looks ahead."""
        super().__init__()
        self.both_sides = both_sides
        self.buckets = buckets
        self.furthest = furthest
        self.bias = nn.Embedding(buckets, heads)

    def bucket(self, distance: Tensor) -> Tensor:
        """Bucket of each distance, key minus query position [s, t] -> [s, t]."""
        buckets = self.buckets
        start = torch.zeros_like(distance)
        if self.both_sides:
            buckets //= 2
            start = (distance > 0) * buckets
            distance = distance.abs()
        else:
            distance = -distance.clamp(max=0)
        exact = buckets // 2
        growth = (buckets - exact) / math.log(self.furthest / exact)
        far = exact + (torch.log(distance.clamp(min=exact) / exact) * growth).long()
        return start + torch.where(distance < exact, distance, far.clamp(max=buckets - 1))

    def forward(self, length: int) -> Tensor:
        """Biases between all positions of one sequence [1, h, s, s]; one-sided ones hide what comes later."""
        place = torch.arange(length, device=self.bias.weight.device)
        distance = place.unsqueeze(0) - place.unsqueeze(1)  # [query, key]
        bias: Tensor = self.bias(self.bucket(distance)).permute(2, 0, 1).unsqueeze(0)
        return bias if self.both_sides else bias.masked_fill(distance > 0, -math.inf)


class T5Layer(nn.Module):
    """Self-attention, in a decoder attention to the encoder, feed-forward; normalised before each."""

    def __init__(
        self, *, width: int, heads: int, head_size: int, inner: int, decoder: bool, dropout: float
    ) -> None:
        """``inner`` is the width between the two matrices of the feed-forward layer."""
        super().__init__()
        self.attention_norm = nn.RMSNorm(width, EPSILON)
        self.attention = Attention(width, heads, head_size=head_size, bias=False, dropout=dropout, scale=1.0)
        if decoder:
            self.cross_norm = nn.RMSNorm(width, EPSILON)
            self.cross = Attention(width, heads, head_size=head_size, bias=False, dropout=dropout, scale=1.0)
        self.mlp_norm = nn.RMSNorm(width, EPSILON)
        self.mlp = nn.Sequential(
            nn.Linear(width, inner, bias=False),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(inner, width, bias=False),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor, memory: Tensor | None = None) -> Tensor:
        """x [b, s, width], bias [1, h, s, s], memory [b, t, width] in a decoder -> [b, s, width]."""
        x = x + self.dropout(self.attention(self.attention_norm(x), mask=bias))
        if memory is not None:
            x = x + self.dropout(self.cross(self.cross_norm(x), memory))
        x = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return x


class T5Stack(nn.Module):
    """Encoder or decoder: one position bias for all layers, a last normalisation."""

    def __init__(
        self,
        *,
        layers: int,
        width: int,
        heads: int,
        head_size: int,
        inner: int,
        decoder: bool,
        dropout: float,
    ) -> None:
        """Sizes of each layer as in ``T5Layer``."""
        super().__init__()
        self.position_bias = PositionBias(heads, both_sides=not decoder)
        self.layers = nn.ModuleList(
            T5Layer(
                width=width,
                heads=heads,
                head_size=head_size,
                inner=inner,
                decoder=decoder,
                dropout=dropout,
            )
            for _ in range(layers)
        )
        self.norm = nn.RMSNorm(width, EPSILON)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        """[b, s, width] -> [b, s, width]."""
        bias = self.position_bias(x.shape[1]).to(x.dtype)
        x = self.dropout(x)
        for layer in self.layers:
            x = layer(x, bias, memory)
        x = self.dropout(self.norm(x))
        return x


class T5(nn.Module):
    """Encoder and decoder of equal depth."""

    def __init__(
        self,
        *,
        layers: int,
        width: int,
        heads: int,
        head_size: int,
        inner: int,
        vocabulary: int = 32128,
        dropout: float = 0.1,
    ) -> None:
        """``layers`` of the encoder, and as many of the decoder; the rest as in ``T5Layer``."""
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.encoder, self.decoder = (
            T5Stack(
                layers=layers,
                width=width,
                heads=heads,
                head_size=head_size,
                inner=inner,
                decoder=decoder,
                dropout=dropout,
            )
            for decoder in (False, True)
        )

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """source [b, t], target (shifted right) [b, s] -> logits [b, s, vocabulary]."""
        memory = self.encoder(self.tokens(source))
        x = self.decoder(self.tokens(target), memory)
        return linear(x * self.tokens.embedding_dim**-0.5, self.tokens.weight)


def t5_11b() -> T5:
    """T5-11B, the largest of the paper."""
    return T5(layers=24, width=1024, heads=128, head_size=128, inner=65536)
