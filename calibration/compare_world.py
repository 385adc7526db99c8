"""Where the world tables (grids, facilities, water, prices) differ from the tables they were taken from."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from compare_tables import CLOSE, Difference, read_rows

WORLD = Path(__file__).resolve().parents[1] / "predictor" / "data"

Key = tuple[str, ...]
"""File, then what names a row in it."""


def grid_sources(data: Path) -> Iterator[tuple[str, str, str]]:
    """(zone, method, gram CO2e per kWh) of their grid tables, without those we may not ship."""
    grid = data / "carbon" / "grid"
    for row in read_rows(grid / "countries.csv"):
        yield row["iso2"].lower(), "life-cycle", row["g_co2e_per_kwh"]
    for row in read_rows(grid / "us_states_egrid2023.csv"):
        yield f"us-{row['code'].lower()}", "direct", row["g_co2e_per_kwh"]
    for row in read_rows(grid / "us_egrid_subregions_2022.csv"):
        yield f"us-{row['subregion'].lower()}", "direct", row["g_co2e_per_kwh"]
    for row in read_rows(grid / "canada_provinces.csv"):
        yield f"ca-{row['province'].lower()}", "life-cycle", row["mix2023_lifecycle_g_per_kwh"]
        yield f"ca-{row['province'].lower()}", "direct", row["nir_direct_g_per_kwh"]
    for row in read_rows(grid / "china_provinces_2023.csv"):
        yield row["code"].lower(), "direct", row["g_co2_per_kwh"]
    for row in read_rows(grid / "nordic_bidding_zones.csv"):
        yield f"{row['zone'][:2].lower()}-{row['zone'].lower()}", "life-cycle", row["g_co2e_per_kwh"]


def world(data: Path) -> Iterator[Difference]:
    """Shipped grids, facilities, water and prices against their tables; a missing table has no rows."""
    yield from _grids(data)
    yield from _facilities(data)
    yield from _water(data)
    yield from _prices(data)


def _grids(data: Path) -> Iterator[Difference]:
    ours: dict[Key, dict[str, str]] = {
        ("grids.csv", row["zone"], row["method"]): row
        for row in read_rows(WORLD / "grids.csv")
        if row.get("quantity") == "carbon intensity" and row["basis"] == "location"
    }
    whole = {"us-us", "us-usa", "fi-fi"}  # a country told again among its parts
    theirs = grid_sources(data)
    yield from _cells(((("grids.csv", *key), v) for *key, v in theirs if v and key[0] not in whole), ours)


def _facilities(data: Path) -> Iterator[Difference]:
    file = "facilities.csv"
    ours: dict[Key, dict[str, str]] = {
        (file, row["facility"], row["quantity"]): row for row in read_rows(WORLD / file)
    }
    cells: list[tuple[Key, str]] = []
    for row in read_rows(data / "carbon" / "datacentre" / "cloud_region_pue_wue.csv"):
        pue, wue, name = row["pue"], row["wue_l_per_kwh"], f"{row['provider']}:{row['region']}"
        if wue and not pue and (file, name, "WUE") not in ours:
            yield Difference(
                file, f"{name} WUE", "-", wue, "the fleet's, repeated for a region without a PUE"
            )
            continue
        cells += [((file, name, key), value) for key, value in (("PUE", pue), ("WUE", wue)) if value]
    yield from _cells(cells, ours)


def _water(data: Path) -> Iterator[Difference]:
    file, quantity = "water.csv", "water of generation"
    ours: dict[Key, dict[str, str]] = {
        (file, row["zone"], row["quantity"]): row for row in read_rows(WORLD / file)
    }
    iso2 = {row["iso3"]: row["iso2"].lower() for row in read_rows(data / "carbon/grid/countries.csv")}
    theirs = (
        ((file, iso2[row["iso3"]], quantity), row["l_per_kwh"])
        for row in read_rows(data / "carbon" / "water" / "offsite_by_country.csv")
        if row["iso3"] in iso2
    )
    yield from _cells(theirs, ours)


def _cells(theirs: Iterable[tuple[Key, str]], ours: dict[Key, dict[str, str]]) -> Iterator[Difference]:
    """Values by key: what we do not ship, and what is not the same. No row of ours at all says nothing."""
    if not ours:
        return
    for key, value in theirs:
        row, name = ours.get(key), " ".join(key[1:])
        if row is None:
            yield Difference(key[0], name, "-", value)
        elif abs(float(row["value"]) - float(value)) > CLOSE * float(value):
            yield Difference(key[0], name, row["value"], value, row["note"])


def _prices(data: Path) -> Iterator[Difference]:
    """Rows of ``prices.csv`` by provider, instance and region; theirs may hold offers we left out."""
    ours: dict[Key, dict[str, str]] = {}
    for row in read_rows(WORLD / "prices.csv"):
        if row.get("tier") in ("on-demand", "spot") and row["instance"]:
            ours[row["provider"], row["instance"], row["region"], row["tier"]] = row
    for row in read_rows(data / "carbon" / "prices" / "cloud_accelerator_prices.csv"):
        for tier, column in (
            ("on-demand", "on_demand_usd_per_accel_h"),
            ("spot", "spot_min_usd_per_accel_h"),
        ):
            found = ours.get((row["cloud"], row["instance_type"], row["region"], tier))
            if found and row[column] and not found["superseded"]:
                value, low = float(row[column]), float(found["low"] or found["value"])
                if not low * (1 - CLOSE) <= value <= float(found["high"] or low) * (1 + CLOSE):
                    key = f"{row['cloud']} {row['instance_type']} {row['region']} {tier} {row['as_of']}"
                    yield Difference("prices.csv", key, found["value"], row[column], found["note"])
