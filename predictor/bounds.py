"""What a figure of an accelerator can be at all: a figure outside is mostly a slip of the unit."""

from predictor.errors import InputError
from predictor.units import UNITS
from predictor.values import Sourced

# The least and most of chips since 2010 and of SRAM machines, with at least a
# factor of two to spare; a figure in the wrong multiple of its unit (a thousand times off) falls outside.
BOUNDS: dict[str, tuple[str, float, float]] = {
    "peak.fp64": ("TFLOP/s", 0.005, 500),
    "peak.fp64_matrix": ("TFLOP/s", 0.05, 500),
    "peak.fp32": ("TFLOP/s", 0.05, 1000),
    "peak.tf32": ("TFLOP/s", 0.5, 10_000),
    "peak.fp16": ("TFLOP/s", 0.02, 20_000),
    "peak.fp16_vector": ("TFLOP/s", 0.01, 2000),
    "peak.bf16": ("TFLOP/s", 0.02, 20_000),
    "peak.fp8": ("TFLOP/s", 1, 50_000),
    "peak.fp4": ("TFLOP/s", 1, 100_000),
    "peak.int8": ("TOP/s", 0.5, 50_000),
    "memory.capacity": ("GiB", 0.05, 16_384),
    "memory.bandwidth": ("GB/s", 5, 400_000),
    "cache.onchip": ("MB", 0.05, 4000),
    "compute_units": ("", 1, 50_000),
    "clock.boost": ("MHz", 100, 7000),
    "link.intranode": ("GB/s", 0.5, 10_000),
    "link.internode": ("Gbit/s", 0.1, 10_000),
    "power.limit": ("W", 1, 5000),
    "power.idle": ("W", 0.1, 1000),
    "die.process": ("nm", 1, 130),
    "die.area": ("mm2", 10, 50_000),
    "die.transistors": ("billion", 0.1, 2000),
    "price.launch": ("USD", 20, 200_000),
    "embodied": ("kgCO2e", 1, 20_000),
}
"""Figure of a profile -> (unit, least, most) of one device."""

# A wafer in one piece (Cerebras, 46 225 mm2) has as much of everything as the chips cut from one.
_WAFER_M2, _RETICLE_M2 = 20_000e-6, 850e-6
_NOT_OF_AREA = ("clock.boost", "die.process", "die.area")


def check_bounds(figures: dict[str, Sourced], where: str) -> None:
    """Refuse a figure, or an end of its range, that no device can have; InputError names file and key.

    figures  of one device by key of the profile, in base units
    """
    area = figures.get("die.area")
    chips = area.value / _RETICLE_M2 if area and area.value > _WAFER_M2 else 1.0
    for key, figure in figures.items():
        unit, least, most = BOUNDS[key]
        most *= 1.0 if key in _NOT_OF_AREA else chips
        low, high = (end / UNITS[unit][1] for end in (figure.low, figure.high))
        if not least <= low <= high <= most:
            found = f"{low:g} to {high:g}" if low < high else f"{low:g}"
            accepted = f"{least:g} to {most:g} {unit}".rstrip()
            raise InputError(
                f"{where}: {key}: {f'{found} {unit}'.rstrip()} is impossible, accepted: {accepted}"
            )
