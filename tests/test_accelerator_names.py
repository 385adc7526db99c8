"""Every accelerator that published measurements name is known; cards that are easily mixed up stay apart."""

import csv
import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from predictor.errors import InputError
from predictor.profile import find_profile
from predictor.units import GIB, GIGA, TERA

# --- names that measurements print -------------------------------------------------------------------

UNKNOWN = {
    "": "the run does not name its hardware",
    "CPU-only": "no accelerator, and the processor differs from row to row",
    "MI300X-class (see origin)": "a projection, the origin does not say for which board",
    "NVIDIA Titan X / M40": "a mix of two cards, 72 % and 28 % of the jobs",
    "TPU": "no generation named",
    "TPU (v1/v2, undisclosed)": "no generation named",
    "TPU v3 core": "half a chip: a profile is one chip",
    "TPUv3/TPUv4": "a mix of two chips",
    "TPUv5e/TPUv4/TPUv5p": "a mix of three chips",
    "V100-16/32GB (DGX-1)": "either of two boards",
}
"""Names that stand for no single profile -> why."""

TABLES = [
    ("throughput/*.csv", "accelerator"),
    ("kernels/*/*.csv", "device"),
    ("kernels/*/*.csv.gz", "device"),
    ("kernels/aiconfigurator/systems.csv", "system"),
    ("runs/runs_dev.csv", "accelerator"),
]
"""(files, column that names the accelerator)"""


def rows(path: Path) -> Iterator[dict[str, str]]:
    open_text = gzip.open if path.suffix == ".gz" else open
    with open_text(path, "rt", newline="") as lines:
        yield from csv.DictReader(lines)


def printed_names(data: Path) -> set[str]:
    return {
        row[column]
        for pattern, column in TABLES
        for path in data.glob(pattern)
        for row in rows(path)
        if column in row
    }


def is_known(name: str) -> bool:
    try:
        find_profile(name)
    except InputError:
        return False
    return True


@pytest.mark.soak
@pytest.mark.skipif("PREDICTOR_DATA" not in os.environ, reason="needs PREDICTOR_DATA")
def test_every_accelerator_that_a_table_names_is_known_or_has_a_reason():
    names = printed_names(Path(os.environ["PREDICTOR_DATA"]))
    assert len(names) > 100
    assert {name for name in names if not is_known(name)} == UNKNOWN.keys()


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_name_for_no_single_profile_is_refused(name):
    assert not is_known(name)


# Name as printed -> the only right profile, where a near one would be wrong.
MEANT = {
    "GTX 580": "nvidia-gtx-580-1536mb",
    "GTX 580 3GB": "nvidia-gtx-580-3gb",
    "K20": "nvidia-k20",
    "Tesla K20Xm": "nvidia-k20x",
    "GTX Titan X": "nvidia-gtx-titan-x-maxwell",
    "TITAN X (Maxwell)": "nvidia-gtx-titan-x-maxwell",
    "TITAN X (Pascal)": "nvidia-titan-x-pascal",
    "TITAN Xp": "nvidia-titan-xp",
    "Tesla P4": "nvidia-p4",
    "Quadro RTX 5000": "nvidia-quadro-rtx-5000",
    "NVIDIA RTX 5000 Ada Generation": "nvidia-rtx-5000-ada",
    "RTX A5000": "nvidia-rtx-a5000",
    "RTX 6000 Ada": "nvidia-rtx-6000-ada",
    "RTX 2080 Super Max-Q (laptop)": "nvidia-rtx-2080-super-max-q",
    "NVIDIA GeForce RTX 3080 Laptop GPU": "nvidia-rtx-3080-max-q",
    "RTX 3080": "nvidia-rtx-3080-10gb",
    "RTX 4060 Ti": "nvidia-rtx-4060-ti-8gb",
    "V100-32GB (DGX-2H)": "nvidia-v100-sxm3-32gb-450w",
    "V100-SXM3-32GB": "nvidia-v100-sxm3-32gb",
    "H100-SXM-96GB": "nvidia-h100-sxm5-96gb",
    "H100-SXM-96GB-HBM2e-500W": "nvidia-h100-sxm5-96gb-500w",
    "RTX PRO 6000 Blackwell Max-Q": "nvidia-rtx-pro-6000-blackwell-max-q",
    "AMD Instinct MI250": "amd-mi250",
    "Apple M1 Pro": "apple-m1-pro",
    "Apple M3": "apple-m3",
}


@pytest.mark.parametrize("name", MEANT)
def test_a_printed_name_means_this_card(name):
    assert find_profile(name).id == MEANT[name]


def test_a_bare_titan_x_is_two_cards_and_refused():
    assert not is_known("TITAN X")


# --- peaks and bandwidths are those of the units, the clock and the bus ------------------------------

# Cores and boost clock [MHz] as NVIDIA, AMD and Intel print them for the card; a core does one
# multiply-add, 2 flop, per clock. The GTX 580's cores run at twice the 772 MHz of its other units.
CORES_AND_CLOCK_MHZ = {
    "GTX 580": (512, 1544),
    "K40": (2880, 875),
    "TITAN X (Maxwell)": (3072, 1089),
    "GTX 1080": (2560, 1733),
    "TITAN Xp": (3840, 1582),
    "TITAN RTX": (4608, 1770),
    "RTX 2080 Super Max-Q": (3072, 975),
    "RTX 3080": (8704, 1710),
    "RTX A5000": (8192, 1695),
    "RTX 4080": (9728, 2505),
    "RTX 6000 Ada": (18176, 2505),
    "RTX 5080": (10752, 2617),
    "Arc Pro B60": (2560, 2400),
}


@pytest.mark.parametrize("name", CORES_AND_CLOCK_MHZ)
def test_vector_peak_is_two_flop_per_core_and_clock(name):
    cores, clock_mhz = CORES_AND_CLOCK_MHZ[name]
    peak = find_profile(name).peak_flop_per_s["fp32"]
    assert peak.value == pytest.approx(cores * 2 * clock_mhz * 1e6, rel=0.03)


# Width of the memory bus [bit] and data rate of one line [Gbit/s], as makers print them for the card.
BUS_BIT_AND_GBIT_S = {
    "GTX 580": (384, 4.0),
    "K20": (320, 5.2),
    "GTX Titan Black": (384, 7.0),
    "Tesla P4": (256, 6.0),
    "GTX 1080": (256, 10.0),
    "TITAN RTX": (384, 14.0),
    "RTX 2080 Max-Q": (256, 12.0),
    "RTX 3080": (320, 19.0),
    "RTX A4000": (256, 14.0),
    "RTX 3090 Ti": (384, 21.0),
    "RTX 4080": (256, 22.4),
    "RTX 6000 Ada": (384, 20.0),
    "RTX PRO 6000 Blackwell Max-Q": (512, 28.0),
    "RX 7900 XTX": (384, 20.0),
    "Arc Pro B60": (192, 19.0),
}


@pytest.mark.parametrize("name", BUS_BIT_AND_GBIT_S)
def test_bandwidth_is_bus_width_times_data_rate(name):
    bus_bit, gbit_s = BUS_BIT_AND_GBIT_S[name]
    expected = bus_bit * gbit_s / 8 * GIGA
    assert find_profile(name).memory_byte_per_s.value == pytest.approx(expected, rel=0.01)


# --- traps -------------------------------------------------------------------------------------------


def peak(name: str, dtype: str) -> float:
    return find_profile(name).peak_flop_per_s[dtype].value


# fp16 matrix rate with fp32 accumulation over the fp32 vector rate. GeForce boards do it at half the
# rate of workstation boards with the same chip: 512 and 1024 flop per SM and clock. A Turing SM has 64
# fp32 cores, later ones 128.
MATRIX_OVER_VECTOR = {
    "RTX 2080": 512 / (2 * 64),
    "RTX 2070 Max-Q": 512 / (2 * 64),
    "TITAN RTX": 1024 / (2 * 64),
    "Quadro RTX 5000": 1024 / (2 * 64),
    "RTX 3070": 512 / (2 * 128),
    "RTX 3090 Ti": 512 / (2 * 128),
    "RTX A4500": 1024 / (2 * 128),
    "RTX 4070 Ti": 512 / (2 * 128),
    "RTX 6000 Ada": 1024 / (2 * 128),
    "RTX 5070": 512 / (2 * 128),
    "RTX PRO 5000 Blackwell": 1024 / (2 * 128),
}


@pytest.mark.parametrize("name", MATRIX_OVER_VECTOR)
def test_geforce_accumulates_in_fp32_at_half_rate_and_workstation_boards_do_not(name):
    assert peak(name, "fp16") / peak(name, "fp32") == pytest.approx(MATRIX_OVER_VECTOR[name], rel=0.01)


@pytest.mark.parametrize("name", ["GTX 1080", "TITAN Xp", "Tesla P4", "TITAN X (Maxwell)", "K40", "GTX 580"])
def test_cards_without_matrix_units_have_no_fp16_matrix_peak(name):
    assert not {"tf32", "fp16", "bf16", "fp8"} & find_profile(name).peak_flop_per_s.keys()


@pytest.mark.parametrize("name", ["TITAN RTX", "RTX 2080", "V100 DGX-2H", "Quadro GV100"])
def test_turing_and_volta_have_no_bf16(name):
    assert "bf16" not in find_profile(name).peak_flop_per_s


def test_mi250_is_one_of_two_dies():
    """NeuSight's device table: 64 GB, 1640 GB/s, 22.6 TFLOP/s on the vector units, for one device."""
    die = find_profile("AMD Instinct MI250")
    assert die.memory_byte.value == 64 * GIB
    assert die.memory_byte_per_s.value == pytest.approx(1640 * GIGA, rel=0.01)
    assert peak("MI250", "fp32") == pytest.approx(22.6 * TERA, rel=0.01)
    assert die.per_node == 8


@pytest.mark.parametrize(("name", "devices", "board_w"), [("Tesla M60", 2, 300), ("A16", 4, 250)])
def test_a_board_of_several_gpus_is_counted_by_gpu(name, devices, board_w):
    card = find_profile(name)
    assert card.limit_w.value == board_w / devices
    assert any(topic.endswith("GPUs") for topic, _, _ in card.notes)


def test_a_laptop_card_is_not_the_desktop_card_of_that_name():
    """The RTX 3080 laptop has the smaller chip (6144 of 8704 cores), lower clocks and 16 GB."""
    laptop, desktop = find_profile("RTX 3080 Max-Q (laptop)"), find_profile("RTX 3080")
    assert peak(laptop.id, "fp32") < 6144 / 8704 * peak(desktop.id, "fp32")
    assert laptop.memory_byte.value == 16 * GIB
    assert laptop.limit_w.high > 1.5 * laptop.limit_w.value


def test_h100_of_96_gb_has_the_slower_memory():
    """torchtitan names HBM2e at 2.4 TB/s, the usual H100 has HBM3 at 3.35."""
    for name in ("H100-SXM-96GB", "H100-SXM-96GB-HBM2e-500W"):
        assert find_profile(name).memory_byte_per_s.value == 2.4 * TERA
    assert find_profile("h100").memory_byte_per_s.value > 3.3 * TERA
    capped = find_profile("H100-SXM-96GB-HBM2e-500W")
    assert capped.limit_w.value == 500
    assert peak(capped.id, "bf16") < peak("h100", "bf16")


def test_dgx_2h_runs_the_450_w_board():
    """Megatron-LM: 39 TFLOP/s is 30 % of the peak of one GPU of a DGX-2H."""
    board = find_profile("V100-32GB (DGX-2H, 450 W)")
    assert board.limit_w.value == 450
    assert peak(board.id, "fp16") == pytest.approx(39 * TERA / 0.30, rel=0.02)


def test_a800_has_eight_of_the_twelve_links_of_an_a100():
    a800, a100 = find_profile("A800"), find_profile("A100-80GB")
    assert a800.intranode_byte_per_s.value == a100.intranode_byte_per_s.value * 8 / 12
    assert peak("A800", "bf16") == peak("A100-80GB", "bf16")


def test_l20_is_capped_below_what_its_clock_would_give():
    """92 SM x 1024 flop per clock x 2.52 GHz would be 237 TFLOP/s."""
    assert peak("L20", "bf16") < 0.6 * 92 * 1024 * 2.52e9


@pytest.mark.parametrize("name", ["TPU v1", "Inferentia1"])
def test_inference_chips_do_not_train_and_say_why(name):
    chip = find_profile(name)
    assert not chip.training
    assert "inference" in chip.training_note
