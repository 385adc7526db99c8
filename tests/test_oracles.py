"""Our counts against those of other tools: equal, or different for a reason that is worked out."""

import json

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from predictor.cli import main
from predictor.errors import InputError
from predictor.frontends import ReadOptions, load_graph
from predictor.ir import BACKWARD, FORWARD
from predictor.oracles import check, flop_counter, fvcore_trace
from predictor.oracles.comparison import CONVOLUTIONS, OTHERS, PRODUCTS
from predictor.passes import steps_of
from predictor.zoo.llama import Llama

FLOP_COUNTER, FVCORE = flop_counter.NAME, fvcore_trace.NAME
STEP = ReadOptions(batch=2)
WIDTH, LAYERS, HEADS, SHARED, INNER, WORDS = 64, 3, 4, 2, 96, 200


def llama():
    return Llama(layers=LAYERS, width=WIDTH, heads=HEADS, kv_heads=SHARED, inner=INNER, vocabulary=WORDS)


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.groups = nn.Conv2d(8, 12, 3, groups=4)
        self.up = nn.ConvTranspose2d(12, 6, 2, groups=2)

    def forward(self, x):
        return self.up(self.groups(self.stem(x))).flatten(1)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTM(8, 16, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        return self.head(self.cell(x)[0])


class Vectors(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(8, 8)
        self.pick = nn.Parameter(torch.zeros(8))

    def forward(self, x):
        y = self.mix(x)  # [b, 6, 8]
        joined = torch.baddbmm(y, y @ y.transpose(1, 2), y)
        return joined + (y @ self.pick).unsqueeze(2) + torch.einsum("bsi,ij->bsj", y, self.mix.weight)


def checked(source, options=STEP):
    return check(source, options, load_graph(source, options))


def matrix_flop(graph):
    """Forward and backward matrix flop."""
    sums = {FORWARD: 0, BACKWARD: 0}
    for step in steps_of(graph, train=True):
        sums[step.phase] += sum(kernel.work.matrix_flop for kernel in step.kernels)
    return sums[FORWARD], sums[BACKWARD]


def line(found, oracle, phase, family):
    return next(row for row in found.lines if (row.oracle, row.phase, row.family) == (oracle, phase, family))


# By hand


@pytest.mark.parametrize(("batch", "tokens"), [(1, 16), (3, 40)])
def test_a_llama_costs_six_per_weight_and_token_plus_its_attention(batch, tokens):
    graph = load_graph(llama(), ReadOptions(batch=batch, inputs=[f"int64[{batch},{tokens}]"]))
    head_size = WIDTH // HEADS
    projections = WIDTH * WIDTH * 2 + WIDTH * SHARED * head_size * 2  # q and out, k and v
    linear_weights = LAYERS * (projections + 3 * WIDTH * INNER) + WIDTH * WORDS
    pairs = tokens * (tokens + 1) // 2
    attention = LAYERS * batch * HEADS * pairs * 2 * 2 * head_size  # q k^T and p v
    expected = 6 * linear_weights * batch * tokens + 3 * attention
    assert sum(matrix_flop(graph)) == expected


def test_six_per_weight_and_token_is_also_what_the_counter_says_without_attention():
    graph = load_graph(llama(), ReadOptions(batch=2, inputs=["int64[2,16]"]))
    found = check(llama(), ReadOptions(batch=2, inputs=["int64[2,16]"]), graph)
    backward = line(found, FLOP_COUNTER, BACKWARD, PRODUCTS)
    hidden = 2 * HEADS * LAYERS * (16 * 16 - 16 * 17 // 2)  # scores above the diagonal
    assert backward.theirs - backward.ours == hidden * 4 * 2 * (WIDTH // HEADS)
    assert not found.unexplained


# Every model


SMALL = [
    "zoo:alexnet",
    "zoo:transformer-base",
    "timm:resnet10t",
    "timm:mobilenetv3_small_050",
    "timm:test_byobnet",
    "timm:test_coatnet",
    "timm:test_convnext",
    "timm:test_efficientnet_gn",
    "timm:test_mambaout",
    "timm:test_vit",
    "timm:test_vit_relpos",
    "timm:xcit_nano_12_p16_224",
]


@pytest.mark.parametrize("source", SMALL)
def test_every_difference_is_explained(source):
    options = ReadOptions(batch=2, seq_len=8) if source == "zoo:transformer-base" else STEP
    found = checked(source, options)
    assert found.missing == ()
    assert {(row.oracle, row.phase) for row in found.lines} == {
        (FLOP_COUNTER, FORWARD),
        (FLOP_COUNTER, BACKWARD),
        (FVCORE, FORWARD),
    }
    for row in found.lines:
        assert row.unexplained == 0, row
        assert row.theirs == row.ours + sum(flop for _, flop in row.reasons)
        assert sum(r.ours for r in found.lines) > 0


def test_a_plain_convolutional_net_agrees_without_any_reason():
    found = checked("timm:resnet10t")
    for row in found.lines:
        if row.family != OTHERS:
            assert row.reasons == ()
            assert row.ours == row.theirs > 0


def test_inference_has_no_backward_lines():
    found = checked("timm:test_vit", ReadOptions(batch=2, train=False))
    assert {row.phase for row in found.lines} == {FORWARD}
    assert not found.unexplained


# Known faults of the oracles, each by arithmetic


def test_the_counter_takes_grouped_weight_gradients_for_dense():
    options = ReadOptions(batch=2, inputs=["float32[2,3,10,10]"])
    row = line(checked(Grouped(), options), FLOP_COUNTER, BACKWARD, CONVOLUTIONS)
    grouped = 2 * (2 * 12 * 6 * 6) * (2 * 3 * 3)  # 12 channels of 6 x 6, each from 2 channels
    transposed = 2 * (2 * 12 * 6 * 6) * (3 * 2 * 2)  # each of 12 x 6 x 6 into 3 channels, 2 x 2
    assert row.theirs - row.ours == (4 - 1) * grouped + (2 - 1) * transposed
    assert row.unexplained == 0


def test_a_recurrent_kernel_makes_gradients_that_nobody_needs():
    options = ReadOptions(batch=2, inputs=["float32[2,6,8]"])
    found = checked(Recurrent(), options)
    row = line(found, FLOP_COUNTER, BACKWARD, PRODUCTS)
    first_states = 4 * 2 * 2 * 16 * 64  # four cells: [2, 64] @ [64, 16]
    inputs = 2 * 2 * (2 * 6) * 64 * 8  # two cells read the input: [12, 64] @ [64, 8]
    assert row.ours - row.theirs == first_states + inputs
    assert not found.unexplained


def test_products_that_one_oracle_has_no_rule_for_are_named():
    found = checked(Vectors(), ReadOptions(batch=2, inputs=["float32[2,6,8]"]))
    assert not found.unexplained
    forward = line(found, FLOP_COUNTER, FORWARD, PRODUCTS)
    assert forward.reasons == (("has no formula for mv", -2 * 2 * 6 * 8),)
    theirs = dict(line(found, FVCORE, FORWARD, PRODUCTS).reasons)
    assert theirs["has no rule for baddbmm"] == -2 * 2 * 6 * 6 * 8


def test_pytorch_counts_no_attention_on_the_cpu_and_three_forwards_on_meta():
    """The trap that makes us run the counter on the meta device: when PyTorch changes this, look again."""
    counts = []
    for device in ("cpu", "meta"):
        q = torch.zeros(1, 2, 16, 8, device=device, requires_grad=True)
        with FlopCounterMode(display=False) as counter:
            nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts == [0, 3 * (4 * 2 * 16 * 16 * 8)]


# What fails, and how


def test_a_wrong_formula_of_ours_fails_the_check(monkeypatch):
    from predictor.ops import FORMULAS, matmul

    def halved(op):
        (kernel,) = matmul.add_matmul(op)
        work = kernel.work
        return (matmul.product(*kernel.dims[:3], kernel.dims[3] // 2, kernel.dtype, 0, work.write_byte),)

    monkeypatch.setitem(FORMULAS, "aten.addmm", halved)
    found = checked("timm:test_vit")
    assert {(row.oracle, row.phase, row.family) for row in found.unexplained} == {
        (FLOP_COUNTER, FORWARD, PRODUCTS),
        (FVCORE, FORWARD, PRODUCTS),
    }


def test_the_command_says_no_when_a_difference_is_unexplained(monkeypatch, capsys):
    from predictor.ops import FORMULAS

    monkeypatch.setitem(FORMULAS, "aten.convolution_backward", lambda op: ())
    with pytest.raises(SystemExit) as ended:
        main(["trace", "timm:test_resnet", "--micro-batch", "2", "--check"])
    out, err = capsys.readouterr()
    assert ended.value.code == 1
    assert out == ""
    assert f"{FLOP_COUNTER}, backward, convolutions: +" in err


def test_the_command_shows_the_comparison(capsys):
    arguments = ["trace", "timm:test_vit", "--micro-batch", "2", "--check"]
    for form in ("json", "table"):
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--format", form])
        assert ended.value.code == 0
        out = capsys.readouterr().out
        if form == "json":
            rows = json.loads(out)["check"]["lines"]
            assert {row["oracle"] for row in rows} == {FLOP_COUNTER, FVCORE}
            flop = json.loads(out)["flop"]
            ours = [r["flop"] for r in rows if r["oracle"] == FLOP_COUNTER and r["phase"] == FORWARD]
            assert sum(ours) == flop["forward"]
    assert "has no rule for attention" in out


def test_without_fvcore_the_other_oracle_still_runs(monkeypatch):
    monkeypatch.setattr(fvcore_trace, "find_spec", lambda name: None)
    found = checked("timm:test_vit")
    assert {row.oracle for row in found.lines} == {FLOP_COUNTER}
    assert found.missing == ((FVCORE, "is not installed; pip install 'predictor[check]'"),)


def test_fvcore_is_left_out_where_it_would_have_to_compute_too_much(monkeypatch):
    monkeypatch.setattr(fvcore_trace, "MOST_FLOP", 10)
    (missing,) = checked("timm:test_vit").missing
    assert missing[0] == FVCORE
    assert "give a smaller --batch-size" in missing[1]


@pytest.mark.parametrize("source", ["config.json", "model.onnx", "program.pt2", "jax:file.py:loss"])
def test_sources_without_code_to_run_are_refused(source):
    graph = load_graph(nn.Linear(2, 2), ReadOptions(inputs=["float32[1,2]"]))
    with pytest.raises(InputError, match="give it as zoo:NAME"):
        check(source, STEP, graph)
