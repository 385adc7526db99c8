"""Fit the coefficients of ``kernels.steps`` to whole measured steps, all together, with priors.

One maximum a posteriori fit through the sum of all kernels: a Huber loss on ln(predicted / measured), normal
priors on the logarithms of all coefficients, L-BFGS on exact gradients. Rows of one model family share a
weight, so a family with many members does not outvote the others. Deterministic: the same data
give the same coefficients.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from predictor.calibrate.steps_data import Sample, joined
from predictor.calibrate.steps_priors import HOST, SHAPE, Prior, family_prior, term_prior
from predictor.kernels.steps import Coefficients, log_parts

SCALE, TURN = 0.08, 1.25  # of the residuals that count fully, and where the loss turns linear
STEP_NORM = 7.0
# What a chip has of its own, with the width of its prior: on convolutions, products, vector kernels, memory.
CHIP = {"compute": 0.1, "products": 0.05, "vector": 0.1, "memory": 0.1}
ITERATIONS = 150


@dataclass(frozen=True, slots=True)
class Fitted:
    """Logarithms of all coefficients and residuals ln(predicted / measured) of every sample."""

    names: tuple[str, ...]
    values: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]
    residuals: npt.NDArray[np.float64]

    def __getitem__(self, name: str) -> float:
        return float(self.values[self.names.index(name)])


class Problem:
    """Samples end to end as torch tensors, and the coefficients they need."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        import torch

        self.torch = torch
        table, classes, count, of = joined(samples)
        self.samples = samples
        self.priors = _priors(samples, classes)
        self.names = tuple(self.priors)
        place = {name: i for i, name in enumerate(self.names)}
        tensor = self._tensor
        self.table = _as_torch(table, tensor)
        self.count, self.of = tensor(count), tensor(of)
        self.family = {
            part: tensor(np.array([place[f"{c.family}.{part}"] for c in classes]))
            for part in ("compute", "memory", "stream", "line", "last-compute", "last-memory", "last-stream")
        }
        rows = [(i, place[name], x) for i, c in enumerate(classes) for name, x in c.terms]
        self.term_row = tensor(np.array([r for r, _, _ in rows], int))
        self.term = tensor(np.array([t for _, t, _ in rows], int))
        self.term_value = tensor(np.array([x for _, _, x in rows], float))
        self.shape = {name: place[f"shape.{name}"] for name in SHAPE}
        self.chip = {
            part: tensor(np.array([place[f"chip.{s.case.accelerator}.{part}"] for s in samples]))[self.of]
            for part in CHIP
        }
        self.vector = tensor(np.array([c.vector for c in classes]))
        self.host = tensor(np.array([place[f"host.{s.stack}"] for s in samples]))
        self.owner = tensor(np.array([place[_owner(s)] for s in samples]))
        self.launches = tensor(np.array([s.launches for s in samples]))
        self.measured = tensor(np.log([s.case.step_s or np.nan for s in samples]))
        families = [f"{s.case.source} {s.case.family}" for s in samples]
        times = Counter(families)
        weight = np.array([times[f] ** -0.5 for f in families])
        self.weight = tensor(weight / weight.mean())
        self.middle = tensor(np.array([p.middle for p in self.priors.values()]))
        self.width = tensor(np.array([p.width for p in self.priors.values()]))

    def _tensor(self, array: Any) -> Any:
        array = np.asarray(array)
        return self.torch.tensor(array, dtype=self.torch.float64 if array.dtype.kind == "f" else None)

    def log_step(self, theta: Any) -> Any:
        """ln of every sample's step time [s], from all coefficients."""
        torch = self.torch
        parts = {part: theta[places] for part, places in self.family.items()}
        rows = len(self.count)
        zero = torch.zeros(rows, dtype=torch.float64)
        terms = zero.index_add(0, self.term_row, theta[self.term] * self.term_value)
        shape = {name: theta[i] for name, i in self.shape.items()}
        coefficients = Coefficients(
            compute=parts["compute"],
            memory=parts["memory"],
            stream=parts["stream"],
            line=parts["line"],
            last=(parts["last-compute"], parts["last-memory"], parts["last-stream"]),
            terms=terms,
            shape=shape,
        )
        compute, memory, stream = log_parts(torch, self.table, coefficients)
        matrix = torch.where(self.table.given > 0, theta[self.chip["products"]], theta[self.chip["compute"]])
        rate = torch.where(self.vector, theta[self.chip["vector"]], matrix)
        reached = theta[self.chip["memory"]]
        norm = torch.exp(shape["norm"])
        busy = torch.logaddexp(norm * (compute - rate), norm * (memory - reached)) / norm
        seconds = torch.exp(busy) + torch.exp(stream - reached) + torch.exp(shape["launch"])
        device = torch.zeros(len(self.samples), dtype=torch.float64).index_add(
            0, self.of, seconds * self.count
        )
        host = torch.exp(theta[self.host] + theta[self.owner]) * self.launches
        return torch.logaddexp(STEP_NORM * torch.log(device), STEP_NORM * torch.log(host)) / STEP_NORM

    def fit(self, use: npt.NDArray[np.bool_] | None = None, iterations: int = ITERATIONS) -> Fitted:
        """The most probable coefficients given the samples in ``use``; residuals are those of all samples."""
        torch = self.torch
        torch.set_num_threads(1)
        weight = self.weight * (1.0 if use is None else self._tensor(use.astype(float)))
        theta = self.middle.clone().requires_grad_(True)
        search = torch.optim.LBFGS(
            [theta], max_iter=iterations, history_size=20, line_search_fn="strong_wolfe"
        )

        def loss() -> Any:
            search.zero_grad()
            residual = (self.log_step(theta) - self.measured).abs() / SCALE
            bent = torch.where(residual < TURN, residual**2 / 2, TURN * (residual - TURN / 2))
            total = (bent * weight).sum() + (((theta - self.middle) / self.width) ** 2).sum() / 2
            total.backward()
            return total

        search.step(loss)
        with torch.no_grad():
            residuals = (self.log_step(theta) - self.measured).numpy()
        return Fitted(self.names, theta.detach().numpy(), self.width.numpy(), residuals)


def _owner(sample: Sample) -> str:
    """The computer that measured: one host for the rows of a source on one accelerator."""
    return f"owner.{sample.case.source}.{sample.case.accelerator}"


def _as_torch(table: Any, tensor: Callable[[Any], Any]) -> Any:
    """The table with tensors for arrays."""
    from dataclasses import fields, replace

    sides = replace(
        table.sides, **{f.name: tensor(getattr(table.sides, f.name)) for f in fields(table.sides)}
    )
    parts = {f.name: tensor(getattr(table, f.name)) for f in fields(table) if f.name != "sides"}
    return replace(table, **parts, sides=sides)


def _priors(samples: Sequence[Sample], classes: Sequence[Any]) -> dict[str, Prior]:
    """Every coefficient that the samples need, in a fixed order."""
    found: dict[str, Prior] = {}
    for family in sorted({c.family for c in classes}):
        found |= {f"{family}.{part}": prior for part, prior in family_prior(family).items()}
    terms = sorted({name for c in classes for name, _ in c.terms})
    found |= {name: term_prior(name) for name in terms}
    found |= {f"shape.{name}": prior for name, prior in SHAPE.items()}
    for accelerator in sorted({s.case.accelerator for s in samples}):
        width = 0.05 if accelerator == _REFERENCE else 1.0
        found |= {f"chip.{accelerator}.{part}": Prior(0.0, min(width, own)) for part, own in CHIP.items()}
    found |= {f"host.{stack}": HOST[stack] for stack in sorted({s.stack for s in samples})}
    found |= {name: Prior(0.0, 0.2) for name in sorted({_owner(s) for s in samples})}
    return found


_REFERENCE = "nvidia-rtx-3090"  # shares are those of this chip; others differ by their chip's coefficients
