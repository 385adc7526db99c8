"""What a profile file may say: its keys, their units, and the rules that hold between its figures.

``read_file`` reads one ``hardware_profiles/<id>.toml``, refuses what breaks a rule with file, key and
rule, and returns the facts with every figure in base units. ``hardware_profiles/README.md`` holds the
same list for people.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from predictor.bounds import check_bounds
from predictor.errors import InputError
from predictor.quantity import Day, Quantity, Remark, Table, Text, check_past, explain, read_toml, sourced
from predictor.values import Sourced

README = "hardware_profiles/README.md"

DTYPES = ("fp64", "fp64_matrix", "fp32", "tf32", "fp16", "fp16_vector", "bf16", "fp8", "fp4", "int8")

DIMENSIONS = {
    **{f"peak.{dtype}": "operation rate" if dtype == "int8" else "flop rate" for dtype in DTYPES},
    "memory.capacity": "size",
    "memory.bandwidth": "byte rate",
    "cache.onchip": "size",
    "compute_units": "number",
    "clock.boost": "frequency",
    "link.intranode": "byte rate",
    "link.internode": "byte rate",
    "power.limit": "power",
    "power.idle": "power",
    "die.process": "length",
    "die.area": "area",
    "die.transistors": "number",
    "price.launch": "money",
    "embodied": "carbon",
}
"""What each table of a profile measures."""

_WHOLE = ("clock.boost", "die.process")
"""Figures that a board of two devices does not split between them."""


class _Peak(Table):
    fp64: Quantity | None = None
    fp64_matrix: Quantity | None = None
    fp32: Quantity | None = None
    tf32: Quantity | None = None
    fp16: Quantity | None = None
    fp16_vector: Quantity | None = None
    bf16: Quantity | None = None
    fp8: Quantity | None = None
    fp4: Quantity | None = None
    int8: Quantity | None = None


class _Memory(Table):
    capacity: Quantity
    bandwidth: Quantity | None = None


class _Cache(Table):
    onchip: Quantity | None = None


class _Clock(Table):
    boost: Quantity | None = None


class _Link(Table):
    intranode: Quantity | None = None
    internode: Quantity | None = None


class _Power(Table):
    idle: Quantity | None = None
    limit: Quantity | None = None


class _Die(Table):
    process: Quantity | None = None
    area: Quantity | None = None
    transistors: Quantity | None = None


class _Price(Table):
    launch: Quantity | None = None


class ProfileFile(Table):
    """The whole file, key by key."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    name: Text
    vendor: Text
    architecture: Text
    kind: Literal["gpu", "tpu", "asic", "cpu"]
    status: Literal["spec-only", "fitted"]
    training: bool
    training_note: Text | None = None
    release_date: Day
    aliases: list[Text]
    shared_names: list[Text] = Field(default_factory=list)
    accelerators_per_node: Annotated[int, Field(ge=1)]
    software_sees: Annotated[int, Field(ge=1)] = 1
    fabric_size: Annotated[int, Field(ge=1)] | None = None
    form_factor: Text | None = None
    compute_unit_kind: Text | None = None
    memory_type: Text | None = None
    cache_kind: Text | None = None
    link_kind: Text | None = None
    accumulate: Text | None = None
    sparsity: Text | None = None
    peak: _Peak = _Peak()
    memory: _Memory
    cache: _Cache = _Cache()
    compute_units: Quantity | None = None
    clock: _Clock = _Clock()
    link: _Link = _Link()
    power: _Power = _Power()
    die: _Die = _Die()
    price: _Price = _Price()
    embodied: Quantity | None = None
    notes: list[Remark] = Field(default_factory=list)


EARLIEST = "2005"
"""No older chip is described: programs for them did not exist."""

_INSTANCE = re.compile(r"^[a-z]+:[a-z0-9._-]+$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Facts:
    """A checked file: its words as written, its figures in base units and per device, their notes."""

    file: ProfileFile
    figures: dict[str, Sourced]
    choices: dict[str, str]


def read_file(path: Path) -> Facts:
    """Read and check one profile; InputError names the file, the key and the rule that it breaks."""
    return check_content(read_toml(path), path)


def check_content(content: dict[str, Any], path: Path) -> Facts:
    """Check what stands, or is about to stand, in the file ``path``; raises as ``read_file`` does."""
    where = str(path)
    if not content.get("id"):
        raise InputError(f"{where}: 'id' is missing")
    try:
        file = ProfileFile.model_validate(content)
    except ValidationError as error:
        raise InputError(explain(error, where, README)) from None
    if file.id != path.stem:
        raise InputError(f"{where}: id is '{file.id}', it must equal the file name '{path.stem}'")
    if not file.training and file.training_note is None:
        raise InputError(f"{where}: training is false; say why in 'training_note'")
    _check_words(file, path)
    written = {key: found for key in DIMENSIONS if (found := _quantity(file, key)) is not None}
    figures = {
        key: sourced(
            found, DIMENSIONS[key], f"{where}: {key}", 1 if key in _WHOLE else 1 / file.software_sees
        )
        for key, found in written.items()
    }
    check_bounds(figures, where)
    _check_power(figures, where)
    _check_peaks(file, figures, where)
    return Facts(file, figures, {key: found.note for key, found in written.items() if found.note})


def _quantity(file: ProfileFile, key: str) -> Quantity | None:
    found: Any = file
    for part in key.split("."):
        found = getattr(found, part)
    assert found is None or isinstance(found, Quantity)
    return found


def _check_words(file: ProfileFile, path: Path) -> None:
    """Refuse an impossible release, and an alias that a cloud instance would have."""
    check_past(file.release_date, f"{path}: release_date")
    if str(file.release_date) < EARLIEST:
        raise InputError(f"{path}: release_date is {file.release_date}, accepted: from {EARLIEST} to today")
    for name in (*file.aliases, *file.shared_names):
        if _INSTANCE.match(name):
            raise InputError(
                f"{path}: aliases: '{name}' reads as a cloud instance, PROVIDER:NAME; take it out"
            )


def _check_power(figures: dict[str, Sourced], where: str) -> None:
    idle_w, limit_w = figures.get("power.idle"), figures.get("power.limit")
    if idle_w and limit_w and not idle_w.value < limit_w.value:
        raise InputError(f"{where}: power.idle {idle_w.value} W is not below power.limit {limit_w.value} W")


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two peaks and the span of their ratio where both are dense.

    ``slow`` may name several types: the fastest of them counts. ``halved`` is the span's end where
    `accumulate` says that fp32 accumulation runs at half rate, as on GeForce boards.
    """

    fast: str
    slow: tuple[str, ...]
    least: float
    most: float
    halved: float | None = None
    kinds: tuple[str, ...] = ("gpu", "tpu", "asic", "cpu")


HALF_RATE = "half rate"
"""What `accumulate` says where fp32 accumulation halves the rate of the matrix units."""

# Widest and narrowest ratio of dense peaks of shipped chips, with 2 to 12 % for rounding. A headline with
# 2:4 sparsity in one of two figures moves their ratio by 2. GPUs: tf32 runs at half of 16 bit (A10 to
# Rubin, MI300X, Max 1550), fp8 at twice (Ada to B300). Matrix engines of others differ more: Gaudi 3 and
# TPU v5p run fp8 as bf16, Groq int8 at four times fp16. int8 and fp4 keep the full rate where fp32
# accumulation halves the others (RTX 4090: int8 four times fp16). B300 runs fp4 at three times fp8.
# 16 bit over vector fp32: B200 30, Xeon with AMX 32, Gaudi 3 117.
_PAIRS = (
    _Pair("fp16", ("bf16",), 0, 1.02),
    _Pair("bf16", ("fp16",), 0, 1.02),
    _Pair("tf32", ("fp16", "bf16"), 0.45, 0.55, kinds=("gpu",)),
    _Pair("tf32", ("fp16", "bf16"), 0, 1.02, kinds=("tpu", "asic", "cpu")),
    _Pair("fp8", ("fp16", "bf16"), 1.8, 2.1, kinds=("gpu",)),
    _Pair("fp8", ("fp16", "bf16"), 0, 2.1, kinds=("tpu", "asic", "cpu")),
    _Pair("fp4", ("fp8",), 0, 3.1, halved=4.2),
    _Pair("int8", ("fp16", "bf16"), 0, 2.1, halved=4.2, kinds=("gpu",)),
    _Pair("int8", ("fp16", "bf16"), 0, 4.2, kinds=("tpu", "asic", "cpu")),
    _Pair("fp16", ("fp32",), 0, 70, kinds=("gpu", "cpu")),
    _Pair("bf16", ("fp32",), 0, 70, kinds=("gpu", "cpu")),
    _Pair("fp16", ("fp32",), 0, 240, kinds=("tpu", "asic")),
    _Pair("bf16", ("fp32",), 0, 240, kinds=("tpu", "asic")),
    _Pair("fp64", ("fp32",), 0, 1.05),
    _Pair("fp64_matrix", ("fp64",), 0.9, 2.1),
    _Pair("fp16_vector", ("fp32",), 0, 4.2),
)


def _emulated(dtype: str, figures: dict[str, Sourced]) -> bool:
    """True for a 16-bit rate below that of fp32: there for compatibility (P4, GTX 1080), no measure."""
    fp32 = figures.get("peak.fp32")
    return dtype in {"fp16", "bf16"} and fp32 is not None and figures[f"peak.{dtype}"].value < fp32.value


def _check_peaks(file: ProfileFile, figures: dict[str, Sourced], where: str) -> None:
    """Refuse a peak that stands to another as only a sparse headline would.

    The suspect is the faster type above the span and the slower one below it. A source that says dense
    is taken at its word when the suspect says ``sparse = false`` and why in its ``note``.
    """
    for pair in _PAIRS:
        slow = max(
            (dtype for dtype in pair.slow if f"peak.{dtype}" in figures),
            key=lambda dtype: figures[f"peak.{dtype}"].value,
            default=None,
        )
        if f"peak.{pair.fast}" not in figures or slow is None or file.kind not in pair.kinds:
            continue
        if _emulated(slow, figures):
            continue
        ratio = figures[f"peak.{pair.fast}"].value / figures[f"peak.{slow}"].value
        most = pair.halved if pair.halved and HALF_RATE in (file.accumulate or "") else pair.most
        if pair.least <= ratio <= most:
            continue
        suspect = pair.fast if ratio > most else slow
        stated = getattr(file.peak, suspect)
        if stated.sparse is False and stated.note:
            continue
        raise InputError(
            f"{where}: peak.{suspect}: {pair.fast} is {ratio:.3g} times {slow}, dense peaks stand at "
            f"{f'{pair.least:g} to ' if pair.least else 'up to '}{most:g}; a figure with sparsity is halved, "
            "one that its source calls dense says `sparse = false` and why in `note`"
        )
