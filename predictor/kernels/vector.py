"""FP32 products on the vector units: the tile form with constants of its own, and a rate that power caps.

A long FP32 product runs as fast as the board's watts allow: rate <= limit/e with e joule per flop by process
(36 pJ at 16 nm, 19 at 12 nm, 16.5 at 7 nm); short ones outrun the cap for as long as they last.
"""

from dataclasses import dataclass, replace

from predictor.kernels import tiles
from predictor.kernels.chip import ChipRates, Products, shared
from predictor.kernels.tiles import Parts
from predictor.values import Array

_FLOAT_BYTE = 4


@dataclass(frozen=True, slots=True)
class Plain:
    """Constants of FP32 products, in place of those on matrix units; ``em`` is a share of the bandwidth."""

    prologue_cycles: float
    wave: float
    edge: float
    l2_byte: float
    em: float


def plain() -> Plain:
    """The fitted constants."""
    return Plain(**shared()["vector"]["plain"])


def chip_of(chip: ChipRates, own: Plain | None = None) -> ChipRates:
    """The chip as FP32 products see it."""
    own = own or plain()
    old = chip.products
    form = Products(own.prologue_cycles, own.wave, own.edge, own.l2_byte, old.sync_s, old.softness)
    memory = replace(chip.em, value=own.em)
    calm = replace(chip.throttle, value=0.0, low=0.0, high=0.0)
    return replace(chip, eta=chip.vector, em=memory, products=form, residual=None, throttle=calm)


def parts(
    g: Array,
    m: Array,
    n: Array,
    k: Array,
    peak_flop_per_s: Array | float,
    chip: ChipRates,
    own: Plain | None = None,
) -> Parts:
    """``g`` FP32 products [m, k] @ [k, n] of every row at middle rates [rows, s].

    peak_flop_per_s  fp32 peak of the vector units [flop/s]
    """
    return tiles.parts(g, m, n, k, _FLOAT_BYTE, _FLOAT_BYTE, peak_flop_per_s, chip_of(chip, own))
