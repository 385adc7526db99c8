"""U-shaped networks for segmentation: the paper's, two small 3D ones and an industrial one.

Source: Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015;
the others as in github.com/NVIDIA/DeepLearningExamples, TensorFlow/Segmentation (UNet_Medical,
UNet_Industrial, UNet_3D_Medical, VNet).

Images are [b, c, p, p], volumes [b, c, p, p, p].
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu


def dice(chance: Tensor, truth: Tensor) -> Tensor:
    """One minus the overlap of two masks [b, classes, ...], mean over images and classes."""
    axes = tuple(range(2, chance.dim()))
    together = 2.0 * (chance * truth).sum(dim=axes)
    return 1.0 - (together / (chance.sum(dim=axes) + truth.sum(dim=axes) + 1e-6)).mean()


class PlainPair(nn.Module):
    """Two 3 x 3 convolutions with ReLU; without padding each takes a pixel from every side."""

    def __init__(self, before: int, middle: int, after: int, padding: int) -> None:
        """Channels, and ``padding`` of both."""
        super().__init__()
        self.conv1 = nn.Conv2d(before, middle, 3, padding=padding)
        self.conv2 = nn.Conv2d(middle, after, 3, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """[b, before, p, p] -> [b, after, p, p]."""
        return relu(self.conv2(relu(self.conv1(x))))


class UNet(nn.Module):
    """Down, up with what was seen on the way down, one score per pixel and class."""

    def __init__(
        self,
        down: tuple[int, ...],
        middle: int,
        up: tuple[tuple[int, int], ...],
        *,
        classes: int,
        padding: int,
        kernel: int,
        channels: int = 1,
        dropout: float = 0.0,
    ) -> None:
        """Sizes.

        down     channels of the pairs on the way down, before each pooling
        middle   channels of the pair at the bottom; its upsampling halves them
        up       channels of the two convolutions of each pair on the way up
        padding  of the convolutions; without, the edges of what comes from the way down are cut off
        kernel   side of the upsampling convolution
        """
        super().__init__()
        sizes = (channels, *down)
        self.down = nn.ModuleList(PlainPair(a, b, b, padding) for a, b in pairwise(sizes))
        self.middle = PlainPair(down[-1], middle, middle, padding)
        self.dropout = nn.Dropout(dropout)
        self.rise = nn.ModuleList()
        self.up = nn.ModuleList()
        before, after = middle, middle // 2
        for (first, second), skipped in zip(up, reversed(down), strict=True):
            edge = 1 if kernel == 3 else 0  # so that the side doubles exactly
            self.rise.append(nn.ConvTranspose2d(before, after, kernel, 2, edge, output_padding=edge))
            self.up.append(PlainPair(after + skipped, first, second, padding))
            before, after = second, first // 2
        self.head = nn.Conv2d(before, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """[b, channels, p, p] -> [b, classes, q, q]; q = p with padding, else smaller."""
        x, skipped = image, []
        for pair in self.down:
            x = pair(x)
            skipped.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.dropout(self.middle(x))
        for rise, pair in zip(self.rise, self.up, strict=True):
            x = relu(rise(x))
            seen = skipped.pop()
            edge = (seen.shape[-1] - x.shape[-1]) // 2
            side = x.shape[-1]
            x = pair(torch.cat((x, seen[..., edge : edge + side, edge : edge + side]), dim=1))
        logits: Tensor = self.head(x)
        return logits

    def loss(self, outputs: Tensor, **_: Tensor) -> Tensor:
        """Cross-entropy of each pixel and the overlap of the masks."""
        if outputs.shape[1] == 1:
            return dice(outputs.sigmoid(), torch.zeros_like(outputs))
        right = torch.zeros_like(outputs[:, 0], dtype=torch.int64)
        surprise = cross_entropy(outputs, right)
        return surprise + dice(outputs.softmax(dim=1), torch.zeros_like(outputs))


class NormConv(nn.Module):
    """A 3D convolution, normalisation, ReLU."""

    def __init__(self, before: int, after: int, *, norm: str, stride: int = 1, side: int = 3) -> None:
        """``norm``: instance or batch; a batch-normalised one has a bias and keeps plain ReLU."""
        super().__init__()
        whole = norm == "batch"
        self.conv = nn.Conv3d(before, after, side, stride=stride, padding=(side - 1) // 2, bias=whole)
        self.norm: nn.Module = nn.BatchNorm3d(after) if whole else nn.InstanceNorm3d(after, affine=True)
        self.slope = 0.0 if whole else 0.01

    def forward(self, x: Tensor) -> Tensor:
        """[b, before, p, p, p] -> [b, after, p / stride, ...]."""
        return nn.functional.leaky_relu(self.norm(self.conv(x)), self.slope)


class UNet3D(nn.Module):
    """Six levels, a strided convolution between two, transposed convolutions on the way up.

    Source: Isensee et al., "nnU-Net: Self-adapting Framework for U-Net-Based Medical Image Segmentation",
    2018; as in DeepLearningExamples, TensorFlow/Segmentation/UNet_3D_Medical, for BraTS 2019 (four images
    in, four classes).
    """

    def __init__(
        self, widths: tuple[int, ...] = (32, 64, 128, 256, 320, 320), channels: int = 4, classes: int = 4
    ) -> None:
        """``widths`` of the levels."""
        super().__init__()
        self.down = nn.ModuleList()
        before = channels
        for level, width in enumerate(widths):
            first = NormConv(before, width, norm="instance", stride=2 if level else 1)
            self.down.append(nn.Sequential(first, NormConv(width, width, norm="instance")))
            before = width
        self.rise = nn.ModuleList()
        self.up = nn.ModuleList()
        for width in reversed(widths[:-1]):
            self.rise.append(nn.ConvTranspose3d(before, width, 2, stride=2))
            first = NormConv(2 * width, width, norm="instance")
            self.up.append(nn.Sequential(first, NormConv(width, width, norm="instance")))
            before = width
        self.head = nn.Conv3d(before, classes, 3, padding=1)

    def forward(self, volume: Tensor) -> Tensor:
        """[b, channels, p, p, p] -> [b, classes, p, p, p]."""
        x, seen = volume, []
        for block in self.down:
            x = block(x)
            seen.append(x)
        seen.pop()
        for rise, block in zip(self.rise, self.up, strict=True):
            x = block(torch.cat((rise(x), seen.pop()), dim=1))
        logits: Tensor = self.head(x)
        return logits

    def loss(self, outputs: Tensor, **_: Tensor) -> Tensor:
        """Cross-entropy of each voxel and the overlap of the masks."""
        right = torch.zeros_like(outputs[:, 0], dtype=torch.int64)
        return cross_entropy(outputs, right) + dice(outputs.softmax(dim=1), torch.zeros_like(outputs))


class VNet(nn.Module):
    """Residual blocks of 3D convolutions, down and up.

    Source: Milletari et al., "V-Net: Fully Convolutional Neural Networks for Volumetric Medical Image
    Segmentation", 3DV 2016; three levels, 3 x 3 x 3 convolutions and batch normalisation as in
    DeepLearningExamples, TensorFlow/Segmentation/VNet, for hippocampi of 32 x 32 x 32 voxels in three
    classes.
    """

    def __init__(self, width: int = 16, levels: int = 3, depth: int = 3, classes: int = 3) -> None:
        """``width`` of the first level, doubled from level to level; ``depth`` convolutions per block."""
        super().__init__()
        widths = [width * 2**level for level in range(levels + 1)]
        self.first = NormConv(1, width, norm="batch")
        self.fall = nn.ModuleList(NormConv(a, b, norm="batch", stride=2, side=2) for a, b in pairwise(widths))
        self.down = nn.ModuleList(self._block(w, depth) for w in widths[1:])
        self.rise = nn.ModuleList()
        self.up = nn.ModuleList()
        before = widths[-1]
        for after in reversed(widths[1:-1]):
            self.rise.append(self._rise(before, after))
            self.up.append(self._block(2 * after, depth))
            before = 2 * after
        self.last = self._rise(before, width)
        self.head = nn.Conv3d(width, classes, 3, padding=1)

    @staticmethod
    def _block(width: int, depth: int) -> nn.Sequential:
        return nn.Sequential(*(NormConv(width, width, norm="batch") for _ in range(depth)))

    @staticmethod
    def _rise(before: int, after: int) -> nn.Sequential:
        up = nn.ConvTranspose3d(before, after, 2, stride=2)
        return nn.Sequential(up, nn.BatchNorm3d(after), nn.ReLU())

    def forward(self, volume: Tensor) -> Tensor:
        """[b, 1, p, p, p] -> [b, classes, p, p, p]."""
        x = self.first(volume) + volume
        seen = []
        for fall, block in zip(self.fall, self.down, strict=True):
            y = fall(x)
            x = block(y) + y
            seen.append(x)
        seen.pop()
        for rise, block in zip(self.rise, self.up, strict=True):
            y = torch.cat((rise(x), seen.pop()), dim=1)
            x = block(y) + y
        logits: Tensor = self.head(self.last(x))
        return logits

    def loss(self, outputs: Tensor, **_: Tensor) -> Tensor:
        """The overlap of the masks."""
        return dice(outputs.softmax(dim=1), torch.zeros_like(outputs))


def unet_medical() -> UNet:
    """The paper's network, with 3 x 3 upsampling as in DeepLearningExamples; 572 pixels in, 388 out."""
    up = ((512, 512), (256, 256), (128, 128), (64, 64))
    down = (64, 128, 256, 512)
    return UNet(down, 1024, up, classes=2, padding=0, kernel=3, dropout=0.5)


def unet_industrial() -> UNet:
    """The small network for surface inspection (DAGM 2007): 512 pixels in and out."""
    up = ((128, 64), (64, 32), (32, 16), (32, 32))
    down = (32, 32, 64, 128)
    return UNet(down, 256, up, classes=1, padding=1, kernel=2)


def unet3d_medical() -> UNet3D:
    """3D U-Net for BraTS 2019."""
    return UNet3D()


def vnet() -> VNet:
    """V-Net for the hippocampus task of the Medical Segmentation Decathlon."""
    return VNet()
