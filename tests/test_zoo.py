"""The zoo: exact sizes, runnable on fake tensors, and the architecture its papers describe."""

import importlib
import inspect
import math
import re
import subprocess
import sys
import time
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from zoo_sizes import MEASURED, conv, dense, norm

from predictor.errors import InputError
from predictor.frontends.torch_vision import ensure_torchvision
from predictor.zoo import ZOO
from predictor.zoo.bert import Bert, Encoder
from predictor.zoo.convnets import VGG, ResNet
from predictor.zoo.elmo import ELMo, ProjectedLSTM
from predictor.zoo.gpt import GPT
from predictor.zoo.llama import Llama, MixtureOfExperts
from predictor.zoo.t5 import T5, PositionBias
from predictor.zoo.transformer import Transformer
from predictor.zoo.vit import ViT, vit_b_16

DOCS = Path(__file__).parents[1] / "docs" / "reference" / "zoo.md"
NAMES = sorted(ZOO)
FAKE = FakeTensorMode()


# --- sizes by hand --------------------------------------------------------------------------------


def alexnet():
    convolutions = (
        conv(11, 3, 96)
        + conv(5, 96, 256, groups=2)
        + conv(3, 256, 384)
        + conv(3, 384, 384, groups=2)
        + conv(3, 384, 256, groups=2)
    )
    return convolutions + dense(256 * 6 * 6, 4096) + dense(4096, 4096) + dense(4096, 1000)


def vgg16():
    channels = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    convolutions = sum(conv(3, a, b) for a, b in pairwise(channels))
    return convolutions + dense(512 * 7 * 7, 4096) + dense(4096, 4096) + dense(4096, 1000)


def resnet(*blocks):
    total = 7 * 7 * 3 * 64 + norm(64)
    before = 64
    for stage, count in enumerate(blocks):
        inner = 64 * 2**stage
        after = 4 * inner
        shortcut = before * after + norm(after)
        first = before * inner + 9 * inner * inner + inner * after + 2 * norm(inner) + norm(after)
        later = after * inner + 9 * inner * inner + inner * after + 2 * norm(inner) + norm(after)
        total += shortcut + first + (count - 1) * later
        before = after
    return total + dense(2048, 1000)


def transformer(layers, width, inner, vocabulary=37000):
    attention = 4 * width * width + norm(width)
    mlp = dense(width, inner) + dense(inner, width) + norm(width)
    return vocabulary * width + layers * (attention + mlp) + layers * (2 * attention + mlp)


def elmo_without_softmax():
    filters = [(1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024)]
    channels = 2048
    assert sum(n for _, n in filters) == channels
    convolutions = sum(dense(characters * 16, n) for characters, n in filters)
    encoder = 261 * 16 + convolutions + 2 * 2 * dense(channels, channels) + dense(channels, 512)
    lstm = dense(512 + 512, 4 * 4096) + 4096 * 512
    return encoder + 2 * 2 * lstm


def bert_encoder(layers, width):
    embedding = (30522 + 512 + 2) * width + norm(width)
    layer = 4 * dense(width, width) + dense(width, 4 * width) + dense(4 * width, width) + 2 * norm(width)
    pooler = dense(width, width)
    return embedding + layers * layer + pooler


def bert_heads(width):
    words = dense(width, width) + norm(width) + 30522
    return words + dense(width, 2)


def gpt(layers, width, context):
    attention = dense(width, 3 * width) + dense(width, width)
    mlp = dense(width, 4 * width) + dense(4 * width, width)
    return (50257 + context) * width + layers * (attention + mlp + 2 * norm(width)) + norm(width)


def t5(layers, width, inner, heads, head_size):
    attention = 4 * width * heads * head_size + width
    mlp = 2 * width * inner + width
    position_bias = 32 * heads
    encoder = layers * (attention + mlp) + position_bias + width
    decoder = layers * (2 * attention + mlp) + position_bias + width
    return 32128 * width + encoder + decoder


def llama(layers, width, heads, kv_heads, inner, vocabulary, experts=1):
    attention = 2 * width * width + 2 * width * (width // heads * kv_heads)
    router = width * experts if experts > 1 else 0
    layer = attention + router + experts * 3 * width * inner + 2 * width
    return 2 * vocabulary * width + layers * layer + width


def vit(layers, width):
    patches = dense(16 * 16 * 3, width)
    tokens = 1 + (224 // 16) ** 2
    layer = 4 * dense(width, width) + dense(width, 4 * width) + dense(4 * width, width) + 2 * norm(width)
    return patches + width + tokens * width + layers * layer + norm(width) + dense(width, 1000)


PUBLISHED = {
    "alexnet": alexnet(),
    "vgg16": vgg16(),
    "resnet50": resnet(3, 4, 6, 3),
    "resnet152": resnet(3, 8, 36, 3),
    "transformer-base": transformer(6, 512, 2048),
    "transformer-big": transformer(6, 1024, 4096),
    "elmo": elmo_without_softmax() + 793471 * 512 + 793471,
    "bert-base": bert_encoder(12, 768) + bert_heads(768),
    "bert-large": bert_encoder(24, 1024) + bert_heads(1024),
    "gpt2": gpt(12, 768, 1024),
    "gpt2-medium": gpt(24, 1024, 1024),
    "gpt2-large": gpt(36, 1280, 1024),
    "gpt2-xl": gpt(48, 1600, 1024),
    "gpt3-175b": gpt(96, 12288, 2048),
    "t5-11b": t5(24, 1024, 65536, heads=128, head_size=128),
    "llama2-7b": llama(32, 4096, 32, 32, 11008, 32000),
    "llama2-70b": llama(80, 8192, 64, 8, 28672, 32000),
    "llama3-8b": llama(32, 4096, 32, 8, 14336, 128256),
    "llama3-70b": llama(80, 8192, 64, 8, 28672, 128256),
    "llama3-405b": llama(126, 16384, 128, 8, 53248, 128256),
    "mixtral-8x7b": llama(32, 4096, 32, 8, 14336, 32000, experts=8),
    "vit-b-16": vit(12, 768),
    "vit-l-16": vit(24, 1024),
}
DERIVED = PUBLISHED | MEASURED

# What others count: torchvision's published num_params, and the released checkpoints on huggingface.co.
RELEASED = {
    "alexnet": 60_965_224,  # the Caffe reference model, bvlc_alexnet
    "vgg16": 138_357_544,
    "resnet50": 25_557_032,
    "resnet152": 60_192_808,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "t5-11b": 11_307_321_344,
    "llama2-7b": 6_738_415_616,
    "llama2-70b": 68_976_648_192,
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3-405b": 405_853_388_800,
    "mixtral-8x7b": 46_702_792_704,
    "vit-b-16": 86_567_656,
    "vit-l-16": 304_326_632,
    # AutoModelForQuestionAnswering and ForSequenceClassification of the released checkpoints
    "bert-base-squad": 108_893_186,
    "bert-large-squad": 334_094_338,
    "bert-base-sentiment": 109_483_778,
}


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def build(name):
    entry = ZOO[name]
    return getattr(importlib.import_module(entry.module), entry.factory)()


@cache
def fake(name):
    """The whole model on fake tensors: shapes without memory."""
    with FAKE:
        return build(name)


def spec(text):
    """("ids", torch.int64, ["B", "S"]) of "ids:int64[B,S]"."""
    name, dtype, shape = re.fullmatch(r"(\w+):(\w+)\[(.*)\]", text).groups()
    return name, getattr(torch, dtype), shape.split(",")


def inputs(name, batch):
    """Zeros for each input of the model."""
    entry = ZOO[name]
    sizes = {"B": batch, "S": entry.sequence, "P": entry.image}
    shapes = {n: ([sizes.get(a) or int(a) for a in axes], d) for n, d, axes in map(spec, entry.inputs)}
    return {n: torch.zeros(shape, dtype=dtype) for n, (shape, dtype) in shapes.items()}


def test_every_model_has_a_size_by_hand():
    assert sorted(DERIVED) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_size_is_the_one_derived_from_the_paper(name):
    assert parameters(fake(name)) == DERIVED[name]


@pytest.mark.parametrize("name", sorted(RELEASED))
def test_size_by_hand_is_the_released_one(name):
    assert DERIVED[name] == RELEASED[name]


def test_bert_without_heads_has_the_size_of_the_released_encoder():
    assert bert_encoder(12, 768) == 109_482_240
    assert bert_encoder(24, 1024) == 335_141_888


def test_elmo_without_softmax_has_the_published_size():
    kept = sum(p.numel() for n, p in fake("elmo").named_parameters() if not n.startswith("softmax"))
    assert kept == elmo_without_softmax()
    assert round(kept / 1e6, 1) == 93.6


def test_mixtral_uses_13_billion_parameters_per_token():
    experts = sum(p.numel() for n, p in fake("mixtral-8x7b").named_parameters() if "experts" in n)
    assert experts == 32 * 8 * 3 * 4096 * 14336
    used = DERIVED["mixtral-8x7b"] - experts * 6 // 8
    assert round(used / 1e9) == 13


def test_the_page_lists_every_model_with_its_size():
    rows = re.findall(r"^\| `zoo:([\w-]+)` \|.*?\| ([\d,]+) \|", DOCS.read_text(), re.MULTILINE)
    assert {name: int(size.replace(",", "")) for name, size in rows} == DERIVED


# --- running on fake tensors ----------------------------------------------------------------------


def test_listing_the_zoo_does_not_import_torch():
    code = "import predictor.zoo, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_largest_model_is_built_in_two_seconds():
    start = time.perf_counter()
    with FAKE:
        build("llama3-405b")
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_the_arguments_of_forward(name):
    entry = ZOO[name]
    named = [n for n, _, _ in map(spec, entry.inputs)]
    assert list(inspect.signature(fake(name).forward).parameters) == named
    letters = {axis for _, _, axes in map(spec, entry.inputs) for axis in axes if axis.isalpha()}
    assert letters == {"B"} | ({"S"} if entry.sequence else set()) | ({"P"} if entry.image else set())


VOCABULARY = {
    "bert": 30522,
    "gpt2": 50257,
    "gpt3": 50257,
    "llama2": 32000,
    "llama3": 128256,
    "mixtral": 32000,
}


def expected_shapes(name, batch):
    family, length = name.split("-")[0], ZOO[name].sequence
    if ZOO[name].image:
        return [(batch, 1000)]
    if family == "elmo":
        return [(batch * 20, 1 + 8192)] * 2
    if family == "bert":  # 15 % of 512 is 76.8
        return [(batch, 77, 30522), (batch, 2)]
    if family == "t5":
        return [(batch, 114, 32128)]
    return [(batch, length, 37000 if family == "transformer" else VOCABULARY[family])]


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_whole_model_runs_on_fake_tensors(name):
    with FAKE, torch.no_grad():
        outputs = fake(name)(**inputs(name, batch=2))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert [tuple(out.shape) for out in outputs] == expected_shapes(name, batch=2)
    assert all(out.dtype == torch.float32 for out in outputs)


@pytest.mark.parametrize("name", ["alexnet", "vgg16", "vit-b-16"])
def test_an_image_that_does_not_fit_is_refused(name):
    with FAKE, pytest.raises(InputError, match="image size 320 x 320"):
        fake(name)(torch.zeros(1, 3, 320, 320))


@pytest.mark.parametrize("name", ["gpt2", "bert-base"])
def test_a_sequence_beyond_the_learned_positions_is_refused(name):
    longest = ZOO[name].sequence
    ids = {n: torch.zeros(1, longest + 1, dtype=torch.int64) for n, _, _ in map(spec, ZOO[name].inputs)}
    with FAKE, pytest.raises(InputError, match=f"at most {longest}"):
        fake(name)(**{n: FAKE.from_tensor(t) for n, t in ids.items()})


def test_vit_learns_positions_for_the_image_size_it_is_made_for():
    with FAKE:
        large = vit_b_16(image_size=384)
        assert large(torch.zeros(1, 3, 384, 384)).shape == (1, 1000)
    assert parameters(large) - DERIVED["vit-b-16"] == ((384 // 16) ** 2 - (224 // 16) ** 2) * 768


# --- small models with real numbers ---------------------------------------------------------------


def ids(vocabulary, *shape):
    return torch.randint(0, vocabulary, shape, generator=torch.Generator().manual_seed(0))


def image(side):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def small_llama(**changes):
    sizes = {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "inner": 48, "vocabulary": 50}
    return Llama(**(sizes | changes))


SMALL = {
    "alexnet": lambda: (build("alexnet"), {"image": image(224)}),
    "vgg": lambda: (VGG(((1, 4), (1, 4), (1, 8), (1, 8), (1, 8)), classes=7), {"image": image(224)}),
    "resnet": lambda: (ResNet((2, 1, 1, 1), width=8, classes=7), {"image": image(64)}),
    "vit": lambda: (ViT(layers=2, width=32, heads=4, side=32, classes=7), {"image": image(32)}),
    "transformer": lambda: (
        Transformer(layers=2, width=32, heads=4, inner=48, dropout=0.1, vocabulary=50),
        {"source": ids(50, 2, 9), "target": ids(50, 2, 6)},
    ),
    "elmo": lambda: (
        ELMo(width=8, cells=16, vocabulary=50, samples=20, filters=((1, 4), (2, 4))),
        {
            "characters": ids(261, 2, 5, 50),
            "words": ids(50, 2, 5),
            "back_characters": ids(261, 2, 5, 50),
            "back_words": ids(50, 2, 5),
        },
    ),
    "bert": lambda: (
        Bert(Encoder(layers=2, width=32, heads=4, vocabulary=50, context=20)),
        {"ids": ids(50, 2, 20), "segments": ids(2, 2, 20)},
    ),
    "gpt": lambda: (GPT(layers=2, width=32, heads=4, context=20, vocabulary=50), {"ids": ids(50, 2, 20)}),
    "t5": lambda: (
        T5(layers=2, width=32, heads=4, head_size=16, inner=48, vocabulary=50),
        {"source": ids(50, 2, 20), "target": ids(50, 2, 9)},
    ),
    "llama": lambda: (small_llama(), {"ids": ids(50, 2, 20)}),
    "mixtral": lambda: (
        small_llama(experts=(4, 2)),
        {"ids": ids(50, 3, 7)},
    ),  # 42 choices, not divisible by 4
}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_small_model_trains_every_parameter(name):
    torch.manual_seed(0)
    net, given = SMALL[name]()
    outputs = net(**given)
    if hasattr(net, "loss"):
        loss = net.loss(outputs, **given)
    else:
        parts = outputs if isinstance(outputs, tuple) else (outputs,)
        flat = [p.flatten(0, -2) for p in parts]
        zeros = [torch.zeros(len(p), dtype=torch.int64) for p in flat]
        loss = sum(map(torch.nn.functional.cross_entropy, flat, zeros))
    loss.backward()
    assert loss.shape == ()
    assert math.isfinite(loss.detach())
    for path, weight in net.named_parameters():
        assert weight.grad is not None, path
        assert weight.grad.isfinite().all(), path


@pytest.mark.parametrize("name", ["gpt", "llama", "transformer", "t5"])
def test_a_later_token_does_not_change_earlier_logits(name):
    torch.manual_seed(0)
    net, given = SMALL[name]()
    net.eval()
    last = list(given)[-1]  # what the decoder reads
    changed = given[last].clone()
    changed[:, 4] = (changed[:, 4] + 1) % 50
    with torch.no_grad():
        before, after = net(**given), net(**(given | {last: changed}))
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_experts_equal_a_loop_over_tokens_when_the_router_is_balanced():
    torch.manual_seed(0)
    moe = MixtureOfExperts(experts=4, top=2, width=8, inner=16)
    with torch.no_grad():
        moe.router.weight.copy_(torch.eye(4, 8))
    x = 0.1 * torch.randn(2, 6, 8)
    for token in range(12):  # experts token % 4 and (token + 1) % 4 score highest
        x.view(12, 8)[token, :4] = torch.tensor([3.0, 2.0, -1.0, -2.0]).roll(token % 4)
    weight = torch.tensor([3.0, 2.0]).softmax(0)
    e = moe.experts

    def expert(i, row):
        return e.down[i] @ (torch.nn.functional.silu(e.gate[i] @ row) * (e.up[i] @ row))

    for token, (row, out) in enumerate(zip(x.view(12, 8), moe(x).view(12, 8), strict=True)):
        by_hand = weight[0] * expert(token % 4, row) + weight[1] * expert((token + 1) % 4, row)
        assert torch.allclose(out, by_hand, atol=1e-6)


@pytest.mark.filterwarnings("ignore:LSTM with projections")  # only says which kernel is used
def test_lstm_equals_pytorch_where_nothing_is_clipped():
    torch.manual_seed(0)
    ours, theirs = ProjectedLSTM(6, 10), torch.nn.LSTM(6, 10, proj_size=6, batch_first=True)
    take, new, forget, show = ours.gates.weight.chunk(4)
    b_take, b_new, b_forget, b_show = ours.gates.bias.chunk(4)
    with torch.no_grad():
        weight = torch.cat((take, forget, new, show))  # PyTorch's order of gates
        theirs.weight_ih_l0.copy_(weight[:, :6])
        theirs.weight_hh_l0.copy_(weight[:, 6:])
        theirs.bias_ih_l0.copy_(torch.cat((b_take, b_forget + 1, b_new, b_show)))
        theirs.bias_hh_l0.zero_()
        theirs.weight_hr_l0.copy_(ours.projection.weight)
    x = torch.randn(3, 5, 6)
    assert torch.allclose(ours(x), theirs(x)[0], atol=1e-6)


# --- the same architecture as transformers builds -------------------------------------------------


@pytest.fixture(scope="module")
def transformers():
    ensure_torchvision()  # which transformers imports
    return pytest.importorskip("transformers")


def their_llama(transformers):
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
    )
    return transformers.LlamaForCausalLM(config)


def their_gpt2(transformers):
    config = transformers.GPT2Config(vocab_size=50, n_positions=20, n_embd=32, n_layer=2, n_head=4)
    return transformers.GPT2LMHeadModel(config)


def their_t5(transformers):
    config = transformers.T5Config(vocab_size=50, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=4)
    return transformers.T5ForConditionalGeneration(config)


def their_bert(transformers):
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=20,
    )
    return transformers.BertForPreTraining(config)


def their_mixtral(transformers):
    config = transformers.MixtralConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=2,
    )
    return transformers.MixtralForCausalLM(config)


THEIRS = {
    "llama": their_llama,
    "gpt": their_gpt2,
    "t5": their_t5,
    "bert": their_bert,
    "mixtral": their_mixtral,
}


@pytest.mark.parametrize("name", sorted(THEIRS))
def test_a_small_model_has_the_size_transformers_gives_it(name, transformers):
    assert parameters(SMALL[name]()[0]) == parameters(THEIRS[name](transformers))


def test_llama_computes_what_transformers_computes(transformers):
    torch.manual_seed(0)
    theirs, (ours, given) = their_llama(transformers).eval(), SMALL["llama"]()
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.copy_(other)
        assert torch.allclose(ours(**given), theirs(input_ids=given["ids"]).logits, atol=1e-5)


@pytest.mark.parametrize("both_sides", [True, False])
def test_t5_distances_fall_into_the_buckets_of_transformers(both_sides, transformers):
    distance = torch.arange(-600, 601)
    theirs = transformers.models.t5.modeling_t5.T5Attention._relative_position_bucket(
        distance, bidirectional=both_sides, num_buckets=32, max_distance=128
    )
    assert torch.equal(PositionBias(heads=4, both_sides=both_sides).bucket(distance), theirs)
