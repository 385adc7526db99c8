"""Measured training steps as arrays of kernels: what the coefficients of ``kernels.steps`` are fitted to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from predictor.calibrate.case import Case, Refused
from predictor.calibrate.validate import recordings, setting_of
from predictor.errors import PredictorError
from predictor.ir import Graph
from predictor.kernels.chip import rates
from predictor.kernels.classes import Class, class_of
from predictor.kernels.steps import Sides, Table, table_of
from predictor.parallel import with_batch
from predictor.pricing import Setting, optimizer_row
from predictor.timing import executed_flop, moved_byte, peak_of, unit_of
from predictor.values import Array
from predictor.workload import count


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured step.

    classes, count, table  its kernels; the optimizer is the last
    launches               kernels that the host starts, one micro-batch and the update
    accumulate             micro-batches of the step
    """

    case: Case
    stack: str
    classes: tuple[Class, ...]
    count: Array
    table: Table
    launches: float


def samples(cases: Sequence[Case]) -> Iterator[Sample]:
    """Cases of one model that can be priced on one accelerator; others are left out."""
    settings = {i: found for i, c in enumerate(cases) if not isinstance(found := setting_of(c), Refused)}
    graphs = recordings(cases[0], sorted({s.plan.micro_batch for s in settings.values()}))
    for index, setting in settings.items():
        graph, case = graphs[setting.plan.micro_batch], cases[index]
        if isinstance(graph, PredictorError) or setting.machine.count != 1:
            continue
        published = case.parameters
        if published and abs(graph.parameter_count - published) > 0.01 * published + case.slack:
            continue
        yield _sample(case, setting, graph)


def _sample(case: Case, setting: Setting, graph: Graph) -> Sample:
    assert case.job is not None
    accelerator, stack, recipe = setting.machine.accelerator, setting.stack, setting.recipe
    plan = with_batch(setting.plan, graph.batch, case.job.batch_size)
    work = count(graph, stack, True)
    update = optimizer_row(case.job, graph, plan, recipe)
    rows = [*work.rows, update]
    kernels = [r.kernel for r in rows]
    units = [unit_of(k, recipe, accelerator) for k in kernels]
    classes = tuple(class_of(r.kernel, r.phase, unit) for r, unit in zip(rows, units, strict=True))
    times = np.array([r.count for r in rows], float) * plan.accumulate
    times[-1] = update.count
    byte = np.array([moved_byte(r.kernel) for r in rows])
    byte[-1] *= stack.optimizer_passes.mid
    table = table_of(
        kernels,
        classes,
        units,
        np.array([executed_flop(k) for k in kernels]),
        byte,
        np.array([peak_of(k, recipe, accelerator) for k in kernels]),
        rates(accelerator),
    )
    tensors = sum(p.trainable for p in graph.parameters)
    launches = times[:-1].sum() + (stack.optimizer_launches * tensors if update.count else 0)
    return Sample(case, stack.id, classes, times, table, float(launches))


def joined(found: Sequence[Sample]) -> tuple[Table, list[Class], Array, npt.NDArray[np.int64]]:
    """All samples end to end: one table, its classes, the counts, and the sample of every row."""
    classes = [c for sample in found for c in sample.classes]
    parts = {
        field.name: np.concatenate([getattr(sample.table, field.name) for sample in found])
        for field in fields(Table)
        if field.name != "sides"
    }
    sides = Sides(
        **{
            field.name: np.concatenate([getattr(sample.table.sides, field.name) for sample in found])
            for field in fields(Sides)
        }
    )
    of = np.repeat(np.arange(len(found)), [len(sample.classes) for sample in found])
    return Table(**parts, sides=sides), classes, np.concatenate([s.count for s in found]), of
