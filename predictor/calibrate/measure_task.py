"""What one measurement is: a call, and the kernels that the formulas count for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from predictor.calibrate.measure_device import Call
from predictor.ir import FORWARD, Op, TensorSpec
from predictor.ops import FORMULAS, Kernel

TORCH_TYPE = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8": torch.bfloat16,  # made in 16 bit, then rounded
}
Build = Callable[[torch.device], tuple[Call, tuple[Kernel, ...]]]


@dataclass(frozen=True, slots=True)
class Task:
    """One measurement.

    key    its name in the file
    op     operator as PyTorch names it
    build  makes inputs on a device: the call, and the kernels it is counted as
    graph  whether the call may be captured: autograd and optimizers may not
    """

    key: str
    kind: str
    op: str
    phase: str
    unit: str
    build: Build
    graph: bool = True


def spec(tensor: torch.Tensor) -> TensorSpec:
    """Shape, type and strides."""
    name = str(tensor.dtype).removeprefix("torch.")
    return TensorSpec(tuple(tensor.shape), "float8" if name.startswith("float8") else name, tensor.stride())


def as_op(name: str, function: Any, arguments: tuple[Any, ...], result: Any) -> Op:
    """The call as ``ops`` reads it: tensors in order, all else by its name in the schema."""
    results = result if isinstance(result, list | tuple) else (result,)
    named = zip((a.name for a in function._schema.arguments), arguments, strict=False)
    return Op(
        name,
        tuple(spec(a) for a in arguments if isinstance(a, torch.Tensor)),
        tuple(spec(r) for r in results if isinstance(r, torch.Tensor) and r.numel()),
        {key: a for key, a in named if a is not None and not isinstance(a, torch.Tensor)},
    )


def aten(
    key: str,
    kind: str,
    name: str,
    unit: str,
    make: Callable[[torch.device], tuple[Any, ...]],
    phase: str = FORWARD,
    options: Mapping[str, Any] | None = None,
    overload: str = "default",
) -> Task:
    """A task that calls ``torch.ops.aten`` directly; ``make`` gives its arguments."""
    function = getattr(getattr(torch.ops.aten, name), overload)
    given = dict(options or {})

    def build(device: torch.device) -> tuple[Call, tuple[Kernel, ...]]:
        arguments = make(device)
        op = as_op(f"aten.{name}", function, arguments, function(*arguments, **given))
        return (lambda: function(*arguments, **given)), FORMULAS[op.name](op)

    return Task(key, kind, f"aten.{name}", phase, unit, build)


def random(device: torch.device, unit: str, *shape: int) -> torch.Tensor:
    """Signs, exponents and digits all vary, as in training: zeros would draw less power."""
    return torch.randn(shape, device=device, dtype=TORCH_TYPE[unit])


def moved_byte(kernels: tuple[Kernel, ...]) -> int:
    """Bytes that one call reads and writes."""
    return sum(kernel.work.read_byte + kernel.work.write_byte for kernel in kernels)


def merged(kernels: tuple[Kernel, ...]) -> Kernel:
    """The kernels of one call as one row: the first one's class, the work of all."""
    work = kernels[0].work
    for kernel in kernels[1:]:
        work += kernel.work
    return replace(kernels[0], work=work)
