"""How a job's work is divided over accelerators: the plan, its checks, and what it makes them send."""

from predictor.parallel.collectives import Collective, collectives
from predictor.parallel.plan import Plan, check_model, make_plan, with_batch

__all__ = ["Collective", "Plan", "check_model", "collectives", "make_plan", "with_batch"]
