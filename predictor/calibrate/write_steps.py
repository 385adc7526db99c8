"""A fit of whole steps as files: shared coefficients, and what each measured chip has of its own."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from predictor.calibrate.fit_steps import CHIP, Fitted
from predictor.calibrate.steps_priors import FAMILIES, SHAPE, family_prior
from predictor.values import Z95

_PARTS = ("compute", "memory", "stream", "line")
_LAST = ("last-compute", "last-memory", "last-stream")
_DIGITS = 5


def form_of(fitted: Fitted, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """``data/kernels/steps.json``: every family, those without data at their priors; ranges of the recipe."""
    spread = recipe["spread"]
    known = {n.rpartition(".")[0] for n in fitted.names if n.endswith(".stream")}
    families = {}
    for family in sorted(known | set(FAMILIES)):
        value = {
            part: fitted[f"{family}.{part}"] if family in known else prior.middle
            for part, prior in family_prior(family).items()
        }
        base = family.rpartition("-")[0] or family
        families[family] = {
            **{part: _round(float(np.exp(value[part]))) for part in _PARTS},
            "last": [_round(value[part]) for part in _LAST],
            "spread": spread["families"].get(base, spread["families"]["default"]),
        }
    return {
        "source": _SOURCE,
        "as_of": recipe["as_of"],
        "status": "fitted",
        "shape": {name: _round(fitted[f"shape.{name}"]) for name in SHAPE},
        "unseen": spread["unseen"],
        "step": _range(spread["step"], "model families left out of the fit", recipe),
        "chip_compute": _range(spread["chip_compute"], "accelerators left out of the fit", recipe),
        "chip_memory": _range(spread["chip_memory"], "accelerators left out of the fit", recipe),
        "terms": {name: _round(fitted[name]) for name in fitted.names if "." not in name},
        "families": families,
    }


_SOURCE = (
    "fit of whole training steps (calibration/recipes/steps.toml): timm benchmarks on an RTX 3090, "
    "pytorch-gpu-benchmark, Lambda deeplearning-benchmark, cnn-benchmarks, Zeus traces, NeuSight and others"
)


def _range(spread: float, source: str, recipe: Mapping[str, Any]) -> dict[str, Any]:
    low, high = (_round(float(np.exp(z * spread))) for z in (-Z95, Z95))
    return {
        "value": 1.0,
        "low": low,
        "high": high,
        "source": source,
        "as_of": recipe["as_of"],
        "status": "derived",
    }


def chips_of(fitted: Fitted, known: float) -> dict[str, dict[str, tuple[float, float]]]:
    """Per accelerator: ln of its rates over those of its class and their standard deviation."""
    ids = sorted({n.split(".")[1] for n in fitted.names if n.startswith("chip.")})
    return {id_: {p: (_round(fitted[f"chip.{id_}.{p}"]), known) for p in CHIP} for id_ in ids}


def merge_chip(path: Path, id_: str, factors: Mapping[str, Any], as_of: str) -> None:
    """Put the factors into a chip's ``.fit.json``, beside what else was fitted there."""
    head = {
        "as_of": as_of,
        "id": id_,
        "source": "whole training steps measured on this accelerator (calibration/recipes/steps.toml)",
    }
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else head
    write_json(path, dict(sorted((before | {"steps": factors}).items())))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write coefficients, keys in order, lists of numbers on one line."""
    text = json.dumps(content, indent=1)
    text = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    path.write_text(text + "\n", encoding="utf-8")


def _round(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
