"""GNMT version 2: an LSTM encoder and decoder with attention.

Sources: Wu et al., "Google's Neural Machine Translation System", arXiv 1609.08144; version 2 (4 + 4 layers,
normalised additive attention of Bahdanau et al. computed from the first decoder layer) as in
github.com/NVIDIA/DeepLearningExamples, PyTorch/Translation/GNMT, and in MLPerf Training 0.6.

Tokens are [b, s]; states run time first, [s, b, width], as in that code.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

VOCABULARY = 32_320  # 32,317 joint sub-words of WMT16 English-German, rounded up to a multiple of 32


class AdditiveAttention(nn.Module):
    """Normalised additive attention of all decoder states to all encoder states."""

    def __init__(self, width: int) -> None:
        """Queries, keys and scores of ``width``."""
        super().__init__()
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.vector = nn.Parameter(torch.zeros(width).uniform_(-0.1, 0.1))
        self.scale = nn.Parameter(torch.full((1,), width**-0.5))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, states: Tensor, memory: Tensor) -> Tensor:
        """Decoder states [s, b, width], encoder states [t, b, width] -> contexts [s, b, width]."""
        keys, values = self.key(memory).transpose(0, 1), memory.transpose(0, 1)
        queries = self.query(states).transpose(0, 1)
        joined = torch.tanh(queries.unsqueeze(2) + keys.unsqueeze(1) + self.bias)  # [b, s, t, width]
        scores = joined @ (self.vector / self.vector.norm() * self.scale)
        context: Tensor = scores.softmax(dim=-1) @ values
        return context.transpose(0, 1)


class GNMT(nn.Module):
    """Shared embedding, encoder of four layers, decoder of four with attention, output layer."""

    def __init__(self, vocabulary: int = VOCABULARY, width: int = 1024, dropout: float = 0.2) -> None:
        """The first encoder layer reads both ways."""
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.both_ways = nn.LSTM(width, width, bidirectional=True)
        self.encoder = nn.ModuleList(nn.LSTM(2 * width if i == 0 else width, width) for i in range(3))
        self.attending = nn.LSTM(width, width)
        self.attention = AdditiveAttention(width)
        self.decoder = nn.ModuleList(nn.LSTM(2 * width, width) for _ in range(3))
        self.head = nn.Linear(width, vocabulary)
        self.dropout = nn.Dropout(dropout)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """source [b, t], target [b, s] -> logits [s, b, vocabulary]."""
        x = self.both_ways(self.dropout(self.embedding(source.T)))[0]
        for index, layer in enumerate(self.encoder):
            y = layer(self.dropout(x))[0]
            x = y + x if index else y
        states = self.attending(self.dropout(self.embedding(target.T)))[0]
        context = self.attention(states, x)
        x = states
        for index, layer in enumerate(self.decoder):
            y = layer(torch.cat((self.dropout(x), context), dim=-1))[0]
            x = y + x if index else y
        logits: Tensor = self.head(x)
        return logits

    def loss(self, outputs: Tensor, **inputs: Tensor) -> Tensor:
        """Cross-entropy with labels smoothed by a tenth."""
        return cross_entropy(outputs.flatten(0, 1), inputs["target"].T.flatten(), label_smoothing=0.1)


def gnmt() -> GNMT:
    """GNMT v2 for WMT16 English-German."""
    return GNMT()
