"""Shares of peak by kind of kernel, for accelerators without a fit of their own."""

import tomllib
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from predictor.ops import KINDS
from predictor.stack import Span

_FILE = Path(__file__).with_name("data") / "efficiency.toml"


class Shares(BaseModel):
    """What one kind of kernel reaches, of the peak rate and of the memory bandwidth."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    compute: Span
    memory: Span


class Efficiency(BaseModel):
    """The class defaults: shares by kind, and the rate that training sustains by maker."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    as_of: str
    status: str
    kind: dict[str, Shares]
    sustained: dict[str, Span]

    def sustained_of(self, vendor: str) -> Span:
        """The sustained share of a maker, or that of makers without measurements."""
        return self.sustained.get(vendor, self.sustained["other"])


@cache
def class_defaults() -> Efficiency:
    """Read ``data/efficiency.toml``; every kind of kernel has its row."""
    table = Efficiency(**tomllib.loads(_FILE.read_text(encoding="utf-8")))
    missing = set(KINDS) - set(table.kind)
    if missing:
        raise ValueError(f"{_FILE.name}: kinds without a row: {sorted(missing)}")
    return table
