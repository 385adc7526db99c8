"""Sizes of an ONNX graph's inputs: what the file fixes, what its symbols are given."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from predictor.errors import InputError, did_you_mean
from predictor.frontends.onnx_shapes import Tensor, tensor_of

_SEQUENCE = re.compile(r"seq|len|token", re.IGNORECASE)
_NOT_SEQUENCE = re.compile(r"past|total|cache", re.IGNORECASE)
_INTEGERS = {"int32", "int64"}


@dataclass(frozen=True, slots=True)
class Sizes:
    """Concrete inputs.

    tensors  every graph input
    symbols  value of every symbolic axis
    batch    samples
    baked    the batch that the file fixes when another one was asked for, else None
    tokens   length of the token sequence, None without token ids
    """

    tensors: Mapping[str, Tensor]
    symbols: Mapping[str, int]
    batch: int
    baked: int | None
    tokens: int | None

    @property
    def hint(self) -> str:
        """What to add to a message about shapes that do not fit."""
        if self.baked is None:
            return "".join(f"; {name} = {size}" for name, size in self.symbols.items())
        return (
            f"; the file was exported with batch {self.baked} and holds it in its shapes, batch {self.batch}"
            f" was asked for: export it with a dynamic batch axis, or use batch {self.baked}"
        )


def resolve(inputs: Sequence[Any], batch: int | None, dims: Mapping[str, int], sequence: int | None) -> Sizes:
    """Give every axis of every input a size, or say which one lacks it."""
    for name, size in {"batch": batch, "sequence": sequence, **dims}.items():
        if size is not None and size < 1:
            raise InputError(f"size of '{name}' is {size}; it has to be at least 1")
    axes = {value.name: _axes(value) for value in inputs}
    _check_names(dims, axes)
    batches = {own[0] for own in axes.values() if own and isinstance(own[0], str)}
    fixed = next((own[0] for own in axes.values() if own), 1)
    baked = fixed if isinstance(fixed, int) and not batches and batch not in {None, fixed} else None
    symbols = {s: n for s, n in dims.items() if any(s in own for own in axes.values())}
    symbols |= {s: batch for s in batches if s not in symbols and batch is not None}
    if sequence is not None:
        symbols |= {s: sequence for s in _sequence_symbols(inputs, axes) if s not in symbols}
    tensors = {v.name: _tensor(v, axes[v.name], symbols, batch if baked else None, baked) for v in inputs}
    tokens = next((t.shape[1] for t in tensors.values() if t.dtype in _INTEGERS and len(t.shape) == 2), None)
    if sequence is not None and sequence not in symbols.values() and sequence != tokens:
        fixed = "has no token ids" if tokens is None else f"fixes the sequence at {tokens}"
        raise InputError(
            f"sequence length {sequence} was given, but the file {fixed}; export that axis as dynamic"
        )
    samples = [
        t.shape[0] for name, t in tensors.items() if t.shape and (axes[name][0] in batches or not batches)
    ]
    return Sizes(tensors, symbols, samples[0] if samples else 1, baked, tokens)


def _axes(value: Any) -> list[int | str]:
    """Sizes and symbols of an input; an axis without either is named after its place."""
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        raise InputError(
            f"input '{value.name}' is not a tensor with a known number of axes; export it with shapes"
        )
    if not all(isinstance(axis.dim_param, str) for axis in kind.shape.dim):
        raise InputError(f"input '{value.name}': damaged: an axis name is not text; export it again")
    return [
        a.dim_value if a.HasField("dim_value") and a.dim_value >= 0 else a.dim_param or f"{value.name}[{i}]"
        for i, a in enumerate(kind.shape.dim)
    ]


def _sequence_symbols(inputs: Sequence[Any], axes: Mapping[str, list[int | str]]) -> set[str]:
    """Symbols named like a sequence, and the second axis of token ids."""
    named = {
        s
        for own in axes.values()
        for s in own[1:]
        if isinstance(s, str) and _SEQUENCE.search(s) and not _NOT_SEQUENCE.search(s)
    }
    ids = (v for v in inputs if tensor_of(v.name, v.type.tensor_type.elem_type, ()).dtype in _INTEGERS)
    second = {axes[v.name][1] for v in ids if len(axes[v.name]) == 2}
    return named | {s for s in second if isinstance(s, str)}


def _tensor(
    value: Any, axes: list[int | str], symbols: Mapping[str, int], batch: int | None, baked: int | None
) -> Tensor:
    shape = []
    for place, axis in enumerate(axes):
        size = symbols.get(axis) if isinstance(axis, str) else axis
        if size is None:
            raise InputError(f"input '{value.name}': axis {place} ('{axis}') has no size; {_advice(place)}")
        if size == 0:
            raise InputError(
                f"input '{value.name}': axis {place} has size 0; export it with a size of at least 1"
            )
        shape.append(batch if batch is not None and place == 0 and size == baked else size)
    return tensor_of(value.name, value.type.tensor_type.elem_type, shape)


def _advice(place: int) -> str:
    if place == 0:
        return "give the batch (--batch-size or --micro-batch)"
    return "give --seq-len if it is the sequence, a size by name in dims, or export it with a fixed size"


def _check_names(dims: Mapping[str, int], axes: Mapping[str, list[int | str]]) -> None:
    known = sorted({axis for own in axes.values() for axis in own if isinstance(axis, str)})
    for name in dims:
        if name not in known:
            near, listed = did_you_mean(name, known), ", ".join(known) or "none"
            raise InputError(f"no input has an axis '{name}'{near}; symbolic axes: {listed}")
