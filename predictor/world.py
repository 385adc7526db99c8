"""Where it runs: carbon and water of the grid, PUE and water of the data centre, each with its source.

Facts live in ``data/grids.csv``, ``data/water.csv`` and ``data/facilities.csv``, places in
``data/zones.csv``; ``data/README.md`` says where they come from and how their ranges were chosen.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from predictor.errors import InputError, did_you_mean
from predictor.facts import DATA, Fact, Rule, Table, read_facts
from predictor.values import Sourced
from predictor.zones import SITES, Zone, find_zone, fold, lineage, read_zones

GRIDS = Table(
    file="grids.csv",
    keys=("zone", "quantity", "method", "basis"),
    rules={
        "carbon intensity": Rule("gCO2e/kWh", 0.1, 3000),
        "carbon-free share": Rule("", 0, 1),
    },
)
WATER = Table("water.csv", ("zone", "quantity"), {"water of generation": Rule("l/kWh", 0.01, 100)})
FACILITIES = Table(
    file="facilities.csv",
    keys=("facility", "quantity"),
    rules={"PUE": Rule("", 1, 3), "WUE": Rule("l/kWh", 0, 10)},
    dated=True,
)

INTENSITY, SHARE, OFF_SITE = "carbon intensity", "carbon-free share", "water of generation"
METHODS = {INTENSITY: ("life-cycle", "direct"), SHARE: ("hourly", "annual")}
"""How a figure of a grid was counted; of two the first is preferred."""
BASIS = {INTENSITY: "location", SHARE: "market"}

Note = tuple[str, str, str]
"""(topic, text, advice)"""


@dataclass(frozen=True, slots=True)
class Region:
    """One place to draw electricity from.

    kind                  one of ``zones.KINDS``
    provider              who runs it, "" for a grid
    grid                  id of the place whose grid figure this is
    method                "life-cycle" counts fuel supply and plants, "direct" the stack only
    kgco2e_per_j          location-based intensity of the grid [kg CO2e/J]
    market_kgco2e_per_j   after the operator's carbon-free purchases, None when not published [kg CO2e/J]
    water_l_per_j         consumed in generation, off-site [l/J]
    pue                   facility over IT energy, None for a grid
    wue_l_per_j           on-site water per IT energy [l/J]
    notes                 (topic, text, advice)
    """

    id: str
    name: str
    kind: str
    provider: str
    grid: str
    method: str
    kgco2e_per_j: Sourced
    market_kgco2e_per_j: Sourced | None
    water_l_per_j: Sourced | None
    pue: Sourced | None
    wue_l_per_j: Sourced | None
    notes: tuple[Note, ...]


def find_region(name: str) -> Region:
    """The region people mean: "france", "us-ca", "california", "aws:us-east-1", "us-east-1", "lumi".

    Raises InputError with near matches when there is none, or with the choices when there are several.
    """
    return _region(find_zone(name))


def list_regions(kind: str | None = None, provider: str | None = None) -> list[str]:
    """Ids of all regions, or of those of a kind or a provider, in the order of the file."""
    return [
        zone.id
        for zone in read_zones().values()
        if kind in (None, zone.kind) and provider in (None, zone.provider)
    ]


def default_pue(operator: str = "unknown") -> Sourced:
    """PUE of an operator's fleet ("aws", "meta"), of "hyperscale" or "hpc", or when nothing is known."""
    found = _facility(_operator(operator), "PUE")
    if found is None:
        raise InputError(f"{FACILITIES.file}: no PUE of '{operator}'")
    return found.number


def default_wue(operator: str = "unknown") -> Sourced | None:
    """On-site water of the same, where published [l/J]."""
    found = _facility(_operator(operator), "WUE")
    return found.number if found else None


def region_facts(region: Region) -> tuple[Fact, ...]:
    """Every fact of the place itself, its grid and its facility: all methods, all years."""
    zone = read_zones()[region.id]
    own = [fact for place in {zone.id: 0, region.grid: 0} for fact in _grid_facts().get(place, ())]
    water = _nearest_water(zone)
    facility = [
        fact
        for name in (zone.id, zone.provider)
        for fact in read_facts(FACILITIES)
        if fact["facility"] == name
    ]
    return (*own, *([water] if water else []), *facility)


def _region(zone: Zone) -> Region:
    """The place with its figures; those it lacks come from what it lies in."""
    grid = next((place for place in lineage(zone) if _intensity(place.id)), None)
    priced = _intensity(grid.id) if grid else None
    if grid is None or priced is None:
        raise InputError(f"{GRIDS.file}: neither {zone.id} nor what it lies in has a '{INTENSITY}'")
    water = _nearest_water(zone)
    pue = _at_site(zone, "PUE")
    wue = _at_site(zone, "WUE")
    return Region(
        id=zone.id,
        name=zone.name,
        kind=zone.kind,
        provider=zone.provider,
        grid=grid.id,
        method=priced["method"],
        kgco2e_per_j=priced.number,
        market_kgco2e_per_j=_market(zone, priced.number),
        water_l_per_j=water.number if water else None,
        pue=default_pue() if zone.kind in SITES and pue is None else pue.number if pue else None,
        wue_l_per_j=wue.number if wue else None,
        notes=(*_grid_notes(zone, grid, priced), *_site_notes(zone, pue, wue)),
    )


def check_grids(folder: Path = DATA) -> tuple[Fact, ...]:
    """The grid facts of a folder; InputError when one is of an unknown zone, method or basis."""
    facts = read_facts(GRIDS, folder)
    for fact in facts:
        _check_zone(GRIDS, fact["zone"], folder)
        quantity = fact["quantity"]
        for column, accepted in (("method", METHODS[quantity]), ("basis", (BASIS[quantity],))):
            if fact[column] not in accepted:
                where = f"{GRIDS.file}: {fact['zone']} / {quantity}"
                raise InputError(f"{where}: {column} is '{fact[column]}', accepted: {', '.join(accepted)}")
    return facts


def check_water(folder: Path = DATA) -> tuple[Fact, ...]:
    """The water facts of a folder; InputError when one is of an unknown zone."""
    facts = read_facts(WATER, folder)
    for fact in facts:
        _check_zone(WATER, fact["zone"], folder)
    return facts


def check_facilities(folder: Path = DATA) -> tuple[Fact, ...]:
    """The data centre facts of a folder; "aws:us-east-1" must be a known region, "aws" need not."""
    facts = read_facts(FACILITIES, folder)
    for fact in facts:
        if ":" in fact["facility"]:
            _check_zone(FACILITIES, fact["facility"], folder)
    return facts


def _check_zone(table: Table, id_: str, folder: Path) -> None:
    zones = read_zones(folder)
    if id_ not in zones:
        raise InputError(f"{table.file}: unknown zone '{id_}'{did_you_mean(id_, zones)}")


@cache
def _grid_facts() -> dict[str, list[Fact]]:
    facts: dict[str, list[Fact]] = {}
    for fact in check_grids():
        facts.setdefault(fact["zone"], []).append(fact)
    return facts


def _preferred(id_: str, quantity: str) -> Fact | None:
    """A place's own fact, by the first method that it has."""
    found = [fact for fact in _grid_facts().get(id_, ()) if fact["quantity"] == quantity]
    return min(found, key=lambda fact: METHODS[quantity].index(fact["method"]), default=None)


def _intensity(id_: str) -> Fact | None:
    return _preferred(id_, INTENSITY)


def _market(zone: Zone, grid: Sourced) -> Sourced | None:
    """Intensity after the operator's carbon-free share."""
    share = _preferred(zone.id, SHARE)
    if share is None:
        return None
    rest = 1 - share.number.value
    source = (
        f"{grid.source}; times the share not carbon-free, {rest:.2f} "
        f"({share['method']} matching, {share.number.source})"
    )
    return Sourced(
        grid.value * rest, grid.low * rest, grid.high * rest, source, share.number.as_of, "derived"
    )


@cache
def _water() -> dict[str, Fact]:
    return {fact["zone"]: fact for fact in check_water()}


def _nearest_water(zone: Zone) -> Fact | None:
    return next((_water()[place.id] for place in lineage(zone) if place.id in _water()), None)


@cache
def _facilities() -> dict[tuple[str, str], Fact]:
    """(facility, quantity) -> the latest fact."""
    facts = sorted(check_facilities(), key=lambda fact: fact.number.as_of)
    return {(fact["facility"], fact["quantity"]): fact for fact in facts}


def _facility(name: str, quantity: str) -> Fact | None:
    return _facilities().get((name, quantity))


def _operator(name: str) -> str:
    known = {facility for facility, _ in _facilities()}
    if fold(name) not in known:
        near = did_you_mean(name, known)
        raise InputError(f"unknown operator '{name}'{near}; known: unknown, hyperscale, hpc, aws, gcp")
    return fold(name)


def _at_site(zone: Zone, quantity: str) -> Fact | None:
    """The site's own figure, else that of its operator's fleet."""
    if zone.kind not in SITES:
        return None
    return _facility(zone.id, quantity) or _facility(zone.provider, quantity)


def _grid_notes(zone: Zone, grid: Zone, priced: Fact) -> tuple[Note, ...]:
    notes: tuple[Note, ...] = ()
    if zone.id != grid.id:
        without = [place.name for place in lineage(zone) if place.kind not in SITES]
        without = without[: without.index(grid.name)] or ["the site itself"]
        text = f"{zone.id} is priced with the grid of {grid.name}: no open figure for {', '.join(without)}"
        notes += (("grid", text, "ask the provider for its own location-based factor"),)
    if priced["method"] == "direct":
        text = f"grid of {grid.name} counts direct emissions only, other regions count the life cycle"
        notes += (("grid", text, "the range reaches up to the life cycle; compare regions of one method"),)
    return notes


def _site_notes(zone: Zone, pue: Fact | None, wue: Fact | None) -> tuple[Note, ...]:
    """Whose data centre figures were taken when the site has none."""
    notes: tuple[Note, ...] = ()
    if zone.kind in SITES and (pue is None or pue["facility"] != zone.id):
        whose = f"the fleet of {pue['facility']}" if pue else "an unknown data centre"
        text = f"no PUE published for {zone.id}: {whose} assumed"
        notes += (("PUE", text, "give the region's PUE if you know it"),)
    if wue is not None and wue["facility"] != zone.id:
        text = f"no on-site water published for {zone.id}: the fleet of {wue['facility']} assumed"
        notes += (("water", text, "ask the provider"),)
    return notes
