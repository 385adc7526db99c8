"""Numbers with a range and a source, the draws made from them, and the ranges read off draws.

A parameter is drawn once per estimate under its own name, so the same parameter moves together
everywhere it is used, and two candidates priced side by side share their draws.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

DRAWS = 256
Z95 = NormalDist().inv_cdf(0.95)
STATUSES = ("verified", "derived", "from memory", "estimate")


@dataclass(frozen=True, slots=True)
class Sourced:
    """One number from the world, in base units: middle, 5th and 95th percentile, and its source."""

    value: float
    low: float
    high: float
    source: str
    as_of: str
    status: str = "verified"

    @property
    def certain(self) -> bool:
        """True when the range is a point."""
        return self.low == self.value == self.high

    def draw(self, name: str) -> Array:
        """``DRAWS`` values of this parameter, always the same for the same ``name``."""
        return draw(name, self.low, self.value, self.high)


@cache
def _normal_scores() -> Array:
    """Standard normal quantiles at the middles of ``DRAWS`` equal slices of probability."""
    normal = NormalDist()
    return np.array([normal.inv_cdf((i + 0.5) / DRAWS) for i in range(DRAWS)])


def draw(name: str, low: float, mid: float, high: float) -> Array:
    """``DRAWS`` values whose 5th, 50th and 95th percentile are low, mid and high.

    Two half normals joined at the middle, in logarithms where all three are positive, else linear.
    Stratified (one value per slice of probability) in an order seeded by ``name``, so that the
    percentiles come back and two names are independent.

    >>> bool(abs(np.median(draw("x", 1.0, 2.0, 3.0)) - 2.0) < 0.02)
    True
    """
    if not low <= mid <= high:
        raise ValueError(f"{name}: {low} <= {mid} <= {high} does not hold")
    if low == high:
        return np.full(DRAWS, float(mid))
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    z = np.random.default_rng(seed).permutation(_normal_scores()) / Z95
    if low > 0:
        return np.asarray(mid * np.exp(np.where(z > 0, z * np.log(high / mid), z * np.log(mid / low))))
    return np.asarray(mid + np.where(z > 0, z * (high - mid), z * (mid - low)))


def log_normal(name: str, spread: float) -> Array:
    """``DRAWS`` factors around 1 whose logarithm has the standard deviation ``spread``."""
    return draw(name, float(np.exp(-Z95 * spread)), 1.0, float(np.exp(Z95 * spread)))


@dataclass(frozen=True, slots=True)
class Spread:
    """5th, 50th and 95th percentile of a predicted quantity."""

    low: float
    mid: float
    high: float

    @classmethod
    def of(cls, draws: Array | float) -> "Spread":
        """The spread of an array of draws; a plain number has no width."""
        low, mid, high = np.percentile(np.asarray(draws, dtype=float), (5, 50, 95))
        return cls(float(low), float(mid), float(high))
