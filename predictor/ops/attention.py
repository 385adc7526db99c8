"""Scaled dot-product attention: one rule for the names of every backend.

Shapes: q [b, h, s, d], k [b, hkv, t, d], v [b, hkv, t, dv]; grouped heads share keys and values.
A causal kernel computes the scores on and below the diagonal: s(s+1)/2 of s*s when s = t. A bias or
mask given as a tensor is not known to be causal, so all s*t scores count.
"""

from predictor.ir import Op, TensorSpec, Work
from predictor.ops import Kernel, formula


def scores(q: TensorSpec, k: TensorSpec, causal: bool) -> int:
    """Elements of softmax(q k^T) that are computed, over batch and heads.

    >>> scores(TensorSpec((1, 1, 4, 8), "float32"), TensorSpec((1, 1, 4, 8), "float32"), True)
    10
    """
    b, h, s, _ = q.shape
    t = k.shape[2]
    if not causal:
        return b * h * s * t
    # The mask is aligned at the top left, as in PyTorch: query i sees keys 0..i.
    square = min(s, t)
    return b * h * (square * (square + 1) // 2 + max(s - t, 0) * t)


def _sides(q: TensorSpec, k: TensorSpec) -> tuple[int, int, int, int]:
    b, h, s, d = q.shape
    return (b * h, s, k.shape[2], d)


@formula("predictor.attention")
def attention(op: Op) -> tuple[Kernel, ...]:
    """softmax(q k^T / sqrt(d) + bias) v in one kernel: scores stay on chip."""
    q, k, v = op.inputs[:3]
    count = scores(q, k, bool(op.attrs.get("is_causal")))
    work = Work(
        matrix_flop=2 * count * (q.shape[-1] + v.shape[-1]),
        vector_flop=5 * count,
        read_byte=sum(t.byte for t in op.inputs),
        write_byte=sum(t.byte for t in op.outputs),
    )
    return (Kernel("attention", work, q.dtype, _sides(q, k)),)


@formula("predictor.attention_backward")
def attention_backward(op: Op) -> tuple[Kernel, ...]:
    """(dout, q, k, v, out, logsumexp) -> dq, dk, dv: four products, and the scores once more.

    The gradient needs dv, dp, dq and dk (twice the forward); q k^T again is the kernel's own choice
    (Dao, FlashAttention-2, 2023, algorithm 2) and counts as recompute.
    """
    _, q, k, v = op.inputs[:4]
    count = scores(q, k, bool(op.attrs.get("is_causal")))
    work = Work(
        matrix_flop=4 * count * (q.shape[-1] + v.shape[-1]),
        recompute_flop=2 * count * q.shape[-1],
        vector_flop=8 * count,
        read_byte=sum(t.byte for t in op.inputs),
        write_byte=sum(t.byte for t in op.outputs),
    )
    return (Kernel("attention", work, q.dtype, _sides(q, k)),)
