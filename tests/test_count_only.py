"""The fast count (forward pass, gradients by rule) against the full recording of a step."""

import pytest
import torch
from torch import nn

from predictor.frontends import ReadOptions, load_graph
from predictor.frontends.torch_count import read_count
from predictor.frontends.torch_meta import META, MetaMode, Shapes, tensors_of
from predictor.ir import BACKWARD, FORWARD
from predictor.stack import find_stack
from predictor.workload import count

EAGER = find_stack("eager-2")


def totals(graph, train=True):
    """Matrix flop and bytes moved of both phases."""
    work = count(graph, EAGER, train)
    assert work.unpriced == ()
    found = [work.total(phase) for phase in (FORWARD, BACKWARD)]
    return [w.matrix_flop for w in found], [w.read_byte + w.write_byte for w in found]


def both(source, **options):
    """Counted fast, and recorded."""
    chosen = ReadOptions(**options)
    fast, full = read_count(source, chosen), load_graph(source, chosen)
    assert not any(op.phase == BACKWARD for op in fast.ops)  # it did not fall back on the recording
    assert fast.parameter_count == full.parameter_count
    assert fast.trainable_count == full.trainable_count
    assert (fast.batch, fast.tokens_per_sample) == (full.batch, full.tokens_per_sample)
    assert (fast.input_byte, fast.buffers_byte) == (full.input_byte, full.buffers_byte)
    return fast, full


SOURCES = [
    ("zoo:alexnet", 2, None),
    ("zoo:elmo", 2, 6),
    ("zoo:transformer-base", 2, 16),
    ("zoo:llama2-7b", 1, 32),
    ("zoo:mixtral-8x7b", 1, 16),
    ("timm:mobilenetv3_small_050", 2, None),
    ("timm:test_byobnet", 2, None),
    ("timm:test_coatnet", 2, None),
    ("timm:test_convnext", 2, None),
    ("timm:test_efficientnet_evos", 2, None),
    ("timm:test_mambaout", 2, None),
    ("timm:test_maxvit", 2, None),
    ("timm:test_nfnet", 2, None),
    ("timm:test_vit_relpos", 2, None),
    ("timm:lambda_resnet26t", 2, None),
    ("timm:volo_d1_224", 2, None),
]


@pytest.mark.parametrize(("source", "batch", "seq_len"), SOURCES, ids=[s for s, _, _ in SOURCES])
def test_matrix_flop_equal_those_of_the_recording(source, batch, seq_len):
    fast, full = both(source, batch=batch, seq_len=seq_len)
    assert totals(fast)[0] == totals(full)[0]


def test_bytes_follow_the_recording(resnet50, gpt2):
    """Forward closely; backward where no weight is used twice and no view's gradient is written out."""
    flop, byte = totals(read_count("zoo:resnet50", ReadOptions(batch=8)))
    assert flop == totals(resnet50)[0]
    assert byte == pytest.approx(totals(resnet50)[1], rel=0.01)
    flop, byte = totals(read_count("zoo:gpt2", ReadOptions(batch=2, seq_len=64)))
    assert flop == totals(gpt2)[0]
    assert byte[0] == pytest.approx(totals(gpt2)[1][0], rel=0.01)


@pytest.mark.parametrize("precision", ["bf16", "amp-bf16"])
def test_half_precision_changes_types_and_not_flop(precision):
    fast, full = both("timm:test_vit", batch=2, precision=precision)
    assert totals(fast)[0] == totals(full)[0]
    linear = [op for op in fast.ops if op.name == "aten.linear"]
    assert {t.dtype for op in linear for t in (*op.inputs, *op.outputs)} == {"bfloat16"}


def test_inference_has_a_forward_pass_alone():
    fast, full = both("timm:test_convnext", batch=2, train=False)
    assert totals(fast, train=False)[0] == totals(full, train=False)[0]
    assert totals(fast, train=False)[0][1] == 0


class Awkward(nn.Module):
    """Frozen, tied, cut off, written in place, unused, under no_grad, made by the model itself."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(8, 8)
        self.stem.requires_grad_(False)
        self.first = nn.Linear(8, 8)
        self.tied = nn.Linear(8, 8)
        self.tied.weight = self.first.weight
        self.cut = nn.Linear(8, 8)
        self.unused = nn.Linear(8, 64)
        self.watched = nn.Linear(8, 8)
        self.pick = nn.Parameter(torch.zeros(8))
        self.cell = nn.GRU(8, 8, batch_first=True)
        self.scale = torch.ones(8)  # neither parameter nor buffer

    def forward(self, x):
        y = self.tied(nn.functional.silu(self.first(self.stem(x)), inplace=True))
        with torch.no_grad():
            mask = self.watched(y).mean(-1, keepdim=True) > 0
        self.unused(y)
        z = torch.zeros(*y.shape, device=x.device)
        z[:, :3] = self.cut(y.detach())[:, :3]
        z[:, 3:] = (y @ y.transpose(1, 2) @ y)[:, 3:]
        z = z.masked_fill(mask, 0.0) * self.scale * torch.tensor(2.0)
        return self.cell(z)[0] + (z @ self.pick).unsqueeze(-1) + torch.arange(8, dtype=x.dtype)


def test_gradients_flow_where_autograd_lets_them():
    fast, full = both(Awkward(), inputs=["float32[2,6,8]"])
    assert totals(fast)[0] == totals(full)[0]


def test_the_gradient_rules_follow_by_hand():
    """A frozen first layer has no gradient at all, the second none of its input: 2 products, then 1 + 2."""

    class Net(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 7))
            self[0].requires_grad_(False)

    flop, _ = totals(read_count(Net(), ReadOptions(inputs=["float32[3,4]"])))
    forward = [2 * 3 * 4 * 5, 2 * 3 * 5 * 6, 2 * 3 * 6 * 7]
    assert flop == [sum(forward), forward[1] + 2 * forward[2]]


def test_a_users_module_is_left_as_it_was():
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.eval()
    read_count(module, ReadOptions(inputs=["float32[3,4]"]))
    assert not module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not any(hasattr(weight, "_predictor_node") for weight in module.parameters())


class Peeks(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        steps = int(torch.tensor([2, 1]).max())  # a constant: its value is at hand
        for _ in range(steps):
            x = self.linear(x)
        return x


def test_constants_keep_their_values():
    flop, _ = totals(read_count(Peeks(), ReadOptions(inputs=["float32[3,4]"])))
    assert flop[0] == 2 * (2 * 3 * 4 * 4)


def test_what_cannot_be_counted_fast_is_recorded(monkeypatch):
    from predictor.frontends import torch_count

    monkeypatch.setattr(torch_count, "_forward", lambda *_: (_ for _ in ()).throw(RuntimeError("no values")))
    graph = read_count("timm:test_resnet", ReadOptions(batch=2))
    assert any(op.phase == BACKWARD for op in graph.ops)


# The meta device


def arguments_of(name):
    x, w = torch.empty(2, 3, 8, 8, device=META), torch.empty(3, device=META)
    y = torch.empty(2, 8, 3, device=META)
    return {
        "batch_norm": (torch.ops.aten.batch_norm.default, (x, w, w, w, w, True, 0.1, 1e-5, False)),
        "layer_norm": (torch.ops.aten.layer_norm.default, (y, [3], w, w)),
        "gelu": (torch.ops.aten.gelu.default, (y.transpose(1, 2),)),
        "softmax": (torch.ops.aten.softmax.int, (x, -1)),
        "linear": (torch.ops.aten.linear.default, (y, torch.empty(7, 3, device=META))),
        "add": (torch.ops.aten.add.Tensor, (x, x)),
        "add_int": (torch.ops.aten.add.Tensor, (torch.empty(3, dtype=torch.int64, device=META), 1.5)),
        "mul_wider": (torch.ops.aten.mul.Tensor, (w, y)),
        "cat": (torch.ops.aten.cat.default, ((x, x), 1)),
        "topk": (torch.ops.aten.topk.default, (y, 2)),
        "sum": (torch.ops.aten.sum.dim_IntList, (x, [1, 2])),
        "reshape_view": (torch.ops.aten.reshape.default, (y, [16, 3])),
        "reshape_copy": (torch.ops.aten.reshape.default, (y.transpose(1, 2), [48])),
    }[name]


def leaves(values):
    """The tensors of a result or of arguments."""
    return list(tensors_of([values] if torch.is_tensor(values) else values))


def storage(tensor):
    return tensor.untyped_storage()._cdata


NAMES = (
    "batch_norm layer_norm gelu softmax linear add add_int mul_wider cat topk sum reshape_view reshape_copy"
)


@pytest.mark.parametrize("name", NAMES.split())
def test_shapes_by_rule_and_by_memory_are_those_of_pytorch(name):
    func, args = arguments_of(name)
    shapes, wanted = Shapes(), leaves(func(*args))
    for _ in range(2):  # worked out, then remembered
        for a, b in zip(leaves(shapes.result(func, args, {})), wanted, strict=True):
            assert (a.shape, a.stride(), a.dtype, a.is_meta) == (b.shape, b.stride(), b.dtype, True)
            assert (name == "reshape_view") == (storage(a) in {storage(t) for t in leaves(args)})


def test_a_model_is_built_without_memory_and_with_its_constants():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.big = nn.Linear(100_000, 100_000)  # 40 GB
            self.rates = [x.item() for x in torch.linspace(0, 0.5, 3)]
            self.tied = nn.Linear(100_000, 100_000)
            self.tied.weight = self.big.weight

    net = MetaMode().build(Net)
    assert net.rates == [0.0, 0.25, 0.5]
    assert net.big.weight.is_meta
    assert net.tied.weight is net.big.weight


def test_checkpoints_are_recorded_in_full():
    """What they do again counts as recompute, in the count as in the recording."""

    def build():
        import timm

        model = timm.create_model("vit_tiny_patch16_224")
        model.set_grad_checkpointing()
        return model

    options = ReadOptions(batch=2, inputs=["float32[B,3,224,224]"])
    work = count(read_count(build, options), find_stack("eager-2"), train=True)
    assert work.total("recompute").matrix_flop > 10**9
