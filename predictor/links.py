"""How long a message takes before its first byte counts, by kind of link, where nobody measured the node.

A collective over n accelerators starts with about ``latency + (n - 1) * hop``: the launch, then one step
of the ring after the other. Bandwidth comes on top.
"""

from dataclasses import dataclass

from predictor.values import Sourced

_US = 1e-6
_READ = "2026-11-20"
_KERNELS = (
    "latency + hop (n - 1) fitted to NCCL all-reduce over 2 to 8 GPUs, tables of NVIDIA AIConfigurator "
    "(Apache-2.0)"
)
_NCCL = "NVIDIA NCCL, src/graph/tuning.cc, baseLat and hwLat: ring, LL to Simple"
_BOOK = "How To Scale Your Model, sharding chapter: about 1 us per hop; 3 hops took 8 us"


@dataclass(frozen=True, slots=True)
class LinkClass:
    """Start of a collective, and each further step of it [s]."""

    latency_s: Sourced
    hop_s: Sourced


def _us(value: float, low: float, high: float, source: str, status: str) -> Sourced:
    return Sourced(value * _US, low * _US, high * _US, source, _READ, status)


def _judged(latency: tuple[float, float, float], hop: tuple[float, float, float], why: str) -> LinkClass:
    source = f"estimate: {why}"
    return LinkClass(_us(*latency, source, "estimate"), _us(*hop, source, "estimate"))


LINK_CLASSES = {
    "nvlink": LinkClass(
        _us(7.7, 5, 14, f"{_KERNELS}: A100, H100 and B200 nodes; range as in NCCL", "derived"),
        _us(1.6, 0.6, 3.4, f"{_KERNELS}: A100, H100 and B200 nodes; range as in NCCL", "derived"),
    ),
    "pcie": LinkClass(
        _us(2.9, 2, 14, f"{_KERNELS}: a node of RTX PRO 6000; range as in NCCL", "derived"),
        _us(3.0, 1.0, 5.7, f"{_KERNELS}: a node of RTX PRO 6000; range as in NCCL", "derived"),
    ),
    "infiniband": LinkClass(
        _us(6.6, 5, 14, _NCCL, "derived"),
        _us(4.0, 2.7, 14, f"{_NCCL}, network", "derived"),
    ),
    "ici": LinkClass(
        _us(2, 0.5, 8, _BOOK, "derived"),
        _us(1, 0.7, 2.7, _BOOK, "derived"),
    ),
    "xgmi": _judged((10, 5, 30), (2, 0.6, 6), "RCCL over xGMI, at or above NCCL over NVLink"),
    "slingshot": _judged((6.6, 4, 20), (4, 2, 15), "as InfiniBand"),
    "roce": _judged((6.6, 4, 25), (5, 2.7, 20), "RDMA over Ethernet, at or above InfiniBand"),
    "efa": _judged((10, 5, 40), (15, 6, 40), "SRD over Ethernet: 15 us a step, 6 to 40"),
    "ethernet": _judged((10, 5, 60), (30, 10, 100), "TCP through the host: 30 us a step, 10 to 100"),
    "neuronlink": _judged((10, 3, 30), (2, 0.5, 6), "chip to chip, not measured"),
    "fabric": _judged((8, 1, 30), (2, 0.3, 6), "accelerator links of a kind nobody measured"),
}
"""Kinds of link that ``[inside] link`` and ``[between] link`` of a node may name."""

_WORDS = (
    ("nvlink", "nvlink"),
    ("ici", "ici"),
    ("infinity", "xgmi"),
    ("xgmi", "xgmi"),
    ("neuronlink", "neuronlink"),
)


def link_of(words: str) -> LinkClass:
    """The class of a link that a profile names in words; PCIe when it names none.

    >>> link_of("NVLink 4") is LINK_CLASSES["nvlink"], link_of("") is LINK_CLASSES["pcie"]
    (True, True)
    """
    folded = words.casefold()
    for word, kind in _WORDS:
        if word in folded:
            return LINK_CLASSES[kind]
    return LINK_CLASSES["pcie" if "pcie" in folded or not folded else "fabric"]
