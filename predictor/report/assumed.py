"""The ledgers of many answers together: what all share once, the rest by topic."""

import re
from collections import Counter
from collections.abc import Sequence

from predictor.answer import LedgerEntry
from predictor.report import format as fmt
from predictor.report.comparison import Candidate
from predictor.report.content import Assumption

Found = tuple[str, LedgerEntry]


def together(priced: Sequence[Candidate]) -> tuple[Assumption, ...]:
    """One line per topic: those that touch most of the answers first, then those of most candidates."""
    topics: dict[str, list[Found]] = {}
    for label, answer in priced:
        name = answer.machine.accelerator
        for entry in answer.ledger:
            own = entry.model_copy(update={"text": nameless(entry.text, name)})
            topics.setdefault(entry.topic, []).append((label, own))
    ordered = sorted(topics.values(), key=lambda found: (-_largest(found), -_candidates(found)))
    return tuple(_line(found, len(priced)) for found in ordered)


def nameless(text: str, name: str) -> str:
    """The text with "it" for the accelerator, so that candidates can share it.

    >>> nameless("x1 is priced from its datasheet; no x1-pod was metered", "x1")
    'it is priced from its datasheet; no x1-pod was metered'
    """
    return re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", "it", text) if name else text


def _largest(found: Sequence[Found]) -> float:
    return max(entry.share or 0.0 for _, entry in found)


def _candidates(found: Sequence[Found]) -> int:
    return len({label for label, _ in found})


def _line(found: Sequence[Found], total: int) -> Assumption:
    """The most frequent text of a topic, whom it is about, and how many have another one."""
    texts = Counter(entry.text for _, entry in found)
    text, same = texts.most_common(1)[0]
    chosen = next(entry for _, entry in found if entry.text == text)
    labels = list(dict.fromkeys(label for label, _ in found))
    who = "all" if len(labels) == total else _who(labels)
    others = len(found) - same
    words = f"{who}: {text}" + (f" (other words or figures for {others:,} of them)" if others else "")
    return Assumption(fmt.plain(chosen.topic), fmt.plain(words), _touches(found), _advice(found))


def _who(labels: Sequence[str]) -> str:
    return f"{len(labels):,} candidates" if len(labels) > 3 else ", ".join(labels)


def _touches(found: Sequence[Found]) -> str:
    """The share of the total, or the largest one."""
    shares = {entry.share for _, entry in found}
    largest = _largest(found)
    if not largest:
        return ""
    return f"touches {'up to ' if len(shares) > 1 else ''}{fmt.share(largest)} of the total"


def _advice(found: Sequence[Found]) -> str:
    """Advice that holds for all of them; one that names a candidate is no advice for the others."""
    advice = {entry.advice for _, entry in found}
    return fmt.plain(advice.pop()) if len(advice) == 1 else ""
