"""Models as tables name them, as the model of a job."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from predictor.calibrate.case import RowError
from predictor.zoo import ZOO


@dataclass(frozen=True, slots=True)
class Choice:
    """A model, and what its rows leave unsaid.

    model      as ``Job.model`` takes it
    family     models that stay on one side of a split
    image      side of the images where the row gives none [pixels]
    sequence   tokens where the row gives none
    units      what the throughput counts in one sample: 1, or its tokens, frames or audio samples
    optimizer  where the row gives none
    plain      its code writes attention scores to memory, whatever the framework could do
    """

    model: str | Callable[[], Any]
    family: str
    image: int | None = None
    sequence: int | None = None
    units: float = 1.0
    optimizer: str = "sgd"
    plain: bool = False


def zoo(name: str, family: str = "", **known: Any) -> Choice:
    """A model of the zoo; RowError "definition" while the zoo has none of this name."""
    if name not in ZOO:
        raise RowError("definition", f"zoo:{name} is not defined")
    return Choice(f"zoo:{name}", family or family_of(name), **known)


def torchvision(name: str, **known: Any) -> Choice:
    """A model of torchvision; recording it says when there is none of this name."""
    return Choice(f"torchvision:{name}", family_of(name), **known)


def timm(name: str, **known: Any) -> Choice:
    """A model of timm under the name it has today; RowError "definition" when timm has dropped it."""
    found = _timm_name(name)
    if found is None:
        raise RowError("definition", f"timm has no '{name}' any more")
    return Choice(f"timm:{found}", family_of(name), **known)


# Names that timm's own list of renamed models answers with another size.
_TIMM_SIZES = {
    "ig_resnext101_32x16d": "resnext101_32x16d.fb_wsl_ig1b_ft_in1k",
    "ig_resnext101_32x32d": "resnext101_32x32d.fb_wsl_ig1b_ft_in1k",
    "ig_resnext101_32x48d": "resnext101_32x48d.fb_wsl_ig1b",
}


@cache
def _timm_name(name: str) -> str | None:
    """Today's name of a timm model, by timm's own list of renamed ones."""
    from predictor.frontends.torch_vision import import_vision

    library = import_vision("timm")
    known = set(library.list_models())
    if name.partition(".")[0] in known:
        return name
    renamed: dict[str, str | None] = library.models._registry._deprecated_models
    found = _TIMM_SIZES.get(name) or renamed.get(name)
    tagged = set(library.list_models(pretrained=True))
    if found is None or found in tagged:
        return found
    plain = found.partition(".")[0]
    return plain if plain in known else None


_PREFIXES = re.compile(r"^(tf|ssl|swsl|ig|gluon|legacy|adv|ens|ese|eca|dla|cs3)_?(?=[a-z])")


def family_of(name: str) -> str:
    """Leading letters of a model's name, without the prefixes of ports and training recipes.

    >>> [family_of(n) for n in ("tf_efficientnet_b0", "swsl_resnext50_32x4d", "vit_base_patch16_224")]
    ['efficientnet', 'resnext', 'vit']
    """
    folded = name.casefold()
    if not folded.startswith(("cs3", "dla", "ecaresnet")):
        folded = _PREFIXES.sub("", folded)
    letters = re.match(r"[a-z]+", folded)
    return letters[0] if letters else folded


_ADAM: dict[str, Any] = {"optimizer": "adam"}
# LJSpeech clips hold 6.57 s on average, 22,050 samples a second, one mel frame every 256 samples.
LJSPEECH_FRAMES = 6.57 * 22050 / 256

# (table, model) -> how to make the choice; a table "" holds for every table that has no entry of its own.
_NAMED: dict[tuple[str, str], Callable[[], Choice]] = {
    ("lambda_dlbench", "ResNet-50 v1.5"): lambda: zoo("resnet50"),
    ("lambda_dlbench", "SSD300-ResNet50"): lambda: zoo("ssd300-resnet50"),
    ("lambda_dlbench", "BERT-base SQuAD finetune"): lambda: zoo(
        "bert-base-squad", sequence=384, plain=True, **_ADAM
    ),
    ("lambda_dlbench", "BERT-large SQuAD finetune"): lambda: zoo(
        "bert-large-squad", sequence=384, plain=True, **_ADAM
    ),
    ("lambda_dlbench", "NCF"): lambda: zoo("ncf", **_ADAM),
    ("lambda_dlbench", "Tacotron2"): lambda: zoo("tacotron2", units=LJSPEECH_FRAMES, **_ADAM),
    # segments of 8000 samples: DeepLearningExamples, SpeechSynthesis/Tacotron2, WaveGlow's default
    ("lambda_dlbench", "WaveGlow"): lambda: zoo("waveglow", units=8000, **_ADAM),
    ("lambda_dlbench", "Transformer-XL base"): lambda: zoo(
        "transformer-xl-base", sequence=192, units=192, optimizer="adamw"
    ),
    ("lambda_dlbench", "Transformer-XL large"): lambda: zoo(
        "transformer-xl-large", sequence=256, units=256, **_ADAM
    ),
    ("lambda_dlbench", "GNMT"): lambda: zoo("gnmt", **_ADAM),
    ("lambda_dlbench", "Mask R-CNN"): lambda: torchvision("maskrcnn_resnet50_fpn"),
    ("convnet_benchmarks_soumith", "AlexNet (One Weird Trick paper)"): lambda: torchvision("alexnet"),
    ("convnet_benchmarks_soumith", "GoogleNet V1"): lambda: zoo("googlenet-without-lrn"),
    ("convnet_benchmarks_soumith", "OxfordNet"): lambda: torchvision("vgg11"),
    ("convnet_benchmarks_soumith", "Overfeat"): lambda: zoo("overfeat", image=231),
    ("cnn_benchmarks_jcjohnson", "AlexNet"): lambda: zoo("alexnet"),
    ("cnn_benchmarks_jcjohnson", "Inception-V1"): lambda: zoo("googlenet"),
    ("cnn_benchmarks_jcjohnson", "ResNet-200"): lambda: zoo("resnet200-v2"),
    ("tensorflow_2017", "Inception-v3"): lambda: torchvision("inception_v3", image=299),
    ("aws_trainium", "HuggingFace BERT-Large Ph1 pre-training"): lambda: zoo("bert-large", optimizer="adamw"),
    ("aws_trainium", "HuggingFace BERT-Large Ph2 pre-training"): lambda: zoo("bert-large", optimizer="adamw"),
    ("mlperf_training", "BERT-large"): lambda: zoo("bert-large", optimizer="lamb"),
    ("mlperf_training", "Mask R-CNN ResNet50-FPN"): lambda: torchvision("maskrcnn_resnet50_fpn"),
    ("mlperf_training", "mask"): lambda: torchvision("maskrcnn_resnet50_fpn"),
    ("mlperf_training", "3D U-Net (nnU-Net style)"): lambda: zoo("unet3d-mlperf"),
    ("mlperf_training", "DLRM"): lambda: zoo("dlrm"),
    ("mlperf_training", "DLRM-DCNv2"): lambda: zoo("dlrm-dcnv2"),
    ("mlperf_training", "GNMT"): lambda: zoo("gnmt", **_ADAM),
    ("mlperf_training", "Stable Diffusion v2.0 (UNet)"): lambda: zoo("stable-diffusion-v2"),
    ("", "AlexNet"): lambda: torchvision("alexnet"),
    ("", "VGG-16"): lambda: torchvision("vgg16"),
    ("", "VGG-19"): lambda: torchvision("vgg19"),
    ("", "ResNet-18"): lambda: torchvision("resnet18"),
    ("", "ResNet-34"): lambda: torchvision("resnet34"),
    ("", "ResNet-50"): lambda: torchvision("resnet50"),
    ("", "ResNet-101"): lambda: torchvision("resnet101"),
    ("", "ResNet-152"): lambda: torchvision("resnet152"),
    ("", "ResNet-50 v1"): lambda: torchvision("resnet50"),
    ("", "ResNet-152 v1"): lambda: torchvision("resnet152"),
    ("", "ResNet-50 v1.5"): lambda: torchvision("resnet50", image=224),
    ("", "ResNet50"): lambda: torchvision("resnet50", image=224),
    ("", "MobileNetV2"): lambda: torchvision("mobilenet_v2", image=224),
    ("apple_consumer", "BERTLarge"): lambda: zoo("bert-large", sequence=128, **_ADAM),
    ("apple_consumer", "SmallTransformer"): lambda: zoo("small-transformer", sequence=200, **_ADAM),
    ("zeus_power_traces", "resnet50 on imagenet"): lambda: torchvision("resnet50"),
    ("zeus_power_traces", "shufflenetv2 on cifar100"): lambda: zoo("shufflenetv2-cifar100"),
    ("zeus_power_traces", "deepspeech2 on librispeech"): lambda: zoo("deepspeech2"),
    ("zeus_power_traces", "bert_base_uncased on squad"): lambda: zoo("bert-base-squad", sequence=384),
    ("zeus_power_traces", "bert_base_uncased on sentiment140"): lambda: zoo(
        # estimate: tweets of 140 characters at most, padded to the longest of a batch; power alone is scored
        "bert-base-sentiment",
        sequence=64,
    ),
    ("zeus_power_traces", "ncf on movielens-1m"): lambda: zoo("ncf-ml1m"),
}


def is_named(table: str, name: str) -> bool:
    """Whether this table's name of a model is listed here."""
    return (table, name) in _NAMED or ("", name) in _NAMED


def named(table: str, name: str) -> Choice:
    """The model that this table calls ``name``; RowError "definition" when nothing is known of it."""
    make = _NAMED.get((table, name)) or _NAMED.get(("", name))
    if make is None:
        raise RowError("definition", f"'{name}'")
    return make()
