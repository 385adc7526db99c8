"""GPUMemNet: peaks that nvidia-smi saw on one A100 40 GB while timm models and generated MLPs trained."""

import re
from functools import partial
from typing import Any

from predictor.calibrate.case import Case, Refused, RowError
from predictor.calibrate.hardware import accelerator_id
from predictor.calibrate.models import timm
from predictor.calibrate.readers.format import Format, each_row
from predictor.calibrate.rows import Row, number, whole
from predictor.job import Job
from predictor.units import MIB
from predictor.zoo.chains import chain

TIMM, CHAINS = "gpumemnet_timm", "gpumemnet_mlp"
_TIMM_COLUMNS = frozenset("model batch measured_peak_mib faketensor_pred_mib over_capacity family".split())
_CHAIN_COLUMNS = frozenset("layers activation total_params batch measured_peak_mib".split())
_DEVICE = "A100-PCIe-40GB"
"""Named in the source's plotting scripts without its form; memory is the same in both."""


def _read_timm(row: Row, place: str) -> Case | Refused:
    if row["over_capacity"] == "1":
        raise RowError("flagged", "the run probably died for memory")
    choice = timm(row["model"])
    return _case(row, place, TIMM, row["family"], {"model": choice.model})


def _read_chain(row: Row, place: str) -> Case | Refused:
    if row.get("over_capacity") == "1":
        raise RowError("flagged", "the run probably died for memory")
    parts = [(kind, int(size), int(count)) for kind, size, count in _PART.findall(row["layers"])]
    first = next(((size, count) for kind, size, count in parts if kind == "linear"), None)
    if first is None:
        raise RowError("definition", "no linear layer")
    width = first[1] // first[0] - 1  # parameters of a layer: outputs times (inputs + 1)
    model = partial(chain, width, tuple((kind, size) for kind, size, _ in parts))
    return _case(row, place, CHAINS, "mlp", {"model": model, "inputs": [f"float32[B,{width}]"]})


_PART = re.compile(r"\((\w+),(\d+),(\d+)\)")


def _case(row: Row, place: str, name: str, family: str, fields: dict[str, Any]) -> Case:
    batch, peak = whole(row, "batch"), number(row, "measured_peak_mib")
    if batch is None or peak is None:
        raise RowError("measurement", "no batch or no peak")
    accelerator = accelerator_id(_DEVICE)
    job = Job(
        hardware=accelerator,
        count=1,
        batch_size=batch,
        precision="fp32",
        optimizer="adam",
        stack="eager-2",
        **fields,
    )
    count = number(row, "total_params") if "total_params" in row else None
    return Case(
        name,
        place,
        "step",
        job,
        family,
        accelerator,
        samples=batch,
        peak_byte=peak * MIB,
        parameters=count,
    )


FORMATS = (
    Format(TIMM, _TIMM_COLUMNS, each_row(TIMM, _read_timm)),
    Format(CHAINS, _CHAIN_COLUMNS, each_row(CHAINS, _read_chain)),
)
