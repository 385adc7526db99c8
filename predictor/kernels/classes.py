"""Which class a kernel belongs to: what decides its speed beside flop and bytes.

Libraries pick one of many kernels by type, layout, window, stride, groups and alignment, so times jump where
a smooth formula does not. A class is a family ("conv-fwd"), the sides of its product, and named terms; the
fitted form multiplies the time by the exponential of the terms' sum. Names are those of
``data/kernels/steps.json``.

The classes follow the study of timm training steps: depthwise kernels by window, stride and layout; grouped
ones by the number of groups, channels in each and layout; alignment to 8 channels.
"""

from dataclasses import dataclass, replace
from math import inf, log, log2

from predictor.ir import FORWARD
from predictor.ops import Kernel

Term = tuple[str, float]
_ROLE = {"conv-forward": "fwd", "conv-input": "dgrad", "conv-weight": "wgrad"}
_OTHER_UNITS = ("fp64", "fp32", "tf32", "fp8")
_ALIGNED = 8  # 16-bit elements in the 16 bytes a tensor core loads at once
_NARROW, _WIDE = 32, 256  # channels
_SMALL_INPUT = 8  # channels under which a first layer's kernel is used


@dataclass(frozen=True, slots=True)
class Class:
    """Where a kernel belongs.

    family   name of its row in the table of families
    sides    (m, n, k) of the product its tiles cover, zeros without one
    groups   independent products
    aligned  whether every side is a multiple of 8
    line     elements that are summed together, infinite where that does not matter [-]
    vector   whether it runs on the vector units
    terms    named features: the time is multiplied by exp(sum of weight * feature)
    """

    family: str
    sides: tuple[int, int, int] = (0, 0, 0)
    groups: int = 1
    aligned: bool = True
    line: float = inf
    vector: bool = True
    terms: tuple[Term, ...] = ()


def class_of(kernel: Kernel, phase: str, unit: str) -> Class:
    """The class of a kernel in a phase.

    unit  arithmetic its products run in: fp64, fp32, tf32, fp8, or another name for 16 bit
    """
    found = _of_kind(kernel, phase)
    if found.vector or unit not in _OTHER_UNITS:
        return found
    family, _, way = found.family.partition("-")
    return replace(found, terms=(*found.terms, (f"{family}-{unit}", 1.0), (f"{family}-{way}-{unit}", 1.0)))


def _of_kind(kernel: Kernel, phase: str) -> Class:
    if kernel.family in _ROLE:
        return _convolution(kernel)
    way = "fwd" if phase == FORWARD else "bwd"
    if kernel.kind == "matmul":
        g, m, n, k = kernel.dims
        aligned = not any(side % _ALIGNED for side in (m, n, k))
        name = "experts" if kernel.family.startswith("experts") else "batched" if g > 1 else "linear"
        return Class(f"{name}-{way}", (m, n, k), g, aligned, vector=False)
    if kernel.kind == "attention":
        g, m, n, k = kernel.dims
        return Class(f"attention-{way}", (m, n, k), g, vector=False)
    family = kernel.family or {"norm": "layer_norm", "norm-channels-last": "batch_norm"}.get(
        kernel.kind, kernel.kind
    )
    terms: tuple[Term, ...] = ()
    if family == "batch_norm" and kernel.line > 1024:
        terms = ((f"batch_norm-{way}-large-{_layout(kernel)}", 1.0),)
    return Class(f"{family}-{way}", line=kernel.line or inf, terms=terms)


def _layout(kernel: Kernel) -> str:
    return "last" if kernel.last else "first"


def _channels(kernel: Kernel) -> tuple[int, int]:
    """Input and output channels of a group."""
    _, m, n, k = kernel.dims
    role = _ROLE[kernel.family]
    out, inner = {"fwd": (n, k), "dgrad": (k, n), "wgrad": (m, n)}[role]
    taps = kernel.window**2 if inner % max(kernel.window**2, 1) == 0 else max(kernel.window, 1)
    return max(inner // taps, 1), out


def _convolution(kernel: Kernel) -> Class:
    """A convolution as the product its tiles cover; the input gradient covers every pixel of the input."""
    role, layout = _ROLE[kernel.family], _layout(kernel)
    g, m, n, k = kernel.dims
    inside, out = _channels(kernel)
    sides = (m, n, k)
    if role == "dgrad":
        sides = (m * kernel.stride**2, inside, k * (n // inside))
    aligned = inside % _ALIGNED == 0 and out % _ALIGNED == 0
    if kernel.kind == "depthwise":
        return Class(f"depthwise-{role}", sides, g, True, kernel.line, True, _depthwise(kernel, role, layout))
    misfit: tuple[Term, ...] = ()
    if not aligned and inside >= _SMALL_INPUT:
        misfit = ((f"misaligned-{layout}", 1.0), (f"misaligned-{role}-{layout}", 1.0))
    if g > 1:
        terms = _grouped(kernel, role, layout, inside, out, aligned)
        return Class(f"grouped-{role}", sides, g, aligned, kernel.line, False, terms)
    if inside < _SMALL_INPUT:
        return Class(f"first-{role}", sides, g, aligned, kernel.line, False, misfit)
    narrow, wide = min(inside, out), "narrow" if min(inside, out) < _NARROW else "middle"
    width = "wide" if narrow > _WIDE else wide
    family = "conv1" if kernel.window <= 1 else "conv"
    terms = (*misfit, (f"{family}-{role}-{width}-{layout}", 1.0))
    if kernel.stride > 1:
        terms += ((f"{family}-{role}-strided-{layout}", 1.0),)
    if family == "conv":
        terms += ((f"conv-{role}-{min(kernel.window, 7)}-{layout}", 1.0),)
    elif not aligned:
        terms += ((f"conv1-{role}-misaligned-{layout}", 1.0),)
    return Class(f"{family}-{role}", sides, g, aligned, kernel.line, False, terms)


def _depthwise(kernel: Kernel, role: str, layout: str) -> tuple[Term, ...]:
    """Windows up to 9 and strides up to 2 have kernels of their own."""
    window, stride = min(kernel.window, 9), min(kernel.stride, 2)
    terms: tuple[Term, ...] = (
        (f"depthwise-{window}-{layout}", 1.0),
        (f"depthwise-{role}-{window}-{layout}", 1.0),
        (f"depthwise-{role}-{window}-{stride}-{layout}", 1.0),
        (f"depthwise-{role}-log-window-{layout}", log(max(kernel.window, 1) / 3)),
    )
    return (*terms, (f"depthwise-large-{layout}", 1.0)) if window > 5 else terms


def _grouped(
    kernel: Kernel, role: str, layout: str, inside: int, out: int, aligned: bool
) -> tuple[Term, ...]:
    """Few, some or many groups; channels in each by powers of two; equal widths or not."""
    groups = kernel.dims[0]
    many = "few" if groups <= 8 else "some" if groups < 32 else "many"
    width = 2 ** min(max(round(log2(inside)), 2), 7)
    equal = "equal" if inside == out else "unequal"
    terms: tuple[Term, ...] = (
        (f"grouped-{many}-{equal}-{layout}", 1.0),
        (f"grouped-{width}-{layout}", 1.0),
        (f"grouped-{role}-{many}-{layout}", 1.0),
        (f"grouped-{role}-{width}-{layout}", 1.0),
        (f"grouped-{role}-log-groups-{layout}", log(min(groups, 64) / 16)),
        (f"grouped-{role}-log-width-{layout}", log(min(max(inside, 4), 256) / 32)),
        (f"grouped-{role}-log-plane-{layout}", log(max(kernel.line, 1) / 196)),
    )
    return terms if aligned else (*terms, (f"grouped-{role}-misaligned-{layout}", 1.0))
