"""Manufacture: the sum of silicon, memory and board against published figures, and its laws."""

import dataclasses
import math

import pytest

from predictor.carbon import accelerator_kgco2e, embodied_notes
from predictor.embodied import (
    NODES_NM,
    lifetime_s,
    made_kgco2e,
    published,
    silicon_m2,
    utilisation,
)
from predictor.equivalences import equivalences
from predictor.profile import find_profile
from predictor.units import YEAR
from predictor.values import Sourced

MM2, NM, GB = 1e-6, 1e-9, 1e9


def exact(value: float) -> Sourced:
    return Sourced(value, value, value, "given", "2026")


def made(mm2: float, nm: float, gb: float, memory: str) -> Sourced:
    return made_kgco2e(exact(mm2 * MM2), exact(nm * NM), exact(gb * GB), memory)


@pytest.mark.parametrize(
    ("mm2", "nm", "gb", "memory", "kgco2e"),
    [
        (826, 7, 40, "HBM2", 181),  # A100 PCIe 40 GB: ADEME, Falk et al., arXiv 2509.00093
        (814, 4, 80, "HBM3", 164),  # H100 SXM: NVIDIA, HGX H100 product footprint 1312 kg / 8
        (814, 4, 80, "HBM3", 273),  # H100: EcoLogits 0.11.3 after ADEME
        (814, 4, 141, "HBM3e", 364),  # H200: ADEME 2026
        (1628, 4, 180, "HBM3e", 286),  # B200: NVIDIA, from its intensity against the HGX H100
    ],
)
def test_published_footprints_lie_inside_the_range(mm2, nm, gb, memory, kgco2e):
    found = made(mm2, nm, gb, memory)
    assert found.low < kgco2e < found.high
    assert found.high / found.low < 5
    assert found.status == "estimate"


def test_silicon_by_hand():
    """TSMC 7 nm after ACT: 2.15 kWh/cm2, 0.275 kg of gases (mean of 0.2 and 0.35), 0.5 kg of materials;
    Taiwan's grid; yield 0.875; 826 mm2 take 11.3 cm2 of a 300 mm wafer: 62 dies of 706.9 cm2."""
    dies = math.pi * 150**2 / 826 - math.pi * 300 / math.sqrt(2 * 826)
    assert round(dies) == 62
    area_cm2 = math.pi * 15**2 / dies
    assert silicon_m2(826 * MM2) * 1e4 == pytest.approx(area_cm2)
    from predictor.world import find_region

    taiwan = find_region("tw").kgco2e_per_j.value * 3.6e6
    silicon = area_cm2 * (2.15 * taiwan + 0.275 + 0.5) / 0.875
    on_chip = made(826, 7, 1, "SRAM").value
    assert on_chip - silicon == pytest.approx(40)  # the board
    assert made(826, 7, 40, "HBM2").value - on_chip == pytest.approx(40 * 1.5)  # 1.5 kg per GB of HBM


def test_more_silicon_and_more_memory_cost_more():
    base = made(400, 7, 32, "HBM2").value
    assert made(800, 7, 32, "HBM2").value > base
    assert made(400, 7, 64, "HBM2").value > base
    assert made(400, 7, 32, "GDDR6").value < base
    assert made(400, 5, 32, "HBM2").value > base  # finer nodes take more steps


def test_large_dies_waste_the_edge_of_the_wafer():
    assert silicon_m2(800 * MM2) / (800 * MM2) > silicon_m2(100 * MM2) / (100 * MM2) > 1


def test_silicon_beyond_the_reticle_is_several_dies():
    assert silicon_m2(2 * 700 * MM2) == pytest.approx(2 * silicon_m2(700 * MM2))
    wafer_mm2 = math.pi * 150**2
    assert silicon_m2(46225 * MM2) / MM2 == pytest.approx(wafer_mm2, rel=0.2)  # one WSE takes one wafer


@pytest.mark.parametrize("nm", [65, 28, 16, 12, 6, 4, 2])
def test_every_process_has_a_node(nm):
    assert made(400, nm, 16, "GDDR6").value > 40
    assert min(NODES_NM) == 3


def test_an_uncertain_die_widens_the_range():
    wide = Sourced(800 * MM2, 600 * MM2, 1000 * MM2, "guess", "2026", "estimate")
    found = made_kgco2e(wide, exact(7 * NM), exact(40 * GB), "HBM2")
    assert found.high > made(800, 7, 40, "HBM2").high
    assert found.low < made(800, 7, 40, "HBM2").low


def test_allocation():
    """BLOOM: 6 years at 85 % use; Wu et al.: 3 to 5 years at 30 to 60 %."""
    assert (lifetime_s().low, lifetime_s().high) == (3 * YEAR, 6 * YEAR)
    assert (utilisation().low, utilisation().high) == (0.30, 0.85)


def test_published_figures_are_listed_with_their_method():
    h100 = {f["method"]: f.number.value for f in published() if f["subject"] == "nvidia-h100-sxm5-80gb"}
    assert h100["product footprint"] * 8 == 1312
    assert h100["die only"] < 20 < h100["life-cycle study"]


def test_equivalences():
    """EPA: 3.93e-4 t per mile, 1.24e-5 t per smartphone charge, 0.060 t per tree planted, ten years."""
    each = equivalences()
    assert each["car km (US)"].value == pytest.approx(0.393 / 1.609344, rel=1e-3)
    assert each["smartphone charge"].value == pytest.approx(0.0124)
    assert each["tree seedling grown for ten years"].value == pytest.approx(60)
    assert each["tree year"].value == pytest.approx(60 / 10)
    flight = each["flight London - New York and back, economy"].value
    assert flight == pytest.approx(2 * 5540 * each["flight km, long haul, economy"].value)
    assert each["household electricity, one year (US)"].value == 4798


# --- in an answer ------------------------------------------------------------------------------------


def test_a_published_footprint_is_taken_as_it_is():
    a100 = find_profile("nvidia-a100-pcie-40gb")
    assert accelerator_kgco2e(a100) == a100.embodied_kgco2e
    assert embodied_notes(a100) == ()


def test_without_a_footprint_the_parts_are_added_and_the_answer_says_so():
    h100 = dataclasses.replace(find_profile("nvidia-h100-sxm5-80gb"), embodied_kgco2e=None)
    found = accelerator_kgco2e(h100)
    assert found.low < 164 < 273 < found.high
    ((topic, text, advice),) = embodied_notes(h100)
    assert topic == "manufacture"
    assert f"{found.value:.0f} kg CO2e" in text
    assert advice


def test_without_die_and_footprint_any_board_stands_in_and_the_answer_says_so():
    """It spans the default of boards with a known die, so that totals stay comparable."""
    h100 = dataclasses.replace(find_profile("nvidia-h100-sxm5-80gb"), embodied_kgco2e=None)
    blank = dataclasses.replace(h100, die_area_m2=None)
    known, found = accelerator_kgco2e(h100), accelerator_kgco2e(blank)
    assert found.status == "estimate"
    assert found.low < known.low < known.high < found.high
    ((_, text, _),) = embodied_notes(blank)
    assert "estimate" in text
