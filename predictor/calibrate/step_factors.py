"""What a few measured steps say about a chip and its host: prior and likelihood, never a blunt rescale.

    T = ((C e^-compute + M e^-memory + R)^p + (H e^host)^p)^(1/p)

A step that the predicted host does not touch says little about the host, one that waits for it little about
the chip. What a prediction of one model misses by its own, it misses in all its steps; the rows of one model
count as few, whatever their number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from predictor.values import Array

NAMES = ("compute", "memory", "host")
_NORM = 7.0
# Correlation of what two predictions miss beside the chip and the host: steps of one model, of two models.
_ALIKE, _APART = 0.8, 0.2
# A chip whose clocks or kernels are slower than thought is slower in both.
_TOGETHER = 0.5
# Ranges of predictions say less than one model misses beside its chip. 0.1 is a choice from 0.06 to 0.3 on
# 140 steps of seven chips (lambda_dlbench, torchvision_ryujaehun): chips that are 20 % off gain most by less,
# chips that are predicted well lose least by more.
_LEAST_SD, _MEASURED_SD = 0.10, 0.02
_TURN = 2.0
_ROUNDS, _STILL, _STEP = 60, 1e-6, 1e-4


@dataclass(frozen=True, slots=True)
class StepPair:
    """One measured step beside its prediction at middle values.

    compute_s   device seconds that follow the matrix and vector rates
    memory_s    device seconds that follow the bandwidth
    rest_s      device seconds that follow neither
    host_s      seconds the host needs to launch all of it
    sd          of ln(measured/predicted) beside chip and host: the model's and the software's own
    family      models of one family miss alike
    """

    compute_s: float
    memory_s: float
    rest_s: float
    host_s: float
    measured_s: float
    sd: float
    family: str = ""

    def seconds(self, compute: float = 0.0, memory: float = 0.0, host: float = 0.0) -> float:
        """The predicted step with these logarithms of factors."""
        device = self.compute_s * np.exp(-compute) + self.memory_s * np.exp(-memory) + self.rest_s
        waits = self.host_s * np.exp(host)
        longer = max(device, waits)
        return float(longer * ((device / longer) ** _NORM + (waits / longer) ** _NORM) ** (1 / _NORM))


@dataclass(frozen=True, slots=True)
class StepPrior:
    """Standard deviations of the three logarithms before any step is measured."""

    compute: float
    memory: float
    host: float


@dataclass(frozen=True, slots=True)
class StepFactors:
    """Logarithms of factors and their standard deviations, in the order of ``NAMES``.

    compute, memory  on the chip's rates: above 0 is faster
    host             on the host's seconds per launch: above 0 is slower
    misses           ln(measured/predicted) of every pair with the factors
    """

    compute: tuple[float, float]
    memory: tuple[float, float]
    host: tuple[float, float]
    misses: tuple[float, ...]

    def as_table(self, before: Mapping[str, Sequence[float]] | None = None) -> dict[str, list[float]]:
        """As ``<id>.fit.json`` holds it: name -> [logarithm, sd]; products and vector units follow it.

        before  factors that the predictions already had, to which these are added
        """
        found = {name: getattr(self, name) for name in NAMES}
        found |= dict.fromkeys(("vector", "products"), self.compute)
        known = before or {}
        return {
            name: [round(value + (known[name][0] if name in known else 0.0), 5), round(sd, 5)]
            for name, (value, sd) in found.items()
        }


def step_factors(pairs: Sequence[StepPair], prior: StepPrior) -> StepFactors:
    """The posterior of the three factors given measured steps, in any order.

    Without pairs the prior comes back.
    """
    sd = np.array([prior.compute, prior.memory, prior.host])
    both = np.outer(sd, sd) * np.array([[1, _TOGETHER, 0], [_TOGETHER, 1, 0], [0, 0, 1]])
    keep, x = np.linalg.inv(both), np.zeros(3)
    y = np.log([pair.measured_s for pair in pairs])
    noise = _noise(pairs, np.zeros(len(pairs)))
    weight = np.linalg.inv(noise) if pairs else np.zeros((0, 0))
    slopes = _slopes(pairs, x)
    best = np.inf
    for _ in range(_ROUNDS if pairs else 0):
        miss = y - _logs(pairs, x)
        # A pair further off than any model explains pulls less: its settings may be wrong.
        weight = np.linalg.inv(_noise(pairs, miss))
        slopes = _slopes(pairs, x)
        move = np.linalg.solve(slopes.T @ weight @ slopes + keep, slopes.T @ weight @ miss - keep @ x)
        for _ in range(12):
            after = y - _logs(pairs, x + move)
            cost = float(after @ weight @ after + (x + move) @ keep @ (x + move))
            if cost <= float(miss @ weight @ miss + x @ keep @ x):
                break
            move = move / 2
        x = x + move
        if abs(best - cost) < _STILL:
            break
        best = cost
    spread = np.sqrt(np.diag(np.linalg.inv(slopes.T @ weight @ slopes + keep)))
    compute, memory, host = ((float(v), float(s)) for v, s in zip(x, spread, strict=True))
    return StepFactors(compute, memory, host, tuple(map(float, y - _logs(pairs, x))))


def _logs(pairs: Sequence[StepPair], x: Array) -> Array:
    return np.log([pair.seconds(*x) for pair in pairs])


def _slopes(pairs: Sequence[StepPair], x: Array) -> Array:
    """d ln T / d factor [pairs, 3]."""
    steps = np.eye(3) * _STEP
    columns = [(_logs(pairs, x + step) - _logs(pairs, x - step)) / (2 * _STEP) for step in steps]
    return np.stack(columns, axis=1)


def _noise(pairs: Sequence[StepPair], miss: Array) -> Array:
    """Covariance of what is missed beside chip and host; widened for pairs far off [pairs, pairs]."""
    own = np.array([max(pair.sd, _LEAST_SD) for pair in pairs])
    own = own * np.maximum(1.0, np.abs(miss) / (_TURN * own))
    alike = [[_ALIKE if a.family == b.family else _APART for b in pairs] for a in pairs]
    shared = np.array(alike).reshape(len(pairs), len(pairs))
    np.fill_diagonal(shared, 1.0)
    return np.asarray(np.outer(own, own) * shared + _MEASURED_SD**2 * np.eye(len(pairs)))
