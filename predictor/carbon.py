"""Kilograms of CO2e and litres of water of a run."""

from dataclasses import dataclass

from predictor.accelerator import Accelerator
from predictor.embodied import lifetime_s, made_kgco2e, utilisation
from predictor.energy import Joules
from predictor.machine import Machine
from predictor.values import Array, Sourced
from predictor.world import Note, Region


@dataclass(frozen=True, slots=True)
class Carbon:
    """kg CO2e of a run; None where the profile or the region does not know [draws]."""

    location: Array
    market: Array | None
    embodied: Array

    @property
    def total(self) -> Array:
        """Location-based operational plus embodied."""
        return self.location + self.embodied


def run_carbon(energy: Joules, region: Region, machine: Machine, wall_s: Array) -> Carbon:
    """Electricity times intensity, plus the share of manufacture that the run uses up."""
    location = energy.facility * region.kgco2e_per_j.draw(f"{region.id}.intensity")
    market = region.market_kgco2e_per_j
    return Carbon(
        location=location,
        market=None if market is None else energy.facility * market.draw(f"{region.id}.market"),
        embodied=embodied(machine, wall_s),
    )


def embodied(machine: Machine, wall_s: Array) -> Array:
    """Manufacture of accelerators and servers, by the share of their used lifetime [kg CO2e, draws].

    embodied = made * wall / (lifetime * utilisation): hours in which nobody uses a machine are shared by
    those who do.
    """
    each = accelerator_kgco2e(machine.accelerator)
    made = machine.count * each.draw(f"{machine.accelerator.id}.embodied")
    made = made + machine.nodes * machine.server_embodied_kgco2e.draw("machine.server_embodied")
    return made * wall_s / (lifetime_s().draw("carbon.lifetime") * utilisation().draw("carbon.utilisation"))


# Boards with a known die, memory and board come out at 30 to 700 kg (predictor/embodied.py).
_UNKNOWN_BOARD = Sourced(
    180.0, 30.0, 700.0, "estimate: boards whose die is known lie between", "2026-11-20", "estimate"
)


def accelerator_kgco2e(accelerator: Accelerator) -> Sourced:
    """Making one: its profile's figure, else by die, process and memory, else that of any board [kg CO2e]."""
    if accelerator.embodied_kgco2e is not None:
        return accelerator.embodied_kgco2e
    if accelerator.die_area_m2 is None or accelerator.process_m is None:
        return _UNKNOWN_BOARD
    return made_kgco2e(
        accelerator.die_area_m2, accelerator.process_m, accelerator.memory_byte, accelerator.memory_type
    )


def embodied_notes(accelerator: Accelerator) -> tuple[Note, ...]:
    """What was assumed about its manufacture, when nobody published a figure."""
    if accelerator.embodied_kgco2e is not None:
        return ()
    made = accelerator_kgco2e(accelerator)
    text = (
        f"no footprint published for {accelerator.id}: {made.value:.0f} kg CO2e ({made.low:.0f}-"
        f"{made.high:.0f}) taken for making it, {made.source}"
    )
    return (("manufacture", text, "ask the maker for a product carbon footprint"),)


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
