"""Find and build the PyTorch model that a name stands for.

A factory named by the user runs the user's code; nothing else here executes code from outside.
"""

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from predictor.errors import InputError, PredictorError, did_you_mean
from predictor.frontends import ReadOptions
from predictor.frontends.python_source import import_source, line_of
from predictor.frontends.torch_build import build
from predictor.frontends.torch_detect import detector_inputs, fixed_sizes, sum_of_losses, take_tensors
from predictor.frontends.torch_model import Loaded, Loss
from predictor.frontends.torch_vision import import_vision
from predictor.zoo import ZOO


def load_module(source: Any, options: ReadOptions, mode: FakeTensorMode) -> Loaded:
    """Build a callable, "zoo:NAME", "timm:NAME", "torchvision:NAME" or "FILE-OR-PACKAGE:FACTORY"."""
    if callable(source):
        name = getattr(source, "__name__", type(source).__name__)
        return _from_factory(source, None, name, f"factory {name}", options, mode)
    prefix, _, name = str(source).partition(":")
    known = {"zoo": _from_zoo, "timm": _from_timm, "torchvision": _from_torchvision}
    if prefix in known:
        return known[prefix](name, options, mode)
    holder = import_source(prefix)
    factory = getattr(holder, name, None)
    if factory is None:
        raise InputError(f"{prefix} has no '{name}'{did_you_mean(name, _callables(holder))}")
    if not callable(factory) and not isinstance(factory, nn.Module):
        raise InputError(f"{source} is a {type(factory).__name__}; name a callable that returns an nn.Module")
    return _from_factory(factory, holder, name, str(source), options, mode)


def _callables(holder: ModuleType) -> list[str]:
    return [n for n, v in vars(holder).items() if callable(v) and not n.startswith("_")]


def _from_factory(
    factory: Callable[..., Any],
    holder: ModuleType | None,
    name: str,
    source: str,
    options: ReadOptions,
    mode: FakeTensorMode,
) -> Loaded:
    """Build a user's factory; ``example_inputs`` and ``loss`` beside it are used when they are there."""
    try:
        module = build(factory, mode)
    except PredictorError:
        raise
    except (Exception, SystemExit) as error:
        code = getattr(factory, "__code__", None)
        where = line_of(error, code.co_filename) if code else ""
        raise InputError(f"{source} failed: {where}{type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise InputError(f"{source} returned a {type(module).__name__}, needed a torch.nn.Module")
    beside = holder or inspect.getmodule(factory)
    inputs = getattr(beside, "example_inputs", None)
    taken: frozenset[str] = frozenset()
    if callable(inputs):
        taken = frozenset(inspect.signature(inputs).parameters)
        inputs = _call_inputs(inputs, options, source, mode)
    return Loaded(module, name, source, inputs, {}, _loss_of(module, getattr(beside, "loss", None)), taken)


def _call_inputs(
    example_inputs: Callable[..., Any], options: ReadOptions, source: str, mode: FakeTensorMode
) -> Any:
    """Call ``example_inputs`` with the sizes that it takes and the job gives."""
    sizes = {"batch_size": options.batch, "seq_len": options.seq_len, "image_size": options.image_size}
    takes = inspect.signature(example_inputs).parameters
    given = {name: size for name, size in sizes.items() if size is not None and name in takes}
    try:
        with mode:
            return example_inputs(**given)
    except (Exception, SystemExit) as error:
        raise InputError(f"{source}: example_inputs failed: {type(error).__name__}: {error}") from error


def _loss_of(module: nn.Module, beside: Any) -> Loss | None:
    """The model's ``loss(outputs, **inputs)`` method, or the ``loss`` function beside its factory."""
    own = getattr(module, "loss", None)
    chosen = own if callable(own) else beside
    if not callable(chosen):
        return None

    def loss(outputs: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
        value: torch.Tensor = chosen(outputs, **inputs)
        return value

    return loss


def _from_zoo(name: str, options: ReadOptions, mode: FakeTensorMode) -> Loaded:
    if name not in ZOO:
        raise InputError(f"unknown model 'zoo:{name}'{did_you_mean(name, ZOO)}; known: {', '.join(ZOO)}")
    entry = ZOO[name]
    factory = getattr(importlib.import_module(entry.module), entry.factory)
    sizes = {"B": entry.batch, "S": entry.sequence, "P": entry.image}
    takes = inspect.signature(factory).parameters
    chosen = {"image_size": options.image_size, "seq_len": options.seq_len}
    arguments = {k: v for k, v in chosen.items() if v is not None and k in takes}
    module = build(lambda: factory(**arguments), mode)
    return Loaded(module, name, f"zoo:{name}", entry.inputs, sizes, _loss_of(module, None))


def _from_timm(name: str, options: ReadOptions, mode: FakeTensorMode) -> Loaded:
    timm = import_vision("timm")
    name = _renamed(timm).get(name, name)
    known = timm.list_models()
    if name.partition(".")[0] not in known:
        raise InputError(f"unknown model 'timm:{name}'{did_you_mean(name, known)}; timm {timm.__version__}")
    model: Any = build(lambda: _create_timm(timm, name, options.image_size), mode)
    channels, height, width = model.pretrained_cfg.get("input_size", (3, 224, 224))
    spec = f"float32[B,{channels},P,P]" if height == width else f"float32[B,{channels},{height},{width}]"
    return Loaded(model, name, f"timm:{name}", [spec], {"B": 32, "P": height})


def _renamed(timm: Any) -> dict[str, str]:
    """Names of earlier releases and what they are called now; the new one stands in the answer.

    Some large models were dropped and their names lead to a smaller one: compare the parameter count.
    """
    return dict(getattr(timm.models._registry, "_deprecated_models", {}))


def _create_timm(timm: Any, name: str, image_size: int | None) -> Any:
    """Models with a fixed number of patches take the image size when they are made, the others do not."""
    if image_size is None:
        return timm.create_model(name, pretrained=False)
    try:
        return timm.create_model(name, pretrained=False, img_size=image_size)
    except TypeError:
        return timm.create_model(name, pretrained=False)


# Models whose first published weights do not say the side they were trained at, or were fine-tuned beyond it.
_IMAGE_SIDE = {"quantized_inception_v3": 299, "vit_h_14": 224}
_SEGMENTATION_SIDE = 480  # torchvision's training recipe, references/segmentation
_CLIP = "float32[B,3,16,P,P]"


def _from_torchvision(name: str, options: ReadOptions, mode: FakeTensorMode) -> Loaded:
    models = import_vision("torchvision.models")
    known = models.list_models()
    if name not in known:
        raise InputError(f"unknown model 'torchvision:{name}'{did_you_mean(name, known)}")
    takes = inspect.signature(models.get_model_builder(name)).parameters
    arguments: dict[str, Any] = {"weights": None}
    if "weights_backbone" in takes:
        arguments["weights_backbone"] = None
    if name.startswith("vit_") and options.image_size:
        arguments["image_size"] = options.image_size
    module = build(lambda: models.get_model(name, **arguments), mode)
    source = f"torchvision:{name}"
    if name in models.list_models(models.detection):
        take_tensors(module)
        specs = detector_inputs(name, options.image_size, options.train)
        sizes = {"B": 2, "P": options.image_size}
        return Loaded(module, name, source, specs, sizes, sum_of_losses, around=fixed_sizes)
    if name in models.list_models(models.optical_flow):
        # FlyingChairs crops of torchvision's recipe, references/optical_flow
        height, width = ("P", "P") if options.image_size else (368, 496)
        specs = [f"image1:float32[B,3,{height},{width}]", f"image2:float32[B,3,{height},{width}]"]
        return Loaded(module, name, source, specs, {"B": 2, "P": options.image_size}, flow_loss)
    side = options.image_size or _side_of(models, name)
    spec = _CLIP if name in models.list_models(models.video) else "float32[B,3,P,P]"
    return Loaded(module, name, source, [spec], {"B": 32, "P": side})


def _side_of(models: Any, name: str) -> int:
    """The side of the images a torchvision model was first published with."""
    if name in _IMAGE_SIDE:
        return _IMAGE_SIDE[name]
    if name in models.list_models(models.segmentation):
        return _SEGMENTATION_SIDE
    first = next(iter(models.get_model_weights(name)))
    crop = getattr(first.transforms, "keywords", {}).get("crop_size", 224)
    return int(crop if isinstance(crop, int) else crop[0])


def flow_loss(flows: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
    """Distance of every refinement's flow from the true one, as RAFT is trained (Teed and Deng, 2020)."""
    true = torch.zeros_like(flows[-1])
    return torch.stack([(flow - true).abs().mean() for flow in flows]).sum()
