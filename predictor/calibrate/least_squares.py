"""Robust least squares of kernel forms in logarithms: shared values, values of each chip, a weak pull.

minimise  sum rho((ln t_form - ln t_measured)/width) width^2 + pull^2 |x - start|^2,  x = ln of all values

with the soft L1 loss. Forms count tiles, so they have steps; differences are taken over 2 % of a value, where
a tiny step would see no gradient.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from predictor.values import Array

Values = Mapping[str, float]
Form = Callable[[int, Values], Array]
_STEP = 0.02


@dataclass(frozen=True, slots=True)
class Fitted:
    """Values of every chip (the shared ones in each) and standard deviations of their logarithms."""

    values: tuple[dict[str, float], ...]
    sd: tuple[dict[str, float], ...]
    cost: float


def fit(
    form: Form,
    measured_s: Sequence[Array],
    shared: Values,
    own: Sequence[Values],
    pull: float = 0.2,
    width: float = 0.1,
    rounds: int = 40,
) -> Fitted:
    """Fit ``shared`` values and those of every chip together.

    form        seconds of a chip's rows, by its place and all its values
    measured_s  of every chip [rows, s]
    shared, own where the search starts, positive
    """
    from scipy.optimize import least_squares  # type: ignore[import-untyped]

    names, mine = list(shared), list(own[0])
    start = np.log([*shared.values(), *(chip[name] for chip in own for name in mine)])
    rows = np.cumsum([0, *(len(m) for m in measured_s)])
    target = [np.log(m) for m in measured_s]

    def values(x: Array, chip: int) -> dict[str, float]:
        first = len(names) + chip * len(mine)
        numbers = np.exp([*x[: len(names)], *x[first : first + len(mine)]])
        return dict(zip((*names, *mine), map(float, numbers), strict=True))

    def miss(x: Array, chip: int) -> Array:
        return np.asarray(np.log(form(chip, values(x, chip))) - target[chip])

    def residuals(x: Array) -> Array:
        return np.concatenate([*(miss(x, c) for c in range(len(own))), pull * (x - start)])

    def slopes(x: Array) -> Array:
        found = np.zeros((rows[-1] + len(x), len(x)))
        found[rows[-1] :] = pull * np.eye(len(x))
        for place in range(len(x)):
            touched = range(len(own)) if place < len(names) else [(place - len(names)) // len(mine)]
            for chip in touched:
                step = np.zeros(len(x))
                step[place] = _STEP
                difference = miss(x + step, chip) - miss(x - step, chip)
                found[rows[chip] : rows[chip + 1], place] = difference / (2 * _STEP)
        return found

    result = least_squares(
        residuals, start, jac=slopes, loss="soft_l1", f_scale=width, max_nfev=rounds, xtol=1e-4, ftol=1e-5
    )
    noise = 2 * result.cost / max(rows[-1] - len(start), 1)
    spread = np.sqrt(np.diag(np.linalg.inv(result.jac.T @ result.jac)) * noise)
    both = [values(result.x, c) for c in range(len(own))]
    places = [
        [*range(len(names)), *range(first := len(names) + c * len(mine), first + len(mine))]
        for c in range(len(own))
    ]
    sd = [dict(zip((*names, *mine), map(float, spread[p]), strict=True)) for p in places]
    return Fitted(tuple(both), tuple(sd), float(result.cost))
