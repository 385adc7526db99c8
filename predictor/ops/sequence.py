"""Sequence mixers with a state: short causal convolutions, recurrences, chunked linear attention.

b batch, s length, d channels, h heads, g groups, n state size, p or v width of a head's values, k of its
keys, q length of a chunk. A recurrence works on every element of its state in turn, without a matrix
unit: its flop are vector flop. A chunked form turns the work inside a chunk into products of which the
causal half is kept, and passes one state per chunk through memory.
"""

from math import ceil

from predictor.ir import Op, TensorSpec, Work
from predictor.ops import Kernel, formula, streamed

# A backward kernel keeps the inputs alone: it runs the recurrence again, then once for the gradient of
# the state and once for those of the inputs.
_BACKWARD_PASSES = 3


def pairs_in_chunks(s: int, q: int) -> int:
    """Causal pairs within chunks of q positions, the last one shorter: sum of q(q+1)/2.

    >>> pairs_in_chunks(10, 4)
    23
    """
    full, rest = divmod(s, q)
    return full * (q * (q + 1) // 2) + rest * (rest + 1) // 2


@formula("predictor.causal_conv1d")
def causal_conv1d(op: Op) -> tuple[Kernel, ...]:
    """(x [b, d, s], weight [d, k], ...): each channel with its own k taps, k*b*d*s multiply-adds."""
    return _short_conv(op, op.inputs[0], op.inputs[1], 1)


@formula("predictor.causal_conv1d_backward")
def causal_conv1d_backward(op: Op) -> tuple[Kernel, ...]:
    """Gradients of x and of the weight, each as many products as the forward."""
    return _short_conv(op, op.inputs[1], op.inputs[2], 2)


def _short_conv(op: Op, x: TensorSpec, weight: TensorSpec, products: int) -> tuple[Kernel, ...]:
    moved = streamed(op)
    work = Work(
        matrix_flop=2 * products * x.elements * weight.shape[-1],
        read_byte=moved.read_byte,
        write_byte=moved.write_byte,
    )
    return (Kernel("depthwise", work, x.dtype),)


def _recurrence(op: Op, vector_flop: int) -> tuple[Kernel, ...]:
    moved = streamed(op)
    work = Work(vector_flop=vector_flop, read_byte=moved.read_byte, write_byte=moved.write_byte)
    return (Kernel("scan", work, op.inputs[0].dtype),)


def selective_flop(x: TensorSpec, a: TensorSpec) -> int:
    """Mamba-1: h = exp(dt A) h + (dt x) B, y = C h, for x [b, d, s] and A [d, n] [flop].

    Per element of the state dt*A, exp, times B, times h, plus, times C, plus: 7; per channel the softplus
    of dt (3), dt*x, D*x and its sum, the gate z*sigmoid(z) and its product (5): 11.

    Source: Gu and Dao, "Mamba", 2023, algorithm 2 and section 3.3.
    """
    return x.elements * (7 * a.shape[-1] + 11)


@formula("predictor.selective_scan")
def selective_scan(op: Op) -> tuple[Kernel, ...]:
    """(x [b, d, s], dt, A [d, n], B, C, ...) -> y [b, d, s]; the state stays on chip."""
    return _recurrence(op, selective_flop(op.inputs[0], op.inputs[2]))


@formula("predictor.selective_scan_backward")
def selective_scan_backward(op: Op) -> tuple[Kernel, ...]:
    """(dy, x, dt, A, B, C, ...) -> their gradients; the states are computed again."""
    return _recurrence(op, _BACKWARD_PASSES * selective_flop(op.inputs[1], op.inputs[3]))


# Operations per element of the RWKV-4 recurrence: 12 for the output (two exponentials, numerator,
# denominator, their quotient, the running maximum), 11 to carry the state on.
_WKV_FLOP = 23


@formula("predictor.wkv")
def wkv(op: Op) -> tuple[Kernel, ...]:
    """(decay [d], first [d], k [b, s, d], v) -> [b, s, d]. Source: Peng et al., "RWKV", 2023, appendix D."""
    return _recurrence(op, _WKV_FLOP * op.inputs[2].elements)


@formula("predictor.wkv_backward")
def wkv_backward(op: Op) -> tuple[Kernel, ...]:
    """Gradients of decay, first, k and v."""
    return _recurrence(op, _BACKWARD_PASSES * _WKV_FLOP * op.inputs[3].elements)


@formula("predictor.linear_scan")
def linear_scan(op: Op) -> tuple[Kernel, ...]:
    """(a [b, s, d], x [b, s, d]): h = a h + x, all h kept."""
    return _recurrence(op, 2 * op.inputs[1].elements)


@formula("predictor.linear_scan_backward")
def linear_scan_backward(op: Op) -> tuple[Kernel, ...]:
    """dx = a dx + dh backwards in time, da = dx h: 3 operations per element."""
    return _recurrence(op, 3 * op.inputs[2].elements)


# Operations per element of the forward variables: three terms summed as logarithms (two sums, three
# exponentials, a maximum of three, a logarithm) and the score of the label.
_CTC_FLOP = 10


def _ctc(op: Op, log_probs: TensorSpec, targets: TensorSpec, passes: int) -> tuple[Kernel, ...]:
    s, b, _ = log_probs.shape
    states = s * b * (2 * targets.shape[-1] + 1)
    moved = streamed(op)
    # The forward gathers the scores of the labels alone; all scores are read for their gradient.
    read = 4 * states + moved.read_byte if passes > 1 else 4 * states + targets.byte
    work = Work(
        vector_flop=passes * _CTC_FLOP * states, read_byte=read, write_byte=4 * states + moved.write_byte
    )
    return (Kernel("scan", work, log_probs.dtype),)


@formula("predictor.ctc_loss")
def ctc_loss(op: Op) -> tuple[Kernel, ...]:
    """(log_probs [s, b, c], targets [b, l]) -> [b]: forward variables [b, s, 2l+1], kept for the backward.

    Source: Graves et al., "Connectionist temporal classification", 2006, section 4.1.
    """
    return _ctc(op, op.inputs[0], op.inputs[1], 1)


@formula("predictor.ctc_loss_backward")
def ctc_loss_backward(op: Op) -> tuple[Kernel, ...]:
    """Backward variables, and from both the gradient of every score."""
    return _ctc(op, op.inputs[1], op.inputs[2], 2)


def _chunked(
    op: Op,
    matrix_flop: int,
    recompute_flop: int,
    passes: tuple[TensorSpec, int, int],
    dims: tuple[int, int, int, int],
) -> tuple[Kernel, ...]:
    """A chunked form: (like, states, times) are float32 states written and read ``times`` times."""
    like, states, times = passes
    moved = streamed(op)
    work = Work(
        matrix_flop=matrix_flop,
        recompute_flop=recompute_flop,
        vector_flop=2 * states,
        read_byte=moved.read_byte + 4 * states * times,
        write_byte=moved.write_byte + 4 * states * times,
    )
    return (Kernel("scan", work, like.dtype, dims),)


def _ssd(x: TensorSpec, b_in: TensorSpec, q: int) -> tuple[int, int, int, tuple[int, int, int, int]]:
    """Products of the whole form, of its states and scores alone, elements of all states, sides."""
    b, s, h, p = x.shape
    g, n = b_in.shape[-2:]
    pairs = pairs_in_chunks(s, q)
    scores = 2 * b * pairs * g * n
    states = 2 * b * s * h * n * p
    all_products = scores + 2 * b * pairs * h * p + 2 * states
    count = ceil(s / q)
    return all_products, scores + states, b * count * h * n * p, (b * count * h, min(q, s), p, n)


@formula("predictor.chunk_scan")
def chunk_scan(op: Op) -> tuple[Kernel, ...]:
    """Mamba-2: (x [b, s, h, p], dt, A [h], B [b, s, g, n], C, ...) -> y.

    Scores C B^T and their product with x inside a chunk (causal pairs), the state B^T x of each chunk, and
    C times the state before it. Source: Dao and Gu, "Transformers are SSMs", 2024, section 6.
    """
    x, b_in = op.inputs[0], op.inputs[3]
    flop, _, states, dims = _ssd(x, b_in, op.attrs["chunk"])
    return _chunked(op, flop, 0, (x, states, 2), dims)


@formula("predictor.chunk_scan_backward")
def chunk_scan_backward(op: Op) -> tuple[Kernel, ...]:
    """Two gradients per product; scores and states are computed again."""
    x, b_in = op.inputs[1], op.inputs[4]
    flop, again, states, dims = _ssd(x, b_in, op.attrs["chunk"])
    return _chunked(op, 2 * flop, again, (x, states, 4), dims)


def delta_flop(length: int, k: int, v: int) -> tuple[int, int]:
    """Products of the delta rule in one chunk of one head, and those of its output alone [flop].

    Strictly lower K K^T; the inverse of a unit lower triangle by substitution, sum over i of i(i-1)
    multiply-adds halved, L(L-1)(L-2)/3; its products with V and K; Q K^T and its product with the new
    values (causal pairs); and K S, Q S and K^T V with the k*v state.

    Source: Yang et al., "Parallelizing linear transformers with the delta rule", 2024, section 3.2.
    """
    pairs = length * (length + 1) // 2
    strict = length * (length - 1) // 2
    solve = length * (length - 1) * (length - 2) // 3
    output = 2 * pairs * v + 2 * length * k * v
    return 2 * strict * k + solve + 2 * pairs * (v + 2 * k) + 4 * length * k * v + output, output


def _delta(keys: TensorSpec, values: TensorSpec, q: int) -> tuple[int, int, int, tuple[int, int, int, int]]:
    b, s, h, v = values.shape
    k = keys.shape[-1]
    full, rest = divmod(s, q)
    (whole, out), (last, last_out) = delta_flop(q, k, v), delta_flop(rest, k, v)
    flop = b * h * (full * whole + last)
    output = b * h * (full * out + last_out)
    count = ceil(s / q)
    return flop, flop - output, b * h * count * k * v, (b * h * count, min(q, s), v, k)


@formula("predictor.delta_rule")
def delta_rule(op: Op) -> tuple[Kernel, ...]:
    """(q [b, s, h, k], k, v [b, s, h, v], decay, beta) -> [b, s, h, v], in chunks."""
    _, keys, values = op.inputs[:3]
    flop, _, states, dims = _delta(keys, values, op.attrs["chunk"])
    return _chunked(op, flop, 0, (values, states, 1), dims)


@formula("predictor.delta_rule_backward")
def delta_rule_backward(op: Op) -> tuple[Kernel, ...]:
    """Two gradients per product; all but the output is computed again."""
    _, _, keys, values = op.inputs[:4]
    flop, again, states, dims = _delta(keys, values, op.attrs["chunk"])
    return _chunked(op, 2 * flop, again, (values, states, 2), dims)
