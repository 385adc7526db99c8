"""Writes small_cnn.onnx, a convolutional network of some 20,000 weights as an example of an ONNX file.

    python examples/make_small_cnn.py
    predictor estimate examples/small_cnn.onnx --hardware h100 --batch-size 256 --steps 10000

Exported in training mode, so that its normalisations are kept, and with an open batch axis.
"""

from pathlib import Path

import torch
from torch import nn


def stage(channels: int, wider: int, stride: int) -> nn.Sequential:
    """Convolution, normalisation and activation."""
    return nn.Sequential(
        nn.Conv2d(channels, wider, 3, stride, padding=1, bias=False), nn.BatchNorm2d(wider), nn.ReLU()
    )


def small_cnn() -> nn.Sequential:
    """Ten classes from images of 3 channels."""
    return nn.Sequential(
        stage(3, 16, 1),
        stage(16, 32, 2),
        stage(32, 48, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, 10),
    )


def main() -> None:
    """Export to the file beside this script."""
    torch.manual_seed(0)
    torch.onnx.export(
        small_cnn(),
        (torch.rand(2, 3, 32, 32),),
        str(Path(__file__).with_name("small_cnn.onnx")),
        dynamo=False,
        training=torch.onnx.TrainingMode.TRAINING,
        do_constant_folding=False,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}},
    )


if __name__ == "__main__":
    main()
