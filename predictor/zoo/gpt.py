"""Decoder-only language models with learned positions: GPT-2 and GPT-3.

Sources: Radford et al., "Language Models are Unsupervised Multitask Learners", OpenAI 2019, table 2, and
openai/gpt-2 (model.py); Brown et al., "Language Models are Few-Shot Learners", NeurIPS 2020, table 2.1.

Tokens are [b, s], hidden states [b, s, width].
"""

from torch import Tensor, nn
from torch.nn.functional import linear

from predictor.zoo.parts import SelfAttention, learned_positions


class GPTLayer(nn.Module):
    """Causal attention and feed-forward, normalised before each: [b, s, width] -> [b, s, width]."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        """``dropout`` of attention weights and of both results."""
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, dropout, causal=True)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[b, s, width] -> [b, s, width]."""
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        x = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return x


class GPT(nn.Module):
    """Token and position embeddings, ``layers`` layers, and the token embedding again as output matrix."""

    def __init__(
        self,
        *,
        layers: int,
        width: int,
        heads: int,
        context: int = 1024,
        vocabulary: int = 50257,
        dropout: float = 0.1,
    ) -> None:
        """``context`` positions are learned; defaults are those of GPT-2."""
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(GPTLayer(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, ids: Tensor) -> Tensor:
        """[b, s] -> logits [b, s, vocabulary]."""
        x = self.dropout(self.tokens(ids) + learned_positions(self.positions, ids.shape[1]))
        for layer in self.layers:
            x = layer(x)
        return linear(self.norm(x), self.tokens.weight)


def gpt2() -> GPT:
    """GPT-2, the smallest of four."""
    return GPT(layers=12, width=768, heads=12)


def gpt2_medium() -> GPT:
    """GPT-2 medium."""
    return GPT(layers=24, width=1024, heads=16)


def gpt2_large() -> GPT:
    """GPT-2 large."""
    return GPT(layers=36, width=1280, heads=20)


def gpt2_xl() -> GPT:
    """GPT-2 XL, the model of the paper."""
    return GPT(layers=48, width=1600, heads=25)


def gpt3_175b() -> GPT:
    """GPT-3 175B, with dense attention in every layer and no dropout.

    The paper alternates dense and "locally banded sparse" layers without giving the band; attention is
    under 3 % of the work at 2048 tokens, so the difference is small. It does not mention dropout.
    """
    return GPT(layers=96, width=12288, heads=96, context=2048, dropout=0.0)
