import pytest

from predictor.errors import InputError
from predictor.job import Job
from predictor.parallel import Divisible, Plan, Share, check_model, collectives, make_plan, with_batch
from predictor.parallel.collectives import ring_byte
from predictor.workload import Workload


def plan_of(count, **fields):
    return make_plan(Job(model="m", hardware="h", **fields), count)


def workload(**sizes):
    base = {
        "attention_count": 4,
        "attention_heads": 8,
        "key_heads": 2,
        "sequence": 64,
        "hidden_byte": 1000,
        "reductions": 8,
        "reduced_byte": 8000,
        "key_value_byte": 8000,
        "expert_byte": 0,
        "layers": 20,
        "saved_byte": 0,
    }
    return Workload(rows=(), unpriced=(), **(base | sizes))


SHARE = Share(weight_byte=2e6, gradient_byte=4e6, expert_weight_byte=0.0, expert_gradient_byte=0.0)


def exchanges(plan, purpose, share=SHARE, train=True, **sizes):
    found = collectives(plan, workload(**sizes), share, 8, train=train)
    return [c for c in found if c.purpose == purpose]


def sent(plan, purpose, **options):
    return sum(c.send_byte * c.count for c in exchanges(plan, purpose, **options))


def plan(dp=1, tp=1, pp=1, ep=1, cp=1, zero=0, recompute="none", micro_batch=1, accumulate=1):
    return Plan(dp, tp, pp, ep, cp, zero, recompute, micro_batch, accumulate)


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
    made = with_batch(plan_of(8, batch_size=256, micro_batch=4), 4, 256)
    assert made.accumulate == 8
    assert made.batch_size == 256


@pytest.mark.parametrize(
    ("count", "pp", "batch"), [(4, 4, 32), (64, 4, 64), (64, 8, 16), (64, 4, 192), (8, 2, 12)]
)
def test_a_pipeline_splits_its_batch_by_itself(count, pp, batch):
    named, derived = (plan_of(count, pp=pp, batch_size=batch, **d) for d in ({"dp": count // pp}, {}))
    assert named == derived
    assert derived.micro_batch >= 1
    made = with_batch(derived, derived.micro_batch, batch)
    assert made.batch_size == batch
    assert 1 <= made.accumulate <= 4 * pp


MODEL = Divisible(blocks=4, heads=8, key_heads=2, sequence=100, experts=False)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"tp": 3}, "tp 3 does not divide 8 attention heads"),
        ({"cp": 3}, "cp 3 does not divide a sequence of 100"),
        ({"dp": 2, "ep": 2}, "no parameter named expert"),
        ({"pp": 8}, "pp 8 stages, the model has 4"),
    ],
)
def test_the_model_must_divide(sizes, message):
    with pytest.raises(InputError, match=message):
        check_model(plan(**sizes), MODEL)


def test_key_value_heads_divide_or_repeat():
    check_model(plan(tp=4), MODEL)  # two ranks share a head
    with pytest.raises(InputError, match="neither divides nor repeats 3 key-value heads"):
        check_model(plan(tp=2), Divisible(4, 6, 3, 100, experts=False))


@pytest.mark.parametrize("sizes", [{"tp": 2}, {"cp": 2}, {"pp": 2}])
def test_a_model_without_attention_takes_data_parallel_alone(sizes):
    with pytest.raises(InputError, match="no attention operator was found"):
        check_model(plan(**sizes), Divisible(0, 0, 0, 0, experts=False))


def test_a_ring_sends_all_but_its_own_part():
    assert ring_byte(100.0, 4) == 75.0


def test_an_all_reduce_is_a_scatter_and_a_gather():
    assert sent(plan(dp=8), "data") == 2 * 4e6 * 7 / 8


def test_sharded_state_scatters_gradients_and_gathers_weights():
    assert sent(plan(dp=8, zero=1), "data") == (4e6 + 2e6) * 7 / 8


def test_sharded_weights_are_gathered_in_both_passes():
    assert sent(plan(dp=8, zero=3, accumulate=2), "data") == 2 * (2 * 2e6 + 4e6) * 7 / 8


def test_sharded_weights_are_gathered_to_infer():
    assert sent(plan(dp=8, zero=3), "data", train=False) == 2e6 * 7 / 8
    assert sent(plan(dp=8), "data", train=False) == 0


def test_context_parallel_ranks_sum_gradients_too():
    assert sent(plan(cp=8), "data") == sent(plan(dp=8), "data")


def test_experts_are_summed_over_the_ranks_that_hold_them():
    share = Share(0.0, 0.0, 2e6, 4e6)
    (whole,) = exchanges(plan(dp=8), "data", share)
    (parted,) = exchanges(plan(dp=8, ep=4), "data", share)
    assert (whole.group, parted.group) == (8, 2)


def test_tensor_parallel_reduces_after_attention_and_feed_forward():
    assert sent(plan(tp=4), "tensor") == 2 * (2 * 8000 * 3 / 4)  # two passes


def test_neighbours_share_a_node():
    assert exchanges(plan(dp=4, tp=4), "tensor")[0].inside == 4
    assert exchanges(plan(dp=4, tp=4), "data")[0].inside == 2
    assert exchanges(plan(pp=2), "pipeline")[0].inside == 2
    assert exchanges(plan(dp=8, pp=2), "pipeline")[0].inside == 1


def test_one_accelerator_sends_nothing():
    assert collectives(plan(), workload(), SHARE, 8, train=True) == ()
