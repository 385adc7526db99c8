"""Laws of the whole chain, on real models."""

import dataclasses
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor import InputError, Job, estimate
from predictor.frontends import ReadOptions, load_graph
from predictor.pricing import price, read_model, resolve
from predictor.profile import find_profile, list_profiles
from predictor.stack import find_stack
from predictor.timing import accepted_precisions
from predictor.training import RECIPES
from predictor.workload import count


def answer(graph, **fields):
    """Price a recorded graph; the job's micro-batch is the graph's."""
    job = Job(**({"model": graph.source, "hardware": "h100", "micro_batch": graph.batch} | fields))
    return price(job, resolve(job), graph)


def ranges(part):
    if isinstance(part, dict):
        if set(part) == {"low", "mid", "high"}:
            yield part
        else:
            for value in part.values():
                yield from ranges(value)
    elif isinstance(part, list):
        for value in part:
            yield from ranges(value)


def test_ranges_are_ordered_and_positive(gpt2):
    found = list(ranges(answer(gpt2, steps=1000, region="france").to_dict()))
    assert len(found) > 15
    for span in found:
        assert 0 < span["low"] <= span["mid"] <= span["high"]


def test_the_same_job_gives_the_same_answer(resnet50):
    assert answer(resnet50, steps=10).to_dict() == answer(resnet50, steps=10).to_dict()


def test_a_step_is_never_faster_than_its_peak_allows(resnet50):
    step = answer(resnet50).step
    peak = find_profile("h100").peak_flop_per_s["fp32"].value
    assert step.time_s.mid > step.flop.model / peak
    assert step.mfu.high < 1.2


def test_memory_traffic_bounds_a_step(resnet50):
    step = answer(resnet50).step
    assert step.time_s.mid > (step.bytes.read + step.bytes.written) / 3.35e12


def test_rows_add_up_to_the_step(gpt2):
    result = answer(gpt2, count=8, zero=1)
    assert sum(row.time_s for row in result.breakdown) == pytest.approx(result.step.time_s.mid)
    flop = result.step.flop
    assert sum(r.flop for r in result.breakdown) == flop.total
    byte = result.step.bytes
    assert sum(r.bytes for r in result.breakdown) == pytest.approx(byte.read + byte.written)


def test_flop_add_up(gpt2):
    flop = answer(gpt2, recompute="full").step.flop
    assert flop.model == flop.forward + flop.backward
    assert flop.total == flop.model + flop.optimizer + flop.recompute
    assert flop.recompute > flop.forward


def test_attention_repeats_its_scores_without_recompute(gpt2):
    heads, layers, width, tokens = 12, 12, 64, 64
    scores = 2 * heads * layers * (tokens * (tokens + 1) // 2)
    assert answer(gpt2).step.flop.recompute == 2 * scores * width


def test_more_work_takes_longer(resnet50):
    twice = answer(resnet50, batch_size=16)
    once = answer(resnet50, batch_size=8)
    assert twice.plan.accumulation == 2
    assert twice.step.time_s.mid > once.step.time_s.mid
    assert twice.step.flop.model == 2 * once.step.flop.model
    assert twice.step.flop.optimizer == once.step.flop.optimizer


def test_more_accelerators_process_more_samples(resnet50):
    one, eight, many = (answer(resnet50, count=n).step.samples_per_s.mid for n in (1, 8, 64))
    assert one < eight <= 8 * one
    assert eight < many <= 8 * eight


def test_longer_runs_cost_more(gpt2):
    short, long = (answer(gpt2, steps=n, price=2.0).run for n in (10_000, 20_000))
    assert long.time_s.steady.mid == pytest.approx(2 * short.time_s.steady.mid)
    assert long.cost_usd.mid > short.cost_usd.mid
    assert long.energy_kwh.facility.mid > short.energy_kwh.facility.mid


def test_cost_is_price_times_accelerator_hours(gpt2):
    run = answer(gpt2, steps=10_000, price=2.5, count=4).run
    assert run.cost_usd.mid == pytest.approx(2.5 * run.accelerator_hours.mid)
    assert run.accelerator_hours.mid == pytest.approx(4 * run.time_s.wall.mid / 3600)


def test_each_boundary_contains_the_one_before(gpt2):
    energy = answer(gpt2, steps=10_000).run.energy_kwh
    assert energy.accelerators.mid < energy.nodes.mid < energy.facility.mid


def test_a_given_pue_scales_the_facility(gpt2):
    energy = answer(gpt2, steps=10_000, pue=1.5).run.energy_kwh
    assert energy.facility.mid == pytest.approx(1.5 * energy.nodes.mid)


PRICED = [name for name in list_profiles() if find_profile(name).training and not find_profile(name).lacks]


@pytest.mark.parametrize("name", [name for name in PRICED if find_profile(name).limit_w])
def test_power_lies_between_idle_and_limit(resnet50, name):
    profile = find_profile(name)
    power = answer(resnet50, hardware=name).step.accelerator_power_w
    assert profile.idle_w.low * 0.8 < power.low
    assert power.high <= profile.limit_w.high * 1.05


def test_a_cleaner_grid_emits_less(gpt2):
    france, poland = (answer(gpt2, steps=10_000, region=r).run.carbon_kgco2e for r in ("france", "poland"))
    assert france.operational.location.mid < poland.operational.location.mid / 3
    assert france.embodied == poland.embodied


def test_no_region_is_said(gpt2):
    assert any(line.topic == "region" for line in answer(gpt2, steps=10).ledger)
    assert not any(line.topic == "region" for line in answer(gpt2, steps=10, region="france").ledger)


def test_without_a_length_only_the_step_is_answered(gpt2):
    assert answer(gpt2).run is None


def test_sharding_saves_memory(gpt2):
    peaks = [answer(gpt2, count=8, zero=z).step.peak_memory_bytes.allocated.mid for z in (0, 1, 2, 3)]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[3] < peaks[0]


def test_recompute_trades_memory_for_time(gpt2):
    none, full = (answer(gpt2, recompute=r).step for r in ("none", "full"))
    assert full.peak_memory_bytes.allocated.mid <= none.peak_memory_bytes.allocated.mid
    assert full.time_s.mid > none.time_s.mid


def test_allocated_reserved_and_device_grow(resnet50):
    memory = answer(resnet50).step.peak_memory_bytes
    assert memory.allocated.mid < memory.reserved.mid < memory.device.mid


def test_weights_and_state_are_the_least_memory(gpt2):
    memory = answer(gpt2, optimizer="adamw").step.peak_memory_bytes
    assert memory.allocated.mid > 4 * 4 * 124_439_808 * 0.99  # weight, gradient, two moments


def test_what_does_not_fit_says_what_would():
    job = Job(model="zoo:gpt2-xl", hardware="rtx 3090", precision="fp32", micro_batch=8)
    result = estimate(job)
    assert result.step.fits is False
    (line,) = [line for line in result.ledger if line.topic == "memory"]
    assert "does not fit" in line.text
    assert "try" in line.advice


def test_compiled_stacks_move_less(gpt2):
    eager, compiled = (answer(gpt2, stack=s).step for s in ("eager-2", "compiled-2"))
    assert compiled.bytes.read < eager.bytes.read
    assert compiled.flop == eager.flop


def test_plain_attention_moves_more_and_computes_the_same_model(gpt2):
    fused, plain = (answer(gpt2, stack=s).step for s in ("eager-2", "eager-1"))
    assert plain.bytes.read > fused.bytes.read
    assert plain.flop.model == fused.flop.model
    assert plain.flop.total > fused.flop.total


def test_plain_attention_keeps_its_scores(gpt2):
    # 12 layers x 2 sequences x 12 heads x 64 x 64 scores: before and after dropout in float32, and its mask.
    assert count(gpt2, find_stack("eager-1"), True).saved_byte == 12 * 2 * 12 * 64 * 64 * (4 + 4 + 1)
    assert count(gpt2, find_stack("eager-2"), True).saved_byte == 0


def test_tensor_parallel_ranks_share_the_model():
    job = Job(model="zoo:gpt2", hardware="h100", micro_batch=2, seq_len=64)
    graph = read_model(job, resolve(job).plan)
    one = answer(graph)
    four = answer(graph, count=4, tp=4)
    assert four.plan.dp == 1
    assert four.step.flop.model == one.step.flop.model
    assert four.step.communication_bytes > 0
    assert four.step.peak_memory_bytes.allocated.mid < one.step.peak_memory_bytes.allocated.mid


def test_a_pipeline_waits_for_its_stages(gpt2):
    result = answer(gpt2, count=4, pp=4, batch_size=8)
    bubble = next(row for row in result.breakdown if row.kind == "pipeline bubble")
    # m micro-batches and p - 1 bubbles of a 1F1B schedule: (p - 1) / (m + p - 1) of the time.
    share = 3 / (result.plan.accumulation + 3)
    assert bubble.time_s / result.step.time_s.mid == pytest.approx(share, rel=0.1)


def test_inference_has_no_backward():
    result = estimate(Job(model="zoo:resnet50", hardware="h100", micro_batch=8, mode="infer", samples=1000))
    assert result.step.flop.backward == result.step.flop.optimizer == 0
    assert {row.phase for row in result.breakdown} <= {"forward", "step"}
    assert result.run.steps == 125


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hardware": "v100", "precision": "bf16"}, "has no bf16 peak.*accepted there: .*fp16"),
        ({"hardware": "h1000"}, "unknown accelerator, node or instance 'h1000'"),
        ({"region": "frence"}, "did you mean 'france'"),
        ({"stack": "eagre-2"}, "unknown stack 'eagre-2'; did you mean 'eager-2'"),
        ({"count": 16, "nodes": 3}, "nodes"),
        ({"model": "zoo:resnet5"}, "did you mean 'resnet50'"),
        ({"model": "resnet50"}, "is none of: zoo:NAME"),
        ({"model": "missing.onnx"}, "no such file"),
        ({"tp": 2, "count": 2}, "divide attention blocks"),
    ],
)
def test_bad_jobs_are_refused_with_what_to_do(fields, message):
    with pytest.raises(InputError, match=message):
        estimate(Job(**({"model": "zoo:resnet50", "hardware": "h100", "micro_batch": 2} | fields)))


def test_strict_refuses_operators_without_a_formula(gpt2):
    odd = dataclasses.replace(gpt2.ops[0], name="aten.unheard_of")
    graph = dataclasses.replace(gpt2, ops=(odd, *gpt2.ops))
    assert answer(graph).coverage.unpriced_ops == ["aten.unheard_of"]
    assert answer(graph).coverage.bytes_by_formula < 1
    with pytest.raises(InputError, match="unheard_of"):
        answer(graph, strict=True)


@cache
def small_gpt2():
    return load_graph("zoo:gpt2", ReadOptions(batch=2, seq_len=64))


@settings(max_examples=25, deadline=None)
@given(
    hardware=st.sampled_from(["h100", "a100-80gb", "rtx 3090", "mi300x", "tpu-v4", "gaudi2"]),
    precision=st.sampled_from(sorted(RECIPES)),
    nodes=st.integers(1, 64),
    zero=st.integers(0, 3),
    recompute=st.sampled_from(["none", "selective", "full"]),
    optimizer=st.sampled_from(["sgd", "adamw", "lion", "none"]),
)
def test_every_combination_answers_or_refuses(hardware, precision, nodes, zero, recompute, optimizer):
    fields = {"precision": precision, "zero": zero, "recompute": recompute, "optimizer": optimizer}
    gpt2 = small_gpt2()
    job = {"hardware": hardware, "nodes": nodes, "steps": 100, **fields}
    if precision not in accepted_precisions(find_profile(hardware), RECIPES):
        with pytest.raises(InputError, match="peak"):
            answer(gpt2, **job)
        return
    result = answer(gpt2, **job)
    for span in ranges(result.to_dict()):
        assert 0 <= span["low"] <= span["mid"] <= span["high"] < float("inf")
    assert result.machine.nodes == nodes


def test_read_and_written_bytes_are_those_of_the_rows(gpt2):
    for plan in (
        {"cp": 2},
        {"pp": 2},
        {"tp": 2, "zero": 1},
        {"recompute": "selective"},
        {"recompute": "full"},
    ):
        result = answer(gpt2, count=4, batch_size=16, stack="eager-1", **plan)
        assert sum(r.bytes for r in result.breakdown) == result.step.bytes.read + result.step.bytes.written
        assert sum(r.flop for r in result.breakdown) == result.step.flop.total


def test_selective_recompute_runs_attention_again(gpt2):
    for stack in ("eager-1", "eager-2"):
        none, selective = (answer(gpt2, stack=stack, recompute=r).step for r in ("none", "selective"))
        assert selective.flop.recompute > none.flop.recompute
        assert selective.flop.model == none.flop.model
        assert selective.time_s.mid > none.time_s.mid


def test_uneven_stages_wait_for_the_largest(gpt2):
    even = answer(gpt2, count=6, pp=6, batch_size=12)
    uneven = answer(gpt2, count=8, pp=8, batch_size=12)  # 12 blocks: four stages have two, four have one
    kernels = [sum(r.time_s for r in a.breakdown if r.phase == "forward") for a in (even, uneven)]
    assert kernels[1] == pytest.approx(kernels[0], rel=0.05)


def test_options_without_effect_are_refused_or_said(gpt2):
    with pytest.raises(InputError, match="optimizer sgd has no effect in mode infer"):
        Job(model="zoo:gpt2", hardware="h100", mode="infer", optimizer="sgd")
    with pytest.raises(InputError, match="recompute full has no effect"):
        Job(model="zoo:gpt2", hardware="h100", mode="infer", recompute="full")
    said = [line.text for line in answer(gpt2, region="france", zero=3).ledger if line.topic == "not used"]
    assert len(said) == 2


def test_the_cloud_of_the_hardware_sets_the_price(gpt2):
    """AWS asks 55.04 USD/h for a p5.48xlarge in Virginia and more in most regions: SkyPilot catalogue v8."""
    fields = {"steps": 1000, "hardware": "aws:p5.48xlarge", "batch_size": 16}
    there, anywhere = (answer(gpt2, **fields, region=r).run for r in ("aws:us-east-1", "us"))
    assert there.cost_usd.mid == pytest.approx(there.accelerator_hours.mid * 55.04 / 8)
    assert anywhere.cost_usd.mid > there.cost_usd.mid
    by_name = answer(gpt2, **fields | {"hardware": "8x h100"}, region="us-east-1").run
    assert by_name.cost_usd.mid / by_name.accelerator_hours.mid == pytest.approx(55.04 / 8)


def test_the_hash_follows_everything_that_matters(gpt2):
    base = answer(gpt2).provenance.input_hash
    assert answer(gpt2).provenance.input_hash == base
    others = [answer(gpt2, **f) for f in ({"hardware": "a100"}, {"precision": "bf16"}, {"stack": "xla"})]
    changed = dataclasses.replace(gpt2, ops=(dataclasses.replace(gpt2.ops[0], attrs={"x": 1}), *gpt2.ops[1:]))
    hashes = {o.provenance.input_hash for o in others} | {answer(changed).provenance.input_hash}
    assert len(hashes) == 4
    assert base not in hashes
