"""A sample of both registries builds, records, and meets no operator without a formula."""

import random
import warnings

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from predictor.errors import InputError
from predictor.frontends import ReadOptions, load_graph
from predictor.frontends.torch_detect import OBJECTS
from predictor.ir import BACKWARD, FORWARD
from predictor.ops import FORMULAS

timm = pytest.importorskip("timm")
models = pytest.importorskip("torchvision.models")

VISION = [
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "ssdlite320_mobilenet_v3_large",
    "r3d_18",
    "raft_small",
    "lraspp_mobilenet_v3_large",
    "googlenet",
    "shufflenet_v2_x0_5",
    "quantized_mobilenet_v2",
]


def sampled():
    """One in fifty of timm's models, another one each time timm changes, the same for everyone."""
    names = timm.list_models()
    return random.Random(0).sample(names, len(names) // 55)


def matrix_flop(graph, phase):
    return sum(k.work.matrix_flop for op in graph.ops if op.phase == phase for k in FORMULAS[op.name](op))


@pytest.mark.parametrize("name", sampled())
def test_timm_models_are_counted(name):
    graph = load_graph(f"timm:{name}", ReadOptions(batch=2))
    assert {op.name for op in graph.ops} <= FORMULAS.keys()
    assert 0 < matrix_flop(graph, FORWARD) < matrix_flop(graph, BACKWARD) <= 2 * matrix_flop(graph, FORWARD)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weights = sum(p.numel() for p in load_meta(name).parameters())
    assert graph.parameter_count == weights


def load_meta(name):
    try:
        return timm.create_model(name)
    except (RuntimeError, NotImplementedError):
        pytest.skip("its constructor reads values, which meta tensors have not")


@pytest.mark.parametrize("name", VISION)
def test_torchvision_models_are_counted(name):
    graph = load_graph(f"torchvision:{name}", ReadOptions(batch=2))
    assert {op.name for op in graph.ops} <= FORMULAS.keys()
    assert 0 < matrix_flop(graph, FORWARD) < matrix_flop(graph, BACKWARD)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("resnext50_32x4d", 224),
        ("shufflenet_v2_x1_0", 224),
        ("mobilenet_v3_small", 224),
        ("inception_v3", 299),
    ],
)
def test_forward_flop_equal_the_flop_counter(name, side):
    """Grouped and depthwise convolutions too: its fault with groups is in the backward alone."""
    graph = load_graph(f"torchvision:{name}", ReadOptions(batch=2))
    with torch.device("meta"):
        module = models.get_model(
            name, weights=None, **({"init_weights": False} if "inception" in name else {})
        )
        image = torch.zeros(2, 3, side, side)
    with FlopCounterMode(display=False) as counter, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module.train()(image)
    assert matrix_flop(graph, FORWARD) == counter.get_total_flops()


@pytest.fixture(scope="module")
def mask_rcnn():
    """One training step of Mask R-CNN on two images of COCO's size."""
    return load_graph("torchvision:maskrcnn_resnet50_fpn", ReadOptions(batch=2))


def rows_of(graph, name, *shape):
    """First sides of the inputs of an operator whose further sides are ``shape``."""
    return [t.shape[0] for op in graph.ops if op.name == name for t in op.inputs if t.shape[1:] == shape]


def test_a_detector_is_recorded_at_the_sizes_of_its_configuration(mask_rcnn):
    images, sampled, positive = 2, 512, 512 // 4
    # Box head: pooled regions of 256 channels by 7 by 7, for every sampled box.
    assert images * sampled in rows_of(mask_rcnn, "aten.addmm", 256 * 7 * 7)
    # Mask head: regions of 14 by 14, for the positive boxes alone.
    assert set(rows_of(mask_rcnn, "aten.convolution", 256, 14, 14)) == {images * positive}
    # Proposals kept in training: 2000 per image, and the objects themselves.
    matched = {t.shape for op in mask_rcnn.ops if op.name == "aten.max" for t in op.inputs}
    assert (OBJECTS, 2000 + OBJECTS) in matched


def test_regions_are_spread_over_the_levels_of_the_pyramid(mask_rcnn):
    regions = [op.outputs[0].shape for op in mask_rcnn.ops if op.name == "torchvision.roi_align"]
    boxes = [shape[0] for shape in regions if shape[1:] == (256, 7, 7)]
    assert boxes == [2 * 512 // 4] * 4


def test_a_detector_needs_no_objects_to_infer():
    options = ReadOptions(batch=1, train=False)
    graph = load_graph("torchvision:fasterrcnn_mobilenet_v3_large_320_fpn", options)
    assert {op.name for op in graph.ops} <= FORMULAS.keys()
    assert {op.phase for op in graph.ops} == {FORWARD}


def test_twice_the_images_are_twice_the_flop_of_a_detector():
    name = "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn"
    one, two = (matrix_flop(load_graph(name, ReadOptions(batch=b)), FORWARD) for b in (2, 4))
    assert two == 2 * one


def test_a_detector_refuses_more_images_than_it_can_be_recorded_with():
    with pytest.raises(InputError, match="at most 128"):
        load_graph("torchvision:ssdlite320_mobilenet_v3_large", ReadOptions(batch=1009))


def test_default_image_sides_are_those_of_the_first_weights():
    def side(name):
        graph = load_graph(f"torchvision:{name}", ReadOptions(batch=1, train=False))
        return graph.ops[0].inputs[0].shape[-1]

    assert side("efficientnet_b1") == 240
    assert side("quantized_inception_v3") == 299
