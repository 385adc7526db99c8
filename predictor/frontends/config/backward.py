"""Run the nodes of a tape from last to first, as PyTorch's engine does."""

from predictor.frontends.config.arithmetic import add, copied_to, pointwise, reduce_sum
from predictor.frontends.config.layout import Shape
from predictor.frontends.config.tape import Leaf, Node, Tape, Value
from predictor.frontends.config.views import view
from predictor.ir import BACKWARD


def backward(tape: Tape, loss: Value) -> None:
    """Write the backward pass of ``loss``; ``tape.gradients`` receives the storages of weights' gradients.

    Nodes run in the opposite order of their making, which is the order PyTorch gives them. A node's
    saved tensors are released when it has run, a gradient when its last reader has.
    """
    tape.casts.clear()
    tape.phase, tape.scope = BACKWARD, ""
    node = loss.node
    assert node is not None
    node.gradients[loss.slot] = pointwise("aten.ones_like", (loss,))
    block = -1
    while tape.nodes:
        node = tape.nodes.pop()
        if node.block != block:
            tape.turn(block, node.block)
            block = node.block
        if any(g is not None for g in node.gradients):
            _run(node, tape)
        node.run = None
    tape.turn(block, -1)


def _run(node: Node, tape: Tape) -> None:
    assert node.run is not None
    results = list(node.run(*_taken(node)))
    for place, edge in enumerate(node.edges):
        gradient = results[place]
        if edge is None or gradient is None:
            results[place] = None
            continue
        if gradient.shape != edge[2]:
            gradient = sum_to(gradient, edge[2])
        results[place] = gradient if gradient.dtype == edge[3] else copied_to(gradient, edge[3])
    node.run = None
    gradient = None
    for place, edge in enumerate(node.edges):
        gradient, results[place] = results[place], None
        if edge is not None and edge[0] is not None:
            _arrive(edge[0], edge[1], gradient, tape)


def _taken(node: Node) -> tuple[Value | None, ...]:
    """The gradients that wait at a node; nobody else holds them afterwards."""
    taken, node.gradients = tuple(node.gradients), []
    return taken


def _arrive(node: Node, slot: int, gradient: Value | None, tape: Tape) -> None:
    if gradient is not None:
        waiting = node.gradients[slot]
        node.gradients[slot] = gradient if waiting is None else add(waiting, gradient)
    if isinstance(node, Leaf):
        node.uses -= 1
        if node.uses == 0 and node.gradients[slot] is not None:
            _keep(node, tape)


def _keep(leaf: Leaf, tape: Tape) -> None:
    """The weight's gradient in the weight's own layout."""
    gradient = leaf.gradients[0]
    assert gradient is not None
    if not same_layout(gradient.shape, gradient.stride, leaf.stride):
        twin = tape.new(gradient.shape, gradient.dtype, leaf.stride)
        tape.emit("aten.new_empty_strided", (gradient,), (twin,))
        tape.emit("aten.copy_", (twin, gradient), (twin,))
        leaf.gradients[0] = twin
        gradient = twin
    tape.gradients.append(gradient.memory.number)
    tape.kept.append(gradient)
    leaf.gradients[0] = None


def same_layout(shape: Shape, a: Shape, b: Shape) -> bool:
    """Axes of size 1 may differ."""
    return all(n == 1 or x == y for n, x, y in zip(shape, a, b, strict=True))


def sum_to(x: Value, shape: Shape) -> Value:
    """Sum over the axes along which ``shape`` was broadcast."""
    lead = len(x.shape) - len(shape)
    axes = tuple(
        axis
        for axis in range(len(x.shape))
        if axis < lead or (shape[axis - lead] == 1 and x.shape[axis] != 1)
    )
    total = reduce_sum(x, axes, keep=True) if axes else x
    return view(total, shape) if lead else total
