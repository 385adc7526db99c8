"""The forward pass of a model seen before PyTorch takes its operators apart, and written down.

Below autograd a linear layer is one call, not a transpose and a product; so are normalisations, attention,
dropout and recurrent layers. Every other composite operator is taken apart here, into what a recording of
the whole step would see.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from predictor.frontends.torch_flow import Flows
from predictor.frontends.torch_masks import Pattern, pattern_of
from predictor.frontends.torch_meta import META, Call, Shapes, call_of, placed, tensors_of

# What an operator seen whole is called where its parts are recorded.
_WHOLE = {
    "aten::conv1d": "aten.convolution",
    "aten::conv2d": "aten.convolution",
    "aten::conv3d": "aten.convolution",
    "aten::conv_transpose1d": "aten.convolution",
    "aten::conv_transpose2d": "aten.convolution",
    "aten::conv_transpose3d": "aten.convolution",
    "aten::linear": "aten.linear",
    "aten::batch_norm": "aten.native_batch_norm",
    "aten::layer_norm": "aten.native_layer_norm",
    "aten::group_norm": "aten.native_group_norm",
    "aten::rms_norm": "aten._fused_rms_norm",
    "aten::softmax": "aten._softmax",
    "aten::log_softmax": "aten._log_softmax",
    "aten::to": "aten._to_copy",
    "aten::type_as": "aten._to_copy",
    "aten::silu": "aten.silu",
    "aten::relu6": "aten.hardtanh",
    "aten::selu": "aten.elu",
}
# Written in place while their gradients read what was there before: autograd keeps a copy.
_COPIED_FIRST = frozenset(
    f"aten::{name}_" for name in "silu hardswish mish hardsigmoid gelu softplus".split()
)
_CUT = frozenset(
    f"aten::{name}"
    for name in (
        "detach zeros_like ones_like empty_like full_like rand_like randn_like new_zeros new_ones new_empty "
        "new_full argmax argmin sign floor ceil round bernoulli"
    ).split()
)


@cache
def _composite(func: Any) -> bool:
    return bool(func._can_decompose()) and call_of(func).name not in _WHOLE


class Counting(TorchDispatchMode):
    """Keeps the operators of a forward pass on meta tensors, and where gradients will flow."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.shapes = shapes
        self.flows = Flows()
        self.scope = ""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # spares a wrapper around every call; nothing is compiled here

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        call = call_of(func)
        given = [t.is_meta for t in tensors_of((*args, *kwargs.values()))]
        if given and not any(given):
            return func(*args, **kwargs)  # constants of the host
        if call.has_device or not all(given):
            args, kwargs = placed(call, args, kwargs)
        special = _SPECIAL.get(call.name)
        if special is not None:
            return special(self, *args, **kwargs)
        if _composite(func) and not call.may_be_view:
            with self:
                return func.decompose(*args, **kwargs)
        out = self.shapes.result(func, args, kwargs)
        self._note(call, args, kwargs, out)
        return out

    def _note(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        inputs = list(tensors_of((*args, *kwargs.values())))
        outputs = list(tensors_of((out,)))
        if inputs and (call.is_view or (call.may_be_view and _aliases(outputs, inputs[0]))):
            self.flows.view(outputs, inputs[0], cut=call.name in _CUT)
            return
        name = _WHOLE.get(call.name) or ("aten.clone" if call.may_be_view else call.name.replace("::", "."))
        attrs = {
            key: value
            for key, value in (*zip(call.arguments, args, strict=False), *kwargs.items())
            if value is not None and not isinstance(value, torch.Tensor)
        }
        if call.name.startswith("aten::conv_transpose"):
            attrs["transposed"] = True
        if call.name in _COPIED_FIRST and self.flows.reaches(inputs):
            self.write("aten.clone", inputs[:1], [torch.empty_like(inputs[0])], {}, cut=True)
        self.write(name, inputs, outputs, attrs, in_place=call.in_place, cut=call.name in _CUT)

    def write(
        self,
        name: str,
        inputs: list[torch.Tensor],
        outputs: list[torch.Tensor],
        attrs: dict[str, Any],
        **how: bool,
    ) -> None:
        """Note an operator in the running module's scope."""
        self.flows.write(name, inputs, outputs, attrs, self.scope, **how)


def _aliases(outputs: list[torch.Tensor], source: torch.Tensor) -> bool:
    return bool(outputs) and outputs[0].untyped_storage()._cdata == source.untyped_storage()._cdata


def _attention(
    counting: Counting,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **_: Any,
) -> torch.Tensor:
    """One fused kernel, with the scores that its mask keeps; see ``torch_kernels``."""
    pattern = pattern_of(attn_mask) or Pattern(causal=is_causal, bias=True)
    out = query.new_empty(*query.shape[:-3], query.shape[-2], *query.shape[-3:-2], value.shape[-1])
    if query.dim() > 2:
        out = out.transpose(-3, -2)
    with_heads = [t.reshape(-1, *((1,) * (3 - t.dim())), *t.shape[-3:]) for t in (query, key, value)]
    for four_axes, tensor in zip(with_heads, (query, key, value), strict=True):
        counting.flows.view([four_axes], tensor)
    bias = [attn_mask] if attn_mask is not None and pattern.bias else []
    logsumexp = torch.empty(with_heads[0].shape[:-1], dtype=torch.float32, device=META)
    attrs = {"is_causal": pattern.causal, "window": pattern.window, "pairs": pattern.pairs}
    counting.write("predictor.attention", [*with_heads, *bias], [out, logsumexp], attrs)
    return out


def _dropout(counting: Counting, x: torch.Tensor, p: float, train: bool) -> torch.Tensor:
    """The result and one byte per element that says what was kept; nothing outside training."""
    if not train or p == 0:
        return x
    out, kept = torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)
    counting.write("aten.native_dropout", [x], [out, kept], {})
    return out


def _grouped_mm(
    counting: Counting, a: torch.Tensor, b: torch.Tensor, offs: Any = None, *_: Any, **__: Any
) -> torch.Tensor:
    """Rows of a [t, k], sorted by expert, times that expert's b [e, k, n]."""
    out = a.new_empty(a.shape[0], b.shape[-1])
    counting.write("predictor.grouped_mm", [a, b, offs], [out], {})
    return out


def _matmul(counting: Counting, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """A product of matrices, or one with a vector under that name, the matrix first."""
    out: torch.Tensor = counting.shapes.result(torch.ops.aten.matmul.default, (a, b), {})
    vectors = (a.dim() == 1) + (b.dim() == 1)
    name = ("aten.matmul", "aten.mv", "aten.dot")[vectors]
    counting.write(name, [b, a] if vectors == 1 and a.dim() == 1 else [a, b], [out], {})
    return out


def _recurrent(cell: str) -> Callable[..., tuple[torch.Tensor, ...]]:
    def layers(
        counting: Counting,
        x: torch.Tensor,
        states: Any,
        weights: list[torch.Tensor],
        biases: bool,
        layers: int,
        _dropout: float,
        train: bool,
        both: bool,
        batch_first: bool,
    ) -> tuple[torch.Tensor, ...]:
        """All layers, directions and steps in one call; packed sequences need values and end up here as
        arguments of other types."""
        states = [states] if isinstance(states, torch.Tensor) else list(states)
        config = (cell, layers, 2 if both else 1, batch_first, biases)
        outputs = torch.ops.predictor.recurrent(x, states, list(weights), *config, train)
        names = ("cell", "layers", "directions", "batch_first", "biases")
        attrs = dict(zip(names, config, strict=True))
        counting.write("predictor.recurrent", [x, *states, *weights], list(outputs), attrs)
        return tuple(outputs[:-1])

    return layers


_SPECIAL: dict[str, Callable[..., Any]] = {
    "aten::scaled_dot_product_attention": _attention,
    "aten::dropout": _dropout,
    "aten::_grouped_mm": _grouped_mm,
    "aten::matmul": _matmul,
    "aten::lstm": _recurrent("lstm"),
    "aten::gru": _recurrent("gru"),
    "aten::rnn_tanh": _recurrent("rnn"),
    "aten::rnn_relu": _recurrent("rnn"),
}
