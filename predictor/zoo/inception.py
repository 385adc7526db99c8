"""Convolutional networks of 2013 and 2014 that no library keeps: OverFeat and GoogLeNet (Inception v1).

Images are [b, 3, p, p]; logits are [b, classes].
"""

import torch
from torch import Tensor, nn

from predictor.zoo.parts import check_image

# Channels of each inception block: 1 x 1; 3 x 3 reduce, 3 x 3; 5 x 5 reduce, 5 x 5; after the pooling.
# None stands for a pooling between blocks. Szegedy et al., table 1.
BLOCKS = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    None,
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    None,
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)


def _conv(before: int, after: int, side: int, stride: int = 1) -> nn.Sequential:
    """A convolution that keeps p (up to its stride), then ReLU."""
    return nn.Sequential(
        nn.Conv2d(before, after, side, stride=stride, padding=side // 2), nn.ReLU(inplace=True)
    )


class InceptionBlock(nn.Module):
    """Four branches side by side: [b, before, p, p] -> [b, after, p, p]."""

    def __init__(self, before: int, one: int, in3: int, out3: int, in5: int, out5: int, pooled: int) -> None:
        """Channels as in ``BLOCKS``."""
        super().__init__()
        self.after = one + out3 + out5 + pooled
        self.branches = nn.ModuleList(
            (
                _conv(before, one, 1),
                nn.Sequential(_conv(before, in3, 1), _conv(in3, out3, 3)),
                nn.Sequential(_conv(before, in5, 1), _conv(in5, out5, 5)),
                nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), _conv(before, pooled, 1)),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """[b, before, p, p] -> [b, after, p, p]."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class GoogLeNet(nn.Module):
    """22 layers with nine inception blocks, without the two auxiliary classifiers.

    Source: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, table 1. No batch normalisation
    (torchvision's ``googlenet`` has it). The local response normalisation of the stem is optional: public
    speed tests left it out.
    """

    def __init__(self, local_response: bool = True, classes: int = 1000) -> None:
        """``local_response``: normalise after the first pooling and before the second."""
        super().__init__()
        normalise = [nn.LocalResponseNorm(5)] if local_response else []
        pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.stem = nn.Sequential(
            _conv(3, 64, 7, stride=2), pool, *normalise, _conv(64, 64, 1), _conv(64, 192, 3), *normalise, pool
        )
        blocks: list[nn.Module] = []
        channels = 192
        for sizes in BLOCKS:
            if sizes is None:
                blocks.append(nn.MaxPool2d(3, stride=2, ceil_mode=True))
                continue
            block = InceptionBlock(channels, *sizes)
            channels = block.after
            blocks.append(block)
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.4)
        self.head = nn.Linear(channels, classes)

    def forward(self, image: Tensor) -> Tensor:
        """[b, 3, p, p] -> [b, classes]."""
        x = self.pool(self.blocks(self.stem(image))).flatten(1)
        logits: Tensor = self.head(self.dropout(x))
        return logits


class OverFeat(nn.Module):
    """Five convolutions and three fully connected layers, for images of 231 x 231.

    Source: Sermanet et al., "OverFeat: Integrated Recognition, Localization and Detection using
    Convolutional Networks", ICLR 2014, table 1 (the fast model).
    """

    def __init__(self, classes: int = 1000) -> None:
        """``classes`` of the last layer."""
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 11, stride=4),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(96, 256, 5),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            _conv(256, 512, 3),
            _conv(512, 1024, 3),
            _conv(1024, 1024, 3),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),
            nn.Linear(1024 * 6 * 6, 3072),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(3072, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, classes),
        )

    def forward(self, image: Tensor) -> Tensor:
        """[b, 3, 231, 231] -> [b, classes]."""
        check_image(image, 231)
        logits: Tensor = self.classifier(self.features(image).flatten(1))
        return logits


def googlenet() -> GoogLeNet:
    """GoogLeNet as in the paper, with the main classifier only."""
    return GoogLeNet()


def googlenet_without_lrn() -> GoogLeNet:
    """GoogLeNet without local response normalisation."""
    return GoogLeNet(local_response=False)


def overfeat() -> OverFeat:
    """OverFeat, the fast model."""
    return OverFeat()
