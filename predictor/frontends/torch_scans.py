"""Sequence mixers as one operator each, as their accelerator kernels run them.

Model code that finds no accelerator kernel falls back to loops over positions: thousands of small
operators that no accelerator would run. These operators stand for the kernels (their formulas are in
``ops/sequence.py``); each saves its inputs and computes its states again in the backward pass.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.library import Library

_OWN = Library("predictor", "FRAGMENT")


def _new(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


# Operator -> its result, made of its inputs.
_RESULT: dict[str, Callable[[Any], torch.Tensor]] = {
    "causal_conv1d": lambda inputs: _new(inputs[0]),
    "selective_scan": lambda inputs: _new(inputs[0]),
    "chunk_scan": lambda inputs: _new(inputs[0]),
    "delta_rule": lambda inputs: _new(inputs[2]),
    "wkv": lambda inputs: _new(inputs[2]),
    "linear_scan": lambda inputs: _new(inputs[1]),
    "ctc_loss": lambda inputs: inputs[0].new_empty(inputs[0].shape[1]),
}


def _shape_of(result: Callable[[Any], torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda tensors, chunk: result(tensors)


def _gradient_shapes(grad: Any, tensors: Any, chunk: int) -> list[torch.Tensor]:
    return [_new(t) for t in tensors if t.is_floating_point()]


for _name, _result in _RESULT.items():
    _OWN.define(f"{_name}(Tensor[] tensors, int chunk) -> Tensor")
    _OWN.define(f"{_name}_backward(Tensor grad, Tensor[] tensors, int chunk) -> Tensor[]")
    torch.library.register_fake(f"predictor::{_name}", _shape_of(_result), lib=_OWN)
    torch.library.register_fake(f"predictor::{_name}_backward", _gradient_shapes, lib=_OWN)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, name: str, chunk: int, *tensors: Any) -> Any:
        ctx.save_for_backward(*tensors)
        ctx.call = name, chunk
        return getattr(torch.ops.predictor, name)(list(tensors), chunk)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        name, chunk = ctx.call
        saved = ctx.saved_tensors
        made = iter(getattr(torch.ops.predictor, f"{name}_backward")(grads[0], list(saved), chunk))
        return None, None, *(next(made) if t.is_floating_point() else None for t in saved)


def _scan(name: str, chunk: int, *tensors: Any) -> Any:
    return _Scan.apply(name, chunk, *(t for t in tensors if t is not None))


def causal_conv1d(x: Any, weight: Any, bias: Any = None, **_: Any) -> Any:
    """Each channel of x [b, d, s] with its own taps [d, k] over the past, then the activation."""
    return _scan("causal_conv1d", 0, x, weight, bias)


def selective_scan(
    x: Any,
    dt: Any,
    A: Any,  # noqa: N803 (the names of mamba_ssm, by which models call it)
    B: Any,  # noqa: N803
    C: Any,  # noqa: N803
    D: Any = None,  # noqa: N803
    z: Any = None,
    delta_bias: Any = None,
    return_last_state: bool = False,
    **_: Any,
) -> Any:
    """Mamba-1 on x [b, d, s] with states of A's [d, n]."""
    y = _scan("selective_scan", 0, x, dt, A, B, C, D, z, delta_bias)
    return (y, x.new_zeros(x.shape[0], *A.shape)) if return_last_state else y


def chunk_scan(
    x: Any,
    dt: Any,
    A: Any,  # noqa: N803
    B: Any,  # noqa: N803
    C: Any,  # noqa: N803
    chunk_size: int,
    D: Any = None,  # noqa: N803
    z: Any = None,
    dt_bias: Any = None,
    return_final_states: bool = False,
    **_: Any,
) -> Any:
    """Mamba-2 on x [b, s, h, p] with B and C [b, s, g, n]."""
    y = _scan("chunk_scan", chunk_size, x, dt, A, B, C, D, z, dt_bias)
    b, _, h, p = x.shape
    return (y, x.new_zeros(b, h, p, B.shape[-1])) if return_final_states else y


def delta_rule(
    query: Any,
    key: Any,
    value: Any,
    g: Any,
    beta: Any,
    chunk_size: int = 64,
    output_final_state: bool = False,
    **_: Any,
) -> Any:
    """Gated delta rule on q, k [b, s, h, k] and v [b, s, h, v]; decays per head or per channel."""
    out = _scan("delta_rule", chunk_size, query, key, value, g, beta)
    b, _, h, v = value.shape
    return out, value.new_zeros(b, h, key.shape[-1], v) if output_final_state else None


def wkv(
    time_decay: Any, time_first: Any, key: Any, value: Any, state: Any = None, return_state: bool = False
) -> Any:
    """RWKV-4 on key and value [b, s, d]."""
    out = _scan("wkv", 0, time_decay, time_first, key, value)
    if return_state or state is not None:
        state = [torch.zeros_like(key[:, 0], dtype=torch.float32) for _ in range(3)]
    return out, state


def linear_scan(decay: Any, x: Any) -> Any:
    """h = decay h + x along the second axis of [b, s, d]."""
    return _scan("linear_scan", 0, decay, x)


def ctc_loss(log_probs: Any, targets: Any) -> Any:
    """Connectionist temporal classification of log_probs [s, b, c] against targets [b, l]: a loss each."""
    return _scan("ctc_loss", 0, log_probs, targets)


def _torch_ctc_loss(
    log_probs: Any,
    targets: Any,
    _input_lengths: Any,
    _target_lengths: Any,
    _blank: int = 0,
    reduction: int = 1,
    _zero_infinity: bool = False,
) -> Any:
    """``torch.ctc_loss``; lengths are taken as full, the mean is over clips."""
    losses = ctc_loss(log_probs, targets)
    if reduction == 0:
        return losses
    return losses.mean() if reduction == 1 else losses.sum()


def implement(library: Library) -> None:
    """Put our operator in the place of PyTorch's CTC loss, whose fake tensors need its lengths."""
    for overload in ("IntList", "Tensor"):
        library.impl(f"ctc_loss.{overload}", _torch_ctc_loss, "AutogradCPU")
