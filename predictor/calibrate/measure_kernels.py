"""Calls to measure, one function for each kind; a task makes its own inputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from predictor.calibrate.measure_device import Call
from predictor.calibrate.measure_task import TORCH_TYPE, Task, aten, random, spec
from predictor.ir import BACKWARD, FORWARD, OPTIMIZER, Op
from predictor.ops import FORMULAS, Kernel
from predictor.training import RECIPES, optimizer_kernel

_EPSILON = 1e-5


def product(unit: str, m: int, n: int, k: int, g: int = 1) -> Task:
    """``g`` products [m, k] @ [k, n]."""
    key = f"matmul/{unit}/{g}x{m}x{n}x{k}"
    if unit == "fp8":
        return _scaled_product(key, m, n, k)

    def make(device: torch.device) -> tuple[Any, ...]:
        many = (g,) if g > 1 else ()
        return random(device, unit, *many, m, k), random(device, unit, *many, k, n)

    return aten(key, "matmul", "bmm" if g > 1 else "mm", unit, make)


def _scaled_product(key: str, m: int, n: int, k: int) -> Task:
    """An 8-bit product with one scale for each side; the second factor lies column by column."""
    eight = getattr(torch, "float8_e4m3fn", None)

    def make(device: torch.device) -> tuple[Any, ...]:
        if eight is None:
            raise RuntimeError("this PyTorch has no 8-bit type")
        one = torch.ones((), device=device, dtype=torch.float32)
        return random(device, "fp8", m, k).to(eight), random(device, "fp8", n, k).to(eight).t(), one, one

    return aten(key, "matmul", "_scaled_mm", "fp8", make, options={"out_dtype": torch.bfloat16})


@dataclass(frozen=True, slots=True)
class Window:
    """A square convolution: batch, channels in, side of the image, channels out, window, stride, groups."""

    b: int
    c: int
    side: int
    out: int
    window: int
    stride: int = 1
    groups: int = 1

    def __str__(self) -> str:
        """As in a key."""
        return f"{self.b}x{self.c}x{self.side}-{self.out}k{self.window}s{self.stride}g{self.groups}"


def convolution(unit: str, at: Window, last: bool, role: str) -> Task:
    """``role`` forward, input or weight: the product itself or one of its gradients."""
    layout = torch.channels_last if last else torch.contiguous_format
    step, pad = [at.stride, at.stride], [at.window // 2, at.window // 2]
    rest = (step, pad, [1, 1], False, [0, 0], at.groups)

    def sides(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        x = random(device, unit, at.b, at.c, at.side, at.side).contiguous(memory_format=layout)
        weight = random(device, unit, at.out, at.c // at.groups, at.window, at.window)
        return x, weight.contiguous(memory_format=layout)

    def make(device: torch.device) -> tuple[Any, ...]:
        x, weight = sides(device)
        if role == "forward":
            return x, weight, None, *rest
        result = torch.ops.aten.convolution.default(x, weight, None, *rest)
        gradient = torch.randn_like(result)
        return gradient, x, weight, None, *rest, [role == "input", role == "weight", False]

    key = f"conv/{unit}/{at}/{'last' if last else 'first'}/{role}"
    name = "convolution" if role == "forward" else "convolution_backward"
    return aten(key, "conv", name, unit, make, FORWARD if role == "forward" else BACKWARD)


def attention(
    unit: str, b: int, h: int, s: int, d: int, causal: bool, backward: bool, shared: int = 1
) -> Task:
    """Fused attention by PyTorch's own choice of kernel; ``shared`` query heads for each key head."""
    phase = BACKWARD if backward else FORWARD
    mask = "causal" if causal else "full"
    key = f"attention/{unit}/{b}x{h}x{s}x{d}/{shared}/{mask}/{phase}"

    def build(device: torch.device) -> tuple[Call, tuple[Kernel, ...]]:
        q = random(device, unit, b, h, s, d).requires_grad_(backward)
        k, v = (random(device, unit, b, h // shared, s, d).requires_grad_(backward) for _ in range(2))
        options: dict[str, Any] = {"is_causal": causal, **({"enable_gqa": True} if shared > 1 else {})}
        out = scaled_dot_product_attention(q, k, v, **options)
        specs = (spec(q), spec(k), spec(v))
        if not backward:
            op = Op("predictor.attention", specs, (spec(out),), {"is_causal": causal})
            return (lambda: scaled_dot_product_attention(q, k, v, **options)), FORMULAS[op.name](op)
        gradient = torch.randn_like(out)
        inputs = (spec(gradient), *specs, spec(out))
        op = Op("predictor.attention_backward", inputs, specs, {"is_causal": causal}, BACKWARD)

        def call() -> Any:
            return torch.autograd.grad(out, (q, k, v), gradient, retain_graph=True)

        return call, FORMULAS[op.name](op)

    return Task(key, "attention", "scaled_dot_product_attention", phase, unit, build, graph=not backward)


def layer_norm(unit: str, rows: int, width: int, backward: bool) -> Task:
    """Rows of ``width`` elements."""

    def make(device: torch.device) -> tuple[Any, ...]:
        x, weight = random(device, unit, rows, width), random(device, unit, width)
        if not backward:
            return x, [width], weight, weight, _EPSILON
        _, mean, rstd = torch.ops.aten.native_layer_norm.default(x, [width], weight, weight, _EPSILON)
        return torch.randn_like(x), x, [width], mean, rstd, weight, weight, [True, True, True]

    return _passes("norm", "native_layer_norm", unit, f"{rows}x{width}", backward, make)


def batch_norm(unit: str, b: int, c: int, side: int, last: bool, backward: bool) -> Task:
    """Images [b, c, side, side] in either layout."""
    layout = torch.channels_last if last else torch.contiguous_format

    def make(device: torch.device) -> tuple[Any, ...]:
        x = random(device, unit, b, c, side, side).contiguous(memory_format=layout)
        one = torch.ones(c, device=device)
        if not backward:
            return x, one, one, None, None, True, 0.1, _EPSILON
        _, mean, rstd = torch.ops.aten.native_batch_norm.default(x, one, one, None, None, True, 0.1, _EPSILON)
        wanted = [True, True, True]
        return torch.randn_like(x), x, one, None, None, mean, rstd, True, _EPSILON, wanted

    shape = f"{b}x{c}x{side}/{'last' if last else 'first'}"
    return _passes("norm", "native_batch_norm", unit, shape, backward, make)


def _passes(
    kind: str,
    name: str,
    unit: str,
    shape: str,
    backward: bool,
    make: Callable[[torch.device], tuple[Any, ...]],
) -> Task:
    phase = BACKWARD if backward else FORWARD
    name = f"{name}_backward" if backward else name
    return aten(f"{kind}/{unit}/{name}/{shape}", kind, name, unit, make, phase)


def softmax(unit: str, rows: int, width: int, backward: bool) -> Task:
    """Rows of ``width`` elements."""

    def make(device: torch.device) -> tuple[Any, ...]:
        x = random(device, unit, rows, width)
        if not backward:
            return x, -1, False
        return torch.randn_like(x), torch.softmax(x, -1), -1, TORCH_TYPE[unit]

    name = "_softmax_backward_data" if backward else "_softmax"
    phase = BACKWARD if backward else FORWARD
    return aten(f"softmax/{unit}/{name}/{rows}x{width}", "softmax", name, unit, make, phase)


_TENSORS = {"neg": 1, "gelu": 1, "relu": 1, "clone": 1, "mul": 2, "gelu_backward": 2, "copy_": 2}


def elementwise(name: str, unit: str, elements: int) -> Task:
    """One pass over tensors of ``elements``."""
    kind = "copy" if name in {"clone", "copy_"} else "elementwise"
    phase = BACKWARD if name.endswith("_backward") else FORWARD

    def make(device: torch.device) -> tuple[Any, ...]:
        return tuple(random(device, unit, elements) for _ in range(_TENSORS[name]))

    if name in {"mul"}:
        return aten(f"{kind}/{unit}/{name}/{elements}", kind, name, unit, make, overload="Tensor")
    return aten(f"{kind}/{unit}/{name}/{elements}", kind, name, unit, make, phase)


def reduction(unit: str, rows: int, width: int, over: int) -> Task:
    """Sum over the rows (0) or along them (1)."""

    def make(device: torch.device) -> tuple[Any, ...]:
        return random(device, unit, rows, width), [over]

    key = f"reduce/{unit}/sum{over}/{rows}x{width}"
    return aten(key, "reduce", "sum", unit, make, overload="dim_IntList")


def optimizer(way: str, width: int, count: int) -> Task:
    """One AdamW update of ``count`` matrices [width, width]; ``way`` foreach or fused."""

    def build(device: torch.device) -> tuple[Call, tuple[Kernel, ...]]:
        weights = [torch.nn.Parameter(random(device, "fp32", width, width)) for _ in range(count)]
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        update = torch.optim.AdamW(weights, lr=1e-6, foreach=way == "foreach", fused=way == "fused")
        update.step()
        return update.step, (optimizer_kernel("adamw", RECIPES["fp32"], count * width * width),)

    key = f"optimizer/fp32/{way}/{count}x{width}x{width}"
    return Task(key, "optimizer", f"AdamW({way})", OPTIMIZER, "fp32", build, graph=False)


def launch(way: str) -> Task:
    """One element negated: ``graph`` shows what a kernel costs the device, ``queue`` what the host."""

    def build(device: torch.device) -> tuple[Call, tuple[Kernel, ...]]:
        x = torch.randn(1, device=device)
        op = Op("aten.neg", (spec(x),), (spec(x),))
        return (lambda: torch.neg(x)), FORMULAS[op.name](op)

    return Task(f"launch/{way}", "launch", "aten.neg", FORWARD, "fp32", build, graph=way == "graph")
