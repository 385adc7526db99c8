"""Run one step of a PyTorch model on fake tensors and write down every operator and every storage."""

import logging
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from predictor.errors import InputError, UnsupportedError
from predictor.frontends.folded_log import expanded
from predictor.frontends.torch_blocks import groups_of
from predictor.frontends.torch_fold import check_marks, folding
from predictor.frontends.torch_kernels import accelerator_kernels
from predictor.frontends.torch_masks import marked, pattern_of
from predictor.ir import BACKWARD, FORWARD, RECOMPUTE, Op, Parameter, StorageEvent, TensorSpec

_DTYPES = {
    getattr(torch, name): name
    for name in (
        "float64",
        "float32",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "bool",
        "complex64",
        "complex128",
    )
}
_DTYPES |= {getattr(torch, n): "float8" for n in ("float8_e4m3fn", "float8_e5m2") if hasattr(torch, n)}


class _Call:
    """What is fixed about an operator: its name, the names of its arguments, whether it is skipped."""

    __slots__ = ("arguments", "name", "skip")

    def __init__(self, func: Any) -> None:
        namespace, _, name = func._schema.name.partition("::")
        self.name = f"{namespace}.{name}"
        self.arguments = tuple(argument.name for argument in func._schema.arguments)
        self.skip = namespace == "prim" or bool(func.is_view)


class Recorder(TorchDispatchMode):
    """Keeps operators in order and the life of every storage; views are left out, they move nothing.

    ``log`` holds, in order of time, operators, pairs (storage, byte) for memory taken and, with negative
    bytes, given back, and marks where a repeated block stands (``torch_fold``).
    """

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Any] = []
        self.phase = FORWARD
        self.scope = ""
        self.paused = False
        self._calls: dict[Any, _Call] = {}
        self._ids: dict[int, int] = {}
        self._watched: dict[int, weakref.ref[Any]] = {}
        self._next = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        call = self._calls.get(func)
        if call is None:
            call = self._calls[func] = _Call(func)
        if not call.skip and not self.paused:
            self._write(call, args, kwargs, out)
        if call.name == "aten._to_copy" and (pattern := pattern_of(args[0])) is not None:
            marked(out, pattern)  # a cast hides what the mask hid
        return out

    def _write(self, call: _Call, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        inputs: list[TensorSpec] = []
        attrs: dict[str, Any] = {}
        for name, value in (*zip(call.arguments, args, strict=False), *kwargs.items()):
            self._argument(name, value, inputs, attrs)
        outputs: list[TensorSpec] = []
        self._argument("", out, outputs, {})
        self.log.append(Op(call.name, tuple(inputs), tuple(outputs), attrs, self.phase, self.scope))

    def _argument(self, name: str, value: Any, tensors: list[TensorSpec], attrs: dict[str, Any]) -> None:
        if isinstance(value, torch.Tensor):
            tensors.append(self.spec(value))
        elif isinstance(value, list | tuple) and any(isinstance(v, torch.Tensor) for v in value):
            tensors.extend(self.spec(v) for v in value if isinstance(v, torch.Tensor))
        elif value is not None and name:
            attrs[name] = _plain(value)

    def spec(self, tensor: torch.Tensor) -> TensorSpec:
        """The spec of a tensor; a storage not seen before is an allocation."""
        storage = tensor.untyped_storage()
        number = self._ids.get(id(storage))
        if number is None:
            number = self._allocate(storage)
        dtype = _DTYPES.get(tensor.dtype)
        if dtype is None:
            raise UnsupportedError(
                f"tensors of type {tensor.dtype} cannot be counted; use one of {', '.join(_DTYPES.values())}"
            )
        return TensorSpec(tuple(tensor.shape), dtype, tensor.stride(), number)

    def fresh(self) -> int:
        """A storage number not used before."""
        self._next += 1
        return self._next - 1

    def _allocate(self, storage: Any) -> int:
        number, key, byte = self.fresh(), id(storage), storage.nbytes()
        self._ids[key] = number
        self.log.append((number, byte))

        def freed(_: Any) -> None:
            del self._ids[key], self._watched[key]
            self.log.append((number, -byte))

        self._watched[key] = weakref.ref(storage, freed)
        return number

    def known(self, tensors: Iterator[torch.Tensor]) -> int:
        """Bytes of tensors that live before the step; their storages are not events."""
        count = len(self.log)
        for tensor in tensors:
            self.spec(tensor)
        total: int = sum(byte for _, byte in self.log[count:])
        del self.log[count:]
        return total


def _plain(value: Any) -> Any:
    """An argument as numbers, words and tuples; types and devices by their names."""
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return value if isinstance(value, bool | int | float | str | type(None)) else str(value)


def split_log(log: Iterable[Any]) -> tuple[tuple[Op, ...], tuple[StorageEvent, ...]]:
    """Operators, and storage events with the number of operators before each, of a log without marks."""
    ops: list[Op] = []
    events: list[StorageEvent] = []
    for entry in log:
        if isinstance(entry, Op):
            ops.append(entry)
        else:
            events.append(StorageEvent(len(ops), entry[1], entry[0]))
    return tuple(ops), tuple(events)


@contextmanager
def _quiet() -> Iterator[None]:
    """What fails is reported once, by our own message; warnings about real training do not apply."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled


@contextmanager
def _scopes(module: nn.Module, recorder: Recorder) -> Iterator[None]:
    """Tell the recorder which module is running, by its path.

    A module that runs during the backward pass does forward work again (activation checkpointing).
    """
    names = {id(part): name for name, part in module.named_modules()}
    stack = [""]

    def enter(part: nn.Module, _: Any) -> None:
        stack.append(names.get(id(part), stack[-1]))
        recorder.scope = stack[-1]
        if recorder.phase == BACKWARD:
            recorder.phase = RECOMPUTE

    def leave(*_: Any) -> None:
        stack.pop()
        recorder.scope = stack[-1]
        if recorder.phase == RECOMPUTE and len(stack) == 1:
            recorder.phase = BACKWARD

    hooks = [
        register_module_forward_pre_hook(enter),
        register_module_forward_hook(leave, always_call=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True, slots=True)
class Recording:
    """One step: operators, storage events, the storages of gradients, bytes of buffers and inputs."""

    ops: tuple[Op, ...]
    events: tuple[StorageEvent, ...]
    gradients: frozenset[int]
    buffers_byte: int
    input_byte: int


def record_step(
    module: nn.Module,
    inputs: tuple[tuple[Any, ...], dict[str, Any]],
    mode: Any,
    *,
    train: bool,
    autocast: torch.dtype | None,
    loss: Callable[[Any, Mapping[str, Any]], torch.Tensor],
    fold: bool = True,
) -> Recording:
    """Forward, loss and backward of one micro-batch, or the forward pass alone.

    ``fold`` records repeated blocks once (``torch_fold``); the result is the same. Where a model does not
    take it (blocks that change their input in place, that run again in the backward pass, or whose instances
    get different gradients), everything is recorded.
    """
    module.train(train)
    step = partial(_recorded, module, inputs, mode, train, autocast, loss)
    groups = groups_of(module) if fold else []
    if groups:
        try:
            return step(groups)
        except (RuntimeError, TypeError):
            for parameter in module.parameters():
                parameter.grad = None
    return step([])


def _recorded(
    module: nn.Module,
    inputs: tuple[tuple[Any, ...], dict[str, Any]],
    mode: Any,
    train: bool,
    autocast: torch.dtype | None,
    loss: Callable[[Any, Mapping[str, Any]], torch.Tensor],
    groups: list[list[nn.Module]],
) -> Recording:
    recorder = Recorder()
    args, kwargs = inputs
    recorder.known(iter(module.parameters()))
    buffers_byte = recorder.known(iter(module.buffers()))
    input_byte = recorder.known(t for t in (*args, *kwargs.values()) if isinstance(t, torch.Tensor))
    with _quiet(), mode, accelerator_kernels(autocast), _scopes(module, recorder), recorder:
        with nullcontext() if train else torch.no_grad(), folding(groups, recorder):
            outputs = module(*args, **kwargs)
        value = loss(outputs, kwargs) if train else None
        del outputs
    if value is not None:
        _backward(value, module, recorder, mode)
    del value
    check_marks(recorder.log)
    gradients = frozenset(recorder.spec(p.grad).storage for p in module.parameters() if p.grad is not None)
    ops, events = split_log(expanded(recorder.log, recorder.fresh))
    return Recording(ops, events, gradients, buffers_byte, input_byte)


def _backward(value: torch.Tensor, module: nn.Module, recorder: Recorder, mode: Any) -> None:
    if not value.requires_grad:
        raise InputError("no parameter of the model receives a gradient; use --mode infer for frozen models")
    recorder.phase, recorder.scope = BACKWARD, ""
    with _quiet(), mode, accelerator_kernels(None), _scopes(module, recorder), recorder:
        value.backward()


def parameters_of(module: nn.Module) -> tuple[Parameter, ...]:
    """Weights of a module, tied ones once."""
    return tuple(
        Parameter(name, tuple(p.shape), _DTYPES[p.dtype], p.requires_grad, is_routed(name))
        for name, p in module.named_parameters()
    )


def is_routed(name: str) -> bool:
    """Whether a weight belongs to experts among which tokens are spread; shared experts see all tokens.

    >>> is_routed("layers.0.experts.w1"), is_routed("layers.0.shared_experts.w1")
    (True, False)
    """
    return "expert" in name and "shared_expert" not in name
