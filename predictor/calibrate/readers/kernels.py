"""Measured kernels: products, attention, experts, casts; a table becomes a few groups of rows.

The rows of one accelerator, software and type are one case with arrays in its ``detail``: they are priced and
scored together (see ``kernel_prices``).
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from predictor.calibrate.case import Case, Read, Refused, RowError
from predictor.calibrate.hardware import accelerator_id
from predictor.calibrate.kernel_tables import Columns, from_rows
from predictor.calibrate.readers.format import Format
from predictor.calibrate.rows import Row
from predictor.values import Array

# Systems as AIConfigurator names its files.
SYSTEMS = {
    "a100_sxm": "nvidia-a100-sxm4-80gb",
    "h100_sxm": "nvidia-h100-sxm5-80gb",
    "h200_sxm": "nvidia-h200-sxm5-141gb",
    "b200_sxm": "nvidia-b200-sxm-180gb",
    "b300_sxm": "nvidia-b300-sxm",
    "gb200": "nvidia-gb200",
    "gb300": "nvidia-gb300",
    "l40s": "nvidia-l40s",
    "rtx_pro_6000_server": "nvidia-rtx-pro-6000-blackwell-server",
    "b60": "intel-arc-pro-b60",
}
Clean = Callable[[Columns], Columns]


def system_of(path: Path) -> str:
    """Profile id of the system a file is named after; RowError when none is."""
    name = path.name.partition(".")[0]
    for system in sorted(SYSTEMS, key=len, reverse=True):
        if system in name:
            return SYSTEMS[system]
    raise RowError("accelerator-unknown", f"the file name '{path.name}' holds no system")


def groups(
    path: Path,
    source: str,
    form: str,
    columns: Columns,
    keys: Sequence[str],
    how: dict[str, Any] | None = None,
    accelerator: str | None = None,
) -> Iterator[Read]:
    """One case for each combination of texts; rows with an impossible figure are refused.

    keys         text columns that are constant inside a case and go into its ``how``
    accelerator  its id; without it the column "device" names it
    """
    figures = [column for name, column in columns.number.items() if name not in _MAY_BE_ZERO]
    good = np.all([np.isfinite(column) & (column > 0) for column in figures], axis=0)
    if not good.all():
        yield Refused(source, path.name, "value", "negative, zero or no number", int((~good).sum()))
        columns = columns.where(good)
    if not columns.rows:
        return
    names = [columns.text[key] for key in keys]
    label = np.array(["\t".join(parts) for parts in zip(*names, strict=True)]) if names else np.array([""])
    for text in dict.fromkeys(label):
        mine = columns.where(label == text) if names else columns
        values = dict(zip(keys, str(text).split("\t"), strict=True)) if names else {}
        yield _case(path, source, form, mine, {**(how or {}), **values}, accelerator)


_MAY_BE_ZERO = {"power_w", "power_limit_w", "causal", "padding", "more_byte", "ranks_apart"}


def _case(
    path: Path, source: str, form: str, rows: Columns, how: dict[str, Any], accelerator: str | None
) -> Read:
    try:
        id_ = accelerator or accelerator_id(how["device"])
    except RowError as error:
        return Refused(source, path.name, error.code, error.detail, rows.rows)
    return Case(
        source=source,
        row=path.name,
        kind="kernel",
        job=None,
        family=form,
        accelerator=id_,
        rows=rows.rows,
        detail={"form": form, "columns": rows, "how": how},
    )


def _system_table(
    source: str,
    form: str,
    numbers: Sequence[str],
    texts: Sequence[str],
    change: Clean | None = None,
    how: dict[str, Any] | None = None,
) -> Format:
    """A table whose file name says the system."""

    def read(path: Path, rows: Sequence[Row]) -> Iterator[Read]:
        try:
            accelerator = system_of(path)
        except RowError as error:
            yield Refused(source, path.name, error.code, error.detail, len(rows))
            return
        columns = from_rows(rows, numbers, texts)
        yield from groups(path, source, form, change(columns) if change else columns, texts, how, accelerator)

    return Format(source, frozenset((*numbers, *texts)), read)


def _causal(columns: Columns) -> Columns:
    return with_numbers(columns, causal=np.ones(columns.rows))


def with_numbers(columns: Columns, **numbers: Array) -> Columns:
    """The columns with further ones."""
    return Columns({**columns.number, **numbers}, columns.text, columns.rows)


_PRODUCT = ["m", "n", "k", "latency_ms"]
_POWER = ["power_w", "power_limit_w"]
_ATTENTION = ["batch", "seq_len", "heads", "kv_heads", "head_dim", "latency_ms"]
_EXPERTS = ("num_tokens hidden_size inter_size topk num_experts moe_tp_size moe_ep_size latency_ms").split()

FORMATS = (
    _system_table("aiconfigurator products", "products", _PRODUCT, ["stack", "dtype"]),
    _system_table(
        "aiconfigurator products, sustained",
        "products",
        [*_PRODUCT, *_POWER],
        ["stack", "dtype"],
        how={"sustained": 1.0},
    ),
    _system_table("aiconfigurator attention", "attention", [*_ATTENTION, "causal"], ["stack"]),
    _system_table(
        "aiconfigurator attention, sustained",
        "attention",
        [*_ATTENTION, *_POWER],
        ["stack"],
        _causal,
        {"sustained": 1.0},
    ),
    _system_table("aiconfigurator experts", "experts", _EXPERTS, ["stack", "dtype", "distribution"]),
    _system_table("aiconfigurator casts", "casts", ["m", "k", "latency_ms"], ["stack", "dtype"]),
)
