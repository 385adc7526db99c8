"""A one-block Transformer that says whether a film review is kind.

Source: Keras' example "Text classification with Transformer"
(keras.io/examples/nlp/text_classification_with_transformer): 20,000 words, 200 tokens, width 32, two heads
of 32, feed-forward 32. mac-ml-speed-test trains it on IMDB.
"""

from torch import Tensor, nn
from torch.nn.functional import relu

from predictor.zoo.parts import Attention, learned_positions


class SmallTransformer(nn.Module):
    """Token and position embeddings, one block, the mean over tokens, two layers."""

    def __init__(self, vocabulary: int = 20_000, context: int = 200, width: int = 32, heads: int = 2) -> None:
        """Heads are as wide as the model, as Keras' ``key_dim`` says."""
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.attention = Attention(width, heads, head_size=width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.dropout = nn.Dropout(0.1)
        self.inner = nn.Linear(width, 20)
        self.head = nn.Linear(20, 2)

    def forward(self, ids: Tensor) -> Tensor:
        """[b, s] -> [b, 2]."""
        x = self.tokens(ids) + learned_positions(self.positions, ids.shape[1])
        x = self.norm1(x + self.dropout(self.attention(x)))
        x = self.norm2(x + self.dropout(self.mlp(x)))
        x = self.dropout(relu(self.inner(self.dropout(x.mean(dim=1)))))
        logits: Tensor = self.head(x)
        return logits


def small_transformer() -> SmallTransformer:
    """The example's sizes."""
    return SmallTransformer()
