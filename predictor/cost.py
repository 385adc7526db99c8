"""US dollars of a run: rent by the accelerator-hour."""

from predictor.units import HOUR
from predictor.values import Array, Sourced


def rent_usd(accelerators: int, wall_s: Array, price_usd_per_s: Sourced | float) -> Array:
    """Every accelerator is paid from start to end of the run, waiting included [USD, draws].

    price_usd_per_s  of one accelerator; a plain number is a price the user gave
    """
    price = price_usd_per_s.draw("cost.price") if isinstance(price_usd_per_s, Sourced) else price_usd_per_s
    return accelerators * wall_s * price


def per_second(usd_per_hour: float) -> float:
    """A price per hour in base units [USD/s]."""
    return usd_per_hour / HOUR
