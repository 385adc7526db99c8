"""Count a PyTorch model at first sight, fast: its forward pass alone, on meta tensors, without autograd.

Each operator's rule says what its backward costs. Matrix flop equal those of the full recording
(tests/test_count_only.py). There are no storage events: memory needs the full recording.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.utils.checkpoint
from torch import nn

from predictor.errors import PredictorError
from predictor.frontends import ReadOptions, in_half
from predictor.frontends.torch_build import convert
from predictor.frontends.torch_device import any_device
from predictor.frontends.torch_meta import MetaMode, Shapes
from predictor.frontends.torch_model import (
    _AUTOCAST,
    _CAST,
    Arguments,
    Loaded,
    _arguments,
    _sizes_of,
    default_loss,
    read_torch,
)
from predictor.frontends.torch_record import parameters_of
from predictor.frontends.torch_whole import Counting
from predictor.ir import Graph, Parameter


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model on the meta device, and the arguments of its forward call."""

    loaded: Loaded
    arguments: Arguments
    parameters: tuple[Parameter, ...]


def read_count(source: Any, options: ReadOptions, shapes: Shapes | None = None) -> Graph:
    """The forward pass of a model, each operator with what its gradient rule needs; no storage events.

    What cannot be seen this way (detectors, constructors or forward passes that need values) is recorded in
    full. ``shapes`` may be kept from model to model: it remembers results of operators.
    """
    mode = MetaMode(shapes)
    try:
        with _no_collection():
            prepared = prepare(source, options, mode)
            if prepared is not None:
                return _forward(prepared, options, mode.shapes)
    except PredictorError:
        raise
    except Exception:  # whatever a model's own code needs values for
        pass
    return read_torch(source, options)


def prepare(source: Any, options: ReadOptions, mode: MetaMode) -> Prepared | None:
    """Build a model and its inputs on the meta device; None for models that run in a context of their own."""
    from predictor.frontends.torch_sources import load_module

    if isinstance(source, nn.Module):
        name = type(source).__name__
        loaded = Loaded(mode.copy(source), name, f"torch module {name}", None, {})
    else:
        loaded = load_module(source, options, cast(Any, mode))
    if loaded.around is not None:
        return None
    parameters = parameters_of(loaded.module)
    dtype = _CAST.get(options.precision)
    convert(loaded.module, cast(Any, mode), dtype, options.channels_last)
    with mode:
        arguments = _arguments(loaded, options, dtype)
    return Prepared(loaded, arguments, parameters)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Pause the search for garbage: modules are made by the thousand, and none of them is garbage yet."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


@contextmanager
def _no_checkpoints() -> Iterator[None]:
    """Stop at activation checkpoints: what they do again only the full recording sees."""
    home = torch.utils.checkpoint
    name = "_checkpoint_without_reentrant_generator"
    kept, apply = getattr(home, name), home.CheckpointFunction.apply

    def stop(*_: Any, **__: Any) -> Any:
        raise RuntimeError("activation checkpointing")

    setattr(home, name, stop)
    home.CheckpointFunction.apply = stop  # type: ignore[method-assign]
    try:
        yield
    finally:
        setattr(home, name, kept)
        home.CheckpointFunction.apply = apply  # type: ignore[method-assign]


def _forward(prepared: Prepared, options: ReadOptions, shapes: Shapes) -> Graph:
    loaded, (args, kwargs) = prepared.loaded, prepared.arguments
    batch, tokens = _sizes_of((args, kwargs))
    module = loaded.module.train(options.train)
    counting = Counting(shapes)
    held = [*args, *kwargs.values()]
    with (
        any_device(),
        torch.set_grad_enabled(options.train),
        _no_checkpoints(),
        _below_autograd(),
        counting,
    ):
        outputs = module(*args, **kwargs)
        roots = []
        if options.train:
            for tensor in _results(outputs):
                tensor.requires_grad_(counting.flows.node(tensor).flow.needed)
            roots = [(loaded.loss or default_loss)(outputs, kwargs)]
    graph = Graph(
        name=loaded.name,
        source=loaded.source,
        ops=counting.flows.operators(roots),
        parameters=prepared.parameters,
        batch=batch,
        buffers_byte=sum(_byte(t) for t in module.buffers()),
        input_byte=sum(_byte(t) for t in held if isinstance(t, torch.Tensor)),
        tokens_per_sample=tokens,
        origin={"frontend": "torch, forward pass", "torch": str(torch.__version__)},
        notes=(_NOTE,) if options.train else (),
    )
    return (
        in_half(graph, _NAMES[options.precision], options.precision)
        if options.precision in _AUTOCAST
        else graph
    )


_NOTE = (
    "backward by rule",
    "the forward pass was recorded; gradients were priced by each operator's rule",
    "record the whole step for bytes, fusion and memory",
)
_NAMES = {"amp-bf16": "bfloat16", "amp-fp16": "float16"}


def _byte(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@contextmanager
def _below_autograd() -> Iterator[None]:
    """Operators reach the recorder whole: autograd neither takes them apart nor keeps anything."""
    guard = torch._C._AutoDispatchBelowAutograd()
    try:
        yield
    finally:
        del guard


def _results(outputs: Any) -> Iterator[torch.Tensor]:
    """Floating tensors among a model's results."""
    if isinstance(outputs, torch.Tensor):
        if outputs.is_floating_point():
            yield outputs
    elif isinstance(outputs, dict):
        yield from _results(list(outputs.values()))
    elif isinstance(outputs, list | tuple):
        for part in outputs:
            yield from _results(part)
