"""Every counter as one function: (model name, batch) -> flop, a multiply-add is 2; it builds the model."""

from collections.abc import Callable
from functools import partial
from typing import Any


def _timm(name: str, device: str) -> tuple[Any, tuple[int, ...]]:
    import timm
    import torch

    with torch.device(device):
        module = timm.create_model(name)
    return module, tuple(module.pretrained_cfg["input_size"])


def fvcore_forward(name: str, batch: int) -> int:
    import torch
    from fvcore.nn import FlopCountAnalysis

    module, size = _timm(name, "cpu")
    analysis = FlopCountAnalysis(module.eval(), torch.zeros(batch, *size))
    analysis.unsupported_ops_warnings(False).tracer_warnings("none")
    return int(2 * analysis.total())


def ptflops_forward(name: str, batch: int) -> int:
    from ptflops import get_model_complexity_info

    module, size = _timm(name, "cpu")
    macs, _ = get_model_complexity_info(
        module, size, as_strings=False, print_per_layer_stat=False, verbose=False
    )
    return int(2 * macs * batch)


def calflops_forward(name: str, batch: int) -> int:
    from calflops import calculate_flops

    module, size = _timm(name, "cpu")
    flop, _, _ = calculate_flops(
        module, input_shape=(batch, *size), output_as_string=False, print_results=False, print_detailed=False
    )
    return int(flop)


def torchinfo_forward(name: str, batch: int) -> int:
    from torchinfo import summary

    module, size = _timm(name, "cpu")
    return int(2 * summary(module, input_size=(batch, *size), verbose=0, device="cpu").total_mult_adds)


def counter_forward(name: str, batch: int) -> int:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    module, size = _timm(name, "meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(batch, *size, device="meta"))
    return counter.get_total_flops()


def counter_step(name: str, batch: int) -> int:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    module, size = _timm(name, "meta")
    with FlopCounterMode(display=False) as counter:
        outputs = module(torch.zeros(batch, *size, device="meta"))
        sum(t.sum() for t in (outputs if isinstance(outputs, list | tuple) else [outputs])).backward()
    return counter.get_total_flops()


def fake_step(name: str, batch: int) -> int:
    """A training step on fake tensors with every operator kept, and nothing counted.

    Built on meta and made fake afterwards: half of timm's constructors read values, which fake tensors lack.
    """
    import torch
    from torch import nn
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode

    class Keep(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            calls.append(func)
            return func(*args, **(kwargs or {}))

    calls: list[Any] = []
    module, size = _timm(name, "meta")
    with FakeTensorMode(allow_non_fake_inputs=True):
        for part in module.modules():
            for key, weight in part._parameters.items():
                if weight is not None:
                    part._parameters[key] = nn.Parameter(torch.empty(weight.shape, dtype=weight.dtype))
            for key, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[key] = torch.empty(buffer.shape, dtype=buffer.dtype)
        with Keep():
            outputs = module(torch.zeros(batch, *size))
            sum(t.sum() for t in (outputs if isinstance(outputs, list | tuple) else [outputs])).backward()
    return 0


def _predicted(graph: Any) -> int:
    from predictor.ir import BACKWARD, FORWARD
    from predictor.stack import find_stack
    from predictor.workload import count

    work = count(graph, find_stack("eager-2"), train=True)
    return work.total(FORWARD).matrix_flop + work.total(BACKWARD).matrix_flop


def recorded_step(source: Any, batch: int, **options: Any) -> int:
    from predictor.frontends import ReadOptions, load_graph

    source = source if ":" in source else f"timm:{source}"
    return _predicted(load_graph(source, ReadOptions(batch=batch, **options)))


_KEPT: dict[str, Any] = {}


def counted_step(source: Any, batch: int, **options: Any) -> int:
    from predictor.frontends import ReadOptions
    from predictor.frontends.torch_count import read_count
    from predictor.frontends.torch_meta import Shapes

    if isinstance(source, str) and ":" not in source:
        source = f"timm:{source}"
    shapes = _KEPT.setdefault("shapes", Shapes())
    return _predicted(read_count(source, ReadOptions(batch=batch, **options), shapes))


COUNTERS: dict[str, tuple[Callable[..., int], str, str, str]] = {
    "fvcore": (fvcore_forward, "fvcore", "forward", "real"),
    "ptflops": (ptflops_forward, "ptflops", "forward", "real"),
    "calflops": (calflops_forward, "calflops", "forward", "real"),
    "torchinfo": (torchinfo_forward, "torchinfo", "forward", "real"),
    "FlopCounterMode, meta": (counter_forward, "torch", "forward", "none"),
    "FlopCounterMode, meta, backward": (counter_step, "torch", "step", "none"),
    "FakeTensor, operators kept": (fake_step, "torch", "step, not counted", "none"),
    "predictor, recording with memory": (recorded_step, "torch", "step", "none"),
    "predictor, count only": (counted_step, "torch", "step", "none"),
}


def variant(depths: tuple[int, int, int, int], width: int) -> Any:
    """A residual net of a search space: the same blocks in other numbers."""
    from timm.models.resnet import Bottleneck, ResNet

    return ResNet(Bottleneck, list(depths), base_width=width)


def variants(count: int) -> list[Callable[[], Any]]:
    """Different nets of blocks that ResNet-50's family has; the first ones have shown most of them."""
    made = []
    for i in range(count):
        depths = (1 + i % 3, 1 + i // 3 % 4, 1 + i // 12 % 6, 1 + i // 72 % 3)
        made.append(partial(variant, depths, 64 if i % 2 else 128))
    return made
