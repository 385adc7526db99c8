"""Where the shipped profiles, nodes and world tables differ from the source tables they were taken from.

    PREDICTOR_DATA=... python calibration/compare_sources.py [profiles] [nodes] [world]

People own the shipped files: this script reads both sides, prints every difference as a table and writes
nothing. A difference with a note beside our figure is one somebody decided on; those are printed apart. For
a key without a table (``accelerators_per_node``) the comment on its line is the note.
"""

import argparse
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compare_tables import (
    CLOSE,
    FIGURES,
    INSTANCE_FIGURES,
    NODE_FIGURES,
    POD_FIGURES,
    WORDS,
    Difference,
    read_rows,
    table,
)
from compare_world import world

from predictor.units import UNITS

ROOT = Path(__file__).resolve().parents[1]
PROFILES = ROOT / "hardware_profiles"

MARKETED = (0.93, 1.05)
"""What a driver reports over the marketed size in GiB: reserves and ECC take some."""


def dig(raw: dict[str, Any], key: str) -> Any:
    """What stands under a dotted key, None when nothing does."""
    found: Any = raw
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def in_unit(quantity: dict[str, Any], unit: str) -> float:
    """Our figure in the unit of their table."""
    return float(quantity["value"]) * UNITS[quantity.get("unit", "")][1] / UNITS[unit][1]


def figures(
    file: str, raw: dict[str, Any], row: dict[str, str], columns: dict[str, tuple[str, str]]
) -> Iterator[Difference]:
    """Every figure of ``columns`` that is missing on one side or not the same."""
    for key, (column, unit) in columns.items():
        quantity, theirs = dig(raw, key), row.get(column, "")
        if quantity is None:
            if theirs:
                yield Difference(file, key, "-", f"{theirs} {unit}")
            continue
        ours, note = in_unit(quantity, unit), quantity.get("note", "")
        if not theirs:
            yield Difference(file, key, f"{ours:g} {unit}", "-", note or f"added: {quantity['source']}")
        elif abs(ours - float(theirs)) > CLOSE * float(theirs):
            yield Difference(file, key, f"{ours:g} {unit}", f"{theirs} {unit}", note)


def words(file: str, text: str, raw: dict[str, Any], row: dict[str, str]) -> Iterator[Difference]:
    """Every word or bare number that is not the same; the comment on its line is the note."""
    for key, column in WORDS.items():
        ours, theirs = str(raw.get(key, "-")), row[column] or "-"
        if ours != theirs:
            comment = re.search(rf"^{key} = [^#\n]*#\s*(.*)$", text, re.MULTILINE)
            yield Difference(file, key, ours, theirs, comment[1] if comment else "")


def capacity(file: str, raw: dict[str, Any], row: dict[str, str]) -> Iterator[Difference]:
    """The memory: what the driver reports where their table has it, else about the marketed size."""
    quantity = raw["memory"]["capacity"]
    note = quantity.get("note", "")
    if reported := row["memory_reported_mib"]:
        ours = in_unit(quantity, "MiB")
        if ours != float(reported):
            yield Difference(file, "memory.capacity", f"{ours:g} MiB", f"{reported} MiB", note)
        return
    ours, label = in_unit(quantity, "GiB"), row["memory_gb"]
    if not label:
        yield Difference(file, "memory.capacity", f"{ours:.3g} GiB", "-", note)
    elif not MARKETED[0] <= ours / float(label) <= MARKETED[1]:
        yield Difference(file, "memory.capacity", f"{ours:.4g} GiB", f"{label} GB", note)


def statuses(file: str, raw: dict[str, Any], known: dict[str, str]) -> Iterator[Difference]:
    """Figures whose status is not the one their table gives the same cell."""
    for key, (column, _) in FIGURES.items():
        quantity = dig(raw, key)
        if quantity and column in known and quantity["status"] != known[column]:
            note = quantity.get("note", "")
            yield Difference(file, f"{key} status", quantity["status"], known[column], note)


def _figures_of(row: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Columns of a row; the kind of on-chip memory says when its size is binary."""
    unit = "MiB" if row["onchip_mem_kind"].endswith("(MiB)") else "MB"
    return FIGURES | {"cache.onchip": ("onchip_mem_mb", unit)}


def profiles(data: Path) -> Iterator[Difference]:
    """Shipped accelerators against ``accelerators.csv`` and its status table."""
    rows = {row["id"]: row for row in read_rows(data / "hardware" / "accelerators.csv")}
    known: dict[str, dict[str, str]] = {}
    for cell in read_rows(data / "hardware" / "accelerators_provenance.csv"):
        known.setdefault(cell["id"], {})[cell["column"]] = cell["status"]
    for id_ in sorted(rows):
        path = PROFILES / f"{id_}.toml"
        if not path.is_file():
            yield Difference(path.name, "file", "-", rows[id_]["name"])
            continue
        text = path.read_text(encoding="utf-8")
        raw = tomllib.loads(text)
        yield from words(path.name, text, raw, rows[id_])
        yield from figures(path.name, raw, rows[id_], _figures_of(rows[id_]))
        yield from capacity(path.name, raw, rows[id_])
        yield from statuses(path.name, raw, known[id_])


def node(id_: str, raw: dict[str, Any], row: dict[str, str]) -> Iterator[Difference]:
    """A server, rack or pod; a pod's host and network are those of the server it is made of."""
    yield from _who(id_, raw, raw, row)
    own = ("power", "price") if raw["kind"] == "pod" else ("inside", "between", "host", "power", "price")
    chosen = {key: column for key, column in NODE_FIGURES.items() if key.partition(".")[0] in own}
    yield from figures(f"{id_}.toml", raw, row, chosen)


def instance(
    id_: str, raw: dict[str, Any], size: dict[str, Any], row: dict[str, str]
) -> Iterator[Difference]:
    """One size of a cloud family: its own network, cores and memory, links of the family."""
    yield from _who(id_, raw, size, row)
    yield from figures(f"{id_}.toml {size['name']}", size, row, INSTANCE_FIGURES)
    chosen = {key: column for key, column in NODE_FIGURES.items() if key.startswith("inside.")}
    yield from figures(f"{id_}.toml", raw, row, chosen)


def _who(id_: str, raw: dict[str, Any], size: dict[str, Any], row: dict[str, str]) -> Iterator[Difference]:
    """Which accelerators and how many."""
    if raw["accelerator"] != row["accelerator_id"]:
        yield Difference(f"{id_}.toml", "accelerator", raw["accelerator"], row["accelerator_id"])
    if float(size["accelerators"]) != float(row["accelerators_per_node"]):
        ours = f"{size['accelerators']:g}"
        yield Difference(f"{id_}.toml", "accelerators", ours, row["accelerators_per_node"])


def nodes(data: Path) -> Iterator[Difference]:
    """Shipped nodes, instances and pods against ``nodes.csv`` and ``topology.csv``."""
    raws = {p.stem: tomllib.loads(p.read_text(encoding="utf-8")) for p in PROFILES.glob("nodes/[!_]*.toml")}
    if not raws:
        return
    instances = {
        size["name"].partition(":")[2].removeprefix("Standard_").casefold(): (id_, size)
        for id_, raw in raws.items()
        for size in raw.get("instance", [])
    }
    for row in read_rows(data / "hardware" / "nodes.csv"):
        if row["id"] in raws:
            yield from node(row["id"], raws[row["id"]], row)
        elif row["name"].casefold() in instances:
            id_, size = instances[row["name"].casefold()]
            yield from instance(id_, raws[id_], size, row)
        else:
            yield Difference(f"{row['id']}.toml", "file", "-", row["name"])
    pods = {
        (raw["accelerator"], raw["accelerators"]): id_ for id_, raw in raws.items() if raw["kind"] == "pod"
    }
    for row in read_rows(data / "hardware" / "topology.csv"):
        found = pods.get((row["accelerator_id"], int(row["max_accelerators"] or 0)))
        if found:
            yield from figures(f"{found}.toml", raws[found], row, POD_FIGURES)


def main() -> int:
    """Print the differences nobody explained, then those with a note."""
    parts = {"profiles": profiles, "nodes": nodes, "world": world}
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", nargs="*", help=f"{', '.join(parts)}; all when left away")
    chosen = parser.parse_args().part or list(parts)
    if unknown := set(chosen) - set(parts):
        parser.error(f"unknown part {', '.join(sorted(unknown))}: {', '.join(parts)}")
    if "PREDICTOR_DATA" not in os.environ:
        print("PREDICTOR_DATA is not set: give the folder of the source tables", file=sys.stderr)
        return 2
    data = Path(os.environ["PREDICTOR_DATA"])
    found = [d for part in chosen for d in parts[part](data)]
    if "profiles" in chosen:
        rows = {row["id"] for row in read_rows(data / "hardware" / "accelerators.csv")}
        shipped = {path.stem for path in PROFILES.glob("[!_]*.toml")}
        print(
            f"{len(rows & shipped)} of {len(rows)} accelerators are shipped; "
            f"{len(shipped - rows)} profiles have no row.\n"
        )
    for title, group in (
        ("Without a note", [d for d in found if not d.note]),
        ("Explained by a note", [d for d in found if d.note]),
    ):
        print("\n".join([f"## {title}: {len(group)}", "", *table(group), ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
