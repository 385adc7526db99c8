"""PyTorch's own counter, ``torch.utils.flop_counter``, over a training step on meta tensors."""

from collections.abc import Collection

import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from predictor.frontends import ReadOptions
from predictor.frontends.torch_count import Prepared
from predictor.frontends.torch_device import any_device
from predictor.frontends.torch_meta import OnMeta
from predictor.frontends.torch_model import default_loss
from predictor.ir import BACKWARD, FORWARD, Op
from predictor.oracles.comparison import (
    CONVOLUTIONS,
    PRODUCTS,
    Expected,
    Line,
    compare,
    family_of,
    matrix_flop,
)
from predictor.passes import Step

NAME = "torch.utils.flop_counter"


def lines(prepared: Prepared, options: ReadOptions, steps: tuple[Step, ...]) -> list[Line]:
    """A training step compared; on meta tensors attention falls apart into its products."""
    loaded, (args, kwargs) = prepared.loaded, prepared.arguments
    module = loaded.module.train(options.train)
    counted: dict[tuple[str, str], int] = {}
    with any_device(), OnMeta(), torch.set_grad_enabled(options.train):
        with FlopCounterMode(display=False) as forward:
            outputs = module(*args, **kwargs)
            loss = (loaded.loss or default_loss)(outputs, kwargs) if options.train else None
        counted |= _byfamily_of(forward, FORWARD)
        if loss is not None:
            with FlopCounterMode(display=False) as backward:
                loss.backward()
            counted |= _byfamily_of(backward, BACKWARD)
    made = {tensor.storage for step in steps for tensor in step.op.outputs}
    return compare(NAME, steps, counted, lambda step: _expected(step, made), {})


def _byfamily_of(counter: FlopCounterMode, phase: str) -> dict[tuple[str, str], int]:
    sums = {(phase, PRODUCTS): 0, (phase, CONVOLUTIONS): 0}
    for operator, flop in counter.get_flop_counts().get("Global", {}).items():
        sums[phase, CONVOLUTIONS if "conv" in str(operator) else PRODUCTS] += flop
    return sums


def _expected(step: Step, made: Collection[int]) -> Expected:
    """What PyTorch's counter adds for one of our steps; ``made`` are the storages that operators write."""
    op, flop = step.op, matrix_flop(step)
    if not _known_to_counter(op.name):
        return family_of(op), 0, f"has no formula for {op.name.partition('.')[2]}"
    if op.name.startswith("predictor.attention"):
        return PRODUCTS, _all_scores(step), "counts the scores that a mask hides"
    if op.name == "predictor.recurrent_backward":
        unneeded = _unneededmatrix_flop(op, op.inputs[0].storage in made)
        return (
            PRODUCTS,
            flop - unneeded,
            "leaves out gradients of the input and first state that nobody needs",
        )
    if op.name == "aten.convolution_backward":
        dense = (int(op.attrs["groups"]) - 1) * _weight_gradientmatrix_flop(step)
        return CONVOLUTIONS, flop + dense, "takes weight gradients of grouped convolutions for dense"
    return family_of(op), flop, ""


def _known_to_counter(name: str) -> bool:
    """Whether the counter has a formula for an operator, or sees the products it is made of."""
    namespace, _, operator = name.partition(".")
    if namespace == "predictor":
        return not operator.startswith("grouped_mm")
    packet = getattr(getattr(torch.ops, namespace, None), operator, None)
    return packet in flop_registry or operator.startswith("mkldnn_rnn_layer")


def _all_scores(step: Step) -> int:
    """Two products over s*t scores forward, four backward."""
    backward = step.op.name == "predictor.attention_backward"
    q, k, v = step.op.inputs[1:4] if backward else step.op.inputs[:3]
    b, h, s, d = q.shape
    return (4 if backward else 2) * b * h * s * k.shape[2] * (d + v.shape[-1])


def _weight_gradientmatrix_flop(step: Step) -> int:
    """Flop of the kernel that makes a convolution's weight gradient: the last of its products."""
    products = [kernel.work.matrix_flop for kernel in step.kernels if kernel.work.matrix_flop]
    return products[-1] if step.op.attrs.get("output_mask", (True, True))[1] else 0


def _unneededmatrix_flop(op: Op, needs_input: bool) -> int:
    """Gradients that a recurrent kernel makes in any case: of the first states, and of the model's input."""
    cells = op.attrs["layers"] * op.attrs["directions"]
    states = 2 if op.attrs["cell"] == "lstm" else 1
    weights = op.outputs[1 + states :]
    size = len(weights) // cells
    x, batch = op.inputs[0], op.inputs[1].shape[-2] if len(op.inputs[1].shape) == 3 else 1
    total = 0
    for cell in range(cells):
        w_input, w_hidden = weights[cell * size : cell * size + 2]
        total += 2 * batch * w_hidden.elements
        if cell < op.attrs["directions"] and not needs_input:
            total += 2 * (x.elements // x.shape[-1]) * w_input.elements
    return total
