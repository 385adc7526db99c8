"""Statistics of errors, pure functions of arrays: e = predicted / measured - 1."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Summary:
    """Errors of one set of rows, as fractions.

    median_ape, mean_ape, p90_ape  median, mean and 90th percentile of |e|
    bias                           median of e: negative when predicted too small
    tau                            Kendall's rank correlation, None without ranks or when not asked for
    coverage                       share of measurements inside the 90 % range
    """

    rows: int
    median_ape: float
    mean_ape: float
    p90_ape: float
    bias: float
    tau: float | None
    coverage: float


def summary(
    predicted: Array, low: Array, high: Array, measured: Array, per: Array | None = None
) -> Summary | None:
    """The errors of rows; ``per`` divides both before ranks are compared. None without rows."""
    if not len(measured):
        return None
    error = predicted / measured - 1
    size = np.abs(error)
    return Summary(
        rows=len(measured),
        median_ape=float(np.median(size)),
        mean_ape=float(np.mean(size)),
        p90_ape=float(np.percentile(size, 90)),
        bias=float(np.median(error)),
        tau=None if per is None else kendall_tau(predicted / per, measured / per),
        coverage=float(np.mean((low <= measured) & (measured <= high))),
    )


def kendall_tau(first: Array, second: Array) -> float | None:
    """Kendall's tau-b: concordant less discordant pairs over the pairs that neither side ties.

    tau = (C - D) / sqrt((P - T1) (P - T2)), with P pairs and T pairs tied on one side.

    Source: Kendall, "The treatment of ties in ranking problems", Biometrika 33(3), 1945. None when one
    side is constant or there are fewer than two rows.

    >>> kendall_tau(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 4.0, 3.0]))
    0.6666666666666666
    """
    balance, free_first, free_second = 0, 0, 0
    for place in range(len(first) - 1):
        one = np.sign(first[place + 1 :] - first[place])
        other = np.sign(second[place + 1 :] - second[place])
        balance += int((one * other).sum())
        free_first += int(np.abs(one).sum())
        free_second += int(np.abs(other).sum())
    if not free_first or not free_second:
        return None
    return balance / math.sqrt(free_first * free_second)
