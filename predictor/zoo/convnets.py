"""Convolutional networks for ImageNet: AlexNet, VGG and ResNet.

Images are [b, 3, p, p], logits [b, classes]; ``c`` is channels.
"""

from torch import Tensor, nn
from torch.nn.functional import relu

from predictor.zoo.parts import check_image


class AlexNet(nn.Module):
    """Five convolutions and three fully connected layers, grouped as on the paper's two GPUs.

    Layers 2, 4 and 5 see only the half of the channels that lived on their GPU (groups=2); the
    two-column diagram is one network here. Local response normalisation follows layers 1 and 2, with
    alpha = 1e-4 for the plain sum of squares (PyTorch divides alpha by its window of 5).

    Source: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural
    Networks", NeurIPS 2012, section 3.
    """

    def __init__(self, classes: int = 1000) -> None:
        """``classes`` to tell apart."""
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(96, 256, 5, padding=2, groups=2),
            nn.ReLU(inplace=True),
            nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(256, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 384, 3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, classes),
        )

    def forward(self, image: Tensor) -> Tensor:
        """[b, 3, 224, 224] -> [b, classes]."""
        check_image(image, 224)
        logits: Tensor = self.classifier(self.features(image).flatten(1))
        return logits


class VGG(nn.Module):
    """Stages of 3 x 3 convolutions, each halved by a pooling, then three fully connected layers.

    Source: Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
    ICLR 2015, table 1.
    """

    def __init__(self, stages: tuple[tuple[int, int], ...], classes: int = 1000) -> None:
        """``stages``: how many convolutions, and their channels, between two poolings."""
        super().__init__()
        features: list[nn.Module] = []
        before = 3
        for convolutions, channels in stages:
            for _ in range(convolutions):
                features += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU(inplace=True)]
                before = channels
            features.append(nn.MaxPool2d(2, stride=2))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(
            nn.Linear(before * 7 * 7, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(4096, classes),
        )

    def forward(self, image: Tensor) -> Tensor:
        """[b, 3, 224, 224] -> [b, classes]."""
        check_image(image, 224)
        logits: Tensor = self.classifier(self.features(image).flatten(1))
        return logits


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 convolutions beside a shortcut: [b, c, p, p] -> [b, 4 * inner, p/stride, p/stride].

    The stride sits on the 3 x 3 convolution ("v1.5"), not on the first 1 x 1 as in the paper: this is
    what torchvision, timm and MLPerf train. Same parameters, about 6 % more work.
    """

    def __init__(self, channels: int, inner: int, stride: int) -> None:
        """``channels`` come in, ``inner`` are convolved, four times as many go out."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, 4 * inner, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(4 * inner)
        self.shortcut: nn.Module = nn.Identity()
        if channels != 4 * inner:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, 4 * inner, 1, stride=stride, bias=False), nn.BatchNorm2d(4 * inner)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[b, channels, p, p] -> [b, 4 * inner, p / stride, p / stride]."""
        y = relu(self.norm1(self.conv1(x)), inplace=True)
        y = relu(self.norm2(self.conv2(y)), inplace=True)
        y = self.norm3(self.conv3(y))
        y += self.shortcut(x)
        return relu(y, inplace=True)


class ResNet(nn.Module):
    """Four stages of bottleneck blocks, global pooling, one fully connected layer.

    Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, table 1;
    stride as in Goyal et al., "Accurate, Large Minibatch SGD", arXiv 1706.02677, section 5.1.
    """

    def __init__(self, blocks: tuple[int, int, int, int], width: int = 64, classes: int = 1000) -> None:
        """``blocks`` of each stage; ``width`` channels of the first one, doubled from stage to stage."""
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        stages: list[nn.Module] = []
        channels = width
        for stage, count in enumerate(blocks):
            inner = width * 2**stage
            first = Bottleneck(channels, inner, stride=1 if stage == 0 else 2)
            channels = 4 * inner
            stages.append(nn.Sequential(first, *(Bottleneck(channels, inner, 1) for _ in range(count - 1))))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, classes)

    def forward(self, image: Tensor) -> Tensor:
        """[b, 3, p, p] -> [b, classes]."""
        logits: Tensor = self.head(self.pool(self.stages(self.stem(image))).flatten(1))
        return logits


def alexnet() -> AlexNet:
    """AlexNet of 2012."""
    return AlexNet()


def vgg16() -> VGG:
    """VGG-16, configuration D: 13 convolutions and 3 fully connected layers."""
    return VGG(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)))


def resnet50() -> ResNet:
    """ResNet-50: 3 + 4 + 6 + 3 blocks."""
    return ResNet((3, 4, 6, 3))


def resnet152() -> ResNet:
    """ResNet-152: 3 + 8 + 36 + 3 blocks."""
    return ResNet((3, 8, 36, 3))
