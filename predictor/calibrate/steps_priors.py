"""What is believed about the coefficients of ``kernels.steps`` before any step is measured.

Middles are shares of datasheet rates that libraries are known to reach; widths are standard deviations of
logarithms. They matter where no measured step has a family; elsewhere the data move them.
"""

from dataclasses import dataclass
from math import log


@dataclass(frozen=True, slots=True)
class Prior:
    """Middle and standard deviation of a logarithm."""

    middle: float
    width: float


def _near(value: float, width: float) -> Prior:
    return Prior(log(value), width)


_FIXED = 0.01  # a coefficient that the family does not have
_STREAMED = ("conv", "conv1", "first", "grouped")
_OWN = ("linear", "batched", "experts", "attention")  # with forms of their own: near 1
_COMPUTE = {
    "depthwise": 0.08,
    **dict.fromkeys(_OWN, 1.0),
    "first": 0.35,
    "conv": 0.6,
    "conv1": 0.6,
    "grouped": 0.6,
    "scan": 0.1,
}
_MEMORY = {
    **dict.fromkeys(_OWN, 1.0),
    "depthwise": 0.6,
    "batch_norm": 0.7,
    "layer_norm": 0.7,
    "group_norm": 0.5,
    "broadcast": 0.5,
    "cat": 0.5,
    "pool": 0.5,
    "pool-max": 0.5,
    "pool-average": 0.5,
    "gather": 0.3,
    "unpriced": 0.5,
    "scan": 0.5,
    "other": 0.6,
}
_LINE = {"batch_norm": 10.0, "layer_norm": 60.0, "depthwise": 10.0}


def family_prior(family: str) -> dict[str, Prior]:
    """Priors of one family's coefficients by name of the part."""
    base = family.rpartition("-")[0] or family
    return {
        "compute": _near(_COMPUTE.get(base, 0.5), 0.12 if base in _OWN else 0.7),
        "memory": _near(_MEMORY.get(base, 0.85), 0.12 if base in _OWN else 0.55),
        "stream": _near(0.2, 0.7) if base in _STREAMED else _near(1e-4, _FIXED),
        "line": _near(_LINE[base], 1.0) if base in _LINE else _near(1e-3, _FIXED),
        "last-compute": Prior(0.0, 0.4),
        "last-memory": Prior(0.0, 0.4),
        "last-stream": Prior(0.0, 0.7),
    }


SHAPE: dict[str, Prior] = {
    "norm": _near(3.5, 0.15),
    "tile_n": _near(0.8, 0.7),
    "tile_m": _near(0.2, 0.7),
    "wave": _near(0.4, 0.7),
    "short_conv": _near(100, 1.4),
    "short_product": _near(60, 1.4),
    "misaligned_conv": _near(1.3, 0.4),
    "misaligned_product": _near(1.3, 0.4),
    "misaligned_batched": _near(1.1, 0.4),
    "density": Prior(-0.15, 0.1),
    "launch": _near(3.5e-6, 0.25),
}

# Host time of a launch by stack [s].
HOST: dict[str, Prior] = {
    "eager-1-early": _near(60e-6, 0.5),
    "eager-1": _near(16e-6, 0.5),
    "eager-2": _near(11e-6, 0.5),
    "compiled-2": _near(6e-6, 0.5),
    "xla": _near(2e-6, 0.5),
    "megatron-fused": _near(8e-6, 0.5),
}
# Fewer multiplications by Winograd's algorithm, up to 2.25 for windows of 3: Lavin and Gray, CVPR 2016.
_WINOGRAD = log(1.8)
_ARITHMETIC = ("-fp64", "-fp32", "-tf32", "-fp8")


def term_prior(name: str) -> Prior:
    """Prior of a class's term: near 0, but for what is known."""
    if name == "conv-fp32":
        return Prior(-_WINOGRAD, 0.4)
    if name.startswith(_OWN):
        return Prior(0.0, 0.15)
    if name.endswith(_ARITHMETIC) and name.count("-") > 1:
        return Prior(0.0, 0.1)  # the ways of a family differ little by arithmetic
    return Prior(0.0, 0.5)


# Families that an answer may need, whether or not a measured step has them.
_CONVOLUTIONS = ("conv", "conv1", "first", "grouped", "depthwise")
_STREAMS = (
    "linear batched experts attention scan batch_norm layer_norm group_norm softmax elementwise broadcast "
    "mixed copy cast cat fill reduce pool pool-max pool-average gather resize optimizer unpriced"
).split()
FAMILIES = (
    *(f"{name}-{way}" for name in _CONVOLUTIONS for way in ("fwd", "dgrad", "wgrad")),
    *(f"{name}-{way}" for name in _STREAMS for way in ("fwd", "bwd")),
    "other",
)
