"""Measured collectives inside and between nodes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from predictor.calibrate.case import Read, Refused, RowError
from predictor.calibrate.kernel_tables import Columns, from_rows
from predictor.calibrate.readers.format import Format
from predictor.calibrate.readers.kernels import groups, system_of
from predictor.calibrate.rows import Row

_BYTES = {"half": 2.0, "int8": 1.0}
_KINDS = {"alltoall": "all_to_all"}
# Vidur's machines: profile and how their cards are joined.
_VIDUR = {
    "a100_dgx": ("nvidia-a100-sxm4-80gb", "switch"),
    "h100_dgx": ("nvidia-h100-sxm5-80gb", "switch"),
}
_VTRAIN = {"A100": ("nvidia-a100-sxm4-40gb", "switch"), "V100": ("nvidia-v100-sxm2-32gb", "mesh")}


def messages(path: Path, rows: Sequence[Row]) -> Iterator[Read]:
    """AIConfigurator: elements of the total buffer, as nccl-tests counts them."""
    source = "aiconfigurator collectives"
    try:
        accelerator = system_of(path)
    except RowError as error:
        yield Refused(source, path.name, error.code, error.detail, len(rows))
        return
    found = from_rows(rows, ["num_gpus", "message_elems", "latency_ms"], ["op", "dtype", "lib"])
    size = np.array([_BYTES.get(str(dtype), np.nan) for dtype in found.text["dtype"]])
    kinds = np.array([_KINDS.get(str(op), str(op)) for op in found.text["op"]])
    number = {
        "ranks": found["num_gpus"],
        "byte": found["message_elems"] * size,
        "latency_ms": found["latency_ms"],
    }
    columns = Columns(number, {"op": kinds}, found.rows)
    link = "pcie" if "rtx" in path.name or "b60" in path.name or "l40s" in path.name else "switch"
    yield from groups(path, source, "collectives", columns, ["op"], {"link": link}, accelerator)


def pairs(path: Path, rows: Sequence[Row]) -> Iterator[Read]:
    """Vidur: rings of one node; those that cross nodes, or cards joined in pairs, have no stated links."""
    source = "vidur collectives"
    found = from_rows(rows, ["num_workers", "devices_per_node", "bytes", "latency_ms"], ["system", "op"])
    inside = found["num_workers"] == found["devices_per_node"]
    for system in dict.fromkeys(found.text["system"]):
        mine = found.text["system"] == system
        known = _VIDUR.get(str(system))
        if known is None:
            yield Refused(source, path.name, "links", f"{system}: rates of its links", int(mine.sum()))
            continue
        if (mine & ~inside).any():
            yield Refused(source, path.name, "links", "between nodes", int((mine & ~inside).sum()))
        part = found.where(mine & inside)
        number = {"ranks": part["num_workers"], "byte": part["bytes"], "latency_ms": part["latency_ms"]}
        columns = Columns(number, {"op": part.text["op"]}, part.rows)
        yield from groups(path, source, "collectives", columns, ["op"], {"link": known[1]}, known[0])


def sums(path: Path, rows: Sequence[Row]) -> Iterator[Read]:
    """vTrain: all-reduce of one node, every MiB."""
    source = "vtrain collectives"
    found = from_rows(rows, ["num_gpus", "bytes", "out_of_place_us"], ["device"])
    number = {
        "ranks": found["num_gpus"],
        "byte": found["bytes"],
        "latency_ms": found["out_of_place_us"] / 1e3,
    }
    columns = Columns(number, found.text, found.rows)
    for device, (accelerator, link) in _VTRAIN.items():
        mine = columns.where(columns.text["device"] == device)
        how = {"link": link, "op": "all_reduce"}
        yield from groups(path, source, "collectives", mine, [], how, accelerator)


FORMATS = (
    Format(
        "aiconfigurator collectives",
        frozenset("lib op dtype num_gpus message_elems latency_ms".split()),
        messages,
    ),
    Format(
        "vidur collectives",
        frozenset("system op num_workers devices_per_node bytes latency_ms".split()),
        pairs,
    ),
    Format("vtrain collectives", frozenset("device num_gpus bytes out_of_place_us".split()), sums),
)
