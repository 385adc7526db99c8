"""Outcomes as the report: errors by source and by accelerator, refusals by reason."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from predictor.answer import Range
from predictor.calibrate.case import REASONS, Bulk, Outcome, Refused, Scored
from predictor.calibrate.score import Summary, summary

SCHEMA_VERSION = 1


def report(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """The JSON report; errors are fractions, 0.05 is 5 %.

    ``sources`` holds per source: rows of the table, rows scored, rows refused by reason, and the errors of
    time, memory and power (null where nothing was measured). ``accelerators`` holds the same per accelerator
    of a source, ``single`` the rows on one accelerator alone.
    """
    found = list(outcomes)
    by_source: dict[str, list[Outcome]] = {}
    for outcome in found:
        by_source.setdefault(_source(outcome), []).append(outcome)
    return {
        "schema_version": SCHEMA_VERSION,
        "sources": {name: _part(by_source[name]) for name in sorted(by_source)},
        "accelerators": {
            name: {
                accelerator: _part(
                    [
                        o
                        for o in by_source[name]
                        if not isinstance(o, Refused) and o.case.accelerator == accelerator
                    ]
                )
                for accelerator in sorted(
                    {o.case.accelerator for o in by_source[name] if not isinstance(o, Refused)}
                )
            }
            for name in sorted(by_source)
        },
        "reasons": {code: REASONS[code] for code in sorted(_codes(found))},
    }


def _source(outcome: Outcome) -> str:
    return outcome.source if isinstance(outcome, Refused) else outcome.case.source


def _codes(outcomes: Iterable[Outcome]) -> set[str]:
    return {outcome.code for outcome in outcomes if isinstance(outcome, Refused)}


def _part(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The part of one source or accelerator."""
    scored = [outcome for outcome in outcomes if isinstance(outcome, Scored)]
    refused: Counter[str] = Counter()
    for outcome in outcomes:
        if isinstance(outcome, Refused):
            refused[outcome.code] += outcome.rows
    bulk = [outcome for outcome in outcomes if isinstance(outcome, Bulk)]
    count = sum(outcome.case.rows for outcome in scored) + sum(outcome.case.rows for outcome in bulk)
    return {
        "rows": count + sum(refused.values()),
        "scored": count,
        "refused": dict(sorted(refused.items())),
        "time": _bulk_errors(bulk)
        if bulk
        else _errors([(s.time, s.case.step_s, s.case.samples) for s in scored], ranked=True),
        "memory": _errors([(s.memory, s.case.peak_byte, 1.0) for s in scored]),
        "power": _errors([(s.power, s.case.watt, 1.0) for s in scored]),
    }


def _bulk_errors(bulk: Sequence[Bulk]) -> dict[str, Any] | None:
    """The errors of kernels; their ranks are not compared."""
    low, mid, high, measured = (
        np.concatenate([getattr(b, name) for b in bulk]) for name in ("low", "mid", "high", "measured")
    )
    found = summary(mid, low, high, measured)
    return None if found is None else asdict(found)


def _errors(
    rows: list[tuple[Range | None, float | None, float]], ranked: bool = False
) -> dict[str, Any] | None:
    """The errors of one quantity over the rows that measured it."""
    known = [
        (r.low, r.mid, r.high, value, per) for r, value, per in rows if r is not None and value is not None
    ]
    if not known:
        return None
    low, mid, high, measured, per = np.array(known, dtype=float).T
    found: Summary | None = summary(mid, low, high, measured, per if ranked else None)
    if found is None:
        return None
    plain = asdict(found)
    if not ranked:
        del plain["tau"]
    return plain
