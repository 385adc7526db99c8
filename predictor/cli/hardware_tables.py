"""Accelerators and nodes as rows of a list, as all facts about one, and side by side."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from predictor.cli.catalog import written
from predictor.cli.tables import Facts, figure, in_unit, lists, plain_table

if TYPE_CHECKING:
    from predictor.accelerator import Accelerator
    from predictor.machine import Node

_HEADINGS = ("id", "kind", "TFLOP/s", "GiB", "GB/s", "W", "released", "trains", "status")
_LEGEND = "TFLOP/s: dense bf16, else fp16, with fp32 accumulation; ~ fp32, of cards without either"


def listed(
    accelerators: "Iterable[Accelerator]", nodes: "Iterable[Node]", form: str, in_full: bool = True
) -> str:
    """Tables of accelerators and nodes, one row each, in at most 100 columns.

    Nodes beside accelerators are only counted in a table that is not ``in_full``.
    """
    from predictor.profile import own_profiles, own_profiles_dir

    own = own_profiles()
    rows = [_accelerator_row(a, a.id in own) for a in accelerators]
    others = [_node_row(n) for n in nodes]
    if form == "json":
        return lists({"accelerators": rows, "nodes": others}, form)
    parts = []
    if rows:
        parts += [plain_table(_HEADINGS, [_cells(row) for row in rows], frozenset({2, 3, 4, 5})), _LEGEND]
    if any(row["own"] for row in rows):
        parts.append(f"* your own profile, in {own_profiles_dir()}")
    if rows and others and not in_full:
        parts.append(f"{len(others)} nodes and cloud instances: predictor hardware list --kind node")
    elif others:
        parts.append(lists({"nodes": [_node_cells(row) for row in others]}, form))
    return "\n\n".join(parts)


def _accelerator_row(accelerator: "Accelerator", own: bool) -> Facts:
    peaks = accelerator.peak_flop_per_s
    return {
        "id": accelerator.id,
        "name": accelerator.name,
        "vendor": accelerator.vendor,
        "kind": accelerator.kind,
        "tflop_per_s_16bit": in_unit(peaks.get("bf16") or peaks.get("fp16"), "TFLOP/s"),
        "tflop_per_s_fp32": in_unit(peaks.get("fp32"), "TFLOP/s"),
        "memory_gib": in_unit(accelerator.memory_byte, "GiB"),
        "memory_gb_per_s": in_unit(accelerator.bandwidth_byte_per_s, "GB/s"),
        "limit_w": in_unit(accelerator.limit_w, "W"),
        "released": accelerator.release_date,
        "trains": accelerator.training,
        "status": accelerator.status,
        "own": own,
    }


def _cells(row: Facts) -> tuple[str, ...]:
    """A row of the list for people, in at most 100 columns."""
    half, single = row["tflop_per_s_16bit"], row["tflop_per_s_fp32"]
    peak = _short(half) if half else f"~{_short(single)}" if single else "-"
    sizes = (_short(row[key]) for key in ("memory_gib", "memory_gb_per_s", "limit_w"))
    trains = "yes" if row["trains"] else "no"
    id_ = row["id"] + ("*" if row["own"] else "")
    return (id_, row["kind"], peak, *sizes, row["released"][:7], trains, row["status"].removesuffix("-only"))


def _short(number: float | None) -> str:
    """At most six characters: four digits, three below 1, up to five before the point.

    >>> _short(79.648), _short(0.07451), _short(23000.0), _short(2.1e7), _short(None)
    ('79.65', '0.0745', '23000', '2.1e7', '-')
    """
    if number is None:
        return "-"
    if number >= 1e5:
        return f"{number:.2g}".replace("e+0", "e")
    return f"{number:.0f}" if number >= 1000 else f"{number:.4g}" if number >= 1 else f"{number:.3g}"


def _node_row(node: "Node") -> Facts:
    return {
        "id": node.id,
        "names": list(node.names),
        "kind": node.kind,
        "accelerator": node.accelerator,
        "per_node": node.per_node,
        "network_gbit_per_s": in_unit(node.internode_byte_per_s, "Gbit/s"),
    }


def _node_cells(row: Facts) -> Facts:
    """A node's row for people: an instance goes by the name its cloud gives it."""
    name = row["names"][0] if row["kind"] == "instance" else row["id"]
    return {
        "node": name,
        "kind": row["kind"],
        "accelerator": row["accelerator"],
        "count": row["per_node"],
        "Gbit/s": row["network_gbit_per_s"],
    }


def facts_of(found: "Accelerator | Node") -> Facts:
    """Everything about one, as ``tables.shown`` takes it."""
    from predictor.accelerator import Accelerator

    return _accelerator(found) if isinstance(found, Accelerator) else _node(found)


def _accelerator(accelerator: "Accelerator") -> Facts:
    from predictor.accelerator import quantities
    from predictor.profile import own_profiles
    from predictor.rent import find_price

    figures = [figure(name, number, unit) for name, number, unit in quantities(accelerator)]
    rent = find_price(accelerator.id)
    if rent:
        figures.append(figure("rent, on demand", rent, "USD/h"))
    own = own_profiles().get(accelerator.id)
    choices = [f"{key}: {why}" for key, why in accelerator.choices.items()]
    if accelerator.lacks:
        choices.append(f"cannot be priced: the profile lacks {' and '.join(accelerator.lacks)}")
    return {
        "id": accelerator.id,
        "name": accelerator.name,
        "aliases": list(accelerator.aliases),
        "vendor": accelerator.vendor,
        "architecture": accelerator.architecture,
        "kind": accelerator.kind,
        "released": accelerator.release_date,
        "trains": accelerator.training,
        "status": accelerator.status,
        "per_node": accelerator.per_node,
        **{key: text for key, text in _texts(accelerator).items() if text},
        **({"own_profile": str(own)} if own else {}),
        "figures": figures,
        "notes": [*written(accelerator.notes), *choices],
    }


def _texts(accelerator: "Accelerator") -> dict[str, str]:
    return {
        "training_note": accelerator.training_note,
        "form_factor": accelerator.form_factor,
        "memory_type": accelerator.memory_type,
        "cache_kind": accelerator.cache_kind,
        "compute_unit_kind": accelerator.compute_unit_kind,
        "link_kind": accelerator.link_kind,
        "accumulate": accelerator.accumulate,
        "sparsity": accelerator.sparsity,
    }


def _node(node: "Node") -> Facts:
    from predictor.machine import node_quantities

    return {
        "id": node.id,
        "name": node.name,
        "names": list(node.names),
        "vendor": node.vendor,
        "kind": node.kind,
        "accelerator": node.accelerator,
        "per_node": node.per_node,
        "power_as_in": node.power_of or None,
        "host_cpu": node.cpu or None,
        "links": node.topology or None,
        "network": node.network or None,
        "fabric": node.fabric or None,
        "figures": [figure(name, number, unit) for name, number, unit in node_quantities(node)],
        "notes": written(node.notes),
    }


_WORDS: dict[str, Callable[["Accelerator"], str]] = {
    "architecture": lambda a: a.architecture,
    "released": lambda a: a.release_date,
    "trains": lambda a: "yes" if a.training else "no",
    "form factor": lambda a: a.form_factor or "-",
    "memory type": lambda a: a.memory_type or "-",
    "link": lambda a: a.link_kind or "-",
}


def compared(accelerators: list["Accelerator"], form: str) -> str:
    """Side by side: words, then every figure that one of them has."""
    from predictor.accelerator import quantities

    columns = [{name: (number, unit) for name, number, unit in quantities(a)} for a in accelerators]
    names = list(dict.fromkeys(name for column in columns for name in column))
    units = {name: unit for column in columns for name, (_, unit) in column.items()}
    figures: list[Facts] = []
    for name in names:
        values = [in_unit(column[name][0], units[name]) if name in column else None for column in columns]
        first = values[0]
        ratios = [value / first if value is not None and first else None for value in values]
        figures.append({"name": name, "unit": units[name], "values": values, "ratios": ratios})
    if form == "json":
        words = [{"id": a.id, **{name: word(a) for name, word in _WORDS.items()}} for a in accelerators]
        return lists({"accelerators": words, "figures": figures}, form)
    headings = ("", "unit", *_short_ids([a.id for a in accelerators]))
    rows = [(name, "", *(word(a) for a in accelerators)) for name, word in _WORDS.items()]
    rows += [(row["name"], row["unit"], *_beside(row["values"], row["ratios"])) for row in figures]
    return plain_table(headings, rows)


def _beside(values: list[float | None], ratios: list[float | None]) -> Iterable[str]:
    """The first value alone, the others with their ratio to it."""
    for column, (value, ratio) in enumerate(zip(values, ratios, strict=True)):
        yield f"{_short(value)} ({ratio:.3g}x)" if column and ratio is not None else _short(value)


def _short_ids(ids: list[str]) -> list[str]:
    """Ids without their maker, where they stay apart.

    >>> _short_ids(["nvidia-l4", "nvidia-t4"]), _short_ids(["acme-x1", "emca-x1"])
    (['l4', 't4'], ['acme-x1', 'emca-x1'])
    """
    short = [id_.partition("-")[2] or id_ for id_ in ids]
    return short if len(set(short)) == len(ids) else ids
