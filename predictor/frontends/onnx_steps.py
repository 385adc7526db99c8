"""From ONNX nodes to operators, one for each; a product and the bias added to it are one, as in PyTorch."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from onnx import AttributeProto, helper

from predictor.frontends.onnx_shapes import Known
from predictor.frontends.onnx_weights import scope_of
from predictor.ir import Op, TensorSpec

_VIEWS = {
    f"onnx.{name}"
    for name in "Squeeze Unsqueeze Identity Transpose Slice Split Expand Reshape Flatten".split()
}
_PARTS = {"onnx.Slice", "onnx.Gather"}
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


def uses_of(steps: list[Step], outputs: Collection[str]) -> Counter[str]:
    """How often every tensor is read, as a result of the graph once more."""
    return Counter([name for step in steps for name in step.inputs] + list(outputs))


def join_bias(steps: list[Step], known: Known, outputs: Collection[str]) -> list[Step]:
    """A product whose only reader adds a weight of one axis becomes one product with a bias."""
    uses = uses_of(steps, outputs)
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
        for name in needing.intersection(step.inputs):
            readers.setdefault(name, []).extend([step] * step.inputs.count(name))
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
