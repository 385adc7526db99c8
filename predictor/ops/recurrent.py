"""LSTM, GRU and simple RNN layers, as one library call runs them: all layers, directions and steps."""

from predictor.ir import Op, TensorSpec, Work
from predictor.ops import Kernel, formula
from predictor.ops.matmul import product

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
# Flop per gate element: a sum, a nonlinearity, and the update of the state.
_GATE_FLOP = 15


def _parts(op: Op, backward: bool) -> tuple[TensorSpec, list[TensorSpec], int, int]:
    """Input, weights in PyTorch's order, steps and batch of a call.

    States are those of the cell: (h, c) of an LSTM, h of the others. Packed input [rows, i] has as many
    steps as its rows make with the batch of the states, rounded up.
    """
    states = 2 if op.attrs["cell"] == "lstm" else 1
    x, hidden = op.inputs[0], op.inputs[1]
    per_cell = (len(op.inputs) - 1 - states) // (op.attrs["layers"] * op.attrs["directions"])
    count = per_cell * op.attrs["layers"] * op.attrs["directions"]
    if backward:
        count = len(op.outputs) - 1 - states
    weights = list(op.inputs[1 + states : 1 + states + count])
    batch = hidden.shape[1] if len(hidden.shape) == 3 else 1
    rows = x.elements // max(x.shape[-1], 1)
    return x, weights, -(-rows // batch), batch


def _cells(op: Op, weights: list[TensorSpec]) -> list[list[TensorSpec]]:
    """Weights of each layer and direction: input [g*h, i], hidden [g*h, r], biases, projection [r, h]."""
    cells = op.attrs["layers"] * op.attrs["directions"]
    size = len(weights) // cells
    return [weights[i * size : (i + 1) * size] for i in range(cells)]


def _width(x: TensorSpec) -> int:
    return x.byte // max(x.elements, 1)


@formula("predictor.recurrent")
def recurrent(op: Op) -> tuple[Kernel, ...]:
    """Per layer and direction: the inputs of all steps in one product, then one product per step.

    x [t, b, i] @ [i, g*h], t times [b, r] @ [r, g*h]; the hidden weights are read again at every step.
    """
    x, weights, steps, batch = _parts(op, backward=False)
    size, kernels = _width(x), []
    for w_input, w_hidden, *rest in _cells(op, weights):
        kernels += _products(w_input, w_hidden, rest, steps, batch, x.dtype, size)
        gates = steps * batch * w_hidden.shape[0] * size
        work = Work(
            vector_flop=_GATE_FLOP * gates // size,
            read_byte=2 * gates,
            write_byte=gates + gates // GATES[op.attrs["cell"]],
        )
        kernels.append(Kernel("elementwise", work, x.dtype))
    return tuple(kernels)


def _products(
    w_input: TensorSpec,
    w_hidden: TensorSpec,
    rest: list[TensorSpec],
    steps: int,
    batch: int,
    dtype: str,
    size: int,
) -> list[Kernel]:
    rows, gates, width = steps * batch, w_input.shape[0], w_input.shape[1]
    state = w_hidden.shape[1]
    made = rows * gates * size
    kernels = [
        product(1, rows, gates, width, dtype, rows * width * size + w_input.byte, made),
        product(steps, batch, gates, state, dtype, steps * w_hidden.byte + rows * state * size, made),
    ]
    for weight in rest:
        if len(weight.shape) == 2:  # the projection of the state, [r, h]
            r, h = weight.shape
            moved = rows * h * size
            kernels.append(product(steps, batch, r, h, dtype, steps * weight.byte + moved, rows * r * size))
    return kernels


@formula("predictor.recurrent_backward")
def recurrent_backward(op: Op) -> tuple[Kernel, ...]:
    """Every product of the forward has two: the gradient of its input and of its weight.

    Those of weights run once over all steps, [g*h, t*b] @ [t*b, i]; that of the state step by step.
    """
    x, weights, steps, batch = _parts(op, backward=True)
    size, kernels = _width(x), []
    for w_input, w_hidden, *rest in _cells(op, weights):
        for kernel in _products(w_input, w_hidden, rest, steps, batch, x.dtype, size):
            g, m, n, k = kernel.dims
            weight = k * n * size
            gate, inner = g * m * n * size, g * m * k * size
            kernels.append(product(g, m, k, n, x.dtype, gate + g * weight, inner))
            kernels.append(product(1, k, n, g * m, x.dtype, gate + inner, weight))
        gates = steps * batch * w_hidden.shape[0] * size
        work = Work(vector_flop=2 * _GATE_FLOP * gates // size, read_byte=3 * gates, write_byte=gates)
        kernels.append(Kernel("elementwise", work, x.dtype))
    return tuple(kernels)


@formula("aten.mkldnn_rnn_layer")
def recurrent_layer(op: Op) -> tuple[Kernel, ...]:
    """One layer and direction of an LSTM (4 gates) or GRU (3): x [t, b, i], weights [g*h, i], [g*h, h].

    Per step [b, i + h] @ [i + h, g*h]; the weights are read again at every step.
    """
    x, w_input, w_hidden = op.inputs[:3]
    steps, batch = x.shape[0], x.shape[1]
    sides = (steps, batch, w_input.shape[0], w_input.shape[1] + w_hidden.shape[1])
    g, m, n, k = sides
    work = Work(
        matrix_flop=2 * g * m * n * k,
        vector_flop=30 * steps * batch * w_hidden.shape[1],
        read_byte=x.byte + steps * (w_input.byte + w_hidden.byte),
        write_byte=sum(t.byte for t in op.outputs),
    )
    return (Kernel("matmul", work, x.dtype, sides),)
