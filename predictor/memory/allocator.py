"""A copy of PyTorch's caching allocator: which bytes a stream of requests holds, and which it reserves.

Source: c10/cuda/CUDACachingAllocator.cpp of PyTorch 2.x with default settings (no expandable segments, no
rounding to powers of two). Sizes there: blocks of 512 B; requests up to 1 MiB from segments of 2 MiB;
requests below 10 MiB from segments of 20 MiB; larger ones from a segment of their own, a multiple of 2 MiB.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass

MIB = 2**20
BLOCK = 512
SMALL = MIB
SMALL_SEGMENT = 2 * MIB
MEDIUM = 10 * MIB
MEDIUM_SEGMENT = 20 * MIB
LARGE_STEP = 2 * MIB


def rounded(byte: int) -> int:
    """The least a request occupies [byte].

    >>> rounded(1), rounded(513)
    (512, 1024)
    """
    return max(-(-byte // BLOCK), 1) * BLOCK


def segment_byte(byte: int) -> int:
    """Size of the segment fetched from the device for a rounded request that no free block serves [byte]."""
    if byte <= SMALL:
        return SMALL_SEGMENT
    if byte < MEDIUM:
        return MEDIUM_SEGMENT
    return -(-byte // LARGE_STEP) * LARGE_STEP


@dataclass(frozen=True, slots=True)
class Peaks:
    """Most bytes in blocks at once, the request during which that was so, and bytes of all segments."""

    allocated: int
    at: int
    reserved: int


class _Block:
    """A stretch of one segment; ``pool`` holds the free stretches of its kind of segment, smallest first."""

    __slots__ = ("address", "after", "before", "byte", "free", "pool")

    def __init__(self, byte: int, address: int, pool: "_Pool") -> None:
        self.byte = byte
        self.address = address
        self.pool = pool
        self.free = False
        self.before: _Block | None = None
        self.after: _Block | None = None


_Pool = list[tuple[int, int, _Block]]


def replay(requests: Iterable[tuple[int, int]]) -> Peaks:
    """Serve (tensor, byte) in order: bytes above 0 are taken under that number, 0 gives them back.

    Best fit: the smallest free block that is large enough, the lowest address among equals. The rest is
    split off when it is at least 512 B (small pool) or more than 1 MiB (large pool); free neighbours join.
    Segments are never returned. A block counts whole, as in ``torch.cuda.max_memory_allocated``.
    """
    small: _Pool = []
    large: _Pool = []
    blocks: dict[int, _Block] = {}
    allocated = peak = at = reserved = 0
    for number, (tensor, byte) in enumerate(requests):
        if not byte:
            block = blocks.pop(tensor)
            allocated -= block.byte
            _give_back(block)
            continue
        size = (byte + BLOCK - 1) // BLOCK * BLOCK
        pool, least = (small, BLOCK) if size <= SMALL else (large, SMALL + 1)
        place = bisect_left(pool, (size, -1))
        if place < len(pool):
            block = pool.pop(place)[2]
            block.free = False
        else:
            block = _Block(segment_byte(size), reserved, pool)
            reserved += block.byte
        if block.byte - size >= least:
            _split(block, size)
        blocks[tensor] = block
        allocated += block.byte
        if allocated > peak:
            peak, at = allocated, number
    return Peaks(peak, at, reserved)


def _split(block: _Block, size: int) -> None:
    """Keep ``size`` bytes of a block; what is left becomes a free block behind it."""
    rest = _Block(block.byte - size, block.address + size, block.pool)
    rest.free, rest.before, rest.after = True, block, block.after
    if block.after is not None:
        block.after.before = rest
    block.byte, block.after = size, rest
    insort(block.pool, (rest.byte, rest.address, rest))


def _give_back(block: _Block) -> None:
    """Join a block with its free neighbours and put it into its pool."""
    pool = block.pool
    if block.after is not None and block.after.free:
        _take(block.after)
        _join(block, block.after)
    if block.before is not None and block.before.free:
        _take(block.before)
        _join(block.before, block)
        block = block.before
    block.free = True
    insort(pool, (block.byte, block.address, block))


def _take(block: _Block) -> None:
    """Remove a free block from its pool."""
    del block.pool[bisect_left(block.pool, (block.byte, block.address))]


def _join(block: _Block, after: _Block) -> None:
    """Extend a block over the one behind it."""
    block.byte += after.byte
    block.after = after.after
    if after.after is not None:
        after.after.before = block
