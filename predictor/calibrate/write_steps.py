"""A fit of whole steps as files: shared coefficients, and what each measured chip has of its own."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from predictor.calibrate.fit_steps import Fitted
from predictor.calibrate.steps_priors import FAMILIES, SHAPE, family_prior

_PARTS = ("compute", "memory", "stream", "line")
_LAST = ("last-compute", "last-memory", "last-stream")
_DIGITS = 5


def form_of(fitted: Fitted, spread: Mapping[str, Any]) -> dict[str, Any]:
    """``data/kernels/steps.json``: every family, those without data at their priors.

    spread  ranges by name, from cross-validation: families, unseen, step, chip_compute, chip_memory
    """
    known = {name.rpartition(".")[0] for name in fitted.names if name.endswith(".compute")}
    families = {}
    for family in sorted((known - {n for n in known if n.startswith("chip.")}) | set(FAMILIES)):
        prior = {part: p.middle for part, p in family_prior(family).items()}
        value = {part: fitted[f"{family}.{part}"] if family in known else prior[part] for part in prior}
        base = family.rpartition("-")[0] or family
        families[family] = {
            **{part: _round(float(np.exp(value[part]))) for part in _PARTS},
            "last": [_round(value[part]) for part in _LAST],
            "spread": spread["families"].get(base, spread["families"]["default"]),
        }
    terms = [n for n in fitted.names if "." not in n]
    return {
        "families": families,
        "terms": {name: _round(fitted[name]) for name in terms},
        "shape": {name: _round(fitted[f"shape.{name}"]) for name in SHAPE},
        **{name: spread[name] for name in ("unseen", "step", "chip_compute", "chip_memory")},
    }


def chips_of(fitted: Fitted, known: float) -> dict[str, dict[str, tuple[float, float]]]:
    """Per accelerator: ln of its rates over those of its class and their standard deviation."""
    ids = sorted({n.split(".")[1] for n in fitted.names if n.startswith("chip.")})
    return {
        id_: {p: (_round(fitted[f"chip.{id_}.{p}"]), known) for p in ("compute", "vector", "memory")}
        for id_ in ids
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file of coefficients, keys in order, one line a family or term."""
    lines = json.dumps(content, indent=1, sort_keys=False)
    path.write_text(lines + "\n", encoding="utf-8")


def _round(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
