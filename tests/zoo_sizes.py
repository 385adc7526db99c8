"""Parameter counts of the measured models of the zoo, spelled out from what papers and examples say."""

from itertools import pairwise

from predictor.zoo.recommenders import CRITEO, OUTBRAIN


def dense(m, n):
    """A matrix and a bias."""
    return m * n + n


def conv(side, before, after, groups=1):
    return side * side * before // groups * after + after


def norm(width):
    """Scale and shift."""
    return 2 * width


def line(span, before, after, groups=1):
    """A convolution over time with a bias."""
    return span * before // groups * after + after


def stack(*widths):
    return sum(dense(a, b) for a, b in pairwise(widths))


def lstm(before, cells):
    """Four gates, with PyTorch's two biases."""
    return 4 * cells * (before + cells) + 2 * 4 * cells


# --- images ---------------------------------------------------------------------------------------


# Channels of GoogLeNet's modules, table 1 of the paper: 1x1, before and after 3x3, before and after 5x5,
# after the pool.
INCEPTIONS = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)


def googlenet():
    stem = conv(7, 3, 64) + conv(1, 64, 64) + conv(3, 64, 192)
    total, before = stem, 192
    for one, in3, out3, in5, out5, pooled in INCEPTIONS:
        total += conv(1, before, one) + conv(1, before, in3) + conv(3, in3, out3)
        total += conv(1, before, in5) + conv(5, in5, out5) + conv(1, before, pooled)
        before = one + out3 + out5 + pooled
    assert before == 1024
    return total + dense(1024, 1000)


def overfeat():
    features = conv(11, 3, 96) + conv(5, 96, 256) + conv(3, 256, 512) + conv(3, 512, 1024)
    return features + conv(3, 1024, 1024) + stack(1024 * 6 * 6, 3072, 4096, 1000)


def resnet200_v2():
    total, before = 7 * 7 * 3 * 64 + norm(64), 64
    for stage, count in enumerate((3, 24, 36, 3)):
        inner = 64 * 2**stage
        for index in range(count):
            total += norm(before) if stage or index else 0  # the stem has normalised already
            total += before * inner + norm(inner) + 9 * inner * inner + norm(inner) + inner * 4 * inner
            total += before * 4 * inner if index == 0 else 0
            before = 4 * inner
    return total + norm(before) + dense(2048, 1000)


def resnet_v2_keras(blocks, bottleneck):
    total, before = conv(7, 3, 64) + norm(64), 64
    for stage, count in enumerate(blocks):
        inner = 64 * 2**stage
        sizes = ((1, inner), (3, inner), (1, 4 * inner)) if bottleneck else ((3, inner), (3, inner))
        for index in range(count):
            came = before
            for step, (side, after) in enumerate(sizes):
                total += norm(before) if stage or index or step else 0
                total += conv(side, before, after)
                before = after
            total += conv(1, came, before) if came != before or (stage and index == 0) else 0
    return total + norm(before) + dense(before, 1000)


def shufflenet_cifar():
    total, before = conv(3, 3, 24) + norm(24), 24
    depthwise = lambda c: 9 * c + c + norm(c)  # noqa: E731
    for width, units in ((116, 4), (232, 8), (464, 4)):
        half = width // 2
        total += (
            conv(1, before, before) + norm(before) + depthwise(before) + conv(1, before, half) + norm(half)
        )
        total += depthwise(before) + conv(1, before, half) + norm(half)
        total += (units - 1) * (2 * (conv(1, half, half) + norm(half)) + depthwise(half))
        before = width
    return total + conv(1, 464, 1024) + norm(1024) + dense(1024, 100)


def alexnet_keras(side, classes):
    features = conv(11, 3, 96) + conv(5, 96, 256) + conv(3, 256, 512) + conv(3, 512, 1024)
    features += conv(3, 1024, 1024) + norm(96) + norm(256) + norm(512) + norm(1024) + norm(1024)
    for grows in (0, 0, 2, 2 + 2):  # zero padding adds two pixels before each of the last convolutions
        side = (side + grows) // 2
    heads = stack(1024 * side * side, 3072, 4096, classes)
    return features + heads + norm(3072) + norm(4096) + norm(classes)


def vgg_keras(channels, side, classes):
    convolutions = sum(conv(3, a, b) for a, b in pairwise((3, *channels)))
    return convolutions + stack(512 * (side // 32) ** 2, 4096, 4096, classes)


def resnet_small():
    block = conv(1, 64, 64) + norm(64) + conv(1, 64, 64) + norm(64)
    wide = conv(1, 128, 128) + norm(128)
    first = conv(7, 3, 64) + norm(64) + block + conv(1, 64, 64) + norm(64)
    second = 2 * (conv(1, 64, 128) + norm(128)) + wide
    return first + block + second + 2 * wide + dense(128, 1000)


# --- finding things -------------------------------------------------------------------------------


def ssd300():
    total, before = 7 * 7 * 3 * 64 + norm(64), 64
    for inner, count in ((64, 3), (128, 4), (256, 6)):
        after = 4 * inner
        total += before * after + norm(after)
        for index in range(count):
            into = after if index else before
            total += into * inner + 9 * inner * inner + inner * after + 2 * norm(inner) + norm(after)
        before = after
    maps = (1024, 512, 512, 256, 256, 256)
    for (a, b), inner in zip(pairwise(maps), (256, 256, 128, 128, 128), strict=True):
        total += a * inner + norm(inner) + 9 * inner * b + norm(b)
    heads = zip(maps, (4, 6, 6, 6, 4, 4), strict=True)
    return total + sum(conv(3, c, boxes * (4 + 81)) for c, boxes in heads)


def unet_medical():
    down = sum(conv(3, a, b) + conv(3, b, b) for a, b in pairwise((1, 64, 128, 256, 512, 1024)))
    up = sum(conv(3, 2 * c, c) + conv(3, c, c) + conv(3, 2 * c, c) for c in (512, 256, 128, 64))
    return down + up + conv(1, 64, 2)


def unet_industrial():
    down = sum(conv(3, a, b) + conv(3, b, b) for a, b in pairwise((1, 32, 32, 64, 128, 256)))
    up = conv(2, 256, 128) + conv(3, 128 + 128, 128) + conv(3, 128, 64)
    up += conv(2, 64, 64) + conv(3, 64 + 64, 64) + conv(3, 64, 32)
    up += conv(2, 32, 32) + conv(3, 32 + 32, 32) + conv(3, 32, 16)
    return down + up + conv(2, 16, 16) + conv(3, 16 + 32, 32) + conv(3, 32, 32) + conv(1, 32, 1)


def levels(widths, voxels, corner, channels=4):
    """Two normalised convolutions per level down and up, transposed convolutions with a bias between."""
    pair = lambda a, b: voxels * a * b + norm(b) + voxels * b * b + norm(b)  # noqa: E731
    down = sum(pair(a, b) for a, b in pairwise((channels, *widths)))
    return down + sum(corner * a * b + b + pair(2 * b, b) for a, b in pairwise(widths[::-1]))


def vnet():
    unit = lambda voxels, a, b: voxels * a * b + b + norm(b)  # noqa: E731
    down = sum(unit(8, a, b) + 3 * unit(27, b, b) for a, b in pairwise((16, 32, 64, 128)))
    up = unit(8, 128, 64) + 3 * unit(27, 128, 128) + unit(8, 128, 32) + 3 * unit(27, 64, 64)
    return unit(27, 1, 16) + down + up + unit(8, 64, 16) + 27 * 16 * 3 + 3


# --- text -----------------------------------------------------------------------------------------


def bert(layers, width, vocabulary=30522):
    embedding = (vocabulary + 512 + 2) * width + norm(width)
    layer = 4 * dense(width, width) + stack(width, 4 * width, width) + 2 * norm(width)
    return embedding + layers * layer


def electra():
    layer = 4 * dense(256, 256) + stack(256, 1024, 256) + 2 * norm(256)
    generator = dense(768, 256) + 12 * layer + dense(256, 768) + norm(768) + 30522
    return bert(12, 768) + generator + stack(768, 768, 1)


def gnmt():
    encoder = 2 * lstm(1024, 1024) + lstm(2048, 1024) + 2 * lstm(1024, 1024)
    decoder = lstm(1024, 1024) + 3 * lstm(2048, 1024)
    attention = 2 * 1024 * 1024 + 1024 + 1 + 1024
    return 32320 * 1024 + encoder + decoder + attention + dense(1024, 32320)


def transformer_xl(layers, width, heads, clusters):
    words = 267_735
    inner = heads * 64
    attention = width * 3 * inner + width * inner + inner * width + norm(width)
    mlp = stack(width, 4 * width, width) + norm(width)
    return words + clusters * (width + 1) + 2 * inner + layers * (attention + mlp)


def narrow_words():
    """Embeddings of four clusters, 1024, 256, 64 and 16 wide; projections in, and one out."""
    counts = (19_997, 20_000, 160_000, 67_738)
    widths = (1024, 256, 64, 16)
    tables = sum(count * width for count, width in zip(counts, widths, strict=True))
    return tables + sum(1024 * width for width in widths) + 1024 * 1024


def small_transformer():
    attention = 3 * dense(32, 64) + dense(64, 32)
    return 20_200 * 32 + attention + stack(32, 32, 32) + 2 * norm(32) + stack(32, 20, 2)


# --- sound ----------------------------------------------------------------------------------------


def tacotron2():
    convs = 3 * (line(5, 512, 512) + norm(512))
    encoder = 148 * 512 + convs + 2 * lstm(512, 256)
    attention = 1024 * 128 + 512 * 128 + 2 * 31 * 32 + 32 * 128 + 128
    decoder = 80 * 256 + 256 * 256 + lstm(256 + 512, 1024) + attention + lstm(1024 + 512, 1024)
    decoder += dense(1536, 80) + dense(1536, 1)
    postnet = sum(line(5, a, b) + norm(b) for a, b in pairwise((80, 512, 512, 512, 512, 80)))
    return encoder + decoder + postnet


def waveglow():
    normed = lambda span, a, b: line(span, a, b) + b  # noqa: E731 (weight normalisation: a length per filter)
    total = 1024 * 80 * 80 + 80
    for channels in (8, 8, 8, 8, 6, 6, 6, 6, 4, 4, 4, 4):
        half = channels // 2
        total += channels * channels + normed(1, half, 512) + line(1, 512, channels)
        total += 8 * (normed(3, 512, 1024) + normed(1, 640, 1024)) + 7 * normed(1, 512, 1024)
        total += normed(1, 512, 512)
    return total


def hifigan_generator():
    total, width = line(7, 80, 512), 512
    for stride in (8, 8, 2, 2):
        total += 2 * stride * width * (width // 2) + width // 2
        width //= 2
        total += sum(6 * line(span, width, width) for span in (3, 7, 11))
    return total + line(7, 32, 1)


def hifigan():
    lengths = 512 + 1  # of the filters of the first and last convolution of the generator
    width = 512
    for _ in range(4):
        lengths += width  # a transposed convolution has one per channel that comes in
        width //= 2
        lengths += 3 * 6 * width
    period = line(5, 1, 32) + line(5, 32, 128) + line(5, 128, 512) + line(5, 512, 1024) + line(5, 1024, 1024)
    period += line(3, 1024, 1) + 32 + 128 + 512 + 1024 + 1024 + 1
    scale = line(15, 1, 128) + line(41, 128, 128, 4) + line(41, 128, 256, 16) + line(41, 256, 512, 16)
    scale += line(41, 512, 1024, 16) + line(41, 1024, 1024, 16) + line(5, 1024, 1024) + line(3, 1024, 1)
    scale += 128 + 128 + 256 + 512 + 1024 + 1024 + 1024 + 1
    return hifigan_generator() + lengths + 5 * period + 3 * scale


def fastspeech(heads, pitch):
    inner = heads * 64
    attention = dense(384, 3 * inner) + inner * 384 + norm(384)
    block = attention + line(3, 384, 1536) + line(3, 1536, 384) + norm(384)
    predictor = line(3, 384, 256) + line(3, 256, 256) + 2 * norm(256) + dense(256, 1)
    extra = predictor + line(3, 1, 384) if pitch else 0
    return 148 * 384 + 12 * block + predictor + extra + dense(384, 80)


def jasper():
    unit = lambda span, a, b: span * a * b + norm(b)  # noqa: E731
    sizes = [(256, 11), (384, 13), (512, 17), (640, 21), (768, 25)]
    total, sources = unit(11, 64, 256), [256]
    for width, span in [size for size in sizes for _ in range(2)]:
        total += unit(span, sources[-1], width) + 4 * unit(span, width, width)
        total += sum(unit(1, source, width) for source in sources)
        sources.append(width)
    return total + unit(29, 768, 896) + unit(1, 896, 1024) + line(1, 1024, 29)


def quartznet():
    unit = lambda span, a, b: span * a + a * b + norm(b)  # noqa: E731 (over time, then over channels)
    sizes = [(256, 33), (256, 39), (512, 51), (512, 63), (512, 75)]
    total, before = unit(33, 64, 256), 256
    for width, span in [size for size in sizes for _ in range(3)]:
        total += unit(span, before, width) + 4 * unit(span, width, width) + before * width + norm(width)
        before = width
    return total + unit(87, 512, 512) + 512 * 1024 + norm(1024) + line(1, 1024, 29)


def deepspeech2():
    convs = 41 * 11 * 1 * 32 + 32 + 21 * 11 * 32 * 32 + 32 + 2 * norm(32)
    rows = 41  # 161 frequencies halved twice, rounded up
    layers = 2 * lstm(32 * rows, 1024) + 4 * (norm(1024) + 2 * lstm(1024, 1024))
    return convs + layers + norm(1024) + 1024 * 29


# --- tables ---------------------------------------------------------------------------------------


def ncf():
    users, items = 138_493, 26_744
    return (users + items) * (64 + 128) + stack(256, 256, 128, 64) + dense(64 + 64, 1)


def dlrm():
    pairs = 27 * 26 // 2
    top = stack(128 + pairs + 1, 1024, 1024, 512, 256, 1)
    return sum(CRITEO) * 128 + stack(13, 512, 256, 128) + top


def wide_and_deep():
    rows = sum(count for count, _ in OUTBRAIN)
    width = sum(width for _, width in OUTBRAIN)
    deep = sum(count * width for count, width in OUTBRAIN) + stack(13 + width, *(1024,) * 5, 1)
    return rows + dense(13, 1) + deep


def vae_cf():
    return stack(20_108, 600, 400) + stack(200, 600, 20_108)


def tft(labels):
    width = 128
    gate = dense(width, 2 * width)
    residual = 2 * dense(width, width) + gate + norm(width)

    def selection(variables, context):
        weights = dense(variables * width, width) + dense(width, width) + dense(width, 2 * variables)
        weights += dense(variables * width, variables) + (norm(variables) if variables > 1 else 0)
        return weights + (width * width if context else 0) + variables * residual

    inputs = labels * width + 2 * 4 * width
    encoders = selection(1, False) + 4 * residual + selection(4, True) + selection(3, True)
    attention = width * (2 * 4 + 1) * 32 + 32 * width
    gates = 3 * (gate + norm(width))
    return (
        inputs + encoders + 2 * lstm(width, width) + gates
        + residual + width * width + attention + residual + dense(width, 3)
    )  # fmt: skip


MEASURED = {
    "googlenet": googlenet(),
    "googlenet-without-lrn": googlenet(),
    "overfeat": overfeat(),
    "resnet200-v2": resnet200_v2(),
    "shufflenetv2-cifar100": shufflenet_cifar(),
    "lenet5-keras": conv(5, 3, 6) + conv(5, 6, 16) + stack(16 * 5 * 5, 120, 84, 10),
    "mnist-cnn-keras": conv(3, 3, 32) + conv(3, 32, 64) + dense(64 * 6 * 6, 10),
    "cifar10-cnn-keras": (
        conv(3, 3, 32) + conv(3, 32, 32) + conv(3, 32, 64) + conv(3, 64, 64) + stack(64 * 6 * 6, 512, 10)
    ),
    "alexnet-keras": alexnet_keras(224, 1000),
    "resnet-small-keras": resnet_small(),
    "vgg11-keras": vgg_keras((64, 128, 256, 256, 512, 512, 512, 512), 224, 1000),
    "vgg13-keras": vgg_keras((64, 64, 128, 128, 256, 256, 512, 512, 512, 512), 224, 1000),
    "vgg16-keras": vgg_keras((64,) * 2 + (128,) * 2 + (256,) * 3 + (512,) * 6, 224, 1000),
    "vgg19-keras": vgg_keras((64,) * 2 + (128,) * 2 + (256,) * 4 + (512,) * 8, 224, 1000),
    "resnet18-v2-keras": resnet_v2_keras((2, 2, 2, 2), bottleneck=False),
    "resnet34-v2-keras": resnet_v2_keras((3, 4, 6, 3), bottleneck=False),
    "resnet50-v2-keras": resnet_v2_keras((3, 4, 6, 3), bottleneck=True),
    "ssd300-resnet50": ssd300(),
    "unet-medical": unet_medical(),
    "unet-industrial": unet_industrial(),
    "unet3d-medical": levels((32, 64, 128, 256, 320, 320), 27, 8) + 27 * 32 * 4 + 4,
    "vnet": vnet(),
    "nnunet-2d": levels((32, 64, 128, 256, 512, 512), 9, 4) + 32 * 4 + 4,
    "nnunet-3d": levels((32, 64, 128, 256, 320, 320), 27, 8) + 32 * 4 + 4,
    "bert-base-squad": bert(12, 768) + dense(768, 2),
    "bert-large-squad": bert(24, 1024) + dense(1024, 2),
    "bert-base-names": bert(12, 768) + dense(768, 3),
    "bert-base-sentiment": bert(12, 768) + dense(768, 768) + dense(768, 2),
    "electra-base": electra(),
    "gnmt": gnmt(),
    "transformer-xl-base": 267_735 * 512 + transformer_xl(16, 512, 8, 3),
    "transformer-xl-large": narrow_words() + transformer_xl(18, 1024, 16, 3),
    "transformer-xl-base-full": 267_735 * 512 + transformer_xl(16, 512, 8, 0),
    "transformer-xl-large-full": 267_735 * 1024 + transformer_xl(18, 1024, 16, 0),
    "small-transformer": small_transformer(),
    "tacotron2": tacotron2(),
    "waveglow": waveglow(),
    "hifigan": hifigan(),
    "fastspeech": fastspeech(2, pitch=False),
    "fastpitch": fastspeech(1, pitch=True),
    "jasper": jasper(),
    "quartznet": quartznet(),
    "deepspeech2": deepspeech2(),
    "ncf": ncf(),
    "dlrm-small": dlrm(),
    "wide-and-deep": wide_and_deep(),
    "vae-cf": vae_cf(),
    "tft-electricity": tft(369),
    "tft-traffic": tft(963),
}
