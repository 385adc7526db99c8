"""Models that reach past PyTorch's operators: each works, or ends in one message that names the place."""

import resource

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from predictor.errors import InputError, UnsupportedError
from predictor.frontends import ReadOptions, load_graph
from predictor.ir import BACKWARD, FORWARD
from predictor.ops import FORMULAS

IMAGE = torch.zeros(8, 16)
TOKENS = torch.zeros(8, 12, dtype=torch.int64)


def record(factory, inputs=IMAGE, **options):
    return load_graph(factory, ReadOptions(inputs=inputs, **options))


def names(graph, phase=None):
    return [op.name for op in graph.ops if phase in (None, op.phase)]


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 4)

    def forward(self, x):
        return self.linear(x)


class Inside(nn.Module):
    """A model around the module that misbehaves."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


# Devices


class OnCuda(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 4, device="cuda:1").cuda().to("cuda")
        self.register_buffer("scale", torch.ones(16, device="cuda"))

    def forward(self, x):
        x = x.cuda(non_blocking=True) * self.scale.to("cuda:0")
        x = x + torch.zeros(16, device=torch.device("cuda"))
        return self.linear(x.to(0)).to(torch.device("cuda"), torch.float32)


class OnCpu(Plain):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(16))

    def forward(self, x):
        return self.linear(x * self.scale + torch.zeros(16))


def test_moving_to_a_device_costs_nothing():
    assert names(record(OnCuda)) == names(record(OnCpu))


def test_calls_that_name_a_device_are_put_back():
    before = (
        torch.Tensor.to,
        torch.Tensor.cuda,
        nn.Module.to,
        torch.cuda._lazy_init,
        torch.autocast.__init__,
    )
    record(OnCuda)
    after = (torch.Tensor.to, torch.Tensor.cuda, nn.Module.to, torch.cuda._lazy_init, torch.autocast.__init__)
    assert before == after


def test_modules_on_the_meta_device_are_recorded():
    with torch.device("meta"):
        module = Plain()
    assert names(record(module)) == names(record(Plain))
    assert module.linear.weight.is_meta


class OwnAutocast(Plain):
    def forward(self, x):
        with torch.autocast("cuda", dtype=torch.bfloat16):
            return torch.softmax(self.linear(x), -1)


def test_a_model_may_enter_the_autocast_of_cuda():
    types = {
        op.name: op.inputs[0].dtype for op in record(OwnAutocast).ops if op.phase == FORWARD and op.inputs
    }
    assert types["aten.addmm"] == "bfloat16"
    assert types["aten._softmax"] == "float32"


# Values


class Item(Plain):
    def forward(self, x):
        return self.linear(x) * x.max().item()


class Mask(Plain):
    def forward(self, x):
        return self.linear(x)[x[:, 0] > 0]


class Loop(Plain):
    def forward(self, x):
        for _ in range(len(x.nonzero())):
            x = x + 1
        return self.linear(x)


@pytest.mark.parametrize("kind", [Item, Mask, Loop])
def test_what_depends_on_data_is_refused_by_module_and_line(kind):
    with pytest.raises(
        UnsupportedError, match=rf"in 'inner' \({kind.__name__}, test_bad_models.py line \d+\)"
    ):
        record(Inside(kind()))


class Numpy(Plain):
    def forward(self, x):
        return self.linear(torch.from_numpy(x.detach().numpy()))


def test_memory_asked_for_outside_pytorch_is_refused_with_advice():
    with pytest.raises(InputError, match=r"in 'inner' \(Numpy.*custom_op.*register_fake"):
        record(Inside(Numpy()))


torch.library.define("predictor_tests::kernel", "(Tensor x) -> Tensor")
torch.library.define("predictor_tests::shaped", "(Tensor x) -> Tensor")
torch.library.register_fake("predictor_tests::shaped", torch.empty_like)


class Kernel(Plain):
    def forward(self, x):
        return self.linear(torch.ops.predictor_tests.kernel(x))


class Shaped(Plain):
    def forward(self, x):
        return self.linear(torch.ops.predictor_tests.shaped(x))


def test_a_custom_kernel_without_shapes_says_how_to_give_them():
    with pytest.raises(InputError, match=r"in 'inner' .*register_fake\('predictor_tests::kernel'\)"):
        record(Inside(Kernel()))


def test_a_custom_kernel_with_shapes_is_recorded_and_has_no_formula():
    graph = record(Shaped)
    assert {"predictor_tests.shaped"} == set(names(graph)) - FORMULAS.keys()


def test_lazy_layers_are_refused_with_advice():
    with pytest.raises(InputError, match="lazy layers"):
        record(lambda: nn.Sequential(nn.LazyLinear(4)))


# Weights


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(100, 16)
        self.head = nn.Linear(16, 100, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids):
        return self.head(self.table(ids))


def test_a_tied_weight_is_one_weight_with_one_gradient():
    graph = record(Tied, TOKENS)
    assert graph.parameter_count == 100 * 16
    assert len(graph.gradients) == 1
    # Both uses have a gradient, and the two are added.
    assert names(graph, BACKWARD).count("aten.embedding_dense_backward") == 1
    assert [op.outputs[0].shape for op in graph.ops if op.name == "aten.add"] == [(100, 16)]


class Lora(nn.Module):
    def __init__(self, rank):
        super().__init__()
        self.first = nn.Linear(16, 16, bias=False)
        self.base = nn.Linear(16, 32, bias=False).requires_grad_(False)
        self.down = nn.Linear(16, rank, bias=False)
        self.up = nn.Linear(rank, 32, bias=False)

    def forward(self, x):
        x = self.first(x)
        return self.base(x) + self.up(self.down(x))


def test_a_frozen_weight_has_no_gradient_of_its_own():
    rank, b = 2, 8
    graph = record(lambda: Lora(rank))
    assert graph.trainable_count == 16 * 16 + rank * (16 + 32)
    backward = sum(
        k.work.matrix_flop for op in graph.ops if op.phase == BACKWARD for k in FORMULAS[op.name](op)
    )
    # base: its input's gradient. up and down: both. first: its weight's, for the input is data.
    assert backward == 2 * b * (16 * 32 + 2 * rank * (16 + 32) + 16 * 16)


class Rows(nn.Module):
    def __init__(self, sparse, bag):
        super().__init__()
        kind = (
            nn.EmbeddingBag(1000, 16, mode="sum", sparse=sparse)
            if bag
            else nn.Embedding(1000, 16, sparse=sparse)
        )
        self.table, self.head = kind, nn.Linear(16, 10)

    def forward(self, ids):
        out = self.table(ids)
        return self.head(out if out.dim() == 2 else out.mean(1))


@pytest.mark.parametrize("bag", [False, True])
def test_a_sparse_gradient_is_as_large_as_the_rows_it_holds(bag):
    def table_gradient(sparse):
        graph = record(lambda: Rows(sparse, bag), TOKENS)
        live = {}
        for event in graph.events:
            live[event.storage] = live.get(event.storage, 0) + event.byte
        return max(live[s] for s in graph.gradients)

    assert table_gradient(sparse=False) == 4 * 1000 * 16
    assert table_gradient(sparse=True) == 4 * TOKENS.numel() * 16


# Memory


def large_tensors():
    row = torch.arange(16_384.0)
    return {
        "sized": torch.zeros(10**9),
        "counted": torch.arange(10**9),
        "outer": torch.outer(row, row),
        "distances": torch.arange(16_000)[:, None] - torch.arange(16_000)[None],
        "expanded": torch.ones(1, 1).expand(20_000, 20_000).contiguous(),
        "repeated": torch.ones(200).repeat(10**6),
        "joined": torch.cat([torch.ones(10_000)] * 10_000),
        "triangle": torch.tril(torch.ones(30_000, 30_000)),
        "one_hot": functional.one_hot(torch.arange(16_000), 16_000),
    }


class Buffers(Plain):
    def __init__(self):
        super().__init__()
        for name, tensor in large_tensors().items():
            self.register_buffer(name, tensor)


def test_buffers_of_gigabytes_are_counted_and_never_made():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    graph = record(Buffers)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    elements_byte = 4 * (10**9 + 16_384**2 + 20_000**2 + 200 * 10**6 + 10**8 + 30_000**2)
    whole_numbers_byte = 8 * (10**9 + 2 * 16_000**2)
    assert graph.buffers_byte == elements_byte + whole_numbers_byte
    assert grown < 200e6


# Code that computes in other ways


class InPlace(Plain):
    def forward(self, x):
        y = self.linear(x)
        y[:, 0].mul_(2)
        y[:, 1:] += 1
        y.transpose(0, 1)[0].zero_()
        return y


def test_in_place_views_are_recorded():
    graph = record(InPlace)
    assert {"aten.mul_", "aten.add_", "aten.zero_"} <= set(names(graph, FORWARD))
    (scaled,) = [op for op in graph.ops if op.name == "aten.mul_" and op.phase == FORWARD]
    (made,) = [op for op in graph.ops if op.name == "aten.addmm"]
    assert scaled.outputs[0].storage == made.outputs[0].storage
    assert scaled.outputs[0].shape == (8,)


class Checkpointed(Plain):
    def forward(self, x):
        return checkpoint(lambda t: torch.relu(self.linear(t)), x, use_reentrant=False)


def test_a_checkpoint_runs_forward_again_in_the_backward():
    graph = record(Checkpointed)
    assert names(graph, FORWARD).count("aten.addmm") == 1
    assert names(graph).count("aten.addmm") == 2


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, torch.jit.script])
def test_wrapped_modules_count_like_what_they_wrap(wrap):
    def products(factory):
        return [name for name in names(record(factory)) if name in {"aten.addmm", "aten.mm"}]

    assert products(lambda: wrap(Plain())) == products(Plain)


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(16, 4, dtype=torch.complex64))

    def forward(self, x):
        return (x.to(torch.complex64) @ self.weight).abs()


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight_normed = nn.utils.parametrizations.weight_norm(nn.Linear(16, 4))
        self.spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))

    def forward(self, x):
        return self.spectral(self.weight_normed(x))


class Fourier(nn.Module):
    def __init__(self):
        super().__init__()
        self.filter = nn.Parameter(torch.zeros(9, 2))

    def forward(self, x):
        spectrum = torch.fft.rfft(x) * torch.view_as_complex(self.filter)
        return torch.fft.ifft(torch.fft.fft(torch.fft.irfft(spectrum, n=16))).real


@pytest.mark.parametrize("kind", [Complex, Normed, Fourier])
def test_unusual_operators_have_formulas(kind):
    assert set(names(record(kind))) <= FORMULAS.keys()
