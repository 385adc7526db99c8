"""Questions that transformers models ask of tensor values, answered as in a healthy step of training.

Models check that activations are finite, that positions are within bounds, whether any token attends
globally. A fake tensor has no values; here a check answers that all is well, a search that there is
nothing to find, and tokens compared with the padding token are all different: nothing is padded. Any other
size or number that depends on values is still refused.
"""

from math import prod
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from predictor.frontends.torch_standin import RecordingMode

aten = torch.ops.aten
_MARK = "_predictor_answer"
# What the last operator of a check says in a healthy step.
_CHECKS: dict[Any, bool] = {
    aten.all.default: True,
    aten.any.default: False,
    **{
        getattr(getattr(aten, name), kind): True
        for name in ("le", "ge", "eq")
        for kind in ("Scalar", "Tensor")
    },
    **{
        getattr(getattr(aten, name), kind): False
        for name in ("lt", "gt", "ne")
        for kind in ("Scalar", "Tensor")
    },
}
_NEGATIONS = {aten.logical_not.default, aten.bitwise_not.default}
# Operators whose result has the one value that all elements of their argument have.
_KEEPING = {aten._to_copy.default, aten.max.default, aten.min.default}


class AnsweringMode(RecordingMode):
    """Fake tensors some of which have a known value, the same for all elements."""

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """As RecordingMode, with an answer to a check."""
        if func is aten._local_scalar_dense.default and hasattr(args[0], _MARK):
            return getattr(args[0], _MARK)
        # The gradient of a masked write selects by the same mask: at most every element.
        self.guess = torch._C._current_graph_task_id() != -1
        out = super().dispatch(func, types, args, kwargs)
        if isinstance(out, FakeTensor) and not out.is_floating_point():
            answer = _answer(func, args, out)
            if answer is not None:
                setattr(out, _MARK, answer)
        return out


def _answer(func: Any, args: Any, out: torch.Tensor) -> bool | int | None:
    if func is aten.ne.Scalar and out.dim() == 2 and args[0].dtype == torch.int64:
        return True  # token ids against the padding token
    known: bool | int | None = getattr(args[0], _MARK, None) if args else None
    if known is not None and func in _NEGATIONS:
        return not known
    if known is not None and func in _KEEPING:
        return int(known)
    if known is not None and func is aten.sum.dim_IntList:
        return int(known) * int(prod(args[0].shape[axis] for axis in args[1]))
    return _CHECKS.get(func) if out.dim() == 0 and out.dtype == torch.bool else None
