"""Which constants of an ONNX file are weights, and how many parameters of the model they stand for.

The format does not say. A floating constant is a weight when

* the exporter recorded it as a parameter (PyTorch's dynamo exporter does), or
* it reaches, directly or through casts and views, a place where an operator takes a weight: a factor of a
  product, filters, an embedding table, scale and bias of a normalisation, an added bias or position table,
  a multiplied scale, a joined class token.

It is a buffer when the exporter says so, when it is a running statistic, a mask (by name, or added to the
scores of a softmax), a multiplied table (rotary angles), or a single number. A fixed table that is added,
such as sinusoidal positions, cannot be told from a trained one and counts as a weight.

Exporters merge weights that are equal, as biases and scales are before training, and store a tied table a
second time transposed: both are undone here. TorchScript's exporter gives a merged weight its other names
by Identity; dynamo's reads it from several modules.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from predictor.frontends.onnx_load import OnnxFile
from predictor.frontends.onnx_shapes import DTYPES

# operator -> inputs that hold weights
_PRODUCT = {
    "MatMul": (0, 1),
    "FusedMatMul": (0, 1),
    "Gemm": (0, 1, 2),
    "Conv": (1, 2),
    "FusedConv": (1, 2),
    "ConvTranspose": (1, 2),
    "DeformConv": (1, 3),
    "Einsum": (0, 1, 2),
    "LSTM": (1, 2, 3, 7),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
    "Gather": (0,),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "RMSNormalization": (1,),
    "SimplifiedLayerNormalization": (1,),
    "SkipLayerNormalization": (2, 3, 4),
    "SkipSimplifiedLayerNormalization": (2, 3),
    "PRelu": (1,),
    "BiasGelu": (1,),
}
# The same where a constant of the exporter is as likely: weights if they have several elements.
_ARITHMETIC = {"Add": (0, 1), "Mul": (0, 1), "Sum": range(64), "Concat": range(64)}
_PASS = {
    "Cast",
    "Transpose",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Identity",
    "Slice",
    "Split",
    "Expand",
    "Tile",
    "Resize",
}
_BUFFER_NAME = re.compile(r"(mask|inv_freq|cached|running_mean|running_var)$")
_KIND = "pkg.torch.export.graph_signature.InputSpec.kind"


@dataclass(frozen=True, slots=True)
class Weights:
    """What was found.

    trained  constants that receive a gradient
    names    parameters of the model and the constant each one is stored in
    merged   parameters that share a constant because they were equal when exported
    """

    trained: frozenset[str]
    names: Mapping[str, str]
    merged: int


Readers = Mapping[str, list[tuple[Any, int]]]


def find_weights(file: OnnxFile) -> Weights:
    """Decide for every stored constant."""
    recorded = {
        v.name: p.value for v in file.model.graph.value_info for p in v.metadata_props if p.key == _KIND
    }
    readers: dict[str, list[tuple[Any, int]]] = defaultdict(list)
    for node in file.all_nodes:
        for index, name in enumerate(node.input):
            readers[name].append((node, index))
    trained = [
        name
        for name, tensor in file.sources.items()
        if name in readers and "float" in DTYPES.get(tensor.data_type, "")
        if (recorded[name] == "PARAMETER" if name in recorded else _is_weight(name, file, readers))
    ]
    tied = set(_transposed_copies(trained, file, readers, recorded))
    names: dict[str, str] = {}
    for name in trained:
        if name not in tied:
            scopes = set() if file.aliases else {scope_of(node) for node, _ in readers[name]}
            also = [alias for alias, source in file.aliases.items() if source == name]
            for copy in (name, *_copies(name, len(file.sources[name].dims), also, scopes)):
                names[copy] = name
    return Weights(frozenset(trained), names, len(names) - len(trained) + len(tied))


def _is_weight(name: str, file: OnnxFile, readers: Readers) -> bool:
    """Whether a constant of unrecorded origin is read where operators take weights."""
    dims = file.sources[name].dims
    if not dims or _BUFFER_NAME.search(name):
        return False
    places = list(_places(name, readers, set()))
    if any(
        index in _PRODUCT.get(node.op_type, ()) and (node.op_type != "Gather" or len(dims) > 1)
        for node, index in places
    ):
        return True
    return (name not in file.literals and prod(dims) > 1) and any(
        index in _ARITHMETIC.get(node.op_type, ()) and not _is_table(dims, node, readers)
        for node, index in places
    )


def _places(name: str, readers: Readers, seen: set[str]) -> Iterator[tuple[Any, int]]:
    """Where a constant is read, through casts and views."""
    if name in seen:
        return
    seen.add(name)
    for node, index in readers.get(name, ()):
        yield node, index
        if node.op_type in _PASS and index == 0:
            for output in node.output:
                yield from _places(output, readers, seen)


def _is_table(dims: Sequence[int], node: Any, readers: Readers, sums: int = 3) -> bool:
    """Two axes or more that multiply are rotary angles; added to the scores of a softmax, they are a mask.

    ``sums`` further additions (a second mask) may lie between.
    """
    if sum(size > 1 for size in dims) < 2 or node.op_type == "Concat":
        return False
    later = [reader for output in node.output for reader, _ in _places(output, readers, set())]
    return node.op_type == "Mul" or any(
        n.op_type == "Softmax" or (sums > 0 and n.op_type == "Add" and _is_table(dims, n, readers, sums - 1))
        for n in later
    )


def scope_of(node: Any) -> str:
    """Path of the module a node came from: recorded by dynamo, spelled in the name by TorchScript."""
    scopes = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), None)
    if scopes is not None:
        path = re.findall(r"'([^']*)'", scopes)
        return path[-2] if len(path) > 1 else ""
    if not node.name.startswith("/"):
        return ""
    parts: list[str] = []
    for part in node.name.split("/")[1:-1]:
        if parts and part.startswith(parts[-1] + "."):
            parts.pop()  # a Sequential called whole: /features/features.0
        parts.append(part)
    return ".".join(parts)


def _copies(name: str, axes: int, aliases: list[str], scopes: set[str]) -> list[str]:
    """Names of further parameters that were merged into constant ``name`` for being equal.

    Biases and scales (one axis) are all one value before training; a larger tensor is only taken for
    several parameters when it serves the same place in another copy of a block, else it is tied.
    """
    home = max((s for s in scopes if s and name.startswith(s + ".")), key=len, default=None)
    leaf = name.removeprefix(f"{home}.")
    others = [] if home is None else [(s, f"{s}.{leaf}") for s in sorted(scopes - {home})]
    roles = [(alias, alias, name) for alias in aliases] + [
        (copy, scope, home or "") for scope, copy in others
    ]
    return [copy for copy, role, own in roles if axes < 2 or _numberless(role) == _numberless(own)]


def _numberless(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _transposed_copies(
    trained: list[str], file: OnnxFile, readers: Readers, recorded: Mapping[str, str]
) -> Iterator[str]:
    """Constants that repeat an embedding table transposed, as a tied output layer is exported."""
    tables = [n for n in trained if any(node.op_type == "Gather" for node, _ in readers[n])]
    for name in trained:
        written_anew = len(file.sources[name].dims) == 2 and name not in recorded and name not in tables
        if written_anew and any(_is_transposed(name, table, file) for table in tables):
            yield name


def _is_transposed(name: str, other: str, file: OnnxFile) -> bool:
    """Compares one row with one column; False where the contents are not at hand."""
    tensor, table = file.sources[name], file.sources[other]
    if list(tensor.dims) != list(table.dims)[::-1]:
        return False
    column, row = _matrix(tensor, file), _matrix(table, file)
    return column is not None and row is not None and np.array_equal(column[:, 0], row[0])


def _matrix(tensor: Any, file: OnnxFile) -> Any:
    """The raw bits of a stored matrix without copying it; None when they are not at hand."""
    bits = np.dtype(f"u{helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize}")
    size = prod(tensor.dims) * bits.itemsize
    if tensor.data_location == TensorProto.EXTERNAL:
        place = file.place_of(tensor)
        if place is None or place[0].stat().st_size < place[1] + size:
            return None
        return np.memmap(place[0], bits, "r", place[1], tuple(tensor.dims))
    if len(tensor.raw_data) != size:
        return None
    return np.frombuffer(tensor.raw_data, bits).reshape(tuple(tensor.dims))
