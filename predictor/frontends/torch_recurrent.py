"""LSTM, GRU and simple RNN layers as one operator, as an accelerator's library runs them.

On the CPU they fall apart into a product per step. ``implement`` puts ``predictor::recurrent`` in their
place: all layers, directions and steps in one call that saves its gates for one backward call.

Packed sequences are taken at full length: how much of a batch is padding depends on data.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.library import Library
from torch.utils._python_dispatch import _disable_current_modes

_OWN = Library("predictor", "FRAGMENT")
_CONFIG = "str cell, int layers, int directions, bool batch_first, bool biases"
_OWN.define(f"recurrent(Tensor x, Tensor[] states, Tensor[] weights, {_CONFIG}, bool train) -> Tensor[]")
_OWN.define(
    "recurrent_backward(Tensor x, Tensor[] states, Tensor[] weights, Tensor[] grads, Tensor saved, "
    f"{_CONFIG}) -> Tensor[]"
)
# Values kept per hidden unit, step, layer and direction for the backward pass: the gates after their
# nonlinearity, the state, and what joins them (the cell of an LSTM, the gated state of a GRU).
SAVED_PER_UNIT = {"lstm": 6, "gru": 5, "rnn": 2}


@torch.library.register_fake("predictor::recurrent", lib=_OWN)
def _shapes(
    x: Any,
    states: Any,
    weights: Any,
    cell: str,
    layers: int,
    directions: int,
    batch_first: bool,
    biases: bool,
    train: bool,
) -> list[Any]:
    """The result [t, b, directions * h], final states, and what training keeps; packed input is [rows, i]."""
    hidden = states[0].shape[-1]
    out = x.new_empty((*x.shape[:-1], directions * hidden))
    units = weights[1].shape[0] // {"lstm": 4, "gru": 3, "rnn": 1}[cell]
    kept = x.shape[:-1].numel() * layers * directions * units * SAVED_PER_UNIT[cell] if train else 0
    return [out, *(torch.empty_like(s) for s in states), x.new_empty(kept)]


@torch.library.register_fake("predictor::recurrent_backward", lib=_OWN)
def _gradient_shapes(x: Any, states: Any, weights: Any, *_: Any) -> list[Any]:
    return [torch.empty_like(t) for t in (x, *states, *weights)]


class _Recurrent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, config: tuple[Any, ...], train: bool, count: int, x: Any, *tensors: Any) -> Any:
        states, weights = list(tensors[:count]), list(tensors[count:])
        *results, saved = torch.ops.predictor.recurrent(x, states, weights, *config, train)
        ctx.config, ctx.count = config, count
        ctx.save_for_backward(x, results[0], saved, *tensors)
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, _, saved, *tensors = ctx.saved_tensors
        states, weights = tensors[: ctx.count], tensors[ctx.count :]
        found = torch.ops.predictor.recurrent_backward(x, states, weights, list(grads), saved, *ctx.config)
        return (None, None, None, *found)


def _call(
    cell: str,
    x: Any,
    states: list[Any],
    weights: list[Any],
    biases: bool,
    layers: int,
    both: bool,
    first: bool,
) -> tuple[Any, ...]:
    directions = 2 if both else 1
    if torch.is_autocast_enabled("cpu"):
        kind = torch.get_autocast_dtype("cpu")
        x, states, weights = x.to(kind), [s.to(kind) for s in states], [w.to(kind) for w in weights]
    config = (cell, layers, directions, first, biases)
    train = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *states, *weights))
    results: tuple[Any, ...] = _Recurrent.apply(config, train, len(states), x, *states, *weights)
    return results


def _padded(cell: str) -> Callable[..., Any]:
    def run(x: Any, hx: Any, params: Any, biases: bool, layers: int, *flags: Any) -> tuple[Any, ...]:
        _dropout, _train, both, batch_first = flags
        return _call(cell, x, _states(hx), list(params), biases, layers, both, batch_first)

    return run


def _packed(cell: str) -> Callable[..., Any]:
    def run(
        data: Any, batch_sizes: Any, hx: Any, params: Any, biases: bool, layers: int, *flags: Any
    ) -> tuple[Any, ...]:
        _dropout, _train, both = flags
        return _call(cell, data, _states(hx), list(params), biases, layers, both, False)

    return run


def _states(hx: Any) -> list[Any]:
    return [hx] if isinstance(hx, torch.Tensor) else list(hx)


def _pack(padded: Any, lengths: Any, batch_first: bool) -> tuple[Any, Any]:
    """All steps of all sequences [t * b, ...], and b for each step, for real: models read it."""
    rows = padded.transpose(0, 1) if batch_first else padded
    with _disable_current_modes():
        sizes = torch.full((rows.shape[0],), rows.shape[1], dtype=torch.int64)
    return rows.clone(memory_format=torch.contiguous_format).flatten(0, 1), sizes


def _unpack(data: Any, sizes: Any, batch_first: bool, value: float, total: int) -> tuple[Any, Any]:
    """The rows [t * b, ...] as [t, b, ...], or [b, t, ...], padded to ``total`` steps; all lengths are t."""
    steps = sizes.shape[0]
    rows = data.unflatten(0, (steps, data.shape[0] // steps)).clone()
    if total > steps:
        rows = torch.cat([rows, rows.new_full((total - steps, *rows.shape[1:]), value)])
    with _disable_current_modes():
        lengths = torch.full((rows.shape[1],), steps, dtype=torch.int64)
    return rows.transpose(0, 1) if batch_first else rows, lengths


def implement(library: Library) -> None:
    """Put our operator in the place of PyTorch's recurrent layers."""
    for name, cell in (("lstm", "lstm"), ("gru", "gru"), ("rnn_tanh", "rnn"), ("rnn_relu", "rnn")):
        library.impl(f"{name}.input", _padded(cell), "AutogradCPU")
        library.impl(f"{name}.data", _packed(cell), "AutogradCPU")
    library.impl("_pack_padded_sequence", _pack, "AutogradCPU")
    library.impl("_pad_packed_sequence", _unpack, "AutogradCPU")
