"""PyTorch models, however they are named, to a Graph."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from predictor.errors import InputError, PredictorError, UnsupportedError
from predictor.frontends import ReadOptions
from predictor.frontends.inputs import InputSpec, parse_input
from predictor.frontends.torch_blame import advice, place_of
from predictor.frontends.torch_build import convert, fake_copy, fake_mode
from predictor.frontends.torch_device import any_device
from predictor.frontends.torch_hf_kernels import paths_of
from predictor.frontends.torch_record import parameters_of, record_step
from predictor.ir import Graph

Loss = Callable[[Any, Mapping[str, Any]], torch.Tensor]
Arguments = tuple[tuple[Any, ...], dict[str, Any]]

_CAST = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.bfloat16}
_AUTOCAST = {"amp-bf16": torch.bfloat16, "amp-fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A built model and what was found beside it.

    inputs  specs, tensors, a dict of tensors, or a callable that makes them
    sizes   what B, S and P of the specs are when the job does not say
    around  makes a context to record in, for models that need one
    """

    module: nn.Module
    name: str
    source: str
    inputs: Any
    sizes: Mapping[str, int | None]
    loss: Loss | None = None
    taken: frozenset[str] = frozenset()
    around: Callable[[Any], AbstractContextManager[Any]] | None = None


def read_torch(source: Any, options: ReadOptions) -> Graph:
    """Build the model without weights, record one step, return its Graph.

    Raises InputError when the source cannot be found or built, UnsupportedError when recording meets
    control flow that depends on data.
    """
    from predictor.frontends.torch_sources import load_module

    mode = fake_mode()
    loaded = _of_module(source, mode) if isinstance(source, nn.Module) else load_module(source, options, mode)
    return read_module(loaded, options, mode)


def _of_module(module: nn.Module, mode: FakeTensorMode) -> Loaded:
    name = type(module).__name__
    return Loaded(fake_copy(module, mode), name, f"torch module {name}", None, {})


def read_module(loaded: Loaded, options: ReadOptions, mode: FakeTensorMode) -> Graph:
    """Record a built module."""
    module = loaded.module
    parameters = parameters_of(module)
    dtype = _CAST.get(options.precision)
    convert(module, mode, dtype, options.channels_last)
    with mode:
        try:
            arguments = _arguments(loaded, options, dtype)
        except (RuntimeError, TypeError, OverflowError) as error:
            raise InputError(f"{loaded.source}: its inputs cannot be made: {_first_line(error)}") from None
    batch, tokens = _sizes_of(arguments)
    around = loaded.around(mode) if loaded.around else paths_of(module)
    try:
        with any_device(), around:
            recording = record_step(
                module,
                arguments,
                mode,
                train=options.train,
                autocast=_AUTOCAST.get(options.precision),
                loss=loaded.loss or default_loss,
            )
    except PredictorError:
        raise
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise UnsupportedError(
            f"{loaded.source}: a shape or a branch depends on data ({error}){place_of(error, module)}; "
            "replace it by a fixed shape for the prediction, or export the model to ONNX"
        ) from None
    except Exception as error:
        raise InputError(
            f"{loaded.source}: recording a step failed{place_of(error, module)}: {type(error).__name__}: "
            f"{_first_line(error)}; {advice(error) or 'inputs were ' + describe(arguments)}"
        ) from error
    return Graph(
        name=loaded.name,
        source=loaded.source,
        ops=recording.ops,
        parameters=parameters,
        batch=options.batch or batch,
        buffers_byte=recording.buffers_byte,
        input_byte=recording.input_byte,
        tokens_per_sample=tokens,
        events=recording.events,
        gradients=recording.gradients,
        origin={"frontend": "torch", "torch": str(torch.__version__)},
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]


def describe(arguments: Arguments) -> str:
    """The inputs as words, for messages."""
    args, kwargs = arguments
    named = [("", a) for a in args] + list(kwargs.items())
    words = []
    for name, value in named:
        if isinstance(value, torch.Tensor):
            shape = ",".join(map(str, value.shape))
            words.append(f"{name or 'input'}:{str(value.dtype).removeprefix('torch.')}[{shape}]")
    return " ".join(words)


def _arguments(loaded: Loaded, options: ReadOptions, dtype: torch.dtype | None) -> Arguments:
    """Fake tensors for the forward call, on the shapes the job asks for. Runs inside the fake mode."""
    given = options.inputs if options.inputs is not None else loaded.inputs
    if given is None:
        raise InputError(
            f"{loaded.source}: its inputs are not known; give --input NAME:DTYPE[SIZES], "
            "or example_inputs beside the factory"
        )
    if isinstance(given, str):
        given = [given]
    if isinstance(given, list | tuple) and given and all(isinstance(g, str) for g in given):
        made = _from_specs([parse_input(g) for g in given], loaded, options)
    else:
        _check_taken(loaded, options, loaded.taken)
        made = [(n, _twin(v, options)) for n, v in _named(given)]
    tensors = [(name, _prepared(value, dtype, options.channels_last)) for name, value in made]
    return tuple(v for n, v in tensors if not n), {n: v for n, v in tensors if n}


def _from_specs(
    specs: list[InputSpec], loaded: Loaded, options: ReadOptions
) -> list[tuple[str, torch.Tensor]]:
    asked = {"B": options.batch, "S": options.seq_len, "P": options.image_size}
    sizes = dict(loaded.sizes) | {letter: size for letter, size in asked.items() if size is not None}
    letters = {axis for spec in specs for axis in spec.shape if isinstance(axis, str)}
    named = {name for letter, name in (("S", "seq_len"), ("P", "image_size")) if letter in letters}
    _check_taken(loaded, options, loaded.taken | named)
    placed = any("B" in spec.shape for spec in specs)
    return [(s.name, _tensor(s, sizes, None if placed else options.batch)) for s in specs]


def _check_taken(loaded: Loaded, options: ReadOptions, taken: frozenset[str]) -> None:
    """Refuse a size that would change nothing."""
    for name, value in (("seq_len", options.seq_len), ("image_size", options.image_size)):
        if value is not None and name not in taken:
            raise InputError(f"{loaded.source}: {name} {value} has no effect on its inputs; leave it away")


def _tensor(spec: InputSpec, sizes: Mapping[str, int | None], batch: int | None) -> torch.Tensor:
    """Zeros of the spec's shape; ``batch`` replaces the first axis where no letter says which it is."""
    shape = list(spec.resolve(sizes))
    if batch is not None and shape:
        shape[0] = batch
    return torch.zeros(shape, dtype=getattr(torch, spec.dtype))


def _named(given: Any) -> list[tuple[str, Any]]:
    if isinstance(given, Mapping):
        return [(str(k), v) for k, v in given.items()]
    if isinstance(given, torch.Tensor):
        return [("", given)]
    if isinstance(given, list | tuple):
        return [("", v) for v in given]
    raise InputError(f"inputs are a {type(given).__name__}; give tensors, a dict of tensors, or specs")


def _twin(value: Any, options: ReadOptions) -> Any:
    """A fake tensor of the same shape and type, its first axis the job's micro-batch."""
    if not isinstance(value, torch.Tensor):
        return value
    shape = list(value.shape)
    if options.batch is not None and shape:
        shape[0] = options.batch
    return torch.zeros(shape, dtype=value.dtype)


def _prepared(value: Any, dtype: torch.dtype | None, channels_last: bool) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    if dtype is not None and value.is_floating_point():
        value = value.to(dtype)
    if channels_last and value.dim() == 4:
        value = value.to(memory_format=torch.channels_last)
    return value


def _sizes_of(arguments: Arguments) -> tuple[int, int | None]:
    """Batch, the first axis of the first tensor; tokens, the second axis of the first whole-number input."""
    args, kwargs = arguments
    tensors = [v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)]
    batch = next((t.shape[0] for t in tensors if t.dim() > 0), 1)
    tokens = next((t.shape[1] for t in tensors if t.dim() == 2 and not t.is_floating_point()), None)
    return batch, tokens


def default_loss(outputs: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
    """The model's own loss when it returns one, else cross-entropy of every floating output.

    The classes are the last axis of [b, c] and [b, s, c], the second of [b, c, h, w]; an output without
    classes contributes its mean.
    """
    own = getattr(outputs, "loss", None)
    if isinstance(own, torch.Tensor):
        return own
    losses = [_cross_entropy(t) for t in _floating(outputs) if t.requires_grad]
    if not losses:
        raise InputError("the model returns no floating tensor that depends on a trainable parameter")
    return torch.stack(losses).sum() if len(losses) > 1 else losses[0]


def _floating(outputs: Any) -> list[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        return [outputs] if outputs.is_floating_point() else []
    if isinstance(outputs, Mapping):
        outputs = list(outputs.values())
    if isinstance(outputs, list | tuple):
        return [t for part in outputs for t in _floating(part)]
    return []


def _cross_entropy(logits: torch.Tensor) -> torch.Tensor:
    if logits.dim() < 2:
        return logits.mean()
    if logits.dim() == 4:
        target = torch.zeros((logits.shape[0], *logits.shape[2:]), dtype=torch.int64)
        return nn.functional.cross_entropy(logits, target)
    classes = logits.shape[-1]
    flat = logits.reshape(-1, classes)
    return nn.functional.cross_entropy(flat, torch.zeros(flat.shape[0], dtype=torch.int64))
