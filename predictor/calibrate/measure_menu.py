"""Which kernels are measured: shapes of training, small and odd ones, in the order in which they matter.

Shapes are those of ResNet-50, BERT, GPT-2, ViT and Llama steps at usual batches.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, product

import torch

from predictor.calibrate.measure_device import Device
from predictor.calibrate.measure_kernels import (
    Window,
    attention,
    batch_norm,
    convolution,
    elementwise,
    launch,
    layer_norm,
    optimizer,
    reduction,
    softmax,
)
from predictor.calibrate.measure_kernels import product as matmul
from predictor.calibrate.measure_task import Task

# (m, n, k) or (m, n, k, g): tokens x out x in of a layer, then its gradients, tiny, odd, thin, batched.
_SHAPES: tuple[tuple[int, ...], ...] = (
    *((s, s, s) for s in (4096, 2048, 1024, 512, 256, 128, 64, 16, 8192, 3072, 1536, 768, 16384)),
    *((4096, n, k) for n, k in ((768, 768), (3072, 768), (768, 3072), (1024, 1024), (4096, 1024))),
    *((8192, n, k) for n, k in ((1024, 4096), (3072, 1024), (5120, 1280), (1280, 5120), (2048, 2048))),
    *((4096, n, k) for n, k in ((4096, 4096), (14336, 4096), (4096, 14336), (1024, 4096), (32000, 4096))),
    *((12608, n, k) for n, k in ((1024, 1024), (4096, 1024), (1024, 4096))),
    *((m, n, 8192) for m, n in ((1024, 1024), (4096, 1024), (1024, 4096), (768, 768), (3072, 768))),
    *((m, n, 4096) for m, n in ((14336, 4096), (4096, 14336), (768, 30522), (256, 1000))),
    *((m, 4096, 4096) for m in (1, 8, 32, 128, 512, 1024, 2048)),
    *((m, 1024, 1024) for m in (16, 64, 256, 1024)),
    *((512, 512, k) for k in (64, 128, 4096, 16384)),
    *((513, 512, 512), (4097, 4096, 4096), (1000, 1000, 1000), (3000, 1500, 700), (8200, 1032, 1032)),
    *(
        (512, 512, 64, 96),
        (512, 64, 512, 96),
        (1024, 1024, 64, 128),
        (197, 197, 64, 384),
        (128, 128, 64, 512),
    ),
)
PRODUCTS = tuple(dict.fromkeys(_SHAPES))
# Enough for a type that has one number of its own.
_FEW: frozenset[tuple[int, ...]] = frozenset(
    (
        *((s, s, s) for s in (128, 512, 1024, 2048, 4096, 8192)),
        *((4096, 3072, 768), (4096, 768, 3072), (8192, 3072, 1024), (8192, 1024, 4096), (4096, 14336, 4096)),
        *((32, 4096, 4096), (1024, 1024, 8192), (12608, 4096, 1024)),
    )
)
WINDOWS: tuple[Window, ...] = (
    Window(64, 64, 56, 64, 3),
    Window(64, 128, 28, 128, 3),
    Window(64, 256, 14, 256, 3),
    Window(64, 512, 7, 512, 3),
    Window(64, 256, 56, 64, 1),
    Window(64, 64, 56, 256, 1),
    Window(64, 512, 28, 128, 1),
    Window(64, 1024, 14, 256, 1),
    Window(64, 512, 7, 2048, 1),
    Window(64, 256, 56, 512, 1, 2),
    Window(64, 128, 56, 128, 3, 2),
    Window(64, 3, 224, 64, 7, 2),
    Window(64, 3, 224, 768, 16, 16),
    Window(64, 256, 28, 256, 3, 1, 32),
    Window(64, 512, 14, 512, 3, 1, 8),
    Window(64, 96, 56, 96, 3, 1, 96),
    Window(64, 144, 56, 144, 3, 2, 144),
    Window(64, 384, 14, 384, 7, 1, 384),
    Window(64, 240, 28, 240, 5, 1, 240),
)
ROLES = ("forward", "input", "weight")
# (b, h, s, d, causal, query heads of each key head)
ATTENTIONS = (
    (8, 16, 512, 64, False, 1),
    (8, 16, 1024, 64, True, 1),
    (2, 32, 4096, 128, True, 1),
    (2, 32, 4096, 128, True, 4),
    (1, 32, 16384, 128, True, 4),
    (64, 16, 197, 64, False, 1),
    (32, 12, 128, 64, False, 1),
    (4, 32, 2048, 128, False, 1),
)
ELEMENTS = (1 << 12, 1 << 18, 1 << 22, 1 << 25, 1 << 27)


def menu(device: Device, quick: bool) -> list[Task]:
    """All tasks of a device, most telling first."""
    if device.kind != "cuda":
        return list(_small(quick))
    units = ("bf16", "fp16") if _has_bf16() else ("fp16",)
    tasks = _short(units[0]) if quick else _whole(units)
    return list({task.key: task for task in tasks}.values())


def _has_bf16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _whole(units: tuple[str, ...]) -> Iterator[Task]:
    main = units[0]
    yield from (launch("graph"), launch("queue"))
    yield from (matmul(main, *shape) for shape in PRODUCTS)
    yield from _streams(main, ELEMENTS)
    yield from _attentions(main, ATTENTIONS)
    yield from _convolutions(main, WINDOWS)
    others = ("fp32", "tf32", "fp8", *units[1:])
    yield from (matmul(unit, *shape) for unit in others for shape in PRODUCTS if shape in _FEW)
    yield from _rows(main)
    yield from _convolutions("fp32", WINDOWS[:4])
    yield from _convolutions("tf32", WINDOWS[:4])
    yield from _rows("fp32")
    yield from (optimizer(way, 4096, 8) for way in ("foreach", "fused"))
    yield from (optimizer(way, 768, 100) for way in ("foreach", "fused"))


def _short(main: str) -> Iterator[Task]:
    """About a minute."""
    yield from (launch("graph"), launch("queue"))
    yield from (matmul(main, *shape) for shape in PRODUCTS[::3])
    yield from (matmul(unit, *shape) for unit in ("fp32", "tf32", "fp8") for shape in PRODUCTS[:4])
    yield from _streams(main, ELEMENTS[2:4])
    yield from _attentions(main, ATTENTIONS[:2])
    yield from _convolutions(main, WINDOWS[:5:2])
    yield optimizer("foreach", 1024, 8)


def _small(quick: bool) -> Iterator[Task]:
    """What a CPU or a small GPU does in seconds, or in a few minutes."""
    units = ("fp32",) if quick else ("fp32", "bf16", "fp16")
    sides = (512, 256, 128, 64, 16) if quick else (1024, 2048, 512, 256, 128, 64, 32, 16)
    thin = ((256, 512, 64), (64, 512, 256), (1, 512, 512), (513, 256, 128), (128, 768, 128))
    yield launch("queue")
    shapes: Iterable[tuple[int, ...]] = chain(((s, s, s) for s in sides), thin, ((64, 64, 32, 8),))
    yield from (matmul(unit, *shape) for shape, unit in product(list(shapes), units))
    windows = (Window(2, 16, 28, 32, 3), Window(2, 32, 28, 32, 3, 1, 32), Window(2, 64, 14, 128, 1))
    yield from _convolutions("fp32", windows[:1] if quick else windows)
    heads = ((1, 4, 128, 64, True, 1), (2, 8, 512, 64, False, 1))
    yield from _attentions("fp32", heads[:1] if quick else heads)
    yield from _streams("fp32", (1 << 12, 1 << 20) if quick else ELEMENTS[:4])
    for back in (False, True):
        yield layer_norm("fp32", 512, 768, back)
        yield softmax("fp32", 512, 1024, back)
        yield batch_norm("fp32", 2, 32, 28, False, back)
    yield from (reduction("fp32", 512, 1024, over) for over in (0, 1))
    yield optimizer("foreach", 256, 4)


def _streams(unit: str, sizes: Iterable[int]) -> Iterator[Task]:
    names = ("clone", "mul", "gelu", "gelu_backward", "copy_", "relu")
    yield from (elementwise(name, unit, size) for size in sizes for name in names)


def _attentions(unit: str, shapes: Iterable[tuple[int, int, int, int, bool, int]]) -> Iterator[Task]:
    for b, h, s, d, causal, shared in shapes:
        yield from (attention(unit, b, h, s, d, causal, back, shared) for back in (False, True))


def _convolutions(unit: str, windows: Iterable[Window]) -> Iterator[Task]:
    yield from (
        convolution(unit, window, last, role)
        for window, last, role in product(windows, (False, True), ROLES)
        if window.c > 3 or role != "input"  # nobody asks for the gradient of an image
    )


def _rows(unit: str) -> Iterator[Task]:
    """Norms, softmax and sums."""
    for back in (False, True):
        yield from (layer_norm(unit, rows, width, back) for rows, width in ((4096, 768), (8192, 4096)))
        yield from (softmax(unit, rows, width, back) for rows, width in ((98304, 512), (4096, 32000)))
        for last in (False, True):
            yield from (batch_norm(unit, 64, c, s, last, back) for c, s in ((64, 56), (256, 14), (64, 112)))
    yield from (reduction(unit, 8192, 4096, over) for over in (0, 1))
