"""One contract over every region and data centre; what names mean; every refusal; the source tables."""

import csv
import os
import time
from pathlib import Path

import pytest

from predictor import world
from predictor.errors import InputError
from predictor.facts import DATA, read_facts
from predictor.units import GRAM, KWH
from predictor.values import STATUSES
from predictor.world import (
    default_pue,
    default_wue,
    find_region,
    list_regions,
    region_facts,
)
from predictor.zones import COLUMNS, FILE, KINDS, SITES, find_zone, read_zones

G_PER_KWH = GRAM / KWH
REGIONS = [find_region(id_) for id_ in list_regions()]


# --- the contract over every row ---------------------------------------------------------------------


def test_the_world_is_covered():
    kinds = [region.kind for region in REGIONS]
    assert set(kinds) == set(KINDS)
    assert kinds.count("country") >= 200
    assert kinds.count("state") == 50 + 1  # and the District of Columbia
    assert kinds.count("subregion") == 27  # eGRID
    assert kinds.count("province") == 13 + 30  # Canada, China
    assert kinds.count("zone") >= 9  # SE1 to SE4, NO1 to NO5
    assert kinds.count("cloud") >= 250
    assert kinds.count("world") == 1
    providers = {region.provider for region in REGIONS if region.kind == "cloud"}
    assert {"aws", "azure", "gcp", "oracle", "ovh", "ibm", "alibaba", "coreweave", "lambda"} <= providers


def test_regions_are_listed_by_kind_and_provider():
    assert all(id_.startswith("oracle:") for id_ in list_regions(provider="oracle"))
    assert len(list_regions(provider="oracle")) >= 40
    assert list_regions(kind="world") == ["world"]
    assert list_regions(kind="country", provider="aws") == []


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
        assert (region.pue is not None) == (region.kind in SITES), region.id
        if region.pue:
            assert 1 < region.pue.low <= region.pue.value <= region.pue.high < 2, region.id
        if region.wue_l_per_j:
            assert 0 <= region.wue_l_per_j.low * KWH <= region.wue_l_per_j.high * KWH < 6, region.id


def test_a_cloud_region_says_whose_grid_it_takes():
    for region in REGIONS:
        grids = [
            text for topic, text, _ in region.notes if topic == "grid" and "priced with the grid of" in text
        ]
        assert len(grids) == (region.grid != region.id), region.id
        assert region.kind not in SITES or grids, region.id


def test_no_country_borrows_a_figure():
    for region in REGIONS:
        if region.kind in ("world", "country", "state", "subregion", "province"):
            assert region.grid == region.id, region.id
        assert region.id == "world" or region.grid != "world", region.id


def test_an_area_without_an_open_figure_takes_its_country_and_says_so():
    """Only Electricity Maps has figures of Australian states and Indian grids; they are not open."""
    sydney = find_region("aws:ap-southeast-2")
    assert sydney.grid == "au"
    assert sydney.kgco2e_per_j == find_region("australia").kgco2e_per_j
    assert any("no open figure for New South Wales" in text for _, text, _ in sydney.notes)
    area = find_region("in-south")
    assert area.kgco2e_per_j == find_region("india").kgco2e_per_j
    assert any("priced with the grid of India" in text for _, text, _ in area.notes)


def test_life_cycle_and_direct_are_facts_of_their_own():
    quebec = find_region("quebec")
    figures = {fact["method"]: fact.number.value / G_PER_KWH for fact in region_facts(quebec)[:2]}
    assert figures == {"life-cycle": pytest.approx(27.4), "direct": pytest.approx(1)}
    assert quebec.method == "life-cycle"
    assert find_region("us").method == "life-cycle"
    assert find_region("beijing").method == "direct"


def test_every_fact_of_a_region_is_found():
    names = {fact["quantity"] for fact in region_facts(find_region("gcp:us-central1"))}
    assert names == {"carbon intensity", "carbon-free share", "water of generation", "PUE", "WUE"}


def test_ids_and_aliases_are_lower_case():
    for zone in read_zones().values():
        for name in (zone.id, *zone.aliases):
            assert name == name.casefold(), zone.id
            assert " " not in name, zone.id


def test_zones_are_explained():
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    section = readme.split(f"## {FILE}")[1].split("\n## ")[0]
    assert all(f"`{column}`" in section for column in COLUMNS)
    assert all(kind in section for kind in KINDS)


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
        ("jiangsu", "cn-js"),
        ("SE3", "se-se3"),
        ("us-phoenix-1", "oracle:us-phoenix-1"),
        ("oci:eu-frankfurt-1", "oracle:eu-frankfurt-1"),
        ("us-south", "ibm:us-south"),
        ("cn-hangzhou", "alibaba:cn-hangzhou"),
        ("lumi", "hpc:lumi"),
        ("fr-par", "scaleway:fr-par"),
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
        ("aws:eu-north-1", "se-se3"),
        ("azure:norwayeast", "no1"),
        ("aws:cn-northwest-1", "ningxia"),
        ("oracle:us-ashburn-1", "us-srvc"),
        ("coreweave:us-east-06", "us-rfcw"),
        ("hpc:frontier", "us-srtv"),
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
    assert stockholm.kgco2e_per_j == find_region("se3").kgco2e_per_j
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


def copied(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).write_text((DATA / file).read_text(encoding="utf-8"), encoding="utf-8")
    return folder


def edited(folder: Path, file: str, old: str, new: str) -> Path:
    text = (DATA / file).read_text(encoding="utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("hpc:lumi,LUMI (CSC),hpc,fi,", "hpc:lumi,LUMI (CSC),hpc,,",
         "hpc:lumi: no grid zone: parent is empty"),
        ("aws:us-east-1,AWS US East (N. Virginia),cloud,us-srvc", "aws:us-east-1,x,cloud,us-srvx",
         r"aws:us-east-1: unknown grid zone 'us-srvx'; did you mean 'us-srvc'"),
        ("se-se1,Sweden SE1 (Northern Sweden),zone,se", "se-se1,x,zone,swe", "se-se1: unknown parent 'swe'"),
        ("se-se1,Sweden SE1 (Northern Sweden),zone,se", "se-se1,x,zone,se-se1", "lies in itself"),
        ("fr,France,country,", "fr,France,country,world", "fr: a country takes no figures from elsewhere"),
        ("fr,France,country,", "fr,France,land,", "fr: kind is 'land', accepted: world, country"),
        ("fr,France,country,", "FR,France,country,", "FR: id and name are needed, the id in lower case"),
        ("fr,France,country,", "de,France,country,", "de: the same id twice"),
        ("hpc:lumi,LUMI (CSC),hpc,fi", "hpc:lumi,LUMI (CSC),hpc,aws:us-east-1", "'aws:us-east-1' is a site"),
        ("hpc:lumi,LUMI (CSC),hpc,fi,lumi,hpc", "hpc:lumi,LUMI (CSC),hpc,fi,lumi,", "has a provider"),
        ("site of the centre,facts,from memory", "site of the centre,,from memory", "licence is missing"),
        ("site of the centre,facts,from memory", ",facts,from memory", "source is missing"),
        ("site of the centre,facts,from memory", "site of the centre,facts,", "status is '', accepted"),
    ],
)  # fmt: skip
def test_a_faulty_place_is_refused_with_file_row_and_rule(tmp_path, old, new, message):
    with pytest.raises(InputError, match=message) as refusal:
        read_zones(edited(tmp_path, FILE, old, new))
    assert str(refusal.value).startswith("zones.csv: ")


@pytest.mark.parametrize(
    ("check", "file", "old", "new", "message"),
    [
        (world.check_grids, "grids.csv", "\nfr,", "\nfrx,", "grids.csv: unknown zone 'frx'"),
        (world.check_grids, "grids.csv", "\nfr,carbon intensity,life-cycle,location",
         "\nfr,carbon intensity,both,location", "method is 'both', accepted: life-cycle, direct"),
        (world.check_grids, "grids.csv", "\nfr,carbon intensity,life-cycle,location",
         "\nfr,carbon intensity,life-cycle,market", "basis is 'market', accepted: location"),
        (world.check_grids, "grids.csv", "\nfr,carbon intensity,life-cycle,location,41.44",
         "\nfr,carbon intensity,life-cycle,location,-41.44", "a negative figure is impossible"),
        (world.check_water, "water.csv", "\nfr,", "\nfrx,", "water.csv: unknown zone 'frx'"),
        (world.check_facilities, "facilities.csv", "aws:us-east-1,", "aws:us-east-9,",
         "facilities.csv: unknown zone 'aws:us-east-9'; did you mean 'aws:us-east-2' or 'aws:us-east-1'"),
        (world.check_facilities, "facilities.csv", "unknown,PUE,1.4,1.1", "unknown,PUE,1.4,0.9",
         "0.9 to 1.7 is impossible for 'PUE'"),
    ],
)  # fmt: skip
def test_a_figure_of_no_place_or_method_is_refused(tmp_path, check, file, old, new, message):
    copied(tmp_path, FILE)
    with pytest.raises(InputError, match=message):
        check(edited(tmp_path, file, old, new))


# --- data centres ------------------------------------------------------------------------------------


def test_pue_defaults():
    unknown, hyperscale = default_pue(), default_pue("hyperscale")
    assert (unknown.low, unknown.value, unknown.high, unknown.status) == (1.1, 1.4, 1.7, "estimate")
    assert (hyperscale.low, hyperscale.value, hyperscale.high) == (1.08, 1.10, 1.12)
    assert default_wue("hpc") is None


def test_the_latest_year_counts():
    """Amazon's fleet: 0.18 l/kWh in 2023, 0.15 in 2024, 0.12 in 2025; PUE 1.15 in 2023 and 2024."""
    assert default_wue("aws").value == pytest.approx(0.12 / KWH)
    assert (default_pue("aws").value, default_pue("aws").as_of) == (1.15, "2024")
    survey = [f.number.as_of for f in read_facts(world.FACILITIES) if f["facility"] == "survey"]
    assert default_pue("survey").as_of == max(survey)


@pytest.mark.parametrize(
    "fact", read_facts(world.FACILITIES), ids=lambda f: "-".join((*f.keys.values(), f.number.as_of))
)
def test_every_data_centre_keeps_the_contract(fact):
    if fact["quantity"] == "PUE":
        assert 1 < fact.number.low <= fact.number.high < 2
    if ":" in fact["facility"]:
        region = find_region(fact["facility"])
        assert fact.number == (region.pue if fact["quantity"] == "PUE" else region.wue_l_per_j)


def test_a_site_without_any_figure_has_that_of_an_unknown_data_centre():
    site = find_region("coreweave:us-east-04")
    assert site.pue == default_pue()
    assert site.wue_l_per_j is None
    assert any("an unknown data centre assumed" in text for _, text, _ in site.notes)
    assert find_region("hpc:juwels").pue == default_pue("hpc")
    assert find_region("kestrel").pue.value == 1.036  # NREL, annualised


def test_water_of_a_fleet_is_told():
    iowa = find_region("gcp:us-central1")
    assert iowa.wue_l_per_j == default_wue("gcp")
    assert any("no on-site water published" in text for _, text, _ in iowa.notes)


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
    ("table", "prefix", "key", "column", "method"),
    [
        ("grid/countries.csv", "", "iso2", "g_co2e_per_kwh", "life-cycle"),
        ("grid/us_states_egrid2023.csv", "us-", "code", "g_co2e_per_kwh", "direct"),
        ("grid/us_egrid_subregions_2022.csv", "us-", "subregion", "g_co2e_per_kwh", "direct"),
        ("grid/canada_provinces.csv", "ca-", "province", "mix2023_lifecycle_g_per_kwh", "life-cycle"),
        ("grid/canada_provinces.csv", "ca-", "province", "nir_direct_g_per_kwh", "direct"),
        ("grid/china_provinces_2023.csv", "", "code", "g_co2_per_kwh", "direct"),
        ("grid/nordic_bidding_zones.csv", "", "zone", "g_co2e_per_kwh", "life-cycle"),
    ],
)
def test_every_intensity_is_the_one_of_its_source_table(carbon, table, prefix, key, column, method):
    for row in carbon(table):
        name = prefix + row[key]
        if name == "us-usa" or ("nordic" in table and name == "FI"):  # a country among its parts
            continue
        zone = find_zone("us" if name == "us-US" else name)
        (fact,) = [f for f in read_facts(world.GRIDS) if (f["zone"], f["method"]) == (zone.id, method)]
        assert fact.number.value / G_PER_KWH == pytest.approx(float(row[column])), name


@pytest.mark.soak
def test_every_cloud_region_of_the_source_is_shipped(carbon):
    rows = [
        row for row in carbon("grid/cloud_regions.csv") if row["provider"] in ("aws", "azure", "gcp", "ovh")
    ]
    for row in rows:
        region = find_region(f"{row['provider']}:{row['region']}")
        if region.grid == row["country"].casefold():
            assert region.kgco2e_per_j.value / G_PER_KWH == pytest.approx(float(row["country_g_per_kwh"])), (
                region.id
            )
        else:
            assert region.grid.startswith((row["country"] or "us").casefold() + "-"), region.id


@pytest.mark.soak
def test_every_pue_of_a_region_is_the_one_of_the_source_table(carbon):
    clouds = ("aws", "azure", "gcp")
    ours = {
        (fact["facility"], fact["quantity"]): fact.number.value
        for fact in read_facts(world.FACILITIES)
        if fact["facility"].startswith(tuple(f"{cloud}:" for cloud in clouds))
    }
    theirs = {}
    for row in carbon("datacentre/cloud_region_pue_wue.csv"):
        if row["pue"]:  # the others repeat the fleet's water
            theirs[f"{row['provider']}:{row['region']}", "PUE"] = float(row["pue"])
            if row["wue_l_per_kwh"]:
                theirs[f"{row['provider']}:{row['region']}", "WUE"] = float(row["wue_l_per_kwh"]) / KWH
    assert ours == pytest.approx(theirs)


@pytest.mark.soak
def test_every_water_figure_is_the_one_of_its_source_table(carbon):
    litres = {row["iso3"]: float(row["l_per_kwh"]) for row in carbon("water/offsite_by_country.csv")}
    for row in carbon("grid/countries.csv"):
        assert find_region(row["iso2"]).water_l_per_j.value * KWH == pytest.approx(litres[row["iso3"]]), row[
            "iso2"
        ]
