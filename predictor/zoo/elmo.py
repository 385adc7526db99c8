"""ELMo: a bidirectional language model over characters, in its training form.

Sources: Peters et al., "Deep contextualized word representations", NAACL 2018, section 3.4; sizes,
clipping, dropout and loss as in the authors' training code, github.com/allenai/bilm-tf
(bin/train_elmo.py, bilm/training.py).

Each direction reads its own stream of words, spelled in characters [b, s, 50], and predicts the next
word of that stream. The two directions share the character encoder and the softmax; the code therefore
runs the encoder twice per step, and so do we. ``n`` is b * s words.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

FILTERS = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024))  # (characters, channels)


class Highway(nn.Module):
    """A gated mix of a layer and its input: [n, width] -> [n, width]."""

    def __init__(self, width: int) -> None:
        """Two square matrices of side ``width``."""
        super().__init__()
        self.carry = nn.Linear(width, width)
        self.transform = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[n, width] -> [n, width]."""
        gate = torch.sigmoid(self.carry(x))
        return gate * relu(self.transform(x)) + (1.0 - gate) * x


class CharacterEncoder(nn.Module):
    """Words from their characters: convolutions, the maximum over positions, two highways, a projection."""

    def __init__(
        self,
        width: int,
        characters: int = 261,
        character_width: int = 16,
        filters: tuple[tuple[int, int], ...] = FILTERS,
    ) -> None:
        """``filters`` are pairs: characters a convolution spans, channels it gives."""
        super().__init__()
        channels = sum(count for _, count in filters)
        self.characters = nn.Embedding(characters, character_width)
        self.convolutions = nn.ModuleList(nn.Conv1d(character_width, count, size) for size, count in filters)
        self.highways = nn.ModuleList(Highway(channels) for _ in range(2))
        self.projection = nn.Linear(channels, width)

    def forward(self, characters: Tensor) -> Tensor:
        """[b, s, 50] -> [b, s, width]."""
        x = self.characters(characters.flatten(0, 1)).transpose(1, 2)  # [n, character width, 50]
        x = torch.cat([relu(conv(x).amax(dim=-1)) for conv in self.convolutions], dim=-1)  # [n, channels]
        for highway in self.highways:
            x = highway(x)
        out: Tensor = self.projection(x)
        return out.view(*characters.shape[:2], -1)


class ProjectedLSTM(nn.Module):
    """One LSTM layer whose output is projected down before it is fed back: [b, s, width] -> [b, s, width].

    Cells and projections are clipped to +-3, and the forget gate starts open (+1), as in the code.
    One bias per gate, as in TensorFlow's cell; ``nn.LSTM`` would have two.
    """

    def __init__(self, width: int, cells: int) -> None:
        """``cells`` memory cells, projected to ``width``."""
        super().__init__()
        self.cells = cells
        self.gates = nn.Linear(2 * width, 4 * cells)
        self.projection = nn.Linear(cells, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[b, s, width] -> [b, s, width]."""
        hidden = x.new_zeros(x.shape[0], x.shape[2])  # [b, width]
        cell = x.new_zeros(x.shape[0], self.cells)  # [b, cells]
        outputs = []
        for word in x.unbind(dim=1):
            take, new, forget, show = self.gates(torch.cat((word, hidden), dim=-1)).chunk(4, dim=-1)
            cell = torch.sigmoid(forget + 1.0) * cell + torch.sigmoid(take) * torch.tanh(new)
            cell = cell.clamp(-3.0, 3.0)
            hidden = self.projection(torch.sigmoid(show) * torch.tanh(cell)).clamp(-3.0, 3.0)
            outputs.append(hidden)
        return torch.stack(outputs, dim=1)


class Direction(nn.Module):
    """The stacked LSTM of one reading direction; layers above the first add their input."""

    def __init__(self, layers: int, width: int, cells: int, dropout: float) -> None:
        """``dropout`` of the input of every layer and of the last output."""
        super().__init__()
        self.layers = nn.ModuleList(ProjectedLSTM(width, cells) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[b, s, width] -> [b, s, width]."""
        for depth, layer in enumerate(self.layers):
            x = self.dropout(x)
            x = layer(x) + x if depth else layer(x)
        out: Tensor = self.dropout(x)
        return out


class SampledSoftmax(nn.Module):
    """Logits of the right word and of ``samples`` drawn words instead of the whole vocabulary.

    Words are numbered by falling frequency and drawn log-uniformly, P(w) = ln((w + 2) / (w + 1)) /
    ln(vocabulary + 1); each logit is lowered by the logarithm of how often its word is expected, and a
    drawn word that is the right one is struck out (TensorFlow's ``sampled_softmax_loss``; it redraws
    repeated words, we keep them).
    """

    def __init__(self, vocabulary: int, width: int, samples: int) -> None:
        """``samples`` words are drawn per call."""
        super().__init__()
        self.vocabulary = vocabulary
        self.samples = samples
        self.weight = nn.Embedding(vocabulary, width)
        self.bias = nn.Embedding(vocabulary, 1)

    def forward(self, hidden: Tensor, words: Tensor) -> Tensor:
        """hidden [n, width], words [n] -> logits [n, 1 + samples], the right word first."""
        drawn = (self.vocabulary + 1.0) ** torch.rand(self.samples, device=words.device)
        drawn = (drawn.long() - 1).clamp(0, self.vocabulary - 1)
        ids = torch.cat((words, drawn))  # [n + samples]: one look-up, so one gradient of the table
        chance = torch.log1p(1.0 / (ids + 1)) / math.log(self.vocabulary + 1)
        expected = torch.log(self.samples * chance).to(hidden.dtype)
        offset = self.bias(ids).squeeze(-1) - expected
        right, others = self.weight(ids).split((len(words), self.samples))
        right_offset, other_offset = offset.split((len(words), self.samples))
        right_logit = (hidden * right).sum(dim=-1) + right_offset  # [n]
        other_logits = hidden @ others.T + other_offset  # [n, samples]
        other_logits = other_logits.masked_fill(drawn == words.unsqueeze(1), -1e4)
        return torch.cat((right_logit.unsqueeze(1), other_logits), dim=1)


class ELMo(nn.Module):
    """Character encoder, one stacked LSTM per direction, shared sampled softmax."""

    def __init__(
        self,
        *,
        layers: int = 2,
        width: int = 512,
        cells: int = 4096,
        vocabulary: int = 793_471,
        samples: int = 8192,
        filters: tuple[tuple[int, int], ...] = FILTERS,
        dropout: float = 0.1,
    ) -> None:
        """Defaults are the published sizes."""
        super().__init__()
        self.encoder = CharacterEncoder(width, filters=filters)
        self.ahead = Direction(layers, width, cells, dropout)
        self.back = Direction(layers, width, cells, dropout)
        self.softmax = SampledSoftmax(vocabulary, width, samples)

    def forward(
        self, characters: Tensor, words: Tensor, back_characters: Tensor, back_words: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Characters [b, s, 50] and the words that follow [b, s], per direction -> 2 x [n, 1 + samples]."""
        ahead = self.ahead(self.encoder(characters)).flatten(0, 1)
        back = self.back(self.encoder(back_characters)).flatten(0, 1)
        return self.softmax(ahead, words.flatten()), self.softmax(back, back_words.flatten())

    def loss(self, outputs: tuple[Tensor, Tensor], **inputs: Tensor) -> Tensor:
        """Mean cross-entropy of both directions; the right word is class 0."""
        first = torch.zeros_like(inputs["words"]).flatten()
        return (cross_entropy(outputs[0], first) + cross_entropy(outputs[1], first)) / 2


def elmo() -> ELMo:
    """ELMo as trained on the 1 Billion Word Benchmark."""
    return ELMo()
