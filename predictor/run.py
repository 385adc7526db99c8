"""From one step to a whole run: what comes on top of steady steps."""

from dataclasses import dataclass

from predictor.values import Array, Sourced

# Evaluation, checkpoints, stalls and restarts, over steady time: published whole runs took 1.2 to 1.5
# times their steady time; small uninterrupted ones a few per cent.
_SOURCE = "judgement on published runs: 1.2 to 1.5 of steady time on clusters, a few per cent on one node"
ONE_NODE = Sourced(1.05, 1.01, 1.20, _SOURCE, "2026-11-20", "estimate")
CLUSTER = Sourced(1.20, 1.04, 1.50, _SOURCE, "2026-11-20", "estimate")
START_S = Sourced(
    60.0, 20.0, 300.0, "judgement: imports, data, first batches, compilation", "2026-11-20", "estimate"
)


@dataclass(frozen=True, slots=True)
class RunTime:
    """Seconds of the steps alone, and from start to end [draws]."""

    steady_s: Array
    wall_s: Array


def run_time(steps: int, step_s: Array, nodes: int) -> RunTime:
    """steady = steps * step; wall = steady * overhead + start-up."""
    steady = steps * step_s
    overhead = CLUSTER if nodes > 1 else ONE_NODE
    return RunTime(steady, steady * overhead.draw("run.overhead") + START_S.draw("run.start"))
