"""Measured kernels and steps beside their predictions: by kind, as numbers and as points of a plot."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from predictor.calibrate.case import Case, Refused, Scored
from predictor.calibrate.fit_user import attention_s, product_s
from predictor.calibrate.measurements import Measured
from predictor.calibrate.score import Summary, summary
from predictor.calibrate.tables import read_tables
from predictor.calibrate.validate import outcomes
from predictor.ir import OPTIMIZER
from predictor.kernels.chip import ChipRates
from predictor.kernels.classes import class_of
from predictor.kernels.steps import parts_of, step_form, table_of
from predictor.profile import Accelerator
from predictor.timing import executed_flop, moved_byte
from predictor.values import Array

STEP = "step"
# Launches and exchanges are parts of a step's prediction, no kernels of their own.
_UNPRICED = frozenset(("launch", "collective"))


@dataclass(frozen=True, slots=True)
class Points:
    """Rows of one kind: names, predicted and measured seconds."""

    kind: str
    names: tuple[str, ...]
    predicted_s: Array
    measured_s: Array

    def errors(self) -> Summary:
        """Errors without a range."""
        found = summary(self.predicted_s, self.predicted_s, self.predicted_s, self.measured_s)
        assert found is not None
        return found


def kernel_points(rows: Sequence[Measured], chip: ChipRates, accelerator: Accelerator) -> list[Points]:
    """Predicted kernels by kind, in the order of the file; arithmetic without a peak is left out."""
    kinds = list(dict.fromkeys(row.kind for row in rows if row.kind not in _UNPRICED))
    found = []
    for kind in kinds:
        mine = [r for r in rows if r.kind == kind and _has_peak(r, accelerator)]
        if mine:
            seconds = _form(mine[0])(mine, chip, accelerator)
            measured = np.array([r.time_s for r in mine])
            found.append(Points(kind, tuple(r.key for r in mine), seconds, measured))
    return found


def _has_peak(row: Measured, accelerator: Accelerator) -> bool:
    return not row.kernel.work.matrix_flop or row.unit in accelerator.peak_flop_per_s


def _form(row: Measured) -> Callable[[Sequence[Measured], ChipRates, Accelerator], Array]:
    return {"matmul": product_s, "attention": attention_s}.get(row.kind, other_s)


def other_s(rows: Sequence[Measured], chip: ChipRates, accelerator: Accelerator) -> Array:
    """Seconds of any kernel by the form of whole steps, launch included [rows]."""
    kernels = [row.kernel for row in rows]
    units = [row.unit if row.kernel.work.matrix_flop else "fp32" for row in rows]
    classes = [
        class_of(k, "forward" if r.phase == OPTIMIZER else r.phase, u)
        for k, r, u in zip(kernels, rows, units, strict=True)
    ]
    units = ["fp32" if c.vector else u for c, u in zip(classes, units, strict=True)]
    flop = np.array([executed_flop(k) for k in kernels], float)
    byte = np.array([moved_byte(k) for k in kernels], float)
    peak = np.array([accelerator.peak_flop_per_s[unit].value for unit in units])
    parts = parts_of(table_of(kernels, classes, units, flop, byte, peak, chip), classes, step_form())
    p = parts.norm
    longer = np.maximum(parts.compute_s, parts.memory_s)
    busy = longer * ((parts.compute_s / longer) ** p + (parts.memory_s / longer) ** p) ** (1 / p)
    return np.asarray(busy + parts.stream_s + chip.t0_s.value)


def step_points(path: Path) -> tuple[Points | None, list[str]]:
    """Whole steps of a table, and why others are left out."""
    items = list(read_tables([path]))
    found = outcomes([item for item in items if isinstance(item, Case)])
    scored = [o for o in found if isinstance(o, Scored) and o.time is not None and o.case.step_s]
    refused = [o for o in (*found, *items) if isinstance(o, Refused)]
    notes = [f"{o.row} left out: {o.detail}" for o in refused]
    if not scored:
        return None, notes
    predicted = np.array([o.time.mid for o in scored if o.time is not None])
    measured = np.array([o.case.step_s or np.nan for o in scored])
    names = tuple(f"{o.case.job.model if o.case.job else ''} ({o.case.row})" for o in scored)
    return Points(STEP, names, predicted, measured), notes
