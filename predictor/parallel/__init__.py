"""How a job's work is divided over accelerators: the plan, its checks, and what it makes them send."""

from predictor.parallel.collectives import Collective, Share, collectives
from predictor.parallel.plan import Divisible, Plan, check_model, make_plan, with_batch

__all__ = [
    "Collective",
    "Divisible",
    "Plan",
    "Share",
    "check_model",
    "collectives",
    "make_plan",
    "with_batch",
]
