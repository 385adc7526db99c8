"""Rent of accelerators: what providers ask for an hour, each offer with its date and source.

Facts live in ``data/prices.csv``. An offer that a later one replaced stays in the file, says by what, and
is not used.
"""

from functools import cache
from pathlib import Path
from statistics import median

from predictor.errors import InputError, did_you_mean
from predictor.facts import DATA, Fact, Rule, Table, read_facts
from predictor.values import Sourced

PRICES = Table(
    file="prices.csv",
    keys=(
        "accelerator",
        "quantity",
        "provider",
        "tier",
        "commitment",
        "instance",
        "region",
        "superseded",
    ),
    rules={"rent": Rule("USD/h", 0.01, 1000)},
    dated=True,
)

TIERS = {
    "on-demand": "by the hour, kept until given back",
    "spot": "cheaper, taken back when somebody pays more",
    "reserved": "paid for a year or more",
    "flex-start": "cheaper, starts when there is room",
}
ANYWHERE = "all"
"""The region of an offer that holds in all regions of its provider."""


def find_price(
    accelerator_id: str,
    provider: str | None = None,
    tier: str = "on-demand",
    region: str | None = None,
) -> Sourced | None:
    """Rent of one accelerator: median over the providers, lowest and highest offer; None without any [USD/s].

    provider  "aws", "lambda"; all of them when None
    tier      one of ``TIERS``
    region    as the provider names it, "us-east-1"; all of them when None

    Of one provider it is the median over instances and regions. Raises InputError for a provider or a tier
    that the table does not have.
    """
    check_provider(provider)
    if tier not in TIERS:
        raise InputError(f"unknown tier '{tier}'{did_you_mean(tier, TIERS)}; accepted: {', '.join(TIERS)}")
    offers: dict[str, list[Fact]] = {}
    for fact in _offers().get(accelerator_id, ()):
        here = region is None or fact["region"] in (region, ANYWHERE)
        if fact["tier"] == tier and provider in (None, fact["provider"]) and here:
            offers.setdefault(fact["provider"], []).append(fact)
    asked = {name: _one_provider(facts) for name, facts in offers.items()}
    if len(asked) < 2:
        return next(iter(asked.values()), None)
    return Sourced(
        value=median(price.value for price in asked.values()),
        low=min(price.low for price in asked.values()),
        high=max(price.high for price in asked.values()),
        source=f"predictor/data/{PRICES.file}, {tier}, median and range over {', '.join(asked)}",
        as_of=min(price.as_of for price in asked.values()),
        status="derived",
    )


def list_providers() -> list[str]:
    """Providers with an offer in use, sorted."""
    return sorted({fact["provider"] for facts in _offers().values() for fact in facts})


def check_provider(provider: str | None) -> None:
    """Refuse a provider without any offer, with near matches."""
    if provider is not None and provider not in list_providers():
        near = did_you_mean(provider, list_providers())
        raise InputError(f"no prices of provider '{provider}'{near}; known: {', '.join(list_providers())}")


def count_offers(provider: str, region: str) -> int:
    """How many offers in use hold in this region of this provider."""
    return sum(
        (fact["provider"], fact["region"]) in ((provider, region), (provider, ANYWHERE))
        for facts in _offers().values()
        for fact in facts
    )


@cache
def _offers() -> dict[str, list[Fact]]:
    """Offers in use by accelerator."""
    offers: dict[str, list[Fact]] = {}
    for fact in check_prices():
        if not fact["superseded"]:
            offers.setdefault(fact["accelerator"], []).append(fact)
    return offers


def check_prices(folder: Path = DATA) -> tuple[Fact, ...]:
    """All prices; InputError when a tier is unknown or a reservation does not say for how long."""
    facts = read_facts(PRICES, folder)
    for fact in facts:
        where = f"{PRICES.file}: {fact['accelerator']} / {fact['provider']} / {fact['instance']}"
        if fact["tier"] not in TIERS:
            raise InputError(f"{where}: tier is '{fact['tier']}', accepted: {', '.join(TIERS)}")
        if (fact["tier"] == "reserved") != bool(fact["commitment"]):
            raise InputError(f"{where}: a reserved price says its commitment, no other has one")
    return facts


def _one_provider(facts: list[Fact]) -> Sourced:
    """Median of one provider's offers, lowest and highest."""
    numbers = [fact.number for fact in facts]
    named = dict.fromkeys(
        fact.number.source if fact.licence == "facts" else f"{fact.number.source}, {fact.licence}"
        for fact in facts
    )
    several = f"; median and range of {len(facts)} offers" if len(facts) > 1 else ""
    # A remark that holds for every offer, such as a host not included, holds for their median.
    shared = dict.fromkeys(fact.note for fact in facts)
    remark = f"; {facts[0].note}" if len(shared) == 1 and facts[0].note else ""
    return Sourced(
        value=median(number.value for number in numbers),
        low=min(number.low for number in numbers),
        high=max(number.high for number in numbers),
        source="; ".join(named) + remark + several,
        as_of=min(number.as_of for number in numbers),
        status="derived" if several else numbers[0].status,
    )
