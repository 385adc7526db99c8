"""Scaled dot-product attention: one rule for the names of every backend.

Shapes: q [b, h, s, d], k [b, hkv, t, d], v [b, hkv, t, dv]; grouped heads share keys and values.
A kernel computes the scores its mask keeps: of s*s, a causal one s(s+1)/2, a causal window of w keys
the sum of min(i+1, w). A mask or bias given as a tensor alone is not known to hide anything, so all
s*t scores count.
"""

from predictor.ir import Op, TensorSpec, Work
from predictor.ops import Kernel, formula


def _triangle(n: int) -> int:
    """0 + 1 + ... + (n - 1), nothing for n <= 0."""
    return n * (n - 1) // 2 if n > 0 else 0


def band(s: int, t: int, before: int, after: int) -> int:
    """Pairs of s queries and t keys where key j lies in i - before ... i + after of query i.

    The sum over i of min(i + after, t - 1) - max(i - before, 0) + 1, in closed form.

    >>> band(4, 4, 3, 0), band(4, 4, 1, 0), band(4, 4, 1, 1), band(2, 9, 8, 8)
    (10, 7, 10, 18)
    >>> all(
    ...     band(s, t, x, y) == sum(-x <= j - i <= y for i in range(s) for j in range(t))
    ...     for s in range(6) for t in range(1, 6) for x in range(7) for y in range(7)
    ... )
    True
    """
    seeing = min(s, t + before)  # later queries see no key
    inside = min(max(t - 1 - after, 0), seeing)  # queries whose last key is not the last of all
    last = _triangle(inside) + inside * after + (seeing - inside) * (t - 1)
    first = _triangle(seeing - before)
    return last - first + seeing


def scores(q: TensorSpec, k: TensorSpec, causal: bool, window: int = 0, pairs: int = 0) -> int:
    """Elements of softmax(q k^T) that are computed, over batch and heads.

    window  keys at this distance or further from the query are hidden, 0 for none
    pairs   query-key pairs of one head, where the frontend knows them better than that, else 0

    >>> one = TensorSpec((1, 1, 4, 8), "float32")
    >>> scores(one, one, True), scores(one, one, True, window=2), scores(one, one, False)
    (10, 7, 16)
    """
    b, h, s, _ = q.shape
    t = k.shape[2]
    # The mask is aligned at the top left, as in PyTorch: query i sees keys up to i.
    before = window - 1 if window else s
    after = 0 if causal else before if window else t
    return b * h * (pairs or band(s, t, before, after))


def _scores_of(op: Op, q: TensorSpec, k: TensorSpec) -> int:
    causal, window, pairs = (op.attrs.get(name, 0) for name in ("is_causal", "window", "pairs"))
    return scores(q, k, bool(causal), int(window), int(pairs))


def _sides(q: TensorSpec, k: TensorSpec) -> tuple[int, int, int, int]:
    b, h, s, d = q.shape
    return (b * h, s, k.shape[2], d)


@formula("predictor.attention")
def attention(op: Op) -> tuple[Kernel, ...]:
    """softmax(q k^T / sqrt(d) + bias) v in one kernel: scores stay on chip."""
    q, k, v = op.inputs[:3]
    count = _scores_of(op, q, k)
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
    count = _scores_of(op, q, k)
    work = Work(
        matrix_flop=4 * count * (q.shape[-1] + v.shape[-1]),
        recompute_flop=2 * count * q.shape[-1],
        vector_flop=8 * count,
        read_byte=sum(t.byte for t in op.inputs),
        write_byte=sum(t.byte for t in op.outputs),
    )
    return (Kernel("attention", work, q.dtype, _sides(q, k)),)
