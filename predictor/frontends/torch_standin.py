"""The fake tensor mode of a recording, and its stand-in for values that depend on data.

Nothing is computed, so nobody knows how many boxes pass a threshold. By default such a question is an
error. Detectors ask it at known places, between sizes that their configuration fixes; while a detector is
recorded ``guess`` is on, and every selection is taken at its expected or largest size:

- of a mask, as many elements as were set in it one by one (a sampler's), else all of them;
- non-maximum suppression keeps every box, so that the configured maximum is what is kept afterwards;
- a boolean read from a tensor is False (no degenerate boxes), a number is 1.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from predictor.frontends.torch_device import on_cpu

aten = torch.ops.aten
_READS = {aten.select.int, aten._local_scalar_dense.default}
_COUNT = "_predictor_true_count"


class RecordingMode(FakeTensorMode):
    """Fake tensors on the CPU whatever device is asked for; selections have a size while ``guess`` is on.

    share  part of a mask's elements that are true where nothing else is known
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.guess = False
        self.share = 1.0

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """As FakeTensorMode, with our answers in the place of its refusals."""
        if kwargs and "device" in kwargs:
            kwargs = on_cpu(kwargs)
        if func in _READS and not isinstance(args[0], FakeTensor):
            return func(*args)  # a constant of the host
        if not self.guess:
            return super().dispatch(func, types, args, kwargs or {})
        stand_in = _STAND_INS.get(func)
        if stand_in is not None:
            with self:
                return stand_in(self, *args, **(kwargs or {}))
        out = super().dispatch(func, types, args, kwargs or {})
        _remember(func, args, out)
        return out

    def count(self, mask: torch.Tensor) -> int:
        """How many elements of a mask are taken as true."""
        known = getattr(mask, _COUNT, None)
        return min(int(known), mask.numel()) if known is not None else ceil(mask.numel() * self.share)

    @contextmanager
    def sharing(self, share: float) -> Iterator[None]:
        """Within the block, this part of the elements of a mask is true."""
        before, self.share = self.share, share
        try:
            yield
        finally:
            self.share = before


def set_count(tensor: torch.Tensor, count: int) -> None:
    """Say how many elements of a tensor are true, or above zero."""
    setattr(tensor, _COUNT, count)


def _nonzero(mode: RecordingMode, mask: torch.Tensor) -> torch.Tensor:
    return torch.empty((mode.count(mask), mask.dim()), dtype=torch.int64)


def _item(mode: RecordingMode, tensor: Any) -> Any:
    if tensor.constant is not None:
        return tensor.constant.item()
    if tensor.dtype == torch.bool:
        return False
    return 1.0 if tensor.is_floating_point() else 1


def _positions(mode: RecordingMode, indices: Any) -> list[Any]:
    """Indices with every boolean mask replaced by the positions of its true elements, one per axis."""
    found: list[Any] = []
    for index in indices:
        if index is not None and index.dtype in {torch.bool, torch.uint8}:
            found.extend(_nonzero(mode, index).unbind(1))
        else:
            found.append(index)
    return found


def _indexing(func: Any) -> Callable[..., Any]:
    def stand_in(mode: RecordingMode, tensor: Any, indices: Any, *args: Any, **kwargs: Any) -> Any:
        positions = _positions(mode, indices)
        out: Any = FakeTensorMode.dispatch(mode, func, (FakeTensor,), (tensor, positions, *args), kwargs)
        known = getattr(tensor, _COUNT, None)
        if func is aten.index_put_.default and known is not None:
            set_count(out, known + max(p.numel() for p in positions if p is not None))
        return out

    return stand_in


def _select(mode: RecordingMode, tensor: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return tensor.new_empty(mode.count(mask))


def _keep_all(mode: RecordingMode, boxes: torch.Tensor, *_: Any) -> torch.Tensor:
    return boxes.new_empty(boxes.shape[0], dtype=torch.int64)


_STAND_INS: dict[Any, Callable[..., Any]] = {
    aten.nonzero.default: _nonzero,
    aten._local_scalar_dense.default: _item,
    aten.masked_select.default: _select,
} | {
    func: _indexing(func)
    for func in (
        aten.index.Tensor,
        aten._unsafe_index.Tensor,
        aten.index_put.default,
        aten.index_put_.default,
        aten._index_put_impl_.default,
    )
}


def add_suppression(nms: Any) -> None:
    """Enter a non-maximum suppression operator: the result of (boxes [n, 4], ...) is n indices."""
    _STAND_INS[nms] = _keep_all


def _remember(func: Any, args: Any, out: Any) -> None:
    """Carry the number of true elements from masks to what is made of them."""
    if func in {aten.zeros_like.default, aten.zeros.default}:
        set_count(out, 0)
    elif func in {aten.cat.default, aten.bitwise_or.Tensor}:
        parts = args[0] if func is aten.cat.default else args[:2]
        counts = [getattr(t, _COUNT, None) for t in parts]
        if None not in counts:
            set_count(out, sum(map(int, filter(None, counts))))
    elif func in {aten.gt.Scalar, aten.view.default, aten._to_copy.default}:
        known = getattr(args[0], _COUNT, None)
        if known is not None:
            set_count(out, known)
    elif func._schema.is_mutable and args and isinstance(args[0], FakeTensor) and hasattr(args[0], _COUNT):
        delattr(args[0], _COUNT)
