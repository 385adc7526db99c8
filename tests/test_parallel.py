import pytest

from predictor.errors import InputError
from predictor.job import Job
from predictor.parallel import Plan, check_model, collectives, make_plan, with_batch
from predictor.parallel.collectives import ring_byte
from predictor.workload import Workload


def plan_of(count, **fields):
    return make_plan(Job(model="m", hardware="h", **fields), count)


def workload(**sizes):
    base = {
        "attention_count": 4,
        "attention_heads": 8,
        "hidden_byte": 1000,
        "key_value_byte": 8000,
        "expert_byte": 0,
        "layers": 20,
        "saved_byte": 0,
    }
    return Workload(rows=(), unpriced=(), **(base | sizes))


def sent(plan, purpose, **sizes):
    found = collectives(plan, workload(**sizes), 6e6, 2e6, 8, train=True)
    return sum(c.send_byte * c.count for c in found if c.purpose == purpose)


def test_data_parallel_takes_what_is_left():
    assert plan_of(64, tp=4, pp=2).dp == 8


def test_a_plan_multiplies_to_the_count():
    with pytest.raises(InputError, match=r"dp 3 x tp 2 x pp 1 x cp 1 = 6 accelerators, the machine has 8"):
        plan_of(8, dp=3, tp=2)
    with pytest.raises(InputError, match="the machine has 4"):
        plan_of(4, tp=8)


def test_the_batch_divides():
    with pytest.raises(InputError, match="batch size 100 is not divisible by dp 8"):
        plan_of(8, batch_size=100)
    with pytest.raises(InputError, match="batch size 64 is not divisible by dp 8 x micro-batch 3"):
        plan_of(8, batch_size=64, micro_batch=3)


def test_micro_batches_make_the_batch():
    plan = with_batch(plan_of(8, batch_size=256, micro_batch=4), 4, 256)
    assert plan.accumulate == 8
    assert plan.batch_size == 256


def test_a_pipeline_splits_its_batch_by_itself():
    plan = plan_of(4, pp=4, batch_size=32)
    assert plan.micro_batch == 2  # 16 micro-batches, four a stage


def test_the_model_must_divide():
    with pytest.raises(InputError, match="tp 3 does not divide 8 attention heads"):
        check_model(Plan(1, 3, 1, 1, 1, 0, "none", 1, 1), 4, 8, experts=False)
    with pytest.raises(InputError, match="has none"):
        check_model(Plan(1, 2, 1, 1, 1, 0, "none", 1, 1), 0, 0, experts=False)
    with pytest.raises(InputError, match="no parameter named expert"):
        check_model(Plan(2, 1, 1, 2, 1, 0, "none", 1, 1), 4, 8, experts=False)
    with pytest.raises(InputError, match="pp 8 stages"):
        check_model(Plan(1, 1, 8, 1, 1, 0, "none", 1, 1), 4, 8, experts=False)


def test_a_ring_sends_all_but_its_own_part():
    assert ring_byte(100.0, 4) == 75.0


def test_an_all_reduce_is_a_scatter_and_a_gather():
    assert sent(Plan(8, 1, 1, 1, 1, 0, "none", 1, 1), "data") == 2 * 6e6 * 7 / 8


def test_sharded_weights_are_gathered_in_both_passes():
    plan = Plan(8, 1, 1, 1, 1, 3, "none", 1, 2)
    assert sent(plan, "data") == 2 * (2 * 2e6 + 6e6) * 7 / 8  # two micro-batches


def test_tensor_parallel_reduces_twice_a_block_and_pass():
    plan = Plan(1, 4, 1, 1, 1, 0, "none", 1, 1)
    assert sent(plan, "tensor") == (2 * 2 * 4) * (2 * 1000 * 3 / 4)


def test_one_accelerator_sends_nothing():
    assert collectives(Plan(1, 1, 1, 1, 1, 0, "none", 1, 1), workload(), 6e6, 2e6, 8, train=True) == ()


def test_inference_sends_no_gradients():
    plan = Plan(8, 1, 1, 1, 1, 0, "none", 1, 1)
    assert collectives(plan, workload(), 6e6, 2e6, 8, train=False) == ()
