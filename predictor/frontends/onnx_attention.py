"""Attention as exporters spell it, product, mask, softmax, product, found and made one operator.

Whether it runs as one kernel is the software stack's to say, as for attention recorded from PyTorch.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from math import prod

import numpy as np

from predictor.frontends.onnx_shapes import Known, Tensor
from predictor.frontends.onnx_steps import Step, uses_of

_SCORE_PATH = {"onnx.Add", "onnx.Sub", "onnx.Mul", "onnx.Div", "onnx.Where", "onnx.Cast", "onnx.Reshape"}
_MASK_PATH = {"onnx.Where", "onnx.Equal", "onnx.Not", "onnx.And", "onnx.Cast", "onnx.Unsqueeze", "onnx.Slice"}


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
        self.uses = uses_of(steps, outputs)
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
        if len(shapes[0]) < 3 or len({shape[:-3] for shape in shapes}) != 1:
            return None
        if any(shape[-3] not in {1, shapes[0][-3]} for shape in shapes):
            return None
        inside = {name for step in path for name in step.outputs} | set(first.outputs)
        masks = [name for s in path for name in s.inputs if name not in inside and self._is_tensor(name, s)]
        absorbed = [*path, first, softmax, *after, *query_scale, *key_scale]
        return absorbed, last, self._attention((query, key, value), masks, last)

    def _up(self, name: str, far: int = 8) -> Iterator[list[Step]]:
        """Ways from the scores back to the product that made them, each tensor read once."""
        step = self.maker.get(name)
        if step is None or self.uses[name] != 1 or not far:
            return
        if step.name == "onnx.MatMul" and len(step.inputs) == 2:
            yield [step]
        elif step.name in _SCORE_PATH:
            for operand in step.inputs:
                for path in self._up(operand, far - 1):
                    yield [step, *path]

    def _down(self, softmax: Step) -> list[Step] | None:
        """Dropout, casts and the zeroing of empty rows between the softmax and the second product."""
        name, path = softmax.outputs[0], []
        while True:
            every = self.readers.get(name, [])
            readers = [s for s in every if s.name != "onnx.IsNaN"]
            if len(readers) != 1 or self.uses[name] != len(every):
                return None
            (step,) = readers
            path += [s for s in every if s is not step] + readers
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
        """Tensors of one attention as [batch, heads, length, depth]; the key was stored transposed."""
        query, key, value = (self.known.tensors[name].shape for name in names)
        batch = prod(query[:-3]) if len(query) > 3 else query[0]
        sides = [
            (batch, shape[-3] if len(shape) > 3 else 1, *sides)
            for shape, sides in ((query, query[-2:]), (key, key[:-3:-1]), (value, value[-2:]))
        ]
        views, inputs = _views(zip(names, sides, strict=True), self.known)
        causal = any(self._is_causal(mask) for mask in masks)
        inputs += () if causal else tuple(masks)
        attention = Step("predictor.attention", inputs, last.outputs, {"is_causal": causal}, last.scope)
        return [*views, *_with_result_as(attention, (*sides[0][:3], value[-1]), self.known)]

    def _is_causal(self, mask: str, far: int = 8) -> bool:
        """A triangle: by its values where they are known, else by how it was made."""
        value = self.known.values.get(mask)
        if value is None:
            step = self.maker.get(mask)
            if step is None or not far:
                return False
            inside = step.name in _MASK_PATH and any(self._is_causal(n, far - 1) for n in step.inputs)
            return inside or step.name == "onnx.Trilu"
        if value.ndim < 2 or min(value.shape[-2:]) < 2:
            return False
        ones = np.ones(value.shape[-2:], dtype=bool)
        blocked = value.astype(bool) if value.dtype == bool else value < -1e3
        return bool((blocked == np.triu(ones, 1)).all() or (blocked == np.tril(ones)).all())


def _view(name: str, shape: tuple[int, ...], known: Known) -> tuple[str, list[Step]]:
    """The same memory in another shape under another name, and the step that makes it, once."""
    if known.tensors[name].shape == shape:
        return name, []
    new = f"{name} as {list(shape)}"
    if new in known.tensors:
        return new, []
    known.tensors[new] = Tensor(known.tensors[name].kind, shape)
    return new, [Step("onnx.Transpose", (name,), (new,), {})]


def _views(sides: Iterable[tuple[str, tuple[int, ...]]], known: Known) -> tuple[list[Step], tuple[str, ...]]:
    found = [_view(name, shape, known) for name, shape in sides]
    return [step for _, steps in found for step in steps], tuple(name for name, _ in found)


def _with_result_as(step: Step, shape: tuple[int, ...], known: Known) -> list[Step]:
    """The step with its first result in ``shape``, and the view back to the shape the graph expects."""
    first, *others = step.outputs
    new, views = _view(first, shape, known)
    back = [replace(view, inputs=(new,), outputs=(first,)) for view in views]
    return [replace(step, outputs=(new, *others)), *back]


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
    views, inputs = _views(zip(step.inputs, sides, strict=False), known)
    causal = bool(step.attrs.get("is_causal") or step.attrs.get("unidirectional"))
    inputs += step.inputs[3:]
    attention = Step("predictor.attention", inputs, step.outputs, {"is_causal": causal}, step.scope)
    return [*views, *_with_result_as(attention, (*sides[0][:3], sides[2][3]), known)]
