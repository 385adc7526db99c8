"""Repeated blocks recorded once give the graph that recording all of them gives."""

from collections import Counter

import pytest
import torch
import torch.utils.checkpoint
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


def test_blocks_that_drop_more_or_less_are_equal():
    assert signature(Block(drop=0.1)) == signature(Block(drop=0.3))


def test_the_number_of_a_layer_counts_outside_transformers():
    assert signature(Block(layer_idx=1)) != signature(Block(layer_idx=7))


def test_layers_of_transformers_are_equal(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=5, num_attention_heads=4, vocab_size=100
    )
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert [len(group) for group in groups_of(model)] == [5]


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


class Layers(nn.Module):
    """Calls equal blocks in a way that a subclass chooses."""

    def __init__(self, *blocks):
        super().__init__()
        self.layers = nn.ModuleList(blocks or [Wide() for _ in range(6)])

    def forward(self, x):
        for place, layer in enumerate(self.layers):
            x = self.call(place, layer, x)
        return x

    def call(self, place, layer, x):
        return layer(x)


class Wide(nn.Module):
    def __init__(self, **attributes):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 8))
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x):
        return x + self.inner(x)


class Repeating(Wide):
    def forward(self, x):
        for _ in range(self._times):
            x = self.inner(x)
        return x


class Alternating(Wide):
    def forward(self, x):
        return self.inner(self.inner(x)) if self.layer_idx % 2 else self.inner(x)


class Ratio(Wide):
    def forward(self, x):
        keep = int(8 * (1 - self.drop_tokens))
        return torch.cat([self.inner(x)[:, :keep], x[:, keep:]], -1)


class Checkpointing(Layers):
    def call(self, place, layer, x):
        return torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)


class HalfWithoutGradient(Layers):
    def call(self, place, layer, x):
        with torch.set_grad_enabled(place >= 3):
            return layer(x)


class Detaching(Layers):
    def call(self, place, layer, x):
        return layer(x).detach() if place == 3 else layer(x)


class Casting(Layers):
    def call(self, place, layer, x):
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(place % 2)):
            return layer(x)


class Pair(Wide):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return x + self.inner(x), self.head(x)


class OneHead(Layers):
    def __init__(self):
        super().__init__(*(Pair() for _ in range(6)))

    def forward(self, x):
        heads = []
        for layer in self.layers:
            x, head = layer(x)
            heads.append(head)
        return x, heads[2]


ODD = {
    "private attributes": lambda: Layers(*(Repeating(_times=n) for n in (1, 2, 3, 1))),
    "a number that is read": lambda: Layers(*(Alternating(layer_idx=n) for n in range(7))),
    "a ratio called drop": lambda: Layers(*(Ratio(drop_tokens=0.1 * n) for n in range(1, 6))),
    "checkpoints": Checkpointing,
    "blocks without gradient": HalfWithoutGradient,
    "a detached stream": Detaching,
    "alternating autocast": Casting,
    "a head that is used once": OneHead,
}


@pytest.mark.parametrize("name", ODD)
def test_blocks_that_only_look_equal(both_ways, name):
    torch.manual_seed(0)
    folded, plain = both_ways(ODD[name](), ReadOptions(inputs=torch.zeros(4, 8)))
    assert calls(folded) == calls(plain)
    assert live_bytes(folded) == live_bytes(plain)


def test_checkpoints_of_timm_count_as_recompute(both_ways):
    timm = pytest.importorskip("timm")

    def build():
        model = timm.create_model("vit_tiny_patch16_224")
        model.set_grad_checkpointing()
        return model

    folded, plain = both_ways(build, ReadOptions(inputs=["float32[B,3,224,224]"], batch=2))
    assert calls(folded) == calls(plain)
    assert count(folded, find_stack("eager-2"), True).total("recompute").matrix_flop > 10**9
