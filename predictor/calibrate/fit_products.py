"""Fit of the tile form to measured products of several chips together, and what it leaves.

Shared: edge, the rate of the last cache, joining, and prologue and last wave of both kernel families. Of a
chip: eta, em, t0 and throttle. Residuals go on a lattice of sides, the mean over software stacks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from predictor.calibrate.kernel_classes import Mask
from predictor.calibrate.kernel_tables import Columns
from predictor.calibrate.least_squares import Fitted, fit
from predictor.kernels import tiles
from predictor.kernels.chip import ChipRates, Products
from predictor.values import Array, Sourced

LARGE = 512
SHARED = {"edge": 0.1, "l2_byte": 60.0, "sync_s": 2e-6}
FAMILY = {"prologue_cycles": 1500.0, "wave": 0.7}
CHIP = {"eta": 0.9, "em": 0.85, "t0_s": 2.3e-6, "throttle": 0.05}
SOFTNESS = 3.0
# A row whose launch is over half of it says nothing about the rest.
_LEAST_PART = 0.5


@dataclass(frozen=True, slots=True)
class Measured:
    """Products of one chip, all its stacks: columns stack, m, n, k, latency_ms."""

    chip: ChipRates
    peak_flop_per_s: float
    rows: Columns

    @property
    def measured_s(self) -> Array:
        """Measured seconds [rows]."""
        return self.rows["latency_ms"] * 1e-3


def large(rows: Columns) -> Mask:
    """Where every side is 512 or more: shapes that training runs."""
    return np.array((rows["m"] >= LARGE) & (rows["n"] >= LARGE) & (rows["k"] >= LARGE))


def sampled(rows: Columns, many: int, few: int, seed: int) -> Columns:
    """At most ``many`` large and ``few`` small rows of every stack, drawn by ``seed``."""
    rng = np.random.default_rng(seed)
    places = []
    for stack in sorted(set(rows.text["stack"])):
        mine = rows.text["stack"] == stack
        for group, count in ((mine & large(rows), many), (mine & ~large(rows), few)):
            inside = np.flatnonzero(group)
            places.append(rng.choice(inside, min(count, len(inside)), replace=False))
    return rows.where(np.sort(np.concatenate(places)))


def point(value: float, like: Sourced) -> Sourced:
    """A number without a range."""
    return replace(like, value=value, low=value, high=value)


def with_values(chip: ChipRates, values: Mapping[str, float], residual: bool = False) -> ChipRates:
    """The chip at these fitted values; without its residual unless asked for."""
    family = chip.family
    form = Products(
        prologue_cycles=values[f"{family}.prologue_cycles"],
        wave=values[f"{family}.wave"],
        edge=values["edge"],
        l2_byte=values["l2_byte"],
        sync_s=values["sync_s"],
        softness=SOFTNESS,
    )
    return replace(
        chip,
        eta=point(values["eta"], chip.eta),
        em=point(values["em"], chip.em),
        t0_s=point(values["t0_s"], chip.t0_s),
        throttle=point(values["throttle"], chip.throttle),
        products=form,
        residual=chip.residual if residual else None,
    )


def core_s(rows: Columns, chip: ChipRates, peak_flop_per_s: float, size: float = 2) -> Array:
    """Seconds of [m, k] @ [k, n] without the launch."""
    ones = np.ones(rows.rows)
    found = tiles.parts(ones, rows["m"], rows["n"], rows["k"], size, 2, peak_flop_per_s, chip)
    return found.total_s(chip.products.softness)


def fit_products(samples: Sequence[Measured]) -> Fitted:
    """All values from samples of several chips."""
    families = sorted({s.chip.family for s in samples})
    shared = {**SHARED, **{f"{f}.{name}": value for f in families for name, value in FAMILY.items()}}

    def form(place: int, values: Mapping[str, float]) -> Array:
        sample = samples[place]
        chip = with_values(sample.chip, values)
        return chip.t0_s.value + core_s(sample.rows, chip, sample.peak_flop_per_s)

    return fit(form, [s.measured_s for s in samples], shared, [CHIP] * len(samples))


def residuals(of: Measured, values: Mapping[str, float], sides: tuple[Array, Array, Array]) -> Array:
    """ln((measured - t0)/form) on the lattice [m, n, k], mean over stacks, nan where nothing was measured."""
    chip = with_values(of.chip, values)
    rest = of.measured_s - chip.t0_s.value
    m, n, k = (of.rows[name] for name in "mnk")
    inside = (rest > _LEAST_PART * of.measured_s) & np.isin(m, sides[0])
    inside &= np.isin(n, sides[1]) & np.isin(k, sides[2])
    rows = of.rows.where(inside)
    value = np.log(rest[inside] / core_s(rows, chip, of.peak_flop_per_s))
    place = tuple(np.searchsorted(side, rows[name]) for side, name in zip(sides, "mnk", strict=True))
    total, count = (np.zeros([len(side) for side in sides]) for _ in range(2))
    np.add.at(total, place, value)
    np.add.at(count, place, 1.0)
    return np.where(count > 0, total / np.maximum(count, 1.0), np.nan)
