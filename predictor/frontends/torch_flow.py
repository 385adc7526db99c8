"""Which tensors of a forward pass receive a gradient, and operators with what their gradient rules ask.

Every tensor has a node, shared by its views: the storage it lies in and the flow of its present value.
Writing into a tensor gives its node a new flow.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from predictor.frontends.torch_record import _DTYPES
from predictor.ir import Op, TensorSpec

_NODE = "_predictor_node"


class Flow:
    """A value: whether it follows from a trained weight, whether the loss follows from it, its readers."""

    __slots__ = ("live", "needed", "readers")

    def __init__(self, needed: bool) -> None:
        self.needed = needed
        self.live = False
        self.readers = 0


class Node:
    """Where a tensor lies and what it holds now."""

    __slots__ = ("flow", "storage")

    def __init__(self, storage: int, flow: Flow) -> None:
        self.storage = storage
        self.flow = flow


@dataclass(frozen=True, slots=True)
class Entry:
    """One operator of the forward pass; ``needed`` per input, whether a gradient would flow to it."""

    op: Op
    inputs: tuple[Flow, ...]
    needed: tuple[bool, ...]
    outputs: tuple[Flow, ...]


class Flows:
    """Operators in order, and the nodes of their tensors."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._storages = 0

    def node(self, tensor: torch.Tensor) -> Node:
        """The node of a tensor; one not seen before comes from outside."""
        node: Node | None = getattr(tensor, _NODE, None)
        if node is None:
            node = self.fresh(tensor.requires_grad)
            setattr(tensor, _NODE, node)
        return node

    def fresh(self, needed: bool) -> Node:
        """A new storage with a new value."""
        self._storages += 1
        return Node(self._storages, Flow(needed))

    def view(self, out: Iterable[torch.Tensor], source: torch.Tensor, *, cut: bool = False) -> None:
        """``out`` lie in the memory of ``source``; ``cut`` off from its gradient."""
        node = self.node(source)
        for tensor in out:
            setattr(tensor, _NODE, Node(node.storage, Flow(False)) if cut else node)

    def spec(self, tensor: torch.Tensor) -> TensorSpec:
        """The spec of a tensor on the storage of its node."""
        return TensorSpec(
            tuple(tensor.shape), _DTYPES[tensor.dtype], tensor.stride(), self.node(tensor).storage
        )

    def reaches(self, inputs: Iterable[torch.Tensor]) -> bool:
        """Whether a gradient would flow to any of ``inputs``."""
        return torch.is_grad_enabled() and any(self.node(t).flow.needed for t in inputs)

    def write(
        self,
        name: str,
        inputs: list[torch.Tensor],
        outputs: list[torch.Tensor],
        attrs: Mapping[str, Any],
        scope: str,
        *,
        in_place: bool = False,
        cut: bool = False,
    ) -> None:
        """Note one operator; ``outputs`` are new tensors, or the first input written ``in_place``."""
        specs = tuple(self.spec(t) for t in inputs)
        flows = tuple(self.node(t).flow for t in inputs)
        needed = tuple(flow.needed for flow in flows)
        reaches = not cut and self.reaches(inputs)
        for tensor in outputs:
            flows_on = reaches and (tensor.dtype.is_floating_point or tensor.dtype.is_complex)
            if in_place:
                self.node(tensor).flow = Flow(flows_on)
            else:
                setattr(tensor, _NODE, self.fresh(flows_on))
        op = Op(name, specs, tuple(self.spec(t) for t in outputs), attrs, scope=scope)
        self.entries.append(Entry(op, flows, needed, tuple(self.node(t).flow for t in outputs)))

    def operators(self, roots: Iterable[torch.Tensor]) -> tuple[Op, ...]:
        """All operators, with what the gradient of ``roots`` makes their rules do.

        needs_grad  per input, whether a gradient flows to it; backward  whether any does
        grad_sums   per result, how many gradients beyond the first meet there
        """
        for root in roots:
            self.node(root).flow.live = True
        backward = [self._mark(entry) for entry in reversed(self.entries)]
        return tuple(
            replace(entry.op, attrs={**entry.op.attrs, **_flags(entry, flag)})
            for entry, flag in zip(self.entries, reversed(backward), strict=True)
        )

    @staticmethod
    def _mark(entry: Entry) -> bool:
        """Hand the gradient of an operator's results on to its inputs; True when there is one."""
        if not any(flow.live and flow.needed for flow in entry.outputs):
            return False
        for flow in entry.inputs:
            if flow.needed:
                flow.live = True
                flow.readers += 1
        return True


def _flags(entry: Entry, backward: bool) -> dict[str, Any]:
    sums = tuple(max(flow.readers - 1, 0) for flow in entry.outputs)
    return {"needs_grad": entry.needed, "backward": backward, "grad_sums": sums}
