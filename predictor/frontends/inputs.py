"""Model inputs as words: ``ids:int64[B,S]``, ``image:float32[32,3,224,224]``.

A letter stands for a size that an option sets: B batch, S sequence length, P image side.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from predictor.errors import InputError, did_you_mean
from predictor.ir import DTYPE_BYTE

_SPEC = re.compile(r"^\s*(?:([A-Za-z_]\w*)\s*:)?\s*([a-z]+\d*)\s*\[([^\]]*)\]\s*$")
SYMBOLS = {"B": "--batch-size or --micro-batch", "S": "--seq-len", "P": "--image-size"}


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One named input; ``name`` is empty when it is given by position."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        """As it is written."""
        head = f"{self.name}:" if self.name else ""
        return f"{head}{self.dtype}[{','.join(map(str, self.shape))}]"

    def resolve(self, sizes: Mapping[str, int | None]) -> tuple[int, ...]:
        """The shape with its letters replaced by ``sizes``."""
        return tuple(self._size(axis, sizes) for axis in self.shape)

    def _size(self, axis: int | str, sizes: Mapping[str, int | None]) -> int:
        if isinstance(axis, int):
            return axis
        size = sizes.get(axis)
        if size is None:
            raise InputError(f"input '{self}': {axis} has no size; give {SYMBOLS[axis]}")
        return size


def parse_input(text: str) -> InputSpec:
    """Read one spec.

    >>> parse_input("ids:int64[B,1024]")
    InputSpec(name='ids', dtype='int64', shape=('B', 1024))
    """
    match = _SPEC.match(text)
    if not match:
        raise InputError(f"input '{text}': write NAME:DTYPE[SIZES], for example ids:int64[8,1024]")
    name, dtype, sizes = match[1] or "", match[2], match[3]
    if dtype not in DTYPE_BYTE:
        raise InputError(f"input '{text}': unknown type '{dtype}'{did_you_mean(dtype, DTYPE_BYTE)}")
    return InputSpec(
        name, dtype, tuple(_axis(part.strip(), text) for part in sizes.split(",") if part.strip())
    )


def _axis(part: str, text: str) -> int | str:
    if part in SYMBOLS:
        return part
    if not part.isdigit() or int(part) == 0:
        raise InputError(f"input '{text}': size '{part}' is not a whole number of at least 1, nor B, S or P")
    return int(part)
