"""One measured row and the job that repeats it, or the reason why there is none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from predictor.answer import Range
from predictor.job import Job
from predictor.values import Array

Kind = Literal["step", "run", "kernel", "collective"]
Bytes = Literal["device", "reserved", "allocated"]

# The written list: a row that is not scored carries one of these.
REASONS: dict[str, str] = {
    "accelerator": "no profile has this accelerator's name, or the name means several variants",
    "accelerator-unknown": "the table does not say which accelerator ran the row",
    "ambiguous": "several different networks fit what the row says",
    "batch": "the batch size is not published",
    "definition": "no model library, zoo definition or published size describes this model",
    "flagged": "the table's own notes call the row wrong or not a measurement of the whole need",
    "kernel": "no form prices this operator alone",
    "links": "the rate of the links between these accelerators is not known",
    "measurement": "the row holds no measured time, memory or power that can be compared",
    "method": "what ran is not a plain training step: adapters, reinforcement learning, one process for "
    "several accelerators, parameter servers across hosts",
    "model": "the model's step cannot be recorded with the row's sizes",
    "parameters": "the definition has another number of parameters than the row, by over 1 %",
    "plan": "the parallel plan is missing, does not multiply to the accelerators, or cannot be priced",
    "precision": "this arithmetic is not predicted, or the accelerator has no published rate for it",
    "sample": "one network of many alike is priced, to keep the time of a report within minutes",
    "shapes": "sequence length, image size or another shape is not published",
    "software": "the row's software does not use the vendor's kernels, so no software stack describes it",
    "value": "a figure of the row is negative, zero, not finite or not a number",
}


class RowError(Exception):
    """A row cannot become a case: a code of ``REASONS`` and what was found."""

    def __init__(self, code: str, detail: str) -> None:
        assert code in REASONS, code
        super().__init__(detail)
        self.code, self.detail = code, detail


@dataclass(frozen=True, slots=True)
class Case:
    """Rows of one table that measured the same job.

    source       name of the table, as the report shows it
    row          where the first of them stands, for people
    rows         how many rows of the table it stands for
    kind         "step" and "run" are priced as jobs; others by the pricer that is registered for them
    job          the question, without any measured figure
    family       models of one family stay on one side of a split
    accelerator  id of the profile
    samples      samples of one measured step, all accelerators together
    step_s       measured time of one step; for "run" of the whole run [s]
    peak_byte    measured peak of one accelerator [byte], of the kind that ``bytes`` names
    watt         measured mean board power of one accelerator [W]
    parameters   published number of parameters, ``slack`` its rounding
    limit_w      power limit that the row was measured under, None for the board's own [W]
    detail       what other kinds of case need
    """

    source: str
    row: str
    kind: Kind
    job: Job | None
    family: str
    accelerator: str
    rows: int = 1
    samples: float = 1.0
    step_s: float | None = None
    peak_byte: float | None = None
    bytes: Bytes = "device"
    watt: float | None = None
    parameters: float | None = None
    slack: float = 0.0
    limit_w: float | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    """Rows that are not scored, with a code of ``REASONS``."""

    source: str
    row: str
    code: str
    detail: str
    rows: int = 1
    accelerator: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True)
class Scored:
    """A case and its predicted ranges, in the units of the measured figures; None where not measured."""

    case: Case
    time: Range | None
    memory: Range | None
    power: Range | None


def model_name(model: Any) -> str:
    """The model of a job as words that are the same in every run.

    >>> from functools import partial
    >>> model_name("zoo:resnet50"), model_name(partial(round, 2.5))
    ('zoo:resnet50', 'round(2.5)')
    """
    if isinstance(model, partial):
        return f"{model.func.__name__}({', '.join(map(str, model.args))})"
    return str(model)


@dataclass(frozen=True, slots=True)
class Bulk:
    """Many kernels of one accelerator, priced together: ranges and measured times [rows, s]."""

    case: Case
    low: Array
    mid: Array
    high: Array
    measured: Array


Read = Case | Refused
Outcome = Scored | Refused | Bulk
