"""Which scores a mask keeps, carried beside the mask tensor to the attention kernel.

Fake tensors have no values, so a mask's pattern cannot be read from it. Who makes a mask knows its
pattern and marks the mask's storage; views of the mask (slices, expansions) carry the mark along, any
computation on it loses it, and then all scores count.
"""

from dataclasses import dataclass
from typing import Any

import torch

_MARK = "_predictor_pattern"


@dataclass(frozen=True, slots=True)
class Pattern:
    """The scores a kernel has to compute.

    causal  keys after the query are hidden
    window  keys at this distance or further are hidden, 0 for no window
    pairs   query-key pairs of one head that are kept, where no causal window describes them, else 0
    bias    the tensor also holds values to add: the kernel reads it
    """

    causal: bool = False
    window: int = 0
    pairs: int = 0
    bias: bool = False


def mask(pattern: Pattern, batch: int, queries: int, keys: int) -> torch.Tensor:
    """A boolean mask [batch, 1, queries, keys] that takes no memory: its kernel knows the pattern."""
    return marked(torch.empty((1, 1, 1, 1), dtype=torch.bool), pattern).expand(batch, 1, queries, keys)


def marked(tensor: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """The tensor, its storage marked."""
    setattr(tensor.untyped_storage(), _MARK, pattern)
    return tensor


def pattern_of(tensor: Any) -> Pattern | None:
    """The pattern its storage is marked with."""
    return getattr(tensor.untyped_storage(), _MARK, None) if isinstance(tensor, torch.Tensor) else None
