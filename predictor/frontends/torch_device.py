"""One place for every tensor: whatever device a model asks for, its tensors are made on the fake CPU.

A model may call ``.cuda()``, ``.to("cuda:1")`` or ``torch.zeros(..., device="cuda")``. On the accelerator
these would leave everything where it already is; here they do the same, with or without a driver.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

CPU = torch.device("cpu")


def on_cpu(kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """The keyword arguments of an operator with its device replaced."""
    made = dict(kwargs or {})
    if made.get("device") is not None:
        made["device"] = CPU
    return made


def _same(value: Any, *_: Any, **__: Any) -> Any:
    return value


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _first_device(*_: Any, **__: Any) -> int:
    return 0


def _without_device(to: Callable[..., Any]) -> Callable[..., Any]:
    """``Tensor.to`` that takes any device for the CPU."""

    def moved(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], str | int | torch.device):
            args = (CPU, *args[1:])
        return to(tensor, *args, **on_cpu(kwargs))

    return moved


def _stays(to: Callable[..., Any]) -> Callable[..., Any]:
    """``Module.to`` without its device; nothing is left of ``.to("cuda")``."""

    def moved(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], str | int | torch.device):
            args = args[1:]
        kwargs.pop("device", None)
        kept = {k: v for k, v in kwargs.items() if k != "non_blocking"}
        return to(module, *args, **kept) if args or kept else module

    return moved


def _autocast_on_cpu(init: Callable[..., Any]) -> Callable[..., Any]:
    """``torch.autocast`` of an accelerator, as that of the CPU; CUDA's half type is float16."""

    def made(
        self: Any,
        device_type: str,
        dtype: torch.dtype | None = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:
        if device_type != "cpu":
            dtype = dtype or torch.get_autocast_dtype(device_type)
        init(self, "cpu", dtype, enabled, cache_enabled)

    return made


@contextmanager
def any_device() -> Iterator[None]:
    """Take calls that name a device as if everything were on it already."""
    changes = [
        (torch.Tensor, "cuda", _same),
        (torch.Tensor, "to", _without_device(torch.Tensor.to)),
        (nn.Module, "cuda", _same),
        (nn.Module, "to", _stays(nn.Module.to)),
        (torch.autocast, "__init__", _autocast_on_cpu(torch.autocast.__init__)),
        (torch.cuda, "_lazy_init", _nothing),
        (torch.cuda, "synchronize", _nothing),
        (torch.cuda, "current_device", _first_device),
    ]
    own = [(owner, name, vars(owner).get(name)) for owner, name, _ in changes]
    try:
        for owner, name, stand_in in changes:
            setattr(owner, name, stand_in)
        yield
    finally:
        for owner, name, original in own:
            if original is None:  # inherited, such as Tensor.to
                delattr(owner, name)
            else:
                setattr(owner, name, original)
