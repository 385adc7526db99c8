"""A device's rates from its own measurements: what is written, what is refused, what is recovered."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from predictor.calibrate import fit_user, measure_power
from predictor.calibrate.case import Case
from predictor.calibrate.fit_checks import check
from predictor.calibrate.measure import Plan, measure
from predictor.calibrate.measure_device import Device, find_device, summed_up, timed
from predictor.calibrate.measure_kernels import Window, attention, convolution, layer_norm, product
from predictor.calibrate.measure_menu import PRODUCTS
from predictor.calibrate.measure_power import Monitor, Reading
from predictor.calibrate.measure_task import merged, moved_byte
from predictor.calibrate.measurements import COLUMNS, Journal, Measured, kernel_cells, read_measurements
from predictor.calibrate.plots import residual_plot
from predictor.calibrate.posterior import posterior
from predictor.calibrate.residuals import Points, kernel_points
from predictor.calibrate.step_factors import StepPair, StepPrior, step_factors
from predictor.calibrate.step_pairs import steps_of
from predictor.calibrate.tables import read_tables
from predictor.errors import InputError, PredictorError
from predictor.ir import Work
from predictor.kernels.chip import rates
from predictor.ops import Kernel
from predictor.profile import find_profile, profiles_dir

H100 = "nvidia-h100-sxm5-80gb"
CPU = find_device("cpu")


# Rows of a device with known rates


def product_row(unit, m, n, k, g=1, line=2, device="NVIDIA H100 80GB HBM3"):
    byte = {"fp8": 1, "fp32": 4}.get(unit, 2)
    work = Work(2 * g * m * n * k, 0, 0, byte * g * (m * k + k * n), byte * g * m * n)
    dtype = {"bf16": "bfloat16", "fp8": "float8", "fp32": "float32"}[unit]
    kernel = Kernel("matmul", work, dtype, (g, m, n, k))
    key = f"matmul/{unit}/{g}x{m}x{n}x{k}"
    extra = (None, None, None, device, "1", "2", "CUDA", "")
    return Measured(line, key, "matmul", "forward", unit, kernel, 1.0, 1.0, 1.0, True, *extra)


def measured_at(accelerator, truth, shapes=PRODUCTS, unit="bf16", noise=0.04, seed=0):
    """Rows of a chip whose rates are ``truth``, with the scatter of real kernels."""
    chip = fit_user.prior_chip(accelerator, None)
    chip = replace(chip, **{name: replace(getattr(chip, name), value=x) for name, x in truth.items()})
    rows = [product_row(unit, *shape, line=i + 2) for i, shape in enumerate(shapes)]
    scatter = np.exp(np.random.default_rng(seed).normal(0.0, noise, len(rows)))
    seconds = fit_user.product_s(rows, chip, accelerator) * scatter
    return [replace(r, time_s=s, low_s=0.99 * s, high_s=1.01 * s) for r, s in zip(rows, seconds, strict=True)]


def written(path, rows):
    """The rows as ``measure`` writes them."""
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, COLUMNS, restval="")
        out.writeheader()
        for r in rows:
            out.writerow(
                {"schema": 1, "key": r.key, "kind": r.kind, "op": "aten.mm", "phase": r.phase, "unit": r.unit}
                | kernel_cells(r.kernel)
                | {"time_s": r.time_s, "low_s": r.low_s, "high_s": r.high_s, "device": r.device}
                | {"driver": r.driver, "torch": r.torch, "runtime": r.runtime, "cold": 1}
            )
    return path


@pytest.fixture
def own(tmp_path, monkeypatch):
    """An empty folder for the user's own profiles and fits."""
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.setenv("PREDICTOR_PROFILES", str(folder))
    return folder


TRUTH = {"eta": 0.72, "em": 0.70, "t0_s": 3.4e-6, "throttle": 0.09}


@pytest.mark.parametrize("name", [H100, "nvidia-a100-sxm4-40gb", "amd-mi300x"])
def test_known_rates_of_a_chip_come_back(name):
    accelerator = find_profile(name)
    found = fit_user.fit_rates(measured_at(accelerator, TRUTH), accelerator)
    for rate, truth in TRUTH.items():
        value, sd = found.values[rate]
        assert abs(np.log(value / truth)) < max(3.5 * sd, 0.03), rate
    assert found.values["eta"][1] < 0.03
    low, high, rows = found.quantiles["matmul"]
    assert rows == len(PRODUCTS)
    assert -0.2 < low < 0 < high < 0.2


def test_the_fit_is_the_same_every_time():
    accelerator = find_profile(H100)
    rows = measured_at(accelerator, TRUTH)
    one, two = fit_user.fit_rates(rows, accelerator), fit_user.fit_rates(rows, accelerator)
    assert one.values == two.values


def test_few_rows_move_less_and_say_less():
    accelerator = find_profile(H100)
    rows = measured_at(accelerator, TRUTH)
    many = fit_user.fit_rates(rows, accelerator)
    few = fit_user.fit_rates(rows[: fit_user.LEAST_ROWS], accelerator)
    assert few.values["t0_s"][1] > many.values["t0_s"][1]
    assert any("ranges stay wide" in note for note in few.notes)


def test_a_rate_without_rows_stays_that_of_the_class():
    accelerator = find_profile(H100)
    found = fit_user.fit_rates(measured_at(accelerator, TRUTH), accelerator)
    assert "attention" not in found.values
    assert any(note.startswith("attention: 0 rows") for note in found.notes)


def test_8_bit_products_have_a_rate_of_their_own():
    accelerator = find_profile(H100)
    rows = measured_at(accelerator, TRUTH)
    eight = measured_at(accelerator, {**TRUTH, "quantized": 0.8}, PRODUCTS[:12], "fp8")
    found = fit_user.fit_rates([*rows, *eight], accelerator)
    assert found.values["quantized"][0] == pytest.approx(0.8, rel=0.1)


def test_one_row_that_something_slowed_down_does_not_decide():
    accelerator = find_profile(H100)
    rows = measured_at(accelerator, TRUTH)
    rows[0] = replace(rows[0], time_s=20 * rows[0].time_s, low_s=rows[0].low_s, high_s=21 * rows[0].time_s)
    assert fit_user.fit_rates(rows, accelerator).values["eta"][0] == pytest.approx(0.72, rel=0.06)


def test_a_measurement_is_weighed_against_the_prior():
    """One unknown, one row: precision-weighted mean, and the precisions add."""
    found = posterior(lambda x: x, np.array([0.1]), np.array([0.2]), np.array([0.0]), np.array([0.1]))
    assert found.x[0] == pytest.approx(0.1 * 0.2**-2 / (0.2**-2 + 0.1**-2))
    assert found.sd[0] == pytest.approx((0.2**-2 + 0.1**-2) ** -0.5)


# What is refused, and what is said


def test_a_missing_column_is_named(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("key,kind\na,b\n")
    with pytest.raises(InputError, match=r"missing: schema, op.*calibrate measure"):
        read_measurements(path)


@pytest.mark.parametrize(
    ("cell", "value", "message"),
    [
        ("time_s", "nan", "time_s is nan"),
        ("time_s", "-1", "time_s is -1"),
        ("time_s", "fast", "time_s is 'fast', a number"),
        ("m", "inf", "m is inf"),
        ("unit", "fp17", "unit 'fp17' is none of"),
        ("low_s", "9", "does not hold"),
        ("schema", "7", "version '7'"),
    ],
)
def test_a_bad_cell_is_refused_with_its_line(tmp_path, cell, value, message):
    path = written(tmp_path / "x.csv", measured_at(find_profile(H100), TRUTH, PRODUCTS[:3]))
    header, *lines = list(csv.reader(path.open()))
    lines[1][header.index(cell)] = value
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    with pytest.raises(InputError, match=f"line 3: .*{message}"):
        read_measurements(path)


def test_a_measurement_that_comes_twice_is_refused(tmp_path):
    (row,) = measured_at(find_profile(H100), TRUTH, PRODUCTS[:1])
    with pytest.raises(InputError, match="was measured in line 2 already"):
        read_measurements(written(tmp_path / "x.csv", [row, row]))


def test_times_in_milliseconds_are_refused():
    """A thousandth of the rate is no device; neither is a thousand times the peak."""
    accelerator = find_profile(H100)
    rows = measured_at(accelerator, TRUTH)
    slow = [replace(r, time_s=1e3 * r.time_s, low_s=1e3 * r.low_s, high_s=1e3 * r.high_s) for r in rows]
    with pytest.raises(InputError, match="in seconds, not in ms"):
        check(Path("x.csv"), slow, accelerator)
    fast = [replace(r, time_s=1e-3 * r.time_s, low_s=1e-3 * r.low_s, high_s=1e-3 * r.high_s) for r in rows]
    with pytest.raises(InputError, match="the profile's dense peak is 989"):
        check(Path("x.csv"), fast, accelerator)


def test_watts_in_milliwatts_are_refused():
    accelerator = find_profile(H100)
    (row,) = measured_at(accelerator, TRUTH, PRODUCTS[:1])
    with pytest.raises(InputError, match="the profile's limit is 700"):
        check(Path("x.csv"), [replace(row, watts=650_000.0)], accelerator)


def test_another_device_than_the_profiles_is_refused():
    rows = measured_at(find_profile(H100), TRUTH, PRODUCTS[:2])
    other = [replace(row, device="NVIDIA A100-SXM4-80GB") for row in rows]
    with pytest.raises(InputError, match="which is nvidia-a100-sxm4-80gb; the profile is that of"):
        check(Path("x.csv"), other, find_profile(H100))
    with pytest.raises(InputError, match="several devices"):
        check(Path("x.csv"), [rows[0], other[1]], find_profile(H100))


def test_a_name_that_no_profile_has_is_taken_and_said():
    rows = [replace(r, device="Engineering Sample 7") for r in measured_at(find_profile(H100), TRUTH)]
    notes = check(Path("x.csv"), rows, find_profile(H100))
    assert notes[0].startswith("no profile has the name 'Engineering Sample 7'")


def test_too_few_products_are_refused():
    accelerator = find_profile(H100)
    with pytest.raises(InputError, match="5 products in bf16, a fit needs 8"):
        fit_user.fit_rates(measured_at(accelerator, TRUTH, PRODUCTS[:5]), accelerator)


def test_a_peak_that_is_too_low_is_refused():
    """Products at 1.3 of the peak: the profile's peak is wrong."""
    accelerator = find_profile(H100)
    rows = measured_at(accelerator, {**TRUTH, "eta": 1.3, "throttle": 0.001})
    with pytest.raises(InputError, match=r"of the bf16 peak in the profile"):
        fit_user.fit_rates(rows, accelerator)


def test_noisy_repeats_are_said():
    rows = [replace(r, high_s=2 * r.time_s) for r in measured_at(find_profile(H100), TRUTH)]
    assert any("vary by over 15%" in note for note in check(Path("x.csv"), rows, find_profile(H100)))


# The command


def test_fit_writes_what_predictions_read(predictor, own):
    path = written(Path("x.csv"), measured_at(find_profile(H100), TRUTH))
    done = predictor("calibrate", "fit", path)
    assert done.code == 0, done.err
    assert "eta" in done.out
    fit = json.loads((own / f"{H100}.fit.json").read_text())
    chip = rates(find_profile(H100))
    assert chip.fitted
    assert chip.eta.value == fit["rates"]["eta"][0] == pytest.approx(0.72, rel=0.03)
    assert len(fit["sha256"]) == 64
    assert np.array(fit["covariance"]["matrix"]).shape == (4, 4)


def test_a_fit_marks_a_profile_of_ones_own(predictor, own):
    flags = (
        "--name X1 --vendor Acme --kind gpu --bf16 400 --fp32 50 --memory 80GiB --bandwidth 2TB/s --limit 500"
    )
    added = predictor("hardware", "add", *flags.split(), "--source", "sheet 1", "--alias", "Acme X1 80GB")
    assert added.code == 0, added.err
    (profile,) = own.glob("*.toml")
    accelerator = find_profile(profile.stem)
    rows = [replace(r, device="Acme X1 80GB") for r in measured_at(accelerator, TRUTH)]
    done = predictor("calibrate", "fit", written(Path("x.csv"), rows))
    assert done.code == 0, done.err
    assert "now 'fitted'" in done.err
    assert find_profile(profile.stem).status == "fitted"


def test_a_device_without_a_profile_is_told_to_add_one(predictor, own):
    rows = [replace(r, device="Acme X9") for r in measured_at(find_profile(H100), TRUTH)]
    done = predictor("calibrate", "fit", written(Path("x.csv"), rows))
    assert done.code == 2
    assert "predictor hardware add" in done.err
    assert "Traceback" not in done.err


def test_a_fit_that_others_made_is_kept(predictor, own):
    there = own / f"{H100}.fit.json"
    there.write_text('{"rates": {"eta": [0.5, 0.1]}, "source": "mine", "as_of": "2026-01-01"}')
    path = written(Path("x.csv"), measured_at(find_profile(H100), TRUTH))
    done = predictor("calibrate", "fit", path)
    assert done.code == 2
    assert "--force" in done.err
    assert json.loads(there.read_text())["source"] == "mine"
    assert predictor("calibrate", "fit", path, "--force").code == 0


def test_report_shows_what_is_left_by_kind(predictor, own):
    path = written(Path("x.csv"), measured_at(find_profile(H100), TRUTH))
    assert predictor("calibrate", "fit", path).code == 0
    done = predictor("calibrate", "report", path, "-o", "r.svg", "--format", "json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["matmul"]["median_ape"] < 0.06
    drawn = Path("r.svg").read_text()
    assert "<svg" in drawn
    assert predictor("calibrate", "report", path, "-o", "r.txt").code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("fit",),
        ("fit", "nothing.csv"),
        ("report", "nothing.csv"),
        ("measure", "--device", "tpu"),
        ("measure", "--device", "cpu", "-o", "x.txt"),
        ("fit", "--steps", "nothing.csv", "--hardware", "h100"),
    ],
)
def test_mistakes_end_in_a_sentence(predictor, own, arguments):
    done = predictor("calibrate", *arguments)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert "Traceback" not in done.err


# Measuring, on the processor that runs the tests


def test_a_product_is_counted_as_the_formulas_count_it():
    _, kernels = product("fp32", 4, 5, 6, 2).build(CPU.torch)
    (kernel,) = kernels
    assert kernel.dims == (2, 4, 5, 6)
    assert kernel.work.matrix_flop == 2 * 2 * 4 * 5 * 6
    assert moved_byte(kernels) == 4 * 2 * (4 * 6 + 6 * 5 + 4 * 5)


@pytest.mark.parametrize("role", ["forward", "input", "weight"])
@pytest.mark.parametrize("last", [False, True])
def test_a_convolution_and_its_gradients_have_the_same_flop(role, last):
    at = Window(2, 8, 6, 4, 3, 1, 2)
    _, (kernel,) = convolution("fp32", at, last, role).build(CPU.torch)
    assert kernel.work.matrix_flop == 2 * (2 * 4 * 6 * 6) * (8 // 2 * 3 * 3)
    assert kernel.family == f"conv-{role}"
    assert kernel.last is last


def test_causal_attention_counts_the_scores_it_keeps():
    _, (kernel,) = attention("fp32", 1, 2, 8, 4, True, False).build(CPU.torch)
    assert kernel.work.matrix_flop == 4 * 4 * 2 * (8 * 9 // 2)


def test_a_backward_call_runs_again_and_again():
    call, kernels = attention("fp32", 1, 2, 8, 4, True, True, shared=2).build(CPU.torch)
    assert len(call()) == len(call()) == 3
    assert merged(kernels).work.recompute_flop > 0


def test_a_norm_moves_each_tensor_once():
    _, (kernel,) = layer_norm("fp32", 16, 32, False).build(CPU.torch)
    assert kernel.work.write_byte >= 4 * 16 * 32
    assert kernel.line == 32


def test_longer_calls_take_longer():
    import time

    short, long = (timed(CPU, [lambda s=s: time.sleep(s)], 0.02) for s in (1e-3, 4e-3))
    assert 1e-3 <= short.time_s < long.time_s
    assert short.low_s <= short.time_s <= short.high_s


def test_a_median_is_of_single_calls():
    assert summed_up([2.0, 6.0, 4.0], 2, "queue").time_s == 2.0


class TinyMenu:
    """Three tasks and no loops, in place of the whole menu."""

    def __init__(self, monkeypatch, broken=False):
        from predictor.calibrate import measure as module

        tasks = [product("fp32", 8, 8, 8), product("fp32", 16, 8, 8)]
        if broken:
            tasks.append(product("fp8", 8, 8, 8))
        monkeypatch.setattr(module, "menu", lambda device, quick: tasks)
        monkeypatch.setattr(module, "loops_of", lambda device, quick: tasks[:1])
        monkeypatch.setattr(module, "_LOOP_S", 0.02)


PLAN = Plan(minutes=1.0, steps=False)


def test_a_second_run_goes_on_where_the_first_stopped(tmp_path, monkeypatch):
    TinyMenu(monkeypatch)
    path = tmp_path / "x.csv"
    done = measure(CPU, path, "x", PLAN, lambda _: None)
    assert (done.written, done.failed, done.left) == (2, 0, 0)
    text = path.read_text()
    assert measure(CPU, path, "x", PLAN, lambda _: None).written == 0
    assert path.read_text() == text
    path.write_text(text.rpartition("\n1,")[0] + "\n1,matmul/fp32/1x16")  # cut off in the middle of a row
    assert measure(CPU, path, "x", PLAN, lambda _: None).written == 1
    rows, untimed = read_measurements(path)
    assert (len(rows), untimed) == (2, 0)


def test_no_measurement_starts_after_the_time_is_up(tmp_path, monkeypatch):
    TinyMenu(monkeypatch)
    done = measure(CPU, tmp_path / "x.csv", "x", replace(PLAN, minutes=0.0), lambda _: None)
    assert done.written == 0
    assert done.left > 0


def test_what_cannot_run_is_a_row_with_a_reason(tmp_path, monkeypatch):
    import torch

    def refuse(*_, **__):
        raise RuntimeError("no such kernel\nmore lines")

    TinyMenu(monkeypatch)
    monkeypatch.setattr(torch, "randn", refuse)
    done = measure(CPU, tmp_path / "x.csv", "x", PLAN, lambda _: None)
    assert done.failed == done.written == 2
    assert "RuntimeError: no such kernel\n" in (tmp_path / "x.csv").read_text()


def test_a_device_that_answers_no_more_ends_the_run(tmp_path, monkeypatch):
    """After some errors every call fails; their rows would look as if nothing could run."""
    import torch

    def broken(*_, **__):
        raise RuntimeError("device-side assert")

    TinyMenu(monkeypatch)
    monkeypatch.setattr(torch, "randn", broken)
    monkeypatch.setattr(Device, "synchronize", broken)
    path = tmp_path / "x.csv"
    with pytest.raises(
        PredictorError, match="answers no more: RuntimeError: device-side assert; rows so far"
    ):
        measure(CPU, path, "x", PLAN, lambda _: None)
    assert len(path.read_text().splitlines()) == 1


def test_a_file_of_another_device_is_kept(tmp_path, monkeypatch):
    TinyMenu(monkeypatch)
    path = tmp_path / "x.csv"
    measure(CPU, path, "x", PLAN, lambda _: None)
    with pytest.raises(InputError, match="holds measurements of"):
        Journal(path, tuple(COLUMNS), "Acme X1")
    (tmp_path / "y.csv").write_text("model,batch\n")
    with pytest.raises(InputError, match="no file of this command"):
        Journal(tmp_path / "y.csv", tuple(COLUMNS), CPU.name)


@pytest.mark.soak
def test_the_quick_menu_of_a_cpu_runs(predictor, own):
    done = predictor("calibrate", "measure", "--device", "cpu", "--quick", "-o", "cpu.csv")
    assert done.code == 0, done.err
    rows, untimed = read_measurements(Path("cpu.csv"))
    assert untimed == 0
    assert {"matmul", "conv", "attention", "sustained"} <= {row.kind for row in rows}
    assert len(Path("cpu.steps.csv").read_text().splitlines()) == 2


# Power


def test_the_energy_counter_gives_the_mean_power():
    """Samples miss what lies between them; the counter does not: (1700 - 1000) J in 2 s."""
    monitor = Monitor(None)
    monitor.readings = [
        (0.0, Reading(watt=100, joule=1000)),
        (2.0, Reading(watt=900, celsius=60, joule=1700)),
    ]
    assert monitor.cells() == {"watts": 350.0, "celsius": 60}


def test_short_runs_take_the_mean_of_samples():
    monitor = Monitor(None)
    monitor.readings = [(0.0, Reading(watt=100, joule=1.0)), (0.1, Reading(watt=300, joule=2.0))]
    assert monitor.cells() == {"watts": 200.0}


def test_nvidia_smi_is_read(monkeypatch):
    monkeypatch.setattr(measure_power, "_printed", lambda _: "301.5, 1410, 1593, 61, 400.00, 550.54.15\n")
    sensor = measure_power.NvidiaSmi("0")
    assert sensor.read() == Reading(301.5, 1410.0, 1593.0, 61.0)
    assert (sensor.limit_w(), sensor.driver()) == (400.0, "550.54.15")
    monkeypatch.setattr(measure_power, "_printed", lambda _: "[N/A], 1410, 1593, 61, [N/A], 550.54.15\n")
    assert sensor.read().watt is None
    monkeypatch.setattr(measure_power, "_printed", lambda _: "")
    assert sensor.read() == Reading()


def test_rocm_smi_is_read(monkeypatch):
    said = {
        "card0": {
            "Average Graphics Package Power (W)": "412.0",
            "sclk clock speed:": "(2100Mhz)",
            "mclk clock speed:": "(1300Mhz)",
            "Temperature (Sensor edge) (C)": "48.0",
        }
    }
    monkeypatch.setattr(measure_power, "_printed", lambda _: "WARNING: x\n" + json.dumps(said))
    assert measure_power.RocmSmi(0).read() == Reading(412.0, 2100.0, 1300.0, 48.0)
    monkeypatch.setattr(measure_power, "_printed", lambda _: "no json {")
    assert measure_power.RocmSmi(0).read() == Reading()


def test_a_machine_without_tools_has_no_sensor(monkeypatch):
    monkeypatch.setattr(measure_power.shutil, "which", lambda _: None)
    monkeypatch.setattr(measure_power.Nvml, "open", lambda *_: None)
    assert measure_power.find_sensor("cuda", "CUDA 12", "", 0) is None
    assert measure_power.find_sensor("cuda", "ROCm 6", "", 0) is None
    assert measure_power.find_sensor("cpu", "none", "", 0) is None


# Measured steps

PRIOR = StepPrior(compute=0.15, memory=0.13, host=0.4)


def pair(compute_s, memory_s, host_s, measured_s, family=""):
    return StepPair(compute_s, memory_s, 0.0, host_s, measured_s, 0.05, family)


def test_without_steps_the_prior_comes_back():
    found = step_factors([], PRIOR)
    assert found.compute == (0.0, pytest.approx(0.15))
    assert found.host == (0.0, pytest.approx(0.4))


def test_a_step_that_waits_for_the_host_speaks_of_the_host():
    found = step_factors([pair(0.07, 0.03, 0.3, 0.6)], PRIOR)
    assert found.host[0] == pytest.approx(np.log(2), abs=0.1)
    assert abs(found.compute[0]) < 0.01


def test_a_step_of_the_device_speaks_of_the_device():
    found = step_factors([pair(0.7, 0.3, 0.01, 1.2)], PRIOR)
    assert -np.log(1.2) < found.compute[0] < -0.05
    assert found.host == (pytest.approx(0.0, abs=1e-6), pytest.approx(0.4))
    assert found.compute[1] < PRIOR.compute


def test_one_measurement_is_never_believed_whole():
    """Prior and likelihood: the step keeps a part of its miss."""
    found = step_factors([pair(1.0, 0.0, 0.0, 1.3)], PRIOR)
    assert 0.05 < found.misses[0] < np.log(1.3)


def test_ten_steps_of_several_models_recover_the_chip():
    """Data made with known factors: 20 % slower units, a host 1.5 times as slow."""
    rng = np.random.default_rng(0)
    pairs = []
    for i in range(10):
        compute, memory, host = rng.uniform(0.2, 1.0), rng.uniform(0.1, 0.6), 10 ** rng.uniform(-2, 0.3)
        made = pair(compute, memory, host, 1.0, str(i))
        seconds = made.seconds(compute=-0.18, memory=0.0, host=np.log(1.5))
        pairs.append(replace(made, measured_s=seconds * np.exp(rng.normal(0, 0.03))))
    found = step_factors(pairs, PRIOR)
    for (value, sd), truth in ((found.compute, -0.18), (found.memory, 0.0), (found.host, np.log(1.5))):
        assert abs(value - truth) < 2 * sd
    before = np.median([abs(np.log(p.measured_s / p.seconds())) for p in pairs])
    assert np.median(np.abs(found.misses)) < before / 2


def test_ten_steps_of_one_model_count_as_few():
    same = [pair(0.7, 0.3, 0.01, 1.2, "bert") for _ in range(10)]
    several = [pair(0.7, 0.3, 0.01, 1.2, str(i)) for i in range(10)]
    assert step_factors(same, PRIOR).compute[1] > step_factors(several, PRIOR).compute[1]


def test_the_order_of_steps_does_not_matter():
    pairs = [pair(0.7, 0.3, 0.01, 1.2, "a"), pair(0.1, 0.1, 0.4, 0.5, "b"), pair(0.5, 0.5, 0.1, 0.9, "c")]
    one, two = step_factors(pairs, PRIOR), step_factors(pairs[::-1], PRIOR)
    assert one.compute == pytest.approx(two.compute)
    assert one.host == pytest.approx(two.host)


def test_a_row_with_wrong_settings_does_not_decide():
    good = [pair(0.7, 0.3, 0.01, 1.0, str(i)) for i in range(5)]
    bad = pair(0.7, 0.3, 0.01, 20.0, "x")
    assert abs(step_factors([*good, bad], PRIOR).compute[0]) < 0.06


RUNS = "model,hardware,batch,step_s,precision,stack\n"


def test_measured_steps_move_predictions(predictor, own):
    """Steps 25 % slower than predicted: then the same step is predicted slower, but not by all of it."""
    asked = ("estimate", "zoo:resnet50", "--hardware", H100, "--batch-size", "256", "--precision", "amp-bf16")
    before = json.loads(predictor(*asked, "--format", "json").out)["step"]["time_s"]
    Path("runs.csv").write_text(
        RUNS
        + "".join(f"zoo:resnet50,{H100},{b},{before['mid'] * b / 256 * 1.25},amp-bf16,\n" for b in (256, 128))
    )
    done = predictor("calibrate", "fit", "--steps", "runs.csv")
    assert done.code == 0, done.err
    after = json.loads(predictor(*asked, "--format", "json").out)["step"]["time_s"]
    assert 1.03 < after["mid"] / before["mid"] < 1.25
    fit = json.loads((own / f"{H100}.fit.json").read_text())
    shipped = json.loads((profiles_dir() / f"{H100}.fit.json").read_text())
    assert fit["steps"]["compute"][0] < shipped["steps"]["compute"][0]
    assert predictor("calibrate", "fit", "--steps", "runs.csv").code == 0
    again = json.loads((own / f"{H100}.fit.json").read_text())
    assert again["steps"] == fit["steps"]  # a second fit does not start from the first


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", "no step can be used"),
        ("zoo:resnet50,nvidia-a100-sxm4-80gb,8,0.1,fp32,\n", "ran on nvidia-a100-sxm4-80gb"),
        (f"zoo:nothing,{H100},8,0.1,fp32,\n", "unknown model"),
        (f"zoo:resnet50,{H100},8,nan,fp32,\n", "step_s is nan"),
    ],
)
def test_steps_that_cannot_be_used_say_why(predictor, own, rows, message):
    Path("runs.csv").write_text(RUNS + rows)
    done = predictor("calibrate", "fit", "--steps", "runs.csv", "--hardware", H100)
    assert done.code == 2
    assert message in done.err


def test_a_failed_fit_of_steps_leaves_no_file(predictor, own):
    Path("runs.csv").write_text(RUNS + f"zoo:nothing,{H100},8,0.1,fp32,\n")
    assert predictor("calibrate", "fit", "--steps", "runs.csv").code == 2
    assert not list(own.iterdir())


DATA = os.environ.get("PREDICTOR_DATA", "")


@pytest.mark.soak
@pytest.mark.skipif(not DATA, reason="needs PREDICTOR_DATA")
def test_three_steps_help_on_held_back_rows(monkeypatch):
    """Networks of one GPU, its chip taken as unmeasured: bias of the other rows, over many draws of three."""
    from predictor.kernels import steps

    shipped = steps.chip_fit
    monkeypatch.setattr(
        steps, "chip_fit", lambda id_: {k: v for k, v in (shipped(id_) or {}).items() if k != "steps"}
    )
    table = Path(DATA) / "throughput" / "torchvision_ryujaehun.csv"
    cases = [c for c in read_tables([table]) if isinstance(c, Case) and c.accelerator == "nvidia-titan-rtx"]
    cases = [c for c in cases if c.job.precision != "fp64"][::2]
    found = steps_of(cases)
    y = np.log([p.measured_s for p in found.pairs])
    rng, before, after = np.random.default_rng(0), [], []
    for _ in range(30):
        seen = set(rng.choice(len(y), 3, replace=False))
        factors = step_factors([found.pairs[i] for i in seen], found.prior)
        held = [i for i in range(len(y)) if i not in seen]
        f = (factors.compute[0], factors.memory[0], factors.host[0])
        before.append(abs(np.median([np.log(found.pairs[i].seconds()) - y[i] for i in held])))
        after.append(abs(np.median([np.log(found.pairs[i].seconds(*f)) - y[i] for i in held])))
    assert np.mean(before) > 0.1
    assert np.mean(after) < 0.6 * np.mean(before)


# Drawings


def test_a_plot_is_the_same_every_time():
    points = [
        Points("matmul", ("a", "b"), np.array([1e-5, 1e-3]), np.array([1.1e-5, 0.9e-3])),
        Points("step", ("c",), np.array([0.1]), np.array([0.13])),
    ]
    assert residual_plot(points, "x", "svg") == residual_plot(points, "x", "svg")


def test_rows_without_a_peak_are_left_out():
    accelerator = find_profile("nvidia-v100-sxm2-16gb")
    row = product_row("bf16", 64, 64, 64)
    assert "bf16" not in accelerator.peak_flop_per_s
    assert kernel_points([row], rates(accelerator), accelerator) == []


def test_a_device_is_told_by_its_name():
    assert isinstance(CPU, Device)
    with pytest.raises(InputError, match="accepted: cuda"):
        find_device("gpu")
