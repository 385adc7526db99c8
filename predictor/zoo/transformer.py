"""The encoder-decoder Transformer for translation.

Source: Vaswani et al., "Attention Is All You Need", NeurIPS 2017: sections 3 and 5.4, table 3.

Tokens are [b, s], hidden states [b, s, width]. Normalisation follows each residual sum, as in the
paper. Projections of the attention have no bias (section 3.2.2 names matrices only), the feed-forward
layers have one (equation 2).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from predictor.zoo.parts import Attention


def sinusoids(length: int, width: int, device: torch.device) -> Tensor:
    """Sines and cosines of the position at ``width`` / 2 wavelengths [s, width]; section 3.5."""
    frequency = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10000.0) / width))
    angle = torch.arange(length, device=device).unsqueeze(1) * frequency  # [s, width / 2]
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)


def feed_forward(width: int, inner: int) -> nn.Sequential:
    """max(0, x W1 + b1) W2 + b2, equation 2."""
    return nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, width))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward: [b, s, width] -> [b, s, width]."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        """``inner`` is the width between the two matrices of the feed-forward layer."""
        super().__init__()
        self.attention = Attention(width, heads, bias=False)
        self.attention_norm = nn.LayerNorm(width)
        self.mlp = feed_forward(width, inner)
        self.mlp_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[b, s, width] -> [b, s, width]."""
        x = self.attention_norm(x + self.dropout(self.attention(x)))
        x = self.mlp_norm(x + self.dropout(self.mlp(x)))
        return x


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder's output, feed-forward."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        """``inner`` is the width between the two matrices of the feed-forward layer."""
        super().__init__()
        self.attention = Attention(width, heads, bias=False)
        self.attention_norm = nn.LayerNorm(width)
        self.cross = Attention(width, heads, bias=False)
        self.cross_norm = nn.LayerNorm(width)
        self.mlp = feed_forward(width, inner)
        self.mlp_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """x [b, s, width], memory [b, t, width] -> [b, s, width]."""
        x = self.attention_norm(x + self.dropout(self.attention(x, causal=True)))
        x = self.cross_norm(x + self.dropout(self.cross(x, memory)))
        x = self.mlp_norm(x + self.dropout(self.mlp(x)))
        return x


class Encoder(nn.Module):
    """``layers`` encoder layers: [b, t, width] -> [b, t, width]."""

    def __init__(self, layers: int, width: int, heads: int, inner: int, dropout: float) -> None:
        """Sizes of each layer as in ``EncoderLayer``."""
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(width, heads, inner, dropout) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """[b, t, width] -> [b, t, width]."""
        for layer in self.layers:
            x = layer(x)
        return x


class Decoder(nn.Module):
    """``layers`` decoder layers: [b, s, width] -> [b, s, width]."""

    def __init__(self, layers: int, width: int, heads: int, inner: int, dropout: float) -> None:
        """Sizes of each layer as in ``DecoderLayer``."""
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(width, heads, inner, dropout) for _ in range(layers))

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """x [b, s, width], memory [b, t, width] -> [b, s, width]."""
        for layer in self.layers:
            x = layer(x, memory)
        return x


class Transformer(nn.Module):
    """Encoder and decoder of equal depth; one matrix serves both embeddings and the output (section 3.4)."""

    def __init__(
        self, *, layers: int, width: int, heads: int, inner: int, dropout: float, vocabulary: int = 37000
    ) -> None:
        """``layers`` of the encoder, and as many of the decoder."""
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.dropout = nn.Dropout(dropout)
        self.encoder = Encoder(layers, width, heads, inner, dropout)
        self.decoder = Decoder(layers, width, heads, inner, dropout)

    def embed(self, ids: Tensor) -> Tensor:
        """Token embeddings times sqrt(width), plus positions: [b, s] -> [b, s, width]."""
        width = self.tokens.embedding_dim
        x = self.tokens(ids) * math.sqrt(width)
        out: Tensor = self.dropout(x + sinusoids(ids.shape[1], width, ids.device).to(x.dtype))
        return out

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """source [b, t], target (shifted right) [b, s] -> logits [b, s, vocabulary]."""
        x = self.decoder(self.embed(target), self.encoder(self.embed(source)))
        return linear(x, self.tokens.weight)

    def loss(self, outputs: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy with label smoothing 0.1 (section 5.4), of sizes alone: labels are not shifted."""
        return cross_entropy(outputs.flatten(0, 1), target.flatten(), label_smoothing=0.1)


def transformer_base() -> Transformer:
    """The base model of table 3."""
    return Transformer(layers=6, width=512, heads=8, inner=2048, dropout=0.1)


def transformer_big() -> Transformer:
    """The big model of table 3, dropout 0.3 as for English-German."""
    return Transformer(layers=6, width=1024, heads=16, inner=4096, dropout=0.3)
