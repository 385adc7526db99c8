"""What can go wrong at the edge, and the exit code it ends in.

Exit codes: 0 fine, 1 the check says no, 2 the input is wrong, 3 the fault is ours.
"""

import difflib
from collections.abc import Iterable


class PredictorError(Exception):
    """A message for the user: what was found, where, what is accepted, what to do next."""

    exit_code = 3


class InputError(PredictorError):
    """The request or a file is wrong; the message says how to put it right."""

    exit_code = 2


class UnknownNameError(InputError):
    """Nothing of the kind asked for has this name; the message holds near ones."""


class UnsupportedError(InputError):
    """The input is understood, and outside what can be predicted; the message says why."""


class CheckFailedError(PredictorError):
    """The prediction was made and a limit the user set does not hold."""

    exit_code = 1


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x' or 'y'?"``, or an empty string when nothing is near.

    >>> did_you_mean("gpt2-larg", ["gpt2-large", "bert-base"])
    "; did you mean 'gpt2-large'?"
    """
    by_fold = {k.casefold(): k for k in known}
    folded = name.casefold()
    near = difflib.get_close_matches(folded, by_fold, n=3, cutoff=0.6)
    if not near and len(folded) > 2:
        near = [k for k in by_fold if folded in k][:3]
    if not near:
        return ""
    return "; did you mean " + " or ".join(f"'{by_fold[k]}'" for k in near) + "?"
