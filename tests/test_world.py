"""One contract over every region, PUE and price; what names mean; licences; every refusal."""

import csv
import os
import time
from pathlib import Path

import pytest

from predictor import world
from predictor.errors import InputError
from predictor.profile import list_profiles
from predictor.units import GRAM, HOUR, KWH
from predictor.values import STATUSES
from predictor.world import (
    COLUMNS,
    GRIDS,
    PRICES,
    PUE,
    default_pue,
    default_wue,
    find_price,
    find_region,
    list_regions,
    ranged,
    read_rows,
)

G_PER_KWH = GRAM / KWH
REGIONS = [find_region(id_) for id_ in list_regions()]


# --- the contract over every row ---------------------------------------------------------------------


def test_the_world_is_covered():
    kinds = [region.kind for region in REGIONS]
    assert kinds.count("country") > 200
    assert kinds.count("state") >= 50 + 1 + 27 + 13  # states, DC, eGRID subregions, Canadian provinces
    assert kinds.count("cloud") > 140
    assert kinds.count("world") == 1
    assert {region.id.split(":")[0] for region in REGIONS if region.kind == "cloud"} == {
        "aws",
        "azure",
        "gcp",
        "ovh",
    }


def test_every_intensity_has_source_date_and_range():
    for region in REGIONS:
        grid = region.kgco2e_per_j
        assert grid.source, region.id
        assert grid.as_of.isdigit(), region.id
        assert grid.status in STATUSES, region.id
        assert 5 < grid.low / G_PER_KWH < grid.value / G_PER_KWH < grid.high / G_PER_KWH < 2500, region.id
        assert region.method in ("life-cycle", "direct"), region.id


def test_no_intensity_is_narrower_than_ten_percent():
    for region in REGIONS:
        grid = region.kgco2e_per_j
        assert grid.low <= 0.901 * grid.value, region.id
        assert grid.high >= 1.099 * grid.value, region.id


def test_direct_figures_reach_up_to_the_life_cycle():
    """Gas adds most: 490 life cycle over 370 direct (IPCC AR5)."""
    for region in REGIONS:
        if region.method == "direct":
            assert region.kgco2e_per_j.high > 490 / 370 * region.kgco2e_per_j.value, region.id
            assert any("direct emissions only" in text for _, text, _ in region.notes), region.id


def test_market_based_is_never_above_location_based():
    for region in REGIONS:
        market = region.market_kgco2e_per_j
        if market is not None:
            assert region.kind == "cloud", region.id
            assert 0 <= market.low <= market.value <= region.kgco2e_per_j.value, region.id


def test_water_and_pue_are_plausible():
    for region in REGIONS:
        assert 0.5 < region.water_l_per_j.low * KWH < region.water_l_per_j.high * KWH < 40, region.id
        assert (region.pue is not None) == (region.kind == "cloud"), region.id
        if region.pue:
            assert 1 < region.pue.low <= region.pue.value <= region.pue.high < 2, region.id
        if region.wue_l_per_j:
            assert 0 <= region.wue_l_per_j.low * KWH <= region.wue_l_per_j.high * KWH < 6, region.id


def test_a_cloud_region_says_whose_grid_it_takes():
    for region in REGIONS:
        grids = [
            text for topic, text, _ in region.notes if topic == "grid" and "priced with the grid of" in text
        ]
        assert len(grids) == (region.kind == "cloud"), region.id


def test_nothing_comes_from_electricity_maps():
    for path in (GRIDS, PUE, PRICES):
        assert "electricity" + "maps" not in path.read_text(encoding="utf-8").casefold().replace(" ", "")


def test_licences_and_attribution_are_given():
    readme = (world.DATA / "README.md").read_text(encoding="utf-8")
    assert "Data by Ember" in readme
    assert "CC BY 4.0" in GRIDS.read_text(encoding="utf-8").split("\nid,")[0]
    for path in (GRIDS, PUE, PRICES):
        section = readme.split(f"## {path.name}")[1].split("\n## ")[0]
        assert all(f"`{column}`" in section for column in COLUMNS[path.name].split()), path.name


def test_ids_are_unique_and_lower_case():
    ids = [row["id"] for row in read_rows(GRIDS)]
    assert len(ids) == len(set(ids))
    assert all(id_ == id_.casefold() and " " not in id_ for id_ in ids)


# --- what names mean ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "id_"),
    [
        ("france", "fr"),
        ("FR", "fr"),
        ("United Kingdom", "gb"),
        ("uk", "gb"),
        ("usa", "us"),
        ("california", "us-ca"),
        ("us-ca", "us-ca"),
        ("US_CA", "us-ca"),
        ("new york", "us-ny"),
        ("quebec", "ca-qc"),
        ("ca", "ca"),
        ("aws:us-east-1", "aws:us-east-1"),
        ("us-east-1", "aws:us-east-1"),
        ("us-east1", "gcp:us-east1"),
        ("gcp:europe-west4", "gcp:europe-west4"),
        ("swedencentral", "azure:swedencentral"),
        ("world", "world"),
    ],
)
def test_names_people_type(name, id_):
    assert find_region(name).id == id_


def test_france_is_cleaner_than_poland():
    assert find_region("france").kgco2e_per_j.high < find_region("poland").kgco2e_per_j.low


def test_figures_keep_their_unit():
    assert find_region("france").kgco2e_per_j.value == pytest.approx(41.44 * G_PER_KWH)
    assert find_region("germany").water_l_per_j.value == pytest.approx(1.947 / KWH)


@pytest.mark.parametrize(
    ("cloud", "parent"),
    [
        ("aws:eu-west-3", "france"),
        ("gcp:europe-west4", "netherlands"),
        ("aws:us-west-1", "us-camx"),
        ("gcp:us-central2", "us-spso"),
        ("aws:ca-central-1", "quebec"),
    ],
)
def test_cloud_regions_take_the_grid_of_their_site(cloud, parent):
    assert find_region(cloud).kgco2e_per_j == find_region(parent).kgco2e_per_j


def test_canadian_provinces_differ_as_their_power_stations_do():
    quebec, alberta = find_region("quebec"), find_region("alberta")
    assert quebec.kgco2e_per_j.high < alberta.kgco2e_per_j.low / 5


def test_a_country_without_water_data_has_a_wide_range():
    water = find_region("aruba").water_l_per_j
    assert water.high / water.low > 8


def test_certificates_change_the_market_figure_only():
    stockholm = find_region("aws:eu-north-1")
    assert stockholm.market_kgco2e_per_j.value == 0
    assert stockholm.kgco2e_per_j == find_region("sweden").kgco2e_per_j
    eemshaven = find_region("gcp:europe-west4")
    assert eemshaven.market_kgco2e_per_j.value == pytest.approx((1 - 0.83) * eemshaven.kgco2e_per_j.value)


def test_fleet_pue_is_told_when_the_region_has_none():
    london = find_region("aws:eu-west-2")
    assert london.pue.value == 1.15
    assert "PUE" in [topic for topic, _, _ in london.notes]
    assert "PUE" not in [topic for topic, _, _ in find_region("aws:us-east-1").notes]


def test_looking_up_is_fast():
    find_region("france")
    start = time.perf_counter()
    for id_ in list_regions():
        find_region(id_)
    assert time.perf_counter() - start < 0.2


# --- refusals ----------------------------------------------------------------------------------------


def test_an_unknown_region_stops_and_never_becomes_the_world():
    for name in ("atlantis", "", "us-east-9", "aws:", "xx"):
        with pytest.raises(InputError, match="unknown region"):
            find_region(name)


def test_an_unknown_region_lists_near_ones():
    with pytest.raises(InputError, match="did you mean 'germany'"):
        find_region("germani")


def test_a_name_of_two_places_is_refused():
    with pytest.raises(
        InputError, match=r"'ge' \(Georgia\) or 'us-ga' \(Georgia \(US state\)\); write its id"
    ):
        find_region("Georgia")
    assert find_region("us-ga").kind == "state"


def test_an_unknown_operator_is_refused():
    with pytest.raises(InputError, match="unknown operator 'gogle'"):
        default_pue("gogle")


GRID = ("gco2e_per_kwh", "low", "high")
ROW = {"id": "xx", "low": "40", "high": "60", "gco2e_per_kwh": "50", "method": "direct", "year": "2025"} | {
    "source": "somewhere",
    "status": "verified",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": "55"}, "low 55.0 <= gco2e_per_kwh 50.0 <= high 60.0 does not hold"),
        ({"high": "45"}, "does not hold"),
        ({"low": "-1"}, "does not hold"),
        ({"low": "nan"}, "does not hold"),
        ({"low": ""}, "gco2e_per_kwh '50', low '', high '60': all three must be numbers"),
        ({"gco2e_per_kwh": "fifty"}, "gco2e_per_kwh 'fifty'"),
        ({"source": ""}, "gco2e_per_kwh needs a source"),
        ({"status": "sure"}, "a status out of verified"),
        ({"method": "both"}, "method is 'both', accepted: life-cycle, direct"),
    ],
)
def test_a_faulty_row_is_refused_with_file_and_column(change, message):
    assert ranged(ROW, GRID, "gCO2e/kWh", GRIDS).value == 50 * G_PER_KWH
    with pytest.raises(InputError, match=message) as refusal:
        ranged(ROW | change, GRID, "gCO2e/kWh", GRIDS)
    assert str(refusal.value).startswith("grids.csv: xx: ")


@pytest.mark.parametrize("name", COLUMNS)
def test_an_unknown_column_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_text(",".join(COLUMNS[name].split()[:-1]) + ",colour\n")
    with pytest.raises(InputError, match=f"{name}: columns differ in colour, status"):
        read_rows(path)


# --- data centres and prices -------------------------------------------------------------------------


def test_pue_defaults():
    unknown, hyperscale = default_pue(), default_pue("hyperscale")
    assert (unknown.low, unknown.value, unknown.high, unknown.status) == (1.1, 1.4, 1.7, "estimate")
    assert (hyperscale.low, hyperscale.value, hyperscale.high) == (1.08, 1.10, 1.12)
    assert default_wue("aws").value == pytest.approx(0.15 / KWH)
    assert default_wue("hpc") is None


@pytest.mark.parametrize("row", read_rows(PUE), ids=lambda row: row["id"])
def test_every_data_centre_row_keeps_the_contract(row):
    pue = ranged(row, ("pue", "pue_low", "pue_high"), "", PUE)
    assert 1 < pue.low <= pue.value <= pue.high < 2
    assert row["kind"] in ("region", "operator", "default")
    if row["kind"] == "region":
        assert find_region(row["id"]).pue == pue


@pytest.mark.parametrize("row", read_rows(PRICES), ids=lambda row: "-".join(list(row.values())[:3]))
def test_every_price_keeps_the_contract(row):
    price = ranged(row, ("usd_per_accelerator_h", "low", "high"), "USD/h", PRICES)
    assert row["accelerator"] in list_profiles()
    assert row["tier"] in ("on-demand", "spot", "reserved")
    assert 0.1 < price.low * HOUR <= price.high * HOUR < 30
    assert price.as_of >= "2024"


def test_prices_are_given_once():
    keys = [(row["accelerator"], row["provider"], row["tier"]) for row in read_rows(PRICES)]
    assert len(keys) == len(set(keys))


def test_price_is_the_middle_of_the_offers():
    price = find_price("nvidia-h100-sxm5-80gb")
    assert 2 < price.value * HOUR < 8
    assert price.low * HOUR == pytest.approx(1.99)
    assert price.high * HOUR > 10


def test_price_of_one_provider():
    price = find_price("nvidia-h100-sxm5-80gb", "aws")
    assert price.low * HOUR == pytest.approx(6.88)
    assert price.source.startswith("SkyPilot")
    assert find_price("nvidia-h100-sxm5-80gb", "aws", "spot").value < price.value


def test_no_offer_is_no_price():
    assert find_price("nvidia-rtx-3090") is None
    assert find_price("nvidia-h100-sxm5-80gb", "nobody") is None


# --- against the tables the figures were taken from --------------------------------------------------


@pytest.fixture(scope="module")
def carbon():
    if "PREDICTOR_DATA" not in os.environ:
        pytest.skip("needs PREDICTOR_DATA")
    folder = Path(os.environ["PREDICTOR_DATA"]) / "carbon"

    def read(name: str) -> list[dict[str, str]]:
        with (folder / name).open(newline="", encoding="utf-8") as lines:
            return list(csv.DictReader(lines))

    return read


@pytest.mark.soak
@pytest.mark.parametrize(
    ("table", "prefix", "key", "column"),
    [
        ("grid/countries.csv", "", "iso2", "g_co2e_per_kwh"),
        ("grid/us_states_egrid2023.csv", "us-", "code", "g_co2e_per_kwh"),
        ("grid/us_egrid_subregions_2022.csv", "us-", "subregion", "g_co2e_per_kwh"),
        ("grid/canada_provinces.csv", "ca-", "province", "mix2023_lifecycle_g_per_kwh"),
    ],
)
def test_every_intensity_is_the_one_of_its_source_table(carbon, table, prefix, key, column):
    for row in carbon(table):
        if row[key] not in ("usa", "US") or not prefix:  # the national row of eGRID is not shipped
            value = find_region(prefix + row[key]).kgco2e_per_j.value / G_PER_KWH
            assert value == pytest.approx(float(row[column])), row[key]


@pytest.mark.soak
def test_every_cloud_region_of_the_source_is_shipped(carbon):
    rows = [
        row for row in carbon("grid/cloud_regions.csv") if row["provider"] in ("aws", "azure", "gcp", "ovh")
    ]
    assert len(rows) == sum(region.kind == "cloud" for region in REGIONS)
    for row in rows:
        region = find_region(f"{row['provider']}:{row['region']}")
        if (
            region.method == "life-cycle"
            and not region.name.startswith("AWS Canada")
            and row["country"] != "CA"
        ):
            assert region.kgco2e_per_j.value / G_PER_KWH == pytest.approx(float(row["country_g_per_kwh"])), (
                region.id
            )


@pytest.mark.soak
def test_every_pue_of_a_region_is_the_one_of_the_source_table(carbon):
    source = {f"{r['provider']}:{r['region']}": r for r in carbon("datacentre/cloud_region_pue_wue.csv")}
    regions = [row for row in read_rows(PUE) if row["kind"] == "region"]
    assert len(regions) == sum(bool(row["pue"]) for row in source.values())
    for row in regions:
        assert row["pue"] == source[row["id"]]["pue"]
        assert row["wue_l_per_kwh"] == source[row["id"]]["wue_l_per_kwh"]


@pytest.mark.soak
def test_every_water_figure_is_the_one_of_its_source_table(carbon):
    litres = {row["iso3"]: float(row["l_per_kwh"]) for row in carbon("water/offsite_by_country.csv")}
    for row in carbon("grid/countries.csv"):
        assert find_region(row["iso2"]).water_l_per_j.value * KWH == pytest.approx(litres[row["iso3"]]), row[
            "iso2"
        ]


@pytest.mark.soak
def test_aws_prices_lie_among_those_of_the_source_table(carbon):
    rows = [row for row in carbon("prices/cloud_accelerator_prices.csv") if row["as_of"].startswith("2026")]
    for label, id_ in (("A100-40GB", "nvidia-a100-sxm4-40gb"), ("H100-SXM-80GB", "nvidia-h100-sxm5-80gb")):
        listed = [
            float(row["on_demand_usd_per_accel_h"])
            for row in rows
            if row["cloud"] == "aws" and row["accelerator"] == label and row["on_demand_usd_per_accel_h"]
        ]
        price = find_price(id_, "aws")
        assert price.low * HOUR == pytest.approx(min(listed), rel=1e-3)
        assert price.high * HOUR == pytest.approx(max(listed), rel=1e-3)
