"""TPU slices as Google writes them: ``v3-8`` counts TensorCores, ``v5litepod-8`` counts chips.

Source: Google Cloud TPU documentation, the pages of v2 to v6e, 2025 (the v5p page lists 2x2x1 as 8 cores, 4
chips; v2, v3 and v4 from memory).
"""

import re
from dataclasses import dataclass

from predictor.errors import InputError

_CORES = {"v2": 2, "v3": 2, "v4": 2, "v5p": 2, "v5litepod": 1, "v5e": 1, "v6e": 1}
"""TensorCores of a chip: what the number in a slice's name counts."""


@dataclass(frozen=True, slots=True)
class TpuSlice:
    """Chips of one slice, and what the number in its name counts."""

    accelerator: str
    chips: int
    counts: str


def read_slice(name: str) -> TpuSlice | None:
    """The slice with this name; None when it is none. InputError: cores that fill no whole chips.

    >>> read_slice("v3-8")
    TpuSlice(accelerator='tpu-v3', chips=4, counts='TensorCores, 2 a chip')
    >>> read_slice("v5litepod-8").chips
    8
    """
    match = re.fullmatch(r"(?:tpu[\s_-]?)?(v2|v3|v4|v5p|v5litepod|v5e|v6e)-(\d+)", name.strip().lower())
    if match is None:
        return None
    generation, number = match[1], int(match[2])
    cores = _CORES[generation]
    if number < 1 or number % cores:
        what, chips = "TensorCores, 2 a chip" if cores > 1 else "chips", max(number, 1)
        raise InputError(
            f"'{name}' counts {what}: {number} is no whole number of chips; "
            f"for {chips} chips write '{chips}x {_accelerator(generation)}'"
        )
    return TpuSlice(
        accelerator=_accelerator(generation),
        chips=number // cores,
        counts=f"TensorCores, {cores} a chip" if cores > 1 else "chips",
    )


def _accelerator(generation: str) -> str:
    return "tpu-v5e" if generation == "v5litepod" else f"tpu-{generation}"
