"""What chips with measured kernels say about one without: medians, the loss of rate by density, spreads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from predictor.values import Array

Mask = npt.NDArray[np.bool_]

KNEE = 0.85  # TFLOP/s per watt up to which the rate is not lost
_RIDGE = 0.05
_Z95 = 1.645


@dataclass(frozen=True, slots=True)
class Rule:
    """Rates of an unseen chip: eta exp(-eta_slope excess), throttle_slope excess, medians of em and t0.

    t0_s  by kernel family, of all under ""
    """

    eta: float
    em: float
    t0_s: Mapping[str, float]
    eta_slope: float
    throttle_slope: float

    def at(self, density: float, family: str) -> dict[str, float]:
        """The chip values of the tile form at a density [TFLOP/s per W]."""
        excess = max(0.0, density - KNEE)
        return {
            "eta": self.eta * float(np.exp(-self.eta_slope * excess)),
            "em": self.em,
            "t0_s": self.t0_s.get(family, self.t0_s[""]),
            "throttle": max(self.throttle_slope * excess, 1e-3),
        }


def rule(values: Sequence[Mapping[str, float]], densities: Sequence[float], families: Sequence[str]) -> Rule:
    """The rule that fitted chips follow."""
    excess = np.maximum(0.0, np.array(densities) - KNEE)
    table = np.stack([np.ones_like(excess), -excess], axis=1)
    eta = np.log([v["eta"] for v in values])
    level, slope = np.linalg.solve(table.T @ table + np.diag([0.0, _RIDGE]), table.T @ eta)
    throttle = np.array([v["throttle"] for v in values])
    return Rule(
        eta=float(np.exp(level)),
        em=middle([v["em"] for v in values]),
        t0_s=by_family([v["t0_s"] for v in values], families),
        eta_slope=float(slope),
        throttle_slope=float((excess * throttle).sum() / max((excess**2).sum(), 1e-9)),
    )


def by_family(values: Sequence[float], families: Sequence[str]) -> dict[str, float]:
    """The middle of each family's values, and of all under ""."""
    pairs = list(zip(values, families, strict=True))
    found = {name: middle([v for v, family in pairs if family == name]) for name in sorted(set(families))}
    return {**found, "": middle(values)}


def middle(values: Sequence[float]) -> float:
    """Median of the logarithms."""
    return float(np.exp(np.median(np.log(values))))


def half_width(errors: Array) -> float:
    """Standard deviation of a normal whose 90 % range holds 90 % of these errors about their median."""
    return float(np.percentile(np.abs(errors - np.median(errors)), 90) / _Z95) if len(errors) else 0.0


def spread(errors: Sequence[Array], large: Sequence[Mask]) -> tuple[float, float, float]:
    """(common, own, small) of ln errors of several chips: medians of chips, and scatter about them."""
    common = float(np.sqrt(np.mean([np.median(e[big]) ** 2 for e, big in zip(errors, large, strict=True)])))
    own = float(np.mean([half_width(e[big]) for e, big in zip(errors, large, strict=True)]))
    small = float(np.mean([half_width(e[~big]) for e, big in zip(errors, large, strict=True)]))
    return common, own, small
