"""Peak memory: the allocator against a second one, lifetimes against torch, terms against arithmetic."""

import os
import sys
from bisect import insort
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import nn
from torch.utils.checkpoint import checkpoint

from predictor.frontends import ReadOptions, load_graph
from predictor.ir import FORWARD, Graph, Op, Parameter, StorageEvent, TensorSpec
from predictor.memory import peak_memory
from predictor.memory.allocator import replay
from predictor.memory.blocks import blocks_of, pieces_of, stage_ends, stage_of_parameters
from predictor.memory.lifetimes import ACTIVATIONS, read
from predictor.memory.peak import lifetimes, replay_stage
from predictor.memory.rewrite import fuse, recompute_full
from predictor.parallel import Plan
from predictor.stack import find_stack, list_stacks
from predictor.training import OPTIMIZERS, RECIPES

MIB = 2**20
ONE = Plan(1, 1, 1, 1, 1, 0, "none", 1, 1)
EAGER = find_stack("eager-2")


def live_peak(tape):
    """Most bytes alive at once, without any allocator."""
    moments = [(x.start, 1, x.byte) for x in tape.lives] + [(x.end, 0, -x.byte) for x in tape.lives]
    return max(np.cumsum([byte for *_, byte in sorted(moments)]))


def run(graph, plan=ONE, stack=EAGER, precision="fp32", optimizer="adam", train=True, stage=0):
    recipe = RECIPES[precision]
    tape = lifetimes(graph, plan, stack, recipe, train)
    return replay_stage(graph, tape, plan, stack, recipe, optimizer, train, stage)


def middle(draws):
    return float(np.median(draws))


# The allocator.


def slow_replay(requests):
    """The same rules over plain byte ranges: segments are lists of (start, length, owner), read in full."""
    segments, allocated, peak = [], 0, 0
    for tensor, byte in requests:
        if not byte:
            for _, stretches in segments:
                for i, (start, length, owner) in enumerate(stretches):
                    if owner == tensor:
                        stretches[i] = (start, length, None)
                        allocated -= length
                joined = []
                for start, length, owner in stretches:
                    if joined and owner is None and joined[-1][2] is None:
                        joined[-1] = (joined[-1][0], joined[-1][1] + length, None)
                    else:
                        joined.append((start, length, owner))
                stretches[:] = joined
            continue
        size = -(-byte // 512) * 512
        kind = "small" if size <= MIB else "large"
        free = [
            (length, number, start)
            for number, (pool, stretches) in enumerate(segments)
            for start, length, owner in stretches
            if pool == kind and owner is None and length >= size
        ]
        if not free:
            new = (
                2 * MIB
                if kind == "small"
                else 20 * MIB
                if size < 10 * MIB
                else -(-size // (2 * MIB)) * 2 * MIB
            )
            segments.append((kind, [(0, new, None)]))
            free = [(new, len(segments) - 1, 0)]
        length, number, start = min(free)
        rest = length - size
        split = rest >= 512 if kind == "small" else rest > MIB
        stretches = segments[number][1]
        stretches.remove((start, length, None))
        insort(stretches, (start, size if split else length, tensor), key=lambda s: s[0])
        if split:
            insort(stretches, (start + size, rest, None), key=lambda s: s[0])
        allocated += size if split else length
        peak = max(peak, allocated)
    return peak, sum(length for _, stretches in segments for _, length, _ in stretches)


@pytest.mark.parametrize("seed", range(8))
def test_allocator_agrees_with_a_slow_one_on_random_requests(seed):
    rng = np.random.default_rng(seed)
    requests, alive = [], []
    for number in range(300):
        if alive and rng.random() < 0.45:
            requests.append((alive.pop(rng.integers(len(alive))), 0))
        else:
            requests.append((number, int(2 ** rng.uniform(3, 25))))
            alive.append(number)
    found = replay(requests)
    assert (found.allocated, found.reserved) == slow_replay(requests)


@pytest.mark.parametrize(
    ("byte", "allocated", "reserved"),
    [
        (1, 512, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB, 10 * MIB, 10 * MIB),
        # 1 MiB less 512 B is left of a segment of 12 MiB: too little to split off.
        (11 * MIB + 1, 12 * MIB, 12 * MIB),
    ],
)
def test_one_request_takes_its_segment(byte, allocated, reserved):
    found = replay([(0, byte)])
    assert (found.allocated, found.reserved) == (allocated, reserved)


def test_memory_given_back_is_used_again_and_neighbours_join():
    stream = [(0, 6 * MIB), (1, 6 * MIB), (2, 8 * MIB), (0, 0), (1, 0), (3, 12 * MIB)]
    assert replay(stream).reserved == 20 * MIB
    assert replay([*stream[:4], (3, 12 * MIB)]).reserved == (20 + 12) * MIB


# Whole steps against an independent program: the study of kernels/gpumemnet wrote its own recorder and its
# own allocator (guide/models/memory.md, section 3: allocated / reserved by the replay, in whole MiB).


@pytest.mark.parametrize(
    ("model", "batch", "allocated", "segments"),
    [("resnet50", 32, 2978, 3484), ("deit_base_patch16_224", 32, 4684, 4914), ("resnet10t", 128, 1776, 2506)],
)
def test_two_steps_agree_with_the_studys_own_replay(model, batch, allocated, segments):
    found = run(load_graph(f"timm:{model}", ReadOptions(batch=batch)))
    assert found.allocated / MIB == pytest.approx(allocated, abs=2)
    assert found.reserved / MIB == pytest.approx(segments, abs=2)


# Terms, by arithmetic. Two layers of 1024 x 1024 weights (4 MiB each in float32) on 8 rows: activations
# (8 rows of 1024 are 32 KiB a tensor) vanish beside the weights, and the peak lies in the optimizer.

WEIGHTS = 8


@pytest.fixture(scope="module")
def wide():
    return {
        precision: load_graph(
            lambda: nn.Sequential(nn.Linear(1024, 1024, bias=False), nn.Linear(1024, 1024, bias=False)),
            ReadOptions(batch=8, precision=precision, inputs=["float32[B,1024]"]),
        )
        for precision in ("fp32", "bf16")
    }


@pytest.mark.parametrize(
    ("optimizer", "variant", "copies"),
    [
        # weights + gradients + state + temporaries, in copies of the weights; one weight is half a copy.
        ("adam", "foreach", 1 + 1 + 2 + 1),
        ("adamw", "foreach", 1 + 1 + 2 + 1),
        ("adam", "single", 1 + 1 + 2 + 2 / 2),
        ("adam", "fused", 1 + 1 + 2),
        ("sgd", "foreach", 1 + 1 + 1 + 1),
        ("sgd", "single", 1 + 1 + 1 + 1 / 2),
        ("sgd", "fused", 1 + 1 + 1),
        ("lion", "foreach", 1 + 1 + 1 + 1),
        ("adafactor", "foreach", 1 + 1 + 2 / 2),
        ("none", "foreach", 1 + 1),
    ],
)
def test_optimizers_keep_and_borrow_what_their_update_needs(wide, optimizer, variant, copies):
    found = run(wide["fp32"], stack=EAGER.model_copy(update={"optimizer": variant}), optimizer=optimizer)
    workspace = EAGER.blas_byte.mid / MIB
    assert found.allocated / MIB == pytest.approx(copies * WEIGHTS + workspace, abs=0.4)


def test_every_optimizer_of_a_job_has_its_memory(wide):
    sizes = {name: run(wide["fp32"], optimizer=name).allocated for name in OPTIMIZERS}
    assert (
        sizes["none"] < sizes["adafactor"] < sizes["sgd"] == sizes["lion"] < sizes["adam"] == sizes["adamw"]
    )


# Half gradients are added to main gradients one by one, so one weight's, 2 MiB, lives for a moment.
PASSING = 2 * MIB
FUSED = EAGER.model_copy(update={"optimizer": "fused"})


def test_pure_half_training_keeps_eighteen_bytes_a_parameter(wide):
    # bf16 weight 2, float32 master 4, main gradient 4, two moments 8; a fused optimizer borrows nothing.
    found = run(wide["bf16"], stack=FUSED, precision="bf16")
    held = 18 * 2**21 + PASSING + EAGER.blas_byte.mid
    assert found.allocated == pytest.approx(held, abs=0.4 * MIB)
    assert found.parts["master weights"] == 4 * 2**21
    assert found.parts["gradients"] == 4 * 2**21 + PASSING


@pytest.mark.parametrize(("zero", "divided"), [(1, 4 + 8), (2, 4 + 8 + 4), (3, 4 + 8 + 4 + 2)])
def test_zero_stages_divide_state_then_gradients_then_weights(wide, zero, divided):
    # Bytes of each of 2**21 parameters over 8 ranks; buckets and gathered weights are other terms.
    found = run(wide["bf16"], replace(ONE, dp=8, zero=zero), FUSED, "bf16")
    named = sum(found.parts.get(n, 0) for n in ("weights", "gradients", "master weights", "optimizer state"))
    assert named - PASSING == 2**21 * (18 - divided) + 2**21 * divided // 8


def test_sharded_gradients_stay_until_the_update(wide):
    # float32: shards of 2**21 gradients over 8 ranks, and one whole gradient of 4 MiB on its way to them.
    found = run(wide["fp32"], replace(ONE, dp=8, zero=2), FUSED)
    assert found.parts["gradients"] == 4 * 2**21 // 8 + 4 * MIB


def test_data_parallel_ranks_hold_gradient_buckets(wide):
    # torch DistributedDataParallel: without gradient_as_bucket_view, "the saved memory size will be equal to
    # the total gradients size".
    alone, beside = run(wide["fp32"]), run(wide["fp32"], replace(ONE, dp=8))
    assert beside.allocated - alone.allocated == WEIGHTS * MIB


def test_accumulated_gradients_live_beside_activations(resnet50):
    once, often = run(resnet50), run(resnet50, replace(ONE, accumulate=4))
    # All gradients, and the one being added to them.
    assert often.parts["gradients"] > 4 * resnet50.parameter_count > once.parts["gradients"]
    assert often.allocated > once.allocated
    assert run(resnet50, replace(ONE, accumulate=2)).allocated == often.allocated


# Recompute.


class Block(nn.Module):
    def __init__(self, again):
        super().__init__()
        self.again = again
        self.norm, self.qkv, self.out = nn.LayerNorm(256), nn.Linear(256, 768), nn.Linear(256, 256)
        self.mlp = nn.Sequential(nn.LayerNorm(256), nn.Linear(256, 1024), nn.GELU(), nn.Linear(1024, 256))

    def inner(self, x):
        b, s, d = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, s, 3, 4, d // 4).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, s, d))
        return x + self.mlp(x)

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=False) if self.again else self.inner(x)


class Blocks(nn.Module):
    def __init__(self, again, count):
        super().__init__()
        self.layers = nn.ModuleList(Block(again) for _ in range(count))
        self.head = nn.Linear(256, 512)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def blocks(again=False, count=2, train=True, precision="fp32"):
    options = ReadOptions(batch=4, inputs=["float32[B,512,256]"], train=train, precision=precision)
    return load_graph(lambda: Blocks(again, count), options)


@pytest.mark.parametrize("count", [2, 6])
def test_full_recompute_agrees_with_torch_checkpoint(count):
    plain, checkpointed = blocks(False, count), blocks(True, count)
    assert len(pieces_of(plain)) == count
    rewritten = live_peak(recompute_full(read(plain, True), pieces_of(plain)))
    measured = live_peak(read(checkpointed, True))
    assert rewritten < live_peak(read(plain, True))
    # Ours moves a piece's forward to before the first tensor it gives back, torch to its first use.
    assert rewritten == pytest.approx(measured, rel=0.1)


def test_full_recompute_keeps_one_stream_per_block(gpt2):
    tape = recompute_full(read(gpt2, True), blocks_of(gpt2))
    inside = {op for a, z in blocks_of(gpt2) for op in range(a, z + 1)}
    kept = sum(x.byte for x in tape.lives if x.kind == ACTIVATIONS and x.op in inside)
    assert kept == 12 * 2 * 64 * 768 * 4  # blocks x b x s x width x float32


def test_a_convolutional_net_is_cut_into_the_root_of_its_layers(resnet50):
    assert len(pieces_of(resnet50)) == 7  # isqrt(53 convolutions + 1 linear)
    none, full = run(resnet50), run(resnet50, replace(ONE, recompute="full"))
    assert full.allocated < 0.75 * none.allocated


def test_selective_recompute_frees_the_scores_of_plain_attention(gpt2):
    plain = find_stack("eager-1")
    kept, again = run(gpt2, stack=plain), run(gpt2, replace(ONE, recompute="selective"), plain)
    # Softmax, dropped-out copy and mask of 12 blocks, all but one gone: [2, 12, 64, 64] in float32.
    scores = 2 * 12 * 64 * 64 * (4 + 4 + 1)
    tapes = [
        lifetimes(gpt2, p, plain, RECIPES["fp32"], True) for p in (ONE, replace(ONE, recompute="selective"))
    ]
    saved = [sum(x.byte for x in t.lives if x.kind == ACTIVATIONS) for t in tapes]
    assert saved[0] - saved[1] == 12 * scores
    assert again.allocated <= kept.allocated


# Stacks and precisions.


H, F, HEADS, KV, S, LAYERS = 512, 1536, 8, 2, 256, 4


@pytest.fixture(scope="module")
def llama():
    from predictor.zoo.llama import Llama

    return load_graph(
        lambda: Llama(layers=LAYERS, width=H, heads=HEADS, kv_heads=KV, inner=F, vocabulary=1000),
        ReadOptions(batch=2, seq_len=S, precision="bf16", inputs=["int64[B,S]"]),
    )


def test_fused_kernels_keep_what_megatron_keeps(llama):
    # Per token of a block, in bf16: both norms in and out 8 h, attention out 2 h, q 2 h, k and v
    # 4 h kv / heads, gate, up and their product 6 f (Korthikanti et al. 2022, with flash attention). Beside
    # it one float32 number per row of both norms and of the softmax of each head.
    tape = fuse(read(llama, True), llama)
    inside = {op for a, z in blocks_of(llama) for op in range(a, z + 1)}
    kept = sum(x.byte for x in tape.lives if x.kind == ACTIVATIONS and x.op in inside)
    per_token = 8 * H + 2 * H + 2 * H + 4 * H * KV // HEADS + 6 * F
    assert kept == 2 * S * LAYERS * (per_token + 4 + 4 + 4 * HEADS)


def test_fused_kernels_need_less_than_eager_ones(llama):
    eager = read(llama, True)
    # Eager kernels keep silu(gate) of each block beyond what fused ones keep.
    assert live_peak(eager) - live_peak(fuse(eager, llama)) >= 2 * S * LAYERS * 2 * F


def test_autocast_saves_half_of_most_activations_beside_whole_weights():
    whole, half = run(blocks()), run(blocks(precision="amp-bf16"), precision="amp-bf16")
    assert half.parts["weights"] == whole.parts["weights"]
    assert 0.5 < half.parts["activations"] / whole.parts["activations"] < 0.85


def test_eight_bit_copies_add_two_bytes_a_parameter(wide):
    half, eight = (run(wide["bf16"], precision=p) for p in ("bf16", "fp8"))
    assert eight.allocated - half.allocated == 2 * wide["bf16"].parameter_count


def test_inference_holds_weights_and_two_neighbours():
    graph = blocks(train=False)
    found = run(graph, train=False, optimizer="none")
    assert "gradients" not in found.parts
    assert "optimizer state" not in found.parts
    # The widest moment: a block's input and sum, the hidden layer before and after its activation.
    widest = 4 * 512 * 4 * (2 * 256 + 2 * 1024)
    held = found.allocated - 4 * graph.parameter_count - EAGER.blas_byte.mid - graph.input_byte
    assert widest <= held + MIB
    assert held < 2 * widest


# Sources without recorded storages.


@pytest.mark.parametrize("kind", ["attention", "convolution"])
def test_lifetimes_by_rule_agree_with_recorded_ones(kind):
    if kind == "attention":
        graph = blocks()
    else:
        layers = [
            nn.Conv2d(3, 32, 3, 2, 1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, 2, 1),
            nn.ReLU(),
        ]
        graph = load_graph(
            lambda: nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
            ReadOptions(batch=8, inputs=["float32[B,3,64,64]"]),
        )
    forward = tuple(op for op in graph.ops if op.phase == FORWARD)
    by_rule = replace(graph, ops=forward, events=(), gradients=frozenset())
    assert live_peak(read(by_rule, True)) == pytest.approx(live_peak(read(graph, True)), rel=0.1)


# Pipelines.


def chain(blocks, width=1000):
    """A forward and backward of ``blocks`` numbered blocks that save ``width`` bytes each, by hand."""
    ops, events = [], []
    for k in range(blocks):
        tensor = TensorSpec((width // 4,), "float32", (1,), k)
        q = TensorSpec((1, 1, 1, 1), "float32", (1, 1, 1, 1), 10**6)
        events.append(StorageEvent(k, width, k))
        ops.append(Op("predictor.attention", (q, q, q), (tensor,), {}, FORWARD, f"layers.{k}"))
    for k in reversed(range(blocks)):
        ops.append(Op("predictor.attention_backward", (), (), {}, "backward", ""))
        events.append(StorageEvent(len(ops), -width, k))
    parameters = tuple(Parameter(f"layers.{k}.weight", (100,), "float32") for k in range(blocks))
    return Graph("chain", "test", tuple(ops), parameters, 1, events=tuple(events))


def test_the_first_stage_holds_as_many_micro_batches_as_stages_follow():
    graph, plan = chain(8), replace(ONE, pp=4, accumulate=8)
    held = [
        sum(
            byte
            for name, byte in run(graph, plan, stage=s, optimizer="none").parts.items()
            if "activ" in name
        )
        for s in (0, 3)
    ]
    # Two blocks of 1,000 bytes a stage, less the first block's result of each stage but the last handed on.
    assert held[0] == 4 * 1000  # four micro-batches of one kept result
    assert held[1] == 1 * 3000  # one micro-batch: two own results and the one received


def test_stages_share_all_weights(gpt2):
    ends = stage_ends(pieces_of(gpt2), 4)
    stages = stage_of_parameters(gpt2, ends)
    assert stages == sorted(stages[:-2]) + stages[-2:]
    assert {
        s: sum(
            ".attention.qkv.weight" in p.name for p, t in zip(gpt2.parameters, stages, strict=True) if t == s
        )
        for s in range(4)
    } == dict.fromkeys(range(4), 3)


# The answer.


@pytest.mark.parametrize("stack", list_stacks())
def test_three_answers_contain_each_other_on_every_stack(resnet50, stack):
    peak = peak_memory(resnet50, ONE, find_stack(stack), RECIPES["fp32"], "adam", True)
    assert np.all(peak.allocated <= peak.reserved)
    assert np.all(peak.reserved < peak.device)
    assert np.all(peak.allocated > 4 * 4 * resnet50.parameter_count)


@pytest.mark.parametrize("stack", list_stacks())
def test_named_parts_add_up_to_the_device(gpt2, stack):
    peak = peak_memory(gpt2, ONE, find_stack(stack), RECIPES["fp32"], "adam", True)
    assert all(byte >= 0 for byte in peak.parts.values())
    assert sum(peak.parts.values()) == pytest.approx(middle(peak.device), rel=0.02)


def test_more_samples_and_fewer_ranks_need_more(resnet50, gpt2):
    def device(graph, plan):
        return middle(peak_memory(graph, plan, EAGER, RECIPES["fp32"], "adam", True).device)

    assert device(load_graph("zoo:resnet50", ReadOptions(batch=16)), ONE) > device(resnet50, ONE)
    sizes = [device(gpt2, replace(ONE, tp=tp)) for tp in (1, 2, 4)]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.soak
def test_measured_megatron_peaks_are_met():
    folder = os.environ.get("PREDICTOR_DATA")
    if not folder:
        pytest.skip("needs PREDICTOR_DATA")
    sys.path.insert(0, str(Path(__file__).parent.parent / "calibration"))
    from memory_simumax import simumax_layouts

    errors = [abs(layout.error) for layout in simumax_layouts(Path(folder))]
    assert np.median(errors) < 0.015
    assert max(errors) < 0.03
