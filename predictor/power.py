"""Watts of one accelerator from the rates of a step, a pure function.

P = idle + active + energy per flop * flop/s + energy per byte * byte/s, bent softly below the limit.
The energies are class defaults: shares of the board limit at full rate. ``limit`` is what the board is
allowed; lowering clocks at the limit lengthens time, which the wide range of the rates covers here.
"""

from dataclasses import dataclass

import numpy as np

from predictor.values import Array, Sourced

_SOURCE = (
    "fit to H200 and B200 matmul power and to V100, P100 and A40 training power: 0.8 pJ/flop bf16 is 1.1 "
    "of the H200's limit at peak, 43 pJ/byte 0.3 of it at full bandwidth"
)
FLOP_SHARE = Sourced(1.05, 0.65, 1.30, _SOURCE, "2026-11-20", "estimate")
BYTE_SHARE = Sourced(0.33, 0.20, 0.50, _SOURCE, "2026-11-20", "estimate")
ACTIVE_SHARE = Sourced(0.18, 0.08, 0.28, _SOURCE, "2026-11-20", "estimate")
# Where the soft limit bends: exponent, and the share of the limit that a governed board averages.
_BEND, _HELD = 5.2, 0.975


@dataclass(frozen=True, slots=True)
class PowerDraws:
    """One accelerator's power parameters, each an array of draws [W]."""

    idle_w: Array
    limit_w: Array
    flop_w: Array
    byte_w: Array
    active_w: Array


def power_draws(idle_w: Sourced, limit_w: Sourced, name: str) -> PowerDraws:
    """Draw the parameters of an accelerator; shares of the limit become watts at full rate."""
    limit = limit_w.draw(f"{name}.limit_w")
    return PowerDraws(
        idle_w=idle_w.draw(f"{name}.idle_w"),
        limit_w=limit,
        flop_w=limit * FLOP_SHARE.draw("power.flop_share"),
        byte_w=limit * BYTE_SHARE.draw("power.byte_share"),
        active_w=limit * ACTIVE_SHARE.draw("power.active_share"),
    )


def board_w(draws: PowerDraws, flop_utilisation: Array, byte_utilisation: Array, busy: Array) -> Array:
    """Average watts over a step [draws].

    flop_utilisation  executed flop over dense peak of their type, times time [-]
    byte_utilisation  bytes over bandwidth, times time [-]
    busy              share of the step in which kernels run [-]
    """
    wanted = (
        draws.idle_w
        + draws.active_w * busy
        + draws.flop_w * flop_utilisation
        + draws.byte_w * byte_utilisation
    )
    held = _HELD * draws.limit_w
    capped = (wanted**-_BEND + held**-_BEND) ** (-1 / _BEND)
    return np.maximum(capped, np.minimum(draws.idle_w, held))
