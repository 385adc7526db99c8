"""Measured tables of architecture searches that hold forward latencies, or name no accelerator.

One network in twenty of the large spaces is priced: the others are its look-alikes.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from predictor.calibrate.case import Case, Read, Refused, RowError
from predictor.calibrate.hardware import accelerator_id
from predictor.calibrate.readers.format import Format, each_row
from predictor.calibrate.rows import Row, number
from predictor.job import Job
from predictor.zoo.cells import bench201

EVERY = 20
# The devices of HELP (Lee et al., NeurIPS 2021) that are accelerators: "1080ti_256" is a batch of 256.
_DEVICES = {
    "1080ti": "GTX 1080 Ti",
    "2080ti": "RTX 2080 Ti",
    "titanx": "TITAN X (Maxwell)",
    "titanxp": "TITAN Xp",
    "titan_rtx": "TITAN RTX",
    "titan_xp": "TITAN Xp",
}
_COLUMN = re.compile(r"^(.+?)(?:_(1|32|64|256))?$")


def _bench201(path: Path, rows: Sequence[Row]) -> Iterator[Read]:
    """Every measured cell of the table, forward passes in milliseconds."""
    for index, row in enumerate(rows):
        place = f"{path.name}:{index + 2}"
        columns = [name for name in row if name not in {"nb201_index", "arch_str"} and row[name]]
        if index % EVERY:
            detail = f"one network in {EVERY} of the space is priced"
            yield Refused("help_nb201", place, "sample", detail, rows=len(columns))
            continue
        for column in columns:
            yield _cell(row, column, f"{place} {column}")


def _cell(row: Row, column: str, place: str) -> Read:
    found = _COLUMN.match(column)
    assert found is not None
    try:
        if found[1] not in _DEVICES:
            raise RowError("accelerator", f"'{found[1]}' is a processor, a phone or simulated")
        latency_ms = number(row, column)
        accelerator = accelerator_id(_DEVICES[found[1]])
    except RowError as error:
        return Refused("help_nb201", place, error.code, error.detail)
    batch = int(found[2] or 1)
    job = Job(
        model=partial(bench201, row["arch_str"]),
        inputs=["float32[B,3,32,32]"],
        hardware=accelerator,
        count=1,
        batch_size=batch,
        mode="infer",
        optimizer="none",
        stack="eager-1",
    )
    assert latency_ms is not None
    return Case(
        "help_nb201", place, "step", job, "nb201", accelerator, samples=batch, step_s=latency_ms * 1e-3
    )


def _no_accelerator(row: Row, place: str) -> Read:
    raise RowError("accelerator-unknown", "the source names none")


def _no_width(row: Row, place: str) -> Read:
    raise RowError("definition", "the width of the search space's network is not published")


FORMATS = (
    Format("help_nb201", frozenset({"nb201_index", "arch_str"}), _bench201),
    Format("help_fbnet", frozenset({"idx", "op_idx_list"}), each_row("help_fbnet", _no_width)),
    Format("help_ofa", frozenset({"idx", "arch", "2080ti_1"}), each_row("help_ofa", _no_width)),
    Format(
        "archai_facial",
        frozenset({"archid", "onnx_latency (ms)", "config"}),
        each_row("archai_facial", _no_accelerator),
    ),
    Format(
        "nasbench_nlp_wt2",
        frozenset({"recepie_id", "recepie", "median_epoch_s"}),
        each_row("nasbench_nlp_wt2", _no_accelerator),
    ),
)
