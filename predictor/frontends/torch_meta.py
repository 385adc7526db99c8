"""Operators on the meta device at little cost, and models built there, for counting alone.

Meta tensors have a shape and no values, like fake tensors, without their bookkeeping. PyTorch works many
of their shapes out in Python (a millisecond for a batch norm); here common operators follow a rule, and
any other is worked out once and remembered by the shapes, strides and types of its arguments.
"""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

META = torch.device("meta")
# While a constructor runs, a tensor of more elements than this is never made for real.
_SMALL = 2**14
# Results kept of operators without a rule; the oldest are forgotten.
_REMEMBERED = 20_000

_SIZED = frozenset(
    f"aten::{name}"
    for name in "empty zeros ones full rand randn new_empty new_zeros new_ones new_full".split()
)
_RANDOM = frozenset(
    f"aten::{name}_" for name in "uniform normal bernoulli exponential random log_normal erfinv".split()
)
_LIKE_FIRST = frozenset(
    f"aten::{name}"
    for name in (
        "relu gelu silu sigmoid tanh hardswish hardsigmoid hardtanh elu leaky_relu mish softplus relu6 neg "
        "exp log sqrt rsqrt abs square sin cos erf dropout clamp clamp_min clamp_max log_sigmoid selu "
        "batch_norm layer_norm group_norm softmax log_softmax rms_norm"
    ).split()
)
_BINARY = frozenset(f"aten::{name}" for name in "add sub mul".split())
_RESHAPE_IN_PLACE = frozenset(
    f"aten::{name}_"
    for name in "resize resize_as t squeeze unsqueeze transpose swapaxes set as_strided detach".split()
)
_MAY_BE_VIEW = frozenset(
    f"aten::{name}"
    for name in (
        "reshape flatten contiguous to expand_as view_as reshape_as unflatten type_as chunk split narrow "
        "movedim moveaxis swapaxes swapdims tensor_split hsplit vsplit squeeze unsafe_chunk numpy_T "
        "matrix_H mT adjoint broadcast_to ravel"
    ).split()
)


class Call:
    """What is fixed about an operator."""

    __slots__ = (
        "arguments",
        "binary",
        "has_device",
        "in_place",
        "is_view",
        "like_first",
        "may_be_view",
        "name",
    )

    def __init__(self, func: Any) -> None:
        schema = func._schema
        self.name: str = schema.name
        self.arguments = tuple(argument.name for argument in schema.arguments)
        self.is_view = bool(func.is_view)
        self.may_be_view = self.name in _MAY_BE_VIEW
        own = self.name.endswith("_") and not self.name.endswith("__")
        self.in_place = own and schema.is_mutable and self.name not in _RESHAPE_IN_PLACE
        self.like_first = self.name in _LIKE_FIRST
        self.binary = self.name in _BINARY
        self.has_device = "device" in self.arguments


@cache
def call_of(func: Any) -> Call:
    """The facts of an operator, looked up once."""
    return Call(func)


def tensors_of(values: Any) -> Iterator[torch.Tensor]:
    """The tensors among arguments, those in lists included."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from (v for v in value if isinstance(v, torch.Tensor))


def on_meta(value: Any) -> Any:
    """The same value with meta tensors in the place of others; lists are followed."""
    if isinstance(value, torch.Tensor):
        return value if value.is_meta else twin(value)
    if isinstance(value, list | tuple) and any(isinstance(v, torch.Tensor) for v in value):
        return [on_meta(v) for v in value]
    return value


def twin(tensor: torch.Tensor) -> torch.Tensor:
    """A meta tensor of the same shape, type and strides; a parameter of a parameter."""
    made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(made, requires_grad=tensor.requires_grad)
    return made


def placed(
    call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with every tensor and every device replaced by meta."""
    args = tuple(META if isinstance(a, torch.device) else on_meta(a) for a in args)
    kwargs = {key: on_meta(value) for key, value in kwargs.items() if key != "pin_memory"}
    makes_new = call.has_device and next(tensors_of(args), None) is None
    if makes_new or kwargs.get("device") is not None:
        kwargs["device"] = META
    return args, kwargs


class OnMeta(TorchDispatchMode):
    """Puts on the meta device whatever a model makes elsewhere; constants of the host stay real."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = [t.is_meta for t in tensors_of((*args, *kwargs.values()))]
        if not given or any(given):
            args, kwargs = placed(call_of(func), args, kwargs)
        return func(*args, **kwargs)


class Shapes:
    """Results of operators on meta tensors: by rule, by memory, or worked out by PyTorch."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def result(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What ``func`` returns; all tensors among its arguments are meta tensors."""
        call = call_of(func)
        if call.in_place:
            return args[0]
        if call.is_view or call.may_be_view:
            return func(*args, **kwargs)
        if call.like_first and "dtype" not in kwargs:
            return torch.empty_like(args[0])
        if call.binary and len(args) == 2 and not kwargs and _same_form(*args):
            return torch.empty_like(args[0])
        if call.name == "aten::linear":
            x, weight = args[:2]
            return torch.empty((*x.shape[:-1], *weight.shape[:-1]), dtype=x.dtype, device=META)
        return self._remembered(func, args, kwargs)

    def _remembered(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        key = (func, *map(_form, args), *((name, _form(value)) for name, value in kwargs.items()))
        forms = self._known.get(key)
        if forms is not None:
            return _made(forms)
        out = func(*args, **kwargs)
        forms = _form(out)
        if not _shares(out, (*args, *kwargs.values())):
            if len(self._known) >= _REMEMBERED:
                self._known.pop(next(iter(self._known)))
            self._known[key] = forms
        return out


class _Form(tuple[Any, ...]):
    """Shape, strides and type of a tensor, told apart from other tuples."""

    __slots__ = ()


def _form(value: Any) -> Any:
    """What the shape of a result can depend on."""
    if isinstance(value, torch.Tensor):
        return _Form((value.shape, value.stride(), value.dtype))
    if isinstance(value, list | tuple):
        return tuple(map(_form, value))
    return value if isinstance(value, bool) else (type(value), value)


def _made(form: Any) -> Any:
    """New meta tensors of remembered forms."""
    if isinstance(form, _Form):
        shape, stride, dtype = form
        return torch.empty_strided(shape, stride, dtype=dtype, device=META)
    return tuple(map(_made, form))


def _same_form(a: Any, b: Any) -> bool:
    if isinstance(b, torch.Tensor):
        return bool(a.dtype == b.dtype and a.shape == b.shape and a.stride() == b.stride())
    return not isinstance(b, float | complex) or bool(a.dtype.is_floating_point)


def _shares(out: Any, values: Any) -> bool:
    """True when a result lies in the memory of an argument, or is not made of tensors alone."""
    given = {t.untyped_storage()._cdata for t in tensors_of(values)}
    results = [out] if isinstance(out, torch.Tensor) else out
    if not isinstance(results, list | tuple) or not all(isinstance(t, torch.Tensor) for t in results):
        return True
    return any(t.untyped_storage()._cdata in given for t in results)


class _Building(TorchDispatchMode):
    """Large new tensors are meta, small ones real; what meets a meta tensor becomes one."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.shapes = shapes

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # spares a wrapper around every call; nothing is compiled here

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        if name in _RANDOM:
            return args[0]
        if name in _SIZED:
            size = next((a for a in args if isinstance(a, list | tuple)), ())
            return (
                func(*args, **(kwargs | {"device": META})) if prod(size) > _SMALL else func(*args, **kwargs)
            )
        if not any(t.is_meta for t in tensors_of(args)):
            return func(*args, **kwargs)
        if name == "aten::copy_":
            return args[0]
        return self.shapes.result(func, tuple(map(on_meta, args)), {k: on_meta(v) for k, v in kwargs.items()})


@contextmanager
def _no_initial_values() -> Iterator[None]:
    """Skip the filling of weights: their values never matter, and some fillings loop until they fit."""
    fillers = [name for name in vars(nn.init) if name.endswith("_")]
    kept = {name: getattr(nn.init, name) for name in fillers if callable(getattr(nn.init, name))}
    try:
        for name in kept:
            setattr(nn.init, name, lambda tensor, *_, **__: tensor)
        yield
    finally:
        for name, function in kept.items():
            setattr(nn.init, name, function)


class MetaMode:
    """Stands in for a fake tensor mode where a model is built: its weights become meta tensors.

    As a context manager it makes new tensors meta.
    """

    def __init__(self, shapes: Shapes | None = None) -> None:
        self.shapes = shapes or Shapes()

    def build(self, factory: Callable[[], Any]) -> Any:
        """Call ``factory`` so that nothing large is allocated."""
        with warnings.catch_warnings(), _no_initial_values(), _Building(self.shapes):
            warnings.simplefilter("ignore")  # what a constructor warns of concerns real training
            module = factory()
        if isinstance(module, nn.Module):
            _move(module)
        return module

    def copy(self, module: nn.Module) -> nn.Module:
        """A copy on the meta device; the module itself is left as it is and its weights are not copied."""
        tensors = [*module.parameters(), *module.buffers()]
        twins: dict[int, Any] = {id(t): twin(t) for t in tensors}
        return copy.deepcopy(module, twins)

    def __enter__(self) -> "MetaMode":
        META.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        META.__exit__(*error)


def _move(module: nn.Module) -> None:
    """Replace parameters and buffers by meta ones, in place; tied ones stay tied."""
    made: dict[int, torch.Tensor] = {}
    for part in module.modules():
        tables: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
        for table in tables:
            for name, tensor in table.items():
                if tensor is None or tensor.is_meta:
                    continue
                if id(tensor) not in made:
                    made[id(tensor)] = twin(tensor)
                table[name] = made[id(tensor)]
