"""The file that ``calibrate measure`` writes: one measurement a row, in base units, and how it is read back.

A kernel is written as ``ops.Kernel`` counts it, so that any form can be fitted to the file later without
knowing which call made it.
"""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from predictor.calibrate.rows import read_rows
from predictor.errors import InputError
from predictor.ir import Work
from predictor.ops import Kernel

SCHEMA = "1"
COLUMNS: dict[str, str] = {
    "schema": "version of these columns",
    "key": "name of the measurement, unique in the file",
    "kind": "matmul, conv, attention, elementwise, copy, reduce, norm, softmax, optimizer, launch, "
    "collective, sustained",
    "op": "operator as PyTorch names it",
    "kernel": "kind of kernel, as the formulas name it",
    "phase": "forward, backward or optimizer",
    "unit": "arithmetic: fp32, tf32, fp16, bf16, fp8",
    "family": "class of convolution and the like, as the formulas name it; may be empty",
    "g": "independent products, 0 without one; processes of a collective",
    "m": "rows of one product's result; processes of a collective on one node",
    "n": "columns of it",
    "k": "length of the sum",
    "window": "side of a convolution's window",
    "stride": "its stride",
    "line": "elements that are summed together",
    "last": "1 where images lie with channels last",
    "matrix_flop": "flop of products, a multiply-add is 2",
    "recompute_flop": "flop that a fused kernel repeats",
    "vector_flop": "elementwise flop",
    "read_byte": "bytes read at least",
    "write_byte": "bytes written at least",
    "time_s": "median seconds of one call; empty where it could not run",
    "low_s": "10th percentile of the repeats",
    "high_s": "90th percentile",
    "repeats": "timed batches",
    "calls": "calls in each batch",
    "method": "graph (replayed), queue (launched one by one), single (one call between synchronisations)",
    "cold": "1 where inputs took turns, so that the last cache did not hold them",
    "watts": "mean board power while it ran",
    "clock_mhz": "mean clock of the processors",
    "memory_clock_mhz": "mean clock of the memory",
    "celsius": "highest temperature",
    "limit_w": "power limit that was set",
    "device": "as the driver names it",
    "driver": "its version",
    "torch": "version of PyTorch",
    "runtime": "CUDA, ROCm or none, with version",
    "taken_at": "UTC",
    "note": "why there is no time, or what was special",
}
_WHOLE = ("g", "m", "n", "k", "window", "stride", "line")
_FLOP = ("matrix_flop", "recompute_flop", "vector_flop", "read_byte", "write_byte")
_TIMES = ("time_s", "low_s", "high_s")
_OPTIONAL = ("watts", "clock_mhz", "memory_clock_mhz", "celsius", "limit_w")
DTYPES = {
    "fp64": "float64",
    "fp32": "float32",
    "tf32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp8": "float8",
}


def steps_path(path: Path) -> Path:
    """Where the whole steps of a file's device are: ``x1.csv`` -> ``x1.steps.csv``."""
    return path.with_name(f"{path.stem}.steps.csv")


@dataclass(frozen=True, slots=True)
class Measured:
    """One row that was read and checked; ``line`` is where it stands in its file, None where not measured."""

    line: int
    key: str
    kind: str
    phase: str
    unit: str
    kernel: Kernel
    time_s: float
    low_s: float
    high_s: float
    cold: bool
    watts: float | None
    clock_hz: float | None
    limit_w: float | None
    device: str
    driver: str
    torch: str
    runtime: str
    note: str


def kernel_cells(kernel: Kernel) -> dict[str, object]:
    """A kernel as cells of a row."""
    work = kernel.work
    g, m, n, k = kernel.dims
    return {
        **{
            "kernel": kernel.kind,
            "family": kernel.family,
            "g": g,
            "m": m,
            "n": n,
            "k": k,
            "window": kernel.window,
        },
        **{"stride": kernel.stride, "line": kernel.line, "last": int(kernel.last)},
        **{name: getattr(work, name) for name in _FLOP},
    }


def read_measurements(path: Path) -> tuple[list[Measured], int]:
    """Rows with a time, in the order of the file, and how many rows hold none.

    Raises InputError, with the line: a missing column, another version, a cell that is no number, a time that
    is not positive and finite, a low above a high, a key that comes twice, no row with a time.
    """
    header, rows = read_rows(path)
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise InputError(
            f"{path}: {'these columns are' if len(missing) > 1 else 'a column is'} missing: "
            f"{', '.join(missing)}; write the file with: predictor calibrate measure -o FILE.csv"
        )
    timed = [(line, row) for line, row in enumerate(rows, 2) if row["time_s"].strip()]
    found = [_measured(path, line, row) for line, row in timed]
    if not found:
        raise InputError(f"{path}: no row holds a time; run: predictor calibrate measure")
    lines: dict[str, int] = {}
    for each in found:
        first = lines.setdefault(each.key, each.line)
        if first != each.line:
            raise InputError(f"{path}, line {each.line}: '{each.key}' was measured in line {first} already")
    return found, len(rows) - len(found)


def _measured(path: Path, line: int, row: Mapping[str, str]) -> Measured:
    place = f"{path}, line {line}"
    if row["schema"] != SCHEMA:
        raise InputError(f"{place}: columns of version '{row['schema']}', this program reads {SCHEMA}")
    if row["unit"] not in DTYPES:
        raise InputError(f"{place}: unit '{row['unit']}' is none of {', '.join(DTYPES)}")
    whole = {name: round(_number(place, row, name, least=0.0)) for name in (*_WHOLE, *_FLOP, "last")}
    time_s, low_s, high_s = (_positive(place, row, name) for name in _TIMES)
    if not low_s <= time_s <= high_s:
        raise InputError(f"{place}: low_s <= time_s <= high_s does not hold: {low_s}, {time_s}, {high_s}")
    extra = {name: _positive(place, row, name) if row[name].strip() else None for name in _OPTIONAL}
    clock = extra["clock_mhz"]
    kernel = Kernel(
        kind=row["kernel"],
        work=Work(**{name: whole[name] for name in _FLOP}),
        dtype=DTYPES[row["unit"]],
        dims=(whole["g"], whole["m"], whole["n"], whole["k"]),
        family=row["family"],
        window=whole["window"],
        stride=whole["stride"],
        line=whole["line"],
        last=bool(whole["last"]),
    )
    return Measured(
        line=line,
        key=row["key"],
        kind=row["kind"],
        phase=row["phase"],
        unit=row["unit"],
        kernel=kernel,
        time_s=time_s,
        low_s=low_s,
        high_s=high_s,
        cold=row["cold"] == "1",
        watts=extra["watts"],
        clock_hz=None if clock is None else clock * 1e6,
        limit_w=extra["limit_w"],
        device=row["device"],
        driver=row["driver"],
        torch=row["torch"],
        runtime=row["runtime"],
        note=row["note"],
    )


def _number(place: str, row: Mapping[str, str], name: str, least: float) -> float:
    """A finite number of at least ``least``; InputError names the cell."""
    try:
        value = float(row[name])
    except ValueError:
        raise InputError(f"{place}: {name} is '{row[name]}', a number is needed") from None
    if not math.isfinite(value) or value < least:
        raise InputError(f"{place}: {name} is {row[name]}; finite and at least {least:g} is accepted")
    return value


def _positive(place: str, row: Mapping[str, str], name: str) -> float:
    value = _number(place, row, name, least=0.0)
    if value <= 0:
        raise InputError(f"{place}: {name} is {row[name]}, it must be above 0 (base units: s, W, MHz)")
    return value


class Journal:
    """A file that grows by one row a time, so that a run that is cut short can go on.

    Raises InputError when the file there has other columns or is of another device.
    """

    def __init__(self, path: Path, columns: tuple[str, ...], device: str) -> None:
        self.path, self.columns, self.done = path, columns, set[str]()
        if path.exists() and path.stat().st_size:
            if tuple(read_rows(path)[0]) != columns:
                raise InputError(f"{path}: is no file of this command; give another name with -o")
            _end_line(path)
            _, rows = read_rows(path)
            others = sorted({row["device"] for row in rows} - {device})
            if others:
                raise InputError(
                    f"{path}: holds measurements of '{others[0]}', this device is '{device}'; "
                    "give another name with -o"
                )
            self.done = {row["key"] for row in rows}
        else:
            with path.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerow(columns)

    def add(self, row: Mapping[str, object]) -> None:
        """Append one row, written through to the disk."""
        assert set(row) <= set(self.columns), set(row) - set(self.columns)
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self.columns, restval="", lineterminator="\n").writerow(row)
        self.done.add(str(row["key"]))


def _end_line(path: Path) -> None:
    """Drop a last line that a run cut short did not finish."""
    text = path.read_bytes()
    if not text.endswith(b"\n"):
        path.write_bytes(text[: text.rfind(b"\n") + 1])
