"""Record a repeated block once: its later instances are stood in for, and written out afterwards.

Blocks are children of one container (the layers of a transformer, the blocks of a stage) of the same
class, attributes, weights and inputs (``torch_blocks``). The first runs and is recorded between gates; for
the others an autograd function returns tensors of the same shapes, and a mark in the log says where the
block's forward and backward stand; ``folded_log`` replaces each mark by a copy of what the first recorded.
The last instance runs too: its backward comes first and shows how gradients lie in memory.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from predictor.frontends.folded_log import Border, Mark, Template
from predictor.frontends.torch_masks import pattern_of
from predictor.ir import RECOMPUTE, Op


class _Gate(torch.autograd.Function):
    """Passes a tensor through and tells when its gradient comes by."""

    @staticmethod
    def forward(ctx: Any, tell: Callable[[Any], None], x: torch.Tensor) -> torch.Tensor:
        ctx.tell = tell
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        ctx.tell(grads[0])
        return None, grads[0]


class _StandIn(torch.autograd.Function):
    """Stands for one instance of a recorded block."""

    @staticmethod
    def forward(ctx: Any, instance: "_Instance", weight: Any, *tensors: Any) -> Any:
        # One weight stands among the inputs, so that results get gradients where the inputs have none.
        ctx.instance = instance
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*(t for t, held in zip(tensors, instance.template.held, strict=True) if held))
        results = instance.results(tensors)
        plain = [r for r, (_, wanted) in zip(results, instance.template.results, strict=True) if not wanted]
        ctx.mark_non_differentiable(*plain)
        return results

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return None, None, *ctx.instance.gradients(grads)


class _Instance:
    """One later instance of a block: makes its results and gradients out of shapes."""

    def __init__(self, recorder: Any, template: Template, weights: list[nn.Parameter]) -> None:
        self.recorder, self.template, self.weights = recorder, template, weights
        self.border = Border()
        self.inputs: list[Any] = []

    def results(self, tensors: tuple[Any, ...]) -> tuple[torch.Tensor, ...]:
        self.border.inputs = [self.recorder.spec(t).storage for t in tensors]
        self.inputs = [_layout(t) if t.requires_grad else None for t in tensors]
        self.recorder.log.append(Mark(self.template, self.border, backward=False))
        made = [self._made(*layout) for layout, _ in self.template.results]
        self.border.results = [self.recorder.spec(t).storage for t in made]
        return tuple(made)

    def gradients(self, grads: tuple[Any, ...]) -> list[Any]:
        self.border.result_gradients = [-1 if g is None else self.recorder.spec(g).storage for g in grads]
        self.recorder.log.append(Mark(self.template, self.border, backward=True))
        known = self.template.gradients
        wanted = [like and known.get(place, like) for place, like in enumerate(self.inputs)]
        made = [None if like is None else self._made(*like) for like in wanted]
        self.border.input_gradients = [-1 if g is None else self.recorder.spec(g).storage for g in made]
        for weight in self.weights:
            weight.grad = self._made(weight.shape, weight.stride(), weight.dtype)
        self.border.weight_gradients = [self.recorder.spec(w.grad).storage for w in self.weights]
        return made

    def _made(self, shape: Any, stride: Any, dtype: Any) -> torch.Tensor:
        self.recorder.paused = True
        try:
            return torch.empty_strided(shape, stride, dtype=dtype)
        finally:
            self.recorder.paused = False


class CannotFoldError(RuntimeError):
    """The model uses its blocks in a way that has to be recorded in full."""


class _Group:
    """Equal blocks of one container, in a recording."""

    def __init__(self, recorder: Any, members: int) -> None:
        self.recorder = recorder
        self.waiting = members
        self.called: set[int] = set()
        self.templates: dict[Any, Template] = {}

    def call(self, block: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The block's result: recorded for the first call of its kind, stood in for afterwards."""
        if id(block) in self.called:
            raise CannotFoldError("a block is called twice: its gradients add up")
        self.called.add(id(block))
        leaves, structure = tree_flatten((args, kwargs))
        key = (structure, _surroundings(), tuple(map(_leaf_key, leaves)))
        weights = [p for p in block.parameters() if p.requires_grad]
        if any(p.grad is not None for p in weights) or any(not _comparable(leaf) for leaf in leaves):
            return forward(*args, **kwargs)
        self.waiting -= 1
        template = self.templates.get(key)
        if template is None:
            return self._first(key, forward, leaves, structure, weights)
        if self.waiting == 0:
            return self._last(template, forward, leaves, structure)
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        made = iter(
            _StandIn.apply(_Instance(self.recorder, template, weights), next(iter(weights), None), *tensors)
        )
        results = [next(made) if place is None else tensors[place] for place in template.passed]
        return tree_unflatten(results, template.structure)

    def _first(self, key: Any, forward: Any, leaves: list[Any], structure: Any, weights: list[Any]) -> Any:
        recorder = self.recorder
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        border = Border(inputs=[recorder.spec(t).storage for t in tensors])
        border.input_gradients = [-1] * len(tensors)
        template = Template(border, None, [])
        args, kwargs = _gated(leaves, structure, lambda place: self._ends(template, place, weights))
        start = len(recorder.log)
        kept: set[int] = set()

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept.add(recorder.spec(tensor).storage)
            return tensor.detach()  # the tensor itself would hold on to its own graph

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            result = forward(*args, **kwargs)
        template.forward = (start, len(recorder.log))
        template.held = [storage in kept for storage in border.inputs]
        results, template.structure = tree_flatten(result)
        if not results or not all(isinstance(r, torch.Tensor) for r in results):
            raise CannotFoldError("a block returns something other than tensors")
        handed = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
        template.passed = [next((i for i, t in enumerate(handed) if t is r), None) for r in results]
        made = [r for r, place in zip(results, template.passed, strict=True) if place is None]
        border.results = [recorder.spec(r).storage for r in made]
        border.result_gradients = [-1] * len(made)
        template.results = [(_layout(r), r.requires_grad) for r in made]
        self.templates[key] = template
        gates = (self._result_gate(template, place, r) for place, r in enumerate(made))
        out = [next(gates) if place is None else tensors[place] for place in template.passed]
        return tree_unflatten(out, template.structure)

    def _last(self, template: Template, forward: Any, leaves: list[Any], structure: Any) -> Any:
        """Run the last instance for real; its input gradients show their layout to those before it."""

        def learn(place: int) -> Callable[[Any], None]:
            return lambda grad: template.gradients.setdefault(place, _layout(grad))

        args, kwargs = _gated(leaves, structure, learn)
        log = self.recorder.log
        start = len(log)
        result = forward(*args, **kwargs)
        if _calls(log[start:]) != _calls(log[slice(*template.forward)]):
            raise CannotFoldError("the last block does something else than the first")
        return result

    def _result_gate(self, template: Template, place: int, result: Any) -> Any:
        def begins(grad: Any) -> None:
            template.border.result_gradients[place] = self.recorder.spec(grad).storage
            if template.backward == (0, 0):
                template.backward = (len(self.recorder.log), len(self.recorder.log))

        if not result.requires_grad:
            return result
        return _Gate.apply(begins, result)

    def _ends(self, template: Template, place: int, weights: list[Any]) -> Callable[[Any], None]:
        def ends(grad: Any) -> None:
            template.border.input_gradients[place] = self.recorder.spec(grad).storage
            template.backward = (template.backward[0], len(self.recorder.log))
            template.border.weight_gradients = [
                -1 if w.grad is None else self.recorder.spec(w.grad).storage for w in weights
            ]

        return ends


def _gated(leaves: list[Any], structure: Any, tell: Callable[[int], Callable[[Any], None]]) -> Any:
    """The arguments, with a gate on every tensor that gets a gradient; places count tensors."""
    places = count()
    gated = []
    for leaf in leaves:
        place = next(places) if isinstance(leaf, torch.Tensor) else -1
        wanted = place >= 0 and leaf.requires_grad
        gated.append(_Gate.apply(tell(place), leaf) if wanted else leaf)
    return tree_unflatten(gated, structure)


def _surroundings() -> Any:
    """The state around a block that decides what it records."""
    casts = [(torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda")]
    return (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype(), *casts)


def _calls(log: list[Any]) -> list[Any]:
    return [
        (entry.name, entry.attrs, [t.shape for t in entry.inputs], [t.shape for t in entry.outputs])
        for entry in log
        if isinstance(entry, Op)
    ]


def check_marks(log: list[Any]) -> None:
    """Raise CannotFoldError when the backward of an instance was not that of the block standing for it.

    The same gradients have to come in and go out, in all instances or in none; and nothing may have run
    again outside of the blocks' own backward (activation checkpointing).
    """
    marks = [entry for entry in log if isinstance(entry, Mark)]
    if marks and any(isinstance(entry, Op) and entry.phase == RECOMPUTE for entry in log):
        raise CannotFoldError("forward work is done again in the backward pass")
    for template in {id(mark.template): mark.template for mark in marks}.values():
        own = [mark for mark in marks if mark.template is template]
        ran = [mark for mark in own if mark.backward]
        expected = 0 if template.backward == (0, 0) else len(own) - len(ran)
        if len(ran) != expected or any(_arrived(m.border) != _arrived(template.border) for m in ran):
            raise CannotFoldError("not all blocks receive the same gradients")


def _arrived(border: Border) -> list[bool]:
    gradients = (*border.result_gradients, *border.input_gradients, *border.weight_gradients)
    return [storage >= 0 for storage in gradients]


def _layout(tensor: torch.Tensor) -> Any:
    return (tensor.shape, tensor.stride(), tensor.dtype)


def _leaf_key(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        return (tuple(leaf.shape), leaf.dtype, leaf.stride(), leaf.requires_grad, pattern_of(leaf))
    return leaf


def _comparable(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor | int | float | str | bool | type(None) | torch.dtype)


@contextmanager
def folding(groups: list[list[nn.Module]], recorder: Any) -> Iterator[None]:
    """Stand in for the repeated blocks of ``groups`` while their module runs forward."""
    wrapped: list[nn.Module] = []
    try:
        for members in groups:
            group = _Group(recorder, len(members))
            for block in members:
                _wrap(block, group)
                wrapped.append(block)
        yield
    finally:
        for block in wrapped:
            del block.forward


def _wrap(block: nn.Module, group: _Group) -> None:
    forward = block.forward

    def folded(*args: Any, **kwargs: Any) -> Any:
        return group.call(block, forward, args, kwargs)

    object.__setattr__(block, "forward", folded)
