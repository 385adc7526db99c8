"""Bounds of the rows that have forms of their own: matrix products, expert products, fused attention.

They enter the table of ``steps`` as seconds at the chip's middle rates, so that coefficients of their
families, draws of the chip and the fit treat every row alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from predictor.kernels import attention, experts, tiles
from predictor.kernels.chip import ChipRates
from predictor.kernels.classes import Class
from predictor.kernels.tiles import smooth_max
from predictor.ops import Kernel
from predictor.values import Array

_ELEMENT_BYTE = {"fp64": 8, "fp32": 4, "tf32": 4, "fp8": 1}
_LEAST_S = 1e-12


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds of rows with a form of their own [rows]; NaN elsewhere."""

    compute_s: Array
    memory_s: Array
    stream_s: Array


def bounds_of(
    kernels: Sequence[Kernel], classes: Sequence[Class], units: Sequence[str], peak: Array, chip: ChipRates
) -> Bounds:
    """Compute, memory and stream seconds of products, expert products and attention.

    units  arithmetic of every row: fp16, bf16, tf32, ...
    """
    found = Bounds(*(np.full(len(kernels), np.nan) for _ in range(3)))
    names = [c.family.rpartition("-")[0] for c in classes]
    size = np.array([_ELEMENT_BYTE.get(unit, 2) for unit in units], float)
    for name in ("linear", "batched", "experts"):
        at = np.array([i for i, family in enumerate(names) if family == name], int)
        if not len(at):
            continue
        g, m, n, k = (np.array([kernels[i].dims[side] for i in at], float) for side in range(4))
        form = experts.parts if name == "experts" else tiles.parts
        parts = form(g, m, n, k, size[at], np.maximum(size[at], 2), peak[at], chip)
        share = experts.training_share().value if name == "experts" else 1.0
        found.compute_s[at] = (
            smooth_max(chip.products.softness, parts.compute_s, parts.l2_s) + parts.extra_s
        ) / share
        found.memory_s[at] = parts.memory_s
        found.stream_s[at] = _LEAST_S
    at = np.array([i for i, family in enumerate(names) if family == "attention"], int)
    if len(at):
        _fused(kernels, classes, at, peak, chip, found)
    return found


def _fused(
    kernels: Sequence[Kernel],
    classes: Sequence[Class],
    at: Array,
    peak: Array,
    chip: ChipRates,
    found: Bounds,
) -> None:
    """Fill the rows of fused attention; the share of scores that the mask keeps follows from the flop."""
    heads, q, kv, d = (np.array([kernels[i].dims[side] for i in at], float) for side in range(4))
    back = np.array([classes[i].family.endswith("bwd") for i in at])
    flop = np.array([kernels[i].work.matrix_flop for i in at], float)
    full = np.where(back, 8.0, 4.0) * heads * q * kv * d
    kept = np.clip(flop / np.maximum(full, 1.0), 1e-3, 1.0)
    parts = attention.parts(heads, q, kv, d, kept, 1.0, back, peak[at], chip)
    found.compute_s[at] = parts.compute_s
    found.memory_s[at] = _LEAST_S
    found.stream_s[at] = parts.extra_s
