"""fvcore's counter over a trace of the forward pass; it counts a multiply-add as one, so it is doubled."""

import warnings
from collections import Counter
from importlib.util import find_spec
from math import prod
from typing import Any

import torch
from torch import nn

from predictor.frontends import ReadOptions
from predictor.frontends.torch_count import Prepared
from predictor.ir import FORWARD
from predictor.oracles.comparison import (
    CONVOLUTIONS,
    OTHERS,
    PRODUCTS,
    CannotRunError,
    Expected,
    Line,
    compare,
    family_of,
    matrix_flop,
)
from predictor.passes import Step

NAME = "fvcore"
# The trace runs the model for real: more than this is refused (half a minute on two cores).
MOST_FLOP = 10**12
MOST_WEIGHTS = 10**10
_FAMILY = {
    "conv": CONVOLUTIONS,
    **dict.fromkeys(("addmm", "bmm", "mm", "matmul", "linear", "einsum"), PRODUCTS),
}


_NO_RULE = frozenset("attention recurrent grouped_mm baddbmm addmv dot vdot mkldnn_rnn_layer".split())


def lines(prepared: Prepared, options: ReadOptions, steps: tuple[Step, ...]) -> list[Line]:
    """A trace of the forward pass; fvcore traces real tensors, here weights of one stored number each."""
    if find_spec("fvcore") is None:
        raise CannotRunError("is not installed; pip install 'predictor[check]'")
    from fvcore.nn import FlopCountAnalysis

    flop = sum(matrix_flop(step) for step in steps if step.phase == FORWARD)
    weights = sum(weight.numel() for weight in prepared.loaded.module.parameters())
    if flop > MOST_FLOP or weights > MOST_WEIGHTS:
        raise CannotRunError(
            f"would run the model for real: {flop:.2g} flop and {weights:.2g} weights (at most "
            f"{MOST_FLOP:.0e} and {MOST_WEIGHTS:.0e}); give a smaller --batch-size or --seq-len"
        )
    args, kwargs = prepared.arguments
    module = _ByPosition(prepared.loaded.module.train(options.train), tuple(kwargs))
    inputs = tuple(_real(t) for t in (*args, *kwargs.values()))
    reasons: Counter[str] = Counter()
    _make_real(module)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        analysis = FlopCountAnalysis(module, inputs)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        _watch(analysis, reasons)
        found = analysis.by_operator()
    counted = {(FORWARD, PRODUCTS): 0, (FORWARD, CONVOLUTIONS): 0}
    for operator, half in found.items():
        key = (FORWARD, _FAMILY.get(operator, OTHERS))
        counted[key] = counted.get(key, 0) + 2 * int(half)
    others = {"not matrix flop: a few for each element": counted.get((FORWARD, OTHERS), 0)}
    known = {(FORWARD, PRODUCTS): reasons, (FORWARD, OTHERS): others}
    return compare(NAME, steps, counted, _expected, known)


def _expected(step: Step) -> Expected:
    """What fvcore, doubled, adds for one of our steps."""
    namespace, _, operator = step.op.name.partition(".")
    if operator in _NO_RULE or namespace not in {"aten", "predictor"}:
        return family_of(step.op), 0, f"has no rule for {operator}"
    return family_of(step.op), matrix_flop(step), ""


class _ByPosition(nn.Module):
    """A model whose named inputs are given by position, for tracing."""

    def __init__(self, module: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.module = module
        self.names = names

    def forward(self, *inputs: Any) -> Any:
        """Call the model; the last inputs carry names."""
        cut = len(inputs) - len(self.names)
        return self.module(*inputs[:cut], **dict(zip(self.names, inputs[cut:], strict=True)))


def _real(value: Any) -> Any:
    return torch.zeros(value.shape, dtype=value.dtype) if isinstance(value, torch.Tensor) else value


def _make_real(module: nn.Module) -> None:
    """Give a meta model weights on the CPU that store one number each, and whole buffers."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                stored = torch.zeros((), dtype=weight.dtype).expand(weight.shape)
                part._parameters[name] = nn.Parameter(stored, requires_grad=False)
        for name, buffer in part._buffers.items():
            part._buffers[name] = _real(buffer)


def _watch(analysis: Any, reasons: Counter[str]) -> None:
    """Note where fvcore's own rules miscount, while they count."""
    from fvcore.nn.jit_handles import einsum_flop_jit, matmul_flop_jit

    def matmul(inputs: list[Any], outputs: list[Any]) -> int:
        a, b = (value.type().sizes() for value in inputs)
        true = prod(outputs[0].type().sizes()) * a[-1]
        found = int(matmul_flop_jit(inputs, outputs)) if len(b) > 1 else 0
        reasons["matmul: leading sizes of the second factor are not counted"] += 2 * (found - true)
        return found

    def einsum(inputs: list[Any], outputs: list[Any]) -> int:
        letters = inputs[0].toIValue().replace(" ", "").partition("->")[0].split(",")
        sizes: dict[str, int] = {}
        for term, value in zip(letters, inputs[1].node().inputs(), strict=True):
            sizes |= dict(zip(term, value.type().sizes(), strict=True))
        found = int(einsum_flop_jit(inputs, outputs))
        if len(letters) == 2:
            reasons["einsum: follows numpy's estimate"] += 2 * (found - prod(sizes.values()))
        return found

    analysis.set_op_handle("aten::matmul", matmul, "aten::einsum", einsum)
