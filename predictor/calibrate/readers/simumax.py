"""SimuMax's runs: Megatron on eight B200, reduced depth, step time and peak of allocated memory."""

from typing import Any

from predictor.calibrate.case import Case, Refused, RowError
from predictor.calibrate.hardware import accelerator_id
from predictor.calibrate.readers.format import Format, each_row
from predictor.calibrate.readers.language import config_file
from predictor.calibrate.readers.public_models import PUBLIC
from predictor.calibrate.rows import Row, number, whole
from predictor.job import Job
from predictor.units import GIB

NAME = "simumax_e2e"
COLUMNS = frozenset(
    "case model device num_gpus layers tp pp dp ep cp seq_len micro_batch num_micro_batches "
    "measured_iter_ms measured_peak_alloc_gib".split()
)
_PUBLIC = {
    "llama3_70b": "llama370b",
    "llama3_405b": "llama3.1405b",
    "deepseekv2": "deepseekv2",
    "deepseekv3": "deepseekv3",
}


def _read(row: Row, place: str) -> Case | Refused:
    accelerator = accelerator_id(row["device"])
    sizes = {name: whole(row, name) for name in ("tp", "pp", "dp", "ep", "cp")}
    count, layers = whole(row, "num_gpus"), whole(row, "layers")
    micro, repeats, length = whole(row, "micro_batch"), whole(row, "num_micro_batches"), whole(row, "seq_len")
    base = PUBLIC.get(_PUBLIC.get(row["model"], ""))
    if base is None:
        raise RowError("definition", f"'{row['model']}'")
    if micro is None or repeats is None or sizes["dp"] is None or length is None:
        raise RowError("batch", "micro-batch, accumulation, data parallel size or length is missing")
    config: dict[str, Any] = {**base, "num_hidden_layers": layers, "max_position_embeddings": length}
    if "first_k_dense_replace" in config:
        config["first_k_dense_replace"] = 1
    job = Job(
        model=config_file(config),
        hardware=accelerator,
        count=count,
        batch_size=micro * repeats * sizes["dp"],
        micro_batch=micro,
        seq_len=length,
        precision="bf16",
        stack="megatron-fused",
        optimizer="adam",
        zero=1,
        **{name: size for name, size in sizes.items() if size},
    )
    step_ms, peak = number(row, "measured_iter_ms"), number(row, "measured_peak_alloc_gib")
    return Case(
        source=NAME,
        row=place,
        kind="step",
        job=job,
        family=row["model"],
        accelerator=accelerator,
        samples=micro * repeats * sizes["dp"],
        step_s=None if step_ms is None else step_ms * 1e-3,
        peak_byte=None if peak is None else peak * GIB,
        bytes="allocated",
    )


FORMATS = (Format(NAME, COLUMNS, each_row(NAME, _read, count=8)),)
