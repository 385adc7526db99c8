"""An ONNX file opened: its nodes and constants in one place, functions inlined, contents left on disk."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor
from onnx.inliner import inline_local_functions

from predictor.errors import InputError
from predictor.frontends.onnx_guard import check_data, check_domains, check_functions
from predictor.frontends.onnx_shapes import FOLD_LIMIT, first_line

_OLDEST_OPSET = 11


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """What later steps need of a file.

    inputs     graph inputs that are not constants
    outputs    graph outputs
    nodes      nodes of the main graph in order, without Constant and without names for constants
    all_nodes  the same and those of nested graphs
    sources    stored constants (TensorProto) by name
    literals   those of them that a Constant node holds
    aliases    names that Identity gives to a constant
    """

    path: Path
    model: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    nodes: tuple[Any, ...]
    all_nodes: tuple[Any, ...]
    sources: Mapping[str, Any]
    literals: frozenset[str]
    aliases: Mapping[str, str]

    @property
    def opsets(self) -> dict[str, int]:
        """Version of every domain's operators."""
        return {"" if o.domain == "ai.onnx" else o.domain: o.version for o in self.model.opset_import}

    def place_of(self, tensor: Any) -> tuple[Path, int] | None:
        """File and offset of contents that are stored beside the model; None when they are not there."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        offset, folder = entries.get("offset", "0"), self.path.parent.resolve()
        place = (folder / entries.get("location", "")).resolve()
        there = place.is_relative_to(folder) and place.is_file() and offset.isdigit()
        return (place, int(offset)) if there else None

    @property
    def lacks_contents(self) -> bool:
        """True when some constants are stored in a file that is not there."""
        outside = (t for t in self.sources.values() if t.data_location == onnx.TensorProto.EXTERNAL)
        return any(self.place_of(tensor) is None for tensor in outside)

    def small_values(self, names: Iterator[str]) -> dict[str, Any]:
        """Contents of small constants, from beside the file where they are stored there."""
        values = {}
        for name in names:
            tensor = self.sources[name]
            outside = tensor.data_location == onnx.TensorProto.EXTERNAL
            if prod(tensor.dims) > FOLD_LIMIT or (outside and self.place_of(tensor) is None):
                continue
            try:
                if outside:
                    load_external_data_for_tensor(tensor, str(self.path.parent))
                values[name] = numpy_helper.to_array(tensor)
            except (OSError, TypeError, ValueError, onnx.checker.ValidationError) as error:
                why = first_line(error)
                raise InputError(
                    f"{self.path}: contents of constant '{name}' cannot be read: {why}"
                ) from None
        return values


def open_file(path: Path) -> OnnxFile:
    """Read and check a file; raises InputError when it cannot be a model."""
    model = _load(path)
    graphs = list(_graphs(model.graph))
    literals = {name: tensor for g in graphs for name, tensor in _literals(g)}
    sources = {i.name: i for g in graphs for i in g.initializer} | literals
    outputs = {o.name for o in model.graph.output}
    nodes = [n for g in graphs for n in g.node if n.op_type != "Constant"]
    aliases: dict[str, str] = {}
    _check_text(path, sources)
    for node in nodes:
        _check_text(path, (node.name, node.op_type, node.domain, *(p.value for p in node.metadata_props)))
        for place, name in enumerate(node.input):
            node.input[place] = aliases.get(name, name)
        if node.op_type == "Identity" and sources.keys() >= {*node.input} and outputs.isdisjoint(node.output):
            aliases |= dict(zip(node.output, node.input, strict=False))
    _check_text(path, aliases)
    check_domains(path, nodes)
    kept = [n for n in nodes if not (n.op_type == "Identity" and aliases.keys() >= {*n.output})]
    main = {id(n) for n in model.graph.node}
    return OnnxFile(
        path=path,
        model=model,
        inputs=tuple(v for v in model.graph.input if v.name not in sources),
        outputs=tuple(model.graph.output),
        nodes=tuple(n for n in kept if id(n) in main),
        all_nodes=tuple(kept),
        sources=sources,
        literals=frozenset(literals),
        aliases=aliases,
    )


def _load(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        model = onnx.load_model(path, format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise InputError(f"{path}: not an ONNX file, or cut short ({error}); export it again") from None
    if not model.ir_version or not model.opset_import:
        raise InputError(f"{path}: not an ONNX file: it states no version; export it again")
    opset = next((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), _OLDEST_OPSET)
    if opset < _OLDEST_OPSET:
        raise InputError(
            f"{path}: operator set {opset} is older than {_OLDEST_OPSET}; convert it with"
            " onnx.version_converter.convert_version(model, 17), or export it again"
        )
    if not model.graph.node or not model.graph.output:
        raise InputError(f"{path}: the graph is empty: it has no nodes or no outputs; export it again")
    check_data(path, model)
    return _inlined(path, model) if model.functions else model


def _inlined(path: Path, model: Any) -> Any:
    check_functions(path, model)
    try:
        return inline_local_functions(model)
    except Exception as error:  # whatever the inliner meets, the file is at fault
        raise InputError(f"{path}: its functions cannot be inlined: {first_line(error)}") from None


def _check_text(path: Path, names: Iterable[Any]) -> None:
    """Protobuf hands out text that is not UTF-8 as bytes."""
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"{path}: damaged: the name {name!r} in it is not text; export it again")


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph, and the graphs of its branches."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def _literals(graph: Any) -> Iterator[tuple[str, Any]]:
    """Constant nodes as stored tensors; text has no use here and is left out."""
    kinds = {
        "value_int": np.int64,
        "value_ints": np.int64,
        "value_float": np.float32,
        "value_floats": np.float32,
    }
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], attribute.t
                elif attribute.name in kinds:
                    value = helper.get_attribute_value(attribute)
                    yield node.output[0], numpy_helper.from_array(np.asarray(value, kinds[attribute.name]))
