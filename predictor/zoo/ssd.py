"""SSD300 with a ResNet-50 backbone, as NVIDIA's DeepLearningExamples train it on COCO.

Sources: Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016 (boxes, loss, extra layers); backbone
up to the third stage with stride 1 as in Huang et al., "Speed/Accuracy Trade-offs for Modern Convolutional
Object Detectors", CVPR 2017; channels as in github.com/NVIDIA/DeepLearningExamples, PyTorch/Detection/SSD.

Images are [b, 3, 300, 300]. The data pipeline matches objects to the 8732 default boxes; what the loss gets
are a box and a label for each of them.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, smooth_l1_loss

from predictor.zoo.convnets import Bottleneck
from predictor.zoo.parts import check_image

CLASSES = 81  # of COCO, with the background
# (channels, boxes per position) of the six maps, 38, 19, 10, 5, 3 and 1 positions wide.
MAPS = ((1024, 4), (512, 6), (512, 6), (256, 6), (256, 4), (256, 4))
BOXES = sum(side * side * boxes for side, (_, boxes) in zip((38, 19, 10, 5, 3, 1), MAPS, strict=True))
INNER = (256, 256, 128, 128, 128)  # channels between one map and the next


def _backbone() -> nn.Sequential:
    """ResNet-50 without its last stage, the third at stride 1: [b, 3, 300, 300] -> [b, 1024, 38, 38]."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    channels = 64
    for inner, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 1)):
        layers.append(Bottleneck(channels, inner, stride))
        channels = 4 * inner
        layers += [Bottleneck(channels, inner, 1) for _ in range(count - 1)]
    return nn.Sequential(*layers)


def _smaller(before: int, inner: int, after: int, halve: bool) -> nn.Sequential:
    """From one map to the next: 1 x 1, then 3 x 3 of stride 2 or without padding."""
    second = nn.Conv2d(inner, after, 3, stride=2 if halve else 1, padding=1 if halve else 0, bias=False)
    return nn.Sequential(
        nn.Conv2d(before, inner, 1, bias=False),
        nn.BatchNorm2d(inner),
        nn.ReLU(inplace=True),
        second,
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


class SSD300(nn.Module):
    """Backbone, five smaller maps, and two 3 x 3 convolutions on each of the six."""

    def __init__(self) -> None:
        """Sizes as above."""
        super().__init__()
        self.backbone = _backbone()
        channels = [count for count, _ in MAPS]
        self.extra = nn.ModuleList(
            _smaller(before, inner, after, halve=index < 3)
            for index, (before, inner, after) in enumerate(zip(channels, INNER, channels[1:], strict=False))
        )
        self.places = nn.ModuleList(nn.Conv2d(c, 4 * boxes, 3, padding=1) for c, boxes in MAPS)
        self.labels = nn.ModuleList(nn.Conv2d(c, CLASSES * boxes, 3, padding=1) for c, boxes in MAPS)
        self.defaults: Tensor
        self.register_buffer("defaults", torch.ones(1, 4, BOXES))

    def forward(self, image: Tensor, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """[b, 3, 300, 300] -> places [b, 4, 8732], scores [b, 81, 8732]; the targets are for the loss."""
        check_image(image, 300)
        x = self.backbone(image)
        maps = [x]
        for layer in self.extra:
            x = layer(x)
            maps.append(x)
        places = [conv(m).flatten(1).unflatten(1, (4, -1)) for conv, m in zip(self.places, maps, strict=True)]
        scores = [
            conv(m).flatten(1).unflatten(1, (CLASSES, -1)) for conv, m in zip(self.labels, maps, strict=True)
        ]
        return torch.cat(places, dim=2), torch.cat(scores, dim=2)

    def loss(self, outputs: tuple[Tensor, Tensor], **inputs: Tensor) -> Tensor:
        """Smooth L1 of the matched boxes, and cross-entropy of these and of the three times as many worst.

        Two sorts rank every default box by its loss ("hard negative mining").
        """
        places, scores = outputs
        boxes, labels = inputs["boxes"], inputs["labels"]
        matched = labels > 0
        count = matched.sum(dim=1)
        centre = 10.0 * (boxes[:, :2] - self.defaults[:, :2]) / self.defaults[:, 2:]
        size = 5.0 * (boxes[:, 2:].clamp(min=1e-6) / self.defaults[:, 2:]).log()
        distance = smooth_l1_loss(places, torch.cat((centre, size), dim=1), reduction="none").sum(dim=1)
        surprise = cross_entropy(scores, labels, reduction="none")
        order = surprise.masked_fill(matched, 0.0).sort(dim=1, descending=True).indices
        rank = order.sort(dim=1).indices
        kept = matched | (rank < (3 * count).clamp(max=BOXES).unsqueeze(1))
        total = (distance * matched).sum(dim=1) + (surprise * kept).sum(dim=1)
        return (total * (count > 0) / count.clamp(min=1)).mean()


def ssd300_resnet50() -> SSD300:
    """SSD300 with ResNet-50, 81 classes."""
    return SSD300()
