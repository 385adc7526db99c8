"""Where it runs and what it costs there: grids, facilities, prices, each figure with its source.

Rows live in ``data/grids.csv``, ``data/pue.csv`` and ``data/prices.csv``; ``data/README.md`` says where
they come from and how their ranges were chosen. An unknown name stops; nothing falls back to the
world's average.
"""

from dataclasses import dataclass

from predictor.profile import Note
from predictor.values import Sourced


@dataclass(frozen=True, slots=True)
class Region:
    """One place with electricity.

    kind                  country, state or cloud
    method                "life-cycle" (fuel supply and plants included) or "direct" (stack only)
    kgco2e_per_j          location-based intensity of the grid [kg CO2e/J]
    market_kgco2e_per_j   after the operator's certificates and contracts, where published [kg CO2e/J]
    water_l_per_j         consumed in generation (off-site) [l/J]
    pue                   facility over IT energy, None when the operator is unknown
    wue_l_per_j           on-site water per IT energy [l/J]
    notes                 (topic, text, advice)
    """

    id: str
    name: str
    kind: str
    method: str
    kgco2e_per_j: Sourced
    market_kgco2e_per_j: Sourced | None
    water_l_per_j: Sourced | None
    pue: Sourced | None
    wue_l_per_j: Sourced | None
    notes: tuple[Note, ...]


def find_region(name: str) -> Region:
    """The region people mean by ``name``: "france", "fr", "us-ca", "aws:us-east-1", "world"."""
    raise NotImplementedError


def default_pue(operator: str | None = None) -> Sourced:
    """PUE of an operator's fleet, or of a data centre about which nothing is known."""
    raise NotImplementedError


def find_price(accelerator_id: str, provider: str | None = None) -> Sourced | None:
    """On-demand rent of one accelerator, over all offers (of ``provider``) [USD/s]."""
    raise NotImplementedError
