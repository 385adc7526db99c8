"""One accelerator's facts, read strictly from ``hardware_profiles/<id>.toml``.

A profile describes one device as software sees it. Every number keeps its source, date, status and
range; a figure that the file leaves away and the model needs (a vector peak) is filled from a class
default below, marked ``estimate`` with a wide range, and named in ``notes`` for the ledger.
``hardware_profiles/README.md`` explains each field.
"""

import datetime
import re
import tomllib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from predictor.errors import InputError, did_you_mean
from predictor.units import to_base
from predictor.values import Sourced

DTYPES = ("fp64", "fp32", "tf32", "fp16", "bf16", "fp8")

DIMENSIONS = {
    **{f"peak.{dtype}": "flop rate" for dtype in DTYPES},
    "memory.capacity": "size",
    "memory.bandwidth": "byte rate",
    "cache.onchip": "size",
    "compute_units": "number",
    "clock.boost": "frequency",
    "link.intranode": "byte rate",
    "link.internode": "byte rate",
    "power.limit": "power",
    "power.idle": "power",
    "embodied": "carbon",
}
"""What each table of a profile measures."""

# fp32 on the vector units as a share of the 16-bit matrix peak, where the maker publishes none.
# TPU v5p: 4 units x 8 x 128 lanes x 1.75 GHz x 2 cores = 14 of 459 TFLOP/s, a share of 0.031.
VECTOR_SHARE = Sourced(
    value=1 / 32,
    low=1 / 64,
    high=1 / 8,
    source="estimate: fp32 vector rate as a share of the bf16 peak, after the TPU v5p vector unit in "
    "'How To Scale Your Model', TPU chapter",
    as_of="2025-02-18",
    status="estimate",
)

Note = tuple[str, str, str]
"""(topic, text, advice)"""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One device as software sees it, in base units.

    kind                  gpu, tpu, asic or cpu
    status                "fitted" when a ``.fit.json`` lies beside the profile, else "spec-only"
    peak_flop_per_s       dense peak by dtype; fp32 is the vector rate, 16 bit and below the matrix
                          rate with fp32 accumulation where the hardware has one [flop/s]
    memory_byte           what the driver offers to programs [byte]
    memory_byte_per_s     device memory, read plus write [byte/s]
    cache_byte            last level on the chip [byte]
    intranode_byte_per_s  to the other accelerators of the node, one direction, all links [byte/s]
    internode_byte_per_s  to other nodes, one direction, reference node of the vendor [byte/s]
    per_node              devices in the usual node
    fabric_size           devices the intranode link joins at full rate: a node, or a whole TPU pod
    idle_w                board, nothing running, with a context open [W]
    limit_w               default power limit, or the most a chip was seen to draw [W]
    embodied_kgco2e       making one device [kg CO2e]
    notes                 what a user must know: (topic, text, advice)
    """

    id: str
    name: str
    vendor: str
    architecture: str
    kind: str
    status: str
    training: bool
    release_date: str
    aliases: tuple[str, ...]
    peak_flop_per_s: dict[str, Sourced]
    memory_byte: Sourced
    memory_byte_per_s: Sourced
    cache_byte: Sourced | None
    compute_units: Sourced | None
    clock_hz: Sourced | None
    intranode_byte_per_s: Sourced | None
    internode_byte_per_s: Sourced | None
    per_node: int
    fabric_size: int
    idle_w: Sourced
    limit_w: Sourced | None
    embodied_kgco2e: Sourced | None
    notes: tuple[Note, ...]


Text = Annotated[str, Field(min_length=1)]
Day = datetime.date | Annotated[str, Field(pattern=r"^\d{4}(-\d{2})?$")]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Quantity(_Table):
    """A number as its source prints it."""

    value: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    unit: str = ""
    source: Text
    as_of: Day
    status: Literal["verified", "derived", "from memory", "estimate"]
    low: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    high: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    sparse: bool = False
    note: Text | None = None


class _Peak(_Table):
    fp64: _Quantity | None = None
    fp32: _Quantity | None = None
    tf32: _Quantity | None = None
    fp16: _Quantity | None = None
    bf16: _Quantity | None = None
    fp8: _Quantity | None = None


class _Memory(_Table):
    capacity: _Quantity
    bandwidth: _Quantity


class _Cache(_Table):
    onchip: _Quantity | None = None


class _Clock(_Table):
    boost: _Quantity | None = None


class _Link(_Table):
    intranode: _Quantity | None = None
    internode: _Quantity | None = None


class _Power(_Table):
    idle: _Quantity
    limit: _Quantity | None = None


class _Remark(_Table):
    topic: Text
    text: Text
    advice: str = ""


class _File(_Table):
    """The whole file; ``hardware_profiles/README.md`` holds the same list for people."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    name: Text
    vendor: Text
    architecture: Text
    kind: Literal["gpu", "tpu", "asic", "cpu"]
    status: Literal["spec-only", "fitted"]
    training: bool
    release_date: Day
    aliases: list[Text]
    accelerators_per_node: Annotated[int, Field(ge=1)]
    software_sees: Annotated[int, Field(ge=1)] = 1
    fabric_size: Annotated[int, Field(ge=1)] | None = None
    peak: _Peak
    memory: _Memory
    power: _Power
    cache: _Cache = _Cache()
    compute_units: _Quantity | None = None
    clock: _Clock = _Clock()
    link: _Link = _Link()
    embodied: _Quantity | None = None
    notes: list[_Remark] = []


def fold(name: str) -> str:
    """The form in which names are compared: no case, space, hyphen or underscore.

    >>> fold("H100 SXM") == fold("h100_sxm") == fold("h100-sxm")
    True
    """
    return re.sub(r"[\s_-]+", "", name).casefold()


def profiles_dir() -> Path:
    """``hardware_profiles/`` beside the package (source checkout), else inside it (installed)."""
    package = Path(__file__).resolve().parent
    beside = package.parent / "hardware_profiles"
    return beside if beside.is_dir() else package / "hardware_profiles"


def list_profiles() -> list[str]:
    """Ids of all profiles, sorted."""
    return sorted(path.stem for path in profiles_dir().glob("[!_]*.toml"))


def find_profile(name: str) -> Accelerator:
    """The profile with this id or alias, or the one in this ``.toml`` file.

    Case, spaces, hyphens and underscores do not matter. Raises InputError with near matches.
    """
    if name.endswith(".toml"):
        return load_profile(Path(name))
    direct = profiles_dir() / (re.sub(r"[\s_]+", "-", name.strip().casefold()) + ".toml")
    if direct.parent == profiles_dir() and not direct.name.startswith("_") and direct.is_file():
        return _shipped(direct)
    known = _names()
    if fold(name) not in known:
        spelled = [n for id_ in list_profiles() for n in (id_, *_aliases(id_))]
        raise InputError(
            f"unknown accelerator '{name}'{did_you_mean(name, spelled)}\nknown names: predictor hardware"
        )
    return _shipped(profiles_dir() / f"{known[fold(name)]}.toml")


@cache
def _shipped(path: Path) -> Accelerator:
    return load_profile(path)


def _aliases(id_: str) -> list[str]:
    """The aliases of one shipped profile as its file spells them."""
    found = _read(profiles_dir() / f"{id_}.toml").get("aliases", [])
    return [str(alias) for alias in found]


@cache
def _names() -> dict[str, str]:
    """Folded id or alias -> id; a name with two owners is an error that names both."""
    owner: dict[str, str] = {}
    for id_ in list_profiles():
        for name in (id_, *_aliases(id_)):
            first = owner.setdefault(fold(name), id_)
            if first != id_:
                raise InputError(f"alias '{name}' belongs to both {first}.toml and {id_}.toml")
    return owner


def load_profile(path: Path) -> Accelerator:
    """Read and check one profile file; InputError names the file, the key and the rule."""
    try:
        file = _File.model_validate(_read(path))
    except ValidationError as error:
        raise InputError(_explain(error, path.name)) from None
    if file.id != path.stem:
        raise InputError(f"{path.name}: id is '{file.id}', it must equal the file name '{path.stem}'")
    return _accelerator(file, path.name)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no profile file '{path}'; known names: predictor hardware") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name}: not valid TOML: {error}") from None


def _explain(error: ValidationError, where: str) -> str:
    """One fault of the file, unknown keys first because they explain missing ones: file, key, rule."""
    faults = error.errors(include_url=False)
    fault = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    path = [str(part) for part in fault["loc"]]
    key = ".".join(path)
    if fault["type"] == "extra_forbidden":
        inside = ".".join(path[:-1]) or "the top level"
        return f"{where}: unknown key '{key}': {inside} does not take it; see hardware_profiles/README.md"
    if fault["type"] == "missing":
        return f"{where}: '{key}' is missing"
    return f"{where}: '{key}' is {fault['input']!r}: {fault['msg'].lower()}"


def _sourced(file: _File, key: str, where: str) -> Sourced | None:
    """The quantity under ``key`` in base units and per device, its rules checked; None when absent."""
    quantity: Any = file
    for part in key.split("."):
        quantity = getattr(quantity, part)
    if quantity is None:
        return None
    where = f"{where}: {key}"
    if (quantity.low is None) != (quantity.high is None):
        raise InputError(f"{where}: low and high belong together; give both")
    low = quantity.value if quantity.low is None else quantity.low
    high = quantity.value if quantity.high is None else quantity.high
    if quantity.sparse:
        raise InputError(f"{where}: sparse is true; give the dense figure, half of a 2:4 sparse headline")
    if not low <= quantity.value <= high:
        raise InputError(f"{where}: low {low} <= value {quantity.value} <= high {high} does not hold")
    if quantity.status == "estimate" and not low < high:
        raise InputError(f"{where}: an estimate carries a range; give low and high")
    share = 1 if key == "clock.boost" else 1 / file.software_sees
    value, low, high = (
        share * to_base(x, quantity.unit, DIMENSIONS[key], where) for x in (quantity.value, low, high)
    )
    return Sourced(value, low, high, quantity.source, str(quantity.as_of), quantity.status)


def _accelerator(file: _File, where: str) -> Accelerator:
    """The checked file as one device: a board that software sees as two is halved."""
    read = {key: found for key in DIMENSIONS if (found := _sourced(file, key, where)) is not None}
    idle_w, limit_w = read["power.idle"], read.get("power.limit")
    if limit_w and not idle_w.value < limit_w.value:
        raise InputError(f"{where}: power.idle {idle_w.value} W is not below power.limit {limit_w.value} W")
    peaks = {dtype: read[f"peak.{dtype}"] for dtype in DTYPES if f"peak.{dtype}" in read}
    peaks, assumed = _with_vector_peak(peaks, where)
    return Accelerator(
        id=file.id,
        name=file.name,
        vendor=file.vendor,
        architecture=file.architecture,
        kind=file.kind,
        status=file.status,
        training=file.training,
        release_date=str(file.release_date),
        aliases=tuple(file.aliases),
        peak_flop_per_s=peaks,
        memory_byte=read["memory.capacity"],
        memory_byte_per_s=read["memory.bandwidth"],
        cache_byte=read.get("cache.onchip"),
        compute_units=read.get("compute_units"),
        clock_hz=read.get("clock.boost"),
        intranode_byte_per_s=read.get("link.intranode"),
        internode_byte_per_s=read.get("link.internode"),
        per_node=file.accelerators_per_node * file.software_sees,
        fabric_size=(file.fabric_size or file.accelerators_per_node) * file.software_sees,
        idle_w=idle_w,
        limit_w=limit_w,
        embodied_kgco2e=read.get("embodied"),
        notes=tuple((remark.topic, remark.text, remark.advice) for remark in file.notes) + assumed,
    )


def _with_vector_peak(peaks: dict[str, Sourced], where: str) -> tuple[dict[str, Sourced], tuple[Note, ...]]:
    """``peaks`` with fp32 filled from VECTOR_SHARE when the file has none, and the note about it."""
    if "fp32" in peaks:
        return peaks, ()
    matrix = peaks.get("bf16") or peaks.get("fp16")
    if matrix is None:
        raise InputError(f"{where}: peak needs fp32, or bf16 or fp16 to estimate it from")
    vector = replace(
        VECTOR_SHARE,
        value=VECTOR_SHARE.value * matrix.value,
        low=VECTOR_SHARE.low * matrix.value,
        high=VECTOR_SHARE.high * matrix.value,
    )
    text = (
        f"no published fp32 vector peak: {vector.value / 1e12:.3g} TFLOP/s assumed, "
        f"{vector.low / 1e12:.2g} to {vector.high / 1e12:.2g}"
    )
    return {"fp32": vector, **peaks}, (
        ("vector peak", text, "measure an elementwise kernel and add [peak.fp32]"),
    )
