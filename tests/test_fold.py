"""Repeated blocks recorded once give the graph that recording all of them gives."""

from collections import Counter

import pytest
import torch
from torch import nn

from predictor.frontends import ReadOptions, load_graph, torch_record
from predictor.frontends.torch_blocks import groups_of, signature
from predictor.ir import BACKWARD, FORWARD
from predictor.stack import find_stack
from predictor.workload import count


@pytest.fixture
def both_ways(monkeypatch):
    """Read a model folded and unfolded."""

    def read(source, options):
        folded = load_graph(source, options)
        monkeypatch.setattr(torch_record, "groups_of", lambda module: [])
        plain = load_graph(source, options)
        monkeypatch.undo()
        return folded, plain

    return read


def calls(graph):
    return Counter(
        (op.name, op.phase, tuple((t.shape, t.dtype, t.stride) for t in (*op.inputs, *op.outputs)))
        for op in graph.ops
    )


def live_bytes(graph):
    """Peak and final bytes of the recorded storages."""
    live = peak = 0
    for event in graph.events:
        live += event.byte
        peak = max(peak, live)
    return peak, live


@pytest.mark.parametrize("precision", ["fp32", "amp-bf16"])
@pytest.mark.parametrize(
    "name",
    [
        "zoo:gpt2",
        "zoo:bert-base",
        "zoo:transformer-base",
        "zoo:mixtral-8x7b",
        "timm:convnext_atto",
        "timm:resnet50",
    ],
)
def test_folding_changes_nothing(both_ways, name, precision):
    seq_len = 64 if name.startswith("zoo") and "resnet" not in name and "transformer" not in name else None
    folded, plain = both_ways(name, ReadOptions(batch=2, seq_len=seq_len, precision=precision))
    assert calls(folded) == calls(plain)
    if "transformer" not in name:  # sums over decoder blocks stand before or after the last of them
        assert [op.name for op in folded.ops] == [op.name for op in plain.ops]
    assert live_bytes(folded) == live_bytes(plain)
    assert len(folded.gradients) == len(plain.gradients)


@pytest.mark.parametrize("name", ["zoo:gpt2", "zoo:bert-base", "timm:convnext_atto"])
def test_fused_chains_are_the_same(both_ways, name):
    seq_len = 64 if name.startswith("zoo") else None
    folded, plain = both_ways(name, ReadOptions(batch=2, seq_len=seq_len, precision="amp-bf16"))
    works = [count(graph, find_stack("compiled-2"), True) for graph in (folded, plain)]
    for phase in (FORWARD, BACKWARD):
        assert works[0].total(phase) == works[1].total(phase)


class Handing(nn.Module):
    """Hands its second argument on as it is, as T5 does with its position bias."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 8))

    def forward(self, x, bias):
        return self.inner(x) + bias, bias


class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Handing() for _ in range(5))
        self.bias = nn.Linear(8, 8)

    def forward(self, x):
        bias, plain = self.bias(x), torch.ones(4, 8)
        for layer in self.layers:
            x, bias = layer(x, bias)
            x = x + plain
        return x


def test_what_a_block_hands_on_stays_one_tensor(both_ways):
    folded, plain = both_ways(Chain(), ReadOptions(inputs=torch.zeros(4, 8)))
    assert calls(folded) == calls(plain)
    assert live_bytes(folded) == live_bytes(plain)
    assert not any(op.scope.startswith("layers.2") for op in folded.ops)  # it was stood in for


def test_folding_is_used():
    graph = load_graph("zoo:gpt2", ReadOptions(batch=1, seq_len=32))
    assert len({id(op) for op in graph.ops}) < 0.7 * len(graph.ops)


def test_inference_folds_too(both_ways):
    folded, plain = both_ways("zoo:gpt2", ReadOptions(batch=1, seq_len=32, train=False))
    assert calls(folded) == calls(plain)
    assert live_bytes(folded) == live_bytes(plain)


class Block(nn.Module):
    def __init__(self, width=8, drop=0.0, layer_idx=0):
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.dropout = nn.Dropout(drop)
        self.layer_idx = layer_idx

    def forward(self, x, scale=1.0):
        return x + self.dropout(self.linear(x)) * scale


def stack(*blocks):
    return nn.Sequential(nn.Linear(8, 8), nn.Sequential(*blocks))


def test_blocks_that_differ_only_by_their_number_are_equal():
    assert signature(Block(layer_idx=1)) == signature(Block(layer_idx=7))
    assert signature(Block(drop=0.1)) == signature(Block(drop=0.3))


@pytest.mark.parametrize("other", [Block(drop=0.1), nn.Linear(8, 8)])
def test_blocks_that_differ_are_not(other):
    assert signature(Block()) != signature(other)


def test_frozen_blocks_are_others():
    frozen = Block().requires_grad_(False)
    assert signature(frozen) != signature(Block())
    assert groups_of(stack(Block(), Block(), frozen)) == []


def test_shared_weights_are_not_folded():
    one, two, three = Block(), Block(), Block()
    two.linear.weight = one.linear.weight
    assert groups_of(stack(one, two, three)) == []


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Sequential(nn.Linear(8, 8))

    def forward(self, x):
        return self.linear(torch.relu_(x))


def test_blocks_that_change_their_input_are_recorded_in_full(both_ways):
    folded, plain = both_ways(stack(InPlace(), InPlace(), InPlace()), ReadOptions(inputs=torch.zeros(4, 8)))
    assert calls(folded) == calls(plain)
    assert live_bytes(folded) == live_bytes(plain)


class Twice(nn.Module):
    """Calls every block twice, with another argument the second time."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(Block()) for _ in range(4))
        self.named = nn.ModuleList(Block() for _ in range(4))

    def forward(self, x):
        for block in self.named:
            x = block(x, scale=2.0)
        for block in self.named:
            x = block(x)
        for block in self.blocks:
            x = block(x)
        return x


def test_blocks_that_are_called_twice_count_twice(both_ways):
    folded, plain = both_ways(Twice(), ReadOptions(inputs=torch.zeros(4, 8)))
    assert calls(folded) == calls(plain)
    assert live_bytes(folded) == live_bytes(plain)


def test_modules_are_put_back():
    module = stack(Block(), Block(), Block())
    load_graph(module, ReadOptions(inputs=torch.zeros(4, 8)))
    assert "forward" not in vars(module[1][0])
    assert module(torch.ones(4, 8)).shape == (4, 8)
