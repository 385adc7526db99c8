"""Manufacture: what making an accelerator emits, and how that is shared out over its life.

Facts live in ``data/embodied.csv``. Where nobody published a figure for a board, ``made_kgco2e`` adds up
its silicon, its memory and the rest, with a range that holds the published ones.
"""

import math
from functools import cache

from predictor.facts import Fact, Rule, Table, read_facts
from predictor.values import Sourced
from predictor.world import find_region

EMBODIED = Table(
    file="embodied.csv",
    keys=("subject", "quantity", "method"),
    rules={
        "manufacture": Rule("kgCO2e", 1, 20000),
        "manufacture per GB": Rule("kgCO2e/GB", 0.01, 10),
        "fab energy": Rule("kWh/cm2", 0.1, 20),
        "fab gases": Rule("kgCO2e/cm2", 0.01, 5),
        "fab materials": Rule("kgCO2e/cm2", 0.01, 5),
        "fab total": Rule("kgCO2e/cm2", 0.1, 20),
        "yield": Rule("", 0.1, 1),
        "lifetime": Rule("year", 0.5, 20),
        "utilisation": Rule("", 0.01, 1),
    },
)

NODES_NM = (28, 20, 14, 10, 8, 7, 5, 3)
"""Process nodes with a row; any other takes the nearest by ratio."""

FAB_REGION = "tw"
WAFER_DIAMETER_M = 0.3
RETICLE_M2 = 858e-6
"""Largest die one exposure can print, 26 x 33 mm; more silicon is several dies."""


def lifetime_s() -> Sourced:
    """How long an accelerator is in service [s]."""
    return _number("accelerator", "lifetime", "allocation")


def utilisation() -> Sourced:
    """Share of its service in which it is used."""
    return _number("accelerator", "utilisation", "allocation")


def published() -> tuple[Fact, ...]:
    """Figures published for whole accelerators and servers."""
    return tuple(fact for fact in read_facts(EMBODIED) if fact["quantity"] == "manufacture")


def made_kgco2e(die_area_m2: Sourced, process_m: Sourced, memory_byte: Sourced, memory_type: str) -> Sourced:
    """Making one accelerator, where no figure is published for it [kg CO2e].

    die_area_m2  all compute dies [m2]
    process_m    name of the process node as a length [m]
    memory_byte  on the package or the board [byte]
    memory_type  "HBM3", "GDDR6"; on-chip memory ("SRAM") is part of the die

    made = silicon * (energy * grid + gases + materials) / yield + memory * per_byte + board

    The parts err independently: their deviations are added as squares.

    Source: ACT (Gupta et al., ISCA 2022) for the fab; the other factors in ``data/embodied.csv``.
    """
    parts = [
        _logic_kgco2e(die_area_m2, process_m),
        _memory_kgco2e(memory_byte, memory_type),
        _number("board", "manufacture", "one study"),
    ]
    value = sum(part.value for part in parts)
    below = math.hypot(*(part.value - part.low for part in parts))
    above = math.hypot(*(part.high - part.value for part in parts))
    mm2, nm, gb = die_area_m2.value * 1e6, process_m.value * 1e9, memory_byte.value / 1e9
    source = (
        f"estimate: {mm2:.0f} mm2 at {nm:g} nm after ACT, {gb:.0f} GB of {memory_type or 'memory'}, "
        "a board; factors in predictor/data/embodied.csv"
    )
    as_of = max(part.as_of for part in parts)
    return Sourced(value, value - below, value + above, source, as_of, "estimate")


def silicon_m2(die_area_m2: float) -> float:
    """Wafer area that dies of this total area use up, edge of the wafer included [m2].

    dies = pi d^2 / (4 A) - pi d / sqrt(2 A), the usual count of whole dies on a round wafer

    >>> round(silicon_m2(814e-6) * 1e4, 1)
    11.1
    """
    pieces = math.ceil(die_area_m2 / RETICLE_M2)
    piece_m2 = die_area_m2 / pieces
    wafer_m2 = math.pi * WAFER_DIAMETER_M**2 / 4
    dies = wafer_m2 / piece_m2 - math.pi * WAFER_DIAMETER_M / math.sqrt(2 * piece_m2)
    return pieces * wafer_m2 / dies


def _logic_kgco2e(die_area_m2: Sourced, process_m: Sourced) -> Sourced:
    """The compute dies: all low ends together, all high ends together, since one fab makes them."""
    node = min(NODES_NM, key=lambda nm: abs(math.log(nm * 1e-9 / process_m.value)))
    energy, gases, materials = (
        _number(f"logic {node} nm", f"fab {part}", "bottom-up model")
        for part in ("energy", "gases", "materials")
    )
    grid = find_region(FAB_REGION).kgco2e_per_j
    good = _number("fab", "yield", "bottom-up model")
    shares = (good.value, good.high, good.low)
    columns = (*map(_ends, (die_area_m2, energy, grid, gases, materials)), shares)
    value, low, high = (
        silicon_m2(area) * (per_area * per_j + gas + material) / share
        for area, per_area, per_j, gas, material, share in zip(*columns, strict=True)
    )
    return Sourced(value, low, high, energy.source, energy.as_of, "estimate")


def _memory_kgco2e(memory_byte: Sourced, memory_type: str) -> Sourced:
    """Memory by its kind; what lies on the die was counted with it."""
    kind = memory_type.casefold()
    if "sram" in kind:
        return Sourced(0.0, 0.0, 0.0, "part of the die", "2022", "derived")
    subject = "memory HBM" if "hbm" in kind else "memory other"
    each = _number(subject, "manufacture per GB", "two studies")
    value, low, high = (memory_byte.value * per_byte for per_byte in _ends(each))
    return Sourced(value, low, high, each.source, each.as_of, each.status)


def _ends(number: Sourced) -> tuple[float, float, float]:
    return number.value, number.low, number.high


def _number(subject: str, quantity: str, method: str) -> Sourced:
    return _numbers()[subject, quantity, method]


@cache
def _numbers() -> dict[tuple[str, str, str], Sourced]:
    return {(fact["subject"], fact["quantity"], fact["method"]): fact.number for fact in read_facts(EMBODIED)}
