"""Every outcome as one line of CSV, for plots and for looking at single rows."""

import csv
import io
from collections.abc import Iterable, Iterator

from predictor.answer import Range
from predictor.calibrate.case import Bulk, Outcome, Scored, model_name

COLUMNS = (
    "source row rows refused detail model family accelerator count precision stack batch samples "
    "time_s time_low time_high measured_s memory_byte measured_byte power_w measured_w"
).split()


def details_csv(outcomes: Iterable[Outcome]) -> str:
    """One line per outcome, in base units, empty where nothing was measured."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for outcome in outcomes:
        if isinstance(outcome, Bulk):
            writer.writerows(_kernels(outcome))
            continue
        writer.writerow(
            _scored(outcome)
            if isinstance(outcome, Scored)
            else {
                "source": outcome.source,
                "row": outcome.row,
                "rows": outcome.rows,
                "refused": outcome.code,
                "detail": outcome.detail,
                "accelerator": outcome.accelerator,
                "count": outcome.count,
            }
        )
    return text.getvalue()


def _mid(found: Range | None) -> float | None:
    return None if found is None else found.mid


def _kernels(bulk: Bulk) -> Iterator[dict[str, object]]:
    """One line per kernel of a group."""
    case = bulk.case
    head = {"source": case.source, "row": case.row, "rows": 1, "family": case.family}
    for low, mid, high, measured in zip(bulk.low, bulk.mid, bulk.high, bulk.measured, strict=True):
        times = {"time_s": mid, "time_low": low, "time_high": high, "measured_s": measured}
        yield {**head, "accelerator": case.accelerator, **times}


def _scored(outcome: Scored) -> dict[str, object]:
    case, job = outcome.case, outcome.case.job
    shown: dict[str, object] = {
        "source": case.source,
        "row": case.row,
        "rows": case.rows,
        "family": case.family,
        "accelerator": case.accelerator,
        "samples": case.samples,
        "time_s": _mid(outcome.time),
        "time_low": outcome.time and outcome.time.low,
        "time_high": outcome.time and outcome.time.high,
        "measured_s": case.step_s,
        "memory_byte": _mid(outcome.memory),
        "measured_byte": case.peak_byte,
        "power_w": _mid(outcome.power),
        "measured_w": case.watt,
    }
    if job is not None:
        shown |= {
            "model": model_name(job.model),
            "count": job.count,
            "precision": job.precision,
            "stack": job.stack,
            "batch": job.batch_size,
        }
    return shown
