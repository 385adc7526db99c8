"""A few unknowns from a few measurements: prior and likelihood in logarithms, by Gauss and Newton.

minimise  sum over rows of rho((f(x) - y)/s) + sum over unknowns of ((x - prior)/width)^2 / 2

with Huber's loss rho, so that a row that something else slowed down does not pull. A measurement never
replaces what was known: it is weighed against it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from predictor.values import Array

_TURN = 1.5  # standard deviations from where on a row pulls with constant force
_STEP = 0.02  # forms count tiles, so a tiny difference sees no slope
_ROUNDS, _STILL = 40, 1e-4


@dataclass(frozen=True, slots=True)
class Posterior:
    """Logarithms of the unknowns, their covariance, and what is left of every row, y - f(x)."""

    x: Array
    covariance: Array
    left: Array

    @property
    def sd(self) -> Array:
        """Standard deviations."""
        return np.asarray(np.sqrt(np.diag(self.covariance)))


def posterior(form: Callable[[Array], Array], y: Array, sd: Array, prior: Array, width: Array) -> Posterior:
    """The most probable unknowns, with the curvature there as covariance.

    form   logarithm of every row [rows] from the unknowns
    y, sd  measured logarithms, and standard deviations of form and measurement together [rows]

    Where rows scatter more than ``sd`` says, they count as less precise by as much.
    """
    x, keep = prior.copy(), np.diag(width**-2.0)
    best = _cost(form(x) - y, sd, x - prior, width)
    weight, slopes = _row_weight(form(x) - y, sd), _slopes(form, x)
    for _ in range(_ROUNDS):
        miss = form(x) - y
        weight, slopes = _row_weight(miss, sd), _slopes(form, x)
        curve = slopes.T @ (weight[:, None] * slopes) + keep
        move = -np.linalg.solve(curve, slopes.T @ (weight * miss) + keep @ (x - prior))
        while (cost := _cost(form(x + move) - y, sd, x + move - prior, width)) > best:
            move = move / 2
            if np.abs(move).max() < _STILL:
                break
        if cost > best or np.abs(move).max() < _STILL:
            break
        x, best = x + move, cost
    left = y - form(x)
    scatter = max(1.0, float((weight * left**2).sum()) / max(len(y) - len(x), 1))
    curve = slopes.T @ (weight[:, None] * slopes) / scatter + keep
    covariance = np.asarray(np.linalg.inv(curve), np.float64)
    return Posterior(x, covariance, left)


def _row_weight(miss: Array, sd: Array) -> Array:
    far = np.maximum(np.abs(miss) / sd, 1e-12)
    return np.asarray(np.minimum(1.0, _TURN / far) / sd**2)


def _cost(miss: Array, sd: Array, away: Array, width: Array) -> float:
    far = np.abs(miss) / sd
    rows = np.where(far < _TURN, far**2 / 2, _TURN * (far - _TURN / 2))
    return float(rows.sum() + ((away / width) ** 2).sum() / 2)


def _slopes(form: Callable[[Array], Array], x: Array) -> Array:
    columns = []
    for place in range(len(x)):
        step = np.zeros(len(x))
        step[place] = _STEP
        columns.append((form(x + step) - form(x - step)) / (2 * _STEP))
    return np.stack(columns, axis=1)


def quantiles(left: Array) -> tuple[float, float] | None:
    """5th and 95th percentile that a further row stays within: split conformal, None under 20 rows.

    The k-th of n sorted residuals, k = floor((n + 1) 0.05) from either end.

    Source: Lei et al., "Distribution-Free Predictive Inference for Regression", JASA 113(523), 2018.

    >>> quantiles(np.arange(1.0, 21.0))
    (1.0, 20.0)
    """
    k = int((len(left) + 1) * 0.05)
    if k < 1:
        return None
    ordered = np.sort(left)
    return float(ordered[k - 1]), float(ordered[-k])
