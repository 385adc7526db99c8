"""Prices: what each offer must say, and what the rent of an accelerator is."""

import csv
import os
from pathlib import Path

import pytest

from predictor import rent
from predictor.errors import InputError
from predictor.facts import DATA
from predictor.profile import list_profiles
from predictor.rent import TIERS, check_prices, count_offers, find_price, list_providers
from predictor.units import HOUR

H100 = "nvidia-h100-sxm5-80gb"
OFFERS = check_prices()


def test_prices_are_many():
    assert len(OFFERS) >= 200
    assert len(list_providers()) >= 10
    assert {"aws", "azure", "gcp", "oracle", "lambda", "runpod"} <= set(list_providers())


def test_every_price_keeps_the_contract():
    profiles = set(list_profiles())
    for fact in OFFERS:
        price, where = fact.number, str(fact.keys)
        assert fact["accelerator"] in profiles, where
        assert fact["tier"] in TIERS, where
        assert 0.03 < price.low * HOUR <= price.high * HOUR < 30, where
        assert price.as_of >= "2024", where
        assert fact["instance"] or fact["provider"].startswith("market-") or fact["region"] == "all", where


def test_a_superseded_price_is_kept_and_not_used():
    """AWS cut its P5 prices in June 2025: p5.48xlarge from 98.32 to 55.04 USD/h."""
    old = [f for f in OFFERS if f["superseded"] and f["instance"] == "p5.48xlarge"]
    assert {round(f.number.value * HOUR * 8, 2) for f in old if f["tier"] == "on-demand"} == {98.32}
    assert find_price(H100, "aws", region="us-east-1").value * HOUR == pytest.approx(55.04 / 8)


def test_price_is_the_middle_of_the_providers():
    price = find_price(H100)
    assert 2 < price.value * HOUR < 8
    each = [found for name in list_providers() if (found := find_price(H100, name))]
    ordered = sorted(offer.value for offer in each)
    middle = len(ordered) // 2
    expected = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    assert price.value == pytest.approx(expected)
    assert price.low == min(offer.low for offer in each)
    assert price.high == max(offer.high for offer in each)
    assert price.status == "derived"


def test_price_of_one_provider():
    price = find_price(H100, "aws")
    assert price.low * HOUR == pytest.approx(6.88)
    assert price.source.startswith("SkyPilot catalogue v8, Apache-2.0")
    assert find_price(H100, "aws", "spot").value < price.value


def test_price_of_one_region():
    """p5.48xlarge asks 68.80 in Tokyo and 55.04 in Virginia (SkyPilot catalogue v8)."""
    tokyo = find_price(H100, "aws", region="ap-northeast-1")
    assert tokyo.value * HOUR == pytest.approx(68.80 / 8)
    assert find_price(H100, "oracle", region="us-phoenix-1").value * HOUR == 10  # the same everywhere
    assert find_price(H100, "aws", region="eu-west-3") is None


def test_a_reservation_is_cheaper_than_on_demand_and_says_for_how_long():
    reserved = [f for f in OFFERS if f["tier"] == "reserved"]
    assert {f["commitment"] for f in reserved} == {"1 year"}
    v100 = "nvidia-v100-sxm2-16gb"
    assert find_price(v100, "aws", "reserved").value < find_price(v100, "aws").value


def test_flex_start_is_not_taken_for_on_demand():
    flex = [f.number.value for f in OFFERS if f["tier"] == "flex-start" and f["accelerator"] == H100]
    assert flex
    assert max(flex) < find_price(H100, "gcp").low


def test_half_boards_are_priced_as_software_sees_them():
    """AWS p2.xlarge has one GK210 for 0.90 USD/h, p2.16xlarge sixteen for 14.40 (Vantage, 2024)."""
    k80 = [f for f in OFFERS if f["instance"] in ("p2.xlarge", "p2.16xlarge") and f["tier"] == "on-demand"]
    assert [round(f.number.value * HOUR, 4) for f in k80] == [0.9, 0.9]


@pytest.mark.parametrize("accelerator", ["intel-gaudi2", "nvidia-rtx-3090", "nvidia-rtx-4090", "nvidia-l40s"])
def test_former_gaps_have_a_price(accelerator):
    assert find_price(accelerator) is not None


def test_no_offer_is_no_price():
    assert find_price("nvidia-rtx-3070") is None
    assert find_price(H100, "intel") is None


def test_an_unknown_provider_is_refused_with_near_ones():
    with pytest.raises(InputError, match=r"no prices of provider 'lamda'; did you mean 'lambda'\?; known: "):
        find_price(H100, "lamda")


def test_an_unknown_tier_is_refused():
    with pytest.raises(InputError, match=r"unknown tier 'spott'; did you mean 'spot'\?; accepted: on-demand"):
        find_price(H100, "aws", "spott")


def test_offers_of_a_region_are_counted():
    assert count_offers("aws", "us-east-1") > 20
    assert count_offers("oracle", "us-phoenix-1") == count_offers("oracle", "anywhere") > 10
    assert count_offers("hetzner", "fsn1") == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",on-demand,", ",on-request,", "tier is 'on-request', accepted: on-demand"),
        (",on-demand,,", ",on-demand,3 years,", "a reserved price says its commitment"),
    ],
)
def test_a_faulty_price_is_refused(tmp_path, old, new, message):
    text = (DATA / rent.PRICES.file).read_text(encoding="utf-8")
    (tmp_path / rent.PRICES.file).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError, match=message) as refusal:
        check_prices(tmp_path)
    assert str(refusal.value).startswith("prices.csv: ")


# --- against the tables the figures were taken from --------------------------------------------------


@pytest.mark.soak
@pytest.mark.skipif("PREDICTOR_DATA" not in os.environ, reason="needs PREDICTOR_DATA")
def test_every_usable_row_of_the_source_table_is_shipped():
    """Each source row is one on-demand fact; host and half-board corrections are the documented ones."""
    path = Path(os.environ["PREDICTOR_DATA"]) / "carbon/prices/cloud_accelerator_prices.csv"
    with path.open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["on_demand_usd_h"]]
    ours: dict[tuple[str, str], list[float]] = {}
    for fact in OFFERS:
        if fact["tier"] in ("on-demand", "flex-start"):
            ours.setdefault((fact["provider"], fact["region"]), []).append(fact.number.value * HOUR)
    host = 9.46 / 8
    for row in rows:
        region = row["region"].replace(" (Vantage default)", "").replace("all 17 regions", "all")
        each = float(row["on_demand_usd_h"]) / float(row["count"])
        asked = ours[row["cloud"], region]
        assert any(
            price == pytest.approx(usd, rel=1e-4) for usd in (each, each + host, each / 2) for price in asked
        ), row
