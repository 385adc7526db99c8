"""The models that measurement tables name: they train, they record, and their work is that of their sizes."""

import math
from itertools import pairwise

import pytest
import torch
import zoo_sizes as sizes

from predictor.frontends import ReadOptions, load_graph
from predictor.ir import BACKWARD, FORWARD
from predictor.stack import find_stack
from predictor.workload import count
from predictor.zoo import ZOO
from predictor.zoo.bert_heads import AnswerHead, Electra, Encoder, SequenceHead, TokenHead
from predictor.zoo.deepspeech2 import DeepSpeech2
from predictor.zoo.fastspeech import FastSpeech
from predictor.zoo.forecasting import TemporalFusion
from predictor.zoo.gnmt import GNMT
from predictor.zoo.hifigan import Discriminator, Generator, HiFiGAN
from predictor.zoo.inception import GoogLeNet
from predictor.zoo.jasper import SpeechConvNet
from predictor.zoo.nnunet import NNUNet
from predictor.zoo.profet import alexnet_keras, cifar10_cnn, lenet5, mnist_cnn, resnet_small, vgg11_keras
from predictor.zoo.recommenders import CRITEO, DLRM, OUTBRAIN, MultVAE, NeuMF, WideAndDeep
from predictor.zoo.resnet_v2 import ResNetV2, resnet18_v2_keras
from predictor.zoo.shufflenet_cifar import ShuffleNetCifar
from predictor.zoo.ssd import BOXES
from predictor.zoo.tacotron2 import Tacotron2
from predictor.zoo.text_classifier import SmallTransformer
from predictor.zoo.transformer_xl import TransformerXL, _shift
from predictor.zoo.unets import UNet, UNet3D, VNet
from predictor.zoo.waveglow import WaveGlow

EAGER = find_stack("eager-2")

# Counts that papers and examples state, in millions.
HEADLINES = {
    "overfeat": 146,
    "jasper": 333,
    "quartznet": 18.9,
    "transformer-xl-base": 192,  # NVIDIA/DeepLearningExamples, PyTorch/LanguageModeling/Transformer-XL
    "ncf": 31.8,
    "fastpitch": 45,
}


def parameters(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", sorted(HEADLINES))
def test_the_size_is_the_one_stated(name):
    assert sizes.MEASURED[name] / 1e6 == pytest.approx(HEADLINES[name], rel=0.01)


def test_the_generator_of_hifigan_has_the_papers_size():
    assert sizes.hifigan_generator() // 10_000 == 1392  # "13.92 M": cut off, not rounded


def test_electra_keeps_the_discriminator():
    kept = sizes.bert(12, 768) + sizes.stack(768, 768, 1)
    assert round(kept / 1e6) == 109  # the paper rounds to 110


def test_classes_go_with_the_image_in_the_profet_study():
    assert lenet5(32).layers[-1].out_features == 10
    assert resnet18_v2_keras(128).head.out_features == 100
    assert parameters(vgg11_keras(64)) == sizes.vgg_keras((64, 128, 256, 256, 512, 512, 512, 512), 64, 100)
    assert parameters(alexnet_keras(32)) == sizes.alexnet_keras(32, 10)


# --- small models with real numbers ---------------------------------------------------------------


def whole(limit, *shape):
    return torch.randint(0, limit, shape, generator=torch.Generator().manual_seed(0))


def real(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def words():
    return {"ids": whole(50, 2, 20), "segments": whole(2, 2, 20)}


def sentences():
    return {"layers": 2, "width": 32, "heads": 4, "vocabulary": 50, "context": 20}


def transformer_xl(cutoffs, shrink=1):
    return TransformerXL(
        layers=2,
        width=32,
        heads=4,
        inner=40,
        dropout=0.1,
        drop_weights=0.1,
        head_size=8,
        cutoffs=cutoffs,
        shrink=shrink,
        vocabulary=50,
    )


def speech(dense):
    blocks = ((16, 11, 0.2), (24, 13, 0.2))
    return SpeechConvNet((16, 11), blocks, (32, 29, 0.4), dense=dense, separable=not dense)


def matched():
    labels = torch.zeros(2, BOXES, dtype=torch.int64)
    labels[:, :5] = 3
    boxes = real(2, 4, BOXES).abs() + 0.1
    return {"image": real(2, 3, 300, 300), "boxes": boxes, "labels": labels}


def ssd():
    from predictor.zoo.ssd import ssd300_resnet50

    return ssd300_resnet50()


LISTEN = {"features": real(2, 64, 80), "text": whole(28, 2, 7)}
READ = {"ids": whole(50, 2, 30), "memory": real(3, 30, 2, 32)}
SMALL_IMAGE = {"image": real(2, 3, 32, 32)}
SMALL = {
    "googlenet": lambda: (GoogLeNet(classes=7), {"image": real(2, 3, 64, 64)}),
    "resnet-v2": lambda: (
        ResNetV2((2, 1, 1, 1), bottleneck=True, width=8, classes=7),
        {"image": real(2, 3, 64, 64)},
    ),
    "resnet-v2-keras": lambda: (
        ResNetV2((2, 1, 1, 1), bottleneck=False, keras=True, width=8, classes=7),
        {"image": real(2, 3, 64, 64)},
    ),
    "lenet5": lambda: (lenet5(32), SMALL_IMAGE),
    "mnist-cnn": lambda: (mnist_cnn(32), SMALL_IMAGE),
    "cifar10-cnn": lambda: (cifar10_cnn(32), SMALL_IMAGE),
    "resnet-small": lambda: (resnet_small(32), SMALL_IMAGE),
    "shufflenet": lambda: (ShuffleNetCifar((8, 16, 32), 5), SMALL_IMAGE),
    "ssd": lambda: (ssd(), matched()),
    "unet": lambda: (
        UNet((4, 8), 16, ((8, 8), (4, 4)), classes=2, padding=0, kernel=3),
        {"image": real(1, 1, 60, 60)},
    ),
    "unet-padded": lambda: (
        UNet((4, 4), 16, ((8, 4), (4, 4)), classes=1, padding=1, kernel=2),
        {"image": real(1, 1, 64, 64)},
    ),
    "unet3d": lambda: (UNet3D((4, 6, 8, 8)), {"volume": real(1, 4, 16, 16, 16)}),
    "vnet": lambda: (VNet(4, 3, 2), {"volume": real(2, 1, 16, 16, 16)}),
    "nnunet-2d": lambda: (NNUNet(2, (4, 8, 8)), {"volume": real(1, 4, 32, 32)}),
    "nnunet-3d": lambda: (NNUNet(3, (4, 8, 8)), {"volume": real(1, 4, 16, 16, 16)}),
    "answers": lambda: (AnswerHead(Encoder(**sentences()), 2), words()),
    "names": lambda: (TokenHead(Encoder(**sentences()), 3), words()),
    "sentiment": lambda: (SequenceHead(Encoder(**sentences()), 2), words()),
    "electra": lambda: (Electra(layers=2, width=36, heads=6, vocabulary=50), words()),
    "gnmt": lambda: (GNMT(50, 16), {"source": whole(50, 2, 9), "target": whole(50, 2, 7)}),
    "transformer-xl": lambda: (transformer_xl(()), READ),
    "transformer-xl-adaptive": lambda: (transformer_xl((20, 30, 45)), READ),
    "transformer-xl-narrow": lambda: (transformer_xl((20, 30, 45), shrink=2), READ),
    "small-transformer": lambda: (SmallTransformer(50, 20), {"ids": whole(50, 2, 20)}),
    "tacotron2": lambda: (Tacotron2(16, 24), {"text": whole(50, 2, 9), "mel": real(2, 12, 80)}),
    "waveglow": lambda: (WaveGlow(8, 5, 2), {"sound": real(2, 2048), "mel": real(2, 80, 8)}),
    "fastpitch": lambda: (
        FastSpeech(heads=1, head_size=8, pitch=True, width=16, inner=16, blocks=2),
        {"text": whole(148, 2, 5), "mel": real(2, 30, 80)},
    ),
    "jasper": lambda: (speech(dense=True), LISTEN),
    "quartznet": lambda: (speech(dense=False), LISTEN),
    "deepspeech2": lambda: (
        DeepSpeech2(16, 2),
        {"sound": real(2, 1, 161, 80), "text": whole(28, 2, 7)},
    ),
    "ncf": lambda: (NeuMF(9, 8, 4, (8, 8, 4)), {"user": whole(9, 6), "item": whole(8, 6)}),
    "dlrm": lambda: (
        DLRM((5, 7, 3), width=4, bottom=(13, 8, 4), top=(8, 1)),
        {"numbers": real(6, 13), "categories": whole(3, 6, 3)},
    ),
    "wide-and-deep": lambda: (
        WideAndDeep(((5, 4), (7, 2)), 3, (8, 8)),
        {"numbers": real(6, 3), "categories": whole(5, 6, 2)},
    ),
    "vae-cf": lambda: (MultVAE(30, 8, 4), {"seen": whole(2, 5, 30).float()}),
    "tft": lambda: (
        TemporalFusion(9, 16, 4, seen=10),
        {"label": whole(9, 2), "known": real(2, 14, 3), "target": real(2, 14, 1)},
    ),
}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_small_model_trains_every_parameter(name):
    torch.manual_seed(0)
    net, given = SMALL[name]()
    outputs = net(**given)
    if hasattr(net, "loss"):
        loss = net.loss(outputs, **given)
    else:
        flat = outputs.flatten(0, -2)
        loss = torch.nn.functional.cross_entropy(flat, torch.zeros(len(flat), dtype=torch.int64))
    loss.backward()
    assert loss.shape == ()
    assert math.isfinite(loss.detach())
    for path, weight in net.named_parameters():
        assert weight.grad is not None, path
        grad = weight.grad.coalesce().values() if weight.grad.is_sparse else weight.grad
        assert grad.isfinite().all(), path


def test_hifigan_trains_its_generator_through_its_discriminators():
    torch.manual_seed(0)
    net = HiFiGAN(16)
    net.periods = torch.nn.ModuleList([Discriminator([torch.nn.Conv2d(1, 1, (3, 1))])] * 5)
    net.scales = torch.nn.ModuleList([Discriminator([torch.nn.Conv1d(1, 1, 3)])] * 3)
    mel, sound = real(1, 80, 8), real(1, 1, 2048)
    made = net(mel, sound)
    assert made.shape == sound.shape
    net.loss(made, mel=mel, sound=sound).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_the_shift_of_transformer_xl_puts_distances_under_their_keys():
    s, t = 3, 5
    by_distance = torch.arange(float(s * t)).view(1, 1, s, t)  # column j: distance t - 1 - j
    shifted = _shift(by_distance)
    for i in range(s):  # word i stands at key t - s + i
        for key in range(t - s + i + 1):
            distance = t - s + i - key
            assert shifted[0, 0, i, key] == by_distance[0, 0, i, t - 1 - distance]


# --- recorded -------------------------------------------------------------------------------------


def forward_flop(name, **options):
    graph = load_graph(f"zoo:{name}", ReadOptions(train=False, **options))
    return count(graph, EAGER, False).total(FORWARD).matrix_flop


def convs(layers, dimensions=2):
    """2 flop per weight and place: layers of (side of the kernel, before, after, side of the result)."""
    return sum(2 * k**dimensions * a * b * p**dimensions for k, a, b, p in layers)


def test_googlenet_takes_one_and_a_half_billion_multiply_adds():
    layers = [(7, 3, 64, 112), (1, 64, 64, 56), (3, 64, 192, 56)]
    before, side = 192, 28
    for index, (one, in3, out3, in5, out5, pooled) in enumerate(sizes.INCEPTIONS):
        side = 28 if index < 2 else 14 if index < 7 else 7
        layers += [(1, before, one + in3 + in5 + pooled, side), (3, in3, out3, side), (5, in5, out5, side)]
        before = one + out3 + out5 + pooled
    by_hand = convs(layers) + 2 * 1024 * 1000
    assert forward_flop("googlenet-without-lrn", batch=1) == by_hand
    assert by_hand / 2e9 == pytest.approx(1.5, rel=0.06)  # the paper, section 5


def test_overfeat_flop():
    layers = [(11, 3, 96, 56), (5, 96, 256, 24), (3, 256, 512, 12), (3, 512, 1024, 12), (3, 1024, 1024, 12)]
    dense = 36864 * 3072 + 3072 * 4096 + 4096 * 1000
    assert forward_flop("overfeat", batch=2) == 2 * (convs(layers) + 2 * dense)


def test_resnet200_flop():
    layers, before = [(7, 3, 64, 112)], 64
    for stage, blocks in enumerate((3, 24, 36, 3)):
        inner, side = 64 * 2**stage, 56 // 2**stage
        for index in range(blocks):
            came = 2 * side if stage and index == 0 else side
            layers += [(1, before, inner, came), (3, inner, inner, side), (1, inner, 4 * inner, side)]
            layers += [(1, before, 4 * inner, side)] if index == 0 else []
            before = 4 * inner
    assert forward_flop("resnet200-v2", batch=1) == convs(layers) + 2 * 2048 * 1000


def test_keras_vgg_flop_follow_the_image():
    sides = [64, 32, 16, 16, 8, 8, 4, 4]
    channels = pairwise((3, 64, 128, 256, 256, 512, 512, 512, 512))
    layers = [(3, a, b, p) for (a, b), p in zip(channels, sides, strict=True)]
    dense = 512 * 2 * 2 * 4096 + 4096 * 4096 + 4096 * 100
    assert forward_flop("vgg11-keras", batch=3, image_size=64) == 3 * (convs(layers) + 2 * dense)


def test_ssd_flop():
    layers, before = [(7, 3, 64, 150)], 64
    for inner, blocks, came, side in ((64, 3, 75, 75), (128, 4, 75, 38), (256, 6, 38, 38)):
        for index in range(blocks):
            layers += [(1, before, inner, side if index else came), (3, inner, inner, side)]
            layers += [(1, inner, 4 * inner, side)] + ([] if index else [(1, before, 4 * inner, side)])
            before = 4 * inner
    maps = ((1024, 4, 38), (512, 6, 19), (512, 6, 10), (256, 6, 5), (256, 4, 3), (256, 4, 1))
    for (a, _, came), (b, _, side), inner in zip(maps, maps[1:], (256, 256, 128, 128, 128), strict=False):
        layers += [(1, a, inner, came), (3, inner, b, side)]
    layers += [(3, c, boxes * 85, side) for c, boxes, side in maps]
    assert forward_flop("ssd300-resnet50", batch=1) == convs(layers)
    assert sum(boxes * side * side for _, boxes, side in maps) == 8732


def test_unet_flop_without_padding():
    layers, side, before = [], 572, 1
    sides = []
    for width in (64, 128, 256, 512, 1024):
        layers += [(3, before, width, side - 2), (3, width, width, side - 4)]
        side, before = (side - 4) // 2, width
        sides.append(side)
    side = sides[-1] * 2
    for width in (512, 256, 128, 64):
        layers += [(3, 2 * width, width, side)]  # transposed: each pixel that comes in meets every weight
        side *= 2
        layers += [(3, 2 * width, width, side - 2), (3, width, width, side - 4)]
        side -= 4
    assert side == 388
    assert forward_flop("unet-medical", batch=1) == convs([*layers, (1, 64, 2, side)])


def test_nnunet_flop_in_three_dimensions():
    widths = (32, 64, 128, 256, 320, 320)
    layers, before = [], 4
    for level, width in enumerate(widths):
        layers += [(3, before, width, 128 >> level), (3, width, width, 128 >> level)]
        before = width
    for level in range(4, -1, -1):
        below, width = widths[level + 1], widths[level]
        layers += [(2, below, width, 128 >> (level + 1))]
        layers += [(3, 2 * width, width, 128 >> level), (3, width, width, 128 >> level)]
    assert forward_flop("nnunet-3d", batch=1) == convs([*layers, (1, 32, 4, 128)], dimensions=3)


def test_bert_for_answers_flop():
    b, s, d = 2, 384, 768
    by_hand = 12 * (24 * b * s * d * d + 4 * b * s * s * d) + 2 * b * s * d * 2
    assert forward_flop("bert-base-squad", batch=b) == by_hand


def test_transformer_xl_flop():
    b, s, d, layers, words = 2, 64, 512, 16, 267_735
    attention = 2 * 2 * s * b * d * 3 * d + 2 * 2 * s * d * d + 2 * s * b * d * d
    scores = 3 * 2 * b * s * 2 * s * d  # content, position, values
    by_hand = layers * (attention + scores + 2 * 2 * s * b * d * 4 * d)
    graph = load_graph("zoo:transformer-xl-base-full", ReadOptions(batch=b, seq_len=s))
    found = count(graph, EAGER, True).total(FORWARD).matrix_flop
    angles = 2 * 2 * s * d // 2  # an outer product of places and frequencies
    assert found == pytest.approx(by_hand + 2 * b * s * d * words, abs=angles)


def test_gnmt_flop():
    b, s, d = 2, 10, 1024
    lstms = 2 * 4 * d * ((d + d) * (2 + 2 + 1) + (2 * d + d) * (1 + 3))
    attention = 2 * d * d * 2 + 2 * s * d * 2  # queries and keys; scores and contexts
    by_hand = b * s * (lstms + attention + 2 * d * 32320)
    assert forward_flop("gnmt", batch=b, seq_len=s) == by_hand


def test_tacotron2_flop():
    b, s, t = 2, 6, 160
    encoder = t * (3 * 2 * 5 * 512 * 512 + 2 * 2 * 4 * 256 * (512 + 256) + 2 * 512 * 128)
    cells = 2 * 4 * 1024 * (768 + 1024) + 2 * 4 * 1024 * (1536 + 1024)
    attention = 2 * 1024 * 128 + t * (2 * 2 * 31 * 32 + 2 * 32 * 128 + 2 * 128 + 2 * 512)
    frame = 2 * (80 * 256 + 256 * 256) + cells + attention + 2 * 1536 * 81
    postnet = 2 * 5 * (2 * 80 * 512 + 3 * 512 * 512)
    assert forward_flop("tacotron2", batch=b, seq_len=s) == b * (encoder + s * (frame + postnet))


def test_waveglow_flop():
    groups = 8000 // 8
    by_hand = 2 * 1024 * 80 * 80 * 32
    for channels in (8,) * 4 + (6,) * 4 + (4,) * 4:
        half = channels // 2
        net = half * 512 + 8 * (3 * 512 * 1024 + 640 * 1024) + 7 * 512 * 1024 + 512 * 512 + 512 * channels
        by_hand += 2 * groups * (channels * channels + net)
    assert forward_flop("waveglow", batch=1) == by_hand


@pytest.mark.parametrize("name", ["jasper", "quartznet"])
def test_speech_convolutions_work_at_half_the_frames(name):
    norms = {"jasper": 256 + 896 + 1024, "quartznet": 256 + 512 + 1024}[name]
    if name == "jasper":  # five per block, and one for each earlier result
        widths = [256, 256, 384, 384, 512, 512, 640, 640, 768, 768]
        norms += sum((5 + 1 + index) * width for index, width in enumerate(widths))
    else:
        norms += sum(6 * width for width in [256] * 6 + [512] * 9)
    weights = sizes.MEASURED[name] - 2 * norms - 29
    assert forward_flop(name, batch=2, seq_len=80) == 2 * 2 * 40 * weights


def test_deepspeech2_flop():
    b, s = 2, 80
    convs = 41 * 11 * 32 * 81 * 40 + 21 * 11 * 32 * 32 * 41 * 40
    lstms = 40 * (2 * 4 * 1024 * (1312 + 1024) + 4 * 2 * 4 * 1024 * 2048)
    assert forward_flop("deepspeech2", batch=b, seq_len=s) == 2 * b * (convs + lstms + 40 * 1024 * 29)


def test_the_generator_of_hifigan_flop():
    by_hand, width, length = 2 * 7 * 80 * 512 * 32, 512, 32
    for stride in (8, 8, 2, 2):
        by_hand += 2 * 2 * stride * width * (width // 2) * length
        width, length = width // 2, length * stride
        by_hand += 2 * 6 * (3 + 7 + 11) * width * width * length
    assert forward_flop("hifigan", batch=1) == by_hand + 2 * 7 * 32 * length


def test_fastpitch_flop():
    t, s, d = 144, 864, 384
    linear = d * 192 + 64 * d + 2 * 3 * d * 1536
    blocks = 6 * sum(2 * n * linear + 2 * 2 * n * n * 64 for n in (t, s))
    predictors = 2 * 2 * t * (3 * d * 256 + 3 * 256 * 256 + 256) + 2 * t * 3 * d
    found = forward_flop("fastpitch", batch=1)
    angles = 2 * (t + s) * d // 2
    assert found == pytest.approx(blocks + predictors + 2 * s * d * 80, abs=angles)


def test_recommender_flop():
    assert forward_flop("ncf", batch=8) == 8 * 2 * (256 * 256 + 256 * 128 + 128 * 64 + 128)
    top = 480 * 1024 + 1024 * 1024 + 1024 * 512 + 512 * 256 + 256
    bottom = 13 * 512 + 512 * 256 + 256 * 128
    assert 128 + 27 * 26 // 2 + 1 == 480
    assert len(CRITEO) == 26
    assert forward_flop("dlrm-small", batch=8) == 8 * 2 * (bottom + 27 * 27 * 128 + top)
    features = 13 + sum(width for _, width in OUTBRAIN)
    assert forward_flop("wide-and-deep", batch=8) == 8 * 2 * (13 + features * 1024 + 4 * 1024**2 + 1024)
    assert forward_flop("vae-cf", batch=8) == 8 * 2 * (20108 * 600 + 600 * 400 + 200 * 600 + 600 * 20108)


STEPS = {
    "googlenet": {},
    "shufflenetv2-cifar100": {},
    "cifar10-cnn-keras": {},
    "ssd300-resnet50": {},
    "unet-industrial": {},
    "vnet": {},
    "nnunet-2d": {},
    "bert-base-names": {"seq_len": 32},
    "electra-base": {"seq_len": 32},
    "gnmt": {"seq_len": 8},
    "transformer-xl-large": {"seq_len": 16},
    "small-transformer": {},
    "tacotron2": {"seq_len": 4},
    "waveglow": {},
    "hifigan": {},
    "fastspeech": {},
    "jasper": {"seq_len": 80},
    "deepspeech2": {"seq_len": 80},
    "dlrm-small": {},
    "tft-electricity": {},
}


@pytest.mark.parametrize("name", sorted(STEPS))
def test_a_training_step_in_mixed_precision_is_recorded(name):
    graph = load_graph(f"zoo:{name}", ReadOptions(batch=2, precision="amp-fp16", **STEPS[name]))
    found = count(graph, EAGER, True)
    forward, backward = (found.total(phase).matrix_flop for phase in (FORWARD, BACKWARD))
    assert forward < backward <= 2 * forward
    assert sum(math.prod(p.shape) for p in graph.parameters) == sizes.MEASURED[name]


def test_the_generator_is_built_for_the_strides_it_is_given():
    net = Generator(16, (2, 2))
    assert net(real(1, 80, 4)).shape == (1, 1, 16)


def test_every_measured_model_says_where_its_batch_and_sizes_come_from():
    for name in sizes.MEASURED:
        assert ZOO[name].note.endswith("."), name
