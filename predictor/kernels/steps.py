"""Time of the kernels of a training step that are neither plain products nor fused attention.

A bound times a bounded utilisation: per family a share of the peak and of the bandwidth, tiles, waves and
short sums for products, classes as factors (see ``classes``), a stream for layout changes, a launch:

    t = [ (F/(P u))^p + (B/(W v))^p ]^(1/p) * exp(sum of terms) + s B/W * exp(sum of terms) + launch
    u = u_f * q_n^a * q_m^b * wave^c / (1 + K0/k) / misaligned,   v = v_f / (1 + x0/line)

All coefficients are fitted together on whole measured steps; ``data/kernels/steps.json`` holds them with the
spread that unseen model families and chips showed.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from predictor.kernels.chip import ChipRates, chip_fit
from predictor.kernels.classes import Class
from predictor.kernels.products import bounds_of
from predictor.ops import Kernel
from predictor.values import Z95, Array, Sourced

STEPS_JSON = Path(__file__).resolve().parent.parent / "data" / "kernels" / "steps.json"
_TILE, _WAVE_TILE = 64, 128
# Clocks above the datasheet's let a fitted share pass 1 a little.
MOST_COMPUTE, MOST_MEMORY, SOFTNESS = 1.15, 1.10, 4.0
# Rates of the class that the shares were fitted on (see ``chip``).
ETA, EM = 0.86, 0.80


@dataclass(frozen=True, slots=True)
class Sides:
    """What a kernel's product leaves of its rate, as logarithms [rows]; zero without a product.

    n, m     filled share of 64-wide tiles along each side
    wave     filled share of whole waves of 128 x 128 tiles
    k        length of the sum, 1 without a product
    """

    n: Array
    m: Array
    wave: Array
    k: Array

    def named(self) -> tuple[tuple[str, Array], ...]:
        """The logarithms with the name of their exponent."""
        return (("tile_n", self.n), ("tile_m", self.m), ("wave", self.wave))


def sides_of(classes: Sequence[Class], units: float) -> Sides:
    """Tiles and waves of every kernel over ``units`` processors.

    Short sides of weights fill tiles only in products of their own; a weight gradient is split along its sum,
    so its waves are full.
    """
    groups = np.array([c.groups for c in classes], float)
    m, n, k = (np.array([max(c.sides[i], 1) for c in classes], float) for i in range(3))
    product = np.array([not c.vector and c.sides[0] > 0 for c in classes])
    weight = np.array([c.family.endswith("wgrad") for c in classes])
    plain = np.array([c.family.startswith(("linear", "batched")) for c in classes])
    tiles = groups * np.ceil(n / _WAVE_TILE) * np.ceil(m / _WAVE_TILE)
    wave = tiles / units / np.ceil(tiles / units)
    return Sides(
        n=np.where(product, np.log(n / (_TILE * np.ceil(n / _TILE))), 0.0),
        m=np.where(product & (weight | plain), np.log(m / (_TILE * np.ceil(m / _TILE))), 0.0),
        wave=np.where(product & ~weight, np.log(wave), 0.0),
        k=np.where(product, k, np.inf),
    )


@dataclass(frozen=True, slots=True)
class Family:
    """Shares of one family, and what channels-last layout changes in their logarithms.

    compute, memory, stream  shares of peak, of bandwidth, and extra passes over the bytes
    line                     elements at which half of the bandwidth is reached
    last                     added to the logarithms of the three shares in channels-last layout
    spread                   standard deviation of the logarithm of its time in an unseen model family
    """

    compute: float
    memory: float
    stream: float
    line: float
    last: tuple[float, float, float]
    spread: float


@dataclass(frozen=True, slots=True)
class Form:
    """The fitted coefficients.

    families    by name; ``other`` stands in for a name without a row
    terms       weight of every named term; a term never seen weighs 0
    unseen      standard deviation of the weight of a term never seen
    step        what the form misses in a whole step of an unseen model
    chip_compute, chip_memory  rates of an unseen chip over those of the fitted ones, at equal datasheets
    shape       logarithms of: norm p, exponents of n, m and wave, K0 of convolutions and of products,
                slowdown where misaligned, launch [s]; and the exponent of density itself
    """

    families: dict[str, Family]
    terms: dict[str, float]
    unseen: float
    shape: dict[str, float]
    step: Sourced
    chip_compute: Sourced
    chip_memory: Sourced
    source: str
    as_of: str
    status: str

    def family(self, name: str) -> Family:
        """The row of a family, of its base, or of what has no row."""
        base = name.rpartition("-")[0]
        return self.families.get(name) or self.families.get(f"{base}-fwd") or self.families["other"]


@cache
def step_form() -> Form:
    """Read ``data/kernels/steps.json``."""
    raw = json.loads(STEPS_JSON.read_text(encoding="utf-8"))
    families = {name: Family(**row | {"last": tuple(row["last"])}) for name, row in raw["families"].items()}
    ranges = {name: Sourced(**raw[name]) for name in ("step", "chip_compute", "chip_memory")}
    return Form(**raw | {"families": families} | ranges)


@dataclass(frozen=True, slots=True)
class ChipFactors:
    """A chip's rates and host time in whole steps over those its datasheet and class lead to.

    compute, products  on matrix rates of convolutions, and of products and attention: above 1 is faster
    vector, memory     on vector and memory rates, likewise
    host               on the host's seconds per launch: above 1 is slower
    """

    compute: Sourced
    products: Sourced
    vector: Sourced
    memory: Sourced
    host: Sourced


def chip_factors(id_: str, form: Form) -> ChipFactors:
    """From measured steps of this accelerator, in its ``.fit.json``, else what unseen chips scatter by."""
    fit = chip_fit(id_) or {}
    found = fit.get("steps", {})
    if "compute" in found:
        found = {"products": found["compute"], **found}  # a user's few steps do not tell them apart
    certain = replace(form.chip_compute, value=1.0, low=1.0, high=1.0)
    wide = {"compute": form.chip_compute, "vector": form.chip_compute, "memory": form.chip_memory}
    return ChipFactors(
        **{
            name: _factor(found[name], fit) if name in found else wide.get(name, certain)
            for name in ("compute", "products", "vector", "memory", "host")
        }
    )


def _factor(pair: Sequence[float], fit: dict[str, Any]) -> Sourced:
    """A logarithm and its standard deviation as a factor with a range."""
    middle, spread = pair
    low, mid, high = (float(np.exp(middle + z * spread)) for z in (-Z95, 0.0, Z95))
    return Sourced(mid, low, high, fit["source"], fit["as_of"], "derived")


@dataclass(frozen=True, slots=True)
class Parts:
    """Mid times of every kernel apart, classes included, so that draws can scale each [rows, s].

    given  rows whose form is their own: products and attention
    norm   sharpness of the maximum of computing and moving
    """

    compute_s: Array
    memory_s: Array
    stream_s: Array
    given: npt.NDArray[np.bool_]
    norm: float


@dataclass(frozen=True, slots=True)
class Table:
    """Kernels as arrays [rows], without any coefficient; logarithms of seconds at the datasheet's rates.

    compute, memory  ln(flop / peak), ln(byte / bandwidth)
    last             1 in channels-last layout
    line             elements summed together
    misaligned       1 where a side of the product is no multiple of 8
    kind             0 without a product, 1 convolution, 2 product, 3 batched products
    stream           ln of the stream's seconds for a family whose share of it is 1
    given            1 where a form of its own gave the seconds, see ``products``
    density          ln of the flop a processor does per clock at peak, over 512; 0 off the matrix units
    """

    compute: Array
    memory: Array
    last: Array
    line: Array
    misaligned: Array
    kind: Array
    stream: Array
    given: Array
    density: Array
    sides: Sides


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Coefficients of every row, gathered from its family and terms; ``shape`` holds logarithms by name."""

    compute: Any
    memory: Any
    stream: Any
    line: Any
    last: tuple[Any, Any, Any]
    terms: Any
    shape: dict[str, Any]


def log_parts(xp: Any, table: Table, c: Coefficients) -> tuple[Any, Any, Any]:
    """Logarithms of the compute, memory and stream seconds of every row.

    xp  numpy, or torch where the coefficients are fitted: the same formula
    """
    shape, sides = c.shape, table.sides
    short = xp.exp(
        _by_kind(xp, table.kind, shape["short_conv"], shape["short_product"], shape["short_product"])
    )
    misfit = _by_kind(
        xp, table.kind, shape["misaligned_conv"], shape["misaligned_product"], shape["misaligned_batched"]
    )
    own = table.given > 0
    filled = sum(xp.exp(shape[name]) * side for name, side in sides.named())
    share = bounded(xp, c.compute + table.last * c.last[0], MOST_COMPUTE)
    share = share + filled - xp.log1p(short / sides.k) - table.misaligned * misfit
    share = share + shape["density"] * table.density
    share = xp.where(own, c.compute, share)
    reached = bounded(xp, c.memory + table.last * c.last[1], MOST_MEMORY)
    reached = xp.where(own, c.memory, reached - xp.log1p(xp.exp(c.line) / table.line))
    stream = table.stream + xp.where(own, 0.0 * c.stream, c.stream + table.last * c.last[2])
    return table.compute - share + c.terms, table.memory - reached + c.terms, stream + c.terms


def _by_kind(xp: Any, kind: Any, conv: Any, product: Any, batched: Any) -> Any:
    """A coefficient that differs between convolutions, products and batched products."""
    return xp.where(kind == 1, conv, xp.where(kind == 2, product, batched))


def bounded(xp: Any, share_log: Any, most: float) -> Any:
    """The logarithm of a share, bent softly to stay below that of ``most``."""
    top = float(np.log(most))
    distance = SOFTNESS * (top - share_log)
    return top - xp.logaddexp(0.0 * distance, distance) / SOFTNESS


def table_of(
    kernels: Sequence[Kernel],
    classes: Sequence[Class],
    units: Sequence[str],
    flop: Array,
    byte: Array,
    peak: Array,
    chip: ChipRates,
) -> Table:
    """Arrays of counted kernels for one chip.

    units, peak  arithmetic of each row and its dense peak [flop/s]
    flop, byte   what one kernel executes and moves

    Shares were fitted on a chip of the class's middle rates; one that reaches more of its peak or bandwidth
    in products reaches as much more elsewhere.
    """
    own = bounds_of(kernels, classes, units, peak, chip)
    given = ~np.isnan(own.compute_s)
    matrix = np.array([not c.vector for c in classes])
    faster = np.where(matrix, chip.eta.value / ETA, 1.0)
    compute = np.log(np.maximum(flop, 1.0) / (peak * faster))
    memory = np.log(np.maximum(byte, 1.0) / (chip.bandwidth_byte_per_s * chip.em.value / EM))
    families = [c.family.partition("-")[0] for c in classes]
    return Table(
        compute=np.where(given, np.log(np.where(given, own.compute_s, 1.0)), compute),
        memory=np.where(given, np.log(np.where(given, own.memory_s, 1.0)), memory),
        last=np.array([float(k.last) for k in kernels]),
        line=np.array([c.line or np.inf for c in classes], float),
        misaligned=np.array([float(not c.vector and not c.aligned) for c in classes]) * ~given,
        kind=np.array([0 if c.vector else _KIND.get(f, 1) for c, f in zip(classes, families, strict=True)]),
        stream=np.where(given, np.log(np.where(given, own.stream_s, 1.0)), memory),
        given=given.astype(float),
        density=np.where(matrix & ~given, np.log(peak / (chip.units * chip.clock_hz * _DENSITY)), 0.0),
        sides=sides_of(classes, chip.units),
    )


_DENSITY = 512.0
_KIND = {"linear": 2, "batched": 3, "experts": 3, "attention": 3}


def coefficients_of(classes: Sequence[Class], form: Form) -> Coefficients:
    """The shipped coefficients of every row."""
    rows = [form.family(c.family) for c in classes]
    return Coefficients(
        compute=np.log([f.compute for f in rows]),
        memory=np.log([f.memory for f in rows]),
        stream=np.log([f.stream for f in rows]),
        line=np.log([f.line for f in rows]),
        last=tuple(np.array([f.last[i] for f in rows]) for i in range(3)),  # type: ignore[arg-type]
        terms=np.array([sum(form.terms.get(name, 0.0) * x for name, x in c.terms) for c in classes]),
        shape=form.shape,
    )


def parts_of(table: Table, classes: Sequence[Class], form: Form) -> Parts:
    """Times of every kernel at mid values."""
    compute, memory, stream = log_parts(np, table, coefficients_of(classes, form))
    return Parts(
        np.exp(compute), np.exp(memory), np.exp(stream), table.given > 0, float(np.exp(form.shape["norm"]))
    )
