"""``predictor regions``: what is listed and shown, and what is refused."""

import json

import pytest

from predictor.facts import DATA
from predictor.world import find_region, list_regions
from predictor.zones import KINDS


@pytest.fixture
def regions(predictor):
    """Run ``predictor regions``: exit code, stdout, stderr."""
    return lambda *arguments: predictor("regions", *arguments)


def listed(answer: tuple[int, str, str]) -> list[str]:
    assert answer[0] == 0
    return [row["id"] for row in json.loads(answer[1])["regions"]]


@pytest.mark.parametrize("arguments", [(), ("list",)])
def test_all_are_listed(regions, arguments):
    assert listed(regions(*arguments, "--format", "json")) == list_regions()


def test_a_list_is_narrowed(regions):
    form = ("--format", "json")
    assert listed(regions("list", "--provider", "oracle", *form)) == list_regions(provider="oracle")
    assert listed(regions("list", "--kind", "province", *form)) == list_regions(kind="province")
    virginia = listed(regions("list", "virginia", "--provider", "aws", *form))
    assert virginia == ["aws:us-east-1"]
    assert "azure:francecentral" in listed(regions("franc", *form))


def test_one_is_shown_with_every_source(regions):
    code, text, _ = regions("show", "quebec")
    assert code == 0
    for figure in ("location-based, life-cycle", "location-based, direct", "water of generation, of ca"):
        assert figure in text
    assert "IPCC AR5" in text
    assert "National Inventory Report" in text
    assert regions("quebec")[1] == text


def test_a_cloud_region_shows_market_pue_and_prices(regions):
    shown = json.loads(regions("show", "gcp:europe-west4", "--format", "json")[1])
    figures = {figure["name"]: figure for figure in shown["figures"]}
    region = find_region("gcp:europe-west4")
    assert figures["PUE"]["value"] == pytest.approx(region.pue.value)
    assert figures["carbon-free share of the operator, hourly"]["value"] == 0.83
    location = figures["grid carbon, location-based, life-cycle, of nl"]["value"]
    assert figures["grid carbon, market-based"]["value"] == pytest.approx(0.17 * location, rel=1e-4)
    assert all(figure["source"] and figure["as_of"] for figure in shown["figures"])
    assert shown["priced_with_grid"] == "nl"
    rows = (DATA / "prices.csv").read_text(encoding="utf-8").splitlines()
    offers = [row for row in rows if ",gcp," in row and ",europe-west4,," in row]
    assert shown["prices_of_accelerators"] == len(offers) > 0
    assert "CC BY 4.0" in shown["licences"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "germani"), "error: unknown region 'germani'; did you mean 'germany'"),
        (("germannnnn",), "error: unknown region 'germannnnn'"),
        (("show", "Georgia"), "error: region 'Georgia' may be 'ge' (Georgia) or 'us-ga'"),
        (("list", "atlantis"), "error: nothing in the list fits"),
        (("list", "--kind", "clod"), "error: --kind is 'clod', accepted: area, cloud, country"),
        (("list", "--provider", "awz"), "did you mean 'aws'"),
        (("show", "eu"), "error: unknown region 'eu': a group of countries; name one\n"),
        (("show", "Europe"), "error: unknown region 'Europe': a group of countries; name one\n"),
        (("show", "xx"), "error: unknown region 'xx'\n"),
        (("show", "fr", "--format", "html"), "error: --format is 'html', accepted: table, json"),
    ],
)
def test_refusals(regions, arguments, message):
    code, out, err = regions(*arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_every_kind_is_told(regions):
    _, _, err = regions("list", "--kind", "nothing")
    assert all(kind in err for kind in KINDS)


def test_computing_centres_are_no_cloud_but_found_when_asked(regions):
    _, _, err = regions("list", "--provider", "hp")
    assert "hpc" not in err
    assert listed(regions("list", "--provider", "hpc", "--format", "json")) == list_regions(kind="hpc")
