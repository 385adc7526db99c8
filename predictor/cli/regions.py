"""``predictor regions``: countries, states and cloud regions, with every value's source."""

from typing import TYPE_CHECKING

from predictor.cli.catalog import Name, show_or_list, written
from predictor.cli.guard import guarded
from predictor.cli.options import PlainForm, Verbose
from predictor.cli.output import choose_form
from predictor.cli.tables import Facts, figure, in_unit

if TYPE_CHECKING:
    from predictor.world import Region


@guarded
def regions(name: Name = None, *, form: PlainForm = None, verbose: Verbose = False) -> None:
    """List countries, states and cloud regions, or show one.

    NAME is an id, an alias or a full name; carbon, water and PUE come with range, year and source.
    """
    from predictor.world import find_region, list_regions

    form = choose_form(form, None, ("table", "json"))
    show_or_list(
        "regions", name, form, list_regions(), find_region, _region_row, _region, lambda r: (r.id, r.name)
    )


def _region_row(region: "Region") -> Facts:
    return {
        "id": region.id,
        "name": region.name,
        "kind": region.kind,
        "gco2e_per_kwh": in_unit(region.kgco2e_per_j, "gCO2e/kWh"),
        "method": region.method,
        "pue": in_unit(region.pue, ""),
        "year": region.kgco2e_per_j.as_of,
    }


def _region(region: "Region") -> Facts:
    figures = (
        ("grid carbon, location-based", region.kgco2e_per_j, "gCO2e/kWh"),
        ("grid carbon, market-based", region.market_kgco2e_per_j, "gCO2e/kWh"),
        ("water of generation", region.water_l_per_j, "l/kWh"),
        ("PUE", region.pue, ""),
        ("water on site", region.wue_l_per_j, "l/kWh"),
    )
    return {
        "id": region.id,
        "name": region.name,
        "kind": region.kind,
        "method": region.method,
        "figures": [figure(name, value, unit) for name, value, unit in figures if value],
        "notes": written(region.notes),
    }
