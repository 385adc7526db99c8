"""A recorded Graph as JSON and back: data, never code; a file that is not one is refused.

Tensors and operators are written once and referred to by number, so a model of repeated blocks stays small
and its operators are shared again after reading.
"""

import gzip
import json
import zlib
from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path
from typing import Any

from predictor.errors import InputError
from predictor.ir import DTYPE_BYTE, Graph, Op, Parameter, StorageEvent, TensorSpec

FORMAT = 1
LARGEST_BYTE = 512 * 2**20


def to_plain(graph: Graph) -> dict[str, Any]:
    """The graph as lists, numbers and words."""
    tensors: dict[TensorSpec, int] = {}
    ops: dict[int, int] = {}
    written: list[Any] = []

    def number(specs: Iterable[TensorSpec]) -> list[int]:
        return [tensors.setdefault(spec, len(tensors)) for spec in specs]

    for op in graph.ops:
        if id(op) not in ops:
            ops[id(op)] = len(written)
            written.append(
                [op.name, number(op.inputs), number(op.outputs), dict(op.attrs), op.phase, op.scope]
            )
    return {
        "format": FORMAT,
        "name": graph.name,
        "source": graph.source,
        "batch": graph.batch,
        "buffers_byte": graph.buffers_byte,
        "input_byte": graph.input_byte,
        "tokens_per_sample": graph.tokens_per_sample,
        "tensors": [[t.shape, t.dtype, t.stride, t.storage] for t in tensors],
        "ops": written,
        "order": [ops[id(op)] for op in graph.ops],
        "parameters": [astuple(p) for p in graph.parameters],
        "events": [[e.at, e.byte, e.storage] for e in graph.events],
        "gradients": sorted(graph.gradients),
        "origin": dict(graph.origin),
        "notes": [list(note) for note in graph.notes],
    }


def from_plain(content: Any, where: str) -> Graph:
    """The graph that ``to_plain`` wrote; raises InputError when ``content`` is something else."""
    try:
        if content["format"] != FORMAT:
            raise InputError(f"{where}: graph format {content['format']}, this version reads {FORMAT}")
        tensors = [
            TensorSpec(tuple(shape), _dtype(dtype), tuple(stride), storage)
            for shape, dtype, stride, storage in content["tensors"]
        ]
        ops = [
            Op(
                name,
                tuple(tensors[i] for i in inputs),
                tuple(tensors[i] for i in outputs),
                {key: _tupled(value) for key, value in attrs.items()},
                phase,
                scope,
            )
            for name, inputs, outputs, attrs, phase, scope in content["ops"]
        ]
        return Graph(
            name=content["name"],
            source=content["source"],
            ops=tuple(ops[i] for i in content["order"]),
            parameters=tuple(
                Parameter(name, tuple(shape), _dtype(dtype), trainable, expert)
                for name, shape, dtype, trainable, expert in content["parameters"]
            ),
            batch=content["batch"],
            buffers_byte=content["buffers_byte"],
            input_byte=content["input_byte"],
            tokens_per_sample=content["tokens_per_sample"],
            events=tuple(StorageEvent(*event) for event in content["events"]),
            gradients=frozenset(content["gradients"]),
            origin=content["origin"],
            notes=tuple((topic, text, advice) for topic, text, advice in content["notes"]),
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{where}: not a recorded graph: {type(error).__name__}: {error}") from None


def _dtype(name: str) -> str:
    if name not in DTYPE_BYTE:
        raise ValueError(f"unknown type {name!r}")
    return name


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value


def dumps(content: dict[str, Any]) -> bytes:
    """Compressed JSON, the same bytes for the same content."""
    return gzip.compress(json.dumps(content, separators=(",", ":")).encode(), compresslevel=1, mtime=0)


def loads(data: bytes, where: str) -> Any:
    """Content of compressed JSON of at most ``LARGEST_BYTE``; raises InputError for anything else."""
    try:
        reader = zlib.decompressobj(wbits=31)
        text = reader.decompress(data, LARGEST_BYTE)
        if reader.unconsumed_tail or not reader.eof:
            raise InputError(f"{where}: cut short, or more than {LARGEST_BYTE >> 20} MiB")
        return json.loads(text)
    except (zlib.error, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{where}: not compressed JSON: {error}") from None


def save(graph: Graph, path: Path) -> None:
    """Write a graph to a file."""
    path.write_bytes(dumps(to_plain(graph)))


def load(path: Path) -> Graph:
    """Read a graph that ``save`` wrote."""
    return from_plain(loads(path.read_bytes(), str(path)), str(path))
