"""``predictor regions list|show``: grids, cloud regions and computing centres, with every value's source."""

from typing import TYPE_CHECKING, Annotated

import typer

from predictor.cli.catalog import FIND, Name, Part, catalog_app, holds, written
from predictor.cli.guard import guarded
from predictor.cli.options import PlainForm, Verbose
from predictor.cli.output import choose_form, deliver
from predictor.cli.tables import Facts, figure, in_unit, lists, shown
from predictor.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from predictor.facts import Fact
    from predictor.world import Region

_FORMS = ("table", "json")
_NAME_OF = {
    "carbon intensity": "grid carbon, location-based, {method}",
    "carbon-free share": "carbon-free share of the operator, {method}",
    "water of generation": "water of generation",
    "PUE": "PUE",
    "WUE": "water on site",
}

app = catalog_app(
    "List and show grids, cloud regions and computing centres.\n\n"
    "Without a command: NAME shows one or lists those that hold it; no NAME lists all."
)


@app.command("list")
@guarded
def list_(
    part: Part = None,
    *,
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only those of this cloud: aws, gcp, oracle.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Only countries, states, ..: country, state, cloud, hpc."),
    ] = None,
    form: PlainForm = None,
    verbose: Verbose = False,
) -> None:
    """List countries, states, provinces, bidding zones, cloud regions and computing centres."""
    from predictor.world import list_regions
    from predictor.zones import KINDS, read_zones

    form = choose_form(form, None, _FORMS)
    clouds = {zone.provider for zone in read_zones().values() if zone.kind == "cloud"}
    for option, given, known in (("--kind", kind, set(KINDS)), ("--provider", provider, clouds)):
        if given is not None and given not in {*known, "hpc"}:
            near = did_you_mean(given, known)
            raise InputError(f"{option} is '{given}', accepted: {', '.join(sorted(known))}{near}")
    _list(part, list_regions(kind, provider), form)


@app.command()
@guarded
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Id, alias or full name.")],
    *,
    form: PlainForm = None,
    verbose: Verbose = False,
) -> None:
    """Show one: carbon by method and basis, PUE, water and prices, with range, date, status and source."""
    from predictor.world import find_region

    deliver(shown(_region(find_region(name)), choose_form(form, None, _FORMS)))


@app.command(FIND, hidden=True)
@guarded
def find(name: Name = None, *, form: PlainForm = None, verbose: Verbose = False) -> None:
    """Show NAME, or list those that hold it, or all."""
    from predictor.world import find_region, list_regions

    form = choose_form(form, None, _FORMS)
    if name is None:
        return _list(None, list_regions(), form)
    try:
        deliver(shown(_region(find_region(name)), form))
    except InputError as refusal:
        _list(name, list_regions(), form, refusal)


def _list(part: str | None, ids: list[str], form: str, refusal: InputError | None = None) -> None:
    """Print the regions whose names hold ``part``; ``refusal``, or a plain one, when there is none."""
    from predictor.world import find_region
    from predictor.zones import near_zones, read_zones

    zones = read_zones()
    found = [id_ for id_ in ids if part is None or holds(part, id_, zones[id_].name, *zones[id_].aliases)]
    if not found:
        near = near_zones(part) if part else ""
        raise refusal or InputError(f"nothing in the list fits{near}\nall: predictor regions list")
    deliver(lists({"regions": [_region_row(find_region(id_)) for id_ in found]}, form))


def _region_row(region: "Region") -> Facts:
    return {
        "id": region.id,
        "name": region.name,
        "kind": region.kind,
        "provider": region.provider or None,
        "grid": region.grid,
        "gco2e_per_kwh": in_unit(region.kgco2e_per_j, "gCO2e/kWh"),
        "method": region.method,
        "pue": in_unit(region.pue, ""),
        "year": region.kgco2e_per_j.as_of,
    }


def _region(region: "Region") -> Facts:
    from predictor.rent import count_offers
    from predictor.world import region_facts
    from predictor.zones import read_zones

    zone, facts = read_zones()[region.id], region_facts(region)
    figures = [figure(_named(fact, region), fact.number, fact.unit) for fact in facts]
    if region.market_kgco2e_per_j:
        figures.append(figure("grid carbon, market-based", region.market_kgco2e_per_j, "gCO2e/kWh"))
    offers = count_offers(zone.provider, region.id.partition(":")[2]) if zone.provider else 0
    return {
        "id": region.id,
        "name": region.name,
        "kind": region.kind,
        "aliases": list(zone.aliases),
        "provider": zone.provider or None,
        "location": zone.location or None,
        "location_source": f"{zone.source} ({zone.status})",
        "priced_with_grid": region.grid,
        "method": region.method,
        "prices_of_accelerators": offers,
        "licences": sorted({fact.licence for fact in facts}),
        "figures": figures,
        "notes": written(region.notes),
    }


def _named(fact: "Fact", region: "Region") -> str:
    """What the figure is, and of which place or fleet when it is not of the region itself."""
    name = _NAME_OF[fact["quantity"]].format_map(fact.keys)
    subject = next(iter(fact.keys.values()))
    return name if subject == region.id else f"{name}, of {subject}"
