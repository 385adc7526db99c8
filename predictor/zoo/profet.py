"""The plain networks of the PROFET study, whose fully connected layers fit the image size asked for.

Source: Lee et al., "PROFET: Profiling-based CNN Training Latency Prophet for GPU Cloud Instances", 2022;
layers as in the study's code, github.com/ddps-lab/profet (data_generation/workload/model_info.py). It gave 10
classes to images of 32 x 32, 100 up to 128 x 128 and 1000 beyond.

Images are [b, 3, p, p]; logits are [b, classes].
"""

from torch import Tensor, nn
from torch.nn.functional import relu

from predictor.zoo.resnet_v2 import classes_of

VGG_BLOCKS = {
    11: ((1, 64), (1, 128), (2, 256), (2, 512), (2, 512)),
    13: ((2, 64), (2, 128), (2, 256), (2, 512), (2, 512)),
    16: ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)),
    19: ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512)),
}


class Stack:
    """Layers put one after another while the channels and the side of the image are followed."""

    def __init__(self, side: int) -> None:
        """Images of ``side`` x ``side`` with 3 channels come in."""
        self.layers: list[nn.Module] = []
        self.channels = 3
        self.side = side

    def conv(self, channels: int, kernel: int = 3, padding: int | None = None, norm: bool = False) -> "Stack":
        """A convolution of stride 1 that keeps the side unless ``padding`` is given, then ReLU."""
        padding = kernel // 2 if padding is None else padding
        self.layers.append(nn.Conv2d(self.channels, channels, kernel, padding=padding))
        self.layers += [nn.BatchNorm2d(channels)] if norm else []
        self.layers.append(nn.ReLU(inplace=True))
        self.channels, self.side = channels, self.side + 2 * padding - kernel + 1
        return self

    def pool(self, dropout: float = 0.0) -> "Stack":
        """The largest of every 2 x 2."""
        self.layers.append(nn.MaxPool2d(2))
        self.layers += [nn.Dropout(dropout)] if dropout else []
        self.side //= 2
        return self

    def dense(
        self, widths: tuple[int, ...], classes: int, dropout: float = 0.0, norm: bool = False
    ) -> nn.Sequential:
        """Fully connected layers to the end: the whole network."""
        before = self.channels * self.side**2
        self.layers.append(nn.Flatten())
        for width in widths:
            self.layers.append(nn.Linear(before, width))
            self.layers += [nn.BatchNorm1d(width)] if norm else []
            self.layers.append(nn.ReLU(inplace=True))
            self.layers += [nn.Dropout(dropout)] if dropout else []
            before = width
        self.layers.append(nn.Linear(before, classes))
        self.layers += [nn.BatchNorm1d(classes)] if norm else []
        return nn.Sequential(*self.layers)


class Named(nn.Module):
    """A network whose input is called ``image``."""

    def __init__(self, layers: nn.Module) -> None:
        """``layers``: [b, 3, p, p] -> [b, classes]."""
        super().__init__()
        self.layers = layers

    def forward(self, image: Tensor) -> Tensor:
        """[b, 3, p, p] -> [b, classes]."""
        logits: Tensor = self.layers(image)
        return logits


class OneByOneBlock(nn.Module):
    """Two 1 x 1 convolutions beside a shortcut: [b, before, p, p] -> [b, after, p / stride, p / stride]."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        """With a stride the shortcut is a convolution too."""
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 1, stride=stride)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 1)
        self.norm2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride=stride), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """[b, before, p, p] -> [b, after, p / stride, p / stride]."""
        y = self.norm2(self.conv2(relu(self.norm1(self.conv1(x)))))
        return relu(y + self.shortcut(x))


def lenet5(image_size: int = 32) -> Named:
    """LeNet-5 with ReLU and max pooling."""
    layers = Stack(image_size).conv(6, 5, padding=0).pool().conv(16, 5, padding=0).pool()
    return Named(layers.dense((120, 84), classes_of(image_size)))


def mnist_cnn(image_size: int = 32) -> Named:
    """Keras' first example of a convolutional network ("simple MNIST convnet")."""
    stack = Stack(image_size).conv(32, padding=0).pool().conv(64, padding=0).pool(dropout=0.5)
    return Named(stack.dense((), classes_of(image_size)))


def cifar10_cnn(image_size: int = 32) -> Named:
    """Keras' example for CIFAR-10."""
    stack = Stack(image_size).conv(32).conv(32, padding=0).pool(dropout=0.25)
    stack = stack.conv(64).conv(64, padding=0).pool(dropout=0.25)
    return Named(stack.dense((512,), classes_of(image_size), dropout=0.5))


def alexnet_keras(image_size: int = 224) -> Named:
    """A wide AlexNet with batch normalisation, and a first convolution of stride 1."""
    stack = Stack(image_size).conv(96, 11, norm=True).pool().conv(256, 5, norm=True).pool()
    stack = stack.conv(512, padding=2, norm=True).pool().conv(1024, padding=2, norm=True)
    stack = stack.conv(1024, padding=2, norm=True).pool()
    return Named(stack.dense((3072, 4096), classes_of(image_size), dropout=0.5, norm=True))


def resnet_small(image_size: int = 224) -> Named:
    """Four residual blocks of 1 x 1 convolutions."""
    layers = nn.Sequential(
        nn.Conv2d(3, 64, 7, stride=2, padding=3),
        nn.ReLU(inplace=True),
        nn.BatchNorm2d(64),
        nn.MaxPool2d(3, stride=2, padding=1),
        OneByOneBlock(64, 64, 2),
        OneByOneBlock(64, 64, 1),
        OneByOneBlock(64, 128, 2),
        OneByOneBlock(128, 128, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, classes_of(image_size)),
    )
    return Named(layers)


def _vgg(depth: int, image_size: int) -> Named:
    stack = Stack(image_size)
    for count, channels in VGG_BLOCKS[depth]:
        for _ in range(count):
            stack = stack.conv(channels)
        stack = stack.pool()
    return Named(stack.dense((4096, 4096), classes_of(image_size)))


def vgg11_keras(image_size: int = 224) -> Named:
    """VGG-11 without dropout, for any image size."""
    return _vgg(11, image_size)


def vgg13_keras(image_size: int = 224) -> Named:
    """VGG-13 without dropout, for any image size."""
    return _vgg(13, image_size)


def vgg16_keras(image_size: int = 224) -> Named:
    """VGG-16 without dropout, for any image size."""
    return _vgg(16, image_size)


def vgg19_keras(image_size: int = 224) -> Named:
    """VGG-19 without dropout, for any image size."""
    return _vgg(19, image_size)
