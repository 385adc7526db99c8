"""The tables that a recipe names, what is fitted to them, and samples of their rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from predictor.calibrate.fit_products import Measured
from predictor.calibrate.kernel_classes import Mask
from predictor.calibrate.kernel_tables import Columns, read_columns
from predictor.kernels import chip as chips
from predictor.profile import find_profile


@dataclass(frozen=True, slots=True)
class Data:
    """A recipe and the folder its tables lie in."""

    recipe: dict[str, Any]
    folder: Path

    def chips(self, apart: bool = False) -> dict[str, str]:
        """Name of a system in the tables -> profile id."""
        found: dict[str, str] = self.recipe["apart" if apart else "chips"]
        return found

    def path(self, kind: str, system: str) -> Path:
        """The table of one system."""
        return self.folder / str(self.recipe[kind]["table"]).format(chip=system)

    def products(self, system: str, id_: str, dtype: str) -> Measured:
        """Its products in one type, the first stack of the table first."""
        accelerator = find_profile(id_)
        rows = read_columns(self.path("products", system), ["m", "n", "k", "latency_ms"], ["stack", "dtype"])
        rows = rows.where(rows.text["dtype"] == dtype)
        return Measured(chips.bare(accelerator), chips.matrix_peak(accelerator), rows)


@dataclass(frozen=True, slots=True)
class Fits:
    """What is written: constants of all chips, and by profile id the rates of one (value, sd of ln)."""

    shared: dict[str, Any]
    rates: dict[str, dict[str, tuple[float, float]]]
    residual: dict[str, dict[str, Any]]
    chips: dict[str, chips.ChipRates]
    peaks: dict[str, float]


def primary(rows: Columns) -> Columns:
    """Rows of the first stack of a table: the one with the most of its kernels."""
    return rows.where(rows.text["stack"] == rows.text["stack"][0])


def draw_rows(rows: Columns, big: Mask, many: int, few: int, seed: int) -> Columns:
    """At most ``many`` of the big rows and ``few`` of the others."""
    rng = np.random.default_rng(seed)
    groups = np.flatnonzero(big), np.flatnonzero(~big)
    return rows.where(
        np.sort(
            np.concatenate(
                [
                    rng.choice(g, min(c, len(g)), replace=False)
                    for g, c in zip(groups, (many, few), strict=True)
                ]
            )
        )
    )


def draw_any(rows: Columns, count: int, seed: int) -> Columns:
    """At most ``count`` rows."""
    places = np.random.default_rng(seed).permutation(rows.rows)[:count]
    return rows.where(np.sort(places))


def density_of(id_: str) -> float:
    """TFLOP/s for each watt of a profile."""
    return chips.density(find_profile(id_))
