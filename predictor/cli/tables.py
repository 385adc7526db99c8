"""Facts as aligned text or as JSON: the same keys and the same figures in both."""

import json
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from predictor.values import Sourced

WIDTH = 100
"""Columns of a table for people [characters]."""

Facts = dict[str, Any]
"""Facts by their JSON key, which carries the unit; ``figures`` and ``notes`` are lists of their own."""


def plain_table(
    headers: tuple[str, ...], rows: Sequence[tuple[str, ...]], right: frozenset[int] = frozenset()
) -> str:
    """Columns aligned with spaces, one line a row; ``right`` are the columns of numbers."""
    widths = [max(len(row[column]) for row in (headers, *rows)) for column in range(len(headers))]
    lines = []
    for row in (headers, tuple("-" * width for width in widths), *rows):
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def in_unit(number: "Sourced | None", unit: str) -> float | None:
    """The middle in ``unit``, to the digits that its source can mean."""
    from predictor.units import UNITS

    return None if number is None else float(f"{number.value / UNITS[unit][1]:.6g}")


def figure(name: str, number: "Sourced", unit: str) -> Facts:
    """One sourced value in ``unit``."""
    from predictor.units import UNITS

    value, low, high = (float(f"{x / UNITS[unit][1]:.6g}") for x in (number.value, number.low, number.high))
    return {
        "name": name,
        "value": value,
        "low": low,
        "high": high,
        "unit": unit,
        "status": number.status,
        "as_of": number.as_of,
        "source": number.source,
    }


def lists(tables: dict[str, list[Facts]], form: str) -> str:
    """Tables one under the other, those without rows left out."""
    if form == "json":
        return json.dumps(tables, indent=2, ensure_ascii=False)
    return "\n\n".join(_facts_table(rows) for rows in tables.values() if rows)


def _facts_table(rows: Sequence[Facts]) -> str:
    """One row per thing; the keys are the headings."""
    keys = tuple(rows[0])
    right = frozenset(i for i, key in enumerate(keys) if any(_is_number(row[key]) for row in rows))
    return plain_table(keys, [tuple(_word(row[key]) for key in keys) for row in rows], right)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value)
    return "-" if value in (None, "") else f"{value:g}" if isinstance(value, float) else str(value)


def shown(facts: Facts, form: str) -> str:
    """One thing: its facts, its figures with their sources, its notes."""
    if form == "json":
        return json.dumps(facts, indent=2, ensure_ascii=False)
    shared, figures = _shared_origin(facts["figures"])
    figures, sources = _numbered(figures)
    plain = {key: value for key, value in facts.items() if key not in {"figures", "notes"}} | shared
    lines = _aligned({key.replace("_", " "): _word(value) for key, value in plain.items()})
    if figures:
        lines += ["", _facts_table([_with_range(figure) for figure in figures])]
    if sources:
        lines += ["", *(f"[{number}] {source}" for number, source in enumerate(sources, 1))]
    if facts.get("notes"):
        lines += ["", *(f"note: {note}" for note in facts["notes"])]
    return "\n".join(lines)


def _aligned(facts: dict[str, str]) -> list[str]:
    """One fact a line under the other, long ones folded behind their name."""
    names = max(map(len, facts))
    lines = []
    for name, value in facts.items():
        first, *rest = textwrap.wrap(value, WIDTH - names - 2, break_on_hyphens=False) or [""]
        lines += [f"{name:{names}}  {first}", *(" " * (names + 2) + line for line in rest)]
    return lines


def _numbered(figures: list[Facts]) -> tuple[list[Facts], list[str]]:
    """Figures that point to their source by a number, and the sources, which are too long for a table."""
    sources = list(dict.fromkeys(figure["source"] for figure in figures if "source" in figure))
    return [
        {**figure, "source": f"[{sources.index(figure['source']) + 1}]"} if "source" in figure else figure
        for figure in figures
    ], sources


def _shared_origin(figures: list[Facts]) -> tuple[Facts, list[Facts]]:
    """Status, date and source said once when all figures have the same, and the figures without them."""
    origin = ("status", "as_of", "source")
    if len({tuple(figure[key] for key in origin) for figure in figures}) != 1:
        return {}, figures
    rest = [{key: value for key, value in figure.items() if key not in origin} for figure in figures]
    return {key: figures[0][key] for key in origin}, rest


def _with_range(figure: Facts) -> Facts:
    """A figure with its range as one column."""
    certain = figure["low"] == figure["value"] == figure["high"]
    kept = {key: value for key, value in figure.items() if key not in {"low", "high"}}
    span = None if certain else f"{figure['low']:g} to {figure['high']:g}"
    return {"name": kept.pop("name"), "value": kept.pop("value"), "range": span, **kept}
