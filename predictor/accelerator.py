"""One accelerator's facts in base units, and what is assumed where its profile is silent.

Every number keeps its source, date, status and range. A figure that the file leaves away and every
answer needs (a vector peak, idle power) is filled from a class default below, marked ``estimate`` with a
wide range, and named in ``notes`` for the ledger. Without a bandwidth or without any peak to go by an
accelerator is listed and shown, and refused when it is priced.
"""

from dataclasses import dataclass, replace

from predictor.errors import UnsupportedError
from predictor.profile_file import DTYPES, Facts, ProfileFile
from predictor.values import Sourced

# fp32 on the vector units as a share of the 16-bit matrix peak, where the maker publishes none.
# TPU v5p: 4 units x 8 x 128 lanes x 1.75 GHz x 2 cores = 14 of 459 TFLOP/s, a share of 0.031.
VECTOR_SHARE = Sourced(
    value=1 / 32,
    low=1 / 64,
    high=1 / 8,
    source="estimate: fp32 vector rate as a share of the bf16 peak, after the TPU v5p vector unit in "
    "'How To Scale Your Model', TPU chapter",
    as_of="2025-02-18",
    status="estimate",
)


def _idle_share(value: float, low: float, high: float, grounds: str) -> Sourced:
    return Sourced(
        value, low, high, f"estimate: share of the power limit, {grounds}", "2026-11-20", "estimate"
    )


# Board power with nothing running and a context open, as a share of the power limit.
IDLE_SHARE = {
    "gpu": _idle_share(
        0.19, 0.10, 0.39, "16 GPU boards with a context: 0.12 (P100) to 0.39 (L4, T4), median 0.19"
    ),
    "tpu": _idle_share(
        0.45, 0.25, 0.55, "lowest over highest measured power of TPU v3 and v4, 0.47; 0.27 of their TDP"
    ),
    "asic": _idle_share(0.20, 0.08, 0.45, "Gaudi 2 metered at 0.15, others as GPUs"),
    "cpu": _idle_share(0.25, 0.10, 0.50, "judged; no server processor of the list was metered"),
}

LIMIT_W = Sourced(
    300, 100, 700, "estimate: board power where no limit is published", "2026-11-20", "estimate"
)

Note = tuple[str, str, str]
"""(topic, text, advice)"""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One device as software sees it, in base units.

    kind                  gpu, tpu, asic or cpu
    status                "fitted" when a ``.fit.json`` lies beside the profile, else "spec-only"
    training_note         why it cannot train, or what limits training; "" when nothing does
    peak_flop_per_s       dense peak by dtype; fp64, fp32, fp16_vector on the vector units, the others on
                          matrix units with fp32 accumulation where the hardware has them; int8 counts
                          integer operations [flop/s]
    memory_byte           what the driver offers to programs [byte]
    bandwidth_byte_per_s  device memory, read plus write; None when nobody published it [byte/s]
    cache_byte            last level on the chip [byte]
    intranode_byte_per_s  to the other accelerators of the node, one direction, all links [byte/s]
    internode_byte_per_s  to other nodes, one direction, reference node of the vendor [byte/s]
    per_node              devices in the usual node
    fabric_size           devices the intranode link joins at full rate: a node, or a whole TPU pod
    idle_w                board, nothing running, with a context open [W]
    limit_w               default power limit, or the most a chip was seen to draw [W]
    process_m             name of the process node as a length [m]
    die_area_m2           all compute dies of the device [m2]
    launch_usd            list price at launch [US dollar]
    embodied_kgco2e       making one device [kg CO2e]
    accumulate, sparsity  in which type matrix units add up, and what headlines count
    notes                 what a user must know: (topic, text, advice)
    choices               key of a figure -> what other sources say, and why this one was taken
    """

    id: str
    name: str
    vendor: str
    architecture: str
    kind: str
    status: str
    training: bool
    training_note: str
    release_date: str
    aliases: tuple[str, ...]
    form_factor: str
    compute_unit_kind: str
    memory_type: str
    cache_kind: str
    link_kind: str
    accumulate: str
    sparsity: str
    peak_flop_per_s: dict[str, Sourced]
    memory_byte: Sourced
    bandwidth_byte_per_s: Sourced | None
    cache_byte: Sourced | None
    compute_units: Sourced | None
    clock_hz: Sourced | None
    intranode_byte_per_s: Sourced | None
    internode_byte_per_s: Sourced | None
    per_node: int
    fabric_size: int
    idle_w: Sourced
    limit_w: Sourced | None
    process_m: Sourced | None
    die_area_m2: Sourced | None
    transistors: Sourced | None
    launch_usd: Sourced | None
    embodied_kgco2e: Sourced | None
    notes: tuple[Note, ...]
    choices: dict[str, str]

    @property
    def lacks(self) -> tuple[str, ...]:
        """Keys of the profile without which no job can be priced."""
        missing = () if "fp32" in self.peak_flop_per_s else ("peak.fp32, peak.fp16 or peak.bf16",)
        return missing if self.bandwidth_byte_per_s else (*missing, "memory.bandwidth")

    @property
    def memory_byte_per_s(self) -> Sourced:
        """``bandwidth_byte_per_s`` for whoever prices; UnsupportedError when the profile lacks it."""
        if self.bandwidth_byte_per_s is None:
            check_figures(self)
        assert self.bandwidth_byte_per_s
        return self.bandwidth_byte_per_s


SHOWN_ONLY = frozenset(
    ("peak fp64_matrix", "peak fp16_vector", "peak fp4", "peak int8", "transistors", "price at launch")
)
"""Names of the quantities that no answer rests on."""


def quantities(accelerator: Accelerator) -> list[tuple[str, Sourced, str]]:
    """All sourced numbers of an accelerator as (name for people, number, unit to show it in)."""
    rates = [
        (f"peak {dtype}", peak, "TOP/s" if dtype == "int8" else "TFLOP/s")
        for dtype, peak in accelerator.peak_flop_per_s.items()
    ]
    named = (
        ("memory", accelerator.memory_byte, "GiB"),
        ("memory bandwidth", accelerator.bandwidth_byte_per_s, "GB/s"),
        ("on-chip memory", accelerator.cache_byte, "MB"),
        ("compute units", accelerator.compute_units, ""),
        ("clock", accelerator.clock_hz, "MHz"),
        ("link in the node", accelerator.intranode_byte_per_s, "GB/s"),
        ("link between nodes", accelerator.internode_byte_per_s, "GB/s"),
        ("idle power", accelerator.idle_w, "W"),
        ("power limit", accelerator.limit_w, "W"),
        ("process", accelerator.process_m, "nm"),
        ("die area", accelerator.die_area_m2, "mm2"),
        ("transistors", accelerator.transistors, "billion"),
        ("price at launch", accelerator.launch_usd, "USD"),
        ("embodied carbon", accelerator.embodied_kgco2e, "kgCO2e"),
    )
    return rates + [(name, number, unit) for name, number, unit in named if number is not None]


def check_figures(accelerator: Accelerator) -> None:
    """Raise UnsupportedError when the profile lacks a figure that every price rests on."""
    if accelerator.lacks:
        raise UnsupportedError(
            f"{accelerator.id} cannot be priced: its profile lacks {' and '.join(accelerator.lacks)}\n"
            "add it to a copy of the profile and give that with --profile FILE"
        )


def from_facts(facts: Facts) -> Accelerator:
    """The device that a checked profile file describes, silent figures filled from class defaults."""
    file, read = facts.file, facts.figures
    peaks, vector_note = _with_vector_peak(
        {dtype: read[f"peak.{dtype}"] for dtype in DTYPES if f"peak.{dtype}" in read}
    )
    idle_w, idle_note = _with_idle(file, read)
    return Accelerator(
        id=file.id,
        name=file.name,
        vendor=file.vendor,
        architecture=file.architecture,
        kind=file.kind,
        status=file.status,
        training=file.training,
        training_note=file.training_note or "",
        release_date=str(file.release_date),
        aliases=tuple(file.aliases),
        form_factor=file.form_factor or "",
        compute_unit_kind=file.compute_unit_kind or "",
        memory_type=file.memory_type or "",
        cache_kind=file.cache_kind or "",
        link_kind=file.link_kind or "",
        accumulate=file.accumulate or "",
        sparsity=file.sparsity or "",
        peak_flop_per_s=peaks,
        memory_byte=read["memory.capacity"],
        bandwidth_byte_per_s=read.get("memory.bandwidth"),
        cache_byte=read.get("cache.onchip"),
        compute_units=read.get("compute_units"),
        clock_hz=read.get("clock.boost"),
        intranode_byte_per_s=read.get("link.intranode"),
        internode_byte_per_s=read.get("link.internode"),
        per_node=file.accelerators_per_node * file.software_sees,
        fabric_size=(file.fabric_size or file.accelerators_per_node) * file.software_sees,
        idle_w=idle_w,
        limit_w=read.get("power.limit"),
        process_m=read.get("die.process"),
        die_area_m2=read.get("die.area"),
        transistors=read.get("die.transistors"),
        launch_usd=read.get("price.launch"),
        embodied_kgco2e=read.get("embodied"),
        notes=(*((r.topic, r.text, r.advice) for r in file.notes), *vector_note, *idle_note),
        choices=facts.choices,
    )


def _with_vector_peak(peaks: dict[str, Sourced]) -> tuple[dict[str, Sourced], tuple[Note, ...]]:
    """``peaks`` with fp32 filled from VECTOR_SHARE where a 16-bit peak allows it, and the note about it."""
    matrix = peaks.get("bf16") or peaks.get("fp16")
    if "fp32" in peaks or matrix is None:
        return peaks, ()
    vector = replace(
        VECTOR_SHARE,
        value=VECTOR_SHARE.value * matrix.value,
        low=VECTOR_SHARE.low * matrix.value,
        high=VECTOR_SHARE.high * matrix.value,
    )
    text = (
        f"no published fp32 vector peak: {vector.value / 1e12:.3g} TFLOP/s assumed, "
        f"{vector.low / 1e12:.2g} to {vector.high / 1e12:.2g}"
    )
    note = ("vector peak", text, "measure an elementwise kernel and add [peak.fp32]")
    return {"fp32": vector, **peaks}, (note,)


def _with_idle(file: ProfileFile, read: dict[str, Sourced]) -> tuple[Sourced, tuple[Note, ...]]:
    """Idle power [W], from the class default where the file is silent, and notes about what was assumed.

    The share scales the middle of a known limit, because a board that is allowed more idles higher; of
    an unknown limit the whole span counts.
    """
    limit_w = read.get("power.limit")
    notes: tuple[Note, ...] = ()
    if limit_w is None:
        notes += (_assumed("power limit", LIMIT_W, "add [power.limit]"),)
    if "power.idle" in read:
        return read["power.idle"], notes
    share = IDLE_SHARE[file.kind]
    least, mid, most = (limit_w.value,) * 3 if limit_w else (LIMIT_W.low, LIMIT_W.value, LIMIT_W.high)
    idle_w = replace(share, value=share.value * mid, low=share.low * least, high=share.high * most)
    return idle_w, (*notes, _assumed("idle power", idle_w, "meter an idle board and add [power.idle]"))


def _assumed(what: str, power_w: Sourced, advice: str) -> Note:
    span = f"{power_w.value:.3g} W assumed, {power_w.low:.3g} to {power_w.high:.3g}"
    return what, f"no {what} known: {span}", advice
