"""One contract over every profile, found by listing; the traps of datasheets; every refusal."""

import csv
import os
import re
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import BaseModel

from predictor import profile
from predictor.errors import InputError
from predictor.profile import DIMENSIONS, DTYPES, Accelerator, find_profile, fold, list_profiles, load_profile
from predictor.units import GIB, GIGA, MIB, TERA, UNITS
from predictor.values import STATUSES, Sourced

DIR = profile.profiles_dir()
PATHS = sorted(DIR.glob("[!_]*.toml"))
IDS = [path.stem for path in PATHS]


def quantities(accelerator: Accelerator) -> dict[str, Sourced]:
    found = {f"peak.{dtype}": peak for dtype, peak in accelerator.peak_flop_per_s.items()}
    for name in Accelerator.__dataclass_fields__:
        value = getattr(accelerator, name)
        if isinstance(value, Sourced):
            found[name] = value
    return found


@pytest.fixture(params=PATHS, ids=IDS)
def path(request):
    return request.param


@pytest.fixture
def accelerator(path):
    return load_profile(path)


# --- the contract ------------------------------------------------------------------------------------


def test_at_least_the_common_accelerators_are_there():
    assert len(IDS) >= 25
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


def test_figures_are_in_a_plausible_range_of_their_unit(accelerator):
    assert all(0.1 * TERA < p.value < 20_000 * TERA for p in accelerator.peak_flop_per_s.values())
    assert 8 * GIB < accelerator.memory_byte.value < 512 * GIB
    assert 100 * GIGA < accelerator.memory_byte_per_s.value < 20_000 * GIGA
    assert accelerator.clock_hz is None or 5e8 < accelerator.clock_hz.value < 4e9
    assert accelerator.cache_byte is None or 1 * MIB < accelerator.cache_byte.value < GIB
    assert 5 * GIGA < accelerator.intranode_byte_per_s.value < 2000 * GIGA
    assert 10 < accelerator.embodied_kgco2e.value < 2000
    assert 1 <= accelerator.per_node <= accelerator.fabric_size


def test_idle_power_is_below_the_limit(accelerator):
    assert accelerator.idle_w.high < accelerator.limit_w.low
    # above a half only where "idle" is the lowest production power (TPU)
    assert accelerator.idle_w.value / accelerator.limit_w.value < (0.5 if accelerator.kind != "tpu" else 0.6)


def test_sixteen_bit_peak_is_that_of_a_dense_matrix_engine(accelerator):
    """Vector engines give 1 to 2 times fp32, matrix engines up to 30 (B200), TPU 32 by the class default."""
    peaks = accelerator.peak_flop_per_s
    for dtype in ("fp16", "bf16"):
        if dtype in peaks:
            assert 0.9 < peaks[dtype].value / peaks["fp32"].value < 35


def test_no_peak_is_a_sparse_headline(accelerator):
    """8 bit runs at one to two times 16 bit, 16 bit at the same in both formats, tf32 at half or less."""
    peaks = accelerator.peak_flop_per_s
    if "fp8" in peaks:
        assert 0.9 < peaks["fp8"].value / peaks["bf16"].value < 2.2
    if {"fp16", "bf16"} <= peaks.keys():
        assert peaks["fp16"].value == peaks["bf16"].value
    if "tf32" in peaks:
        assert peaks["tf32"].value <= peaks["bf16"].value


def test_release_and_status_are_told(accelerator, path):
    assert re.match(r"20[12]\d", accelerator.release_date)
    assert (accelerator.status == "fitted") == path.with_suffix(".fit.json").exists()
    assert accelerator.aliases
    assert accelerator.kind in ("gpu", "tpu", "asic", "cpu")


def test_file_reads_well(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\t| $", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) < 250
    assert text.endswith("\n")


def test_names_belong_to_one_profile():
    owner = {}
    for id_ in IDS:
        for name in {fold(name) for name in (id_, *find_profile(id_).aliases)}:
            assert name not in owner, f"{name}: {owner.get(name)} and {id_}"
            owner[name] = id_


def test_every_alias_finds_its_profile(accelerator):
    for name in accelerator.aliases:
        assert find_profile(name) == accelerator


def test_a_profile_is_read_in_under_5_ms(path):
    load_profile(path)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        load_profile(path)
        times.append(time.perf_counter() - start)
    assert min(times) < 5e-3


# --- traps -------------------------------------------------------------------------------------------


def tflops(name: str, dtype: str) -> float:
    return find_profile(name).peak_flop_per_s[dtype].value / TERA


def test_v100_sxm2_is_the_300_w_board():
    assert find_profile("v100").limit_w.value == 300
    assert find_profile("V100-32GB").limit_w.value == 300


def test_v100_has_no_bf16():
    assert set(find_profile("v100").peak_flop_per_s) == {"fp64", "fp32", "fp16"}


def test_p100_fp16_runs_on_the_vector_units():
    assert tflops("p100", "fp16") == pytest.approx(2 * tflops("p100", "fp32"), rel=1e-3)


def test_l4_has_its_own_bandwidth_not_the_l40s():
    assert find_profile("l4").memory_byte_per_s.value == pytest.approx(300 * GIGA, rel=0.01)
    assert find_profile("l40s").memory_byte_per_s.value == 864 * GIGA


def test_h100_peaks_are_dense():
    assert tflops("h100", "bf16") == 989
    assert tflops("h100", "fp8") == 1979


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
    assert die.per_node == 8
    assert any(topic == "two dies" for topic, _, _ in die.notes)


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


def test_figures_from_memory_stay_marked():
    assert find_profile("l40s").cache_byte.status == "from memory"


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
    "no table for memory": ("[memory.bandwidth]", "[memory.speed]", "unknown key 'memory.speed'"),
}


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS)
def test_a_faulty_profile_is_refused(acme, case):
    old, new, message = case
    with pytest.raises(InputError, match=message) as refusal:
        load_profile(acme(old, new))
    assert str(refusal.value).startswith("acme-x1-80gb.toml: ")


def test_an_estimate_without_any_range_is_refused(acme):
    path = acme("low = 50 ", "# ")
    path.write_text(path.read_text().replace("high = 100\n", ""))
    with pytest.raises(InputError, match=r"power\.idle: an estimate carries a range"):
        load_profile(path)


def test_a_profile_without_any_peak_to_go_by_is_refused(acme):
    path = acme("[peak.fp32]", "[peak.fp64]")
    path.write_text(path.read_text().replace("[peak.bf16]", "[peak.fp8]"))
    with pytest.raises(InputError, match="peak needs fp32, or bf16 or fp16"):
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
        if isinstance(group, type) and issubclass(group, BaseModel) and group is not profile._Quantity:
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
    fields = model_fields(profile._File)
    assert set(rows) == set(fields)
    for name, (_, unit, default, meaning) in rows.items():
        assert (default == "required") == fields[name], name
        assert meaning
        if name in DIMENSIONS:
            assert UNITS[unit][0] == DIMENSIONS[name], name


def test_readme_lists_exactly_the_keys_of_a_quantity():
    rows = readme_rows("Key", "Type", "Default", "Meaning")
    fields = model_fields(profile._Quantity)
    assert set(rows) == set(fields)
    for name, (_, default, _) in rows.items():
        assert (default == "required") == fields[name], name


def test_readme_states_the_class_default_of_the_vector_peak():
    share = profile.VECTOR_SHARE
    assert (share.value, share.low, share.high) == (1 / 32, 1 / 64, 1 / 8)
    assert "1/32 (1/64 to 1/8) of bf16" in (DIR / "README.md").read_text(encoding="utf-8")


def test_draws_of_a_profile_keep_its_range(accelerator):
    idle_w = accelerator.idle_w.draw("idle_w")
    assert idle_w.min() > 0
    assert replace(accelerator, name="x").idle_w.draw("idle_w").tolist() == idle_w.tolist()


# --- against the tables the figures were taken from --------------------------------------------------

COLUMN = {
    "peak.fp64": "peak_fp64_tflops",
    "peak.fp32": "peak_fp32_tflops",
    "peak.tf32": "peak_tf32_tflops",
    "peak.fp16": "peak_fp16_matrix_tflops",
    "peak.bf16": "peak_bf16_matrix_tflops",
    "peak.fp8": "peak_fp8_matrix_tflops",
    "memory.bandwidth": "memory_bandwidth_gb_s",
    "cache.onchip": "onchip_mem_mb",
    "compute_units": "compute_units",
    "clock.boost": "clock_boost_mhz",
    "link.intranode": "intranode_gb_s_per_direction",
    "link.internode": "internode_gbit_s_per_accelerator",
    "power.limit": "tdp_w",
}
# (profile, key): why the file differs from the table
DIFFERS = {
    ("nvidia-p100-sxm2-16gb", "peak.fp16"): "no matrix units: the vector rate",
    ("nvidia-a10g", "power.limit"): "the driver offers 300 W",
    ("google-tpu-v3", "power.limit"): "highest measured, not the TDP",
    ("google-tpu-v4", "power.limit"): "highest measured, not the TDP",
    ("google-tpu-v5e", "power.limit"): "estimate; no TDP in the table",
    ("google-tpu-v5p", "power.limit"): "estimate; the TDP in the table is one too",
    ("aws-trainium1", "power.limit"): "estimate; no TDP in the table",
}
WITH_DATA = pytest.mark.skipif("PREDICTOR_DATA" not in os.environ, reason="needs PREDICTOR_DATA")


@pytest.mark.soak
@WITH_DATA
def test_every_shipped_figure_is_the_one_of_its_source_table(path):
    hardware = Path(os.environ["PREDICTOR_DATA"]) / "hardware"
    with (hardware / "accelerators.csv").open(newline="") as lines:
        table = {row["id"]: row for row in csv.DictReader(lines)}[path.stem]
    with (hardware / "accelerators_provenance.csv").open(newline="") as lines:
        status = {row["column"]: row["status"] for row in csv.DictReader(lines) if row["id"] == path.stem}
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    for key, column in COLUMN.items():
        figure = raw
        for part in key.split("."):
            figure = figure.get(part, {})
        if (path.stem, key) in DIFFERS:
            assert str(figure["value"]) != table[column]
        elif figure or table[column]:
            assert figure["value"] == float(table[column]), key
            assert figure["status"] == status[column], key
    if table["memory_reported_mib"]:
        assert raw["memory"]["capacity"]["value"] == float(table["memory_reported_mib"])
    size_byte = UNITS[raw["memory"]["capacity"]["unit"]][1] * raw["memory"]["capacity"]["value"]
    assert 0.93 < size_byte / (float(table["memory_gb"]) * GIB) < 1.05
    assert raw["architecture"] == table["architecture"]
    assert str(raw["release_date"]) == table["release_date"]


def test_every_dtype_is_covered_by_the_comparison():
    assert {f"peak.{dtype}" for dtype in DTYPES} <= set(COLUMN)
