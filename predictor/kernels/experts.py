"""Products of experts: many small products of one shape in one launch.

The tile form (``tiles``) over all experts at once, with constants of its own: a longer prologue, whole waves,
and shares of peak and bandwidth fitted to fused expert kernels. Loads are balanced; a skewed router's fullest
rank decides (``skew``). Training runs the products in kernels of its own, at ``training_share`` of the rate.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from predictor.kernels import tiles
from predictor.kernels.chip import ChipRates, shared
from predictor.kernels.tiles import Parts
from predictor.values import Array, Sourced


@dataclass(frozen=True, slots=True)
class Fused:
    """Constants of one fused expert layer.

    prologue_cycles, wave  of its tiles, in place of those of plain products
    memory                 share of the bandwidth over that of plain products
    permute                passes over the routed rows of the layer's input
    t0_s                   routing and launches [s]
    """

    prologue_cycles: float
    wave: float
    memory: float
    permute: float
    t0_s: float


def fused(table: Mapping[str, float] | None = None) -> Fused:
    """The fitted constants; of another stack or type from its row of the table."""
    row = table or shared()["experts"]["fused"]["trtllm"]
    return Fused(**{name: value for name, value in row.items() if name != "rate"})


def chip_of(chip: ChipRates, own: Fused | None = None) -> ChipRates:
    """The chip as expert products see it."""
    own = own or fused()
    form = replace(chip.products, prologue_cycles=own.prologue_cycles, wave=own.wave)
    memory = replace(chip.em, value=chip.em.value * own.memory)
    calm = replace(chip.throttle, value=0.0, low=0.0, high=0.0)
    return replace(chip, eta=chip.experts, em=memory, products=form, residual=None, throttle=calm)


def parts(
    experts: Array,
    rows: Array,
    n: Array,
    k: Array,
    element_byte: Array | float,
    out_byte: Array | float,
    peak_flop_per_s: Array | float,
    chip: ChipRates,
    own: Fused | None = None,
) -> Parts:
    """``experts`` products [rows, k] @ [k, n] in one launch, at middle rates [rows, s]."""
    return tiles.parts(experts, rows, n, k, element_byte, out_byte, peak_flop_per_s, chip_of(chip, own))


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
    own: Fused | None = None,
) -> Array:
    """One gated expert layer forward on one rank: gate and up, down, and moving the tokens [s].

    tokens  of all ranks together; inner: of one rank, tensor parallelism divided out
    top     experts of one token
    ranks   over which the experts are spread, loads balanced
    """
    own = own or fused()
    routed = tokens * top / ranks
    active = np.minimum(experts / ranks, np.maximum(routed, 1))
    rows = np.maximum(routed / active, 1)
    up = parts(active, rows, 2 * inner, hidden, element_byte, 2, peak_flop_per_s, chip, own)
    down = parts(active, rows, hidden, inner, element_byte, 2, peak_flop_per_s, chip, own)
    p = chip.products.softness
    move = own.permute * routed * hidden * 2 / chip.bandwidth_byte_per_s
    return np.asarray(own.t0_s + up.total_s(p) + down.total_s(p) + move)


def skew(ranks: Array, tokens: Array) -> Array:
    """Time under skewed routing (power law 1.2) over the balanced time.

    1.06, 1.35, 1.9 and 2.6 measured at 1, 4, 16 and 64 expert-parallel ranks from 4096 tokens on; 1 below
    512, where every rank waits for its weights.
    """
    full = np.interp(np.log2(ranks), (0, 2, 4, 6), np.log((1.06, 1.35, 1.9, 2.6)))
    return np.exp(full * np.clip(np.log2(tokens / 512) / 3, 0, 1))
