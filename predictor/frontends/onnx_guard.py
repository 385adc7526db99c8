"""What an ONNX file may not ask for: data outside its folder, unknown operators, functions without end."""

from collections import Counter
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import onnx

from predictor.errors import InputError
from predictor.frontends.onnx_shapes import label

EXPANDED_LIMIT = 1_000_000  # nodes after all functions are inlined
DEPTH_LIMIT = 100  # functions that call each other in a chain; the inliner recurses
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
_SCRIPT = "pkg.onnxscript"

FunctionKey = tuple[str, str, str]


def nested(nodes: Iterable[Any]) -> Iterator[Any]:
    """Nodes, and those of the graphs they hold."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in _held(attribute):
                yield from nested(graph.node)


def _held(attribute: Any) -> list[Any]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def check_data(path: Path, model: Any) -> None:
    """Refuse contents stored outside the folder of the file; that they are missing is no fault."""
    for name, tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            for entry in tensor.external_data:
                if entry.key == "location" and not _inside(path.parent, entry.value):
                    raise InputError(
                        f"{path}: tensor '{name}' has its contents in {entry.value!r}, outside the folder of"
                        " the file; put the data file itself (no link) into that folder and store its name"
                        " there, or export again"
                    )


def _inside(folder: Path, location: Any) -> bool:
    """False for an absolute path, a way out over '..' or a link, and what is no path at all."""
    try:
        place = (folder / location).resolve()
        place.is_file()
        return not Path(location).is_absolute() and place.is_relative_to(folder.resolve())
    except (OSError, RuntimeError, TypeError, ValueError):
        return False


def _tensors(model: Any) -> Iterator[tuple[str, Any]]:
    """Every stored tensor by its name, one inside a node by the node's first result."""
    nodes = [*nested(model.graph.node), *nested(n for f in model.functions for n in f.node)]
    inner = [graph for node in nodes for a in node.attribute for graph in _held(a)]
    for graph in (model.graph, *inner):
        yield from ((t.name, t) for t in graph.initializer)
        for sparse in graph.sparse_initializer:
            yield from ((sparse.values.name, t) for t in (sparse.values, sparse.indices))
    for node in nodes:
        name = next(iter(node.output), node.name)
        for a in node.attribute:
            sparse_tensors = [a.sparse_tensor, *a.sparse_tensors]
            parts = [t for s in sparse_tensors for t in (s.values, s.indices)]
            yield from ((t.name or name, t) for t in (a.t, *a.tensors, *parts))


def check_domains(path: Path, nodes: Iterable[Any]) -> None:
    """Refuse operators nobody here can know; local functions are inlined by now."""
    for node in nodes:
        if node.domain not in _DOMAINS and not node.domain.startswith(_SCRIPT):
            raise InputError(
                f"{path}: {label(node)} is of the unknown domain '{node.domain}': what it computes is not in"
                " the file; export it as a function of the model or with standard operators, or give the"
                " PyTorch model"
            )


def check_functions(path: Path, model: Any) -> None:
    """Refuse functions that call themselves, or that expand to more nodes than can be inlined."""
    bodies = {(_domain(f), f.name, f.overload): Counter(map(_key, nested(f.node))) for f in model.functions}
    calls = {key: bodies.keys() & body.keys() for key, body in bodies.items()}
    nodes: dict[FunctionKey, int] = {}
    depth: dict[FunctionKey, int] = {}
    try:
        for key in TopologicalSorter(calls).static_order():
            nodes[key] = sum(times * nodes.get(called, 1) for called, times in bodies[key].items())
            depth[key] = 1 + max((depth[called] for called in calls[key]), default=0)
    except CycleError as error:
        chain = " -> ".join(str(name) for _, name, _ in error.args[1][::-1])
        raise InputError(
            f"{path}: its functions call themselves ({chain}), which ONNX does not allow; export it again"
        ) from None
    expanded = sum(nodes.get(_key(node), 1) for node in nested(model.graph.node))
    if expanded > EXPANDED_LIMIT:
        raise InputError(
            f"{path}: its functions expand to {_size(expanded)} nodes, more than {EXPANDED_LIMIT};"
            " export it with fewer nested functions"
        )
    if max(depth.values(), default=0) > DEPTH_LIMIT:
        raise InputError(
            f"{path}: its functions call each other {max(depth.values())} deep, more than {DEPTH_LIMIT};"
            " export it with fewer nested functions"
        )


def _key(node: Any) -> FunctionKey:
    return _domain(node), node.op_type, node.overload


def _domain(item: Any) -> str:
    """The standard domain has two spellings, and the inliner takes them for one."""
    domain: str = item.domain
    return "" if domain == "ai.onnx" else domain


def _size(count: int) -> str:
    """A count that may be too long to print."""
    return str(count) if count.bit_length() < 64 else f"over 2^{count.bit_length() - 1}"
