"""BERT for fine-tuning: the encoder with a head per token or per sequence, and ELECTRA, which trains one.

Sources: Devlin et al., NAACL 2019, section 4; Clark et al., "ELECTRA: Pre-training Text Encoders as
Discriminators Rather Than Generators", ICLR 2020. Sequences are taken as full, so no padding mask is
passed.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from predictor.zoo.bert import EPSILON, BertLayer, Encoder

MASKED = 0.15  # of the positions are predicted


class TokenHead(nn.Module):
    """Scores for each token: two for the ends of an answer, or one for each kind of name."""

    def __init__(self, encoder: Encoder, classes: int, dropout: float = 0.0) -> None:
        """``classes`` of each token; ``dropout`` before the head."""
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.width, classes)

    def forward(self, ids: Tensor, segments: Tensor) -> Tensor:
        """Both [b, s] -> [b, s, classes]."""
        logits: Tensor = self.head(self.dropout(self.encoder(ids, segments)))
        return logits


class AnswerHead(TokenHead):
    """The first and last token of the answer to a question (SQuAD)."""

    def loss(self, outputs: Tensor, **inputs: Tensor) -> Tensor:
        """Mean cross-entropy of the first and of the last token over the positions."""
        right = torch.zeros_like(inputs["ids"][:, 0])
        first, last = outputs.unbind(dim=-1)
        return (cross_entropy(first, right) + cross_entropy(last, right)) / 2


class SequenceHead(nn.Module):
    """One label for the whole sequence, from the first token."""

    def __init__(self, encoder: Encoder, classes: int, dropout: float = 0.1) -> None:
        """``classes`` of a sequence."""
        super().__init__()
        self.encoder = encoder
        self.pooler = nn.Sequential(nn.Linear(encoder.width, encoder.width), nn.Tanh())
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.width, classes)

    def forward(self, ids: Tensor, segments: Tensor) -> Tensor:
        """Both [b, s] -> [b, classes]."""
        logits: Tensor = self.head(self.dropout(self.pooler(self.encoder(ids, segments)[:, 0])))
        return logits


class Electra(nn.Module):
    """A small masked-word generator, and a discriminator that says of each token whether it was replaced.

    Both share the embedding, which has the discriminator's width; the generator narrows it.
    """

    def __init__(
        self, *, layers: int, width: int, heads: int, shrink: int = 3, vocabulary: int = 30522
    ) -> None:
        """The generator is ``shrink`` times narrower, with as many layers."""
        super().__init__()
        narrow = width // shrink
        self.discriminator = Encoder(layers=layers, width=width, heads=heads, vocabulary=vocabulary)
        self.narrow = nn.Linear(width, narrow)
        self.generator = nn.ModuleList(BertLayer(narrow, heads // shrink, 0.1) for _ in range(layers))
        self.widen = nn.Sequential(nn.Linear(narrow, width), nn.GELU(), nn.LayerNorm(width, EPSILON))
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))

    def forward(self, ids: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
        """Both [b, s] -> word logits [b, m, vocabulary], replaced-or-not logits [b, s]."""
        embedding = self.discriminator.embedding
        x = self.narrow(embedding(ids, segments))
        for layer in self.generator:
            x = layer(x)
        b, s = ids.shape
        chosen = torch.randint(s, (b, -(-int(100 * MASKED) * s // 100)), device=ids.device)
        at_chosen = x.gather(1, chosen.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        words = nn.functional.linear(self.widen(at_chosen), embedding.tokens.weight, self.bias)
        noise = -torch.empty_like(words).exponential_().log()
        replaced = ids.scatter(1, chosen, (words.detach() + noise).argmax(dim=-1))
        return words, self.head(self.discriminator(replaced, segments)).squeeze(-1)

    def loss(self, outputs: tuple[Tensor, Tensor], **_: Tensor) -> Tensor:
        """Masked-word cross-entropy, and 50 times the discriminator's."""
        words, replaced = outputs
        flat = words.flatten(0, 1)
        right = torch.zeros(len(flat), dtype=torch.int64, device=flat.device)
        found = binary_cross_entropy_with_logits(replaced, torch.zeros_like(replaced))
        return cross_entropy(flat, right) + 50.0 * found


def _base() -> Encoder:
    return Encoder(layers=12, width=768, heads=12)


def bert_base_squad() -> AnswerHead:
    """BERT base that answers questions from a paragraph."""
    return AnswerHead(_base(), 2)


def bert_large_squad() -> AnswerHead:
    """BERT large that answers questions from a paragraph."""
    return AnswerHead(Encoder(layers=24, width=1024, heads=16), 2)


def bert_base_names() -> TokenHead:
    """BERT base that marks names: outside, begin, inside."""
    return TokenHead(_base(), 3, dropout=0.1)


def bert_base_sentiment() -> SequenceHead:
    """BERT base with two classes per sequence."""
    return SequenceHead(_base(), 2)


def electra_base() -> Electra:
    """ELECTRA base in pre-training."""
    return Electra(layers=12, width=768, heads=12)
