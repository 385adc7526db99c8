"""The Vision Transformer.

Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021: section 3.1, tables 1 and 3.

Images are [b, 3, p, p], tokens [b, s, width] with s = 1 + (p / patch)^2.
"""

import torch
from torch import Tensor, nn

from predictor.zoo.parts import SelfAttention, check_image

EPSILON = 1e-6  # of every LayerNorm, as released


class ViTLayer(nn.Module):
    """Attention and feed-forward, normalised before each: [b, s, width] -> [b, s, width].

    Dropout follows every dense layer but the one that makes queries, keys and values (appendix B.1).
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        """``dropout`` of the results of dense layers."""
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, EPSILON)
        self.attention = SelfAttention(width, heads)
        self.mlp_norm = nn.LayerNorm(width, EPSILON)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[b, s, width] -> [b, s, width]."""
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        x = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return x


class ViT(nn.Module):
    """Patches as tokens behind one class token, whose last state is classified."""

    def __init__(
        self,
        *,
        layers: int,
        width: int,
        heads: int,
        side: int = 224,
        patch: int = 16,
        classes: int = 1000,
        dropout: float = 0.1,
    ) -> None:
        """``side`` of the images, ``patch`` of the squares they are cut into."""
        super().__init__()
        self.side = side
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + (side // patch) ** 2, width))
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(ViTLayer(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width, EPSILON)
        self.head = nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        """[b, 3, p, p] -> logits [b, classes]."""
        check_image(image, self.side)
        patches = self.patches(image).flatten(2).transpose(1, 2)  # [b, s - 1, width]
        x = torch.cat((self.class_token.expand(len(image), -1, -1), patches), dim=1)
        x = self.dropout(x + self.positions)
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.head(self.norm(x)[:, 0])
        return logits


def vit_b_16(image_size: int = 224) -> ViT:
    """ViT-B/16; its positions are made for ``image_size``."""
    return ViT(layers=12, width=768, heads=12, side=image_size)


def vit_l_16(image_size: int = 224) -> ViT:
    """ViT-L/16; its positions are made for ``image_size``."""
    return ViT(layers=24, width=1024, heads=16, side=image_size)
