"""Our steps against another counter's sums: a line for each phase and family of operators."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from predictor.ir import BACKWARD, Op
from predictor.passes import Step

PRODUCTS, CONVOLUTIONS, OTHERS = "products and attention", "convolutions", "norms, pools, upsampling"


@dataclass(frozen=True, slots=True)
class Line:
    """One family of operators in one phase, counted by us and by an oracle.

    ours, theirs  matrix flop, a multiply-add is 2 (fvcore's count doubled) [flop]
    reasons       known differences with their flop, theirs minus ours
    """

    oracle: str
    phase: str
    family: str
    ours: int
    theirs: int
    reasons: tuple[tuple[str, int], ...]

    @property
    def unexplained(self) -> int:
        """What no known difference accounts for [flop]."""
        return self.theirs - self.ours - sum(flop for _, flop in self.reasons)


@dataclass(frozen=True, slots=True)
class Check:
    """All lines, and which oracles could not count: (oracle, why)."""

    lines: tuple[Line, ...]
    missing: tuple[tuple[str, str], ...]

    @property
    def unexplained(self) -> tuple[Line, ...]:
        """Lines that differ for no known reason."""
        return tuple(line for line in self.lines if line.unexplained)


Expected = tuple[str, int, str]
"""Family, what an oracle counts for one step of ours [flop], and why where that differs."""


class CannotRunError(Exception):
    """An oracle is not installed, or the model is beyond it."""


def compare(
    oracle: str,
    steps: Iterable[Step],
    counted: Mapping[tuple[str, str], int],
    expect: Callable[[Step], Expected],
    reasons: Mapping[tuple[str, str], Mapping[str, int]],
) -> list[Line]:
    """Our steps against ``counted``: a line for each phase and family."""
    ours: Counter[tuple[str, str]] = Counter()
    why: dict[tuple[str, str], Counter[str]] = {key: Counter(found) for key, found in reasons.items()}
    phases = {phase for phase, _ in counted}
    for step in steps:
        flop = matrix_flop(step)
        if flop and step.phase in phases:
            family, theirs, reason = expect(step)
            ours[step.phase, family] += flop
            why.setdefault((step.phase, family), Counter())[reason] += theirs - flop
    keys = sorted(
        {*ours, *(key for key, flop in counted.items() if flop)}, key=lambda k: (k[0] == BACKWARD, k[1])
    )
    return [
        Line(oracle, phase, family, ours[phase, family], counted.get((phase, family), 0), tuple(found))
        for phase, family in keys
        for found in [sorted((reason, flop) for reason, flop in why.get((phase, family), {}).items() if flop)]
    ]


def matrix_flop(step: Step) -> int:
    """Matrix flop of all kernels of a step."""
    return sum(kernel.work.matrix_flop for kernel in step.kernels)


def family_of(op: Op) -> str:
    """The family an operator is compared in."""
    return CONVOLUTIONS if "conv" in op.name else PRODUCTS
