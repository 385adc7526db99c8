"""Whole training steps of known models, run for real: time, power and memory.

A row has the columns of a user's own measurements, so ``predictor validate`` and ``calibrate fit --steps``
read the file as it is.
"""

import contextlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from predictor.calibrate.measure_device import Device, arithmetic, event
from predictor.calibrate.measure_power import Monitor, Sensor
from predictor.frontends.inputs import parse_input
from predictor.units import GIGA
from predictor.zoo import ZOO

COLUMNS = (
    "key model hardware batch step_s low_s high_s repeats watts peak_gb precision optimizer stack "
    "memory_format seq_len image_size count source clock_mhz celsius limit_w device driver torch runtime "
    "taken_at note"
).split()
SOURCE = "calibrate-measure"
LLAMA = "predictor.calibrate.measure_models:llama_block"
_WARM, _WARM_COMPILED = 3, 5
_LEAST_STEPS, _MOST_STEPS = 5, 200
# Whole numbers fed to a model stay below this: smaller than any vocabulary; BERT knows two segments.
_BELOW = {"segments": 2}
_WORDS = 1000


@dataclass(frozen=True, slots=True)
class Step:
    """One model at one batch.

    model  zoo:NAME, or MODULE:FACTORY with ``example_inputs`` and ``loss`` beside it
    last   images with channels last
    """

    model: str
    batch: int
    precision: str
    optimizer: str = "adamw"
    compiled: bool = False
    last: bool = False
    seq_len: int | None = None
    image_size: int | None = None

    @property
    def key(self) -> str:
        """Its name in the file."""
        size = self.seq_len or self.image_size or 0
        way = "compiled" if self.compiled else "eager"
        layout = "last" if self.last else "first"
        return f"{self.model}/{self.batch}/{size}/{self.precision}/{self.optimizer}/{layout}/{way}"

    @property
    def stack(self) -> str:
        """The software stack that a prediction names."""
        return "compiled-2" if self.compiled else "eager-2"


def step_menu(device: Device, quick: bool) -> list[Step]:
    """Steps worth measuring: eager first, then compiled; on a CPU one small network."""
    if device.kind != "cuda":
        return [Step("zoo:resnet50", 1, "fp32", "sgd", image_size=64)]
    half = "amp-bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "amp-fp16"
    eager = [
        Step("zoo:resnet50", 128, half, "sgd", last=True, image_size=224),
        Step("zoo:gpt2-medium", 4, half, seq_len=1024),
        Step("zoo:bert-large", 16, half, seq_len=512),
        Step("zoo:vit-l-16", 64, half, image_size=224),
        Step(LLAMA, 2, half, seq_len=2048),
    ]
    if quick:
        return eager[:2]
    small = [
        Step("zoo:resnet50", 8, half, "sgd", last=True, image_size=224),
        Step("zoo:bert-base", 1, half, seq_len=128),
    ]
    full = [
        Step("zoo:resnet50", 128, "tf32", "sgd", image_size=224),
        Step("zoo:bert-base", 16, "tf32", seq_len=512),
        Step("zoo:resnet50", 64, "fp32", "sgd", image_size=224),
    ]
    return [*eager, *small, *(replace(step, compiled=True) for step in eager), *full]


@dataclass(frozen=True, slots=True)
class _Built:
    module: nn.Module
    inputs: dict[str, torch.Tensor]
    loss: Callable[[Any], torch.Tensor]


def _build(step: Step, device: torch.device) -> _Built:
    """Model, inputs and loss on the device; weights as they are born."""
    if step.model.startswith("zoo:"):
        entry = ZOO[step.model.removeprefix("zoo:")]
        factory = getattr(import_module(entry.module), entry.factory)
        # Vision transformers are built for one size of image; they take it where it differs.
        module = factory()
        sizes = {
            "B": step.batch,
            "S": step.seq_len or entry.sequence,
            "P": step.image_size or entry.image,
        }
        specs = [parse_input(text) for text in entry.inputs]
        made = {s.name: _filled(s.name, s.resolve(sizes), s.dtype, device) for s in specs}
        return _Built(module.to(device).train(), made, cross_entropy)
    beside_name, _, name = step.model.partition(":")
    beside = import_module(beside_name)
    given = beside.example_inputs(batch_size=step.batch, seq_len=step.seq_len)
    made = {key: torch.randn(tensor.shape, device=device) for key, tensor in given.items()}
    return _Built(getattr(beside, name)().to(device).train(), made, beside.loss)


def _filled(name: str, shape: tuple[int, ...], dtype: str, device: torch.device) -> torch.Tensor:
    """Random numbers of the type."""
    kind = getattr(torch, dtype)
    if kind.is_floating_point:
        return torch.randn(shape, device=device, dtype=kind)
    return torch.randint(0, _BELOW.get(name, _WORDS), shape, device=device, dtype=kind)


def cross_entropy(outputs: Any) -> torch.Tensor:
    """Cross-entropy of every output over its last axis, as predictions take it."""
    if isinstance(outputs, torch.Tensor):
        flat = outputs.reshape(-1, outputs.shape[-1])
        target = torch.zeros(flat.shape[0], dtype=torch.int64, device=flat.device)
        return nn.functional.cross_entropy(flat, target)
    return torch.stack([cross_entropy(part) for part in outputs]).sum()


_OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=1e-4, momentum=0.9),
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=1e-6),
}


def run_step(step: Step, device: Device, sensor: Sensor | None, budget_s: float) -> dict[str, object]:
    """Measure one step; cells of its row.

    Raises RuntimeError where the model does not fit or does not run on this device.
    """
    unit = "tf32" if step.precision == "tf32" else "fp32"
    with arithmetic(unit), contextlib.ExitStack() as after:
        after.callback(device.forget)
        train = _stepper(step, device)
        for _ in range(_WARM_COMPILED if step.compiled else _WARM):
            train()
        device.synchronize()
        used = device.used_byte()
        with Monitor(sensor) as monitor:
            each_s = _durations(train, device, budget_s)
    each_s.sort()
    last = len(each_s) - 1
    return {
        "step_s": statistics.median(each_s),
        "low_s": each_s[round(0.1 * last)],
        "high_s": each_s[round(0.9 * last)],
        "repeats": len(each_s),
        "peak_gb": "" if used is None else used / GIGA,
        **monitor.cells(),
    }


def _stepper(step: Step, device: Device) -> Callable[[], None]:
    """A function that runs one optimizer step."""
    built = _build(step, device.torch)
    module, inputs = built.module, built.inputs
    if step.last:
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        inputs = {
            name: x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
            for name, x in inputs.items()
        }
    update = _OPTIMIZERS[step.optimizer](module.parameters())
    forward = torch.compile(module) if step.compiled else module
    half = {"amp-bf16": torch.bfloat16, "amp-fp16": torch.float16}.get(step.precision)

    def train() -> None:
        with torch.autocast(device.kind, half, enabled=half is not None):
            loss = built.loss(forward(**inputs))
        loss.backward()  # type: ignore[no-untyped-call]
        update.step()
        update.zero_grad(set_to_none=True)

    return train


def _durations(train: Callable[[], None], device: Device, budget_s: float) -> list[float]:
    """Seconds of single steps, one after the other, for ``budget_s`` or 200 of them.

    Between events on CUDA, so that the host runs ahead as in training; by the clock elsewhere.
    """
    begun = time.perf_counter()
    if device.kind != "cuda":
        each_s: list[float] = []
        while len(each_s) < _MOST_STEPS and (
            len(each_s) < _LEAST_STEPS or time.perf_counter() - begun < budget_s
        ):
            start = time.perf_counter()
            train()
            device.synchronize()
            each_s.append(time.perf_counter() - start)
        return each_s
    marks = [event()]
    marks[0].record()
    while len(marks) <= _MOST_STEPS and (
        len(marks) <= _LEAST_STEPS or time.perf_counter() - begun < budget_s
    ):
        train()
        marks.append(event())
        marks[-1].record()
        if len(marks) > 8:  # the host may not queue more than the budget holds
            marks[-8].synchronize()
    device.synchronize()
    return [a.elapsed_time(b) * 1e-3 for a, b in pairwise(marks)]


def cells_of(step: Step, hardware: str) -> dict[str, object]:
    """What the row says of the step before it is measured."""
    return {
        "key": step.key,
        "model": step.model,
        "hardware": hardware,
        "batch": step.batch,
        "precision": step.precision,
        "optimizer": step.optimizer,
        "stack": step.stack,
        "memory_format": "channels-last" if step.last else "contiguous",
        "seq_len": step.seq_len or "",
        "image_size": step.image_size or "",
        "count": 1,
        "source": SOURCE,
    }
