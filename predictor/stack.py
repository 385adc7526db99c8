"""Software stacks: what is fused, which attention runs, what a launch costs the host.

One TOML file per framework generation in ``data/stacks``; the machine is elsewhere.
"""

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from predictor.errors import InputError, did_you_mean
from predictor.values import Array, draw

_FOLDER = Path(__file__).with_name("data") / "stacks"


class Span(BaseModel):
    """5th percentile, middle and 95th percentile of a constant."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: Annotated[float, Field(gt=0)]
    mid: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> "Span":
        if not self.low <= self.mid <= self.high:
            raise ValueError(f"{self.low} <= {self.mid} <= {self.high} does not hold")
        return self

    def draw(self, name: str) -> Array:
        """The draws of this constant under its name."""
        return draw(name, self.low, self.mid, self.high)


class Stack(BaseModel):
    """One software stack.

    attention           "fused" keeps scores on chip, "plain" writes them to memory
    fuse_elementwise    chains of elementwise kernels, casts and row reductions become one kernel
    host_s              host time per kernel launch [s]
    context_byte        outside the allocator: context, library code [byte]
    fragmentation       where the allocator is replayed: share of its unused segments that a device shows [-]
    reserved_share      where memory is planned ahead instead: reserve over live tensors [-]
    blas_byte           workspace of the matrix library, taken from the allocator [byte]
    convolution_byte    code and handles of the convolution library, outside the allocator [byte]
    convolution_workspace  of the largest convolution over its input plus output [-]
    optimizer           "foreach" updates all weights at once, "single" one by one, "fused" in one kernel
    gradient_buckets    data parallel ranks hold buckets of all gradients beside the gradients
    logit_byte          per logit, kept by a fused loss; 0 leaves logits as recorded [byte]
    optimizer_passes    optimizer traffic over that of a kernel that moves everything once [-]
    optimizer_launches  kernels per parameter tensor [-]
    overlap             share of gradient communication hidden behind compute [-]
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    title: str
    status: Literal["estimate", "fitted"]
    attention: Literal["fused", "plain"]
    fuse_elementwise: bool
    source: str
    as_of: str
    host_s: Span
    context_byte: Span
    fragmentation: Span | None = None
    reserved_share: Span | None = None
    blas_byte: Span
    convolution_byte: Span
    convolution_workspace: Span
    optimizer: Literal["foreach", "single", "fused"]
    gradient_buckets: bool
    logit_byte: Annotated[float, Field(ge=0)]
    optimizer_passes: Span
    optimizer_launches: int
    overlap: Span

    @model_validator(mode="after")
    def _one_allocator(self) -> "Stack":
        if (self.fragmentation is None) == (self.reserved_share is None):
            raise ValueError("give fragmentation or reserved_share, not both")
        return self


def list_stacks() -> list[str]:
    """Ids of the stacks that have a file."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


@cache
def find_stack(name: str) -> Stack:
    """The stack of this id; raises InputError with near matches."""
    if name not in list_stacks():
        raise InputError(
            f"unknown stack '{name}'{did_you_mean(name, list_stacks())}; known: {', '.join(list_stacks())}"
        )
    path = _FOLDER / f"{name}.toml"
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return Stack(**content)
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise InputError(f"{path.name}: {error}") from None


def default_stack(kind: str, release_date: str) -> str:
    """The stack most people use on an accelerator of this kind and year.

    XLA on TPUs and on chips programmed through a graph compiler; on GPUs PyTorch 2 eager, and PyTorch 1
    on those that were old when PyTorch 2.0 came out (March 2023): released before 2017.
    """
    if kind in {"tpu", "asic"}:
        return "xla"
    return "eager-1" if release_date < "2017" else "eager-2"
