"""Watts of one accelerator from the rates of a step, and the clock that its power limit leaves.

    wanted = idle + active (1 - exp(-(u_flop + u_byte)/0.1)) + e_flop flop/s + e_byte byte/s
    P      = (wanted^-n + (0.975 limit)^-n)^(-1/n)

A governor that holds P lowers the clock f until f v(f)^2 falls to the share of dynamic power left, with the
voltage v flat below f = 0.75; the part of the time that the clock sets grows by 1/f. Time and power are
thus solved together. Energies of a chip without measured power follow from the H200: per flop by the square
root of watts per peak, per byte by kind of memory; its full rate draws 0.9 to 1.6 of its limit.
"""

from dataclasses import dataclass

import numpy as np

from predictor.accelerator import Accelerator
from predictor.kernels.chip import matrix_peak
from predictor.machine import LIMIT_W
from predictor.values import Array, Sourced

_SOURCE = "fits to H200 and B200 products, sustained and short, and to V100, P100 and A40 training power"
# Board limit over 16-bit peak of the chip whose energies are the reference, the H200 [W s/flop].
_REFERENCE_W, _REFERENCE_FLOP_PER_S = 700.0, 989e12
FLOP_J = Sourced(0.8e-12, 0.55e-12, 1.0e-12, f"{_SOURCE}; joules per flop, H200", "2026-11-20", "estimate")
_HBM_J = Sourced(43e-12, 25e-12, 60e-12, f"{_SOURCE}; joules per byte, HBM3e", "2026-11-20", "estimate")
_GDDR_J = Sourced(
    60e-12, 35e-12, 90e-12, "judgement: GDDR over HBM, joules per byte", "2026-11-20", "estimate"
)
ACTIVE_SHARE = Sourced(0.18, 0.08, 0.28, f"{_SOURCE}; of the limit", "2026-11-20", "estimate")
# What full rate may draw, idle included, over the limit.
_LEAST_FULL, _MOST_FULL = 0.9, 1.6
_ACTIVE_SCALE = 0.1
# Where the soft limit bends: exponent, and the share of the limit that a governed board averages.
_BEND, _HELD = 5.2, 0.975
# Voltage over that at full clock: flat below the knee.
_LEAST_VOLT, _KNEE = 0.75, 0.75
_CLOCKS = np.linspace(0.2, 1.0, 161)
_VOLTS = _LEAST_VOLT + (1 - _LEAST_VOLT) * np.maximum(_CLOCKS - _KNEE, 0) / (1 - _KNEE)
_DYNAMIC = _CLOCKS * _VOLTS**2
# Share of the time that follows the clock: of kernels bound by memory, and what computing adds.
CLOCKED_MEMORY, CLOCKED_COMPUTE = 0.3, 0.7


@dataclass(frozen=True, slots=True)
class PowerDraws:
    """One accelerator's power parameters, each an array of draws [W]."""

    idle_w: Array
    limit_w: Array
    flop_w: Array
    byte_w: Array
    active_w: Array


def power_draws(accelerator: Accelerator) -> PowerDraws:
    """Draw an accelerator's parameters: watts at full rate of its matrix units and of its memory."""
    limit_w = accelerator.limit_w or LIMIT_W
    limit = limit_w.draw(f"{accelerator.id}.limit_w")
    idle = accelerator.idle_w.draw(f"{accelerator.id}.idle_w")
    peak = matrix_peak(accelerator)
    scale = np.sqrt((limit_w.value / peak) / (_REFERENCE_W / _REFERENCE_FLOP_PER_S))
    full = FLOP_J.draw("power.flop_j") * scale * peak
    byte_j = _HBM_J if "HBM" in accelerator.memory_type or accelerator.kind != "gpu" else _GDDR_J
    return PowerDraws(
        idle_w=idle,
        limit_w=limit,
        flop_w=np.clip(full, _LEAST_FULL * limit - idle, _MOST_FULL * limit - idle),
        byte_w=byte_j.draw("power.byte_j") * accelerator.memory_byte_per_s.value,
        active_w=limit * ACTIVE_SHARE.draw("power.active_share"),
    )


def _wanted_w(draws: PowerDraws, u_flop: Array, u_byte: Array, busy: Array | float) -> Array:
    """Watts without a limit, from shares of peak and bandwidth [draws]."""
    used = (u_flop + u_byte) / np.maximum(busy, 1e-9)
    active = draws.active_w * busy * (1 - np.exp(-used / _ACTIVE_SCALE))
    return np.asarray(draws.idle_w + active + draws.flop_w * u_flop + draws.byte_w * u_byte)


def _capped_w(draws: PowerDraws, wanted_w: Array) -> Array:
    held = _HELD * draws.limit_w
    capped = (wanted_w**-_BEND + held**-_BEND) ** (-1 / _BEND)
    return np.asarray(np.maximum(capped, np.minimum(draws.idle_w, held)))


def slowdown(draws: PowerDraws, flop_utilisation: Array, byte_utilisation: Array, clocked: Array) -> Array:
    """Time under the power limit over the time at full clock, of a device that is always busy [draws].

    flop_utilisation, byte_utilisation  shares of peak and bandwidth at full clock
    clocked                             share of the time that follows the clock
    """
    wanted = _wanted_w(draws, flop_utilisation, byte_utilisation, 1.0)
    dynamic = np.maximum(wanted - draws.idle_w, 0.25 * draws.limit_w)
    left = np.clip(1 - (wanted - _capped_w(draws, wanted)) / dynamic, _DYNAMIC[0], 1.0)
    clock = np.interp(left, _DYNAMIC, _CLOCKS)
    return np.asarray(1 - clocked + clocked / clock)


def board_w(draws: PowerDraws, flop_utilisation: Array, byte_utilisation: Array, busy: Array) -> Array:
    """Average watts over a step [draws].

    flop_utilisation  executed flop over dense peak of their type, times time [-]
    byte_utilisation  bytes over bandwidth, times time [-]
    busy              share of the step in which kernels run [-]
    """
    return _capped_w(draws, _wanted_w(draws, flop_utilisation, byte_utilisation, busy))
