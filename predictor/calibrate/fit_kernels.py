"""``python -m predictor.calibrate.fit_kernels RECIPE``: measured kernels to the constants that are shipped.

Reads the tables a recipe names below ``$PREDICTOR_DATA``; writes ``data/kernels/products.json`` and, for each
measured chip, ``hardware_profiles/<id>.fit.json``. Same data and recipe, same files.
"""

import json
import os
import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from predictor.calibrate import fit_products, kernel_classes
from predictor.calibrate.fit_families import (
    fit_attention_of,
    fit_experts_of,
    fit_plain_of,
    fit_quantized_of,
)
from predictor.calibrate.fit_products import CHIP, SHARED, Measured, large, sampled, with_values
from predictor.calibrate.kernel_classes import Rule, spread
from predictor.calibrate.kernel_data import Data, Fits, density_of, primary
from predictor.calibrate.kernel_tables import Columns, sha256
from predictor.calibrate.least_squares import Fitted, Form, fit
from predictor.errors import InputError
from predictor.kernels import chip as chips
from predictor.kernels.residual import Lattice, pack
from predictor.values import Array

ROOT = Path(__file__).resolve().parent.parent
_FOLDS = 5
# Of ln t0 inside a family: 1.9 and 2.6 us on the chips whose smallest kernels show it.
_T0_SD = 0.25


def predicted_s(of: Measured, values: dict[str, float], lattice: Lattice | None = None) -> Array:
    """Seconds of all rows at fitted values."""
    chip = replace(with_values(of.chip, values), residual=lattice)
    return chip.t0_s.value + fit_products.core_s(of.rows, chip, of.peak_flop_per_s)


def sides_of(recipe: dict[str, Any], rows: Columns) -> tuple[Array, Array, Array]:
    """Sides of the lattice of residuals: those of the table, from the recipe's least on."""
    least = (
        recipe["products"]["least_rows"],
        recipe["products"]["least_side"],
        recipe["products"]["least_side"],
    )
    m, n, k = (np.unique(rows[name][rows[name] >= low]) for name, low in zip("mnk", least, strict=True))
    return m, n, k


def lattice_of(of: Measured, values: dict[str, float], sides: tuple[Array, Array, Array]) -> Lattice:
    """What the form leaves of these rows."""
    return Lattice(*sides, fit_products.residuals(of, values, sides), of.chip.units)


def own_errors(of: Measured, values: dict[str, float], sides: tuple[Array, Array, Array]) -> Array:
    """ln errors of the form with its residuals on pairs (n, k) that the residuals have not seen."""
    pair = of.rows["n"] * 1e6 + of.rows["k"]
    names = np.unique(pair)
    fold = np.random.default_rng(0).integers(0, _FOLDS, len(names))[np.searchsorted(names, pair)]
    errors = np.zeros(of.rows.rows)
    for held in range(_FOLDS):
        seen = lattice_of(replace(of, rows=of.rows.where(fold != held)), values, sides)
        test = replace(of, rows=of.rows.where(fold == held))
        errors[fold == held] = np.log(predicted_s(test, values, seen) / test.measured_s)
    return errors


def _rule(found: Fitted, of: Sequence[Measured]) -> Rule:
    return kernel_classes.rule(found.values, [density_of(m.chip.id) for m in of], [m.chip.family for m in of])


def unseen_errors(full: Sequence[Measured], samples: Sequence[Measured]) -> list[Array]:
    """ln errors on each chip of the class values that the other chips give, no residual used."""
    errors = []
    for place, target in enumerate(full):
        others = [s for i, s in enumerate(samples) if i != place]
        found = fit_products.fit_products(others)
        guess = _rule(found, others)
        values = {
            **found.values[0],
            **_family_values(found, target),
            **guess.at(density_of(target.chip.id), target.chip.family),
        }
        errors.append(np.log(predicted_s(target, values) / target.measured_s))
    return errors


def _family_values(found: Fitted, target: Measured) -> dict[str, float]:
    return {k: v for k, v in found.values[0].items() if k.startswith(target.chip.family)}


def _other_stack(full: Sequence[Measured], values: Sequence[dict[str, float]]) -> dict[str, float]:
    """Factors on eta and throttle of the second stack's kernels, shared by all chips."""
    second = [
        replace(m, rows=sampled(m.rows.where(m.rows.text["stack"] != m.rows.text["stack"][0]), 400, 100, 0))
        for m in full
    ]

    def form(place: int, factor: Any) -> Array:
        mine = values[place]
        changed = {k: mine[k] * factor[k] for k in ("eta", "throttle")}
        return predicted_s(second[place], {**mine, **changed})

    start = {"eta": 1.0, "throttle": 0.5}
    return fit(form, [m.measured_s for m in second], start, [{}] * len(second), pull=0.05).values[0]


def fit_products_of(data: Data, spreads: bool = True) -> Fits:
    """Products in 16 bit: the form, every chip's values and residuals, the class's values and spreads."""
    recipe, systems = data.recipe, data.chips()
    both = [data.products(system, id_, recipe["products"]["dtype"]) for system, id_ in systems.items()]
    full = [replace(m, rows=primary(m.rows)) for m in both]
    many, few, seed = recipe["products"]["large"], recipe["products"]["small"], recipe["seed"]
    samples = [replace(m, rows=sampled(m.rows, many, few, seed)) for m in full]
    found = fit_products.fit_products(samples)
    sides = sides_of(recipe, full[0].rows)
    guess = _rule(found, full)
    seen, unseen = (
        _spreads(full, samples, found, sides) if spreads else ((0.0, 0.05, 0.14), (0.05, 0.08, 0.17))
    )
    families = ("classic", "asynchronous")
    shared = {
        "form": {
            "common": {name: found.values[0][name] for name in SHARED} | {"softness": fit_products.SOFTNESS},
            **{f: _of_family(found.values[0], f) for f in families},
        },
        "density": {
            "knee": kernel_classes.KNEE,
            "eta_slope": guess.eta_slope,
            "throttle_slope": guess.throttle_slope,
        },
        "classes": {
            "nvidia": {
                "eta": (guess.eta, max(unseen[0], 0.04)),
                "em": (guess.em, float(np.std(np.log([v["em"] for v in found.values])))),
                "t0_s": (guess.t0_s[""], _T0_SD),
                "throttle": (0.05, 0.5),
            }
        },
        "launch": dict(guess.t0_s),
        "spread": {
            "fitted": {"matmul": (0.02, seen[1], seen[2])},
            "same-maker": {"matmul": (0.03, *unseen[1:])},
        },
        "stacks": {"vllm": _other_stack(both, found.values)},
        "generations": _generations([m.chip for m in full]),
    }
    ids = [m.chip.id for m in full]
    return Fits(
        shared=shared,
        rates={
            i: {name: (v[name], max(sd[name], 0.005)) for name in CHIP}
            for i, v, sd in zip(ids, found.values, found.sd, strict=True)
        },
        residual={
            i: _packed(lattice_of(m, v, sides)) for i, m, v in zip(ids, full, found.values, strict=True)
        },
        chips={i: with_values(m.chip, v) for i, m, v in zip(ids, full, found.values, strict=True)},
        peaks={m.chip.id: m.peak_flop_per_s for m in full},
    )


def _spreads(
    full: Sequence[Measured], samples: Sequence[Measured], found: Fitted, sides: tuple[Array, Array, Array]
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """(common, own, small) of a chip that was measured, on shapes it was not, and of one that was not."""
    big = [large(m.rows) for m in full]
    own = [own_errors(m, v, sides) for m, v in zip(full, found.values, strict=True)]
    return spread(own, big), spread(unseen_errors(full, samples), big)


def _of_family(values: dict[str, float], family: str) -> dict[str, float]:
    return {name.partition(".")[2]: value for name, value in values.items() if name.startswith(f"{family}.")}


def _generations(found: Sequence[chips.ChipRates]) -> dict[str, list[str]]:
    names = sorted({chip.generation for chip in found})
    return {name: [chip.id for chip in found if chip.generation == name] for name in names}


def _packed(found: Lattice) -> dict[str, Any]:
    sides = {name: [int(x) for x in getattr(found, name)] for name in "mnk"}
    return {**sides, "units": found.units, "value": pack(found.value)}


def _one_chip(sample: Measured, fixed: dict[str, float]) -> Form:
    """Seconds of one chip's rows at its own values, all others fixed."""
    return lambda place, values: predicted_s(sample, {**fixed, **values})


def apart(data: Data, fits: Fits) -> None:
    """Chips of other makers: their own values in the fitted form, no part in any class."""
    common = fits.shared["form"]
    for system, id_ in data.chips(apart=True).items():
        full = data.products(system, id_, data.recipe["products"]["dtype"])
        sample = replace(full, rows=sampled(full.rows, 400, 200, data.recipe["seed"]))
        family = sample.chip.family
        fixed = {**common["common"], **{f"{family}.{k}": v for k, v in common[family].items()}}
        found = fit(_one_chip(sample, fixed), [sample.measured_s], {}, [CHIP])
        values, sd = found.values[0], found.sd[0]
        fits.rates[id_] = {name: (values[name], max(sd[name], 0.005)) for name in CHIP}
        sides = sides_of(data.recipe, full.rows)
        fits.residual[id_] = _packed(lattice_of(full, {**fixed, **values}, sides))
        fits.chips[id_], fits.peaks[id_] = with_values(full.chip, {**fixed, **values}), full.peak_flop_per_s


def run(data: Data, root: Path, spreads: bool = True) -> Fits:
    """Fit everything and write the files below ``root`` (the repository); ``spreads`` by cross-validation."""
    fits = fit_products_of(data, spreads)
    apart(data, fits)
    fit_attention_of(data, fits)
    fit_experts_of(data, fits)
    fit_quantized_of(data, fits)
    fit_plain_of(data, fits)
    judged = data.recipe["judged"]
    fits.shared["classes"]["other"] = judged["other"]
    fits.shared["classes"]["nvidia"]["attention"] = (fits.shared["attention"]["family"][""], 0.1)
    for known, kinds in judged["spread"].items():
        fits.shared["spread"][known] = {**kinds, **fits.shared["spread"].get(known, {})}
    write(data, fits, root)
    return fits


def write(data: Data, fits: Fits, root: Path) -> None:
    """The shipped files, numbers to four digits; what another fit put into a chip's file stays."""
    tables = [data.path("products", system) for system in (*data.chips(), *data.chips(apart=True))]
    head = {"as_of": data.recipe["as_of"], "source": data.recipe["source"]}
    products = {**head, "sha256": sha256(tables), **fits.shared}
    _dump(root / "predictor/data/kernels/products.json", _rounded(products))
    for id_, rates in fits.rates.items():
        system = next(s for s, i in (*data.chips().items(), *data.chips(apart=True).items()) if i == id_)
        found = {
            "id": id_,
            **head,
            "sha256": sha256([data.path("products", system)]),
            "rates": rates,
            "residual": fits.residual[id_],
        }
        path = root / "hardware_profiles" / f"{id_}.fit.json"
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        kept = {name: before[name] for name in ("steps",) if name in before}
        _dump(path, dict(sorted((kept | _rounded(found)).items())))


def _dump(path: Path, found: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1)
    path.write_text(re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", _on_a_line, text) + "\n", encoding="utf-8")


def _on_a_line(match: re.Match[str]) -> str:
    return "[" + " ".join(match[1].split()) + "]"


def _rounded(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _rounded(value) for key, value in sorted(found.items())}
    if isinstance(found, list | tuple):
        return [_rounded(value) for value in found]
    return float(f"{found:.4g}") if isinstance(found, float) else found


def main(arguments: Sequence[str]) -> None:
    """Command line: the recipe; the folder of the tables is ``$PREDICTOR_DATA``."""
    folder = os.environ.get("PREDICTOR_DATA")
    if len(arguments) != 1 or not folder:
        raise InputError("usage: PREDICTOR_DATA=FOLDER python -m predictor.calibrate.fit_kernels RECIPE.toml")
    recipe = tomllib.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    run(Data(recipe, Path(folder)), ROOT.parent)


if __name__ == "__main__":
    main(sys.argv[1:])
