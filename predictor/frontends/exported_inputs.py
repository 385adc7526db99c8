"""Sizes of an exported program's inputs: which symbol is the batch, the sequence, the image's side."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from predictor.errors import InputError, did_you_mean
from predictor.frontends.exported_calls import DTYPES, tensor_names
from predictor.frontends.exported_sizes import evaluate, symbols_in

_UNBOUNDED = 2**53  # larger limits stand for none


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the symbols stand for.

    symbols  size of every symbol of the inputs
    inputs   names of the tensors that are given to the program
    batch    samples
    tokens   length of the token sequence, None without token ids
    assumed  symbols that took the size of the exported example
    """

    symbols: Mapping[str, int]
    inputs: tuple[str, ...]
    batch: int
    tokens: int | None
    assumed: tuple[str, ...]


Axis = tuple[str, int, Mapping[str, Any]]  # input, place, size as the file writes it


def resolve(
    program: Mapping[str, Any],
    batch: int | None,
    dims: Mapping[str, int],
    sequence: int | None,
    image: int | None,
) -> Sizes:
    """Give every symbol of the inputs a size, or say which one lacks it."""
    module = program["graph_module"]
    values = module["graph"]["tensor_values"]
    specs = (spec["user_input"]["arg"] for spec in module["signature"]["input_specs"] if "user_input" in spec)
    inputs = tuple(name for argument in specs for name in tensor_names(argument))
    axes = [(name, i, size) for name in inputs for i, size in enumerate(values[name]["sizes"])]
    symbols = _by_name(axes, dims)
    ids = {n for n in inputs if DTYPES.get(values[n]["dtype"]) in {"int32", "int64"}}
    first = [a for a in axes if a[1] == 0]
    second = [a for a in axes if a[1] == 1 and a[0] in ids and len(values[a[0]]["sizes"]) == 2]
    sides = [a for a in axes if a[1] >= 2 and len(values[a[0]]["sizes"]) == 4 and a[0] not in ids]
    for option, size, wanted in (
        ("the batch", batch, first),
        ("the sequence length", sequence, second),
        ("the image's side", image, sides),
    ):
        if size is not None:
            _set(option, size, wanted, symbols)
    hints = _hints(axes)
    assumed = [name for name in hints if name not in symbols]
    for name in assumed:
        symbols[name] = _hinted(name, hints[name])
    _check_range(program.get("range_constraints", {}), symbols)
    return Sizes(
        symbols=symbols,
        inputs=inputs,
        batch=next((_size(size, symbols) for _, _, size in first), 1),
        tokens=next((_size(size, symbols) for _, _, size in second), None),
        assumed=tuple(assumed),
    )


def _by_name(axes: list[Axis], dims: Mapping[str, int]) -> dict[str, int]:
    """Sizes given by name: the file's own (s0), or the place of an axis (ids[1])."""
    places = {f"{name}[{i}]": symbol for name, i, size in axes if (symbol := _symbol(size))}
    known = [*dict.fromkeys(places.values()), *places]
    symbols = {}
    for name, size in dims.items():
        if name not in known:
            listed = ", ".join(known) or "none"
            raise InputError(f"no input has an axis '{name}'{did_you_mean(name, known)}; known: {listed}")
        symbols[places.get(name, name)] = size
    return symbols


def _symbol(size: Mapping[str, Any]) -> str | None:
    """The symbol that an axis is, None for a number or a larger expression."""
    if "as_expr" not in size:
        return None
    names = symbols_in(size["as_expr"]["expr_str"])
    alone = len(names) == 1 and evaluate(size["as_expr"]["expr_str"], {names[0]: 7919}) == 7919
    return names[0] if alone else None


def _set(option: str, size: int, axes: Iterable[Axis], symbols: dict[str, int]) -> None:
    """Give the symbols of these axes a size; a fixed axis may only have that size already."""
    listed = list(axes)
    if size < 1:
        raise InputError(f"{option} is {size}; it has to be at least 1")
    if not listed:
        raise InputError(f"{option} {size} was given, but no input has such an axis; leave it away")
    found = [symbol for _, _, written in listed if (symbol := _symbol(written))]
    for symbol in found:
        symbols.setdefault(symbol, size)
    fixed = {(name, place): written["as_int"] for name, place, written in listed if "as_int" in written}
    if not found and fixed and size not in fixed.values():
        (name, place), stated = next(iter(fixed.items()))
        raise InputError(
            f"{option} {size} was asked for, but axis {place} of input '{name}' was exported with the fixed"
            f" size {stated}; export it with a dynamic axis (dynamic_shapes), or leave it away"
        )


def _hints(axes: list[Axis]) -> dict[str, Mapping[str, Any] | None]:
    """Every symbol of the inputs, with the size of the exported example where an axis is just that symbol."""
    hints: dict[str, Mapping[str, Any] | None] = {}
    for _, _, size in axes:
        if "as_expr" in size:
            alone = _symbol(size)
            for name in symbols_in(size["as_expr"]["expr_str"]):
                known = size["as_expr"].get("hint") if name == alone else None
                hints[name] = hints.get(name) or known
    return hints


def _hinted(name: str, hint: Mapping[str, Any] | None) -> int:
    if not hint or "as_int" not in hint:
        raise InputError(f"axis '{name}' has no size and the file gives no example; give it in dims")
    return int(hint["as_int"])


def _size(size: Mapping[str, Any], symbols: Mapping[str, int]) -> int:
    if "as_int" in size:
        return int(size["as_int"])
    return int(evaluate(size["as_expr"]["expr_str"], symbols))


def _check_range(ranges: Mapping[str, Any], symbols: Mapping[str, int]) -> None:
    """The sizes for which the program was exported; 0 and 1 are left to it, as the exporter does."""
    for name, size in symbols.items():
        limits = ranges.get(name) or {}
        low, high = limits.get("min_val") or 0, limits.get("max_val")
        high = math.inf if high is None or high > _UNBOUNDED else high
        if size > high or (size < low and low > 2):
            raise InputError(f"axis '{name}' is {size}; the program was exported for {low} to {high}")
