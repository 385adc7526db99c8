"""Places by name: grids, cloud regions and computing centres, and what each lies in.

Rows live in ``data/zones.csv`` and hold names only; the figures of a place are facts of other tables. An
unknown name stops with near matches: nothing becomes the average of the world.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from predictor.errors import InputError, did_you_mean
from predictor.facts import DATA, Row, check_source, read_rows

FILE = "zones.csv"
COLUMNS = tuple("id name kind parent aliases provider location source licence status note".split())

KINDS = {
    "world": "the whole world",
    "country": "a country",
    "state": "a US state",
    "subregion": "an eGRID subregion of the US",
    "province": "a province of Canada or China",
    "zone": "a bidding zone",
    "area": "a part of a country's grid without an open figure of its own",
    "cloud": "a region of a cloud provider",
    "hpc": "a computing centre",
}
"""Kinds of places; the last two draw from the grid of their parent."""

SITES = ("cloud", "hpc")

GROUPS = frozenset(
    "eu eu27 eu-27 eu28 eu-28 european-union europe africa asia oceania north-america south-america "
    "latin-america middle-east americas apac emea asean oecd g7 g20".split()
)
"""Names of groups of countries: none has one grid."""

# These stand for themselves: a country without a figure is refused, it does not become the world.
WHOLE = ("world", "country")


@dataclass(frozen=True, slots=True)
class Zone:
    """One place.

    parent    id of the place whose figures hold where this one has none; for a site its grid
    aliases   other names; a name of two places is refused
    provider  who runs a site: "aws", "hpc"
    location  city or state of a site
    """

    id: str
    name: str
    kind: str
    parent: str
    aliases: tuple[str, ...]
    provider: str
    location: str
    source: str
    licence: str
    status: str
    note: str


def fold(name: str) -> str:
    """The form in which places are compared; hyphens count: us-east-1 and us-east1 differ."""
    return re.sub(r"[\s_]+", "-", name.strip().casefold())


def find_zone(name: str) -> Zone:
    """The place people mean: "france", "fr", "us-ca", "california", "aws:us-east-1", "us-east-1", "lumi".

    Raises InputError with near matches when there is none, or with the choices when there are several.
    """
    zones, found = read_zones(), _names().get(fold(name), [])
    if not found:
        raise InputError(f"unknown region '{name}'{near_zones(name)}\nknown names: predictor regions list")
    if len(found) > 1:
        choices = " or ".join(f"'{id_}' ({zones[id_].name})" for id_ in found)
        raise InputError(f"region '{name}' may be {choices}; write its id")
    return zones[found[0]]


def near_zones(name: str) -> str:
    """What may be meant by a name that is no place: near names, or that a group of countries is none.

    Two letters are a code of their own: another country's, one letter away, is no typing error.
    """
    folded = fold(name)
    if folded in GROUPS:
        return ": a group of countries; name one"
    return did_you_mean(folded, _names()) if len(folded) > 2 else ""


def lineage(zone: Zone) -> Iterator[Zone]:
    """The place, what it lies in, and so on."""
    zones = read_zones()
    yield zone
    while zone.parent:
        zone = zones[zone.parent]
        yield zone


@cache
def read_zones(folder: Path = DATA) -> dict[str, Zone]:
    """All places by id, in the order of the file; InputError names file, row and rule."""
    zones: dict[str, Zone] = {}
    for line, row in read_rows(folder / FILE, COLUMNS):
        where = f"{FILE}: {row['id'] or f'line {line}'}"
        if row["id"] in zones:
            raise InputError(f"{where}: the same id twice")
        zones[row["id"]] = _zone(where, row)
    for zone in zones.values():
        _check_parent(zone, zones)
    return zones


def _zone(where: str, row: Row) -> Zone:
    """The row, its own rules checked."""
    if row["id"] != fold(row["id"]) or not row["id"] or not row["name"]:
        raise InputError(f"{where}: id and name are needed, the id in lower case without spaces")
    if row["kind"] not in KINDS:
        raise InputError(f"{where}: kind is '{row['kind']}', accepted: {', '.join(KINDS)}")
    if (row["kind"] in SITES) != bool(row["provider"]):
        raise InputError(f"{where}: a cloud region or a computing centre has a provider, nothing else has")
    check_source(where, row)
    return Zone(**{**row, "aliases": tuple(row["aliases"].split())})  # type: ignore[arg-type]


def _check_parent(zone: Zone, zones: dict[str, Zone]) -> None:
    """Every place smaller than a country lies in a known one, and no site in a site."""
    where, parent = f"{FILE}: {zone.id}", zones.get(zone.parent)
    if zone.kind in WHOLE:
        if zone.parent:
            raise InputError(f"{where}: a {zone.kind} takes no figures from elsewhere; leave parent empty")
        return
    if parent is None:
        what = "grid zone" if zone.kind in SITES else "parent"
        found = f"unknown {what} '{zone.parent}'" if zone.parent else f"no {what}: parent is empty"
        raise InputError(f"{where}: {found}{did_you_mean(zone.parent, zones)}")
    if parent.kind in SITES:
        raise InputError(f"{where}: parent '{parent.id}' is a site, give the grid it draws from")
    _check_no_circle(zone, zones)


def _check_no_circle(zone: Zone, zones: dict[str, Zone]) -> None:
    seen = {zone.id}
    above = zones.get(zone.parent)
    while above is not None:
        if above.id in seen:
            raise InputError(f"{FILE}: {zone.id}: lies in itself by way of '{above.id}'")
        seen.add(above.id)
        above = zones.get(above.parent)


@cache
def _names() -> dict[str, list[str]]:
    """Id or alias -> the places it may mean; an id outranks an alias."""
    zones = read_zones()
    names: dict[str, list[str]] = {}
    for zone in zones.values():
        for alias in zone.aliases:
            names.setdefault(alias, []).append(zone.id)
    return names | {id_: [id_] for id_ in zones}
