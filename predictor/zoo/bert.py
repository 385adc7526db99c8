"""BERT in its pre-training form: the encoder with both heads.

Source: Devlin, Chang, Lee, Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers for
Language Understanding", NAACL 2019; google-research/bert (modeling.py, run_pretraining.py).

Tokens are [b, s], hidden states [b, s, width]. Sequences are taken as full, so no padding mask is
passed. As in run_pretraining.py the masked-word head sees only the chosen positions: 15 % of the
sequence, rounded up (77 of 512, 20 of 128). The data pipeline chooses them there; here they are drawn in
``forward``, which costs next to nothing. transformers' ``BertForPreTraining`` scores every position.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from predictor.zoo.parts import Attention, learned_positions

EPSILON = 1e-12  # of every LayerNorm, as released


class BertLayer(nn.Module):
    """Self-attention and feed-forward, normalised after each sum: [b, s, width] -> [b, s, width]."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        """``dropout`` of attention weights and of both results."""
        super().__init__()
        self.attention = Attention(width, heads, dropout=dropout)
        self.attention_norm = nn.LayerNorm(width, EPSILON)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.mlp_norm = nn.LayerNorm(width, EPSILON)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[b, s, width] -> [b, s, width]."""
        x = self.attention_norm(x + self.dropout(self.attention(x)))
        x = self.mlp_norm(x + self.dropout(self.mlp(x)))
        return x


class BertEmbedding(nn.Module):
    """Sum of token, position and segment embeddings, normalised: [b, s] -> [b, s, width]."""

    def __init__(self, width: int, vocabulary: int, context: int, dropout: float) -> None:
        """``context`` positions and two segments are learned."""
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.segments = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, EPSILON)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor, segments: Tensor) -> Tensor:
        """Both [b, s] -> [b, s, width]."""
        positions = learned_positions(self.positions, ids.shape[1])
        x: Tensor = self.dropout(self.norm(self.tokens(ids) + positions + self.segments(segments)))
        return x


class MaskedWordHead(nn.Module):
    """Scores of all words at the chosen positions; the output matrix is the token embedding."""

    def __init__(self, width: int, tokens: nn.Embedding) -> None:
        """``tokens`` is the embedding whose matrix is used again."""
        super().__init__()
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, EPSILON))
        self.tokens = tokens
        self.bias = nn.Parameter(torch.zeros(tokens.num_embeddings))

    def forward(self, x: Tensor) -> Tensor:
        """[b, m, width] -> [b, m, vocabulary]."""
        return linear(self.transform(x), self.tokens.weight, self.bias)


class Encoder(nn.Module):
    """Embedding and layers: [b, s] -> [b, s, width]."""

    def __init__(
        self,
        *,
        layers: int,
        width: int,
        heads: int,
        vocabulary: int = 30522,
        context: int = 512,
        dropout: float = 0.1,
    ) -> None:
        """Defaults are those of the uncased checkpoints."""
        super().__init__()
        self.width = width
        self.embedding = BertEmbedding(width, vocabulary, context, dropout)
        self.layers = nn.ModuleList(BertLayer(width, heads, dropout) for _ in range(layers))

    def forward(self, ids: Tensor, segments: Tensor) -> Tensor:
        """Both [b, s] -> [b, s, width]."""
        x: Tensor = self.embedding(ids, segments)
        for layer in self.layers:
            x = layer(x)
        return x


class Bert(nn.Module):
    """Encoder, pooler, masked-word head and next-sentence head."""

    def __init__(self, encoder: Encoder) -> None:
        """The heads have the encoder's width; the word head shares its embedding."""
        super().__init__()
        width = encoder.width
        self.encoder = encoder
        self.pooler = nn.Sequential(nn.Linear(width, width), nn.Tanh())
        self.masked_words = MaskedWordHead(width, encoder.embedding.tokens)
        self.next_sentence = nn.Linear(width, 2)

    def forward(self, ids: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
        """ids, segments [b, s] -> word logits [b, m, vocabulary], next-sentence logits [b, 2]."""
        x = self.encoder(ids, segments)
        masked = -(-15 * ids.shape[1] // 100)  # 15 %, rounded up: m
        chosen = torch.rand(ids.shape, device=ids.device).topk(masked).indices  # [b, m]
        words = x.gather(1, chosen.unsqueeze(-1).expand(-1, -1, x.shape[-1]))  # [b, m, width]
        return self.masked_words(words), self.next_sentence(self.pooler(x[:, 0]))


def bert_base() -> Bert:
    """BERT base, uncased vocabulary."""
    return Bert(Encoder(layers=12, width=768, heads=12))


def bert_large() -> Bert:
    """BERT large, uncased vocabulary."""
    return Bert(Encoder(layers=24, width=1024, heads=16))
