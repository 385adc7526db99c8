"""``calibrate fit``: the rates of one device from its own measurements, weighed against those of its class.

The result has the form of a shipped ``<id>.fit.json`` and takes its place: ``rates`` as (value, standard
deviation of its logarithm), beside them what the rates rest on. Same file, same fit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from predictor.calibrate.measurements import Measured
from predictor.calibrate.posterior import Posterior, posterior, quantiles
from predictor.errors import InputError
from predictor.kernels import attention, chip, tiles, vector
from predictor.kernels.chip import ChipRates
from predictor.kernels.residual import Lattice
from predictor.profile import Accelerator
from predictor.values import Array, Sourced

PRODUCT_RATES = ("eta", "em", "t0_s", "throttle")
LEAST_ROWS, MANY_ROWS, LEAST_OF_ONE = 8, 20, 3
_LARGE, _BIG_FLOP = 512, 2e10
_FOLDS = 5
# No narrower before any row: boards of one kind differ in clocks and cooling, and a class has members that
# nobody measured.
_LEAST_SD = 0.1
# The class of chips with few flop per watt has next to no throttle; one that is measured may have.
_LEAST_THROTTLE, _THROTTLE_SD = 0.02, 1.0
_MOST_ETA, _FAR = 1.15, 4.0
_LONG_S, _BUSY = 1e-3, 0.3
_Z80 = 1.2816


@dataclass(frozen=True, slots=True)
class Rates:
    """What the measurements say.

    values      rate -> (value, sd of its logarithm); only those that rows speak about
    names, covariance  of the product rates' logarithms
    quantiles   kind -> (5th, 95th percentile of ln(measured/predicted), rows)
    sustained   burst seconds over those of long loops: (value, sd), None without loops
    residual    what the tile form misses on chips of this generation, as it was fitted with
    notes       what was widened or left at the value of the class
    """

    values: dict[str, tuple[float, float]]
    names: tuple[str, ...]
    covariance: Array
    quantiles: dict[str, tuple[float, float, int]]
    sustained: tuple[float, float] | None
    residual: Lattice | None
    notes: tuple[str, ...]


def main_unit(accelerator: Accelerator, rows: Sequence[Measured]) -> str:
    """The arithmetic that the product rates are fitted to: 16 bit where the profile and the rows have it."""
    measured = [row.unit for row in rows if row.kind == "matmul"]
    there = [u for u in ("bf16", "fp16") if u in accelerator.peak_flop_per_s]
    if not there:
        return "fp32"
    return max(there, key=measured.count)


def sides(rows: Sequence[Measured]) -> Array:
    """(g, m, n, k) of every row as columns [4, rows]."""
    return np.array([row.kernel.dims for row in rows], float).T.reshape(4, len(rows))


def prior_chip(accelerator: Accelerator, shipped: dict[str, Any] | None) -> ChipRates:
    """The chip before its owner measured: the shipped fit of its kind where there is one, else its class."""
    data = chip.shared()
    measured = shipped if shipped and "rates" in shipped else None
    known = measured["rates"] if measured else {}
    before = chip.class_values(accelerator, data) | known
    values = {name: (value, max(sd, _LEAST_SD)) for name, (value, sd) in before.items()}
    value, sd = values["throttle"]
    values["throttle"] = max(value, _LEAST_THROTTLE), max(sd, _THROTTLE_SD)
    plain = replace(chip.rates(accelerator), residual=chip.residual(accelerator, data, measured))
    return _replaced(plain, {name: _wide(*values[name]) for name in chip.RATES})


def _replaced(of: ChipRates, rates: dict[str, Sourced]) -> ChipRates:
    return replace(of, **rates)  # type: ignore[arg-type]


def _wide(value: float, sd: float) -> Sourced:
    return Sourced(value, value * float(np.exp(-1.645 * sd)), value * float(np.exp(1.645 * sd)), "", "")


def _logs(rows: Sequence[Measured]) -> Array:
    return np.log([row.time_s for row in rows])


def _sd(number: Sourced) -> float:
    return float(np.log(number.high / number.low) / (2 * 1.645))


def with_rates(of: ChipRates, names: Sequence[str], x: Array) -> ChipRates:
    """The chip with these logarithms of rates."""
    values = {
        name: replace(getattr(of, name), value=float(np.exp(v))) for name, v in zip(names, x, strict=True)
    }
    return _replaced(of, values)


Seconds = Callable[[Sequence[Measured], ChipRates, Accelerator], Array]


def product_s(rows: Sequence[Measured], of: ChipRates, accelerator: Accelerator) -> Array:
    """Seconds of products in any arithmetic, launch included [rows].

    8-bit peaks count by ``quantized``; FP32 products run on the vector units, in the form of ``vector``.
    """
    g, m, n, k = sides(rows)
    units = np.array([row.unit for row in rows])
    found = np.zeros(len(rows))
    for unit in sorted(set(units)):
        at = units == unit
        peak = accelerator.peak_flop_per_s[unit].value if unit in accelerator.peak_flop_per_s else np.nan
        shape = (g[at], m[at], n[at], k[at])
        if unit == "fp32" and accelerator.kind == "gpu":
            parts = vector.parts(*shape, peak, of)
        else:
            size = {"fp8": 1, "fp32": 4, "tf32": 4}.get(unit, 2)
            share = of.quantized.value if unit == "fp8" else 1.0
            parts = tiles.parts(*shape, size, max(size, 2), peak * share, of)
        found[at] = of.t0_s.value + parts.total_s(of.products.softness)
    return found


def attention_s(rows: Sequence[Measured], of: ChipRates, accelerator: Accelerator) -> Array:
    """Seconds of fused attention [rows]; the flop tell which scores a mask keeps."""
    heads, q, kv, d = sides(rows)
    back = np.array([row.phase == "backward" for row in rows])
    flop = np.array([row.kernel.work.matrix_flop for row in rows], float)
    kept = np.clip(flop / (np.where(back, 8.0, 4.0) * heads * q * kv * d), 1e-3, 1.0)
    peak = np.array([accelerator.peak_flop_per_s[row.unit].value for row in rows])
    parts = attention.parts(heads, q, kv, d, kept, 1.0, back, peak, of)
    return np.asarray(of.t0_s.value + parts.total_s(of.products.softness))


def row_sd(rows: Sequence[Measured], of: ChipRates, kind: str) -> Array:
    """What form and measurement may be off by: the form's scatter by size, and the repeats' [rows]."""
    spread = chip.shared()["spread"]["fitted"][kind]
    m, n, k = sides(rows)[1:]
    flop = np.array([row.kernel.work.matrix_flop for row in rows])
    big = flop >= _BIG_FLOP if kind.startswith("attention") else (np.minimum(m, np.minimum(n, k)) >= _LARGE)
    repeats = np.array([np.log(row.high_s / row.low_s) / (2 * _Z80) for row in rows])
    return np.asarray(np.sqrt(np.where(big, spread[1], spread[2]) ** 2 + repeats**2))


def fit_products(rows: Sequence[Measured], of: ChipRates, accelerator: Accelerator) -> Posterior:
    """eta, em, t0 and throttle from products in one 16-bit type."""

    def form(x: Array) -> Array:
        return np.log(product_s(rows, with_rates(of, PRODUCT_RATES, x), accelerator))

    return _against_prior(form, rows, of, PRODUCT_RATES, "matmul")


def _against_prior(
    form: Callable[[Array], Array],
    rows: Sequence[Measured],
    of: ChipRates,
    names: Sequence[str],
    kind: str,
) -> Posterior:
    prior = [getattr(of, name) for name in names]
    middle = np.log([p.value for p in prior])
    return posterior(form, _logs(rows), row_sd(rows, of, kind), middle, np.array([_sd(p) for p in prior]))


def unseen_left(rows: Sequence[Measured], of: ChipRates, accelerator: Accelerator) -> Array:
    """ln(measured/predicted) of every product by a fit that has not seen it."""
    left = np.zeros(len(rows))
    for fold in range(_FOLDS):
        held = np.arange(len(rows)) % _FOLDS == fold
        seen = fit_products([r for r, h in zip(rows, held, strict=True) if not h], of, accelerator)
        test = [r for r, h in zip(rows, held, strict=True) if h]
        fitted = with_rates(of, PRODUCT_RATES, seen.x)
        left[held] = _logs(test) - np.log(product_s(test, fitted, accelerator))
    return left


def fit_rates(
    rows: Sequence[Measured], accelerator: Accelerator, shipped: dict[str, Any] | None = None
) -> Rates:
    """All rates that the rows speak about.

    shipped  the fit of this kind of chip that comes with the program

    Raises InputError with too few products, and where their rate cannot be that of the profile.
    """
    unit = main_unit(accelerator, rows)
    products = [r for r in rows if r.kind == "matmul" and r.unit == unit]
    if len(products) < LEAST_ROWS:
        raise InputError(
            f"{len(products)} products in {unit}, a fit needs {LEAST_ROWS} and is sharp with {MANY_ROWS}; "
            "go on measuring into the same file: predictor calibrate measure -o FILE.csv"
        )
    before = prior_chip(accelerator, shipped)
    found = fit_products(products, before, accelerator)
    after = with_rates(before, PRODUCT_RATES, found.x)
    if after.eta.value > _MOST_ETA:
        raise InputError(
            f"products reach {after.eta.value:.2f} of the {unit} peak in the profile of {accelerator.id}: it "
            f"is too low, or the file is of another device; compare: predictor hardware show {accelerator.id}"
        )
    values = {
        n: (float(np.exp(v)), float(s)) for n, v, s in zip(PRODUCT_RATES, found.x, found.sd, strict=True)
    }
    notes = _product_notes(products, before, found, unit)
    left = {"matmul": unseen_left(products, before, accelerator)}
    for name, kind, chosen, form in _single(rows, accelerator, unit):
        if len(chosen) < LEAST_OF_ONE:
            notes.append(
                f"{name}: {len(chosen)} rows, {LEAST_OF_ONE} are needed; the value of the class is kept"
            )
            continue
        one = _fit_one(name, kind, chosen, form, after, accelerator)
        values[name] = float(np.exp(one.x[0])), float(one.sd[0])
        left[name] = one.left
    return Rates(
        values=values,
        names=PRODUCT_RATES,
        covariance=found.covariance,
        quantiles={kind: (*q, len(r)) for kind, r in left.items() if (q := quantiles(r)) is not None},
        sustained=_sustained(rows, after, accelerator, unit),
        residual=before.residual,
        notes=tuple(notes),
    )


def _single(
    rows: Sequence[Measured], accelerator: Accelerator, unit: str
) -> list[tuple[str, str, list[Measured], Seconds]]:
    """Rates with one number: (rate, kind of spread, rows, form)."""
    matmul = [r for r in rows if r.kind == "matmul" and r.unit in accelerator.peak_flop_per_s]
    fused = [r for r in rows if r.kind == "attention" and r.unit == unit and r.phase == "forward"]
    plain = [r for r in matmul if r.unit == "fp32"] if accelerator.kind == "gpu" and unit != "fp32" else []
    found = [
        ("attention", "attention", fused, attention_s),
        ("quantized", "fp8", [r for r in matmul if r.unit == "fp8"], product_s),
        ("vector", "vector", plain, product_s),
    ]
    has = {"quantized": "fp8" in accelerator.peak_flop_per_s, "vector": accelerator.kind == "gpu"}
    return [each for each in found if has.get(each[0], True)]


def _fit_one(
    name: str, kind: str, rows: list[Measured], form: Seconds, of: ChipRates, accelerator: Accelerator
) -> Posterior:
    def seconds(x: Array) -> Array:
        return np.log(form(rows, with_rates(of, (name,), x), accelerator))

    return _against_prior(seconds, rows, of, (name,), kind)


def _product_notes(rows: Sequence[Measured], before: ChipRates, found: Posterior, unit: str) -> list[str]:
    """What the rows do not cover, and what they say that no chip before said."""
    notes = []
    if len(rows) < MANY_ROWS:
        notes.append(f"{len(rows)} products in {unit}: ranges stay wide until there are {MANY_ROWS}")
    g, m, n, k = sides(rows)
    if max(r.time_s for r in rows) < _LONG_S:
        notes.append(
            "throttle: no product runs for over 1 ms; the value of the class is kept, with its range"
        )
    if np.all(m * n * g >= _LARGE**2) or np.all(k >= _LARGE):
        notes.append("t0_s: no small product; the value of the class is kept, with its range")
    away = (found.x - np.log([getattr(before, name).value for name in PRODUCT_RATES])) / np.array(
        [_sd(getattr(before, name)) for name in PRODUCT_RATES]
    )
    notes += [
        f"{name}: {abs(far):.1f} standard deviations from its class; check the profile's figures"
        for name, far in zip(PRODUCT_RATES, away, strict=True)
        if abs(far) > _FAR
    ]
    typical = float(np.median(np.abs(found.left)))
    if typical > _BUSY:
        notes.append(
            f"the form misses half of the products by over {np.expm1(typical):.0%}: the ranges were widened "
            "by as much; was the device busy with something else?"
        )
    return notes


def _sustained(
    rows: Sequence[Measured], of: ChipRates, accelerator: Accelerator, unit: str
) -> tuple[float, float] | None:
    """Burst over sustained seconds of the 16-bit loops: the rate that is left when clocks have settled."""
    loops = [r for r in rows if r.kind == "sustained" and r.kernel.kind == "matmul" and r.unit == unit]
    if not loops:
        return None
    ratio = np.log(product_s(loops, of, accelerator)) - _logs(loops)
    sd = float(np.sqrt(0.03**2 + (np.var(ratio) if len(ratio) > 1 else 0.0)))
    return float(np.exp(np.mean(ratio))), sd
