"""Find and build the PyTorch model that a name stands for.

A factory named by the user runs the user's code; nothing else here executes code from outside.
"""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from predictor.errors import InputError, PredictorError, did_you_mean
from predictor.frontends import ReadOptions
from predictor.frontends.torch_build import build
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
    holder = _file(Path(prefix)) if prefix.endswith(".py") else _package(prefix)
    factory = getattr(holder, name, None)
    if factory is None:
        raise InputError(f"{prefix} has no '{name}'{did_you_mean(name, _callables(holder))}")
    if not callable(factory) and not isinstance(factory, nn.Module):
        raise InputError(f"{source} is a {type(factory).__name__}; name a callable that returns an nn.Module")
    return _from_factory(factory, holder, name, str(source), options, mode)


def _callables(holder: ModuleType) -> list[str]:
    return [n for n, v in vars(holder).items() if callable(v) and not n.startswith("_")]


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"model file '{path}' does not exist")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"model file '{path}' cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses and pickling of classes look their module up
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except PredictorError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{path}: {_where(error, path)}{type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def _where(error: BaseException, path: Path) -> str:
    """ "line 12: " of the user's file, when the error passed through it."""
    lines = []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f"line {lines[-1]}: " if lines else ""


def _package(name: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(f"package '{name}' cannot be imported: {error}; is it installed here?") from None
    except (Exception, SystemExit) as error:
        raise InputError(f"importing '{name}' failed: {type(error).__name__}: {error}") from error


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
        where = _where(error, Path(code.co_filename)) if code else ""
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
    known = timm.list_models()
    if name.partition(".")[0] not in known:
        raise InputError(f"unknown model 'timm:{name}'{did_you_mean(name, known)}; timm {timm.__version__}")
    model: Any = build(lambda: _create_timm(timm, name, options.image_size), mode)
    channels, height, width = model.pretrained_cfg.get("input_size", (3, 224, 224))
    spec = f"float32[B,{channels},P,P]" if height == width else f"float32[B,{channels},{height},{width}]"
    return Loaded(model, name, f"timm:{name}", [spec], {"B": 32, "P": height})


def _create_timm(timm: Any, name: str, image_size: int | None) -> Any:
    """Models with a fixed number of patches take the image size when they are made, the others do not."""
    if image_size is None:
        return timm.create_model(name, pretrained=False)
    try:
        return timm.create_model(name, pretrained=False, img_size=image_size)
    except TypeError:
        return timm.create_model(name, pretrained=False)


_IMAGE_SIDE = {
    "inception_v3": 299,
    "efficientnet_v2_s": 384,
    "efficientnet_v2_m": 480,
    "efficientnet_v2_l": 480,
}


def _from_torchvision(name: str, options: ReadOptions, mode: FakeTensorMode) -> Loaded:
    models = import_vision("torchvision.models")
    known = models.list_models()
    if name not in known:
        raise InputError(f"unknown model 'torchvision:{name}'{did_you_mean(name, known)}")
    if name in models.list_models(models.detection):
        raise InputError(
            f"torchvision:{name} is a detector, whose shapes depend on its proposals; "
            "give a factory of its backbone and heads as file.py:factory"
        )
    takes = inspect.signature(models.get_model_builder(name)).parameters
    arguments: dict[str, Any] = {"weights": None}
    if "weights_backbone" in takes:
        arguments["weights_backbone"] = None
    side = options.image_size or _IMAGE_SIDE.get(name, 224)
    if name.startswith("vit_") and options.image_size:
        arguments["image_size"] = side
    module = build(lambda: models.get_model(name, **arguments), mode)
    video = name in models.list_models(models.video)
    spec = "float32[B,3,16,112,112]" if video else "float32[B,3,P,P]"
    return Loaded(module, name, f"torchvision:{name}", [spec], {"B": 32, "P": side})
