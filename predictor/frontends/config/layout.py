"""Strides: what a view, a reshape and an elementwise result look like in memory.

The rules are PyTorch's (ATen/TensorUtils.cpp ``computeStride``, ATen/TensorIterator.cpp), so that a
template spells the same copies and layouts as a recorded model.
"""

from functools import lru_cache

Shape = tuple[int, ...]


@lru_cache(maxsize=4096)
def contiguous(shape: Shape) -> Shape:
    """Strides of a tensor whose last axis is dense.

    >>> contiguous((2, 3, 4))
    (12, 4, 1)
    """
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


@lru_cache(maxsize=4096)
def is_contiguous(shape: Shape, stride: Shape) -> bool:
    """Axes of size 1 may have any stride."""
    return all(n == 1 or a == b for n, a, b in zip(shape, stride, contiguous(shape), strict=True))


@lru_cache(maxsize=4096)
def view_stride(shape: Shape, stride: Shape, new: Shape) -> Shape | None:
    """Strides of the same memory under another shape, None where it must be copied.

    >>> view_stride((2, 3, 4), (12, 1, 3), (2, 12)) is None
    True
    """
    if is_contiguous(shape, stride):
        return contiguous(new)
    steps = [0] * len(new)
    place = len(new) - 1
    chunk_step, chunk, viewed = stride[-1], 1, 1
    for axis in range(len(shape) - 1, -1, -1):
        chunk *= shape[axis]
        if axis == 0 or (shape[axis - 1] != 1 and stride[axis - 1] != chunk * chunk_step):
            while place >= 0 and (viewed < chunk or new[place] == 1):
                steps[place] = viewed * chunk_step
                viewed *= new[place]
                place -= 1
            if viewed != chunk:
                return None
            if axis > 0:
                chunk_step, chunk, viewed = stride[axis - 1], 1, 1
    return tuple(steps) if place == -1 else None


@lru_cache(maxsize=4096)
def broadcast(shapes: tuple[Shape, ...]) -> Shape:
    """Shape of an elementwise result."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(s)) + s for s in shapes]
    return tuple(max(sizes) if min(sizes) else 0 for sizes in zip(*padded, strict=True))


@lru_cache(maxsize=4096)
def elementwise_stride(out: Shape, operands: tuple[tuple[Shape, Shape], ...]) -> Shape:
    """Strides of a new elementwise result: its axes in the order in which the operands store theirs."""
    if 0 in out and len(operands) == 1:
        return operands[0][1]
    rank = len(out)
    full = []
    for shape, stride in operands:
        lead = (0,) * (rank - len(shape))
        kept = (
            0 if n == 1 and m != 1 else s for n, m, s in zip(shape, out[len(lead) :], stride, strict=True)
        )
        full.append((*lead, *kept))
    if all(s == contiguous(out) for s in full):
        return full[0] if full else contiguous(out)
    order = list(range(rank - 1, -1, -1))
    for i in range(1, rank):
        moving = i
        for other in range(i - 1, -1, -1):
            turn = _turn(order[other], order[moving], full, out)
            if turn > 0:
                order[other], order[moving] = order[moving], order[other]
                moving = other
            elif turn < 0:
                break
    steps, step = [0] * rank, 1
    for axis in order:
        steps[axis] = step
        step *= max(out[axis], 1)
    return tuple(steps)


def _turn(a: int, b: int, strides: list[Shape], out: Shape) -> int:
    """1 where axis ``a``, stored inside ``b`` so far, belongs outside it; -1 where it stays; 0 unknown."""
    for stride in strides:
        if stride[a] == 0 or stride[b] == 0:
            continue
        if stride[a] != stride[b]:
            return -1 if stride[a] < stride[b] else 1
        if out[a] > out[b]:
            return 1
    return 0
