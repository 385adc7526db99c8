"""The answer, schema 1: what every report, the command line and the Python door return.

Every key carries its unit. A predicted quantity is a range, ``low``, ``mid`` and ``high`` being the
5th, 50th and 95th percentile; counts are exact whole numbers. ``None`` means not asked or not known,
and the ledger says which. Later versions only add keys.

Boundaries: ``step`` and ``run`` are about the whole job over all its accelerators, except the three
that say so: ``peak_memory_bytes``, ``accelerator_power_w`` (one accelerator) and ``node_power_w``
(one node).
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from predictor.values import Array, Spread

SCHEMA_VERSION = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Range(_Part):
    """5th, 50th and 95th percentile."""

    low: float
    mid: float
    high: float

    @classmethod
    def of(cls, draws: Array | float) -> "Range":
        """The range of an array of draws."""
        spread = Spread.of(draws)
        return cls(low=spread.low, mid=spread.mid, high=spread.high)

    def scaled(self, factor: float) -> "Range":
        """The same range in another unit."""
        return Range(low=self.low * factor, mid=self.mid * factor, high=self.high * factor)


class ModelPart(_Part):
    """What is trained."""

    name: str
    source: str
    parameters: int
    trainable_parameters: int


class MachinePart(_Part):
    """What it runs on."""

    accelerator: str
    count: int
    nodes: int
    profile_status: str = Field(description="fitted, or spec-only: priced from its datasheet")
    memory_bytes: float | None = Field(
        default=None, description="capacity of one accelerator, what the peak is held against"
    )


class StackPart(_Part):
    """The software stack."""

    id: str
    status: str


class PlanPart(_Part):
    """How the work is divided; the product of dp, tp, pp and cp is the count."""

    dp: int
    tp: int
    pp: int
    ep: int
    cp: int
    zero: int
    recompute: str
    batch_size: int
    micro_batch: int
    accumulation: int
    precision: str
    optimizer: str
    memory_format: str
    mode: str


class FlopPart(_Part):
    """Matrix flop of one step over all accelerators; the optimizer's are elementwise."""

    forward: int
    backward: int
    optimizer: int
    recompute: int = Field(description="forward work done again, and scores a fused attention kernel repeats")
    model: int = Field(description="forward + backward, causal attention as s(s+1)/2 scores")
    total: int


class BytesPart(_Part):
    """Device memory traffic of one step over all accelerators."""

    read: int
    written: int


class MemoryPart(_Part):
    """Peak of one accelerator, three different answers."""

    allocated: Range = Field(description="bytes of live tensors")
    reserved: Range = Field(description="held by the allocator")
    device: Range = Field(description="as the driver reports, context included")
    parts: dict[str, float] = Field(
        default_factory=dict, description="named terms of the device's bytes at mid values; they add up to it"
    )


class StepPart(_Part):
    """One optimizer step (one batch when inferring)."""

    flop: FlopPart
    bytes: BytesPart
    communication_bytes: int = Field(description="sent by all accelerators together")
    time_s: Range
    samples_per_s: Range
    tokens_per_s: Range | None
    mfu: Range
    hfu: Range
    peak_memory_bytes: MemoryPart
    fits: bool | None = Field(description="device peak against capacity; None when capacity is unknown")
    accelerator_power_w: Range | None
    node_power_w: Range | None


class RunTime(_Part):
    """Seconds of the whole run."""

    steady: Range
    wall: Range = Field(description="with start-up, evaluation, checkpoints, failures")


class EnergyPart(_Part):
    """Energy of the whole run, each boundary containing the one before."""

    accelerators: Range
    nodes: Range
    facility: Range


class OperationalCarbon(_Part):
    """From electricity, location-based and market-based."""

    location: Range
    market: Range | None


class CarbonPart(_Part):
    """kg CO2e; total is operational (location-based) plus embodied."""

    operational: OperationalCarbon
    embodied: Range | None
    total: Range


class WaterPart(_Part):
    """Litres consumed."""

    on_site: Range | None
    off_site: Range | None


class RunPart(_Part):
    """The whole run."""

    steps: int
    time_s: RunTime
    accelerator_hours: Range
    node_hours: Range
    energy_kwh: EnergyPart | None
    carbon_kgco2e: CarbonPart | None
    water_l: WaterPart | None
    cost_usd: Range | None


class BreakdownRow(_Part):
    """One kind of work in one phase; times, at mid values, add up to the step."""

    kind: str
    phase: str
    time_s: float
    flop: int
    bytes: int
    energy_j: float | None
    count: int


class Coverage(_Part):
    """How much of the graph was priced by a formula."""

    bytes_by_formula: float
    unpriced_ops: list[str]


class LedgerEntry(_Part):
    """One thing that was assumed or could not be known."""

    topic: str
    text: str
    share: float | None = Field(description="part of the total it touches, 0 to 1")
    advice: str


class Provenance(_Part):
    """What is needed to get the same answer again."""

    version: str
    data_date: str
    command: str
    input_hash: str


class Estimate(_Part):
    """The answer to one Job."""

    schema_version: int = SCHEMA_VERSION
    model: ModelPart
    machine: MachinePart
    stack: StackPart
    plan: PlanPart
    step: StepPart
    run: RunPart | None
    breakdown: list[BreakdownRow]
    coverage: Coverage
    ledger: list[LedgerEntry]
    provenance: Provenance

    def to_dict(self) -> dict[str, Any]:
        """The answer as plain values, as in the JSON report."""
        return self.model_dump(mode="json")
