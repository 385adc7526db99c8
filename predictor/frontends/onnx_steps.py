"""From ONNX nodes to operators: what a node spells in pieces and a runtime runs as one.

Two pieces are joined, as PyTorch's own operators are: a product with the bias added to it, and attention
written as product, mask, softmax, product. The rest is one operator per node.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from onnx import AttributeProto, helper

from predictor.frontends.onnx_shapes import Known, Tensor
from predictor.frontends.onnx_weights import scope_of
from predictor.ir import Op, TensorSpec

_VIEWS = {
    f"onnx.{name}"
    for name in "Squeeze Unsqueeze Identity Transpose Slice Split Expand Reshape Flatten".split()
}
_PARTS = {"onnx.Slice", "onnx.Gather"}
_SCORE_PATH = {"onnx.Add", "onnx.Sub", "onnx.Mul", "onnx.Div", "onnx.Where", "onnx.Cast", "onnx.Reshape"}
_MASK_PATH = {"onnx.Where", "onnx.Equal", "onnx.Not", "onnx.And", "onnx.Cast", "onnx.Unsqueeze", "onnx.Slice"}
_PLAIN = (AttributeProto.FLOAT, AttributeProto.INT, AttributeProto.STRING)
_LISTS = (AttributeProto.FLOATS, AttributeProto.INTS, AttributeProto.STRINGS)


@dataclass(frozen=True, slots=True)
class Step:
    """One operator to be: tensors by name, absent ones left out."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any]
    scope: str = ""


def step_of(node: Any) -> Step:
    """A node as a step; operators of foreign domains keep their domain in the name."""
    domain = "onnx" if node.domain in {"", "ai.onnx", "ai.onnx.ml"} else node.domain
    attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.type in _PLAIN}
    attrs |= {a.name: tuple(helper.get_attribute_value(a)) for a in node.attribute if a.type in _LISTS}
    return Step(
        name=f"{domain}.{node.op_type}",
        inputs=tuple(n for n in node.input if n),
        outputs=tuple(n for n in node.output if n),
        attrs={k: v.decode(errors="replace") if isinstance(v, bytes) else v for k, v in attrs.items()},
        scope=scope_of(node),
    )


def live(steps: list[Step], outputs: Collection[str]) -> list[Step]:
    """The steps that some output needs."""
    needed = set(outputs)
    kept = []
    for step in reversed(steps):
        if needed.intersection(step.outputs):
            needed.update(step.inputs)
            kept.append(step)
    return kept[::-1]


def _uses(steps: list[Step], outputs: Collection[str]) -> Counter[str]:
    return Counter([name for step in steps for name in step.inputs] + list(outputs))


def join_bias(steps: list[Step], known: Known, outputs: Collection[str]) -> list[Step]:
    """A product whose only reader adds a weight of one axis becomes one product with a bias."""
    uses = _uses(steps, outputs)
    products = {s.outputs[0]: s for s in steps if s.name == "onnx.MatMul"}
    joined: dict[int, Step] = {}
    gone: set[int] = set()
    for step in steps:
        for result, bias in (step.inputs, step.inputs[::-1]) if step.name == "onnx.Add" else ():
            product = products.get(result)
            if product and uses[result] == 1 and _is_bias(bias, result, known):
                gone.add(id(product))
                joined[id(step)] = replace(product, inputs=(*product.inputs, bias), outputs=step.outputs)
    return [joined.get(id(step), step) for step in steps if id(step) not in gone]


def _is_bias(name: str, result: str, known: Known) -> bool:
    return name in known.weights and known.tensors[name].shape == known.tensors[result].shape[-1:]


def join_attention(steps: list[Step], known: Known, outputs: Collection[str]) -> list[Step]:
    """Every softmax between two products becomes one attention operator."""
    finder = _Finder(steps, known, outputs)
    gone: set[int] = set()
    at: dict[int, list[Step]] = {}
    for step in steps:
        if step.name in {"onnx.Attention", "com.microsoft.MultiHeadAttention"}:
            at[id(step)] = _whole_attention(step, known)
        elif step.name == "onnx.Softmax" and (found := finder.around(step)):
            absorbed, last, attention = found
            gone |= {id(s) for s in absorbed}
            at[id(last)] = attention
    return [new for step in steps if id(step) not in gone for new in at.get(id(step), [step])]


class _Finder:
    """Producers and readers of every tensor, to look around a softmax."""

    def __init__(self, steps: list[Step], known: Known, outputs: Collection[str]) -> None:
        self.known = known
        self.uses = _uses(steps, outputs)
        self.maker = {name: step for step in steps for name in step.outputs}
        self.readers: dict[str, list[Step]] = {}
        for step in steps:
            for name in step.inputs:
                self.readers.setdefault(name, []).append(step)

    def around(self, softmax: Step) -> tuple[list[Step], Step, list[Step]] | None:
        """Steps that the attention absorbs, the one it stands in for, and its own steps."""
        paths = list(self._up(softmax.inputs[0]))
        down = self._down(softmax)
        axes = len(self.known.tensors[softmax.inputs[0]].shape)
        if len(paths) != 1 or down is None or softmax.attrs.get("axis", -1) not in {-1, axes - 1}:
            return None
        *path, first = paths[0]
        *after, last = down
        query, query_scale = self._unscaled(first.inputs[0])
        key, key_scale = self._unscaled(first.inputs[1])
        value = last.inputs[1]
        shapes = [self.known.tensors[name].shape for name in (query, key, value)]
        if len(shapes[0]) < 3 or len({shape[:-2] for shape in shapes}) != 1:
            return None
        inside = {name for step in path for name in step.outputs} | set(first.outputs)
        masks = [name for s in path for name in s.inputs if name not in inside and self._is_tensor(name, s)]
        absorbed = [*path, first, softmax, *after, *query_scale, *key_scale]
        return absorbed, last, self._attention((query, key, value), masks, last)

    def _up(self, name: str) -> Iterator[list[Step]]:
        """Ways from the scores back to the product that made them, each tensor read once."""
        step = self.maker.get(name)
        if step is None or self.uses[name] != 1:
            return
        if step.name == "onnx.MatMul" and len(step.inputs) == 2:
            yield [step]
        elif step.name in _SCORE_PATH:
            for operand in step.inputs:
                for path in self._up(operand):
                    yield [step, *path]

    def _down(self, softmax: Step) -> list[Step] | None:
        """Dropout, casts and the zeroing of empty rows between the softmax and the second product."""
        name, path = softmax.outputs[0], []
        while True:
            readers = [s for s in self.readers.get(name, []) if s.name != "onnx.IsNaN"]
            if len(readers) != 1:
                return None
            path += [s for s in self.readers[name] if s.name == "onnx.IsNaN"] + readers
            step = readers[0]
            if step.name == "onnx.MatMul":
                return path if step.inputs[0] == name and len(step.inputs) == 2 else None
            if step.name not in {"onnx.Dropout", "onnx.Cast", "onnx.Where"}:
                return None
            name = step.outputs[0]

    def _unscaled(self, name: str) -> tuple[str, list[Step]]:
        """A factor before it was multiplied by a single number, and the step that did so."""
        step = self.maker.get(name)
        if step is None or self.uses[name] != 1 or step.name not in {"onnx.Mul", "onnx.Div"}:
            return name, []
        single = [n for n in step.inputs if n in self.known.values and self.known.tensors[n].elements == 1]
        return (next(n for n in step.inputs if n not in single), [step]) if len(single) == 1 else (name, [])

    def _is_tensor(self, name: str, step: Step) -> bool:
        return step.name != "onnx.Reshape" and self.known.tensors[name].elements > 1

    def _attention(self, names: tuple[str, str, str], masks: list[str], last: Step) -> list[Step]:
        query, key, value = names
        shape = self.known.tensors[query].shape
        width, depth = shape[-2:]
        height = self.known.tensors[key].shape[-1]
        batch, heads = (prod(shape[:-3]), shape[-3]) if len(shape) > 3 else (shape[0], 1)
        causal = any(self._is_causal(mask) for mask in masks)
        sides = (
            (query, (batch, heads, width, depth)),
            (key, (batch, heads, height, depth)),
            (value, (batch, heads, height, self.known.tensors[value].shape[-1])),
        )
        views = [_view(name, new_shape, self.known) for name, new_shape in sides]
        inputs = tuple(view.outputs[0] for view in views) + (() if causal else tuple(masks))
        attention = Step("predictor.attention", inputs, last.outputs, {"is_causal": causal}, last.scope)
        return [*views, *_with_result_as(attention, (*sides[0][1][:3], sides[2][1][3]), self.known)]

    def _is_causal(self, mask: str) -> bool:
        """A triangle: by its values where they are known, else by how it was made."""
        value = self.known.values.get(mask)
        if value is None:
            step = self.maker.get(mask)
            return step is not None and (
                step.name == "onnx.Trilu"
                or (step.name in _MASK_PATH and any(self._is_causal(name) for name in step.inputs))
            )
        if value.ndim < 2 or min(value.shape[-2:]) < 2:
            return False
        ones = np.ones(value.shape[-2:], dtype=bool)
        blocked = value.astype(bool) if value.dtype == bool else value < -1e3
        return bool((blocked == np.triu(ones, 1)).all() or (blocked == np.tril(ones)).all())


def _view(name: str, shape: tuple[int, ...], known: Known) -> Step:
    """The same memory in another shape, under a new name."""
    new = f"{name} as {list(shape)}"
    known.tensors[new] = Tensor(known.tensors[name].kind, shape)
    return Step("onnx.Transpose", (name,), (new,), {})


def _with_result_as(step: Step, shape: tuple[int, ...], known: Known) -> list[Step]:
    """The step with its first result in ``shape``, and the view back to the shape the graph expects."""
    first, *others = step.outputs
    if known.tensors[first].shape == shape:
        return [step]
    back = _view(first, shape, known)
    (new,) = back.outputs
    return [replace(step, outputs=(new, *others)), replace(back, inputs=(new,), outputs=(first,))]


def _whole_attention(step: Step, known: Known) -> list[Step]:
    """ONNX's own attention operators: heads may share the last axis, past keys precede new ones."""
    shapes = [known.tensors[name].shape for name in step.inputs[:3]]
    heads = [int(step.attrs.get(key, 0)) for key in ("q_num_heads", "kv_num_heads", "kv_num_heads")]
    if step.name != "onnx.Attention":
        heads = [int(step.attrs.get("num_heads", 0))] * 3
    if len(shapes) < 3 or any(
        len(s) != 4 and not (len(s) == 3 and h) for s, h in zip(shapes, heads, strict=True)
    ):
        return [step]
    sides = [s if len(s) == 4 else (s[0], h, s[1], s[2] // h) for s, h in zip(shapes, heads, strict=True)]
    if len(step.outputs) > 1:
        length = known.tensors[step.outputs[1]].shape[2]
        sides[1:] = [(b, h, length, d) for b, h, _, d in sides[1:]]
    views = [_view(n, side, known) for n, side in zip(step.inputs[:3], sides, strict=True)]
    causal = bool(step.attrs.get("is_causal") or step.attrs.get("unidirectional"))
    inputs = (*(view.outputs[0] for view in views), *step.inputs[3:])
    attention = Step("predictor.attention", inputs, step.outputs, {"is_causal": causal}, step.scope)
    return [*views, *_with_result_as(attention, (*sides[0][:3], sides[2][3]), known)]


def operators(steps: list[Step], known: Known, outputs: Collection[str]) -> tuple[Op, ...]:
    """Steps as operators, with what the gradient rules need to know.

    needs_grad  per input, whether a gradient flows to it; backward  whether any does
    grad_sums   per result, how many gradients beyond the first meet there
    zero_fill   of a part of a tensor: its gradient starts from zeros of the whole shape
    """
    needing = _needing(steps, known)
    flows = [s for s in steps if needing.intersection(s.inputs) and needing.intersection(s.outputs)]
    readers: dict[str, list[Step]] = {}
    for step in flows:
        for name in step.inputs:
            readers.setdefault(name, []).append(step)
    parts = {name: found for name, found in readers.items() if all(_is_part(s, name, known) for s in found)}
    filling = {id(found[0]) for name, found in parts.items() if not _cover(name, found, known)}
    sums = {n: len(found) + (n in outputs) - 1 for n, found in readers.items() if n not in parts}
    specs: dict[str, TensorSpec] = {}
    backward = {id(step) for step in flows}
    ops = []
    for step in steps:
        for name in (*step.inputs, *step.outputs):
            if name not in specs:
                specs[name] = _spec(name, step, specs, known)
        flags = {
            "needs_grad": tuple(name in needing for name in step.inputs),
            "backward": id(step) in backward,
            "grad_sums": tuple(sums.get(name, 0) for name in step.outputs),
        }
        if step.name in _PARTS:
            flags["zero_fill"] = id(step) in filling or step.inputs[0] not in parts
        inputs, results = (tuple(specs[name] for name in names) for names in (step.inputs, step.outputs))
        ops.append(Op(step.name, inputs, results, {**step.attrs, **flags}, scope=step.scope))
    return tuple(ops)


def _needing(steps: list[Step], known: Known) -> set[str]:
    """Tensors a gradient flows to: everything floating that follows from a weight."""
    needing = set(known.weights)
    for step in steps:
        if needing.intersection(step.inputs):
            needing.update(name for name in step.outputs if known.tensors[name].is_float)
    return needing


def _is_part(step: Step, name: str, known: Known) -> bool:
    one_index = step.name != "onnx.Gather" or not known.tensors[step.inputs[1]].shape
    return step.name in _PARTS and step.inputs[0] == name and one_index


def _cover(name: str, parts: list[Step], known: Known) -> bool:
    """Parts that together have the size of the whole are taken to be all of it, as in an unbind."""
    return sum(known.tensors[s.outputs[0]].elements for s in parts) == known.tensors[name].elements


def _spec(name: str, step: Step, specs: Mapping[str, TensorSpec], known: Known) -> TensorSpec:
    tensor = known.tensors[name]
    source = specs.get(step.inputs[0]) if step.inputs and name in step.outputs else None
    copied = source is not None and 0 in source.stride and step.name in {"onnx.Reshape", "onnx.Flatten"}
    if source is None or step.name not in _VIEWS or copied:
        return TensorSpec(tensor.shape, tensor.dtype, storage=len(specs))
    stride = _expanded(source.shape, tensor.shape) if step.name == "onnx.Expand" else ()
    return TensorSpec(tensor.shape, tensor.dtype, stride, source.storage)


def _expanded(shape: tuple[int, ...], wider: tuple[int, ...]) -> tuple[int, ...]:
    """Steps through memory of a broadcast view: 0 along the axes that are repeated."""
    padded = (1,) * (len(wider) - len(shape)) + shape
    return tuple(prod(padded[i + 1 :]) if padded[i] == wider[i] else 0 for i in range(len(wider)))
