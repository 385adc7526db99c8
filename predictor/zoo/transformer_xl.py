"""Transformer-XL: relative positions, and a memory of the hidden states of the segment before.

Source: Dai et al., "Transformer-XL: Attentive Language Models beyond a Fixed-Length Context", ACL 2019;
sizes as in github.com/NVIDIA/DeepLearningExamples, PyTorch/LanguageModeling/Transformer-XL, on
WikiText-103.

Tokens are [b, s]; hidden states [s, b, width], time first as in the authors' code; the memory is [layers +
1, m, b, width]. The output layer is either the full softmax over 267,735 words or the adaptive one of Grave
et al. (arXiv 1609.04309): frequent words first, the rest in three clusters behind one score each.
"""

from itertools import pairwise
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, pad, relu

VOCABULARY = 267_735  # words of WikiText-103
CUTOFFS = (19_997, 39_997, 199_997)
# Part of the running words that fall into the three rare clusters (estimate: WikiText-103 is about nine
# tenths words of the first 20,000). How many do depends on data; a recording needs a number.
RARE_SHARES = (0.04, 0.04, 0.004)


class RelativeAttention(nn.Module):
    """Attention of a segment to its memory and itself, with relative positions: [s, b, width] -> the same."""

    def __init__(self, width: int, heads: int, head_size: int, dropout: float, drop_weights: float) -> None:
        """``drop_weights``: dropout of the attention weights."""
        super().__init__()
        self.heads, self.head_size = heads, head_size
        inner = heads * head_size
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.position = nn.Linear(width, inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.drop_weights = nn.Dropout(drop_weights)

    def forward(
        self, x: Tensor, memory: Tensor, positions: Tensor, content: Tensor, place: Tensor, mask: Tensor
    ) -> Tensor:
        """Hidden states x [s, b, width] and the memory [m, b, width] before them -> [s, b, width].

        positions  embeddings of the distances m + s - 1 ... 0 [m + s, width]
        content    bias of the content scores [h, d]
        place      bias of the position scores [h, d]
        mask       true where a word must not look [s, m + s]
        """
        q, k, v = self.qkv(torch.cat((memory, x))).chunk(3, dim=-1)
        q, k, v = (t.unflatten(-1, (self.heads, self.head_size)) for t in (q[-len(x) :], k, v))
        distance = self.position(positions).unflatten(-1, (self.heads, self.head_size))
        by_content = torch.einsum("ibnd,jbnd->bnij", q + content, k)
        by_place = _shift(torch.einsum("ibnd,jnd->bnij", q + place, distance))
        scores = (by_content + by_place) * self.head_size**-0.5
        weights = self.drop_weights(scores.masked_fill(mask, -torch.inf).softmax(dim=-1))
        mixed = torch.einsum("bnij,jbnd->ibnd", weights, v).flatten(-2)
        out: Tensor = self.norm(x + self.dropout(self.out(mixed)))
        return out


def _shift(scores: Tensor) -> Tensor:
    """Row i of [b, h, s, t] moved left by s - 1 - i, so that columns are keys instead of distances."""
    b, h, s, t = scores.shape
    return pad(scores, (1, 0)).view(b, h, t + 1, s)[:, :, 1:].reshape(b, h, s, t)


class FeedForward(nn.Module):
    """Two layers beside a shortcut, then normalisation."""

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        """``dropout`` after both layers."""
        super().__init__()
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[s, b, width] -> [s, b, width]."""
        y = self.dropout(self.down(self.dropout(relu(self.up(x)))))
        out: Tensor = self.norm(x + y)
        return out


class Words(nn.Module):
    """Embedding and output layer in one: the same matrices read words and score them."""

    def __init__(self, vocabulary: int, width: int, cutoffs: tuple[int, ...], shrink: int) -> None:
        """Words are cut into clusters at ``cutoffs``, each ``shrink`` times narrower than the one before."""
        super().__init__()
        edges = (0, *cutoffs, vocabulary)
        self.width, self.shrink, self.edges = width, shrink, edges
        together = [vocabulary] if shrink == 1 else [b - a for a, b in pairwise(edges)]
        self.tables = nn.ModuleList(
            nn.Embedding(count, width // shrink**index) for index, count in enumerate(together)
        )
        self.biases = nn.Parameter(torch.zeros(vocabulary))
        self.widen = nn.ModuleList(
            nn.Linear(width // shrink**index, width, bias=False)
            for index in range(len(together) if shrink > 1 else 0)
        )
        # The frequent words are as wide as the states; their output projection is not the input's.
        self.project = nn.Linear(width, width, bias=False) if shrink > 1 else nn.Identity()
        self.clusters = nn.Linear(width, len(cutoffs)) if cutoffs else None

    def _matrix(self, cluster: int) -> Tensor:
        table = self.tables[cluster if self.shrink > 1 else 0]
        assert isinstance(table, nn.Embedding)
        if self.shrink > 1:
            return table.weight
        return table.weight[self.edges[cluster] : self.edges[cluster + 1]]

    def forward(self, ids: Tensor) -> Tensor:
        """[s, b] -> [s, b, width], scaled by the root of the width."""
        flat = ids.flatten()
        if self.shrink == 1:
            found = self.tables[0](flat)
        else:
            counts = _cluster_sizes(flat.shape[0], len(self.edges) - 1)
            rows = [self._within(part, i) for i, part in enumerate(torch.split(flat, counts))]
            found = torch.cat([w(t(r)) for w, t, r in zip(self.widen, self.tables, rows, strict=True)])
        out: Tensor = found.view(*ids.shape, self.width) * self.width**0.5
        return out

    def loss(self, hidden: Tensor, words: Tensor) -> Tensor:
        """Mean surprise at ``words`` [n] given hidden states [n, width]."""
        if self.clusters is None:
            return cross_entropy(linear(hidden, self._matrix(0), self.biases), words)
        clusters = len(self.edges) - 1
        counts = _cluster_sizes(len(words), clusters)
        head = torch.cat((self._scores(hidden, 0), self.clusters(hidden)), dim=1)
        total = cross_entropy(head, words.clamp(max=head.shape[1] - 1), reduction="sum")
        for cluster, (states, targets) in enumerate(
            zip(torch.split(hidden, counts), torch.split(words, counts), strict=True)
        ):
            if cluster:
                inside = self._within(targets, cluster)
                total = total + cross_entropy(self._scores(states, cluster), inside, reduction="sum")
        return total / len(words)

    def _within(self, words: Tensor, cluster: int) -> Tensor:
        """Words as numbers inside a cluster; those of other clusters, taken for it, are moved to its edge."""
        low, high = self.edges[cluster : cluster + 2]
        return words.clamp(low, high - 1) - low

    def _scores(self, hidden: Tensor, cluster: int) -> Tensor:
        narrow = hidden if cluster else self.project(hidden)
        if self.shrink > 1 and cluster:
            widen = self.widen[cluster]
            assert isinstance(widen, nn.Linear)
            narrow = linear(hidden, widen.weight.T)
        return linear(
            narrow, self._matrix(cluster), self.biases[self.edges[cluster] : self.edges[cluster + 1]]
        )


def _cluster_sizes(words: int, clusters: int) -> list[int]:
    """How many of ``words`` fall into each cluster, at the assumed shares; at least one in each."""
    rare = [max(1, ceil(words * share)) for share in RARE_SHARES[: clusters - 1]]
    return [words - sum(rare), *rare]


class TransformerXL(nn.Module):
    """Words, layers with memory, and the output layer."""

    def __init__(
        self,
        *,
        layers: int,
        width: int,
        heads: int,
        inner: int,
        dropout: float,
        drop_weights: float,
        head_size: int = 64,
        cutoffs: tuple[int, ...] = (),
        shrink: int = 1,
        vocabulary: int = VOCABULARY,
    ) -> None:
        """Without ``cutoffs`` the softmax is over all words."""
        super().__init__()
        self.width = width
        self.words = Words(vocabulary, width, cutoffs, shrink)
        self.content_bias = nn.Parameter(torch.zeros(heads, head_size))
        self.place_bias = nn.Parameter(torch.zeros(heads, head_size))
        self.attention = nn.ModuleList(
            RelativeAttention(width, heads, head_size, dropout, drop_weights) for _ in range(layers)
        )
        self.mlps = nn.ModuleList(FeedForward(width, inner, dropout) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """ids [b, s], memory [layers + 1, m, b, width] -> hidden states [s, b, width], the next memory."""
        x = self.dropout(self.words(ids.T))
        s, length = len(x), memory.shape[1] + len(x)
        positions = self.dropout(self._positions(length, x))
        mask = torch.ones(s, length, dtype=torch.bool, device=x.device).triu(1 + memory.shape[1])
        states = [x]
        for index, (attention, mlp) in enumerate(zip(self.attention, self.mlps, strict=True)):
            x = attention(x, memory[index], positions, self.content_bias, self.place_bias, mask)
            x = mlp(x)
            states.append(x)
        x = self.dropout(x)
        with torch.no_grad():
            kept = torch.cat((memory, torch.stack(states)), dim=1)[:, s:].detach()
        return x, kept

    def _positions(self, length: int, like: Tensor) -> Tensor:
        """Sines and cosines of the distances length - 1 ... 0: [length, width]."""
        distance = torch.arange(length - 1, -1, -1.0, device=like.device, dtype=like.dtype)
        steps = torch.arange(0, self.width, 2.0, device=like.device, dtype=like.dtype)
        angles = torch.outer(distance, 10000 ** (-steps / self.width))
        return torch.cat((angles.sin(), angles.cos()), dim=-1)

    def loss(self, outputs: tuple[Tensor, Tensor], **inputs: Tensor) -> Tensor:
        """Mean surprise at the words of the segment."""
        return self.words.loss(outputs[0].flatten(0, 1), inputs["ids"].T.flatten())


def _base(cutoffs: tuple[int, ...]) -> TransformerXL:
    return TransformerXL(
        layers=16, width=512, heads=8, inner=2048, dropout=0.1, drop_weights=0.0, cutoffs=cutoffs
    )


def _large(cutoffs: tuple[int, ...], shrink: int) -> TransformerXL:
    return TransformerXL(
        layers=18,
        width=1024,
        heads=16,
        inner=4096,
        dropout=0.2,
        drop_weights=0.2,
        cutoffs=cutoffs,
        shrink=shrink,
    )


def transformer_xl_base() -> TransformerXL:
    """Base, with adaptive softmax."""
    return _base(CUTOFFS)


def transformer_xl_large() -> TransformerXL:
    """Large, with adaptive softmax and narrower rare words."""
    return _large(CUTOFFS, 4)


def transformer_xl_base_full() -> TransformerXL:
    """Base, with the softmax over all words."""
    return _base(())


def transformer_xl_large_full() -> TransformerXL:
    """Large, with the softmax over all words."""
    return _large((), 1)
