"""Products of experts: many small products of one shape in one launch.

The tile form (``tiles``) over all experts at once, with constants of its own: a longer prologue, whole waves,
and shares of peak and bandwidth fitted to fused expert kernels. Loads are balanced; a skewed router's fullest
rank decides (``skew``). Training runs the products in kernels of its own, at ``training_share`` of the rate.
"""

from dataclasses import replace

import numpy as np

from predictor.kernels import tiles
from predictor.kernels.chip import ChipRates, shared
from predictor.kernels.tiles import Parts
from predictor.values import Array, Sourced


def chip_of(chip: ChipRates) -> ChipRates:
    """The chip as expert products see it."""
    own = shared()["experts"]
    form = replace(chip.products, prologue_cycles=own["prologue_cycles"], wave=own["wave"])
    memory = replace(chip.em, value=min(chip.em.value * own["memory"], 1.0))
    return replace(
        chip, eta=chip.experts, em=memory, products=form, residual=None, throttle=_none(chip.throttle)
    )


def parts(
    experts: Array,
    rows: Array,
    n: Array,
    k: Array,
    element_byte: Array | float,
    out_byte: Array | float,
    peak_flop_per_s: Array | float,
    chip: ChipRates,
) -> Parts:
    """``experts`` products [rows, k] @ [k, n] in one launch, at middle rates [rows, s]."""
    return tiles.parts(experts, rows, n, k, element_byte, out_byte, peak_flop_per_s, chip_of(chip))


def training_share() -> Sourced:
    """Rate of grouped products in training over that of fused inference kernels."""
    row = shared()["experts"]["training_share"]
    return Sourced(row["value"], row["low"], row["high"], row["source"], row["as_of"], "derived")


def layer_s(
    tokens: Array,
    hidden: Array,
    inner: Array,
    top: Array,
    experts: Array,
    ranks: Array,
    element_byte: float,
    peak_flop_per_s: float,
    chip: ChipRates,
) -> Array:
    """One gated expert layer forward on one rank: gate and up, down, and moving the tokens [s].

    tokens  of all ranks together; inner: of one rank, tensor parallelism divided out
    top     experts of one token
    ranks   over which the experts are spread, loads balanced
    """
    own = shared()["experts"]
    routed = tokens * top / ranks
    active = np.minimum(experts / ranks, np.maximum(routed, 1))
    rows = np.maximum(routed / active, 1)
    up = parts(active, rows, 2 * inner, hidden, element_byte, 2, peak_flop_per_s, chip)
    down = parts(active, rows, hidden, inner, element_byte, 2, peak_flop_per_s, chip)
    p = chip.products.softness
    move = own["permute"] * routed * hidden * 2 / chip.bandwidth_byte_per_s
    return np.asarray(own["t0_s"] + up.total_s(p) + down.total_s(p) + move)


def skew(ranks: Array) -> Array:
    """Time under skewed routing (power law 1.2) over the balanced time, by expert-parallel ranks.

    1.06, 1.35, 1.9 and 2.6 measured at 1, 4, 16 and 64 ranks from 4096 tokens on.
    """
    return np.exp(np.interp(np.log2(ranks), (0, 2, 4, 6), np.log((1.06, 1.35, 1.9, 2.6))))


def _none(throttle: Sourced) -> Sourced:
    return replace(throttle, value=0.0, low=0.0, high=0.0)
