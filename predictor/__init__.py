"""Predict time, memory, energy, carbon, water and cost of training a model, before anything is run."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from predictor.answer import Estimate
    from predictor.errors import InputError, PredictorError
    from predictor.job import Job
    from predictor.pricing import estimate

__all__ = ["Estimate", "InputError", "Job", "PredictorError", "estimate"]

_HOME = {
    "Estimate": "answer",
    "InputError": "errors",
    "Job": "job",
    "PredictorError": "errors",
    "estimate": "pricing",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used, so that ``import predictor`` stays quick."""
    if name not in _HOME:
        raise AttributeError(f"module 'predictor' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(f"predictor.{_HOME[name]}"), name)
    globals()[name] = value
    return value
