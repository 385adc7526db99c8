"""The nodes of an exported program as calls with every tensor's shape; nested graphs are inlined.

``torch/_export/serde/schema.py`` of PyTorch 2.13 says what the JSON means.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from predictor.errors import InputError, UnsupportedError
from predictor.frontends.exported_sizes import whole
from predictor.ir import TensorSpec

# ScalarType of the schema
DTYPES = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    10: "complex64",
    11: "complex128",
    12: "bool",
    13: "bfloat16",
    28: "uint16",
    29: "float8",
    30: "float8",
    31: "float8",
    32: "float8",
    34: "uint32",
    35: "uint64",
}
_TENSORS = {"as_tensor", "as_tensors", "as_optional_tensor", "as_optional_tensors", "as_nested_tensors"}
_PLAIN = {"as_int", "as_float", "as_string", "as_bool"}
_LISTS = {"as_ints", "as_floats", "as_strings", "as_bools"}
_INLINED = {
    "wrap_with_set_grad_enabled",
    "wrap_with_autocast",
    "invoke_subgraph",
    "tag_activation_checkpoint",
}
_DEEPEST = 16
_LARGEST = 2**60


@dataclass(frozen=True, slots=True)
class Call:
    """One operator as the program calls it.

    name     "aten.linear", without its overload
    tensors  (name of the argument, name of the tensor), absent ones left out
    attrs    the other arguments by name, where they are plain values
    outputs  names of its tensors
    scope    path of the module that called it
    grad     False where the program switched gradients off
    """

    name: str
    tensors: tuple[tuple[str, str], ...]
    attrs: Mapping[str, Any]
    outputs: tuple[str, ...]
    scope: str = ""
    grad: bool = True

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors it reads."""
        return tuple(name for _, name in self.tensors)


@dataclass(slots=True)
class Reader:
    """Walks a program's graphs.

    symbols  size of every symbolic axis
    specs    shape and type of every tensor met so far, by name
    """

    symbols: Mapping[str, int]
    specs: dict[str, TensorSpec] = field(default_factory=dict)

    def calls(self, graph: Mapping[str, Any]) -> list[Call]:
        """All calls of the main graph in order."""
        self._learn(graph, "", {})
        return list(self._calls(graph, "", {}, True))

    def _learn(self, graph: Mapping[str, Any], prefix: str, bound: Mapping[str, str]) -> None:
        for name, meta in graph["tensor_values"].items():
            if name not in bound:
                self.specs[prefix + name] = self.spec(name, meta)

    def spec(self, name: str, meta: Mapping[str, Any]) -> TensorSpec:
        """One entry of ``tensor_values`` with its sizes known."""
        if meta["dtype"] not in DTYPES:
            accepted = ", ".join(sorted(set(DTYPES.values())))
            raise UnsupportedError(f"tensor '{name}' has type number {meta['dtype']}; accepted: {accepted}")
        shape, stride = (tuple(map(self.size, meta[key])) for key in ("sizes", "strides"))
        if any(not 0 <= n < _LARGEST for n in shape) or prod(shape) > _LARGEST:
            raise InputError(f"tensor '{name}' comes out as {list(shape)}; choose other sizes")
        return TensorSpec(shape, DTYPES[meta["dtype"]], stride, len(self.specs))

    def size(self, size: Mapping[str, Any]) -> int:
        """One axis: a number, or an expression of the symbols."""
        if "as_int" in size:
            return int(size["as_int"])
        return whole(size["as_expr"]["expr_str"], self.symbols)

    def _calls(
        self, graph: Mapping[str, Any], prefix: str, bound: Mapping[str, str], grad: bool
    ) -> Iterator[Call]:
        """``prefix`` and ``bound`` give the tensors of a nested graph their outer names."""
        if prefix.count("/") > _DEEPEST:
            raise UnsupportedError(f"graphs of the program are nested more than {_DEEPEST} deep")
        bound = dict(bound)
        for node in graph["nodes"]:
            target = str(node["target"])
            kind = target.rpartition("higher_order.")[2]
            if "higher_order." in target:
                if kind not in _INLINED:
                    raise UnsupportedError(
                        f"the program calls {kind}, whose work depends on data or is not followed; export it"
                        " with that control flow replaced by a fixed path"
                    )
                yield from self._nested(node, kind, prefix, bound, grad)
            elif target.startswith("torch.ops."):
                yield self._call(node, target.removeprefix("torch.ops."), prefix, bound, grad)

    def _nested(
        self, node: Mapping[str, Any], kind: str, prefix: str, bound: dict[str, str], grad: bool
    ) -> Iterator[Call]:
        """The calls of a graph that a node runs once, under the names of the graph around it."""
        arguments = [argument["arg"] for argument in node["inputs"]]
        nested = next((a["as_graph"] for a in arguments if "as_graph" in a), None)
        if nested is None:
            raise InputError(f"node '{node.get('name')}' ({kind}) names no graph; the file is damaged")
        if kind == "wrap_with_set_grad_enabled":
            grad = grad and bool(arguments[0].get("as_bool", True))
        inner, graph = f"{prefix}{node.get('name') or nested['name']}/", nested["graph"]
        given = [bound.get(n, prefix + n) for a in arguments for n in tensor_names(a)]
        taken = [name for argument in graph["inputs"] for name in tensor_names(argument)]
        inside = dict(zip(taken, given, strict=False))
        self._learn(graph, inner, inside)
        yield from self._calls(graph, inner, inside, grad)
        made = [inside.get(n, inner + n) for a in graph["outputs"] for n in tensor_names(a)]
        outputs = [name for argument in node["outputs"] for name in tensor_names(argument)]
        bound |= dict(zip(outputs, made, strict=False))

    def _call(
        self, node: Mapping[str, Any], target: str, prefix: str, bound: Mapping[str, str], grad: bool
    ) -> Call:
        namespace, _, rest = target.partition(".")
        tensors = [
            (str(argument["name"]), bound.get(name, prefix + name))
            for argument in node["inputs"]
            for name in tensor_names(argument["arg"])
        ]
        attrs = {str(a["name"]): value for a in node["inputs"] for value in _plain(a["arg"])}
        outputs = [prefix + name for argument in node["outputs"] for name in tensor_names(argument)]
        for name in (*(name for _, name in tensors), *outputs):
            if name not in self.specs:
                raise InputError(
                    f"node '{node.get('name')}' ({target}) names tensor '{name}', which is nowhere"
                )
        name = f"{namespace}.{rest.partition('.')[0]}"
        return Call(name, tuple(tensors), attrs, tuple(outputs), _scope(node), grad)


def tensor_names(argument: Mapping[str, Any]) -> list[str]:
    """Names of the tensors of one argument."""
    ((kind, value),) = argument.items()
    if kind not in _TENSORS:
        return []
    return list(_names(value))


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for part in value:
            yield from _names(part)
    elif "as_tensor" in value:
        yield str(value["as_tensor"]["name"])
    elif "name" in value:
        yield str(value["name"])


def _plain(argument: Mapping[str, Any]) -> Iterator[Any]:
    ((kind, value),) = argument.items()
    if kind in _PLAIN:
        yield value
    elif kind in _LISTS:
        yield tuple(value)


def _scope(node: Mapping[str, Any]) -> str:
    """Path of the innermost module: "L__self__,,main.Net;L__self__emb,emb,torch.nn.Embedding"."""
    stack = str(node.get("metadata", {}).get("nn_module_stack", ""))
    last = stack.rpartition(";")[2].split(",")
    return last[1] if len(last) > 2 and not last[0].startswith("_empty") else ""
