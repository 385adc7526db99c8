"""The rates of one chip that kernel forms need: facts of its profile, and its fit or its class's values.

A chip with measured kernels has a ``<id>.fit.json`` beside its profile; any other takes the values of its
class from ``data/kernels/products.json``: the kernel family by architecture, the loss of rate by peak per
watt, wide ranges for makers of whom no chip was measured. Ranges are standard deviations of logarithms.
"""

import json
from dataclasses import dataclass, replace
from functools import cache
from math import exp
from pathlib import Path
from typing import Any

import numpy as np

from predictor.errors import InputError
from predictor.kernels.residual import Lattice, mean, unpack
from predictor.profile import Accelerator, own_profiles_dir, profiles_dir
from predictor.values import Sourced

PRODUCTS_JSON = Path(__file__).resolve().parent.parent / "data" / "kernels" / "products.json"
_ASYNCHRONOUS = ("Hopper", "Blackwell", "Rubin")
_Z95 = 1.645
RATES = ("eta", "em", "t0_s", "throttle", "attention", "experts", "quantized", "vector")
# Where a profile is silent. 4096 flop per clock and processor: H100, 989 TFLOP/s of 132 SM at 1.83 GHz. What
# is no GPU is seen as that many processors: its own units are too large to fill one by one.
_CLOCK_HZ, _FLOP_PER_CLOCK, _CACHE_BYTE, _DENSITY = 1.5e9, 4096.0, 8e6, 0.8
# Rate of long training over the burst rate, by 16-bit TFLOP/s per watt of the power limit: (low, mid, high).
# A100 PCIe training products, one-second loops on H200 and B200, B200 Megatron products.
_SUSTAINED_AT = (0.9, 1.4, 2.0)
_SUSTAINED = ((0.90, 0.95, 1.0), (0.80, 0.88, 0.95), (0.60, 0.72, 0.90))


@dataclass(frozen=True, slots=True)
class Spread:
    """Standard deviations of ln(measured / predicted) beside the draws of eta, em and t0.

    common  one draw for all kernels of a kind on a chip: what software and the form do to all of them
    own     one for each kernel that fills the chip; averages out over a step
    small   likewise for small or odd kernels
    """

    common: float
    own: float
    small: float


@dataclass(frozen=True, slots=True)
class Products:
    """Constants of the tile form for one kernel family (see ``tiles``).

    prologue_cycles  of a tile before its first product [clock]
    wave             share of a last wave's empty part that is paid
    edge             extra work of narrow tiles
    l2_byte          from the last cache to one processor per clock [byte]
    sync_s           to join the parts of a split sum [s]
    softness         exponent of the smooth maximum
    """

    prologue_cycles: float
    wave: float
    edge: float
    l2_byte: float
    sync_s: float
    softness: float


@dataclass(frozen=True, slots=True)
class ChipRates:
    """One chip as the kernel forms see it.

    fitted                whether products of this chip were measured
    family                "classic" or "asynchronous"
    generation            chips of one run the same kernels
    units, clock_hz       processors and their clock
    bandwidth_byte_per_s  datasheet
    cache_byte            last cache on the chip
    eta                   share of the matrix peak that full waves of large tiles reach, in burst
    em                    share of the bandwidth
    t0_s                  of a kernel that does nothing, replayed from a graph [s]
    throttle              slow-down per decade of kernel time over 0.3 ms, in burst
    sustained             rate of long training over the burst rate: clocks at the power limit
    attention             share of the matrix peak inside fused attention, forward
    experts               share of the matrix peak inside fused expert products
    quantized             share of the 8-bit peak over that of the 16-bit peak
    vector                share of the fp32 vector peak in large fp32 products
    spread                by kind: matmul, attention, attention-backward, experts, fp8, vector
    residual              what the tile form misses on this generation's chips, by sides; None if unknown
    """

    id: str
    fitted: bool
    family: str
    generation: str
    units: float
    clock_hz: float
    bandwidth_byte_per_s: float
    cache_byte: float
    eta: Sourced
    em: Sourced
    t0_s: Sourced
    throttle: Sourced
    sustained: Sourced
    attention: Sourced
    experts: Sourced
    quantized: Sourced
    vector: Sourced
    products: Products
    spread: dict[str, Spread]
    residual: Lattice | None


def bare(accelerator: Accelerator) -> ChipRates:
    """The facts of a chip with every fitted value at one: where a fit starts."""
    one = Sourced(1.0, 1.0, 1.0, "not fitted", "", "derived")
    return ChipRates(
        id=accelerator.id,
        fitted=False,
        family=family_of(accelerator),
        generation=generation(accelerator),
        units=processors(accelerator),
        clock_hz=_clock_hz(accelerator),
        bandwidth_byte_per_s=accelerator.memory_byte_per_s.value,
        cache_byte=accelerator.cache_byte.value if accelerator.cache_byte else _CACHE_BYTE,
        sustained=sustained(density(accelerator)),
        products=Products(1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
        spread={},
        residual=None,
        **dict.fromkeys(RATES, one),
    )


def rates(accelerator: Accelerator) -> ChipRates:
    """The rates of this accelerator: its fit where one lies beside its profile, else its class's."""
    data, fit = shared(), _with_rates(chip_fit(accelerator.id))
    values = class_values(accelerator, data) | (fit["rates"] if fit else {})
    known = "fitted" if fit else "same-maker" if accelerator.vendor == "NVIDIA" else "other-maker"
    facts = bare(accelerator)
    number = {name: _sourced(values[name], fit or data) for name in RATES}
    return replace(
        facts,
        fitted=fit is not None,
        products=Products(**data["form"]["common"], **data["form"][facts.family]),
        spread={kind: Spread(*row) for kind, row in data["spread"][known].items()},
        residual=residual(accelerator, data, fit),
        eta=number["eta"],
        em=number["em"],
        t0_s=number["t0_s"],
        throttle=number["throttle"],
        attention=number["attention"],
        experts=number["experts"],
        quantized=number["quantized"],
        vector=number["vector"],
    )


def _with_rates(fit: dict[str, Any] | None) -> dict[str, Any] | None:
    """A fit that measured kernels; one of whole steps alone leaves the rates to the class."""
    return fit if fit and "rates" in fit else None


def class_values(accelerator: Accelerator, data: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Value and standard deviation of the logarithm of every rate, for a chip without a fit.

    eta = e0 exp(-slope max(0, density - knee)): many flop per watt cannot all run at the full clock.
    """
    maker = data["classes"]["nvidia" if accelerator.vendor == "NVIDIA" else "other"]
    rule = data["density"]
    excess = max(0.0, density(accelerator) - rule["knee"])
    drop = exp(-rule["eta_slope"] * excess)
    found = {name: (float(value), float(sd)) for name, (value, sd) in maker.items()}
    eta, sd = found["eta"]
    if accelerator.vendor == "NVIDIA":
        known, family = data["attention"], family_of(accelerator)
        value = known["eta"].get(generation(accelerator)) or known["family"].get(family, known["family"][""])
        found["attention"] = (value, found["attention"][1])
        found["t0_s"] = (data["launch"].get(family, data["launch"][""]), found["t0_s"][1])
    throttle = max(rule["throttle_slope"] * excess, 1e-3)
    found["vector"] = (vector_share(accelerator, data["vector"]), found["vector"][1])
    return {**found, "eta": (eta * drop, sd), "throttle": (throttle, found["throttle"][1])}


def vector_share(accelerator: Accelerator, rule: dict[str, Any]) -> float:
    """Share of the fp32 vector peak in long products: the power limit over joule per flop of its process.

    CDNA multiplies FP32 on matrix units, at over the vector peak.
    """
    matrix = rule["matrix"].get(accelerator.architecture.partition(" ")[0])
    limit, process = accelerator.limit_w, accelerator.process_m
    if matrix or limit is None or process is None:
        return float(matrix or rule["usual"])
    node = min(rule["joule_per_flop"], key=lambda known: abs(float(known) - process.value * 1e9))
    most = limit.value / rule["joule_per_flop"][node]
    return float(min(rule["most"], most / accelerator.peak_flop_per_s["fp32"].value))


def residual(accelerator: Accelerator, data: dict[str, Any], fit: dict[str, Any] | None) -> Lattice | None:
    """The chip's own lattice, else the mean of the fitted chips of its generation, else None."""
    if fit:
        return unpack(fit["residual"]) if "residual" in fit else None
    return _of_generation(
        generation(accelerator), tuple(data["generations"].get(generation(accelerator), ()))
    )


@cache
def _of_generation(name: str, ids: tuple[str, ...]) -> Lattice | None:
    found = [unpack(fit["residual"]) for id_ in ids if (fit := chip_fit(id_)) and "residual" in fit]
    return mean(found) if found else None


def family_of(accelerator: Accelerator) -> str:
    """ "asynchronous" where products run in kernels that copy beside computing and hide their last wave."""
    beside = accelerator.architecture.startswith(_ASYNCHRONOUS) and "HBM" in accelerator.memory_type
    return "asynchronous" if beside else "classic"


def generation(accelerator: Accelerator) -> str:
    """Chips of one generation run the same kernels: "Hopper", "Blackwell", "Ampere", "Ampere GDDR" ...

    Data centre chips (with HBM) and workstation chips of one architecture differ in their processors.
    """
    name = accelerator.architecture.partition(" ")[0]
    return name if "HBM" in accelerator.memory_type else f"{name} GDDR"


def matrix_peak(accelerator: Accelerator) -> float:
    """Dense 16-bit peak, else the fp32 one [flop/s]."""
    peaks = accelerator.peak_flop_per_s
    return next((peaks[d].value for d in ("bf16", "fp16") if d in peaks), peaks["fp32"].value)


def density(accelerator: Accelerator) -> float:
    """TFLOP/s of 16-bit peak for each watt of the power limit, 0.8 where no limit is known."""
    limit = accelerator.limit_w
    return matrix_peak(accelerator) / 1e12 / limit.value if limit else _DENSITY


def processors(accelerator: Accelerator) -> float:
    """Processors that tiles are spread over."""
    if accelerator.kind == "gpu" and accelerator.compute_units:
        return accelerator.compute_units.value
    return max(1.0, round(matrix_peak(accelerator) / (_FLOP_PER_CLOCK * _clock_hz(accelerator))))


def _clock_hz(accelerator: Accelerator) -> float:
    return accelerator.clock_hz.value if accelerator.clock_hz else _CLOCK_HZ


def sustained(tflop_per_s_w: float) -> Sourced:
    """Rate of long training over the burst rate, by peak per watt.

    >>> sustained(0.5).value, sustained(3.0).value
    (0.95, 0.72)
    """
    low, mid, high = (
        float(np.interp(tflop_per_s_w, _SUSTAINED_AT, c)) for c in zip(*_SUSTAINED, strict=True)
    )
    source = "sustained over burst products: A100 PCIe, H200 and B200 loops, B200 Megatron shapes"
    return Sourced(mid, low, high, source, "2026-11-20", "derived")


def _sourced(pair: tuple[float, float], origin: dict[str, Any]) -> Sourced:
    value, sd = pair
    source, as_of = origin["source"], origin["as_of"]
    return Sourced(value, value * exp(-_Z95 * sd), value * exp(_Z95 * sd), source, as_of, "derived")


@cache
def shared() -> dict[str, Any]:
    """Constants of all forms, written by the fit."""
    return _json(PRODUCTS_JSON)


def fit_folders() -> tuple[Path, ...]:
    """Where fits lie, the user's own first."""
    return own_profiles_dir(), profiles_dir()


def chip_fit(id_: str) -> dict[str, Any] | None:
    """The fit that lies beside a profile, the user's own first; None without one."""
    for folder in fit_folders():
        path = folder / f"{id_}.fit.json"
        if path.is_file():
            return _read(path, path.stat().st_mtime_ns)
    return None


@cache
def _read(path: Path, _changed_ns: int) -> dict[str, Any]:
    return _json(path)


def _json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; InputError names the file when it is broken."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: a JSON object is needed, found {type(found).__name__}")
    return found
