"""Collectives inside a node: a latency, the link, and the pipeline's filling between them.

    V = bus bytes,  beta = V/(share link),  alpha = a0 + a1 (n - 1),  t = alpha + 2 c sqrt(alpha beta) + beta

V is (n-1)/n of the buffer for a gather, a scatter of sums and an all-to-all, twice that for an all-reduce
(the convention of nccl-tests). The middle term makes the bus reach half of its rate only at 16 MB.

Source: fitted to NCCL measurements of A100 to B200 nodes (AIConfigurator, Apache-2.0); checked on two other
clusters: 5 % on one A100 node, -23 to +26 % on the other.
"""

from dataclasses import dataclass

import numpy as np

from predictor.values import Array


@dataclass(frozen=True, slots=True)
class Ring:
    """Constants of one kind of exchange.

    first_s, next_s  latency, and more of it for each further rank [s]
    filling          of the pipeline
    share            of the link's rate one way, at 2, 4 and 8 ranks
    passes           bus bytes over (n-1)/n of the buffer
    """

    first_s: float
    next_s: float
    filling: float
    share: tuple[float, float, float]
    passes: int = 1


_GATHER = Ring(7.6e-6, 0.8e-6, 0.56, (0.59, 0.74, 0.83))
SWITCHED = {
    "all_reduce": Ring(7.7e-6, 1.6e-6, 0.55, (0.71, 0.82, 0.77), 2),
    "all_gather": _GATHER,
    "reduce_scatter": _GATHER,
    "all_to_all": Ring(9.8e-6, 0.2e-6, 0.63, (0.62, 0.74, 0.78)),
    # Vidur (MIT), A100 and H100 nodes: the whole buffer over the link.
    "send_recv": Ring(6e-6, 0.0, 0.05, (0.88, 0.88, 0.88), 2),
}
PCIE = {kind: Ring(2.9e-6, 3.0e-6, 0.38, (0.61, 0.43, 0.39), ring.passes) for kind, ring in SWITCHED.items()}
# In-switch sums of eight Hopper chips and later: all-reduce sends once what rings send twice.
IN_SWITCH = 1.48
# V100's hybrid mesh follows its rings: bus rates of an all-reduce at 2 to 8 ranks [byte/s].
MESH_BYTE_PER_S = (23e9, 45e9, 86e9, 37e9, 46e9, 87e9, 135e9)


def exchange_s(ring: Ring, byte: Array, ranks: Array, link_byte_per_s: Array | float) -> Array:
    """Seconds of exchanges of a buffer of ``byte`` over ``ranks`` of one node.

    link_byte_per_s  one way, all links of one chip; times ``IN_SWITCH`` where the switch sums [byte/s]

    >>> bool(exchange_s(SWITCHED["all_reduce"], np.array(1e9), np.array(8), 300e9) > 2 * 1e9 * 7 / 8 / 300e9)
    True
    """
    share = np.interp(np.log2(ranks), (1, 2, 3), ring.share)
    return _filled_s(ring, byte, ranks, share * link_byte_per_s)


def mesh_s(byte: Array, ranks: Array) -> Array:
    """Seconds of an all-reduce over V100's hybrid mesh."""
    rate = np.array(MESH_BYTE_PER_S)[np.clip(np.asarray(ranks, int) - 2, 0, 6)]
    return _filled_s(SWITCHED["all_reduce"], byte, ranks, rate)


def _filled_s(ring: Ring, byte: Array, ranks: Array, rate: Array) -> Array:
    alpha = ring.first_s + ring.next_s * (ranks - 1)
    beta = ring.passes * byte * (ranks - 1) / ranks / rate
    return np.asarray(alpha + 2 * ring.filling * np.sqrt(alpha * beta) + beta)
