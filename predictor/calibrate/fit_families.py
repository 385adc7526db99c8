"""From a recipe's tables to the constants of attention, experts, 8- and 4-bit products and FP32 products.

Each step adds to ``Fits``: its own section of the shared constants, and a rate of every chip.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from predictor.calibrate import fit_fused
from predictor.calibrate.fit_fused import Rows
from predictor.calibrate.fit_products import sampled
from predictor.calibrate.kernel_classes import by_family, middle
from predictor.calibrate.kernel_data import Data, Fits, draw_any, draw_rows
from predictor.calibrate.kernel_tables import Columns, read_columns
from predictor.kernels import chip as chips
from predictor.kernels.chip import ChipRates
from predictor.kernels.experts import Fused
from predictor.profile import find_profile

_BIG_FLOP = 2e10  # of attention that fills a chip
_MANY_TOKENS = 2048
_ATTENTION = "batch seq_len heads kv_heads head_dim causal latency_ms".split()
_EXPERTS = "num_tokens hidden_size inter_size topk num_experts moe_tp_size moe_ep_size latency_ms".split()
_QUANTIZED = {"fp8": ("fp8", 1.0), "fp8_block": ("fp8", 1.0), "nvfp4": ("fp4", 0.5)}


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
        constants = {k: found.values[0][k] for k in fit_fused.BACKEND}
        launch = {i: v["t0_s"] for i, v in zip(ids, found.values, strict=True)}
        table[name] = {
            **constants,
            "pad": pad,
            "t0_s": by_family(list(launch.values()), _families(fits, launch)),
            "rate": {"": 1.0},
        }
    both = {i: rate["trtllm"][i][0] / rate["flash"][i][0] for i in rate["flash"] if i in rate["trtllm"]}
    over = by_family(list(both.values()), _families(fits, both))
    table["trtllm"]["rate"] = over
    for id_ in rate["trtllm"]:
        mine = over.get(fits.chips[id_].family, over[""])
        fits.rates[id_]["attention"] = rate["flash"].get(id_) or (rate["trtllm"][id_][0] / mine, 0.06)
    known = {i: fits.rates[i]["attention"][0] for i in rate["trtllm"]}
    by = fits.shared["generations"]
    fits.shared["attention"] = {
        "eta": {name: middle([known[i] for i in ids]) for name, ids in by.items()},
        "family": by_family(list(known.values()), _families(fits, known)),
        "backends": table,
        **data.recipe["judged"]["attention"],
    }


def _families(fits: Fits, ids: Iterable[str]) -> list[str]:
    return [fits.chips[id_].family for id_ in ids]


def _expert_rows(data: Data, fits: Fits, system: str, id_: str, dtype: str) -> Rows:
    """A sample of balanced layers on one rank; no rows where the table has none of this type."""
    spec = data.recipe["experts"]
    rows = read_columns(data.path("experts", system), _EXPERTS, ["stack", "dtype", "distribution"])
    balanced = (rows.text["dtype"] == dtype) & (rows.text["distribution"] == "balanced")
    rows = rows.where(balanced & (rows["moe_ep_size"] == 1))
    big = rows["num_tokens"] >= _MANY_TOKENS
    sample = draw_rows(rows, big, spec["large"], spec["small"], data.recipe["seed"])
    unit = _QUANTIZED[dtype][0] if dtype in _QUANTIZED else ""
    peak = find_profile(id_).peak_flop_per_s.get(unit)
    return Rows(fits.chips[id_], peak.value if peak else fits.peaks[id_], sample)


def fit_experts_of(data: Data, fits: Fits) -> None:
    """Fused expert layers with balanced loads on one rank: constants of stacks, rates of chips."""
    spec, systems = data.recipe["experts"], data.chips()
    main = {s: i for s, i in systems.items() if s not in spec["alone"]}
    found = fit_fused.fit_experts([_expert_rows(data, fits, s, i, "bfloat16") for s, i in main.items()])
    for id_, v, sd in zip(main.values(), found.values, found.sd, strict=True):
        fits.rates[id_]["experts"] = (v["rate"], max(sd["rate"], 0.02))
    constants = {name: found.values[0][name] for name in fit_fused.FUSED} | {"wave": fit_fused.WHOLE_WAVES}
    table: dict[str, Any] = {"fused": {"trtllm": constants}, **data.recipe["judged"]["experts"]}
    if other := {s: i for s, i in systems.items() if s in spec["alone"]}:
        alone = fit_fused.fit_experts([_expert_rows(data, fits, s, i, "bfloat16") for s, i in other.items()])
        own = {name: alone.values[0][name] for name in fit_fused.FUSED} | {"wave": fit_fused.WHOLE_WAVES}
        table["fused"][spec["alone_stack"]] = own | {"rate": middle([v["rate"] for v in alone.values])}
    table["types"] = {
        dtype: _expert_type(data, fits, main, dtype, constants) for dtype in ("fp8_block", "nvfp4")
    }
    fits.shared["experts"] = table
    fits.shared["classes"]["nvidia"]["experts"] = (middle([v["rate"] for v in found.values]), 0.08)


def _expert_type(
    data: Data, fits: Fits, systems: dict[str, str], dtype: str, own: dict[str, float]
) -> dict[str, dict[str, float]]:
    """By generation: constants of one block-scaled type, those of 16 bit but for the rate."""
    table: dict[str, dict[str, float]] = {}
    for name, members in fits.shared["generations"].items():
        samples = [
            sample
            for system, id_ in systems.items()
            if id_ in members
            and _QUANTIZED[dtype][0] in find_profile(id_).peak_flop_per_s
            and (sample := _expert_rows(data, fits, system, id_, dtype)).rows.rows
        ]
        if samples:
            found = fit_fused.fit_expert_rate(samples, Fused(**own), _QUANTIZED[dtype][1])
            table[name] = {**own, "rate": middle([v["rate"] for v in found.values])}
    return table


def fit_quantized_of(data: Data, fits: Fits) -> None:
    """Products in 8 and 4 bit, workstation chips apart: their stack fuses the quantiser."""
    table: dict[str, Any] = {}
    for dtype, (unit, size) in _QUANTIZED.items():
        table[dtype] = {"base_s": {}, "passes": {}, "cached": {}, "rate": {}}
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
            for name in ("base_s", "passes", "cached"):
                table[dtype][name][group] = found.values[0][name]
            for name, members in fits.shared["generations"].items():
                if known := [rates[i] for i in members if i in rates]:
                    table[dtype]["rate"][name] = middle(known)
            if dtype == "fp8":
                for id_, value in rates.items():
                    fits.rates[id_]["quantized"] = (value, 0.03)
    fits.shared["quantized"] = table
    known = [r["quantized"][0] for r in fits.rates.values() if "quantized" in r]
    fits.shared["classes"]["nvidia"]["quantized"] = (middle(known), 0.04)


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
        chip = _empty(chips.bare(accelerator), fits.shared["form"]["common"])
        for op, group in groups.items():
            found = [t.where((t.text["device"] == device) & (t.text["op"] == op)) for t in tables]
            rows = next(t for t in found if t.rows)
            group.append(Rows(chip, peak, as_products(draw_any(rows, spec["rows"], 0))))
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


def _empty(chip: ChipRates, common: dict[str, float]) -> ChipRates:
    """The chip with what its products share with all others, for a form that fits the rest."""
    form = replace(chip.products, sync_s=common["sync_s"], softness=common["softness"])
    return replace(chip, products=form)


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
