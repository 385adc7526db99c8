"""Recommenders: NCF, DLRM and Wide & Deep in the sizes of NVIDIA's DeepLearningExamples, and Mult-VAE.

``b`` is the number of pairs of a user and an item (NCF), of records (DLRM, Wide & Deep) or of users
(Mult-VAE).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax, normalize

MOVIELENS_20M = (138_493, 26_744)  # users and items of MovieLens 20M
# Outbrain's click data: entries and widths of the 13 tables; NVIDIA/DeepLearningExamples,
# TensorFlow2/Recommendation/WideAndDeep (data/outbrain/features.py).
OUTBRAIN = (
    (300_000, 128), (250_000, 128), (100_000, 128), (5_000, 128), (4_000, 64), (4_000, 64), (2_500, 64),
    (2_500, 64), (2_000, 64), (1_000, 64), (1_000, 64), (300, 64), (4, 19),
)  # fmt: skip
# Criteo 1TB, categories seen at least 15 times: entries of the 26 tables; NVIDIA/DeepLearningExamples,
# criteo_t15_synthetic.
CRITEO = (
    7_912_889, 33_823, 17_139, 7_339, 20_046, 4, 7_105, 1_382, 63, 5_554_114, 582_469, 245_828, 11,
    2_209, 10_667, 104, 4, 968, 15, 8_165_896, 2_675_940, 7_156_453, 302_516, 12_022, 97, 35,
)  # fmt: skip


def dense_stack(widths: tuple[int, ...], dropout: float = 0.0, last: bool = True) -> nn.Sequential:
    """Linear layers with ReLU between them; ``last``: ReLU after the last one too."""
    layers: list[nn.Module] = []
    for index, (before, after) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(before, after))
        if last or index < len(widths) - 2:
            layers.append(nn.ReLU())
            layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers)


def _right_or_wrong(logits: Tensor) -> Tensor:
    """Cross-entropy of one logit each against zeros of the same shape."""
    return binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))


class NeuMF(nn.Module):
    """Neural matrix factorisation: a product of embeddings beside a perceptron over two others.

    Source: He et al., "Neural Collaborative Filtering", WWW 2017; widths as in DeepLearningExamples,
    PyTorch/Recommendation/NCF: 64 factors, layers 256, 256, 128, 64, dropout 0.5. Gradients of the tables
    are dense.
    """

    def __init__(
        self, users: int, items: int, factors: int = 64, layers: tuple[int, ...] = (256, 256, 128, 64)
    ) -> None:
        """``layers[0]`` is the width of a user's and an item's embedding side by side."""
        super().__init__()
        self.user_factors = nn.Embedding(users, factors)
        self.item_factors = nn.Embedding(items, factors)
        self.user_features = nn.Embedding(users, layers[0] // 2)
        self.item_features = nn.Embedding(items, layers[0] // 2)
        self.layers = dense_stack(layers, dropout=0.5)
        self.head = nn.Linear(layers[-1] + factors, 1)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Both [b] -> logits [b, 1]."""
        product = self.user_factors(user) * self.item_factors(item)
        features = torch.cat((self.user_features(user), self.item_features(item)), dim=1)
        logits: Tensor = self.head(torch.cat((product, self.layers(features)), dim=1))
        return logits

    def loss(self, outputs: Tensor, **_: Tensor) -> Tensor:
        """Did the user choose the item."""
        return _right_or_wrong(outputs)


class DLRM(nn.Module):
    """Deep learning recommendation model: dot products between all embeddings and a dense vector.

    Source: Naumov et al., arXiv 1906.00091; sizes as in DeepLearningExamples, PyTorch/Recommendation/DLRM
    ("small": embeddings of width 128). Gradients of the tables are sparse: only rows looked up are written.
    """

    def __init__(
        self,
        tables: tuple[int, ...],
        width: int = 128,
        bottom: tuple[int, ...] = (13, 512, 256, 128),
        top: tuple[int, ...] = (1024, 1024, 512, 256, 1),
    ) -> None:
        """``tables``: entries of each; ``top`` takes the dense vector and the products of all pairs."""
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(rows, width, sparse=True) for rows in tables)
        self.bottom = dense_stack(bottom)
        features = len(tables) + 1
        inputs = width + features * (features - 1) // 2
        # One column of zeros brings the width of the first matrix to an even number, as in the example.
        self.padding = inputs % 2
        self.top = dense_stack((inputs + self.padding, *top), last=False)
        self.pairs: Tensor
        rows, columns = torch.tril_indices(features, features, -1)
        self.register_buffer("pairs", rows * features + columns)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Numbers [b, 13], categories [b, tables] -> logits [b, 1]."""
        dense = self.bottom(numbers)
        rows = [table(column) for table, column in zip(self.tables, categories.unbind(1), strict=True)]
        all_vectors = torch.stack((dense, *rows), dim=1)  # [b, features, width]
        products = (all_vectors @ all_vectors.mT).flatten(1)[:, self.pairs]
        parts = [dense, products]
        if self.padding:
            parts.append(dense.new_zeros(dense.shape[0], self.padding))
        logits: Tensor = self.top(torch.cat(parts, dim=1))
        return logits

    def loss(self, outputs: Tensor, **_: Tensor) -> Tensor:
        """Was the advertisement clicked."""
        return _right_or_wrong(outputs)


class MultVAE(nn.Module):
    """Variational autoencoder over the items of a user.

    Source: Liang et al., "Variational Autoencoders for Collaborative Filtering", WWW 2018: one hidden layer
    of 600, latent 200, tanh, dropout 0.5 of the input, on the 20,108 films of MovieLens 20M with five
    ratings or more.
    """

    def __init__(self, items: int = 20_108, hidden: int = 600, latent: int = 200) -> None:
        """The encoder gives a mean and a variance for each latent number."""
        super().__init__()
        self.latent = latent
        self.dropout = nn.Dropout(0.5)
        self.encoder = nn.Sequential(nn.Linear(items, hidden), nn.Tanh(), nn.Linear(hidden, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.Tanh(), nn.Linear(hidden, items))

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[b, items] of zeros and ones -> scores [b, items], mean and log-variance [b, latent]."""
        mean, log_variance = self.encoder(self.dropout(normalize(seen))).chunk(2, dim=1)
        drawn = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        return self.decoder(drawn), mean, log_variance

    def loss(self, outputs: tuple[Tensor, Tensor, Tensor], **inputs: Tensor) -> Tensor:
        """Multinomial likelihood, and a fifth of the divergence from the normal prior."""
        scores, mean, log_variance = outputs
        likelihood = (log_softmax(scores, dim=1) * inputs["seen"]).sum(dim=1).mean()
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(dim=1).mean()
        return 0.2 * divergence - likelihood


class WideAndDeep(nn.Module):
    """A linear model over the same features beside a perceptron over their embeddings.

    Source: Cheng et al., "Wide & Deep Learning for Recommender Systems", DLRS 2016; sizes as in
    DeepLearningExamples, TensorFlow2/Recommendation/WideAndDeep: 13 numbers, 13 categories, five layers of
    1024. Gradients of the tables are sparse.
    """

    def __init__(
        self, tables: tuple[tuple[int, int], ...], numbers: int = 13, layers: tuple[int, ...] = (1024,) * 5
    ) -> None:
        """``tables``: entries and width of each."""
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(rows, width, sparse=True) for rows, width in tables)
        self.wide = nn.ModuleList(nn.Embedding(rows, 1, sparse=True) for rows, _ in tables)
        self.wide_numbers = nn.Linear(numbers, 1)
        features = numbers + sum(width for _, width in tables)
        self.layers = dense_stack((features, *layers), dropout=0.1)
        self.head = nn.Linear(layers[-1], 1)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Numbers [b, 13], categories [b, tables] -> logits [b, 1]."""
        columns = categories.unbind(1)
        deep = [table(column) for table, column in zip(self.tables, columns, strict=True)]
        wide = [table(column) for table, column in zip(self.wide, columns, strict=True)]
        linear = self.wide_numbers(numbers) + torch.cat(wide, dim=1).sum(dim=1, keepdim=True)
        logits: Tensor = linear + self.head(self.layers(torch.cat((numbers, *deep), dim=1)))
        return logits

    def loss(self, outputs: Tensor, **_: Tensor) -> Tensor:
        """Was the advertisement clicked."""
        return _right_or_wrong(outputs)


def wide_and_deep() -> WideAndDeep:
    """Wide & Deep for Outbrain's click data."""
    return WideAndDeep(OUTBRAIN)


def ncf() -> NeuMF:
    """NeuMF for MovieLens 20M."""
    return NeuMF(*MOVIELENS_20M)


def dlrm_small() -> DLRM:
    """DLRM with the tables of 16 GB."""
    return DLRM(CRITEO)


def vae_cf() -> MultVAE:
    """Mult-VAE for MovieLens 20M."""
    return MultVAE()
