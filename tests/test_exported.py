"""Programs of torch.export: counts against arithmetic and the recorder; every refusal by its message."""

import importlib.util
import io
import json
import pickle
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from predictor.errors import InputError, UnsupportedError
from predictor.frontends import ReadOptions, load_graph, runs_code
from predictor.frontends.exported_file import read_exported
from predictor.frontends.exported_sizes import evaluate, symbols_in, whole
from predictor.ir import BACKWARD, FORWARD
from predictor.passes import steps_of

pytestmark = pytest.mark.filterwarnings("ignore")
DYNAMIC = torch.export.Dim.DYNAMIC


def flop(graph):
    """Matrix flop forward and backward."""
    steps = steps_of(graph, train=True)
    return tuple(
        sum(k.work.matrix_flop for step in steps if step.phase == phase for k in step.kernels)
        for phase in (FORWARD, BACKWARD)
    )


def save(path, module, inputs, axes=None):
    program = torch.export.export(module, inputs, dynamic_shapes=axes, strict=False)
    torch.export.save(program, path)
    return path


class Convnet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second = nn.ConvTranspose2d(8, 16, 2, stride=2, groups=4)
        self.linear = nn.Linear(16, 10)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.norm(self.first(x))), 2)
        x = nn.functional.dropout(self.second(x), 0.5, self.training)
        return self.linear(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Gpt(nn.Module):
    """One block with a tied head; a residual stream, so that gradients meet."""

    def __init__(self, width=32, heads=4, vocabulary=100):
        super().__init__()
        self.heads = heads
        self.tokens, self.norm = nn.Embedding(vocabulary, width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids):
        x = self.tokens(ids)
        b, s, w = x.shape
        qkv = self.qkv(self.norm(x)).view(b, s, 3, self.heads, w // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(x + self.out(y.transpose(1, 2).reshape(b, s, w)))


@pytest.fixture(scope="module")
def convnet(tmp_path_factory):
    path = tmp_path_factory.mktemp("conv") / "conv.pt2"
    return save(path, Convnet().train(), (torch.zeros(2, 3, 16, 16),), ({0: DYNAMIC},))


@pytest.fixture(scope="module")
def gpt(tmp_path_factory):
    path = tmp_path_factory.mktemp("gpt") / "gpt.pt2"
    return save(path, Gpt(), (torch.zeros(2, 16, dtype=torch.int64),), ({0: DYNAMIC, 1: DYNAMIC},))


def test_convnet_has_the_flop_of_its_filters(convnet):
    b = 5
    graph = read_exported(convnet, batch=b)
    first = 2 * (b * 8 * 16 * 16) * (3 * 3 * 3)
    second = 2 * (b * 8 * 8 * 8) * (16 // 4 * 2 * 2)  # each input element meets one group's filter
    linear = 2 * b * 16 * 10
    forward = first + second + linear
    assert graph.batch == b
    assert flop(graph) == (forward, 2 * forward - first)  # pixels receive no gradient
    net = Convnet()
    assert graph.parameter_count == sum(p.numel() for p in net.parameters())
    assert graph.buffers_byte == sum(t.numel() * t.element_size() for t in net.buffers())
    assert graph.input_byte == 4 * b * 3 * 16 * 16
    names = {op.name for op in graph.ops}
    assert {"aten.convolution", "aten.native_batch_norm", "aten.native_dropout"} <= names


def test_gpt_counts_its_weights_and_the_causal_half(gpt):
    b, s, w, v = 3, 24, 32, 100
    graph = read_exported(gpt, batch=b, sequence=s)
    linear = 2 * b * s * (3 * w * w + w * w + w * v)
    attention = 2 * 2 * b * w * (s * (s + 1) // 2)
    assert flop(graph) == (linear + attention, 2 * (linear + attention))
    assert graph.parameter_count == sum(p.numel() for p in Gpt().parameters())  # the table is tied
    assert graph.tokens_per_sample == s
    assert not [n for n in graph.notes if n[0] == "example sizes"]
    scopes = {op.scope for op in graph.ops if op.name == "aten.linear"}
    assert scopes == {"qkv", "out", "head"}


def test_residual_gradients_are_added_once(gpt):
    graph = read_exported(gpt, batch=2, sequence=16)
    # x is read by the norm and by the residual sum: one addition of [2, 16, 32] floats.
    added = [sum(op.attrs["grad_sums"]) for op in graph.ops if op.name == "aten.embedding"]
    assert added == [1]
    assert sum(sum(op.attrs["grad_sums"]) for op in graph.ops if op.attrs["backward"]) == 1


@pytest.mark.parametrize(("file", "module", "inputs"), [
    ("convnet", Convnet, (torch.zeros(2, 3, 16, 16),)),
    ("gpt", Gpt, (torch.zeros(2, 16, dtype=torch.int64),)),
])  # fmt: skip
def test_agrees_with_the_recorder(file, module, inputs, request):
    recorded = load_graph(module().train(), ReadOptions(inputs=inputs))
    exported = load_graph(str(request.getfixturevalue(file)), ReadOptions(batch=2))
    assert flop(exported) == flop(recorded)
    assert exported.parameter_count == recorded.parameter_count


@pytest.mark.parametrize("name", ["timm:mobilenetv3_small_050", "transformers:llama", "transformers:t5"])
def test_library_models_have_the_flop_of_their_recording(name, tmp_path, agreement):
    (case, *_) = [c for c in agreement.cases() if c.name == name]
    module, inputs = case.build()
    given = module.named(*inputs) if hasattr(module, "named") else inputs
    recorded = load_graph(getattr(module, "model", module).train(), ReadOptions(inputs=given))
    if hasattr(module, "named"):
        module.model.config.use_cache = False
    exported = read_exported(save(tmp_path / "model.pt2", module, inputs, ({0: DYNAMIC},)))
    assert flop(exported) == flop(recorded)
    assert exported.parameter_count == recorded.parameter_count


@pytest.fixture(scope="module")
def agreement():
    """The models of the benchmark that compares ONNX exports with recordings."""
    path = Path(__file__).parent.parent / "benchmarks" / "onnx_agreement.py"
    spec = importlib.util.spec_from_file_location("onnx_agreement", path)
    module = sys.modules["onnx_agreement"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sizes_come_from_the_example_unless_given(gpt):
    graph = read_exported(gpt)
    assert (graph.batch, graph.tokens_per_sample) == (2, 16)
    (note,) = [text for topic, text, _ in graph.notes if topic == "example sizes"]
    assert "= 2" in note
    assert "= 16" in note


def test_dims_name_an_axis_by_place(gpt):
    by_place = read_exported(gpt, dims={"ids[0]": 7, "ids[1]": 9})
    assert flop(by_place) == flop(read_exported(gpt, batch=7, sequence=9))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(16, 24, 2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(48, 20)

    def forward(self, x):
        return self.gru(self.lstm(x)[0])[0]


def test_recurrent_layers_in_both_directions(tmp_path):
    b, s = 3, 7
    graph = read_exported(save(tmp_path / "rnn.pt2", Recurrent(), (torch.zeros(b, s, 16),)))
    lstm = 2 * b * s * 2 * 4 * 24 * ((16 + 24) + (48 + 24))
    gru = 2 * b * s * 3 * 20 * (48 + 20)
    forward = lstm + gru
    first_input = 2 * b * s * 2 * 4 * 24 * 16
    assert flop(graph) == (forward, 2 * forward - first_input)


class Mixed(nn.Module):
    """Frozen weights, a product by einsum, a part without gradient, a mask of positions."""

    def __init__(self):
        super().__init__()
        self.frozen, self.scale = nn.Linear(8, 8), nn.Parameter(torch.ones(8, 6))
        self.frozen.requires_grad_(False)

    def forward(self, x):
        with torch.no_grad():
            skipped = x @ self.scale
        y = torch.einsum("bsd,de->bse", self.frozen(x), self.scale)
        places = torch.arange(x.shape[1])
        mask = places[:, None] >= places[None, :]
        q = y[:, None]
        return nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=mask) + skipped[:, None]


def test_gradients_flow_only_where_weights_are_trained(tmp_path):
    b, s = 2, 10
    graph = read_exported(save(tmp_path / "mixed.pt2", Mixed(), (torch.zeros(b, s, 8),)))
    frozen, product = 2 * b * s * 8 * 8, 2 * b * s * 8 * 6
    attention = 2 * 2 * b * 6 * (s * (s + 1) // 2)  # the mask compares positions: causal
    forward = frozen + 2 * product + attention
    assert flop(graph) == (forward, product + 2 * attention)  # d scale alone, and dq, dk, dv
    assert (graph.parameter_count, graph.trainable_count) == (8 * 8 + 8 + 48, 48)


def test_options_reach_the_graph(gpt):
    path = str(gpt)
    assert not runs_code(path)
    training = load_graph(path, ReadOptions(batch=2, precision="bf16"))
    inference = load_graph(path, ReadOptions(batch=2, train=False))
    assert {t.dtype for op in training.ops for t in op.inputs} <= {"bfloat16", "int64"}
    assert any(topic == "backward by rule" for topic, _, _ in training.notes)
    assert not any(topic == "backward by rule" for topic, _, _ in inference.notes)
    with pytest.raises(InputError, match="names its own inputs"):
        load_graph(path, ReadOptions(inputs=["ids:int64[2,16]"]))


def test_reading_imports_no_torch(gpt):
    code = (
        "import sys; from pathlib import Path; from predictor.frontends.exported_file import read_exported;"
        f"ops = read_exported(Path({str(gpt)!r})).ops;"
        "print(len(ops) > 5, *[m for m in ('torch', 'sympy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["True"]


# The archive


def program_of(path):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(next(n for n in archive.namelist() if "/models/" in n)))


def written(path, program, **files):
    """An archive in the present layout."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/models/model.json", program if isinstance(program, str) else json.dumps(program))
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_older_layout_is_read(gpt, tmp_path):
    path = tmp_path / "old.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("version", "8.2")
        archive.writestr("serialized_exported_program.json", json.dumps(program_of(gpt)))
        archive.writestr("serialized_state_dict.pt", b"never read")
    assert flop(read_exported(path)) == flop(read_exported(gpt))


class Danger:
    def __reduce__(self):
        return (pytest.fail, ("the file was unpickled",))


def test_nothing_is_unpickled_or_evaluated(gpt, tmp_path):
    program = program_of(gpt)
    text = json.dumps(program).replace("Symbol('s", "__import__('os').system('s")
    bomb = io.BytesIO()
    pickle.dump(Danger(), bomb)
    path = written(tmp_path / "bad.pt2", program, **{"x/data/weights/weight_0": bomb.getvalue()})
    assert read_exported(path).ops
    with pytest.raises(InputError, match="not arithmetic"):
        read_exported(written(tmp_path / "worse.pt2", text))


def changed(program, change):
    copy = json.loads(json.dumps(program))
    change(copy)
    return copy


REFUSED = {
    "another schema": (lambda p: p["schema_version"].update(major=9), "version 9"),
    "no graph": (lambda p: p.pop("graph_module"), "damaged"),
    "unknown tensor": (
        lambda p: p["graph_module"]["graph"]["nodes"][2]["inputs"][0]["arg"].update(
            as_tensor={"name": "gone"}
        ),
        "'gone', which is nowhere",
    ),
    "unknown type": (
        lambda p: p["graph_module"]["graph"]["tensor_values"]["linear"].update(dtype=99),
        "type number 99",
    ),
    "branch": (
        lambda p: p["graph_module"]["graph"]["nodes"][2].update(target="torch.ops.higher_order.cond"),
        "calls cond",
    ),
    "negative size": (
        lambda p: p["graph_module"]["graph"]["tensor_values"]["linear"].update(sizes=[{"as_int": -4}]),
        r"\[-4\]",
    ),
    "size of the data": (
        lambda p: p["graph_module"]["graph"]["tensor_values"]["linear"].update(
            sizes=[{"as_expr": {"expr_str": "Symbol('u0', integer=True)", "hint": None}}]
        ),
        "'u0', depends on data",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_damaged_programs_are_refused_by_name(what, gpt, tmp_path):
    change, message = REFUSED[what]
    with pytest.raises(InputError, match=message) as error:
        read_exported(written(tmp_path / "p.pt2", changed(program_of(gpt), change)))
    assert "p.pt2" in str(error.value)


def test_any_damage_is_an_input_error(gpt, convnet, tmp_path):
    """Values of the JSON replaced at random: the file is read, or refused by our own error."""
    chance = random.Random(0)
    odd = [None, -1, 0, "", "x", [], {}, 10**30, {"as_int": 3}, [[1]], True, 1.5]
    refused = 0
    for file in (gpt, convnet):
        program = program_of(file)
        for _ in range(150):
            copy = json.loads(json.dumps(program))
            place = copy
            while True:
                keys = list(place) if isinstance(place, dict) else range(len(place))
                key = chance.choice(keys)
                if not isinstance(place[key], dict | list) or not place[key] or chance.random() < 0.1:
                    break
                place = place[key]
            place[key] = chance.choice(odd)
            try:
                steps_of(read_exported(written(tmp_path / "damaged.pt2", copy)), train=True)
            except InputError:
                refused += 1
    assert refused > 50


def test_bad_archives_are_refused_by_name(gpt, tmp_path):
    text = json.dumps(program_of(gpt))
    cases = {
        "not an exported program": tmp_path / "a.pt2",
        "would unpack": written(tmp_path / "b.pt2", "[" + " " * 50_000_000 + "]"),
        "leaves the archive": written(tmp_path / "c.pt2", text, **{"../../evil": b""}),
        "2 programs": written(tmp_path / "d.pt2", text, **{"x/models/other.json": text}),
        "is not JSON": written(tmp_path / "e.pt2", "{" * 100_000),
        "holds no program": written(tmp_path / "f.pt2", "[1]"),
        "without a program": tmp_path / "g.pt2",
        "compiled code": tmp_path / "h.pt2",
    }
    (tmp_path / "a.pt2").write_bytes(b"\x80\x04no zip")
    with zipfile.ZipFile(tmp_path / "g.pt2", "w") as archive:
        archive.writestr("notes.txt", "nothing")
    with zipfile.ZipFile(tmp_path / "h.pt2", "w") as archive:
        archive.writestr("x/data/aotinductor/model/a.so", b"")
    for message, path in cases.items():
        with pytest.raises(InputError, match=message):
            read_exported(path)


def test_sizes_that_do_not_fit_are_refused(convnet, tmp_path):
    fixed = save(tmp_path / "fixed.pt2", nn.Linear(4, 3), (torch.zeros(6, 4),))
    assert read_exported(fixed, batch=6).batch == 6
    axes = ({0: torch.export.Dim("b", min=4, max=64)},)
    limited = save(tmp_path / "limited.pt2", nn.Linear(4, 3), (torch.zeros(6, 4),), axes)
    assert read_exported(limited, batch=64).batch == 64
    for path, sizes, message in (
        (fixed, {"batch": 8}, "fixed size 6"),
        (limited, {"batch": 65}, "exported for 4 to 64"),
        (limited, {"batch": 3}, "exported for 4 to 64"),
        (convnet, {"sequence": 8}, "no input has such an axis"),
        (convnet, {"dims": {"q": 3}}, "no input has an axis 'q'"),
        (convnet, {"batch": 0}, "at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            read_exported(path, **sizes)


# Size expressions


@pytest.mark.parametrize(("text", "value"), [
    ("Mul(Integer(32), Symbol('s0', positive=True, integer=True))", 32 * 9),
    ("((s0 + 3*s1)//2)", (9 + 3 * 4) // 2),
    ("FloorDiv(Add(Symbol('s0'), Integer(-1)), Integer(2)) + Mod(s1, 3)", 4 + 1),
    ("CeilToInt(IntTrueDiv(Symbol('s0'), Integer(2)))", 5),
    ("Max(s0, s1)**2 - Min(s0, s1)", 81 - 4),
    ("Mul(Rational(1, 3), Symbol('s0'))", 3),
    ("Where(s0 > 3, s0, s1)", 9),
    ("TruncToInt(Mul(Float('1.5', precision=53), s0))", 13),
    ("Piecewise(ExprCondPair(s1, StrictGreaterThan(s1, Integer(5))), ExprCondPair(s0, true))", 9),
])  # fmt: skip
def test_expressions_are_evaluated_exactly(text, value):
    assert whole(text, {"s0": 9, "s1": 4}) == value
    assert set(symbols_in(text)) <= {"s0", "s1"}


@pytest.mark.parametrize("text", [
    "__import__('os').system('true')", "(lambda: 1)()", "s0.real", "s0[0]", "[s0][0]", "open('x')",
    "9**9**9", "2**100000", "s0 if s0 else 1", "'a'*s0", "-" * 3000 + "1", "(" * 500 + "1", "FloorDiv(1, 0)",
    "s0/2", "Float('nan')", "", "1;2", "x" * 5000,
])  # fmt: skip
def test_anything_but_arithmetic_is_refused(text):
    with pytest.raises(InputError):
        whole(text, {"s0": 9})


def test_unknown_symbols_depend_on_data():
    with pytest.raises(UnsupportedError, match="'u7', depends on data"):
        evaluate("Add(Symbol('u7'), Integer(1))", {"s0": 1})
