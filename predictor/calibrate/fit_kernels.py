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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from predictor.calibrate import fit_fused, fit_products, kernel_classes
from predictor.calibrate.fit_fused import Rows
from predictor.calibrate.fit_products import CHIP, SHARED, Measured, large, sampled, with_values
from predictor.calibrate.kernel_classes import Mask, middle, spread
from predictor.calibrate.kernel_tables import Columns, read_columns, sha256
from predictor.calibrate.least_squares import Fitted, Form, fit
from predictor.errors import InputError
from predictor.kernels import chip as chips
from predictor.kernels.residual import Lattice, pack
from predictor.profile import find_profile
from predictor.values import Array

ROOT = Path(__file__).resolve().parent.parent
_BIG_FLOP = 2e10  # of attention that fills a chip
_MANY_TOKENS = 2048
_FOLDS = 5
_ATTENTION = "batch seq_len heads kv_heads head_dim causal latency_ms".split()
_EXPERTS = "num_tokens hidden_size inter_size topk num_experts moe_tp_size moe_ep_size latency_ms".split()
_QUANTIZED = {"fp8": ("fp8", 1.0), "fp8_block": ("fp8", 1.0), "nvfp4": ("fp4", 0.5)}


@dataclass(frozen=True, slots=True)
class Data:
    """A recipe and the folder its tables lie in."""

    recipe: dict[str, Any]
    folder: Path

    def chips(self, apart: bool = False) -> dict[str, str]:
        """Name of a system in the tables -> profile id."""
        found: dict[str, str] = self.recipe["apart" if apart else "chips"]
        return found

    def path(self, kind: str, system: str) -> Path:
        """The table of one system."""
        return self.folder / str(self.recipe[kind]["table"]).format(chip=system)

    def products(self, system: str, id_: str, dtype: str) -> Measured:
        """Its products in one type, the first stack of the table first."""
        accelerator = find_profile(id_)
        rows = read_columns(self.path("products", system), ["m", "n", "k", "latency_ms"], ["stack", "dtype"])
        rows = rows.where(rows.text["dtype"] == dtype)
        return Measured(chips.rates(accelerator), chips.matrix_peak(accelerator), rows)


def primary(rows: Columns) -> Columns:
    """Rows of the first stack of a table: the one with the most of its kernels."""
    return rows.where(rows.text["stack"] == rows.text["stack"][0])


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


def unseen_errors(data: Data, full: Sequence[Measured], samples: Sequence[Measured]) -> list[Array]:
    """ln errors on each chip of the class values that the other chips give, no residual used."""
    errors = []
    for place, target in enumerate(full):
        others = [s for i, s in enumerate(samples) if i != place]
        found = fit_products.fit_products(others)
        guess = kernel_classes.rule(found.values, [_density(s.chip.id) for s in others])
        values = {**found.values[0], **_family_values(found, target), **guess.at(_density(target.chip.id))}
        errors.append(np.log(predicted_s(target, values) / target.measured_s))
    return errors


def _family_values(found: Fitted, target: Measured) -> dict[str, float]:
    return {k: v for k, v in found.values[0].items() if k.startswith(target.chip.family)}


def _density(id_: str) -> float:
    return chips.density(find_profile(id_))


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


@dataclass(frozen=True, slots=True)
class Fits:
    """What is written: constants of all chips, and by profile id the rates of one (value, sd of ln)."""

    shared: dict[str, Any]
    rates: dict[str, dict[str, tuple[float, float]]]
    residual: dict[str, dict[str, Any]]
    chips: dict[str, chips.ChipRates]
    peaks: dict[str, float]


def fit_products_of(data: Data) -> Fits:
    """Products in 16 bit: the form, every chip's values and residuals, the class's values and spreads."""
    recipe, systems = data.recipe, data.chips()
    both = [data.products(system, id_, recipe["products"]["dtype"]) for system, id_ in systems.items()]
    full = [replace(m, rows=primary(m.rows)) for m in both]
    many, few, seed = recipe["products"]["large"], recipe["products"]["small"], recipe["seed"]
    samples = [replace(m, rows=sampled(m.rows, many, few, seed)) for m in full]
    found = fit_products.fit_products(samples)
    sides = sides_of(recipe, full[0].rows)
    unseen, bigs = unseen_errors(data, full, samples), [large(m.rows) for m in full]
    own = [own_errors(m, v, sides) for m, v in zip(full, found.values, strict=True)]
    guess = kernel_classes.rule(found.values, [_density(m.chip.id) for m in full])
    common, one, small = spread(unseen, bigs)
    seen = spread(own, bigs)
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
                "eta": (guess.eta, max(common, 0.04)),
                "em": (guess.em, float(np.std(np.log([v["em"] for v in found.values])))),
                "t0_s": (guess.t0_s, float(np.std(np.log([v["t0_s"] for v in found.values])))),
                "throttle": (0.05, 0.5),
            }
        },
        "spread": {
            "fitted": {"matmul": (0.02, seen[1], seen[2])},
            "same-maker": {"matmul": (0.03, one, small)},
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


def draw_rows(rows: Columns, big: Mask, many: int, few: int, seed: int) -> Columns:
    """At most ``many`` of the big rows and ``few`` of the others."""
    rng = np.random.default_rng(seed)
    groups = np.flatnonzero(big), np.flatnonzero(~big)
    return rows.where(
        np.sort(
            np.concatenate(
                [
                    rng.choice(g, min(c, len(g)), replace=False)
                    for g, c in zip(groups, (many, few), strict=True)
                ]
            )
        )
    )


def fit_attention_of(data: Data, fits: Fits) -> None:
    """Both libraries' constants; the flash rate of every chip, and the other library's rate over it."""
    spec, table = data.recipe["attention"], {}
    rate: dict[str, dict[str, tuple[float, float]]] = {}
    for name, stack in (("flash", "vllm"), ("trtllm", "trtllm")):
        ids, samples = [], []
        for system, id_ in data.chips().items():
            rows = read_columns(data.path("attention", system), _ATTENTION, ["stack"])
            rows = rows.where(np.char.startswith(rows.text["stack"], stack))
            if stack in spec["without"].get(system, ()) or not rows.rows:
                continue
            rows = rows.where((rows["seq_len"] >= 16) & ~np.isin(rows["head_dim"], spec["odd_heads"]))
            flop = 4 * rows["batch"] * rows["heads"] * rows["seq_len"] ** 2 * rows["head_dim"]
            big = (flop * np.where(rows["causal"] > 0, 0.5, 1) > _BIG_FLOP) & (rows["seq_len"] >= 512)
            sample = draw_rows(rows, big, spec["large"], spec["small"], data.recipe["seed"])
            ids.append(id_)
            samples.append(Rows(fits.chips[id_], fits.peaks[id_], sample))
        pad = spec["pad"][name]
        found = fit_fused.fit_attention(samples, pad)
        rate[name] = {
            i: (v["rate"], max(s["rate"], 0.01)) for i, v, s in zip(ids, found.values, found.sd, strict=True)
        }
        launch = middle([v["t0_s"] for v in found.values])
        constants = {k: found.values[0][k] for k in fit_fused.BACKEND}
        table[name] = {"rate": 1.0, **constants, "pad": pad, "t0_s": launch}
    shared_ids = [i for i in rate["flash"] if i in rate["trtllm"]]
    table["trtllm"]["rate"] = middle([rate["trtllm"][i][0] / rate["flash"][i][0] for i in shared_ids])
    for id_ in rate["trtllm"]:
        value, sd = rate["flash"].get(id_) or (rate["trtllm"][id_][0] / table["trtllm"]["rate"], 0.06)
        fits.rates[id_]["attention"] = (value, sd)
    known = {i: fits.rates[i]["attention"][0] for i in rate["trtllm"]}
    by = fits.shared["generations"]
    fits.shared["attention"] = {
        "eta": {name: middle([known[i] for i in ids]) for name, ids in by.items()},
        "family": {
            family: middle([known[i] for i in known if fits.chips[i].family == family])
            for family in ("classic", "asynchronous")
        },
        "backends": table,
        **data.recipe["judged"]["attention"],
    }


def fit_experts_of(data: Data, fits: Fits) -> None:
    """Fused expert layers in 16 bit with balanced loads on one rank."""
    spec = data.recipe["experts"]
    found: dict[bool, Fitted] = {}
    for alone in (False, True):
        ids, samples = [], []
        for system, id_ in data.chips().items():
            if (system in spec["alone"]) != alone:
                continue
            rows = read_columns(data.path("experts", system), _EXPERTS, ["stack", "dtype", "distribution"])
            rows = rows.where(
                (rows.text["dtype"] == "bfloat16")
                & (rows.text["distribution"] == "balanced")
                & (rows["moe_ep_size"] == 1)
            )
            big = rows["num_tokens"] >= _MANY_TOKENS
            sample = draw_rows(rows, big, spec["large"], spec["small"], data.recipe["seed"])
            ids.append(id_)
            samples.append(Rows(fits.chips[id_], fits.peaks[id_], sample))
        found[alone] = fit_fused.fit_experts(samples)
        for id_, v, sd in zip(ids, found[alone].values, found[alone].sd, strict=True):
            fits.rates[id_]["experts"] = (v["rate"], max(sd["rate"], 0.02))
    values = found[False].values
    fits.shared["experts"] = {
        "fused": {name: values[0][name] for name in fit_fused.FUSED} | {"wave": fit_fused.WHOLE_WAVES},
        **data.recipe["judged"]["experts"],
    }
    rates = [v["rate"] for v in values]
    fits.shared["classes"]["nvidia"]["experts"] = (middle(rates), 0.12)


def fit_quantized_of(data: Data, fits: Fits) -> None:
    """Products in 8 and 4 bit, workstation chips apart: their stack fuses the quantiser."""
    table: dict[str, Any] = {}
    for dtype, (unit, size) in _QUANTIZED.items():
        table[dtype] = {"base_s": {}, "passes": {}, "rate": {}}
        for group in ("asynchronous", "classic"):
            ids, samples = [], []
            for system, id_ in data.chips().items():
                peak = find_profile(id_).peak_flop_per_s.get(unit)
                rows = data.products(system, id_, dtype).rows
                if not rows.rows or peak is None or fits.chips[id_].family != group:
                    continue
                rows = sampled(rows, 400, 150, data.recipe["seed"])
                ids.append(id_)
                samples.append(Rows(fits.chips[id_], peak.value, rows))
            if not ids:
                continue
            found = fit_fused.fit_quantized(samples, size)
            rates = {i: v["rate"] for i, v in zip(ids, found.values, strict=True)}
            table[dtype]["base_s"][group] = found.values[0]["base_s"]
            table[dtype]["passes"][group] = found.values[0]["passes"]
            for name, members in fits.shared["generations"].items():
                if known := [rates[i] for i in members if i in rates]:
                    table[dtype]["rate"][name] = middle(known)
            if dtype == "fp8":
                for id_, value in rates.items():
                    fits.rates[id_]["quantized"] = (value, 0.05)
    fits.shared["quantized"] = table
    known = [r["quantized"][0] for r in fits.rates.values() if "quantized" in r]
    fits.shared["classes"]["nvidia"]["quantized"] = (middle(known), 0.06)


def fit_plain_of(data: Data, fits: Fits) -> None:
    """FP32 products: constants of the form, and joule per flop of each process from linear layers."""
    spec = data.recipe["plain"]
    tables = [_plain_rows(data.folder / path) for path in spec["tables"]]
    groups: dict[str, list[Rows]] = {"linear": [], "bmm": []}
    ids = []
    for device, id_ in spec["chips"].items():
        if device in spec["without"]:
            continue
        accelerator = find_profile(id_)
        peak = accelerator.peak_flop_per_s["fp32"].value
        ids.append(id_)
        for op, group in groups.items():
            found = [t.where((t.text["device"] == device) & (t.text["op"] == op)) for t in tables]
            rows = next(t for t in found if t.rows)
            group.append(Rows(chips.rates(accelerator), peak, as_products(draw_any(rows, spec["rows"], 0))))
    result = fit_fused.fit_plain(groups["linear"], groups["bmm"])
    joule: dict[str, list[float]] = {}
    for id_, values in zip(ids, result.values, strict=True):
        accelerator = find_profile(id_)
        assert accelerator.limit_w
        assert accelerator.process_m
        node = f"{accelerator.process_m.value * 1e9:.0f}"
        rate = values["linear"] * accelerator.peak_flop_per_s["fp32"].value
        joule.setdefault(node, []).append(accelerator.limit_w.value / rate)
    fits.shared["vector"] = {
        "plain": {name: result.values[0][name] for name in fit_fused.PLAIN}
        | {"l2_byte": fit_fused.PLAIN_L2_BYTE},
        "joule_per_flop": {node: middle(found) for node, found in joule.items()}
        | spec["judged"]["joule_per_flop"],
        "matrix": spec["judged"]["matrix"],
        "most": spec["most"],
        "usual": spec["usual"],
    }
    fits.shared["classes"]["nvidia"]["vector"] = (spec["usual"], 0.1)


def _plain_rows(path: Path) -> Columns:
    return read_columns(path, ["b", "m", "n", "k", "latency_ms"], ["op", "device"])


def as_products(rows: Columns) -> Columns:
    """NeuSight's naming as ours: there n is summed over, and a linear layer has no b."""
    linear = rows.text["op"] == "linear"
    number = {
        "g": np.where(linear, 1.0, rows["b"]),
        "m": np.where(linear, rows["b"] * rows["m"], rows["m"]),
        "n": rows["k"],
        "k": rows["n"],
        "latency_ms": rows["latency_ms"],
    }
    return Columns(number, rows.text, rows.rows)


def draw_any(rows: Columns, count: int, seed: int) -> Columns:
    """At most ``count`` rows."""
    places = np.random.default_rng(seed).permutation(rows.rows)[:count]
    return rows.where(np.sort(places))


def run(recipe: Path, folder: Path, root: Path) -> Fits:
    """Fit everything and write the files below ``root`` (the repository)."""
    data = Data(tomllib.loads(recipe.read_text(encoding="utf-8")), folder)
    fits = fit_products_of(data)
    apart(data, fits)
    fit_attention_of(data, fits)
    fit_experts_of(data, fits)
    fit_quantized_of(data, fits)
    fit_plain_of(data, fits)
    judged = data.recipe["judged"]
    fits.shared["classes"]["other"] = judged["other"]
    classes = fits.shared["attention"]["family"]
    fits.shared["classes"]["nvidia"]["attention"] = (classes["classic"], 0.1)
    for known, kinds in judged["spread"].items():
        fits.shared["spread"][known] = {**kinds, **fits.shared["spread"].get(known, {})}
    write(data, fits, root)
    return fits


def write(data: Data, fits: Fits, root: Path) -> None:
    """The shipped files, numbers to four digits."""
    tables = [data.path("products", system) for system in (*data.chips(), *data.chips(apart=True))]
    head = {"as_of": data.recipe["as_of"], "source": data.recipe["source"]}
    _dump(root / "predictor/data/kernels/products.json", {**head, "sha256": sha256(tables), **fits.shared})
    for id_, rates in fits.rates.items():
        system = next(s for s, i in (*data.chips().items(), *data.chips(apart=True).items()) if i == id_)
        found = {
            "id": id_,
            **head,
            "sha256": sha256([data.path("products", system)]),
            "rates": rates,
            "residual": fits.residual[id_],
        }
        _dump(root / "hardware_profiles" / f"{id_}.fit.json", found)


def _dump(path: Path, found: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_rounded(found), indent=1, sort_keys=True)
    path.write_text(re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", _on_a_line, text) + "\n", encoding="utf-8")


def _on_a_line(match: re.Match[str]) -> str:
    return "[" + " ".join(match[1].split()) + "]"


def _rounded(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _rounded(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [_rounded(value) for value in found]
    return float(f"{found:.4g}") if isinstance(found, float) else found


def main(arguments: Sequence[str]) -> None:
    """Command line: the recipe; the folder of the tables is ``$PREDICTOR_DATA``."""
    folder = os.environ.get("PREDICTOR_DATA")
    if len(arguments) != 1 or not folder:
        raise InputError("usage: PREDICTOR_DATA=FOLDER python -m predictor.calibrate.fit_kernels RECIPE.toml")
    run(Path(arguments[0]), Path(folder), ROOT.parent)


if __name__ == "__main__":
    main(sys.argv[1:])
