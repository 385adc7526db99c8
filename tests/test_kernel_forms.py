"""The forms of products, attention and experts: laws, published kernels, and how a table is read."""

import json
import os
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from predictor.calibrate.case import Case, Refused
from predictor.calibrate.kernel_prices import price
from predictor.calibrate.rows import read_rows
from predictor.calibrate.tables import format_of
from predictor.kernels import attention, chip, collectives, experts, residual, tiles, vector
from predictor.profile import find_profile

PEAK = 989e12  # H100 SXM, dense bf16
ONE = np.ones(1)


@pytest.fixture(scope="module")
def h100():
    return chip.rates(find_profile("nvidia-h100-sxm5-80gb"))


def product_s(m, n, k, rates, g=1.0, peak=PEAK, size=2.0):
    sides = (np.array([float(x)]) for x in (g, m, n, k))
    return float(tiles.seconds(tiles.parts(*sides, size, size, peak, rates), rates)[0])


def test_a_product_takes_at_least_its_flop_and_its_bytes(h100):
    for m, n, k in ((4096, 4096, 4096), (512, 512, 512), (64, 4096, 4096), (8192, 8192, 64)):
        seconds = product_s(m, n, k, h100)
        assert seconds > 2 * m * n * k / PEAK
        assert seconds > 2 * (m * k + k * n + m * n) / 3.35e12 * 0.8


def test_a_large_product_runs_near_the_fitted_share(h100):
    share = 2 * 8192**3 / product_s(8192, 8192, 8192, h100) / PEAK
    assert 0.8 * h100.eta.value < share < 1.05 * h100.eta.value


def test_twice_the_rows_take_twice_as_long_once_the_chip_is_full(h100):
    bare = replace(h100, residual=None)
    once, twice = (product_s(m, 8192, 8192, bare) for m in (16384, 32768))
    assert twice / once == pytest.approx(2.0, rel=0.05)


def test_a_product_that_does_nothing_takes_the_launch(h100):
    assert product_s(1, 1, 1, h100) == pytest.approx(h100.t0_s.value, rel=0.8)


def test_batched_products_cost_as_many_single_ones_when_each_fills_the_chip(h100):
    bare = replace(h100, residual=None)
    single, batched = product_s(4096, 4096, 4096, bare), product_s(4096, 4096, 4096, bare, g=8)
    assert batched == pytest.approx(8 * single, rel=0.12)


def test_splitting_the_sum_fills_a_chip_with_few_tiles(h100):
    # One 128 x 128 tile on 132 processors: unsplit it would run at 1/132 of the rate.
    assert product_s(128, 128, 65536, h100) < 2 * 128 * 128 * 65536 / (PEAK / 132)


def test_rows_of_a_table_do_not_see_each_other(h100):
    rng = np.random.default_rng(1)
    m, n, k = (2 ** rng.integers(5, 13, 200).astype(float) for _ in range(3))
    together = tiles.seconds(tiles.parts(np.ones(200), m, n, k, 2, 2, PEAK, h100), h100)
    alone = [product_s(*sides, h100) for sides in zip(m[:20], n[:20], k[:20], strict=True)]
    assert together[:20] == pytest.approx(alone, rel=1e-5)


def test_long_kernels_slow_down_by_the_throttle_per_decade():
    assert tiles.slowed_s(np.array([3e-4, 3e-3, 3e-2]), 0.1) == pytest.approx([3e-4, 3.3e-3, 3.6e-2])


# Published kernels. SimuMax commit 4dcaae51 (Apache-2.0), A100-PCIe-80GB, share of 312 TFLOP/s in training.
@pytest.mark.parametrize(
    ("m", "n", "k", "share"),
    [(4096, 1536, 5120, 0.78767), (4096, 5120, 1536, 0.73751), (4096, 12288, 5120, 0.74031)],
)
def test_training_products_on_an_a100_pcie(m, n, k, share):
    rates = chip.rates(find_profile("nvidia-a100-pcie-80gb"))
    long_run = replace(rates, eta=replace(rates.eta, value=rates.eta.value * rates.sustained.value))
    seconds = product_s(m, n, k, long_run, peak=312e12)
    assert 2 * m * n * k / seconds / 312e12 == pytest.approx(share, rel=0.1)


def test_families_by_architecture_and_memory():
    families = {
        name: chip.rates(find_profile(name)).family
        for name in (
            "nvidia-a100-sxm4-80gb",
            "nvidia-h200-sxm5-141gb",
            "nvidia-b300-sxm",
            "nvidia-rtx-5090",
            "amd-mi300x",
        )
    }
    assert list(families.values()) == ["classic", "asynchronous", "asynchronous", "classic", "classic"]


def test_unseen_chips_take_their_class_and_wider_ranges():
    seen, same, other = (
        chip.rates(find_profile(name)) for name in ("nvidia-h100-sxm5-80gb", "nvidia-l40s", "amd-mi300x")
    )
    assert (seen.fitted, same.fitted, other.fitted) == (True, False, False)
    widths = [rates.eta.high / rates.eta.low for rates in (seen, same, other)]
    assert widths == sorted(widths)
    assert other.residual is None
    assert seen.spread["matmul"].own < same.spread["matmul"].own < other.spread["matmul"].own


def test_chips_of_a_measured_generation_share_its_residual():
    assert chip.rates(find_profile("nvidia-h100-pcie-80gb")).residual is not None
    assert chip.rates(find_profile("nvidia-v100-sxm2-16gb")).residual is None


def test_more_flop_per_watt_is_a_smaller_share():
    # b300: 2250 TFLOP/s at 1100 W or more; l40s: 362 at 350 W
    dense, cool = (chip.rates(find_profile(name)) for name in ("nvidia-b300-sxm", "nvidia-l4"))
    assert dense.eta.value < chip.shared()["classes"]["nvidia"]["eta"][0]
    assert chip.sustained(2.25).value < chip.sustained(1.0).value
    assert cool.sustained.low <= cool.sustained.value <= cool.sustained.high


def test_every_chip_that_trains_has_rates():
    from predictor.profile import list_profiles

    for name in list_profiles():
        accelerator = find_profile(name)
        if accelerator.lacks:
            continue
        rates = chip.rates(accelerator)
        peak = chip.matrix_peak(accelerator)
        share = 2 * 4096**3 / product_s(4096, 4096, 4096, rates, peak=peak) / peak
        assert 0.15 < share < 1.25, name


def test_a_fit_of_ones_own_replaces_the_class(tmp_path, monkeypatch):
    monkeypatch.setenv("PREDICTOR_PROFILES", str(tmp_path))
    accelerator = find_profile("nvidia-l4")
    values = chip.class_values(accelerator, chip.shared())
    fit = {"source": "mine", "as_of": "2026-11-01", "rates": {**values, "eta": [0.5, 0.02]}}
    (tmp_path / "nvidia-l4.fit.json").write_text(json.dumps(fit))
    rates = chip.rates(accelerator)
    assert rates.fitted
    assert rates.eta.value == 0.5
    assert rates.eta.source == "mine"
    assert rates.eta.high == pytest.approx(0.5 * np.exp(1.645 * 0.02))


def test_residuals_fade_and_survive_packing():
    sides = np.array([512.0, 1024.0, 2048.0, 4096.0])
    value = np.full((4, 4, 4), 0.1)
    value[0, 0, 0] = np.nan
    packed = {"m": sides, "n": sides, "k": sides, "units": 132, "value": residual.pack(value)}
    lattice = residual.unpack(packed)
    assert np.isnan(lattice.value[0, 0, 0])
    assert lattice.value[1, 1, 1] == pytest.approx(0.1, abs=residual.STEP)
    near, far = (np.array([x]) for x in (1024.0, 60000.0))
    # One neighbour at distance zero weighs 1 against the calm: 0.1 / 1.2, further ones add a little.
    assert 0.1 / (1 + residual.CALM) * 0.97 <= residual.correction(lattice, near, near, near, 132.0)[0] <= 0.1
    assert residual.correction(lattice, far, far, far, 132.0)[0] == pytest.approx(0.0, abs=1e-6)
    assert residual.mean([lattice, lattice]).value[1, 1, 1] == lattice.value[1, 1, 1]


def attention_s(rates, heads=128, length=8192, d=128, kept=1.0, share=1.0, backward=False, factor=1.0):
    parts = attention.parts(
        np.array([float(heads)]), np.array([float(length)]), np.array([float(length)]), np.array([float(d)]),
        kept, share, backward, PEAK, rates, factor,
    )  # fmt: skip
    return float((parts.compute_s + parts.extra_s)[0])


def test_attention_takes_at_least_its_flop_and_half_where_causal(h100):
    full, causal = attention_s(h100), attention_s(h100, kept=0.5)
    assert full > 4 * 128 * 8192**2 * 128 / PEAK
    assert causal / full == pytest.approx(0.5, rel=0.1)


def test_attention_grows_with_the_square_of_the_length(h100):
    assert attention_s(h100, length=32768) / attention_s(h100, length=16384) == pytest.approx(4.0, rel=0.03)


def test_attention_backward_is_its_sourced_ratio(h100):
    # Dao 2023: 2.5 times the flop; SimuMax: at 0.85 of the forward rate.
    parts = [attention_s(h100, length=32768, backward=back) for back in (False, True)]
    assert parts[1] / parts[0] == pytest.approx(2.5 / 0.85, rel=0.02)
    ratio = attention.backward_ratio()
    assert ratio.low < ratio.value < ratio.high


def test_fewer_key_heads_and_faster_software_take_less(h100):
    assert attention_s(h100, length=512, share=0.125) < attention_s(h100, length=512)
    assert attention_s(h100, factor=0.5) > 1.9 * attention_s(h100)


def test_expert_products_are_tiles_at_their_own_share(h100):
    parts = experts.parts(8 * ONE, 4096 * ONE, 4096 * ONE, 4096 * ONE, 2, 2, PEAK, h100)
    share = 8 * 2 * 4096**3 / float(parts.total_s(3.0)[0]) / PEAK
    assert 0.5 * h100.experts.value < share < 1.05 * h100.experts.value


def test_few_rows_an_expert_cost_a_whole_tile(h100):
    few, more = (
        float(experts.parts(64 * ONE, rows * ONE, 4096 * ONE, 4096 * ONE, 2, 2, PEAK, h100).total_s(3.0)[0])
        for rows in (1, 64)
    )
    assert more < 2 * few


def test_skewed_routing_costs_more_with_more_ranks_and_nothing_for_few_tokens():
    assert experts.skew(np.array([1.0, 4.0, 16.0, 64.0]), np.array(4096.0)) == pytest.approx(
        [1.06, 1.35, 1.9, 2.6]
    )
    assert experts.skew(np.array([64.0]), np.array([256.0]))[0] == 1.0


def test_fp32_products_run_into_the_power_limit():
    # T4: 70 W over 8.14 TFLOP/s; at the joule per flop of 12 nm it cannot run at its peak.
    data = chip.shared()["vector"]
    assert chip.vector_share(find_profile("nvidia-t4"), data) == pytest.approx(
        70 / data["joule_per_flop"]["12"] / 8.141e12, rel=0.01
    )
    rates = chip.rates(find_profile("nvidia-t4"))
    parts = vector.parts(ONE, 4096 * ONE, 4096 * ONE, 4096 * ONE, 8.14e12, rates)
    assert 2 * 4096**3 / float(parts.total_s(3.0)[0]) < 8.14e12 * rates.vector.value


def test_collectives_are_latency_then_link():
    ring = collectives.SWITCHED["all_reduce"]
    small, large = (
        float(collectives.exchange_s(ring, np.array(b), np.array(8.0), 300e9)) for b in (1.0, 1e12)
    )
    assert small == pytest.approx(7.7e-6 + 7 * 1.6e-6, rel=0.01)
    assert large == pytest.approx(2 * 1e12 * 7 / 8 / (0.77 * 300e9), rel=0.01)
    # vTrain commit f8dda847 (MIT): 1 GiB over eight V100 runs at the mesh's 135 GB/s.
    assert float(collectives.mesh_s(np.array(2.0**30), np.array(8))) == pytest.approx(
        2 * 2**30 * 7 / 8 / 135e9, rel=0.1
    )


def cases_of(path):
    header, rows = read_rows(path)
    form = format_of(header)
    assert form is not None
    return list(form.read(path, rows))


def test_a_table_of_products_is_one_case_and_bad_figures_are_refused(tmp_path):
    path = tmp_path / "gemm_h100_sxm.csv"
    path.write_text(
        "stack,dtype,m,n,k,latency_ms\n"
        "mine-1,bfloat16,4096,4096,4096,0.19\n"
        "mine-1,bfloat16,8192,4096,4096,0.37\n"
        "mine-1,bfloat16,4096,4096,4096,-1\n"
        "mine-1,bfloat16,4096,zero,4096,1\n"
    )
    refused, case = cases_of(path)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.rows) == ("value", 2)
    assert isinstance(case, Case)
    assert (case.accelerator, case.rows) == ("nvidia-h100-sxm5-80gb", 2)
    (bulk,) = price([case])
    assert bulk.mid == pytest.approx(bulk.measured, rel=0.2)
    assert np.all((bulk.low < bulk.mid) & (bulk.mid < bulk.high))


def test_the_measured_time_never_reaches_the_prediction(tmp_path):
    path = tmp_path / "gemm_b200_sxm.csv"
    head, row = "stack,dtype,m,n,k,latency_ms\n", "mine-1,bfloat16,4096,4096,4096,{}\n"
    mids = []
    for measured in (0.1, 10):
        path.write_text(head + row.format(measured))
        mids.append(next(iter(price(cases_of(path)))).mid[0])
    assert mids[0] == mids[1]


def test_a_file_that_names_no_system_is_refused(tmp_path):
    path = tmp_path / "gemm_mine.csv"
    path.write_text("stack,dtype,m,n,k,latency_ms\nmine-1,bfloat16,8,8,8,1\n")
    (refused,) = cases_of(path)
    assert (refused.code, refused.rows) == ("accelerator-unknown", 1)


def test_eight_bit_without_a_published_peak_is_refused(tmp_path):
    path = tmp_path / "gemm_a100_sxm.csv"
    path.write_text("stack,dtype,m,n,k,latency_ms\nmine-1,fp8,512,512,512,1\n")
    (refused,) = price(cases_of(path))
    assert refused.code == "precision"


@pytest.mark.soak
@pytest.mark.skipif("PREDICTOR_DATA" not in os.environ, reason="needs the measured kernels")
def test_the_shipped_constants_are_those_the_recipe_gives(tmp_path):
    from predictor.calibrate.fit_kernels import Data, run

    root = Path(__file__).resolve().parent.parent
    recipe = tomllib.loads((root / "calibration/recipes/kernels.toml").read_text())
    run(Data(recipe, Path(os.environ["PREDICTOR_DATA"])), tmp_path)
    for path in tmp_path.rglob("*.json"):
        shipped = json.loads((root / path.relative_to(tmp_path)).read_text())
        shipped.pop("steps", None)  # of another fit, kept in the same file
        assert json.loads(path.read_text()) == shipped, path.name
