"""ShuffleNet V2 for CIFAR-100: images of 32 x 32, no pooling in the stem.

Source: Ma et al., "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", ECCV 2018,
table 5 (1x); stem, biases and class count as in github.com/weiaicunzai/pytorch-cifar100, which the Zeus
study trained.
"""

import torch
from torch import Tensor, nn


def _pointwise(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]


def _depthwise(channels: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels)
    return [conv, nn.BatchNorm2d(channels)]


class ShuffleUnit(nn.Module):
    """Half of the channels convolved, then mixed: [b, before, p, p] -> [b, after, p / stride, p / stride]."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        """With a stride both branches see all channels, else each sees half."""
        super().__init__()
        self.split = stride == 1
        inner, half = before // 2 if self.split else before, after // 2
        self.branch = nn.Sequential(
            *_pointwise(inner, inner), *_depthwise(inner, stride), *_pointwise(inner, half)
        )
        self.other: nn.Module = nn.Identity()
        if not self.split:
            self.other = nn.Sequential(*_depthwise(before, stride), *_pointwise(before, half))

    def forward(self, x: Tensor) -> Tensor:
        """[b, before, p, p] -> [b, after, p / stride, p / stride]."""
        left, right = x.chunk(2, dim=1) if self.split else (x, x)
        y = torch.cat((self.other(left), self.branch(right)), dim=1)
        b, channels, height, width = y.shape
        mixed = y.view(b, 2, channels // 2, height, width).transpose(1, 2)
        return mixed.reshape(b, channels, height, width)


class ShuffleNetCifar(nn.Module):
    """Stem, three stages of units, a 1 x 1 convolution, global pooling, one fully connected layer."""

    def __init__(self, widths: tuple[int, int, int] = (116, 232, 464), classes: int = 100) -> None:
        """``widths`` of the three stages, of 4, 8 and 4 units."""
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24)]
        channels = 24
        for width, units in zip(widths, (4, 8, 4), strict=True):
            layers.append(ShuffleUnit(channels, width, 2))
            layers += [ShuffleUnit(width, width, 1) for _ in range(units - 1)]
            channels = width
        self.features = nn.Sequential(*layers, *_pointwise(channels, 1024))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(1024, classes)

    def forward(self, image: Tensor) -> Tensor:
        """[b, 3, p, p] -> [b, classes]."""
        logits: Tensor = self.head(self.pool(self.features(image)).flatten(1))
        return logits


def shufflenetv2_cifar100() -> ShuffleNetCifar:
    """ShuffleNet V2 1x for CIFAR-100."""
    return ShuffleNetCifar()
