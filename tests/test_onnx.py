"""ONNX files: shapes, parameters, flop and gradients against arithmetic; every refusal by its message."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from predictor.errors import InputError, UnsupportedError
from predictor.frontends.onnx_file import read_onnx
from predictor.ir import Op, TensorSpec, Work
from predictor.ops import FORMULAS, GRADIENTS, KINDS, by_bytes, gradient_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore:.*:torch.jit.TracerWarning"),
]
EXAMPLES = Path(__file__).parent.parent / "examples"
EXPORTERS = pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def forward_flop(graph):
    return sum(k.work.matrix_flop for op in graph.ops for k in FORMULAS.get(op.name, by_bytes)(op))


def backward_flop(graph):
    return sum(k.work.matrix_flop for op in graph.ops for k in gradient_of(op))


def names(graph):
    return [op.name for op in graph.ops]


def info(name, *shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


X, Y = info("x", 2, 4), info("y", 2, 4)


def constant(name, *shape, dtype=np.float32):
    return numpy_helper.from_array(np.random.default_rng(0).normal(size=shape).astype(dtype), name)


def whole_numbers(name, *values):
    return numpy_helper.from_array(np.array(values, dtype=np.int64), name)


def save(folder, nodes, inputs, outputs, constants=(), opset=20, **more):
    """Write a graph of nodes given as (type, inputs, outputs, attributes)."""
    made = [helper.make_node(n[0], n[1].split(), n[2].split(), **(n[3] if len(n) > 3 else {})) for n in nodes]
    opsets = [helper.make_opsetid("", opset), *more.pop("opsets", [])]
    functions = more.pop("functions", [])
    graph = helper.make_graph(made, "g", inputs, outputs, list(constants), **more)
    path = folder / "model.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, functions=functions).SerializeToString())
    return path


def export(module, inputs, folder, dynamo, dynamic=True):
    """A real export, with an open batch axis unless told otherwise."""
    path = folder / "model.onnx"
    if dynamo:
        axes = tuple({0: torch.export.Dim("batch", min=1, max=64)} for _ in inputs) if dynamic else None
        torch.onnx.export(
            module, inputs, str(path), dynamo=True, external_data=False, verbose=False, dynamic_shapes=axes
        )
    else:
        inputs_named = [f"x{i}" for i in range(len(inputs))]
        axes = {name: {0: "batch"} for name in inputs_named} if dynamic else None
        torch.onnx.export(
            module, inputs, str(path), dynamo=False, input_names=inputs_named, dynamic_axes=axes
        )
    return path


def trained(module):
    """Weights that differ from each other, as after training; evaluation mode."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module.eval()


def count(module):
    return sum(p.numel() for p in module.parameters())


class Block(nn.Module):
    def __init__(self, width=32, heads=4):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        b, s, w = x.shape
        heads = self.qkv(self.norm1(x)).reshape(b, s, 3, self.heads, w // self.heads)
        q, k, v = heads.permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, s, w))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class Gpt(nn.Module):
    def __init__(self, layers=2, width=32, vocabulary=100, length=16):
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids):
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Convnet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2)
        self.linear = nn.Linear(16, 10)
        self.register_buffer("mean", torch.rand(3, 1, 1))

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.first(x - self.mean)), 2)
        return self.linear(torch.relu(self.second(x)).mean((2, 3)))


# Exports of PyTorch modules


def agreement():
    """The benchmark that compares exports with recordings."""
    path = Path(__file__).parent.parent / "benchmarks" / "onnx_agreement.py"
    spec = importlib.util.spec_from_file_location("onnx_agreement", path)
    module = sys.modules["onnx_agreement"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name",
    [
        "timm:mobilenetv3_small_050:torchscript",
        "timm:tf_efficientnetv2_b0:torchscript",  # pads by arithmetic on its sizes
        "transformers:t5:torchscript",
        "transformers:llama:dynamo",
    ],
)
def test_exported_library_models_have_the_flop_of_their_recording(name):
    (case,) = [c for c in agreement().cases() if f"{c.name}:{c.exporter}" == name]
    recorded, exported = agreement().measure(case)
    assert exported == recorded
    assert min(recorded) > 1e6


@EXPORTERS
def test_convnet_has_the_flop_of_its_filters(tmp_path, dynamo):
    net = trained(Convnet())
    graph = read_onnx(export(net, (torch.rand(2, 3, 16, 16),), tmp_path, dynamo), batch=5)
    first = 2 * (5 * 8 * 16 * 16) * (3 * 3 * 3)
    second = 2 * (5 * 16 * 3 * 3) * (8 * 3 * 3)
    linear = 2 * 5 * 16 * 10
    assert graph.batch == 5
    assert forward_flop(graph) == first + second + linear
    assert backward_flop(graph) == 2 * (first + second + linear) - first
    assert graph.parameter_count == count(net)
    assert graph.buffers_byte >= 4 * 3  # the mean
    assert graph.input_byte == 4 * 5 * 3 * 16 * 16
    assert graph.tokens_per_sample is None


@EXPORTERS
def test_encoder_has_the_flop_of_its_layers(tmp_path, dynamo):
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2)
    net = trained(encoder)
    graph = read_onnx(export(net, (torch.rand(2, 9, 32),), tmp_path, dynamo), batch=3)
    tokens = 3 * 9
    products = 2 * tokens * 32 * (3 * 32 + 32 + 64 + 64)
    attention = 2 * 2 * (3 * 4) * 9 * 9 * 8
    assert forward_flop(graph) == 2 * (products + attention)
    assert backward_flop(graph) == 2 * forward_flop(graph) - 2 * tokens * 32 * 3 * 32
    assert names(graph).count("predictor.attention") == 2
    assert graph.parameter_count == count(net)


@EXPORTERS
def test_gpt_counts_causal_scores_and_tied_weights_once(tmp_path, dynamo):
    net = trained(Gpt())
    graph = read_onnx(export(net, (torch.randint(0, 100, (2, 16)),), tmp_path, dynamo), batch=4)
    tokens = 4 * 16
    products = 2 * tokens * 32 * (3 * 32 + 32 + 4 * 32 + 4 * 32)
    scores = 4 * 4 * (16 * 17 // 2)
    assert forward_flop(graph) == 2 * (products + 2 * scores * (8 + 8)) + 2 * tokens * 32 * 100
    assert backward_flop(graph) == 2 * forward_flop(graph)  # the first layer is a table
    assert graph.parameter_count == count(net)
    assert graph.tokens_per_sample == 16
    assert all(op.attrs["is_causal"] for op in graph.ops if op.name == "predictor.attention")


@EXPORTERS
def test_weights_that_are_equal_before_training_are_counted_apart(tmp_path, dynamo):
    net = Gpt().eval()
    graph = read_onnx(export(net, (torch.randint(0, 100, (2, 16)),), tmp_path, dynamo), batch=1)
    assert graph.parameter_count == count(net)
    assert "equal weights" in [topic for topic, _, _ in graph.notes]
    assert len({p.name for p in graph.parameters}) == len(graph.parameters)


@EXPORTERS
def test_lstm_multiplies_inputs_and_states(tmp_path, dynamo):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(12, 20, batch_first=True, bidirectional=True)

        def forward(self, x):
            return self.lstm(x)[0]

    net = trained(Net())
    graph = read_onnx(export(net, (torch.rand(2, 7, 12),), tmp_path, dynamo), batch=3)
    from_input, from_state = 2 * 2 * (7 * 3) * 12 * (4 * 20), 2 * 2 * (7 * 3) * 20 * (4 * 20)
    assert forward_flop(graph) == from_input + from_state
    assert backward_flop(graph) == from_input + 2 * from_state  # no gradient for the input
    assert graph.parameter_count == count(net)


@EXPORTERS
def test_scopes_are_module_paths(tmp_path, dynamo):
    graph = read_onnx(
        export(trained(Gpt(1)), (torch.zeros(2, 16, dtype=torch.long),), tmp_path, dynamo), batch=1
    )
    assert {op.scope for op in graph.ops if op.name == "onnx.MatMul"} == {
        "blocks.0.qkv",
        "blocks.0.out",
        "blocks.0.up",
        "blocks.0.down",
        "head",
    }


@EXPORTERS
def test_a_batch_that_is_baked_in_is_refused(tmp_path, dynamo):
    path = export(trained(Gpt(1)), (torch.zeros(2, 16, dtype=torch.long),), tmp_path, dynamo, dynamic=False)
    assert read_onnx(path).batch == 2
    with pytest.raises(InputError, match=r"exported with batch 2.*batch 5 was asked for.*dynamic batch axis"):
        read_onnx(path, batch=5)


def test_a_fixed_batch_that_nothing_depends_on_is_rewritten(tmp_path):
    path = export(trained(Convnet()), (torch.rand(2, 3, 16, 16),), tmp_path, False, dynamic=False)
    assert forward_flop(read_onnx(path, batch=6)) == 3 * forward_flop(read_onnx(path))


def test_training_export_keeps_normalisation_and_reads_its_input_twice(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        net,
        (torch.rand(2, 3, 8, 8),),
        str(path),
        dynamo=False,
        training=torch.onnx.TrainingMode.TRAINING,
        do_constant_folding=False,
    )
    graph = read_onnx(path)
    (norm,) = [op for op in graph.ops if op.name == "onnx.BatchNormalization"]
    (kernel,) = FORMULAS[norm.name](norm)
    x_byte = 4 * 2 * 8 * 6 * 6
    assert kernel.work.read_byte == 2 * x_byte + 4 * 4 * 8
    assert graph.parameter_count == count(net)
    assert graph.buffers_byte == 2 * 4 * 8


def test_example_file_equals_its_script(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    from make_small_cnn import small_cnn

    graph = read_onnx(EXAMPLES / "small_cnn.onnx", batch=4)
    first, second, third = (
        2 * (4 * wide * side * side) * (channels * 9)
        for channels, wide, side in ((3, 16, 32), (16, 32, 16), (32, 48, 8))
    )
    assert forward_flop(graph) == first + second + third + 2 * 4 * 48 * 10
    assert backward_flop(graph) == 2 * forward_flop(graph) - first
    assert graph.parameter_count == count(small_cnn())
    assert graph.notes[0][0] == "backward by rule"


# Graphs made by hand


def test_matmul_with_a_shared_weight_is_one_large_product(tmp_path):
    path = save(
        tmp_path,
        [("MatMul", "x w", "y")],
        [info("x", 2, 5, 8)],
        [info("y", 2, 5, 16)],
        [constant("w", 8, 16)],
    )
    (op,) = read_onnx(path, batch=3).ops
    (kernel,) = FORMULAS[op.name](op)
    assert kernel.dims == (1, 3 * 5, 16, 8)
    assert [k.dims for k in gradient_of(op)] == [(1, 8, 16, 3 * 5)]
    assert op.attrs["needs_grad"] == (False, True)


def test_a_bias_is_added_where_the_product_is_written(tmp_path):
    nodes = [("MatMul", "x w", "p"), ("Add", "b p", "y")]
    weights = [constant("w", 8, 16), constant("b", 16)]
    path = save(tmp_path, nodes, [info("x", 2, 5, 8)], [info("y", 2, 5, 16)], weights)
    graph = read_onnx(path)
    (op,) = graph.ops
    (kernel,) = FORMULAS[op.name](op)
    assert kernel.work.write_byte == 4 * 2 * 5 * 16
    assert kernel.work.read_byte == 4 * (2 * 5 * 8 + 8 * 16 + 16)
    assert [k.kind for k in gradient_of(op)] == ["matmul", "reduce"]
    assert [p.name for p in graph.parameters] == ["w", "b"]


def test_gemm_reads_either_factor_transposed(tmp_path):
    nodes = [("Gemm", "x w c", "y", {"transA": 1, "transB": 1})]
    weights = [constant("w", 16, 8), constant("c", 16)]
    path = save(tmp_path, nodes, [info("x", 8, 3)], [info("y", 3, 16)], weights)
    (op,) = read_onnx(path).ops
    (kernel,) = FORMULAS[op.name](op)
    assert kernel.work.matrix_flop == 2 * 3 * 16 * 8
    assert backward_flop(read_onnx(path)) == 2 * 3 * 16 * 8


@pytest.mark.parametrize(
    ("equation", "left", "right", "dims"),
    [
        ("bij,bjk->bik", (2, 3, 4), (2, 4, 5), (2, 3, 5, 4)),
        ("bsd,edh->bseh", (2, 3, 4), (6, 4, 5), (1, 2 * 3, 6 * 5, 4)),
        ("...ij,...jk->...ik", (7, 2, 3, 4), (7, 2, 4, 5), (14, 3, 5, 4)),
    ],
)
def test_einsum_of_two_tensors_is_a_product(tmp_path, equation, left, right, dims):
    nodes = [("Einsum", "x w", "y", {"equation": equation})]
    out = np.einsum(equation, np.zeros(left), np.zeros(right)).shape
    path = save(tmp_path, nodes, [info("x", *left)], [info("y", *out)], [constant("w", *right)])
    graph = read_onnx(path)
    (kernel,) = FORMULAS["onnx.Einsum"](graph.ops[0])
    g, m, n, k = dims
    assert kernel.dims == dims
    assert kernel.work.matrix_flop == backward_flop(graph) == 2 * g * m * n * k


@pytest.mark.parametrize("packed", [False, True])
def test_attention_operator_halves_the_work_when_causal(tmp_path, packed):
    shape = (2, 6, 4 * 8) if packed else (2, 4, 6, 8)
    attrs = {"is_causal": 1} | ({"q_num_heads": 4, "kv_num_heads": 4} if packed else {})
    inputs = [info(name, *shape) for name in "qkv"]
    path = save(tmp_path, [("Attention", "q k v", "y", attrs)], inputs, [info("y", *shape)], opset=23)
    graph = read_onnx(path)
    assert forward_flop(graph) == 2 * (2 * 4) * (6 * 7 // 2) * (8 + 8)
    assert backward_flop(graph) == 0  # nothing here is trained


def test_convolution_needs_no_gradient_for_the_graphs_input(tmp_path):
    nodes = [("Conv", "x w", "h"), ("Relu", "h", "r"), ("ConvTranspose", "r v", "y")]
    weights = [constant("w", 8, 3, 3, 3), constant("v", 8, 4, 2, 2)]
    path = save(tmp_path, nodes, [info("x", 2, 3, 8, 8)], [info("y", 2, 4, 7, 7)], weights)
    graph = read_onnx(path)
    first, second = 2 * (2 * 8 * 6 * 6) * 27, 2 * (2 * 8 * 6 * 6) * (4 * 2 * 2)
    assert forward_flop(graph) == first + second
    assert backward_flop(graph) == first + 2 * second
    assert [op.attrs["backward"] for op in graph.ops] == [True, True, True]


def test_a_residual_adds_its_gradients(tmp_path):
    nodes = [("MatMul", "x w", "h"), ("Relu", "h", "r"), ("Add", "h r", "y")]
    path = save(tmp_path, nodes, [info("x", 2, 8)], [info("y", 2, 16)], [constant("w", 8, 16)])
    product, _, total = read_onnx(path).ops
    y_byte = 4 * 2 * 16
    assert product.attrs["grad_sums"] == (1,)
    assert gradient_of(product)[-1].work == Work(0, 0, 2 * 16, 2 * y_byte, y_byte)
    assert gradient_of(total) == ()  # a sum hands its gradient on


def test_parts_that_cover_a_tensor_need_no_zeros(tmp_path):
    nodes = [
        ("MatMul", "x w", "h"),
        ("Slice", "h a b c", "p"),
        ("Slice", "h b e c", "q"),
        ("Mul", "p q", "y"),
    ]
    bounds = [whole_numbers("a", 0), whole_numbers("b", 8), whole_numbers("c", 1), whole_numbers("e", 16)]
    weights = [constant("w", 8, 16), *bounds]
    graph = read_onnx(save(tmp_path, nodes, [info("x", 2, 8)], [info("y", 2, 8)], weights))
    product, first, second, _ = graph.ops
    half = 4 * 2 * 8
    assert product.attrs["grad_sums"] == (0,)
    for op in (first, second):
        assert FORMULAS[op.name](op) == ()
        assert gradient_of(op)[0].work == Work(read_byte=half, write_byte=half)


def test_one_part_starts_its_gradient_from_zeros(tmp_path):
    nodes = [("MatMul", "x w", "h"), ("Gather", "h i", "y", {"axis": 1})]
    weights = [constant("w", 8, 16), numpy_helper.from_array(np.array(0), "i")]
    product, part = read_onnx(save(tmp_path, nodes, [info("x", 2, 5, 8)], [info("y", 2, 16)], weights)).ops
    y_byte, h_byte = 4 * 2 * 16, 4 * 2 * 5 * 16
    assert FORMULAS[part.name](part) == ()
    assert gradient_of(part)[0].work == Work(read_byte=y_byte, write_byte=y_byte + h_byte)
    assert product.outputs[0].storage == part.inputs[0].storage


def test_embedding_reads_rows_and_its_gradient_writes_the_table(tmp_path):
    path = save(
        tmp_path,
        [("Gather", "table ids", "y")],
        [info("ids", "batch", "seq", kind=INT64)],
        [info("y", "batch", "seq", 16)],
        [constant("table", 100, 16)],
    )
    graph = read_onnx(path, batch=2, sequence=5)
    (op,) = graph.ops
    (kernel,) = FORMULAS[op.name](op)
    rows, ids = 4 * 2 * 5 * 16, 8 * 2 * 5
    assert kernel.work == Work(read_byte=rows + ids, write_byte=rows)
    assert gradient_of(op)[0].work.write_byte == 4 * 100 * 16 + rows
    assert graph.tokens_per_sample == 5


def test_views_share_memory_and_cost_nothing(tmp_path):
    nodes = [("Reshape", "x s", "a"), ("Transpose", "a", "t"), ("Relu", "t", "y")]
    path = save(tmp_path, nodes, [info("x", 2, 12)], [info("y", 4, 3, 2)], [whole_numbers("s", 2, 3, 4)])
    reshape, transpose, relu = read_onnx(path).ops
    assert FORMULAS[reshape.name](reshape) == FORMULAS[transpose.name](transpose) == ()
    assert reshape.inputs[0].storage == reshape.outputs[0].storage == relu.inputs[0].storage
    assert relu.outputs[0].storage != relu.inputs[0].storage


def test_reshaping_a_broadcast_tensor_writes_it_out(tmp_path):
    nodes = [("Expand", "x e", "a"), ("Reshape", "a s", "b"), ("Relu", "b", "y")]
    shapes = [whole_numbers("e", 2, 3, 4), whole_numbers("s", 2, 12)]
    path = save(tmp_path, nodes, [info("x", 2, 1, 4)], [info("y", 2, 12)], shapes)
    expand, reshape, _ = read_onnx(path).ops
    (kernel,) = FORMULAS[reshape.name](reshape)
    assert FORMULAS[expand.name](expand) == ()
    assert kernel.work == Work(read_byte=4 * 2 * 4, write_byte=4 * 2 * 12)


def test_shape_arithmetic_leaves_no_operator_behind(tmp_path):
    nodes = [
        ("Shape", "x", "s"),
        ("Gather", "s zero", "b"),
        ("Unsqueeze", "b axis", "b1"),
        ("Concat", "b1 rest", "target", {"axis": 0}),
        ("Reshape", "x target", "r"),
        ("Relu", "r", "y"),
    ]
    numbers = [
        numpy_helper.from_array(np.array(0), "zero"),
        whole_numbers("axis", 0),
        whole_numbers("rest", -1),
    ]
    path = save(tmp_path, nodes, [info("x", "batch", 3, 4)], [info("y", "batch", 12)], numbers)
    graph = read_onnx(path, batch=7)
    assert names(graph) == ["onnx.Reshape", "onnx.Relu"]
    assert graph.ops[-1].outputs[0].shape == (7, 12)


def test_integers_receive_no_gradient(tmp_path):
    nodes = [("MatMul", "x w", "h"), ("ArgMax", "h", "y", {"axis": 1})]
    path = save(tmp_path, nodes, [info("x", 2, 8)], [info("y", 2, 1, kind=INT64)], [constant("w", 8, 16)])
    assert gradient_of(read_onnx(path).ops[-1]) == ()


def test_masks_and_single_numbers_are_not_parameters(tmp_path):
    nodes = [("Add", "x mask", "m"), ("Softmax", "m", "p"), ("Mul", "p half", "h"), ("Mul", "h scale", "y")]
    constants = [constant("mask", 5, 5), constant("half"), constant("scale", 5)]
    path = save(tmp_path, nodes, [info("x", 2, 5, 5)], [info("y", 2, 5, 5)], constants)
    graph = read_onnx(path)
    assert [p.name for p in graph.parameters] == ["scale"]
    assert graph.buffers_byte == 4 * (5 * 5 + 1)


def test_experts_are_known_by_name(tmp_path):
    path = save(
        tmp_path,
        [("MatMul", "x experts.0.w", "y")],
        [info("x", 2, 8)],
        [info("y", 2, 4)],
        [constant("experts.0.w", 8, 4)],
    )
    assert [p.expert for p in read_onnx(path).parameters] == [True]


def test_functions_are_inlined(tmp_path):
    function = helper.make_function(
        "local",
        "Twice",
        ["a", "b"],
        ["c"],
        [helper.make_node("MatMul", ["a", "b"], ["d"]), helper.make_node("Relu", ["d"], ["c"])],
        [helper.make_opsetid("", 20)],
    )
    nodes = [("Twice", "x w", "y", {"domain": "local"})]
    path = save(
        tmp_path,
        nodes,
        [info("x", 2, 8)],
        [info("y", 2, 4)],
        [constant("w", 8, 4)],
        functions=[function],
        opsets=[helper.make_opsetid("local", 1)],
    )
    assert names(read_onnx(path)) == ["onnx.MatMul", "onnx.Relu"]


def choice(condition_name):
    branches = {
        name: helper.make_graph(
            [helper.make_node(kind, ["x"], [f"{name}_out"])], name, [], [info(f"{name}_out", 2, 4)]
        )
        for name, kind in (("then_branch", "Relu"), ("else_branch", "Tanh"))
    }
    return ("If", condition_name, "y", branches)


def test_a_known_condition_takes_its_branch(tmp_path):
    condition = numpy_helper.from_array(np.array(False), "c")
    path = save(tmp_path, [choice("c")], [info("x", 2, 4)], [info("y", 2, 4)], [condition])
    assert names(read_onnx(path)) == ["onnx.Tanh", "onnx.Identity"]


def test_a_condition_on_the_data_is_refused(tmp_path):
    inputs = [info("x", 2, 4), info("c", kind=TensorProto.BOOL)]
    path = save(tmp_path, [choice("c")], inputs, [info("y", 2, 4)])
    with pytest.raises(UnsupportedError, match=r"node 'y' \(If\): which branch runs depends on the data"):
        read_onnx(path)


def test_loops_are_refused_by_name(tmp_path):
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"])],
        "body",
        [info("i", kind=INT64), info("c", kind=TensorProto.BOOL)],
        [info("d", kind=TensorProto.BOOL)],
    )
    nodes = [("Loop", "n", "", {"body": body, "name": "repeat"}), ("Relu", "x", "y")]
    path = save(tmp_path, nodes, [info("x", 2, 4)], [info("y", 2, 4)], [whole_numbers("n", 3)])
    with pytest.raises(UnsupportedError, match=r"node 'repeat' \(Loop\): loops are not followed"):
        read_onnx(path)


def test_vendor_operators_keep_their_domain_and_need_a_stated_shape(tmp_path):
    nodes = [("Odd", "x", "h", {"domain": "com.microsoft"}), ("Relu", "h", "y")]
    edges = [info("x", 2, 4)], [info("y", 2, 4)]
    opsets = [helper.make_opsetid("com.microsoft", 1)]
    graph = read_onnx(save(tmp_path, nodes, *edges, opsets=opsets, value_info=[info("h", 2, 4)]))
    assert names(graph) == ["com.microsoft.Odd", "onnx.Relu"]
    path = save(tmp_path, nodes, *edges, opsets=opsets)
    with pytest.raises(InputError, match=r"node 'h' \(Odd\): the shape of its result 'h' is not known"):
        read_onnx(path)


@pytest.mark.parametrize("domain", ["my.own", "com.microsoft.nchwc", "ai.onnx.contrib"])
def test_operators_of_unknown_domains_are_refused_even_with_a_stated_shape(tmp_path, domain):
    nodes = [("Odd", "x", "h", {"domain": domain}), ("Relu", "h", "y")]
    opsets = [helper.make_opsetid(domain, 1)]
    path = save(tmp_path, nodes, [X], [Y], opsets=opsets, value_info=[info("h", 2, 4)])
    with pytest.raises(InputError, match=rf"node 'h' \(Odd\) is of the unknown domain '{domain}'.*export it"):
        read_onnx(path)


def local_function(name, *calls):
    """A function that applies the named ones in a chain; Relu is the standard one."""
    places = [f"t{i}" for i in range(len(calls))] + ["b"]
    nodes = [
        helper.make_node(
            call, ["a" if i == 0 else places[i]], [places[i + 1]], domain="" if call == "Relu" else "f"
        )
        for i, call in enumerate(calls)
    ]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("f", 1)]
    return helper.make_function("f", name, ["a"], ["b"], nodes, opsets)


def calling(tmp_path, name, functions):
    nodes = [(name, "x", "y", {"domain": "f"})]
    return save(tmp_path, nodes, [X], [Y], functions=functions, opsets=[helper.make_opsetid("f", 1)])


def test_functions_expand_to_the_product_of_their_calls(tmp_path):
    levels = [local_function(f"F{i}", *[f"F{i + 1}"] * 3) for i in range(4)]
    path = calling(tmp_path, "F0", [*levels, local_function("F4", "Relu", "Relu")])
    assert names(read_onnx(path)) == ["onnx.Relu"] * (3**4 * 2)


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ([local_function("F0", "F0")], r"call themselves \(F0 -> F0\)"),
        ([local_function("F0", "F1"), local_function("F1", "Relu", "F0")], r"call themselves \(F"),
        (
            [*(local_function(f"F{i}", *[f"F{i + 1}"] * 10) for i in range(7)), local_function("F7", "Relu")],
            r"expand to 10000000 nodes, more than 1000000",
        ),
        (
            [
                *(local_function(f"F{i}", *[f"F{i + 1}"] * 2) for i in range(90)),
                local_function("F90", "Relu"),
            ],
            r"expand to over 2\^90 nodes",
        ),
        (
            [*(local_function(f"F{i}", f"F{i + 1}") for i in range(3000)), local_function("F3000", "Relu")],
            "call each other 3001 deep",
        ),
    ],
    ids=["itself", "in a ring", "too many", "far too many", "too deep"],
)
def test_functions_without_end_are_refused_before_they_are_inlined(tmp_path, functions, message):
    with pytest.raises(InputError, match=message):
        read_onnx(calling(tmp_path, "F0", functions))


def test_a_call_hidden_in_a_branch_counts(tmp_path):
    branches = choice("c")[-1]
    for branch in branches.values():
        branch.node[0].op_type, branch.node[0].domain, branch.node[0].input[0] = "F0", "f", "a"
    hidden = helper.make_node("If", ["a"], ["b"], **branches)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("f", 1)]
    function = helper.make_function("f", "F0", ["a"], ["b"], [hidden], opsets)
    with pytest.raises(InputError, match=r"call themselves \(F0 -> F0\)"):
        read_onnx(calling(tmp_path, "F0", [function]))


def test_both_spellings_of_the_standard_domain_are_one(tmp_path):
    node = helper.make_node("F0", ["a"], ["b"])
    function = helper.make_function("ai.onnx", "F0", ["a"], ["b"], [node], [helper.make_opsetid("", 20)])
    path = save(tmp_path, [("F0", "x", "y")], [X], [Y], functions=[function])
    with pytest.raises(InputError, match=r"call themselves \(F0 -> F0\)"):
        read_onnx(path)


@pytest.mark.parametrize("error", [MemoryError("no room"), TypeError("odd"), RuntimeError("[Kind] bad")])
def test_whatever_the_inliner_says_is_an_input_error(tmp_path, monkeypatch, error):
    def fail(model):
        raise error

    monkeypatch.setattr("predictor.frontends.onnx_load.inline_local_functions", fail)
    with pytest.raises(InputError, match=r"cannot be inlined: (no room|odd|bad)"):
        read_onnx(calling(tmp_path, "F0", [local_function("F0", "Relu")]))


def test_steps_that_no_output_needs_are_left_out(tmp_path):
    nodes = [("Relu", "x", "y"), ("Tanh", "x", "unused")]
    assert names(read_onnx(save(tmp_path, nodes, [info("x", 2, 4)], [info("y", 2, 4)]))) == ["onnx.Relu"]


def test_weights_stored_elsewhere_are_not_needed(tmp_path):
    weight = constant("w", 64, 128)
    onnx.external_data_helper.set_external_data(weight, "gone.data")
    weight.ClearField("raw_data")
    path = save(tmp_path, [("MatMul", "x w", "y")], [info("x", 2, 64)], [info("y", 2, 128)], [weight])
    graph = read_onnx(path)
    assert graph.parameter_count == 64 * 128
    assert "weights not at hand" in [topic for topic, _, _ in graph.notes]


def stored_at(location, name="w"):
    weight = constant(name, 64, 128)
    onnx.external_data_helper.set_external_data(weight, location)
    weight.ClearField("raw_data")
    return weight


def product_stored_at(folder, location, in_node):
    """A product whose weight is an initializer, or the value of a Constant in a branch's graph."""
    folder.mkdir()
    edges = [info("x", 2, 64)], [info("y", 2, 128)]
    if not in_node:
        return save(folder, [("MatMul", "x w", "y")], *edges, [stored_at(location)])
    nodes = [
        helper.make_node("Constant", [], ["w"], value=stored_at(location, "")),
        helper.make_node("MatMul", ["x", "w"], ["z"]),
    ]
    branch = helper.make_graph(nodes, "b", [], [info("z", 2, 128)])
    both = {"then_branch": branch, "else_branch": branch}
    return save(folder, [("If", "c", "y", both)], *edges, [numpy_helper.from_array(np.array(True), "c")])


@pytest.mark.parametrize("in_node", [False, True], ids=["initializer", "constant in a branch"])
@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../secret", "sub/../../secret", "link", "linked/secret", "ring", "a\0b"]
)
def test_data_outside_the_folder_is_refused(tmp_path, location, in_node):
    (tmp_path / "secret").write_bytes(bytes(4 * 64 * 128))
    path = product_stored_at(tmp_path / "model", location, in_node)
    (path.parent / "link").symlink_to(tmp_path / "secret")
    (path.parent / "linked").symlink_to(tmp_path)
    (path.parent / "ring").symlink_to("ring")
    with pytest.raises(InputError, match=r"tensor 'w' has its contents in '.*outside the folder") as caught:
        read_onnx(path)
    assert repr(location) in str(caught.value)


@pytest.mark.parametrize("location", ["data", "sub/data", "sub/../data", "inner link", "gone"])
def test_data_in_the_folder_is_accepted_there_or_not(tmp_path, location):
    path = product_stored_at(tmp_path / "model", location, in_node=False)
    (path.parent / "sub").mkdir()
    for name in ("data", "sub/data"):
        (path.parent / name).write_bytes(bytes(4 * 64 * 128))
    (path.parent / "inner link").symlink_to("data")
    assert forward_flop(read_onnx(path)) == 2 * 2 * 64 * 128


# Quantised products


def quantised(name, *shape, kind=np.int8):
    return numpy_helper.from_array(np.ones(shape, dtype=kind), name)


def quantities(*names):
    """Scales are floats, zero points bytes."""
    return [quantised(n, kind=np.float32 if n.endswith("s") else np.int8) for n in names]


def test_quantised_matrix_products_have_the_flop_of_the_float_form(tmp_path):
    x, w = info("x", 3, 5, 8, kind=TensorProto.INT8), quantised("w", 8, 16)
    linear = ("QLinearMatMul", "x as az w bs bz ys yz", "y")
    for node, kind in ((("MatMulInteger", "x w", "y"), TensorProto.INT32), (linear, TensorProto.INT8)):
        scales = quantities(*"as az bs bz ys yz".split())
        graph = read_onnx(save(tmp_path, [node], [x], [info("y", 3, 5, 16, kind=kind)], [w, *scales]))
        assert (forward_flop(graph), backward_flop(graph)) == (2 * (3 * 5) * 8 * 16, 0)


def test_quantised_convolutions_have_the_flop_of_the_float_form(tmp_path):
    x, w = info("x", 2, 4, 8, 8, kind=TensorProto.INT8), quantised("w", 6, 2, 3, 3)
    linear = ("QLinearConv", "x as az w bs bz ys yz", "y", {"group": 2})
    plain = ("ConvInteger", "x w", "y", {"group": 2})
    for node, kind in ((plain, TensorProto.INT32), (linear, TensorProto.INT8)):
        scales = quantities(*"as az bs bz ys yz".split())
        graph = read_onnx(save(tmp_path, [node], [x], [info("y", 2, 6, 6, 6, kind=kind)], [w, *scales]))
        assert (forward_flop(graph), backward_flop(graph)) == (2 * (2 * 6 * 6 * 6) * (2 * 3 * 3), 0)


@pytest.mark.parametrize("name", ["MatMulInteger", "QLinearMatMul", "ConvInteger", "QLinearConv"])
def test_quantised_products_have_no_gradient_whatever_the_flags(name):
    x, y = tensor(2, 4, 8, 8, dtype="uint8"), tensor(2, 4, 8, 8, dtype="uint8")
    assert gradients(name, [x] * 8, [y], needs_grad=(True,) * 8) == ()


# Sizes of inputs


def relu_of(tmp_path, *shape, kind=FLOAT):
    node = ("Relu", "x", "y") if kind == FLOAT else ("Abs", "x", "y")
    return save(tmp_path, [node], [info("x", *shape, kind=kind)], [info("y", *shape, kind=kind)])


def test_symbolic_axes_take_their_sizes(tmp_path):
    graph = read_onnx(relu_of(tmp_path, "n", "seq_len", "height"), batch=2, dims={"height": 7}, sequence=5)
    assert graph.ops[0].outputs[0].shape == (2, 5, 7)
    assert graph.origin["axis height"] == "7"


@pytest.mark.parametrize(
    ("shape", "sizes", "message"),
    [
        (("n", 4), {}, r"input 'x': axis 0 \('n'\) has no size; give the batch \(--batch-size"),
        (("n", "height"), {"batch": 2}, r"input 'x': axis 1 \('height'\) has no size"),
        ((None, 4), {}, r"input 'x': axis 0 \('x\[0\]'\) has no size"),
        ((2, "past_seq_len"), {"sequence": 4}, r"axis 1 \('past_seq_len'\) has no size"),
        ((2, 0), {}, r"input 'x': axis 1 has size 0"),
        ((2, 4), {"batch": 0}, r"size of 'batch' is 0; it has to be at least 1"),
        ((2, "height"), {"dims": {"heigt": 3}}, r"no input has an axis 'heigt'; did you mean 'height'\?"),
        ((2, 4), {"sequence": 9}, r"sequence length 9 was given, but the file has no token ids"),
    ],
)
def test_axes_without_a_size_are_refused(tmp_path, shape, sizes, message):
    with pytest.raises(InputError, match=message):
        read_onnx(relu_of(tmp_path, *shape), **sizes)


def test_a_fixed_sequence_cannot_be_changed(tmp_path):
    path = relu_of(tmp_path, 2, 16, kind=INT64)
    assert read_onnx(path, sequence=16).tokens_per_sample == 16
    with pytest.raises(InputError, match="the file fixes the sequence at 16"):
        read_onnx(path, sequence=32)


def test_an_output_that_ignores_the_batch_is_refused(tmp_path):
    nodes = [("Reshape", "x s", "r"), ("MatMul", "r w", "y")]
    weights = [whole_numbers("s", 1, -1), constant("w", 16, 3)]
    path = save(tmp_path, nodes, [info("x", 1, 4, 4)], [info("y", 1, 3)], weights)
    assert read_onnx(path).batch == 1
    with pytest.raises(InputError, match="exported with batch 1"):
        read_onnx(path, batch=2)


# Files that are no model


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it states no version"),
        (b"a text that somebody named .onnx\n" * 20, "not an ONNX file"),
        (b"\x00\x01\x02", "not an ONNX file"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_onnx(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, share):
    whole = (EXAMPLES / "small_cnn.onnx").read_bytes()
    path = tmp_path / "model.onnx"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match="cut short"):
        read_onnx(path, batch=2)


def test_any_damage_is_an_input_error(tmp_path):
    """Random bytes changed: the answer is a graph that can be priced, or a message."""
    whole = (EXAMPLES / "small_cnn.onnx").read_bytes()
    structure = whole[:3000] + whole[-4000:]  # names and nodes; the middle is weights
    rng = np.random.default_rng(0)
    path = tmp_path / "model.onnx"
    for _ in range(150):
        data = bytearray(whole)
        for place in rng.integers(0, len(structure), 3):
            data[place if place < 3000 else place - len(structure)] = rng.integers(256)
        path.write_bytes(data)
        try:
            graph = read_onnx(path, batch=2)
        except InputError:
            continue
        forward_flop(graph), backward_flop(graph)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_onnx(tmp_path / "none.onnx")


def test_an_old_operator_set_is_refused_with_the_way_out(tmp_path):
    path = save(tmp_path, [("Relu", "x", "y")], [info("x", 2)], [info("y", 2)], opset=9)
    with pytest.raises(InputError, match=r"operator set 9 is older than 11.*convert_version"):
        read_onnx(path)


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        ([], [], "the graph is empty"),
        ([("Relu", "z", "y")], [], r"node 'y' \(Relu\) reads tensor 'z' which nothing writes"),
        ([("Relu", "a", "y"), ("Relu", "y", "a")], [], r"reads tensor 'a' before it is written: a cycle"),
        ([("Relu", "x", "y"), ("Tanh", "x", "y")], [], r"writes tensor 'y', which is written already"),
        ([("Relu", "x", "z")], [], "nothing writes the output 'y'"),
        ([("MatMul", "x w", "y")], [constant("w", 5, 4)], r"Incompatible dimensions.*x \[2, 4\], w \[5, 4\]"),
        ([("MatMul", "x w", "y")], [constant("w", 4, 0)], "weight 'w' is empty"),
        ([("Reshape", "x s", "y")], [whole_numbers("s", 3, 4)], r"cannot be reshaped to \[3, 4\]"),
        ([("Relu", "x x", "y")], [], r"node 'y' \(Relu\)"),
        ([("NonZero", "x", "z"), ("Abs", "z", "y")], [], "the shape of its result 'z' is not known"),
        ([("SequenceConstruct", "x", "y")], [], "is a sequence, map or optional"),
        ([("Identity", "s", "y")], [whole_numbers("s", 3)], "computes nothing from its inputs"),
    ],
)
def test_graphs_that_contradict_themselves_are_refused(tmp_path, nodes, constants, message):
    path = save(tmp_path, nodes, [X], [Y], constants)
    with pytest.raises(InputError, match=message):
        read_onnx(path)


def test_channels_that_do_not_fit_are_refused(tmp_path):
    path = save(
        tmp_path,
        [("Conv", "x w", "y")],
        [info("x", 2, 3, 8, 8)],
        [info("y", 2, 4, 6, 6)],
        [constant("w", 4, 5, 3, 3)],
    )
    with pytest.raises(InputError, match="channels of input and weight differ"):
        read_onnx(path)


# Gradient rules


def tensor(*shape, dtype="float32"):
    return TensorSpec(shape, dtype)


def gradients(name, inputs, outputs, **attrs):
    return gradient_of(Op(f"onnx.{name}", tuple(inputs), tuple(outputs), attrs))


def test_every_gradient_belongs_to_a_formula():
    assert [name for name in GRADIENTS if name not in FORMULAS] == []


def test_without_a_rule_the_backward_mirrors_the_forward():
    (kernel,) = gradients("Cast", [tensor(4, 8)], [tensor(4, 8, dtype="float16")])
    assert kernel.work == Work(read_byte=2 * 4 * 8, write_byte=4 * 4 * 8)
    (unknown,) = gradient_of(Op("my.own.Odd", (tensor(4),), (tensor(8),)))
    assert unknown.kind == "unpriced"
    assert unknown.work == Work(read_byte=4 * 8, write_byte=4 * 4)


def test_a_product_without_a_rule_has_two_gradients():
    op = Op("aten.mm", (tensor(4, 8), tensor(8, 16)), (tensor(4, 16),))
    assert sum(k.work.matrix_flop for k in gradient_of(op)) == 2 * (2 * 4 * 8 * 16)


def test_elementwise_gradients_read_what_they_need():
    x = tensor(4, 8)
    (relu,) = gradients("Relu", [x], [x])
    assert (relu.work.read_byte, relu.work.write_byte) == (2 * x.byte, x.byte)
    left, right = gradients("Mul", [x, tensor(8)], [x])
    assert (left.work.read_byte, left.work.write_byte) == (x.byte + 4 * 8, x.byte)
    assert (right.kind, right.work.read_byte, right.work.write_byte) == ("reduce", 2 * x.byte, 4 * 8)
    assert gradients("Add", [x, x], [x]) == ()
    assert gradients("Mul", [x, x], [x], needs_grad=(False, False), backward=False) == ()


def test_normalisation_gradients_read_the_input_again():
    x, scale = tensor(4, 8, 16), tensor(16)
    (kernel,) = gradients("LayerNormalization", [x, scale, scale], [x])
    assert kernel.kind == "norm"
    assert kernel.work.read_byte == 2 * x.byte + scale.byte
    assert kernel.work.write_byte == x.byte + 2 * scale.byte


def test_softmax_pool_and_reduction_gradients():
    x, y = tensor(4, 16), tensor(4, 1)
    (softmax,) = gradients("Softmax", [x], [x])
    assert (softmax.work.read_byte, softmax.work.write_byte) == (2 * x.byte, x.byte)
    (mean,) = gradients("ReduceMean", [x], [y])
    assert (mean.work.read_byte, mean.work.write_byte) == (y.byte, x.byte)
    image, pooled = tensor(2, 3, 8, 8), tensor(2, 3, 4, 4)
    (pool,) = gradients("MaxPool", [image], [pooled])
    assert (pool.work.read_byte, pool.work.write_byte) == (pooled.byte * 3, image.byte)  # and int64 places


def test_attention_gradient_is_twice_the_forward():
    q = tensor(2, 4, 6, 8)
    op = Op("predictor.attention", (q, q, q), (q,), {"is_causal": True})
    (forward,), (backward,) = FORMULAS[op.name](op), gradient_of(op)
    assert backward.work.matrix_flop == 2 * forward.work.matrix_flop


def test_recurrent_layers_differ_by_their_gates():
    def layer(name, gates):
        x, w, r = tensor(7, 3, 12), tensor(1, gates * 20, 12), tensor(1, gates * 20, 20)
        op = Op(f"onnx.{name}", (x, w, r), (tensor(7, 1, 3, 20),))
        return sum(k.work.matrix_flop for k in FORMULAS[op.name](op))

    per_gate = 2 * 7 * 3 * 20 * (12 + 20)
    assert [layer(*pair) / per_gate for pair in (("RNN", 1), ("GRU", 3), ("LSTM", 4))] == [1, 3, 4]


def test_onnx_kernels_have_known_kinds(tmp_path):
    graph = read_onnx(EXAMPLES / "small_cnn.onnx", batch=2)
    kernels = [k for op in graph.ops for k in (*FORMULAS[op.name](op), *gradient_of(op))]
    assert {k.kind for k in kernels} <= set(KINDS)
