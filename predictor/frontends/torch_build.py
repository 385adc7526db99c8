"""Build a PyTorch model whose weights take no memory, whatever its constructor computes.

Weights become fake tensors (shape and type, no storage). Small tensors stay real while the
constructor runs, because many constructors compute with them: ``[x.item() for x in linspace(...)]``.
Everything is recorded as if on the CPU: fake CUDA tensors with gradients abort a CPU-only PyTorch.
"""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeCopyMode,
    FakeTensor,
    FakeTensorMode,
)
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from predictor.errors import InputError
from predictor.frontends.torch_device import any_device, on_cpu
from predictor.frontends.torch_meta import MetaMode
from predictor.frontends.torch_standin import RecordingMode

# A tensor of more elements than this is never made for real.
SMALL = 2**14
# Two small tensors whose elements together stay below this cannot broadcast to a large one.
_SAFE = 2 * 2**7


def fake_mode() -> RecordingMode:
    """A fake tensor mode that also takes the real tensors a model holds beside its weights."""
    return RecordingMode()


class _Building(TorchDispatchMode):
    """Large new tensors are fake, small ones real; all are on the CPU."""

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()
        self.mode = mode

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = on_cpu(kwargs) if kwargs else {}
        tensors = [a for a in tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor)]
        if any(isinstance(t, FakeTensor) for t in tensors):
            with self.mode:
                return func(*args, **kwargs)
        if not func.is_view and not func._schema.is_mutable and self._may_be_large(func, args, tensors):
            twin = self._shapes(func, args, kwargs)
            if any(t.numel() > SMALL for t in tree_leaves(twin) if isinstance(t, torch.Tensor)):
                return twin
        return func(*args, **kwargs)

    @staticmethod
    def _may_be_large(func: Any, args: tuple[Any, ...], tensors: list[torch.Tensor]) -> bool:
        """New tensors by their size where it is given, results by what their arguments could broadcast to."""
        sized = next((a for a in args if isinstance(a, list | tuple) and a and isinstance(a[0], int)), None)
        if sized is not None:
            return prod(sized) > SMALL // max(sum(t.numel() for t in tensors), 1)
        if tensors:
            return sum(t.numel() for t in tensors) > _SAFE
        return any(isinstance(a, int | float) and abs(a) > _SAFE for a in args)

    def _shapes(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result as fake tensors; None where it depends on data.

        Given real tensors alone, a fake mode computes: they are made fake first.
        """

        def fake(value: Any) -> Any:
            return self.mode.from_tensor(value) if isinstance(value, torch.Tensor) else value

        try:
            with self.mode:
                args, kwargs = tree_map(fake, (args, kwargs))
                return func(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException):
            return None


@contextmanager
def _no_initial_values() -> Iterator[None]:
    """Skip the filling of weights: their values never matter, and some fillings loop until they fit."""
    fillers = [name for name in vars(nn.init) if name.startswith("_no_grad_")]
    kept = {name: getattr(nn.init, name) for name in fillers}
    try:
        for name in fillers:
            setattr(nn.init, name, lambda tensor, *_, **__: tensor)
        yield
    finally:
        for name, function in kept.items():
            setattr(nn.init, name, function)


def build(factory: Callable[[], Any], mode: FakeTensorMode | MetaMode) -> Any:
    """Call ``factory`` so that nothing large is allocated; the tensors of the module it returns are fake."""
    if isinstance(mode, MetaMode):  # counting alone
        return mode.build(factory)
    with warnings.catch_warnings(), _no_initial_values(), any_device(), _Building(mode):
        warnings.simplefilter("ignore")  # what a constructor warns of concerns real training
        module = factory()
    if isinstance(module, nn.Module):
        _make_fake(module, mode)
    return module


def fake_copy(module: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """A copy of a user's own module with fake tensors on the CPU; the module itself is left as it is."""
    with FakeCopyMode(mode):
        twin = copy.deepcopy(module)
    _make_fake(twin, mode)
    return twin


def _make_fake(module: nn.Module, mode: FakeTensorMode) -> None:
    """Replace parameters and buffers by fake CPU ones, in place."""
    _replace_tensors(module, lambda tensor: _fake(tensor, mode))


def convert(module: nn.Module, mode: FakeTensorMode, dtype: torch.dtype | None, channels_last: bool) -> None:
    """Give floating weights and buffers another type, and those with four axes another memory format.

    ``Module.to`` cannot swap fake parameters.
    """

    def converted(tensor: torch.Tensor) -> torch.Tensor:
        kind = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        layout = torch.channels_last if channels_last and tensor.dim() == 4 else torch.preserve_format
        if kind == tensor.dtype and layout is torch.preserve_format:
            return tensor
        with mode:
            twin = torch.empty_like(tensor, dtype=kind, memory_format=layout)
            return _as_parameter(twin, tensor)

    _replace_tensors(module, converted)


def _replace_tensors(module: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Put ``change(tensor)`` in the place of every parameter and buffer; tied ones stay tied."""
    made: dict[int, torch.Tensor] = {}
    for part in module.modules():
        for table in (part._parameters, part._buffers):
            for name, tensor in table.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    made[id(tensor)] = change(tensor)
                table[name] = made[id(tensor)]  # type: ignore[assignment]


def _fake(tensor: torch.Tensor, mode: FakeTensorMode) -> torch.Tensor:
    if is_lazy(tensor):
        raise InputError(
            "the model has lazy layers (nn.LazyLinear and the like), whose weights have no sizes before a "
            "first run; give their sizes, nn.Linear(16, 4) for nn.LazyLinear(4)"
        )
    if isinstance(tensor, FakeTensor) and tensor.fake_mode is mode and tensor.device.type == "cpu":
        return tensor
    with mode:
        twin = torch.empty_strided(tuple(tensor.shape), tensor.stride(), dtype=tensor.dtype, device="cpu")
        return _as_parameter(twin, tensor)


def _as_parameter(twin: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
    """A parameter when the original is one."""
    if isinstance(original, nn.Parameter) or getattr(original, "_is_param", False):
        return nn.Parameter(twin.detach(), requires_grad=original.requires_grad)
    return twin
