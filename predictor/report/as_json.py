"""The answer as JSON: the full numbers behind every other format."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from predictor.answer import SCHEMA_VERSION, Estimate
from predictor.errors import PredictorError


def estimate_json(answer: Estimate) -> str:
    """One answer, as docs/reference/estimate.schema.json describes it."""
    return _text(answer.to_dict())


def comparison_json(answers: Sequence[tuple[str, Estimate | str]]) -> str:
    """Labelled answers in their order; ``estimate`` or ``refusal`` is null."""
    candidates = [
        {"label": label, "estimate": None, "refusal": found}
        if isinstance(found, str)
        else {"label": label, "estimate": found.to_dict(), "refusal": None}
        for label, found in answers
    ]
    return _text({"schema_version": SCHEMA_VERSION, "candidates": candidates})


def check_finite(answer: Estimate) -> None:
    """Refuse an answer with a number that is none: it is our fault and no report may hide it."""
    wrong = [f"{key} = {value}" for key, value in _numbers(answer.to_dict(), "") if not math.isfinite(value)]
    if wrong:
        raise PredictorError(
            f"the answer holds numbers that are not finite: {', '.join(wrong)}; please report this"
        )


def _numbers(value: Any, key: str) -> Iterator[tuple[str, float]]:
    """Every float below ``value`` with its dotted key."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _numbers(part, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _numbers(part, f"{key}[{index}]")
    elif isinstance(value, float):
        yield key, value


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"
