"""The rates of one chip that kernel forms need: facts of its profile, and a fit or class values.

A chip with measured kernels has a ``<id>.fit.json`` beside its profile; any other takes the values of
its class from ``data/kernels/products.json``: kernel family by architecture, wide ranges where no chip
of the maker was measured.
"""

from dataclasses import dataclass
from pathlib import Path

from predictor.values import Sourced

PRODUCTS_JSON = Path(__file__).resolve().parent.parent / "data" / "kernels" / "products.json"
# Kernels whose copies run beside the products, from Hopper on; workstation Blackwell runs the older kernels.
_ASYNCHRONOUS = ("Hopper", "Blackwell", "Rubin")
_MATRIX = ("bf16", "fp16")
# Where a profile is silent. 4096 flop per clock and unit: H100 (989 TFLOP/s, 132 SM, 1.83 GHz).
_CLOCK_HZ, _FLOP_PER_CLOCK, _CACHE_BYTE, _LIMIT_SHARE = 1.5e9, 4096.0, 8e6, 1.0


@dataclass(frozen=True, slots=True)
class Spread:
    """Standard deviations of ln(measured / predicted) beside the draws of eta, em and t0.

    common  one draw for all kernels of a kind on a chip: what software and the form do to all of them
    own     one per kernel, large enough to fill the chip; averages out over a step
    small   likewise for small or odd kernels
    """

    common: float
    own: float
    small: float


@dataclass(frozen=True, slots=True)
class Products:
    """Constants of the tile form for one kernel family (see ``tiles``).

    prologue_cycles  of a tile before its first product [clock]
    wave             share of a last wave's empty part that is paid
    edge             extra work of narrow tiles
    l2_byte          from the last cache to one processor per clock [byte]
    sync_s           to join the parts of a split sum [s]
    softness         exponent of the smooth maximum
    """

    prologue_cycles: float
    wave: float
    edge: float
    l2_byte: float
    sync_s: float
    softness: float


@dataclass(frozen=True, slots=True)
class ChipRates:
    """One chip as the kernel forms see it.

    fitted                whether kernels of this chip were measured
    family                "classic" or "asynchronous"
    units, clock_hz       processors and their clock
    bandwidth_byte_per_s  datasheet
    cache_byte            last cache on the chip
    eta                   share of the matrix peak that a full wave of large tiles reaches, in burst
    em                    share of the bandwidth
    t0_s                  of a kernel that does nothing, replayed from a graph [s]
    throttle              slow-down per decade of kernel time over 0.3 ms, in burst
    sustained             rate of long training over the burst rate: clocks at the power limit
    attention             share of the matrix peak inside fused attention, forward
    experts               share of the matrix peak inside grouped expert products
    vector                share of the fp32 vector peak in large fp32 products
    spread                by kind: matmul, attention, attention-backward, experts, fp8
    """

    id: str
    fitted: bool
    family: str
    units: float
    clock_hz: float
    bandwidth_byte_per_s: float
    cache_byte: float
    limit_w: float
    matrix_flop_per_s: float
    eta: Sourced
    em: Sourced
    t0_s: Sourced
    throttle: Sourced
    sustained: Sourced
    attention: Sourced
    experts: Sourced
    vector: Sourced
    products: Products
    spread: dict[str, Spread]
