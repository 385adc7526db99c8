"""flex_attention as one kernel over the pairs its block mask keeps.

Outside of a compiler PyTorch would compile it on the spot; fake tensors cannot be compiled. The mask
function is asked about real positions, so the count of kept pairs is exact. Where it looks at tensors that
have no values (a batch's document numbers), all pairs count.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from unittest.mock import patch

import torch
from torch.nn.attention import flex_attention as flex
from torch.utils._python_dispatch import _disable_current_modes

from predictor.frontends.torch_masks import Pattern

# Rows of the mask asked about at once, and pairs beyond which it is not asked at all.
_ROWS, _MOST_PAIRS = 1024, 2**32


@lru_cache(maxsize=64)
def pairs_kept(keeps: Callable[..., Any], queries: int, keys: int) -> int:
    """Query-key pairs of the first head and sample that a mask function keeps; 0 when it cannot say."""
    if queries * keys > _MOST_PAIRS:
        return 0
    zero, key, total = torch.tensor(0), torch.arange(keys)[None, :], 0
    try:
        for start in range(0, queries, _ROWS):
            query = torch.arange(start, min(start + _ROWS, queries))[:, None]
            kept = torch.as_tensor(keeps(zero, zero, query, key)).expand(len(query), keys)
            total += int(kept.sum())
    except (RuntimeError, TypeError, IndexError, NotImplementedError):
        return 0
    return total


@contextmanager
def one_kernel(attention: Callable[..., Any]) -> Iterator[None]:
    """Within the block flex_attention calls ``attention(q, k, v, bias, pattern)`` on [b, h, s, d]."""

    def operator(query: Any, key: Any, value: Any, score: Any, block: Any, *_: Any, **__: Any) -> Any:
        with _disable_current_modes():
            pairs = pairs_kept(block[-1], query.shape[2], key.shape[2])
        out = attention(query, key, value, None, Pattern(pairs=pairs))
        stats = query.new_empty(query.shape[:3], dtype=torch.float32)
        return out, stats, stats

    with (
        patch.object(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True),
        patch.object(flex, "flex_attention_hop", operator),
        patch.object(flex, "_validate_device", lambda *_: None),  # refuses gradients on the CPU
    ):
        yield
