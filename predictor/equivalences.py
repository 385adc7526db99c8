"""What an amount of CO2e compares with: kilometres driven, flights, households, trees.

Facts live in ``data/equivalences.csv``.
"""

from predictor.facts import Rule, Table, read_facts
from predictor.values import Sourced

EQUIVALENCES = Table(
    file="equivalences.csv",
    keys=("subject", "quantity"),
    rules={"emissions": Rule("kgCO2e", 1e-6, 1e6)},
)


def equivalences() -> dict[str, Sourced]:
    """Name of one thing -> its emissions [kg CO2e], in the order of the file."""
    return {fact["subject"]: fact.number for fact in read_facts(EQUIVALENCES)}
