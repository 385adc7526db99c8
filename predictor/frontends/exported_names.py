"""Calls of an exported program as the operators that PyTorch would run for them.

An exported program keeps composite operators (linear, conv2d, layer_norm); the recorder sees what they are
made of. Both are spelled the same way here, so that formulas and gradients are written once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

from predictor.frontends.exported_calls import Call
from predictor.ir import TensorSpec

# as the recorder writes it: as a program may write it
_SAME = {
    "aten._softmax": "softmax",
    "aten._log_softmax": "log_softmax",
    "aten.native_layer_norm": "layer_norm",
    "aten.native_group_norm": "group_norm",
    "aten.native_batch_norm": "batch_norm instance_norm _native_batch_norm_legit_no_training "
    "_native_batch_norm_legit _native_batch_norm_legit_functional",
    "aten._fused_rms_norm": "rms_norm",
    "aten.max_pool2d_with_indices": "max_pool1d max_pool2d max_pool1d_with_indices",
    "aten.max_pool3d_with_indices": "max_pool3d",
    "aten._adaptive_avg_pool2d": "adaptive_avg_pool1d adaptive_avg_pool2d",
    "aten._adaptive_avg_pool3d": "adaptive_avg_pool3d",
    "aten.convolution": "conv1d conv2d conv3d _convolution",
    "aten.constant_pad_nd": "pad",
    "aten.bitwise_and": "__and__ __iand__",
    "aten.bitwise_or": "__or__ __ior__",
    "aten.bitwise_xor": "__xor__",
    "aten.sub": "diff",
    "aten.square": "selu celu softsign",
    "aten.view": "view_as squeeze_copy numpy_T mT mH moveaxis swapdims view_copy _unsafe_view positive",
    "aten.permute": "permute_copy transpose_copy",
    "aten.expand": "broadcast_to expand_as expand_copy",
    "aten.slice": "narrow slice_copy",
    "aten.split": "tensor_split hsplit vsplit",
    "aten.repeat": "tile",
    "aten.stack": "hstack vstack",
    "aten.cat": "concat concatenate",
    "aten.mm": "_int_mm",
}
_RENAMED = {f"aten.{old}": new for new, names in _SAME.items() for old in names.split()}
# Views where strides allow it, else copies; casts where the type changes.
_RESHAPES = {f"aten.{n}" for n in "reshape flatten unflatten reshape_as contiguous _reshape_copy".split()}
_CASTS = {f"aten.{name}" for name in "to type_as float half double _to_copy".split()}
_DROPOUTS = {
    f"aten.{n}" for n in "dropout dropout_ feature_dropout alpha_dropout feature_alpha_dropout".split()
}
_NORMS = {
    "aten.native_layer_norm",
    "aten.native_group_norm",
    "aten.native_batch_norm",
    "aten._fused_rms_norm",
}
_BOOLEAN = {
    f"aten.{n}"
    for n in "bitwise_and logical_and expand unsqueeze index slice to clone view contiguous".split()
}
# A mask of numbers is a boolean one turned into 0 and -infinity, and perhaps a bias added.
_NUMBERS = {f"aten.{name}" for name in "where masked_fill add sub rsub mul".split()}
_ORDERS = {f"aten.{name}" for name in "le lt ge gt tril triu".split()}

Specs = dict[str, TensorSpec]


@dataclass(frozen=True, slots=True)
class Maker:
    """Which call made every tensor, to look behind a mask."""

    calls: dict[str, Call]

    def is_causal(self, mask: str, far: int = 24) -> bool:
        """A mask that compares positions with positions, or is a triangle."""
        call = self.calls.get(mask)
        if call is None or not far:
            return False
        if call.name in _ORDERS:
            triangle = call.name in {"aten.tril", "aten.triu"}
            return triangle or (len(call.tensors) == 2 and all(self._counts(n) for n in call.inputs))
        name = _RENAMED.get(call.name, call.name)
        read = call.inputs[:1] if name == "aten.where" else call.inputs  # of a choice, what decides
        return name in _BOOLEAN | _NUMBERS and any(self.is_causal(n, far - 1) for n in read)

    def _counts(self, name: str, far: int = 24) -> bool:
        """Made from a range of positions alone."""
        call = self.calls.get(name)
        if call is None or not far:
            return False
        return call.name == "aten.arange" or any(self._counts(n, far - 1) for n in call.inputs)


def canonical(call: Call, specs: Specs, maker: Maker) -> list[Call]:
    """The operators of one call; new tensors are entered in ``specs``."""
    rule = _RULES.get(call.name)
    if rule is not None:
        return rule(call, specs, maker)
    name = _RENAMED.get(call.name, call.name)
    if call.name.startswith("aten.conv_transpose"):
        return [replace(call, name="aten.convolution", attrs={**call.attrs, "transposed": True})]
    if name in _NORMS or name == "aten.convolution":
        return [replace(call, name=name, attrs={"transposed": False, **call.attrs})]
    return [replace(call, name=name)]


def _reshape(call: Call, specs: Specs, maker: Maker) -> list[Call]:
    old, new = specs[call.inputs[0]], specs[call.outputs[0]]
    same = old.stride == new.stride if call.name == "aten.contiguous" else viewable(old, new.shape)
    return [replace(call, name="aten.view" if same else "aten.clone")]


def _cast(call: Call, specs: Specs, maker: Maker) -> list[Call]:
    """A copy where type or order changes, or one was asked for; the device is not followed."""
    old, new = specs[call.inputs[0]], specs[call.outputs[0]]
    call = replace(call, tensors=call.tensors[:1])
    if old.dtype != new.dtype:
        return [replace(call, name="aten._to_copy")]
    return [replace(call, name="aten.clone" if call.attrs.get("copy") else "aten.alias")]


def _dropout(call: Call, specs: Specs, maker: Maker) -> list[Call]:
    """Nothing in evaluation; in training a mask is drawn and kept."""
    if not call.attrs.get("train", True) or not call.attrs.get("p", 0.5):
        return [replace(call, name="aten.alias")]
    mask = _new(f"{call.outputs[0]} mask", specs[call.outputs[0]].shape, "bool", specs)
    return [replace(call, name="aten.native_dropout", outputs=(call.outputs[0], mask))]


def _max_pool(call: Call, specs: Specs, maker: Maker) -> list[Call]:
    """The places of the maxima are written as well."""
    name = _RENAMED.get(call.name, call.name)
    if len(call.outputs) > 1:
        return [replace(call, name=name)]
    places = _new(f"{call.outputs[0]} places", specs[call.outputs[0]].shape, "int64", specs)
    return [replace(call, name=name, outputs=(call.outputs[0], places))]


def _attention(call: Call, specs: Specs, maker: Maker) -> list[Call]:
    """q [..., h, s, d], k, v brought to four axes; a mask of positions is causal, read if it holds a bias."""
    given = dict(call.tensors)
    names = [given[key] for key in ("query", "key", "value")]
    mask = given.get("attn_mask")
    by_mask = mask is not None and maker.is_causal(mask)
    views, inputs = [], []
    for name in names:
        shape = specs[name].shape
        if len(shape) == 4:
            inputs.append(name)
            continue
        four = (prod(shape[:-3]), *(1,) * (3 - len(shape)), *shape[-3:])
        inputs.append(_new(f"{name} as {list(four)}", four, specs[name].dtype, specs, specs[name].storage))
        views.append(Call("aten.view", (("self", name),), {}, (inputs[-1],), call.scope, call.grad))
    if mask is not None and not (by_mask and specs[mask].dtype == "bool"):
        inputs.append(mask)
    rows = _new(f"{call.outputs[0]} logsumexp", specs[inputs[0]].shape[:-1], "float32", specs)
    causal = by_mask or bool(call.attrs.get("is_causal"))
    attention = replace(
        call,
        name="predictor.attention",
        tensors=tuple(("", name) for name in inputs),
        attrs={"is_causal": causal},
        outputs=(call.outputs[0], rows),
    )
    return [*views, attention]


def _average_to_one(call: Call, specs: Specs, maker: Maker) -> list[Call]:
    """An average over whole planes is a mean."""
    size = call.attrs.get("output_size", ())
    sizes = size if isinstance(size, tuple) else (size,)
    name = "aten.mean" if set(sizes) == {1} else _RENAMED.get(call.name, call.name)
    return [replace(call, name=name)]


def _least(call: Call, specs: Specs, maker: Maker) -> list[Call]:
    """Of two tensors, elementwise; of one, a reduction."""
    two = {"aten.max": "aten.maximum", "aten.min": "aten.minimum"}
    return [replace(call, name=two[call.name])] if len(call.tensors) == 2 else [call]


def _in_place(call: Call, specs: Specs, maker: Maker) -> list[Call]:
    """Autograd needs the input of these after it was overwritten, and copies it first."""
    if not call.grad:
        return [call]
    source = specs[call.inputs[0]]
    copied = _new(f"{call.outputs[0]} saved", source.shape, source.dtype, specs)
    return [Call("aten.clone", call.tensors[:1], {}, (copied,), call.scope, False), call]


def _recurrent(call: Call, specs: Specs, maker: Maker) -> list[Call]:
    """Layers of an LSTM, GRU or RNN, both directions of a layer as one; weights [p, g*h, i], [p, g*h, h]."""
    kind = call.name.removeprefix("aten.").partition("_")[0]
    weights = [name for argument, name in call.tensors if argument == "params"]
    directions = 2 if call.attrs.get("bidirectional") else 1
    layers = int(call.attrs.get("num_layers", 1))
    per = len(weights) // max(layers * directions, 1)
    if call.tensors[0][0] != "input" or per < 2 or "batch_sizes" in dict(call.tensors):
        return [call]
    x, batch_first = call.inputs[0], bool(call.attrs.get("batch_first"))
    calls = []
    for layer in range(layers):
        own = weights[layer * directions * per :][: directions * per]
        stacked = []
        for place in (0, 1):
            one = specs[own[place]]
            name = _new(f"{own[place]} stacked", (directions, *one.shape), one.dtype, specs)
            calls.append(Call("aten.view", (("self", own[place]),), {}, (name,), call.scope, call.grad))
            stacked.append(name)
        hidden = specs[own[1]].shape[1]
        shape = (*specs[x].shape[:2], directions * hidden)
        last = layer == layers - 1
        y = (
            call.outputs[0]
            if last
            else _new(f"{call.outputs[0]} layer {layer}", shape, specs[x].dtype, specs)
        )
        tensors = tuple(("", name) for name in (x, *stacked))
        outputs = (y, *call.outputs[1:]) if last else (y,)
        attrs = {"layout": int(batch_first)}
        calls.append(Call(f"predictor.{kind}", tensors, attrs, outputs, call.scope, call.grad))
        x = y
    return calls


def _einsum(call: Call, specs: Specs, maker: Maker) -> list[Call]:
    """The result's labels are written out: those that occur once, in alphabetical order."""
    equation = str(call.attrs.get("equation", "")).replace(" ", "")
    if "->" not in equation:
        labels = equation.replace(",", "").replace("...", "")
        once = "".join(sorted(label for label in set(labels) if labels.count(label) == 1))
        equation += "->" + ("..." if "..." in equation else "") + once
    return [replace(call, attrs={**call.attrs, "equation": equation})]


def _new(name: str, shape: tuple[int, ...], dtype: str, specs: Specs, storage: int | None = None) -> str:
    specs[name] = TensorSpec(shape, dtype, (), len(specs) if storage is None else storage)
    return name


def viewable(tensor: TensorSpec, shape: tuple[int, ...]) -> bool:
    """Whether a tensor can be seen in another shape without a copy.

    Axes that lie next to each other in memory act as one; the new shape has to split at the same places.

    >>> viewable(TensorSpec((4, 6), "float32", (6, 1)), (8, 3))
    True
    >>> viewable(TensorSpec((4, 6), "float32", (1, 4)), (24,))
    False
    """
    sizes = [(n, step) for n, step in zip(tensor.shape, tensor.stride, strict=False) if n != 1]
    if len(tensor.stride) != len(tensor.shape) or tensor.elements == 0:
        return True
    runs: list[int] = []
    before = 0
    for n, step in sizes:
        if runs and before == n * step:
            runs[-1] *= n
        else:
            runs.append(n)
        before = step
    left = [n for n in shape if n != 1]
    for run in runs:
        covered = 1
        while covered < run and left:
            covered *= left.pop(0)
        if covered != run:
            return False
    return True


Rule = Callable[[Call, Specs, Maker], list[Call]]
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_RESHAPES, _reshape),
    **dict.fromkeys(_CASTS, _cast),
    **dict.fromkeys(_DROPOUTS, _dropout),
    **{f"aten.max_pool{n}d": _max_pool for n in (1, 2, 3)},
    **{f"aten.{name}": _recurrent for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")},
    **{f"aten.adaptive_avg_pool{n}d": _average_to_one for n in (1, 2, 3)},
    **{f"aten.{name}_": _in_place for name in "silu hardswish gelu mish elu celu selu softplus".split()},
    "aten.max": _least,
    "aten.min": _least,
    "aten.scaled_dot_product_attention": _attention,
    "aten.einsum": _einsum,
}
