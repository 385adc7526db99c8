"""Where it runs and what that costs: grids, data centres and prices, each figure with its source.

Rows live in ``data/grids.csv``, ``data/pue.csv`` and ``data/prices.csv``; ``data/README.md`` says where
they come from and how their ranges were chosen. An unknown name stops: nothing falls back to the
average of the world.
"""

import csv
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

from predictor.errors import InputError, did_you_mean
from predictor.profile import Note
from predictor.units import UNITS
from predictor.values import STATUSES, Sourced

DATA = Path(__file__).with_name("data")
GRIDS, PUE, PRICES = DATA / "grids.csv", DATA / "pue.csv", DATA / "prices.csv"

Row = dict[str, str]

COLUMNS = {
    GRIDS.name: "id name kind parent aliases gco2e_per_kwh low high method "
    "water_l_per_kwh water_low water_high carbon_free year source status",
    PUE.name: "id kind pue pue_low pue_high wue_l_per_kwh wue_low wue_high year source status",
    PRICES.name: "accelerator provider tier usd_per_accelerator_h low high as_of source status",
}
"""Columns of each file; ``data/README.md`` explains them."""

_GRID = ("gco2e_per_kwh", "low", "high")
_WATER = ("water_l_per_kwh", "water_low", "water_high")
_PUE = ("pue", "pue_low", "pue_high")
_WUE = ("wue_l_per_kwh", "wue_low", "wue_high")
_PRICE = ("usd_per_accelerator_h", "low", "high")


@dataclass(frozen=True, slots=True)
class Region:
    """One place to draw electricity from.

    kind                  world, country, state (province, eGRID subregion) or cloud
    method                "life-cycle" counts fuel supply and plants, "direct" the stack only
    kgco2e_per_j          location-based intensity of the grid [kg CO2e/J]
    market_kgco2e_per_j   after the operator's carbon-free purchases, None when not published [kg CO2e/J]
    water_l_per_j         consumed in generation, off-site [l/J]
    pue                   facility over IT energy, None when the operator is not known
    wue_l_per_j           on-site water per IT energy [l/J]
    notes                 (topic, text, advice)
    """

    id: str
    name: str
    kind: str
    method: str
    kgco2e_per_j: Sourced
    market_kgco2e_per_j: Sourced | None
    water_l_per_j: Sourced | None
    pue: Sourced | None
    wue_l_per_j: Sourced | None
    notes: tuple[Note, ...]


def find_region(name: str) -> Region:
    """The region people mean: "france", "fr", "us-ca", "california", "aws:us-east-1", "us-east-1", "world".

    Raises InputError with near matches when there is none, or with the choices when there are several.
    """
    found = _names().get(_fold(name), [])
    if not found:
        near = did_you_mean(_fold(name), _names())
        raise InputError(f"unknown region '{name}'{near}\nknown names: predictor regions")
    if len(found) > 1:
        choices = " or ".join(f"'{id_}' ({_grids()[id_]['name']})" for id_ in found)
        raise InputError(f"region '{name}' may be {choices}; write its id")
    return _region(_grids()[found[0]])


def list_regions() -> list[str]:
    """Ids of all regions, in the order of the file."""
    return list(_grids())


def default_pue(operator: str = "unknown") -> Sourced:
    """PUE of an operator's fleet ("aws", "meta"), of "hyperscale" or "hpc", or when nothing is known."""
    return ranged(_facility(operator), _PUE, "", PUE)


def default_wue(operator: str = "unknown") -> Sourced | None:
    """On-site water of the same, where published [l/J]."""
    return _wue(_facility(operator))


def find_price(accelerator_id: str, provider: str | None = None, tier: str = "on-demand") -> Sourced | None:
    """Rent of one accelerator: median over the providers, lowest and highest offer; None without any [USD/s].

    provider  "aws", "lambda"; all of them when None
    tier      "on-demand", "spot" or "reserved"
    """
    offers = {
        row["provider"]: ranged(row, _PRICE, "USD/h", PRICES)
        for row in _rows(PRICES)
        if (row["accelerator"], row["tier"]) == (accelerator_id, tier) and provider in (None, row["provider"])
    }
    if not offers:
        return None
    if len(offers) == 1:
        return next(iter(offers.values()))
    return Sourced(
        value=median(offer.value for offer in offers.values()),
        low=min(offer.low for offer in offers.values()),
        high=max(offer.high for offer in offers.values()),
        source=f"predictor/data/prices.csv, {tier}, median and range over {', '.join(offers)}",
        as_of=min(offer.as_of for offer in offers.values()),
        status="derived",
    )


def _fold(name: str) -> str:
    """The form in which regions are compared; hyphens count: us-east-1 and us-east1 differ."""
    return re.sub(r"[\s_]+", "-", name.strip().casefold())


@cache
def _rows(path: Path) -> tuple[Row, ...]:
    return tuple(read_rows(path))


def read_rows(path: Path) -> list[Row]:
    """The rows of a data file; lines that start with # are comments, the columns must be the known ones."""
    with path.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(line for line in lines if not line.startswith("#"))
        known, found = COLUMNS[path.name].split(), list(reader.fieldnames or ())
        if found != known:
            odd = sorted(set(found) ^ set(known)) or ["their order"]
            raise InputError(f"{path.name}: columns differ in {', '.join(odd)}; accepted: {', '.join(known)}")
        return list(reader)


@cache
def _grids() -> dict[str, Row]:
    return {row["id"]: row for row in _rows(GRIDS)}


@cache
def _names() -> dict[str, list[str]]:
    """Id or alias -> the regions it may mean; an id outranks an alias."""
    names: dict[str, list[str]] = {}
    for row in _grids().values():
        for alias in row["aliases"].split():
            names.setdefault(alias, []).append(row["id"])
    return names | {id_: [id_] for id_ in _grids()}


@cache
def _facilities() -> dict[str, Row]:
    return {row["id"]: row for row in _rows(PUE)}


def _facility(operator: str) -> Row:
    row = _facilities().get(_fold(operator))
    if row is None:
        near = did_you_mean(operator, _facilities())
        raise InputError(f"unknown operator '{operator}'{near}; known: unknown, hyperscale, hpc, aws, gcp")
    return row


def _region(row: Row) -> Region:
    """The row with its figures; a cloud region takes those it lacks from its parents."""
    priced, watered = _with(row, "gco2e_per_kwh"), _with(row, "water_l_per_kwh")
    facility = _facilities().get(row["id"]) or _facilities().get(row["id"].split(":")[0])
    if row["kind"] != "cloud":
        facility = None
    grid = ranged(priced, _GRID, "gCO2e/kWh", GRIDS)
    return Region(
        id=row["id"],
        name=row["name"],
        kind=row["kind"],
        method=priced["method"],
        kgco2e_per_j=grid,
        market_kgco2e_per_j=_market(row, grid),
        water_l_per_j=_water(watered),
        pue=ranged(facility, _PUE, "", PUE) if facility else None,
        wue_l_per_j=_wue(facility) if facility else None,
        notes=_notes(row, priced, facility),
    )


def _with(row: Row, key: str) -> Row:
    """The row itself or the nearest of its parents that holds ``key``."""
    while not row[key]:
        if row["parent"] not in _grids():
            raise InputError(f"{GRIDS.name}: {row['id']}: neither {key} nor a known parent")
        row = _grids()[row["parent"]]
    return row


def _market(row: Row, grid: Sourced) -> Sourced | None:
    """Intensity after the operator's carbon-free share of a year."""
    if not row["carbon_free"]:
        return None
    rest = 1 - float(row["carbon_free"])
    source = f"{grid.source}; times the share not carbon-free, {rest:.2f} ({row['source']})"
    return Sourced(grid.value * rest, grid.low * rest, grid.high * rest, source, row["year"], "derived")


def _water(row: Row) -> Sourced:
    water = ranged(row, _WATER, "l/kWh", GRIDS)
    source = "WRI (2020) method, per country, as in EcoLogits 0.11.3, MPL-2.0"
    return Sourced(water.value, water.low, water.high, source, "2020", "derived")


def _wue(row: Row) -> Sourced | None:
    return ranged(row, _WUE, "l/kWh", PUE) if row["wue_l_per_kwh"] else None


def _notes(row: Row, priced: Row, facility: Row | None) -> tuple[Note, ...]:
    notes: tuple[Note, ...] = ()
    if row["kind"] == "cloud":
        text = f"{row['id']} is priced with the grid of {priced['name']}: no open figure for the site itself"
        notes += (("grid", text, "ask the provider for its own location-based factor"),)
        if facility and facility["kind"] != "region":
            text = f"no PUE published for {row['id']}: the fleet of {facility['id']} assumed"
            notes += (("PUE", text, "give the region's PUE if you know it"),)
    if priced["method"] == "direct":
        text = f"grid of {priced['name']} counts direct emissions only, other regions count the life cycle"
        notes += (("grid", text, "the range reaches up to the life cycle; compare regions of one method"),)
    return notes


def ranged(row: Row, keys: tuple[str, str, str], unit: str, path: Path) -> Sourced:
    """A figure, its range and its source in base units; InputError names file, row and column.

    keys  columns of the middle, the low and the high end, all in ``unit``
    """
    where = f"{path.name}: {row.get('id') or row.get('accelerator')}"
    try:
        value, low, high = (float(row[key]) for key in keys)
    except ValueError:
        found = ", ".join(f"{key} '{row[key]}'" for key in keys)
        raise InputError(f"{where}: {found}: all three must be numbers") from None
    if not 0 <= low <= value <= high:
        raise InputError(f"{where}: {keys[1]} {low} <= {keys[0]} {value} <= {keys[2]} {high} does not hold")
    if not row["source"] or row["status"] not in STATUSES:
        raise InputError(f"{where}: {keys[0]} needs a source, and a status out of {', '.join(STATUSES)}")
    if row.get("method", "direct") not in ("life-cycle", "direct"):
        raise InputError(f"{where}: method is '{row['method']}', accepted: life-cycle, direct")
    factor = UNITS[unit][1]
    as_of = row.get("as_of") or row["year"]
    return Sourced(value * factor, low * factor, high * factor, row["source"], as_of, row["status"])
