"""nnU-Net in two and three dimensions, as DeepLearningExamples train it on brain tumours.

Source: Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image
segmentation", Nature Methods 2021; depth and patch as in github.com/NVIDIA/DeepLearningExamples,
PyTorch/Segmentation/nnUNet, task 01 of the Medical Segmentation Decathlon (four images in, four classes),
without deep supervision, as its speed test runs.

Images are [b, 4, 192, 160] or [b, 4, 128, 128, 128]. Widths double from 32 up to 512 (2D) or 320 (3D); the
smallest map is 4 pixels wide or more.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, leaky_relu

from predictor.zoo.unets import dice


class Pair(nn.Module):
    """Two convolutions with instance normalisation: [b, before, ...] -> [b, after, ...]."""

    def __init__(self, dimensions: int, before: int, after: int, stride: int) -> None:
        """``stride`` of the first."""
        super().__init__()
        conv = nn.Conv2d if dimensions == 2 else nn.Conv3d
        norm = nn.InstanceNorm2d if dimensions == 2 else nn.InstanceNorm3d
        self.conv1 = conv(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm1 = norm(after, affine=True)
        self.conv2 = conv(after, after, 3, padding=1, bias=False)
        self.norm2 = norm(after, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """[b, before, ...] -> [b, after, ...]."""
        x = leaky_relu(self.norm1(self.conv1(x)), 0.01, inplace=True)
        return leaky_relu(self.norm2(self.conv2(x)), 0.01, inplace=True)


class NNUNet(nn.Module):
    """Pairs down with strides, pairs up after transposed convolutions, scores of each voxel."""

    def __init__(self, dimensions: int, widths: tuple[int, ...], channels: int = 4, classes: int = 4) -> None:
        """``widths`` of the levels."""
        super().__init__()
        sizes = (channels, *widths)
        self.down = nn.ModuleList(
            Pair(dimensions, a, b, 2 if level else 1) for level, (a, b) in enumerate(pairwise(sizes))
        )
        rise = nn.ConvTranspose2d if dimensions == 2 else nn.ConvTranspose3d
        steps = list(pairwise(reversed(widths)))
        self.rise = nn.ModuleList(rise(a, b, 2, stride=2) for a, b in steps)
        self.up = nn.ModuleList(Pair(dimensions, 2 * b, b, 1) for _, b in steps)
        self.head = (nn.Conv2d if dimensions == 2 else nn.Conv3d)(widths[0], classes, 1)

    def forward(self, volume: Tensor) -> Tensor:
        """[b, channels, ...] -> [b, classes, ...]."""
        x, seen = volume, []
        for pair in self.down:
            x = pair(x)
            seen.append(x)
        seen.pop()
        for rise, pair in zip(self.rise, self.up, strict=True):
            x = pair(torch.cat((rise(x), seen.pop()), dim=1))
        logits: Tensor = self.head(x)
        return logits

    def loss(self, outputs: Tensor, **_: Tensor) -> Tensor:
        """Cross-entropy of each voxel and the overlap of the masks."""
        right = torch.zeros_like(outputs[:, 0], dtype=torch.int64)
        return cross_entropy(outputs, right) + dice(outputs.softmax(dim=1), torch.zeros_like(outputs))


def nnunet_2d() -> NNUNet:
    """Six levels for slices of 192 x 160: 32 to 512 channels, 6 x 5 at the bottom."""
    return NNUNet(2, (32, 64, 128, 256, 512, 512))


def nnunet_3d() -> NNUNet:
    """Six levels for patches of 128 x 128 x 128: 32 to 320 channels, 4 x 4 x 4 at the bottom."""
    return NNUNet(3, (32, 64, 128, 256, 320, 320))
