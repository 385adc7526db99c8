"""What the tile form misses, on a lattice of measured sides; fades to zero away from it.

    correction = sum(weight r)/(sum(weight) + calm),  weight = exp(-(distance/width)^2/2)

over the nearest sides of the lattice, where r = ln((measured - t0)/(form - t0)). Two products are near when
their sides are, and also how far they fill their tiles and their last wave: 513 rows are not near 512.
A fitted chip has its own lattice; another of its generation takes the mean of theirs.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from predictor.values import Array

# Scales of ln m, ln n, ln k, ln(fill of a tile) and ln(fill of the last wave); width and calm of the weights.
SCALES = (4.0, 4.0, 0.7, 2.0, 2.0)
WIDTH, CALM = 0.15, 0.2
UNKNOWN = -128  # in the stored bytes, where nothing was measured
STEP = 0.004  # of ln, one stored unit
_NEAR = (4, 2, 3)  # sides tried along m, n, k


@dataclass(frozen=True, slots=True)
class Lattice:
    """Residuals [m, n, k] in natural logarithms at these sides, nan where nothing was measured.

    units  processors of the chip they were measured on
    """

    m: Array
    n: Array
    k: Array
    value: Array
    units: float


def position(m: Array, n: Array, k: Array, units: float) -> tuple[Array, ...]:
    """Where products lie: scaled logarithms of sides and fills."""
    tiles = np.ceil(m / 256) * np.ceil(n / 128) / units
    wave = np.where(tiles > 1, tiles / np.ceil(tiles), 1.0)
    fill = m / (128 * np.ceil(m / 128))
    return tuple(s * np.log(x) for s, x in zip(SCALES, (m, n, k, fill, wave), strict=True))


def correction(found: Lattice, m: Array, n: Array, k: Array, units: float) -> Array:
    """ln of what the form's time is multiplied by [rows]."""
    here = position(m, n, k, units)
    total, weights = np.zeros(len(m)), np.full(len(m), CALM)
    near = (
        _nearest(side, x, c) for side, x, c in zip((found.m, found.n, found.k), (m, n, k), _NEAR, strict=True)
    )
    for i, j, h in product(*near):
        there = position(found.m[i], found.n[j], found.k[h], found.units)
        distance = sum((a - b) ** 2 for a, b in zip(here, there, strict=True))
        value = found.value[i, j, h]
        weight = np.where(np.isnan(value), 0.0, np.exp(-distance / (2 * WIDTH**2)))
        total += weight * np.nan_to_num(value)
        weights += weight
    return np.asarray(total / weights)


def _nearest(sides: Array, x: Array, count: int) -> list[Any]:
    """Places of the ``count`` sides around each x, as ``count`` arrays [rows]."""
    first = np.searchsorted(np.log(sides), np.log(x)) - count // 2
    first = np.clip(first, 0, max(len(sides) - count, 0))
    return [np.minimum(first + c, len(sides) - 1) for c in range(count)]


def pack(value: Array) -> str:
    """Residuals as base64 of one signed byte each, in steps of 0.4 %."""
    units = np.clip(np.round(value / STEP), UNKNOWN + 1, 127)
    return base64.b64encode(np.where(np.isnan(value), UNKNOWN, units).astype(np.int8).tobytes()).decode()


def unpack(packed: dict[str, Any]) -> Lattice:
    """The lattice in a fit's ``residual`` table; decoded once."""
    sides = tuple(tuple(map(float, packed[side])) for side in "mnk")
    return _unpacked(packed["value"], sides, float(packed["units"]))


@cache
def _unpacked(value: str, sides: tuple[tuple[float, ...], ...], units: float) -> Lattice:
    m, n, k = (np.array(side) for side in sides)
    raw = np.frombuffer(base64.b64decode(value), np.int8).reshape(len(m), len(n), len(k))
    return Lattice(m, n, k, np.where(raw == UNKNOWN, np.nan, raw * STEP), units)


def mean(lattices: Sequence[Lattice]) -> Lattice:
    """The mean of lattices with the same sides, over those that know a place."""
    first = lattices[0]
    known = [found.value for found in lattices if found.value.shape == first.value.shape]
    count = sum(~np.isnan(value) for value in known)
    total = sum(np.nan_to_num(value) for value in known)
    return replace(first, value=np.where(count > 0, total / np.maximum(count, 1), np.nan))
