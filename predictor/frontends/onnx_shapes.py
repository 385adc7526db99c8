"""Concrete shapes for every tensor of an ONNX graph, node by node.

Each node is inferred by its operator's own rule in the onnx package, from concrete input shapes and, where
they are small and known, the values of its inputs. Shape arithmetic (Shape, Gather, Concat, Range ...) is
so folded on the way and leaves no operator behind: it runs on the host and is nothing beside the model.
"""

import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from predictor.errors import InputError, UnsupportedError

FOLD_LIMIT = 4096  # elements of a tensor whose value is followed
DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
    17: "float8",
    18: "float8",
    19: "float8",
    20: "float8",
}
_SHAPE_ARITHMETIC = (
    "Gather Concat Unsqueeze Squeeze Slice Cast CastLike Add Sub Mul Div Mod Neg Abs Sign Floor Ceil Round "
    "Sqrt Pow Reciprocal Exp Log Sin Cos Min Max Range ConstantOfShape Reshape Flatten Expand Tile Identity "
    "Transpose Split Trilu CumSum NonZero Equal Less LessOrEqual Greater GreaterOrEqual Not And Or Where "
    "IsNaN Clip Relu GatherND ScatterND ReduceProd ReduceSum ReduceMin ReduceMax ReduceMean"
)
_FOLDABLE = frozenset(_SHAPE_ARITHMETIC.split())
# Operators without a shape rule in onnx whose first result has the first input's shape.
_FIRST_SHAPE = (
    "GroupNormalization MeanVarianceNormalization LayerNormalization SimplifiedLayerNormalization "
    "SkipLayerNormalization SkipSimplifiedLayerNormalization Gelu FastGelu BiasGelu QuickGelu "
    "MultiHeadAttention"
)
_LIKE_FIRST = frozenset(_FIRST_SHAPE.split())
_RECURRENT = {"LSTM", "GRU", "RNN"}
_STANDARD = ("", "ai.onnx", "ai.onnx.ml")


@dataclass(frozen=True, slots=True)
class Tensor:
    """Element type by ONNX number, and a concrete shape."""

    kind: int
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def dtype(self) -> str:
        """Name of the element type."""
        return DTYPES[self.kind]

    @property
    def is_float(self) -> bool:
        """True for the types a gradient flows through."""
        return "float" in self.dtype


@dataclass(slots=True)
class Known:
    """What is known while the graph is walked.

    tensors   every tensor met so far, by name
    values    contents of small tensors that do not depend on the data
    declared  shapes that the file itself states, for operators no rule is known for
    made      every name that some node writes, to tell a wrong order from a missing tensor
    hint      added to a message about shapes that do not fit
    """

    tensors: dict[str, Tensor]
    values: dict[str, Any]
    declared: Mapping[str, Tensor]
    opsets: Mapping[str, int]
    made: frozenset[str] = frozenset()
    hint: str = ""
    weights: frozenset[str] = field(default_factory=frozenset)


def label(node: Any) -> str:
    """How a message names a node."""
    name = node.name or next((o for o in node.output if o), "without output")
    return f"node '{name}' ({node.op_type})"


def walk(nodes: Iterable[Any], known: Known) -> list[Any]:
    """Shapes for all tensors, into ``known``; returns the nodes that work on data, in order."""
    pending = deque(nodes)
    steps = []
    while pending:
        node = pending.popleft()
        _check_inputs(node, known)
        if node.op_type == "If" and node.domain in _STANDARD:
            pending.extendleft(reversed(_branch(node, known)))
            continue
        if any(a.type in {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS} for a in node.attribute):
            raise UnsupportedError(
                f"{label(node)}: loops are not followed; export with the loop unrolled or without it"
            )
        known.tensors.update(_infer(node, known))
        _fold(node, known)
        _check_found(node, known)
        if not all(name in known.values for name in node.output if name):
            _check_fit(node, known)
            steps.append(node)
    return steps


def _check_inputs(node: Any, known: Known) -> None:
    for name in filter(None, node.input):
        if name not in known.tensors:
            why = (
                "before it is written: a cycle, or nodes out of order"
                if name in known.made
                else (
                    "which nothing writes: the file is damaged, or the tensor has a type that cannot be used"
                )
            )
            raise InputError(f"{label(node)} reads tensor '{name}' {why}")
    for name in filter(None, node.output):
        if name in known.tensors:
            raise InputError(f"{label(node)} writes tensor '{name}', which is written already")


def _branch(node: Any, known: Known) -> list[Any]:
    """The nodes of the branch that a folded condition takes, its results under the outer names."""
    condition = known.values.get(node.input[0]) if node.input else None
    if condition is None:
        raise UnsupportedError(
            f"{label(node)}: which branch runs depends on the data; export with the condition fixed"
        )
    wanted = "then_branch" if bool(np.all(condition)) else "else_branch"
    graph = next((a.g for a in node.attribute if a.name == wanted), None)
    if graph is None or len(graph.output) != len(node.output):
        raise InputError(f"{label(node)}: its {wanted} is missing or has other results; the file is damaged")
    renamed = [
        helper.make_node("Identity", [inner.name], [outer])
        for inner, outer in zip(graph.output, node.output, strict=True)
    ]
    return [*(n for n in graph.node if n.op_type != "Constant"), *renamed]


def first_line(error: Exception) -> str:
    """What another package says went wrong, without its stack of details."""
    line = str(error).strip().partition("\n")[0]
    return re.sub(r"^\[\w+\] ", "", line) or type(error).__name__


def misfit(node: Any, known: Known, why: str) -> InputError:
    """Shapes that contradict each other at a node."""
    shapes = ", ".join(f"{n} {list(known.tensors[n].shape)}" for n in node.input if n)
    return InputError(f"{label(node)}: {why} (inputs: {shapes}){known.hint}")


def _infer(node: Any, known: Known) -> dict[str, Tensor]:
    """Results by the operator's own rule, else as the file states them."""
    found = _by_schema(node, known)
    stated = {n: known.declared[n] for n in node.output if n in known.declared and n not in found}
    if node.op_type in _LIKE_FIRST and node.output[0] not in found:
        stated.setdefault(node.output[0], known.tensors[node.input[0]])
    return found | stated


def _check_found(node: Any, known: Known) -> None:
    for name in filter(None, node.output):
        if name not in known.tensors:
            raise InputError(
                f"{label(node)}: the shape of its result '{name}' is not known"
                " (it depends on the data, or the operator has no shape rule and the file states no shape)"
                f"{known.hint}"
            )


def _by_schema(node: Any, known: Known) -> dict[str, Tensor]:
    domain = "" if node.domain == "ai.onnx" else node.domain
    version = known.opsets.get(domain, 1)
    if not onnx.defs.has(node.op_type, version, domain):
        return {}
    schema = onnx.defs.get_schema(node.op_type, version, domain)
    names = {n for n in node.input if n}
    types = {n: helper.make_tensor_type_proto(known.tensors[n].kind, known.tensors[n].shape) for n in names}
    data = {n: numpy_helper.from_array(known.values[n]) for n in names if n in known.values}
    opsets = [helper.make_opsetid(name, number) for name, number in known.opsets.items()]
    context = onnx.checker.C.CheckerContext()
    context.ir_version, context.opset_imports = onnx.IR_VERSION, dict(known.opsets)
    try:
        onnx.checker.check_node(node, context)
        found = onnx.shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=opsets)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, ValueError) as error:
        raise misfit(node, known, first_line(error)) from None
    return {name: t for name, kind in found.items() if (t := concrete(name, kind, {})) is not None}


def concrete(name: str, kind: Any, sizes: Mapping[str, int]) -> Tensor | None:
    """A tensor with every axis known, its symbols replaced by ``sizes``; None where one stays open."""
    if not kind.HasField("tensor_type"):
        raise UnsupportedError(
            f"tensor '{name}' is a sequence, map or optional; only plain tensors are priced"
        )
    if not kind.tensor_type.HasField("shape"):
        return None
    axes = [
        a.dim_value if a.HasField("dim_value") else sizes.get(a.dim_param) for a in kind.tensor_type.shape.dim
    ]
    if any(size is None for size in axes):
        return None
    return tensor_of(name, kind.tensor_type.elem_type, [int(size) for size in axes if size is not None])


def tensor_of(name: str, kind: int, shape: Iterable[int]) -> Tensor:
    """A tensor of a type that can be priced."""
    if kind not in DTYPES:
        found = (
            onnx.TensorProto.DataType.Name(kind) if kind in onnx.TensorProto.DataType.values() else str(kind)
        )
        raise UnsupportedError(
            f"tensor '{name}' has type {found}; accepted: {', '.join(sorted(set(DTYPES.values())))}"
        )
    return Tensor(kind, tuple(shape))


def _fold(node: Any, known: Known) -> None:
    """The values of a node's results, where they follow from values that are known."""
    outputs = [known.tensors.get(name) for name in node.output if name]
    if node.domain not in _STANDARD or any(t is not None and t.elements > FOLD_LIMIT for t in outputs):
        return
    if node.op_type in {"Shape", "Size"}:
        results: Sequence[Any] = [_shape_value(node, known.tensors[node.input[0]])]
    elif node.op_type in _FOLDABLE and all(n in known.values for n in node.input if n):
        results = _evaluate(node, known)
    else:
        return
    for name, result in zip(filter(None, node.output), results, strict=False):
        value = np.asarray(result)
        known.values[name] = value
        known.tensors[name] = tensor_of(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def _shape_value(node: Any, first: Tensor) -> Any:
    if node.op_type == "Size":
        return np.array(first.elements, dtype=np.int64)
    given = {a.name: a.i for a in node.attribute}
    return np.array(first.shape[given.get("start", 0) : given.get("end")], dtype=np.int64)


def _evaluate(node: Any, known: Known) -> Sequence[Any]:
    """Results of a node on known values; none where onnx's own reference cannot say."""
    values = {n: known.values[n] for n in node.input if n}
    opsets = [helper.make_opsetid("", known.opsets.get("", 1))]
    results = [n for n in node.output if n]
    function = helper.make_function("fold", "fold", list(values), results, [node], opsets)
    try:
        with np.errstate(all="ignore"):
            evaluated: Sequence[Any] = ReferenceEvaluator(function).run(None, values, {})
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return ()
    return evaluated


def _check_fit(node: Any, known: Known) -> None:
    """What onnx's own rules let pass: element counts, channels, ranks, states, empty results."""
    inputs = [known.tensors[n] for n in node.input if n]
    outputs = [known.tensors[n] for n in node.output if n]
    given = {a.name: a.i for a in node.attribute}
    if node.op_type in {"Reshape", "Flatten"} and inputs[0].elements != outputs[0].elements:
        raise misfit(node, known, f"cannot be reshaped to {list(outputs[0].shape)}")
    if node.op_type in {"Conv", "ConvTranspose"}:
        x, weight = inputs[0].shape, inputs[1].shape
        group = given.get("group", 1)
        if len(x) != len(weight) or x[1] != (weight[1] * group if node.op_type == "Conv" else weight[0]):
            raise misfit(node, known, "channels of input and weight differ")
    if node.op_type in _RECURRENT:
        if any(len(t.shape) != 3 for t in inputs[:3]) or inputs[0].shape[2] != inputs[1].shape[2]:
            raise misfit(node, known, "input and weights do not fit")
        axis = 0 if given.get("layout") else 1
        state = known.tensors[node.input[5]] if len(node.input) > 5 and node.input[5] else None
        if state is not None and state.shape[axis : axis + 1] != inputs[0].shape[axis : axis + 1]:
            raise misfit(node, known, "batch of input and initial state differ")
    if any(t.is_float and not t.elements for t in outputs) and all(t.elements for t in inputs[:1]):
        raise misfit(node, known, "its result is empty: the input is too small")
