"""One contract over every profile, found by listing; the traps of datasheets; every refusal."""

import csv
import datetime
import os
import re
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import BaseModel

from predictor import profile, quantity
from predictor.accelerator import IDLE_SHARE, LIMIT_W, VECTOR_SHARE, Accelerator, check_figures
from predictor.bounds import BOUNDS
from predictor.cli.hardware_add import check_new
from predictor.errors import InputError, UnknownNameError, UnsupportedError
from predictor.job import Job
from predictor.kernels import chip
from predictor.ledger import machine_lines
from predictor.machine import build_machine
from predictor.node_file import load_file
from predictor.pricing import resolve
from predictor.profile import find_profile, fold, list_profiles, load_profile
from predictor.profile_file import DIMENSIONS, DTYPES, ProfileFile
from predictor.quantity import Quantity
from predictor.units import GIB, GIGA, MIB, TERA, UNITS
from predictor.values import STATUSES, Sourced

DIR = profile.profiles_dir()
PATHS = sorted(DIR.glob("[!_]*.toml"), key=lambda path: path.stem)
IDS = [path.stem for path in PATHS]


def quantities(accelerator: Accelerator) -> dict[str, Sourced]:
    found = {f"peak.{dtype}": peak for dtype, peak in accelerator.peak_flop_per_s.items()}
    for name in Accelerator.__dataclass_fields__:
        value = getattr(accelerator, name)
        if isinstance(value, Sourced):
            found[name] = value
    return found


def raw(path: Path) -> dict:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def raw_quantities(table: dict, prefix: str = "") -> dict[str, dict]:
    """Every table of a file that holds a value, by its key."""
    found = {}
    for key, value in table.items():
        if isinstance(value, dict):
            found |= {prefix + key: value} if "value" in value else raw_quantities(value, f"{prefix}{key}.")
    return found


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    """An empty folder of own profiles, apart from the user's."""
    folder = tmp_path / "own profiles"
    folder.mkdir()
    monkeypatch.setenv("PREDICTOR_PROFILES", str(folder))
    return folder


@pytest.fixture(params=PATHS, ids=IDS)
def path(request):
    return request.param


@pytest.fixture
def accelerator(path):
    return find_profile(path.stem)


# --- the contract ------------------------------------------------------------------------------------


def test_at_least_ninety_accelerators_are_there():
    assert len(IDS) >= 90
    assert list_profiles() == IDS


def test_every_figure_has_source_date_status_and_range(accelerator):
    for key, figure in quantities(accelerator).items():
        assert figure.source, key
        assert re.fullmatch(r"\d{4}(-\d{2}(-\d{2})?)?", figure.as_of), key
        assert figure.status in STATUSES, key
        assert 0 < figure.low <= figure.value <= figure.high, key


def test_estimates_say_so_and_carry_a_wide_range(accelerator):
    for key, figure in quantities(accelerator).items():
        assert (figure.status == "estimate") == figure.source.startswith("estimate:"), key
        if figure.status == "estimate":
            assert figure.high / figure.low > 1.3, key


# Least and most of what chips of the field have: from a GTX 580 or a Jetson to a B300, then by itself the
# wafer of Cerebras (46 225 mm2, 23 kW, 21 PB/s). SRAM is the memory of Groq (230 MB), Mythic and Graphcore.
SPANS = {
    "memory_byte": (0.05 * GIB, 8192 * GIB),
    "bandwidth_byte_per_s": (30 * GIGA, 100_000 * GIGA),
    "clock_hz": (5e8, 4e9),
    "cache_byte": (0.25 * MIB, 1024 * MIB),
    "compute_units": (1, 20_000),
    "intranode_byte_per_s": (1 * GIGA, 2000 * GIGA),
    "internode_byte_per_s": (0.1 * GIGA, 200 * GIGA),
    "idle_w": (0.5, 400),
    "limit_w": (3, 3000),
    "process_m": (1e-9, 65e-9),
    "die_area_m2": (50e-6, 3500e-6),
    "transistors": (1e9, 500e9),
    "launch_usd": (50, 100_000),
    "embodied_kgco2e": (5, 2000),
}
WAFER = {
    "bandwidth_byte_per_s": (1e15, 1e17),
    "cache_byte": (10 * GIB, 100 * GIB),
    "compute_units": (1e5, 1e7),
    "idle_w": (1000, 10_000),
    "limit_w": (10_000, 30_000),
    "die_area_m2": (0.04, 0.05),
    "transistors": (1e12, 1e13),
    "launch_usd": (1e5, 1e7),
    "embodied_kgco2e": (100, 100_000),
}


def test_figures_are_in_a_plausible_range_of_their_unit(accelerator):
    spans = SPANS | (WAFER if accelerator.vendor == "Cerebras" else {})
    for key, figure in quantities(accelerator).items():
        low, high = spans.get(key, (0.02 * TERA, 100_000 * TERA))
        assert low <= figure.value <= high, key
    assert 1 <= accelerator.per_node <= accelerator.fabric_size


def test_idle_power_is_below_the_limit(accelerator):
    if accelerator.limit_w is None:
        return
    assert accelerator.idle_w.high < accelerator.limit_w.value
    # above a half only where "idle" is the lowest production power (TPU)
    assert accelerator.idle_w.value / accelerator.limit_w.value < (0.5 if accelerator.kind != "tpu" else 0.6)


def test_sixteen_bit_peak_is_no_more_than_a_dense_matrix_engine_gives(accelerator):
    """Matrix engines give up to 32 times fp32 on vector units (B200 30, Tenstorrent 32); Gaudi 3 117."""
    peaks = accelerator.peak_flop_per_s
    for dtype in ("fp16", "bf16"):
        if dtype in peaks and accelerator.id != "intel-gaudi3":
            assert peaks[dtype].value / peaks["fp32"].value < 35


def test_release_and_status_are_told(accelerator, path):
    assert re.match(r"20[12]\d", accelerator.release_date)
    assert (accelerator.status == "fitted") == path.with_suffix(".fit.json").exists()
    assert accelerator.aliases
    assert accelerator.kind in ("gpu", "tpu", "asic", "cpu")


def test_what_cannot_train_says_why_and_what_trains_can_be_priced_or_says_what_it_lacks(accelerator):
    if not accelerator.training:
        assert len(accelerator.training_note) > 10
        return
    if not accelerator.lacks:
        assert accelerator.memory_byte_per_s.value > 0
        assert "fp32" in accelerator.peak_flop_per_s
        return
    with pytest.raises(UnsupportedError) as refusal:
        check_figures(accelerator)
    assert all(key in str(refusal.value) for key in accelerator.lacks)


def test_no_figure_is_one_of_a_table_that_may_not_be_shipped(path):
    """Boavizta's tables are AGPL, Electricity Maps' columns not free: at most an estimate starts there."""
    for key, figure in raw_quantities(raw(path)).items():
        assert "electricity maps" not in figure["source"].casefold(), key
        if "boavizta" in figure["source"].casefold():
            assert figure["status"] == "estimate", key
            assert not re.search(rf"boavizta \D{{0,40}}{figure['value']:g}\b", figure["source"].casefold()), (
                key
            )


def test_file_reads_well(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\t| $", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) < 400
    assert text.endswith("\n")


def test_names_stand_before_the_first_table(path):
    head = profile.read_header(path)
    assert head["id"] == path.stem
    assert head["aliases"] == raw(path)["aliases"]


def test_names_belong_to_one_profile():
    owner = {}
    for id_ in IDS:
        for name in {fold(name) for name in (id_, *find_profile(id_).aliases)}:
            assert name not in owner, f"{name}: {owner.get(name)} and {id_}"
            owner[name] = id_


def test_every_alias_finds_its_profile(accelerator):
    for name in accelerator.aliases:
        assert find_profile(name) == accelerator


def test_a_profile_is_read_in_under_5_ms():
    start = time.perf_counter()
    for path in PATHS:
        load_profile(path)
    assert (time.perf_counter() - start) / len(PATHS) < 5e-3


# --- traps -------------------------------------------------------------------------------------------


def tflops(name: str, dtype: str) -> float:
    return find_profile(name).peak_flop_per_s[dtype].value / TERA


def test_v100_watts_are_not_swapped():
    """NVIDIA V100 datasheet: SXM2 300 W, PCIe 250 W."""
    assert find_profile("v100").limit_w.value == 300
    assert find_profile("V100-32GB").limit_w.value == 300
    for memory in ("16gb", "32gb"):
        assert find_profile(f"nvidia-v100-sxm2-{memory}").limit_w.value == 300
        assert find_profile(f"nvidia-v100-pcie-{memory}").limit_w.value == 250


def test_v100_has_no_bf16_and_no_tf32():
    assert not {"bf16", "tf32", "fp8"} & find_profile("v100").peak_flop_per_s.keys()


def test_p100_fp16_runs_on_the_vector_units():
    assert tflops("p100", "fp16") == pytest.approx(2 * tflops("p100", "fp32"), rel=1e-3)


def test_l4_has_its_own_bandwidth_not_the_l40s():
    assert find_profile("l4").memory_byte_per_s.value == pytest.approx(300 * GIGA, rel=0.01)
    assert find_profile("l40s").memory_byte_per_s.value == 864 * GIGA


# Datasheet headlines with 2:4 sparsity, and the factor to dense.
SPARSE = {
    ("h100", "bf16"): 1979,
    ("h100", "fp8"): 3958,
    ("a100", "bf16"): 624,
    ("a100", "tf32"): 312,
    ("l40s", "bf16"): 733,
    ("h100 pcie", "bf16"): 1513,
    ("nvidia-h200-sxm5-141gb", "fp8"): 3958,
    ("mi300x", "fp16"): 2614.9,
    ("mi300x", "fp8"): 5229.8,
    ("rtx 4090", "fp8"): 660.6,
}


@pytest.mark.parametrize(("name", "dtype"), SPARSE)
def test_peaks_are_half_of_the_sparse_headline(name, dtype):
    assert tflops(name, dtype) == pytest.approx(SPARSE[name, dtype] / 2, rel=0.02)


def test_h100_pcie_is_not_the_sxm_board():
    sxm, pcie = find_profile("h100"), find_profile("h100 pcie")
    assert tflops("h100 pcie", "bf16") == 756
    assert pcie.limit_w.value == 350
    assert pcie.compute_units.value == 114
    assert pcie.memory_byte_per_s.value < 0.7 * sxm.memory_byte_per_s.value


def test_rtx_4090_counts_fp32_accumulation():
    assert tflops("rtx 4090", "fp16") == pytest.approx(2 * 82.6, rel=1e-3)


def test_a10g_is_not_an_a10():
    assert tflops("a10g", "bf16") < 0.6 * tflops("a10", "bf16")
    assert find_profile("a10g").limit_w.value == 2 * find_profile("a10").limit_w.value


def test_mi250x_is_one_of_two_dies():
    die = find_profile("MI250X")
    assert die.peak_flop_per_s["bf16"].value == 383 * TERA / 2
    assert die.memory_byte.value == 64 * GIB
    assert die.limit_w.value == 560 / 2
    assert die.clock_hz.value == 1700e6
    assert die.per_node == 8
    assert any(topic == "two dies" for topic, _, _ in die.notes)


def test_tpu_v2_and_v3_are_chips_not_cores():
    """Google Cloud TPU pages: a v2 chip has 46 TFLOP/s and 16 GiB, a v3 chip 123 and 32; two cores each."""
    assert (tflops("tpu v2", "bf16"), tflops("tpu v3", "bf16")) == (46, 123)
    assert find_profile("tpu v2").memory_byte.value == pytest.approx(16 * GIB, rel=0.08)
    assert find_profile("tpu v3").memory_byte.value == pytest.approx(32 * GIB, rel=0.08)
    assert find_profile("tpu v2").per_node == find_profile("tpu v3").per_node == 4


def test_bare_names_mean_the_smaller_memory():
    assert find_profile("a100").id == "nvidia-a100-sxm4-40gb"
    assert find_profile("v100").id == "nvidia-v100-sxm2-16gb"


def test_capacity_is_what_the_driver_reports():
    assert find_profile("h100").memory_byte.value == 81559 * MIB
    assert find_profile("v100").memory_byte.value < 16 * GIB


def test_tpu_power_is_what_chips_draw():
    assert find_profile("tpu v3").limit_w.value == 262
    assert find_profile("tpu-v4").limit_w.value == 192


def test_vector_peak_nobody_published_is_a_wide_estimate_in_the_ledger():
    chip = find_profile("tpu-v5p")
    vector = chip.peak_flop_per_s["fp32"]
    assert vector.status == "estimate"
    assert vector.value == 459 * TERA / 32
    assert (vector.low, vector.high) == (459 * TERA / 64, 459 * TERA / 8)
    assert [topic for topic, _, _ in chip.notes] == ["vector peak"]


def test_idle_power_nobody_metered_is_a_share_of_the_limit(path):
    """GPU 0.19 (0.10 to 0.39) of the limit, of 300 W (100 to 700) where there is none."""
    accelerator, power = find_profile(path.stem), raw(path).get("power", {})
    told = [topic for topic, _, _ in accelerator.notes]
    assert ("idle power" in told) == ("idle" not in power)
    assert ("power limit" in told) >= ("limit" not in power)
    if "idle" in power or accelerator.kind != "gpu":
        return
    limit = accelerator.limit_w
    low, mid, high = (limit.value,) * 3 if limit else (100, 300, 700)
    idle_w = accelerator.idle_w
    assert (idle_w.low, idle_w.value, idle_w.high) == pytest.approx((0.10 * low, 0.19 * mid, 0.39 * high))
    assert idle_w.status == "estimate"


# --- what cannot be priced ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mythic-m1076", "cannot train: inference only: analog"),
        ("groq-lpu-v1", "cannot train: inference only"),
    ],
)
def test_training_on_an_inference_chip_is_refused_with_its_reason(name, reason):
    with pytest.raises(UnsupportedError, match=reason):
        resolve(Job(model="zoo:bert-large", hardware=name))


def test_a_chip_without_bandwidth_is_shown_and_not_priced(acme):
    path = acme()
    text = path.read_text()
    a, b = text.index("\n[memory.bandwidth]"), text.index("\n[link.intranode]")
    path.write_text(text[:a] + text[b:])
    x1 = load_profile(path)
    assert x1.lacks == ("memory.bandwidth",)
    with pytest.raises(
        UnsupportedError, match=r"acme-x1-80gb cannot be priced: its profile lacks memory\.band"
    ):
        resolve(Job(model="zoo:bert-large", hardware=str(path)))
    with pytest.raises(UnsupportedError, match=r"lacks memory\.bandwidth"):
        _ = x1.memory_byte_per_s


def test_a_chip_without_any_peak_to_go_by_is_shown_and_not_priced(acme):
    path = acme("[peak.fp32]", "[peak.fp4]")
    path.write_text(
        path.read_text().replace("[peak.bf16]", "[peak.fp8]").replace("value = 50", "value = 500", 1)
    )
    assert load_profile(path).lacks == ("peak.fp32, peak.fp16 or peak.bf16",)
    with pytest.raises(UnsupportedError, match=r"lacks peak\.fp32, peak\.fp16 or peak\.bf16"):
        resolve(Job(model="zoo:bert-large", hardware=str(path), mode="infer"))


# --- what every answer tells -------------------------------------------------------------------------


def told(name: str, train: bool = True) -> dict[str, str]:
    return {line.topic: line.text for line in machine_lines(build_machine(name), train)}


def test_figures_from_memory_are_told_in_one_line(path):
    memory = [key for key, figure in raw_quantities(raw(path)).items() if figure["status"] == "from memory"]
    line = told(path.stem).get("profile", "")
    assert bool(line) == bool(memory)
    assert ("power limit" in line) == ("power.limit" in memory)
    assert ("peak bf16" in line) == ("peak.bf16" in memory)
    unused = {"peak.fp64_matrix", "peak.int8", "die.transistors", "price.launch"} & set(memory)
    assert not unused or "that no answer rests on" in line


def test_what_limits_training_is_told_with_every_answer_about_training():
    note = find_profile("apple-m4-max").training_note
    assert note in told("apple-m4-max")["training"]
    assert "training" not in told("apple-m4-max", train=False)
    assert "training" not in told("h100")


# --- finding -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["h100", "H100", " h100 sxm ", "H100_SXM", "NVIDIA_H100_80GB_HBM3"])
def test_case_space_and_underscore_do_not_matter(name):
    assert find_profile(name).id == "nvidia-h100-sxm5-80gb"


def test_unknown_name_is_refused_with_near_ones():
    with pytest.raises(InputError, match="unknown accelerator 'h10'; did you mean 'h100'") as refusal:
        find_profile("h10")
    assert "predictor hardware" in str(refusal.value)


@pytest.mark.parametrize("name", ["", "_template", "../README", "../hardware_profiles/nvidia-l4"])
def test_names_that_are_no_profile_are_refused(name):
    with pytest.raises(InputError):
        find_profile(name)


def test_profiles_are_found_beside_the_package_and_inside_it(tmp_path, monkeypatch):
    package = tmp_path / "site" / "predictor"
    package.mkdir(parents=True)
    monkeypatch.setattr(profile, "__file__", str(package / "profile.py"))
    assert profile.profiles_dir() == package.resolve() / "hardware_profiles"
    (package.parent / "hardware_profiles").mkdir()
    assert profile.profiles_dir() == package.resolve().parent / "hardware_profiles"


def test_a_profile_of_ones_own_is_named_by_its_file(acme):
    path = acme()
    assert find_profile(str(path)).name == "Acme X1 80 GB"


# --- profiles of one's own ---------------------------------------------------------------------------


def to(path: Path, folder: Path) -> Path:
    return path.rename(folder / path.name)


def test_own_profiles_are_listed_and_found_by_every_name(acme, own):
    path = to(acme(), own)
    assert profile.own_profiles() == {"acme-x1-80gb": path}
    assert list_profiles() == sorted([*IDS, "acme-x1-80gb"])
    for name in ("acme-x1-80gb", "X1", "x1 80gb"):
        assert find_profile(name).name == "Acme X1 80 GB"
    assert build_machine("8x x1").accelerator.id == "acme-x1-80gb"


def test_an_own_profile_stands_in_for_the_shipped_one_of_its_id(own):
    text = (DIR / "nvidia-l4.toml").read_text(encoding="utf-8")
    (own / "nvidia-l4.toml").write_text(text.replace('name = "', 'name = "My own ', 1), encoding="utf-8")
    assert find_profile("l4").name.startswith("My own ")
    assert list_profiles() == IDS
    (own / "nvidia-l4.toml").unlink()
    assert not find_profile("l4").name.startswith("My own ")


def test_a_changed_own_profile_is_read_anew(acme, own):
    path = to(acme(), own)
    assert find_profile("x1").limit_w.value == 500
    path.write_text(path.read_text().replace("value = 500", "value = 450"))
    os.utime(path, ns=(1, 1))
    assert find_profile("x1").limit_w.value == 450


def test_an_alias_of_another_profile_is_refused_where_it_matters(acme, own):
    path = to(acme('"x1"', '"x1", "H100 SXM"'), own)
    both = rf"alias '.*' belongs to 2 profiles: .*{path.name} and .*nvidia-h100-sxm5-80gb\.toml"
    with pytest.raises(InputError, match=both):
        find_profile("x1")
    assert find_profile("h100-sxm").id == "nvidia-h100-sxm5-80gb"
    assert find_profile("a100").id == "nvidia-a100-sxm4-40gb"
    assert find_profile("h100 pcie").id == "nvidia-h100-pcie-80gb"


def test_two_shipped_profiles_with_one_alias_are_refused(acme, tmp_path, monkeypatch):
    acme()
    acme('id = "acme-x1-80gb"', 'id = "acme-x2"', name="acme-x2.toml")
    monkeypatch.setattr(profile, "profiles_dir", lambda: tmp_path)
    with pytest.raises(InputError, match=r"alias 'x1' belongs to 2 profiles: .*x1-80gb\.toml and .*x2\.toml"):
        find_profile("acme-x2")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("training = true", "training = perhaps", "not valid TOML"), ("[power.idle]", "[power.iddle]", "iddle")],
)
def test_a_faulty_own_profile_breaks_only_itself(acme, own, old, new, message):
    path = to(acme(old, new), own)
    with pytest.raises(InputError, match=message) as refusal:
        find_profile("acme-x1-80gb")
    assert str(refusal.value).startswith(f"{path}: ")
    assert find_profile("h100").id == "nvidia-h100-sxm5-80gb"


def test_a_file_given_for_one_call_comes_before_all_others(acme):
    path = acme()
    assert find_profile("X1", str(path)).id == "acme-x1-80gb"
    assert find_profile("h100", str(path)).id == "nvidia-h100-sxm5-80gb"
    assert find_profile("a100", str(path)).id == "nvidia-a100-sxm4-40gb"
    assert list_profiles(str(path)) == sorted([*IDS, "acme-x1-80gb"])
    assert build_machine("8x x1", profile=str(path)).accelerator.id == "acme-x1-80gb"


@pytest.mark.parametrize(
    ("alias", "owner"), [("H100", "nvidia-h100-sxm5-80gb.toml"), ("DGX H100", "nvidia-dgx-h100.toml")]
)
def test_a_given_file_that_takes_anothers_name_is_refused_with_both(acme, alias, owner):
    path = acme('"x1"', f'"x1", "{alias}"')
    for ask in (lambda: find_profile(str(path)), lambda: find_profile("a100", str(path))):
        with pytest.raises(
            InputError, match=rf"alias '{alias}' belongs to 2 profiles: .*acme.* and .*{owner}"
        ):
            ask()


def test_no_shipped_profile_has_the_name_of_a_node():
    for path in PATHS:
        profile.check_names((path.stem, *raw(path)["aliases"]), path)


def test_an_own_profile_with_the_alias_of_a_shipped_one_as_id_leaves_it_alone(acme, own):
    path = to(acme('id = "acme-x1-80gb"', 'id = "h100"', name="h100.toml"), own)
    assert find_profile("h100").id == "nvidia-h100-sxm5-80gb"
    with pytest.raises(InputError, match=rf"alias 'h100' belongs to 2 profiles: {path} and"):
        profile.find_by_id("h100")
    assert profile.find_by_id("nvidia-l4").id == "nvidia-l4"


@pytest.mark.parametrize("new", ["", 'id = ""'])
def test_a_file_without_an_id_says_so_and_claims_no_names(acme, own, new):
    path = to(acme('id = "acme-x1-80gb" ', new), own)
    with pytest.raises(InputError) as refusal:
        find_profile("acme-x1-80gb")
    assert str(refusal.value) == f"{path}: 'id' is missing"
    with pytest.raises(InputError, match="unknown accelerator 'x1'"):
        find_profile("x1")


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("titan x", "nvidia-gtx-titan-x-maxwell or nvidia-titan-x-pascal"),
        ("RTX 6000", "nvidia-quadro-rtx-6000 or nvidia-rtx-6000-ada"),
    ],
)
def test_a_name_of_several_is_refused_with_their_ids(name, ids):
    with pytest.raises(InputError, match=f"'{name}' may be {ids}; write its id"):
        find_profile(name)
    with pytest.raises(UnknownNameError):
        find_profile(name + "1")


def test_a_shared_name_is_shared_and_belongs_to_nobody():
    shared = [name for path in PATHS for name in raw(path).get("shared_names", [])]
    for name in shared:
        assert shared.count(name) > 1, name
        profile.check_names((name,), DIR / "none.toml")


def test_a_given_file_replaces_the_accelerator_of_a_cloud_instance(tmp_path):
    text = (DIR / "nvidia-h100-sxm5-80gb.toml").read_text(encoding="utf-8")
    path = tmp_path / "nvidia-h100-sxm5-80gb.toml"
    path.write_text(text.replace('name = "', 'name = "My own ', 1), encoding="utf-8")
    machine = build_machine("aws:p5.48xlarge", profile=str(path))
    assert (machine.count, machine.accelerator.name[:7]) == (8, "My own ")


def test_a_faulty_or_missing_given_file_is_refused_whatever_is_asked(acme, tmp_path):
    with pytest.raises(InputError, match="not valid TOML"):
        find_profile("h100", str(acme("training = true", "training =")))
    with pytest.raises(InputError, match=r"no profile file .*gone\.toml"):
        find_profile("h100", str(tmp_path / "gone.toml"))


# --- refusals: file and key are named ----------------------------------------------------------------


@pytest.fixture
def acme(tmp_path):
    """Writes the template as a profile, with one text replaced, and returns its path."""

    def write(old: str = "", new: str = "", name: str = "acme-x1-80gb.toml") -> Path:
        text = (DIR / "_template.toml").read_text(encoding="utf-8")
        assert old in text
        path = tmp_path / name
        path.write_text(text.replace(old, new, 1) if old else text, encoding="utf-8")
        return path

    return write


def test_the_template_is_a_valid_profile(acme):
    x1 = load_profile(acme())
    assert x1.peak_flop_per_s["bf16"].value == 400 * TERA
    assert x1.memory_byte.value == 80 * GIB
    assert x1.internode_byte_per_s.value == 25 * GIGA  # 200 Gbit/s
    assert x1.notes[0][0] == "power limit"


REFUSALS = {
    "unknown unit": ('unit = "TB/s"', 'unit = "TBps"', "memory.bandwidth: unknown unit 'TBps'"),
    "wrong dimension": (
        'unit = "TB/s"',
        'unit = "W"',
        "memory.bandwidth: 'W' measures power, needed byte rate",
    ),
    "unknown key": ("training = true", "trianing = true", "unknown key 'trianing'"),
    "unknown table": ("[[notes]]", "[power.peak]\nvalue = 1\n[[notes]]", "unknown key 'power.peak'"),
    "unknown dtype": ("[peak.bf16]", "[peak.bfloat16]", "unknown key 'peak.bfloat16'"),
    "missing source": (
        'source = "Acme X1 datasheet, revision 3, page 3"\n',
        "",
        "'power.limit.source' is missing",
    ),
    "empty source": (
        'source = "Acme X1 datasheet, revision 3, page 3"',
        'source = ""',
        "'power.limit.source' is ''",
    ),
    "missing date": ("as_of = 2025-04-10\n", "", "'memory.capacity.as_of' is missing"),
    "unknown status": ('status = "verified" ', 'status = "sure" ', "'peak.fp32.status' is 'sure'"),
    "low above value": (
        "low = 50 ",
        "low = 80 ",
        "power.idle: low 80.0 <= value 75.0 <= high 100.0 does not hold",
    ),
    "high below value": ("high = 100", "high = 70", "power.idle: low 50.0 <= value 75.0 <= high 70.0"),
    "half a range": ("high = 100\n", "", "power.idle: low and high belong together"),
    "idle above limit": ("value = 500", "value = 70", "power.idle 75.0 W is not below power.limit 70.0 W"),
    "sparse peak": (
        "value = 400",
        "value = 800\nsparse = true",
        "peak.bf16: sparse is true; give the dense figure",
    ),
    "not above 0": ("value = 2.4", "value = 0", "'memory.bandwidth.value' is 0"),
    "not finite": ("value = 2.4", "value = inf", "'memory.bandwidth.value' is inf"),
    "text for a number": ("value = 2.4", 'value = "2.4"', "'memory.bandwidth.value' is '2.4'"),
    "id not the file name": (
        'id = "acme-x1-80gb"',
        'id = "acme-x2"',
        "id is 'acme-x2', it must equal the file name",
    ),
    "key given twice": ("value = 2.4", "value = 2.4\nvalue = 3", "not valid TOML"),
    "bandwidth a thousand times off": (
        'unit = "TB/s"',
        'unit = "PB/s"',
        r"memory\.bandwidth: 2\.4e\+06 GB/s is impossible, accepted: 5 to 400000 GB/s",
    ),
    "power in kW": (
        'value = 500\nunit = "W"',
        'value = 500\nunit = "kW"',
        r"power\.limit: 500000 W is impossible, accepted: 1 to 5000 W",
    ),
    "end of a range": ("high = 100\n", "high = 4000\n", r"power\.idle: 50 to 4000 W is impossible"),
    "fp32 too low for bf16": ("value = 50\n", "value = 5\n", r"peak\.bf16: bf16 is 80 times fp32"),
    "date to come": (
        "as_of = 2025-04-10",
        "as_of = 2999-01-01",
        r"memory\.capacity: as_of is 2999-01-01, in the fut",
    ),
    "release to come": (
        "release_date = 2025-03-01",
        'release_date = "2999"',
        "release_date is 2999, in the future",
    ),
    "release before any": (
        "release_date = 2025-03-01",
        "release_date = 2004-12-31",
        "2004-12-31, accepted: from 2005",
    ),
    "fitted without a fit": (
        'status = "spec-only"',
        'status = "fitted"',
        r"no acme-x1-80gb\.fit\.json lies beside",
    ),
    "name of an instance": ('"x1"', '"aws:p5.48xlarge"', "'aws:p5.48xlarge' reads as a cloud instance"),
    "cannot train": ("training = true", "training = false", "training is false; say why in 'training_note'"),
    "integer rate in flop": (
        "[peak.bf16]",
        "[peak.int8]",
        "'TFLOP/s' measures flop rate, needed operation rate",
    ),
    "no table for memory": ("[memory.bandwidth]", "[memory.speed]", "unknown key 'memory.speed'"),
}


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS)
def test_a_faulty_profile_is_refused(acme, case):
    old, new, message = case
    with pytest.raises(InputError, match=message) as refusal:
        load_profile(acme(old, new))
    assert str(refusal.value).startswith(str(acme(old, new)) + ": ")


def test_a_fit_beside_a_profile_that_says_spec_only_is_refused(acme):
    path = acme()
    path.with_suffix(".fit.json").write_text("{}")
    with pytest.raises(
        InputError, match=r"status is 'spec-only', and acme-x1-80gb\.fit\.json lies beside it"
    ):
        load_profile(path)


@pytest.mark.parametrize(("day", "good"), [("2030-05-06", True), ("2030-05-07", False), ("2030", True)])
def test_dates_are_taken_up_to_today(acme, monkeypatch, day, good):
    class Clock(datetime.date):
        @classmethod
        def today(cls):
            return cls(2030, 5, 6)

    monkeypatch.setattr(quantity.datetime, "date", Clock)
    if good:
        return quantity.check_past(day, "here")
    with pytest.raises(InputError, match="here is 2030-05-07, in the future"):
        quantity.check_past(day, "here")


def test_a_slow_clock_is_no_reason_to_refuse_what_is_shipped(monkeypatch):
    class Clock(datetime.date):
        @classmethod
        def today(cls):
            return cls(2001, 1, 1)

    monkeypatch.setattr(quantity.datetime, "date", Clock)
    assert all(load_profile(path) for path in PATHS)


def test_a_wafer_may_have_as_much_more_as_its_area(acme):
    """46 225 mm2 over 850 mm2: 54 times the 400 000 GB/s of one chip."""
    assert find_profile("cerebras-wse3").bandwidth_byte_per_s.value == 21e15
    with pytest.raises(InputError, match=r"memory\.bandwidth"):
        load_profile(acme('value = 2.4\nunit = "TB/s"', 'value = 21\nunit = "PB/s"'))


def test_a_file_that_is_no_text_is_refused(acme):
    path = acme()
    path.write_bytes(b'id = "acme-x1-80gb"\nname = "\xff\xfe"\n')
    with pytest.raises(InputError, match="not valid TOML"):
        find_profile(str(path))


def test_readme_states_the_bounds_of_every_figure():
    rows = readme_rows("Figure", "Least", "Most", "Unit")
    stated = {key: (unit, float(least), float(most)) for key, (least, most, unit) in rows.items()}
    assert stated == BOUNDS
    assert set(BOUNDS) == set(DIMENSIONS)
    assert all(UNITS[unit][0] == DIMENSIONS[key] for key, (unit, _, _) in BOUNDS.items())


def test_a_new_profile_may_not_go_by_the_name_of_another(acme):
    path = acme()
    check_new(path.read_text(), path, "Acme X1 80 GB")
    with pytest.raises(InputError, match=r"alias 'H100 SXM' belongs to 2 profiles: .*acme.*nvidia-h100-sxm5"):
        check_new(path.read_text(), path, "H100 SXM")


@pytest.mark.parametrize("content", ["{", "[1]", "\xff"])
def test_a_broken_fit_or_products_file_is_named(own, tmp_path, monkeypatch, content):
    fit = own / "nvidia-l4.fit.json"
    fit.write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=str(fit)):
        chip.chip_fit("nvidia-l4")
    monkeypatch.setattr(chip, "PRODUCTS_JSON", fit)
    with pytest.raises(InputError, match=str(fit)):
        chip.shared.__wrapped__()


def test_an_instance_given_twice_in_a_file_is_refused(tmp_path):
    source = min((DIR / "nodes").glob("aws-*.toml"))
    text = source.read_text(encoding="utf-8")
    entry = text[text.index("[[instance]]") :].split("\n\n", 1)[0]
    path = tmp_path / source.name
    path.write_text(f"{text}\n{entry}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"instance: '.*' stands there twice"):
        load_file(path)


# (key, its peak in units of bf16, kind, accumulate): a headline with sparsity beside a dense figure
HEADLINES = {
    "fp16": ("fp16", 2, "gpu", "full rate"),
    "fp8": ("fp8", 4, "gpu", "full rate"),
    "fp8 of an asic": ("fp8", 4, "asic", "full rate"),
    "tf32": ("tf32", 1, "gpu", "full rate"),
    "bf16 beside a dense fp8": ("fp8", 1, "gpu", "full rate"),
    "bf16 beside a dense tf32": ("tf32", 0.25, "gpu", "full rate"),
    "int8": ("int8", 4, "gpu", "full rate"),
    "int8 at half rate": ("int8", 8, "gpu", "half rate"),
}


def with_peak(acme, key, share, kind, accumulate, more=""):
    unit = "TOP/s" if key == "int8" else "TFLOP/s"
    peak = f'[peak.{key}]\nvalue = {400 * share}\nunit = "{unit}"\nsource = "s"\nas_of = 2025-01-01\n'
    path = acme("[memory.capacity]", f'{peak}status = "verified"\n{more}\n[memory.capacity]')
    text = path.read_text().replace('kind = "gpu"', f'kind = "{kind}"').replace("full rate", accumulate)
    path.write_text(text)
    return path


@pytest.mark.parametrize("case", HEADLINES.values(), ids=HEADLINES)
def test_a_sparse_headline_marked_dense_is_refused(acme, case):
    with pytest.raises(InputError, match=r"peak\.\w+: .* dense peaks stand at .* sparsity is halved"):
        load_profile(with_peak(acme, *case))


@pytest.mark.parametrize(
    "case",
    [
        ("fp8", 2, "gpu", "full rate"),  # H100
        ("fp8", 1, "asic", "full rate"),  # Gaudi 3
        ("tf32", 0.5, "gpu", "full rate"),  # A100
        ("tf32", 1, "asic", "full rate"),  # Trainium 1
        ("int8", 2, "gpu", "full rate"),  # T4
        ("int8", 157 / 2250, "gpu", "full rate"),  # B300
        ("int8", 4, "gpu", "half rate"),  # RTX 4090
        ("int8", 750 / 188, "asic", "full rate"),  # Groq
    ],
)
def test_dense_peaks_of_real_chips_are_taken(acme, case):
    assert load_profile(with_peak(acme, *case))


def test_a_source_that_says_dense_is_taken_at_its_word_with_a_note(acme):
    fp8 = ("fp8", 4.4, "gpu", "full rate")  # Rubin
    with pytest.raises(InputError, match=r"peak\.fp8"):
        load_profile(with_peak(acme, *fp8, more="sparse = false"))
    assert load_profile(with_peak(acme, *fp8, more='sparse = false\nnote = "dense, says the maker"'))


def test_an_estimate_without_any_range_is_refused(acme):
    path = acme("low = 50 ", "# ")
    path.write_text(path.read_text().replace("high = 100\n", ""))
    with pytest.raises(InputError, match=r"power\.idle: an estimate carries a range"):
        load_profile(path)


def test_a_missing_file_is_refused():
    with pytest.raises(InputError, match=r"no profile file 'nowhere\.toml'"):
        find_profile("nowhere.toml")


# --- README against loader ---------------------------------------------------------------------------


def model_fields(model: type[BaseModel], prefix: str = "") -> dict[str, bool]:
    """Every key the loader takes and whether it must be there; tables that only group are opened."""
    fields: dict[str, bool] = {}
    for name, field in model.model_fields.items():
        group = field.annotation
        if isinstance(group, type) and issubclass(group, BaseModel) and group is not Quantity:
            fields |= model_fields(group, f"{prefix}{name}.")
        else:
            fields[f"{prefix}{name}"] = field.is_required()
    return fields


def readme_rows(*header: str) -> dict[str, list[str]]:
    text = (DIR / "README.md").read_text(encoding="utf-8")
    block = text.split("| " + " | ".join(header) + " |\n", 1)[1].split("\n\n", 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()[1:]]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_readme_lists_exactly_the_fields_the_loader_takes():
    rows = readme_rows("Field", "Type", "Unit", "Default", "Meaning")
    fields = model_fields(ProfileFile)
    assert set(rows) == set(fields)
    for name, (_, unit, default, meaning) in rows.items():
        assert (default == "required") == fields[name], name
        assert meaning
        if name in DIMENSIONS:
            assert UNITS[unit][0] == DIMENSIONS[name], name


def test_readme_lists_exactly_the_keys_of_a_quantity():
    rows = readme_rows("Key", "Type", "Default", "Meaning")
    fields = model_fields(Quantity)
    assert set(rows) == set(fields)
    for name, (_, default, _) in rows.items():
        assert (default == "required") == fields[name], name


def test_readme_states_the_class_default_of_the_vector_peak():
    share = VECTOR_SHARE
    assert (share.value, share.low, share.high) == (1 / 32, 1 / 64, 1 / 8)
    assert "1/32 (1/64 to 1/8) of bf16" in (DIR / "README.md").read_text(encoding="utf-8")


def test_readme_states_the_class_defaults_of_power():
    text = (DIR / "README.md").read_text(encoding="utf-8")
    for share in IDLE_SHARE.values():
        assert f"{share.value:.2f} ({share.low:.2f} to {share.high:.2f})" in text
    assert f"{LIMIT_W.value:g} ({LIMIT_W.low:g} to {LIMIT_W.high:g})" in text


def test_draws_of_a_profile_keep_its_range(accelerator):
    idle_w = accelerator.idle_w.draw("idle_w")
    assert idle_w.min() > 0
    assert replace(accelerator, name="x").idle_w.draw("idle_w").tolist() == idle_w.tolist()


# --- against the tables the figures were taken from --------------------------------------------------

COLUMN = {
    "peak.fp64": "peak_fp64_tflops",
    "peak.fp64_matrix": "peak_fp64_matrix_tflops",
    "peak.fp32": "peak_fp32_tflops",
    "peak.tf32": "peak_tf32_tflops",
    "peak.fp16": "peak_fp16_matrix_tflops",
    "peak.bf16": "peak_bf16_matrix_tflops",
    "peak.fp8": "peak_fp8_matrix_tflops",
    "peak.fp4": "peak_fp4_matrix_tflops",
    "peak.int8": "peak_int8_tops",
    "peak.fp16_vector": "peak_fp16_vector_tflops",
    "memory.bandwidth": "memory_bandwidth_gb_s",
    "cache.onchip": "onchip_mem_mb",
    "compute_units": "compute_units",
    "clock.boost": "clock_boost_mhz",
    "link.intranode": "intranode_gb_s_per_direction",
    "link.internode": "internode_gbit_s_per_accelerator",
    "power.limit": "tdp_w",
    "die.process": "process_nm",
    "die.area": "die_area_mm2",
    "die.transistors": "transistors_b",
    "price.launch": "price_usd",
}
WITH_DATA = pytest.mark.skipif("PREDICTOR_DATA" not in os.environ, reason="needs PREDICTOR_DATA")


def rows(name: str) -> list[dict[str, str]]:
    with (Path(os.environ["PREDICTOR_DATA"]) / "hardware" / name).open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.soak
@WITH_DATA
def test_shipped_figures_are_those_of_the_source_table_or_their_note_says_why_not():
    status = {(row["id"], row["column"]): row["status"] for row in rows("accelerators_provenance.csv")}
    for table in rows("accelerators.csv"):
        id_ = table["id"]
        assert id_ in IDS
        figures = raw_quantities(raw(DIR / f"{id_}.toml"))
        for key, column in COLUMN.items():
            figure = figures.get(key)
            if not table[column]:
                continue
            assert figure, f"{id_}: {key} is {table[column]} in the table"
            if figure["value"] == float(table[column]):
                assert figure["status"] == status[id_, column], f"{id_}: {key}"
            else:
                assert figure.get("note"), f"{id_}: {key} is {figure['value']}, table {table[column]}"


@pytest.mark.soak
@WITH_DATA
def test_shipped_memory_architecture_and_release_are_those_of_the_source_table():
    for table in rows("accelerators.csv"):
        file = raw(DIR / f"{table['id']}.toml")
        capacity = file["memory"]["capacity"]
        if table["memory_reported_mib"]:
            assert capacity["value"] == float(table["memory_reported_mib"]), table["id"]
        if table["memory_gb"] and "note" not in capacity:
            size_byte = UNITS[capacity["unit"]][1] * capacity["value"]
            assert 0.9 < size_byte / (float(table["memory_gb"]) * GIB) < 1.05, table["id"]
        assert file["architecture"] == table["architecture"], table["id"]
        if table["release_date"]:
            assert table["release_date"].startswith(str(file["release_date"])), table["id"]


def test_every_dtype_is_covered_by_the_comparison():
    assert {f"peak.{dtype}" for dtype in DTYPES} <= set(COLUMN)
