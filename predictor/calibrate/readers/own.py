"""Users' own measurements: one row per measured step, columns named as the options of a job."""

from typing import Any

from predictor.calibrate.case import Case, Refused, RowError
from predictor.calibrate.models import family_of
from predictor.calibrate.readers.format import Format, each_row
from predictor.calibrate.rows import Row, number, whole
from predictor.errors import InputError
from predictor.job import Job
from predictor.profile import find_profile
from predictor.units import GIGA

NAME = "measurements"
COLUMNS = frozenset({"model", "hardware"})
_WORDS = ("precision", "optimizer", "stack", "memory_format", "recompute", "mode")
_COUNTS = ("count", "nodes", "micro_batch", "seq_len", "image_size", "dp", "tp", "pp", "ep", "cp", "zero")
MEASURED = ("step_s", "samples_per_s", "peak_gb", "watts")


def _read(row: Row, place: str) -> Case | Refused:
    """A row of a user's table.

    model, hardware  as on the command line
    batch            samples of one step over all accelerators
    step_s           seconds of one step, or samples_per_s
    peak_gb          peak memory of one accelerator as its driver reports it, in 1e9 byte
    watts            mean board power of one accelerator
    Further columns are named after the options of a job, empty cells take their defaults; ``source`` names
    the part of the report, ``parameters`` is checked against the model's.
    """
    source = row.get("source") or NAME
    step_s, speed = number(row, "step_s"), number(row, "samples_per_s")
    peak_gb, watt = number(row, "peak_gb"), number(row, "watts")
    if step_s is None and speed is None and peak_gb is None and watt is None:
        raise RowError("measurement", f"all of {', '.join(MEASURED)} are empty")
    batch = whole(row, "batch")
    if batch is None:
        raise RowError("batch", "the batch cell is empty")
    if not row["model"]:
        raise RowError("definition", "the model cell is empty")
    accelerator = _profile(row["hardware"])
    fields: dict[str, Any] = {name: whole(row, name) for name in _COUNTS if row.get(name)}
    fields |= {name: row[name].strip() for name in _WORDS if row.get(name)}
    try:
        job = Job(model=row["model"], hardware=accelerator, batch_size=batch, **{"count": 1, **fields})
    except InputError as error:
        raise RowError("plan", str(error)) from None
    if step_s is None and speed is not None:
        step_s = batch / speed
    return Case(
        source=source,
        row=place,
        kind="step",
        job=job,
        family=family_of(row["model"].rpartition(":")[2]),
        accelerator=accelerator,
        samples=batch,
        step_s=step_s,
        peak_byte=None if peak_gb is None else peak_gb * GIGA,
        watt=watt,
        parameters=number(row, "parameters"),
    )


def _profile(name: str) -> str:
    """Id of the profile that a user calls by this name."""
    if not name.strip():
        raise RowError("accelerator-unknown", "the hardware cell is empty")
    try:
        return find_profile(name.strip()).id
    except InputError as error:
        raise RowError("accelerator", str(error).splitlines()[0]) from None


FORMATS = (
    Format(NAME, COLUMNS | {"batch", "step_s"}, each_row(NAME, _read)),
    Format(NAME, COLUMNS | {"batch", "samples_per_s"}, each_row(NAME, _read)),
    Format(NAME, COLUMNS | {"batch", "peak_gb"}, each_row(NAME, _read)),
    Format(NAME, COLUMNS | {"batch", "watts"}, each_row(NAME, _read)),
)
