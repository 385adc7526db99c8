"""Recording PyTorch models: counts against hand formulas and an independent counter."""

import resource
import warnings
from collections import Counter

import pytest
import torch
import torch.utils.checkpoint
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from predictor.errors import InputError, UnsupportedError
from predictor.frontends import ReadOptions, load_graph
from predictor.ir import BACKWARD, FORWARD, RECOMPUTE
from predictor.stack import find_stack
from predictor.workload import count

EAGER = find_stack("eager-2")


def matrix_flop(graph, phase):
    return count(graph, EAGER, True).total(phase).matrix_flop


def conv_flop(b, cin, cout, k, side):
    return 2 * b * cout * side * side * cin * k * k


def resnet50_forward_flop(b):
    """He et al. 2015, table 1, the stride on the 3x3 convolution: stages of (blocks, width, output side)."""
    total = conv_flop(b, 3, 64, 7, 112)
    cin = 64
    for index, (blocks, width, side) in enumerate([(3, 64, 56), (4, 128, 28), (6, 256, 14), (3, 512, 7)]):
        for block in range(blocks):
            before = side if block or index == 0 else 2 * side
            total += conv_flop(b, cin, width, 1, before)
            total += conv_flop(b, width, width, 3, side)
            total += conv_flop(b, width, 4 * width, 1, side)
            if block == 0:
                total += conv_flop(b, cin, 4 * width, 1, side)
            cin = 4 * width
    return total + 2 * b * 2048 * 1000


def test_resnet50_flop_equal_the_hand_formula(resnet50):
    forward = resnet50_forward_flop(8)
    assert matrix_flop(resnet50, FORWARD) == forward
    # Every product has two gradients, but the images need none.
    assert matrix_flop(resnet50, BACKWARD) == 2 * forward - conv_flop(8, 3, 64, 7, 112)


def llama_forward_flop(b, s, d, layers, heads, kv_heads, ffn, vocab):
    head = d // heads
    linear = layers * (d * d + 2 * d * kv_heads * head + d * d + 3 * d * ffn) + d * vocab
    attention = layers * b * heads * (s * (s + 1) // 2) * 2 * 2 * head
    return 2 * b * s * linear + attention


def test_llama_flop_equal_the_hand_formula():
    graph = load_graph("zoo:llama3-8b", ReadOptions(batch=1, seq_len=512))
    forward = llama_forward_flop(1, 512, 4096, 32, 32, 8, 14336, 128256)
    assert matrix_flop(graph, FORWARD) == forward
    assert matrix_flop(graph, BACKWARD) == 2 * forward


def test_transformers_llama_counts_like_ours(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=2,
        vocab_size=1000,
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(tmp_path)
    graph = load_graph(str(tmp_path / "config.json"), ReadOptions(batch=2, seq_len=128))
    assert matrix_flop(graph, FORWARD) == llama_forward_flop(2, 128, 256, 3, 8, 2, 512, 1000)
    assert graph.tokens_per_sample == 128


@pytest.mark.parametrize(
    ("name", "grouped"),
    [("zoo:resnet50", False), ("zoo:alexnet", True), ("zoo:vgg16", False), ("timm:efficientnet_b0", True)],
)
def test_convnets_count_like_the_flop_counter(name, grouped):
    """An independent count. It takes the weight gradient of a grouped convolution for a dense one, so
    for models with groups only the forward passes are compared."""
    pytest.importorskip("timm") if name.startswith("timm") else None
    graph = load_graph(name, ReadOptions(batch=2))
    with torch.device("meta"):
        if name.startswith("timm"):
            import timm

            module = timm.create_model(name[5:])
        else:
            from importlib import import_module

            from predictor.zoo import ZOO

            entry = ZOO[name[4:]]
            module = getattr(import_module(entry.module), entry.factory)()
        image = torch.zeros(2, 3, 224, 224)
    with FlopCounterMode(display=False) as counter, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss = module.train()(image).sum()
        if not grouped:
            loss.backward()
    ours = matrix_flop(graph, FORWARD) + (0 if grouped else matrix_flop(graph, BACKWARD))
    assert ours == counter.get_total_flops()


def test_twice_the_batch_is_twice_the_flop(resnet50):
    double = load_graph("zoo:resnet50", ReadOptions(batch=16))
    assert matrix_flop(double, FORWARD) == 2 * matrix_flop(resnet50, FORWARD)


def test_the_model_is_never_allocated():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    graph = load_graph("zoo:llama3-70b", ReadOptions(batch=1, seq_len=64, precision="bf16", train=False))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert graph.parameter_count == 70_553_706_496
    assert grown < graph.parameter_count / 50


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(16, 32, bias=False)
        self.down = nn.Linear(32, 4, bias=False)

    def forward(self, x):
        return self.down(torch.relu(self.up(x)))


def test_a_users_module_is_left_as_it_is():
    module = Mlp()
    kept = {name: (p.data_ptr(), p.clone()) for name, p in module.named_parameters()}
    graph = load_graph(module, ReadOptions(inputs=torch.zeros(8, 16)))
    assert graph.parameter_count == 16 * 32 + 32 * 4
    for name, p in module.named_parameters():
        assert p.data_ptr() == kept[name][0]
        assert torch.equal(p, kept[name][1])
        assert p.grad is None


def test_peak_of_a_perceptron_by_hand():
    graph = load_graph(Mlp(), ReadOptions(inputs=torch.zeros(1000, 16)))
    live, peaks = 0, []
    for event in graph.events:
        live += event.byte
        peaks.append(live)
    up, logits = 4 * 1000 * 32, 4 * 1000 * 4
    # Backward of the last product: relu's result is saved, and up's for relu only as its result.
    assert max(peaks) >= 2 * up + logits
    assert max(peaks) <= 3 * up + 4 * logits + 8 * 1000 + 1024
    # In the end only the gradients of the two weights are alive.
    assert live == 4 * (16 * 32 + 32 * 4)
    assert len(graph.gradients) == 2


def test_frozen_weights_get_no_gradient():
    module = Mlp()
    module.up.weight.requires_grad_(False)
    graph = load_graph(module, ReadOptions(inputs=torch.zeros(8, 16)))
    assert graph.trainable_count == 32 * 4
    products = [op for op in graph.ops if op.name == "aten.mm" and op.phase == BACKWARD]
    assert len(products) == 1


def test_a_model_without_trainable_weights_is_refused_for_training():
    module = Mlp().requires_grad_(False)
    with pytest.raises(InputError, match="no floating tensor that depends on a trainable parameter"):
        load_graph(module, ReadOptions(inputs=torch.zeros(8, 16)))


def test_inference_records_no_backward():
    graph = load_graph(Mlp(), ReadOptions(inputs=torch.zeros(8, 16), train=False))
    assert {op.phase for op in graph.ops} == {FORWARD}


class Precise(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 64)
        self.norm = nn.LayerNorm(64)

    def forward(self, x):
        return torch.softmax(self.norm(self.linear(x)), -1)


def types_of(graph):
    return {op.name: op.inputs[0].dtype for op in graph.ops if op.phase == FORWARD and op.inputs}


def test_autocast_uses_the_lists_of_cuda():
    graph = load_graph(Precise(), ReadOptions(inputs=torch.zeros(8, 64), precision="amp-bf16"))
    types = types_of(graph)
    assert types["aten.addmm"] == "bfloat16"
    assert types["aten.native_layer_norm"] == "float32"
    assert types["aten._softmax"] == "float32"
    assert all(p.dtype == "float32" for p in graph.parameters)


def test_pure_half_casts_weights_and_inputs():
    graph = load_graph(Precise(), ReadOptions(inputs=torch.zeros(8, 64), precision="bf16"))
    assert types_of(graph)["aten.native_layer_norm"] == "bfloat16"
    assert {p.dtype for p in graph.parameters} == {"float32"}


def test_the_dispatcher_is_put_back():
    load_graph(Precise(), ReadOptions(inputs=torch.zeros(8, 64), precision="amp-bf16"))
    x = torch.randn(2, 2, 8, 4)
    out = nn.functional.scaled_dot_product_attention(x, x, x)
    expected = torch.softmax(x @ x.transpose(-1, -2) / 2, -1) @ x
    assert torch.allclose(out, expected, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert nn.functional.layer_norm(x.bfloat16(), (4,)).dtype == torch.bfloat16
    assert torch.backends.mha.get_fastpath_enabled()


def test_channels_last_reaches_the_strides():
    graph = load_graph("zoo:resnet50", ReadOptions(batch=2, channels_last=True))
    kinds = Counter(row.kernel.kind for row in count(graph, EAGER, True).rows)
    assert kinds["conv-channels-last"] > 0
    assert kinds["conv"] == 0


def test_dropout_keeps_a_byte_per_element():
    graph = load_graph(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1)), ReadOptions(inputs=torch.zeros(8, 4)))
    (dropout,) = [op for op in graph.ops if op.name == "aten.native_dropout"]
    assert [t.dtype for t in dropout.outputs] == ["float32", "bool"]


def test_tied_weights_count_once(gpt2):
    assert gpt2.parameter_count == 124_439_808


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(x) if x.sum() > 0 else x


def test_control_flow_on_data_is_refused_with_advice():
    with pytest.raises(UnsupportedError, match="depends on data"):
        load_graph(Branching(), ReadOptions(inputs=torch.zeros(8, 4)))


def test_inputs_of_a_wrong_shape_are_named():
    with pytest.raises(InputError, match=r"recording a step failed.*inputs were input:float32\[8,5\]"):
        load_graph(Precise(), ReadOptions(inputs=torch.zeros(8, 5)))


def test_a_size_without_effect_is_refused():
    with pytest.raises(InputError, match="seq_len 128 has no effect"):
        load_graph("zoo:resnet50", ReadOptions(batch=2, seq_len=128))


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "vit_tiny_patch16_224", "convnext_atto"])
def test_constructors_that_compute_with_tensors_build(name):
    timm = pytest.importorskip("timm")
    graph = load_graph(f"timm:{name}", ReadOptions(batch=2))
    with torch.device("meta"):
        expected = sum(p.numel() for p in timm.create_model("convnext_atto").parameters())
    assert graph.parameter_count > 1_000_000
    if name == "convnext_atto":
        assert graph.parameter_count == expected


def test_every_operator_of_the_zoo_has_a_formula():
    from predictor.zoo import ZOO

    for name, entry in ZOO.items():
        if "405b" in name or "175b" in name or "70b" in name:
            continue
        # Two samples: a batch norm behind a dense layer cannot train on one.
        graph = load_graph(f"zoo:{name}", ReadOptions(batch=2, seq_len=64 if entry.sequence else None))
        assert count(graph, EAGER, True).unpriced == (), name


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Mlp()

    def forward(self, x):
        return torch.utils.checkpoint.checkpoint(self.inner, x, use_reentrant=False)


def test_checkpointed_work_is_recompute_not_model():
    x = torch.zeros(8, 16, requires_grad=True)
    plain, again = (load_graph(m, ReadOptions(inputs=x)) for m in (Mlp(), Checkpointed()))
    assert matrix_flop(again, BACKWARD) == matrix_flop(plain, BACKWARD)
    assert matrix_flop(again, RECOMPUTE) > 0


def test_the_batch_stands_where_its_letter_stands():
    recurrent = nn.Linear(16, 4)
    graph = load_graph(recurrent, ReadOptions(batch=8, inputs=["float32[5,B,16]"]))
    assert graph.batch == 8
    assert graph.ops[0].inputs[1].shape == (40, 16)
