"""Kilograms of CO2e and litres of water of a run."""

from dataclasses import dataclass

from predictor.energy import Joules
from predictor.machine import Machine
from predictor.units import YEAR
from predictor.values import Array, Sourced
from predictor.world import Region

_SOURCE = (
    "Luccioni, Viguier, Ligozat, BLOOM, 2022: 6 years at 85 % use; Wu et al., Sustainable AI, 2022: 3-5 years"
)
LIFETIME_S = Sourced(5 * YEAR, 3 * YEAR, 6 * YEAR, _SOURCE, "2022", "estimate")
UTILISATION = Sourced(0.60, 0.30, 0.85, f"{_SOURCE} at 30-60 % use", "2022", "estimate")


@dataclass(frozen=True, slots=True)
class Carbon:
    """kg CO2e of a run; None where the profile or the region does not know [draws]."""

    location: Array
    market: Array | None
    embodied: Array | None

    @property
    def total(self) -> Array:
        """Location-based operational plus embodied."""
        return self.location if self.embodied is None else self.location + self.embodied


def run_carbon(energy: Joules, region: Region, machine: Machine, wall_s: Array) -> Carbon:
    """Electricity times intensity, plus the share of manufacture that the run uses up."""
    location = energy.facility * region.kgco2e_per_j.draw(f"{region.id}.intensity")
    market = region.market_kgco2e_per_j
    return Carbon(
        location=location,
        market=None if market is None else energy.facility * market.draw(f"{region.id}.market"),
        embodied=embodied(machine, wall_s),
    )


def embodied(machine: Machine, wall_s: Array) -> Array | None:
    """Manufacture of accelerators and servers, by the share of their used lifetime [kg CO2e, draws].

    embodied = made * wall / (lifetime * utilisation): hours in which nobody uses a machine are shared by
    those who do.
    """
    each = machine.accelerator.embodied_kgco2e
    if each is None:
        return None
    made = machine.count * each.draw(f"{machine.accelerator.id}.embodied")
    made = made + machine.nodes * machine.server_embodied_kgco2e.draw("machine.server_embodied")
    return made * wall_s / (LIFETIME_S.draw("carbon.lifetime") * UTILISATION.draw("carbon.utilisation"))


@dataclass(frozen=True, slots=True)
class Water:
    """Litres consumed at the facility and in power plants [draws]."""

    on_site: Array | None
    off_site: Array | None


def run_water(energy: Joules, region: Region) -> Water:
    """On site: IT energy times WUE. Off site: facility energy times the grid's water per energy.

    Source: Li et al., Making AI less thirsty, 2023.
    """
    wue, grid = region.wue_l_per_j, region.water_l_per_j
    return Water(
        on_site=None if wue is None else energy.nodes * wue.draw(f"{region.id}.wue"),
        off_site=None if grid is None else energy.facility * grid.draw(f"{region.id}.water"),
    )
