"""Residual networks with normalisation before the convolution (ResNet v2, "pre-activation").

Source: He, Zhang, Ren, Sun, "Identity Mappings in Deep Residual Networks", ECCV 2016. Two dialects:

- the paper's: bottlenecks with the stride on the 3 x 3 convolution, no biases (ResNet-200);
- Keras' "resnet" builders (github.com/raghakot/keras-resnet), which the PROFET study timed: biases in every
  convolution, the stride on the first one, the shortcut takes the block's input as it is.

Images are [b, 3, p, p].
"""

from torch import Tensor, nn
from torch.nn.functional import relu

CLASSES_OF_SIDE = {32: 10, 64: 100, 128: 100, 224: 1000, 256: 1000}  # PROFET, data_generation/dataset_info.py


def classes_of(side: int) -> int:
    """Classes that the PROFET study gave to images of a side; 1000 where it measured none."""
    return CLASSES_OF_SIDE.get(side, 1000)


class PreBlock(nn.Module):
    """Normalise, activate, convolve, two or three times, beside a shortcut."""

    def __init__(
        self,
        channels: int,
        sizes: tuple[tuple[int, int, int], ...],
        *,
        bias: bool,
        first: bool,
        activated_shortcut: bool,
    ) -> None:
        """Convolutions and shortcut.

        sizes               (side, channels, stride) of each convolution
        first               the input is already normalised and activated
        activated_shortcut  a projecting shortcut takes the activated input (the paper's), not the plain one
        """
        super().__init__()
        self.norms = nn.ModuleList()
        self.convs = nn.ModuleList()
        self.activated_shortcut = activated_shortcut
        before, stride = channels, 1
        for index, (side, after, step) in enumerate(sizes):
            self.norms.append(nn.Identity() if first and index == 0 else nn.BatchNorm2d(before))
            self.convs.append(nn.Conv2d(before, after, side, stride=step, padding=side // 2, bias=bias))
            before, stride = after, stride * step
        self.first = first
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or before != channels:
            self.shortcut = nn.Conv2d(channels, before, 1, stride=stride, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[b, before, p, p] -> [b, after, p / stride, p / stride]."""
        y = x if self.first else relu(self.norms[0](x))
        plain = isinstance(self.shortcut, nn.Identity) or not self.activated_shortcut
        projected: Tensor = self.shortcut(x if plain else y)
        y = self.convs[0](y)
        for norm, conv in zip(self.norms[1:], self.convs[1:], strict=True):
            y = conv(relu(norm(y)))
        out: Tensor = projected + y
        return out


class ResNetV2(nn.Module):
    """Stem, four stages, normalisation, global pooling, one fully connected layer."""

    def __init__(
        self,
        blocks: tuple[int, int, int, int],
        *,
        bottleneck: bool,
        keras: bool = False,
        width: int = 64,
        classes: int = 1000,
    ) -> None:
        """``blocks`` of each stage; ``keras``: biases, and strides on each block's first convolution."""
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, stride=2, padding=3, bias=keras),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        stages: list[nn.Module] = []
        channels = width
        for stage, count in enumerate(blocks):
            inner = width * 2**stage
            for index in range(count):
                stride = 2 if stage and index == 0 else 1
                sizes: tuple[tuple[int, int, int], ...] = ((3, inner, stride), (3, inner, 1))
                if bottleneck:
                    early, late = (stride, 1) if keras else (1, stride)
                    sizes = ((1, inner, early), (3, inner, late), (1, 4 * inner, 1))
                first = stage == index == 0
                stages.append(
                    PreBlock(channels, sizes, bias=keras, first=first, activated_shortcut=not keras)
                )
                channels = sizes[-1][1]
        self.stages = nn.Sequential(*stages)
        self.norm = nn.BatchNorm2d(channels)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, classes)

    def forward(self, image: Tensor) -> Tensor:
        """[b, 3, p, p] -> [b, classes]."""
        x = relu(self.norm(self.stages(self.stem(image))))
        logits: Tensor = self.head(self.pool(x).flatten(1))
        return logits


def resnet200_v2() -> ResNetV2:
    """ResNet-200 of the paper: 3 + 24 + 36 + 3 bottlenecks."""
    return ResNetV2((3, 24, 36, 3), bottleneck=True)


def resnet18_v2_keras(image_size: int = 224) -> ResNetV2:
    """Keras ResNet-18, as many classes as the PROFET study gave images of that side."""
    return ResNetV2((2, 2, 2, 2), bottleneck=False, keras=True, classes=classes_of(image_size))


def resnet34_v2_keras(image_size: int = 224) -> ResNetV2:
    """Keras ResNet-34, as many classes as the PROFET study gave images of that side."""
    return ResNetV2((3, 4, 6, 3), bottleneck=False, keras=True, classes=classes_of(image_size))


def resnet50_v2_keras(image_size: int = 224) -> ResNetV2:
    """Keras ResNet-50, as many classes as the PROFET study gave images of that side."""
    return ResNetV2((3, 4, 6, 3), bottleneck=True, keras=True, classes=classes_of(image_size))
