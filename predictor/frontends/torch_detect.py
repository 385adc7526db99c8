"""torchvision's detectors: inputs with targets, and the sizes that their configuration fixes.

What a detector computes depends on its proposals. It is recorded at the sizes its configuration names:
the proposals kept after suppression (``rpn_post_nms_top_n``), the boxes sampled for the heads
(``box_batch_size_per_image``, of which ``box_positive_fraction`` are positive and reach the mask and keypoint
heads), spread evenly over the levels of the feature pyramid.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from predictor.errors import InputError
from predictor.frontends.torch_standin import RecordingMode, add_suppression, set_count
from predictor.frontends.torch_vision import import_vision

# Objects in an image of COCO: 7.7 on average (Lin et al., "Microsoft COCO", 2014, section 5).
OBJECTS = 8
# A detector works image by image, and is recorded so: its operators grow in number with the batch.
MOST_IMAGES = 128
# The commonest size of an image of COCO.
HEIGHT, WIDTH = 480, 640


def detector_inputs(name: str, image_size: int | None, train: bool) -> list[str]:
    """Input specs of a detector: images, and in training their objects."""
    height, width = ("P", "P") if image_size else (HEIGHT, WIDTH)
    specs = [f"images:float32[B,3,{height},{width}]"]
    if train:
        specs += [f"boxes:float32[B,{OBJECTS},4]", f"labels:int64[B,{OBJECTS}]"]
    if train and name.startswith("maskrcnn"):
        specs.append(f"masks:uint8[B,{OBJECTS},{height},{width}]")
    if train and name.startswith("keypointrcnn"):
        specs.append(f"keypoints:float32[B,{OBJECTS},17,3]")
    return specs


def take_tensors(detector: nn.Module) -> None:
    """Let a detector take one tensor per input, batch first, instead of lists of images and targets."""
    forward = detector.forward

    def batched(images: torch.Tensor, **objects: torch.Tensor) -> Any:
        if images.shape[0] > MOST_IMAGES:
            raise InputError(
                f"a detector is recorded image by image, {images.shape[0]} are too many; "
                f"give a micro-batch of at most {MOST_IMAGES}"
            )
        if not objects:
            return forward(list(images))
        targets = [{key: value[i] for key, value in objects.items()} for i in range(images.shape[0])]
        return forward(list(images), targets)

    object.__setattr__(detector, "forward", batched)


def sum_of_losses(outputs: Mapping[str, torch.Tensor], _: Mapping[str, Any]) -> torch.Tensor:
    """The loss of a detector, which returns its parts."""
    return torch.stack(list(outputs.values())).sum()


@contextmanager
def fixed_sizes(mode: RecordingMode) -> Iterator[None]:
    """Record detectors at the sizes of their configuration."""
    boxes, poolers = import_vision("torchvision.ops.boxes"), import_vision("torchvision.ops.poolers")
    roi_heads = import_vision("torchvision.models.detection.roi_heads")
    utils = import_vision("torchvision.models.detection._utils")
    transform = import_vision("torchvision.models.detection.transform").GeneralizedRCNNTransform
    add_suppression(torch.ops.torchvision.nms.default)
    changes: list[tuple[Any, str, Callable[..., Any]]] = [
        # What an accelerator chooses below 25,000 boxes; the other way loops over the classes found.
        (boxes, "_batched_nms_vanilla", boxes._batched_nms_coordinate_trick),
        (transform, "torch_choice", _middle),
        (poolers, "_multiscale_roi_align", _even_levels(mode, poolers._multiscale_roi_align)),
        (utils.Matcher, "set_low_quality_matches_", _one_match(mode, utils.Matcher.set_low_quality_matches_)),
        (
            roi_heads.RoIHeads,
            "select_training_samples",
            _positives(roi_heads.RoIHeads.select_training_samples),
        ),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    try:
        mode.guess = True
        for owner, name, stand_in in changes:
            setattr(owner, name, stand_in)
        yield
    finally:
        mode.guess = False
        for owner, name, original in before:
            setattr(owner, name, original)


def _middle(_: Any, sides: list[int]) -> int:
    """The middle of the sides that images are resized to at random."""
    return sides[len(sides) // 2]


def _even_levels(mode: RecordingMode, pool: Callable[..., Any]) -> Callable[..., Any]:
    def pooled(features: list[Any], *args: Any, **kwargs: Any) -> Any:
        with mode.sharing(1 / len(features)):
            return pool(features, *args, **kwargs)

    return pooled


def _one_match(mode: RecordingMode, match: Callable[..., Any]) -> Callable[..., Any]:
    """Each object has one box that fits it best."""

    def matched(self: Any, matches: Any, every: Any, quality: torch.Tensor) -> Any:
        with mode.sharing(1 / quality.shape[1]):
            return match(self, matches, every, quality)

    return matched


def _positives(select: Callable[..., Any]) -> Callable[..., Any]:
    """Of the sampled boxes, the configured fraction is positive."""

    def selected(heads: Any, *args: Any) -> Any:
        proposals, matched, labels, targets = select(heads, *args)
        sampler = heads.fg_bg_sampler
        for part in labels:
            set_count(part, int(sampler.batch_size_per_image * sampler.positive_fraction))
        return proposals, matched, labels, targets

    return selected
