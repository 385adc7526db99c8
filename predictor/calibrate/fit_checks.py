"""Whether measurements can be those of a device: refused with the line, or used and said."""

from collections.abc import Sequence
from pathlib import Path

from predictor.calibrate.measurements import Measured
from predictor.errors import InputError
from predictor.profile import Accelerator, find_profile, fold

# Clocks above the datasheet's boost, and caches that hold what was meant to come from memory.
_MOST_OF_PEAK, _MOST_OF_BANDWIDTH = 1.3, 1.2
_LARGE_CACHES = 4.0
# A product of this size runs at some per cent of the peak on any device; far below, its unit is wrong.
_LARGE_FLOP, _LEAST_OF_PEAK = 3e10, 0.003
_MOST_OF_LIMIT, _MOST_OF_CLOCK = 2.0, 2.0
_OTHER_LIMIT = 0.07
_ANY_CACHE_BYTE = 8e6
_REPEATABLE = 0.15  # half of the 10 % to 90 % range over the median


def check(path: Path, rows: Sequence[Measured], accelerator: Accelerator) -> list[str]:
    """Sentences about what is unusual; InputError for what cannot be.

    Refused: rows of several devices, of another device than the profile's, and figures that no device of this
    profile can reach.
    """
    notes = _check_device(path, rows, accelerator)
    for row in rows:
        fault = _impossible(row, accelerator)
        if fault:
            raise InputError(
                f"{path}, line {row.line}: {row.key}: {fault}; times are in seconds, watts in W, clocks in "
                f"MHz. If the file is right, the profile is not: predictor hardware show {accelerator.id}"
            )
    _check_slow(path, rows, accelerator)
    return notes + _unusual(rows, accelerator)


def _check_device(path: Path, rows: Sequence[Measured], accelerator: Accelerator) -> list[str]:
    """Refuse rows of several devices, or of one that another profile has the name of; a name that no profile
    has is taken as that of this one, and said.
    """
    devices = sorted({row.device for row in rows})
    if len(devices) > 1:
        raise InputError(f"{path}: measured on several devices: {', '.join(devices)}; give one file for each")
    device = devices[0]
    if fold(device) in {fold(name) for name in (accelerator.id, accelerator.name, *accelerator.aliases)}:
        return []
    try:
        owner = find_profile(device).id
    except InputError:
        return [f"no profile has the name '{device}': taken as {accelerator.id}, as you say"]
    raise InputError(
        f"{path}: measured on '{device}', which is {owner}; the profile is that of {accelerator.id}\n"
        f"leave --hardware and --profile away, or give --hardware {owner}"
    )


def _impossible(row: Measured, accelerator: Accelerator) -> str:
    """What no such device can do; "" for a row that may be true."""
    flop, byte = row.kernel.work.matrix_flop, row.kernel.work.read_byte + row.kernel.work.write_byte
    peak = accelerator.peak_flop_per_s.get(row.unit)
    if row.unit == "fp32" and accelerator.kind != "gpu":
        peak = max(
            accelerator.peak_flop_per_s.values(), key=lambda p: p.value
        )  # fp32 products in another type
    if peak and flop / row.time_s > _MOST_OF_PEAK * peak.value:
        reached, most = flop / row.time_s / 1e12, peak.value / 1e12
        return f"{reached:.3g} TFLOP/s in {row.unit}, the profile's dense peak is {most:.3g}"
    wide = accelerator.memory_byte_per_s.value
    cache = accelerator.cache_byte.value if accelerator.cache_byte else _ANY_CACHE_BYTE
    # Convolutions and the like may reread less than the formula counts; copies cannot.
    streams = row.kind in {"copy", "elementwise"} and byte > _LARGE_CACHES * cache
    if streams and byte / row.time_s > _MOST_OF_BANDWIDTH * wide:
        return f"{byte / row.time_s / 1e9:.4g} GB/s, the profile's memory has {wide / 1e9:.4g}"
    limit, clock = accelerator.limit_w, accelerator.clock_hz
    if row.watts and limit and row.watts > _MOST_OF_LIMIT * limit.value:
        return f"{row.watts:.4g} W, the profile's limit is {limit.value:.4g}"
    if row.clock_hz and clock and row.clock_hz > _MOST_OF_CLOCK * clock.value:
        return f"a clock of {row.clock_hz / 1e6:.0f} MHz, the profile's boost is {clock.value / 1e6:.0f}"
    return ""


def _check_slow(path: Path, rows: Sequence[Measured], accelerator: Accelerator) -> None:
    """Refuse a file whose large products all run at a thousandth of the peak."""
    shares = [
        row.kernel.work.matrix_flop / row.time_s / accelerator.peak_flop_per_s[row.unit].value
        for row in rows
        if row.kind == "matmul"
        and row.kernel.work.matrix_flop > _LARGE_FLOP
        and row.unit in accelerator.peak_flop_per_s
    ]
    if shares and max(shares) < _LEAST_OF_PEAK:
        raise InputError(
            f"{path}: the best of {len(shares)} large products reaches {max(shares):.2%} of the profile's "
            "peak; time_s is in seconds, not in ms. If it is, compare the peak: "
            f"predictor hardware show {accelerator.id}"
        )


def _unusual(rows: Sequence[Measured], accelerator: Accelerator) -> list[str]:
    """What is used, and said."""
    notes = []
    limits = {row.limit_w for row in rows if row.limit_w}
    usual = accelerator.limit_w
    if limits and usual and any(abs(w / usual.value - 1) > _OTHER_LIMIT for w in limits):
        held = ", ".join(f"{w:.0f}" for w in sorted(limits))
        notes.append(
            f"measured at a power limit of {held} W, the profile's is {usual.value:.0f} W: long loops and "
            "power are those of that limit"
        )
    for name in ("driver", "torch", "runtime"):
        found = sorted({getattr(row, name) for row in rows} - {""})
        if len(found) > 1:
            notes.append(f"several versions of {name} in one file: {', '.join(found)}")
    loose = [row for row in rows if (row.high_s - row.low_s) / 2 > _REPEATABLE * row.time_s]
    if len(loose) > len(rows) / 4:
        notes.append(
            f"{len(loose)} of {len(rows)} rows vary by over {_REPEATABLE:.0%} between repeats: something "
            "else ran on the device; measure again alone"
        )
    return notes
