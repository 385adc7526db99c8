"""Training times of convolutional networks in ``nas/``: PROFET, pycls, detectron2, small images, EC-NAS."""

import json
import re
from functools import partial
from typing import Any

from predictor.calibrate.case import Case, Refused, RowError
from predictor.calibrate.hardware import accelerator_id
from predictor.calibrate.models import Choice, timm, torchvision, zoo
from predictor.calibrate.readers.format import Format, each_row
from predictor.calibrate.rows import Row, number, whole
from predictor.job import Job
from predictor.units import GIGA, HOUR
from predictor.zoo.cells import bench101
from predictor.zoo.small_images import preact, shake_shake

_KERAS = {
    "LeNet5": "lenet5-keras",
    "MNIST_CNN": "mnist-cnn-keras",
    "CIFAR10_CNN": "cifar10-cnn-keras",
    "AlexNet": "alexnet-keras",
    "VGG11": "vgg11-keras",
    "VGG13": "vgg13-keras",
    "VGG16": "vgg16-keras",
    "VGG19": "vgg19-keras",
    "ResNet18": "resnet18-v2-keras",
    "ResNet34": "resnet34-v2-keras",
    "ResNet50": "resnet50-v2-keras",
    "ResNetSmall": "resnet-small-keras",
}


def _profet(row: Row, place: str) -> Case | Refused:
    """TensorFlow 2.5 with Keras networks, one accelerator of a cloud instance, float32, SGD."""
    name = row["model"]
    if name in _KERAS:
        choice = zoo(_KERAS[name], family=name)
    elif name == "MobileNetV2":
        choice = torchvision("mobilenet_v2")
    elif name == "InceptionV3":
        choice = timm("inception_v3")
    elif name == "InceptionResNetV2":
        choice = timm("inception_resnet_v2")
    else:
        raise RowError("definition", f"'{name}'")
    batch, step_s = whole(row, "batchsize"), number(row, "batch_latency_s")
    if batch is None or step_s is None:
        raise RowError("measurement", "no batch or no time")
    fields = {"image_size": whole(row, "image_px"), "optimizer": row["optimizer"].lower()}
    return _one("profet_aws", place, choice, row["gpu"], batch, step_s, stack="eager-1", **fields)


def _one(
    name: str, place: str, choice: Choice, device: str, batch: int, step_s: float, **fields: Any
) -> Case:
    """A case on one accelerator."""
    accelerator = accelerator_id(device)
    job = Job(model=choice.model, hardware=accelerator, count=1, batch_size=batch, **fields)
    return Case(name, place, "step", job, choice.family, accelerator, samples=batch, step_s=step_s)


_IMAGENET = 1_281_167


def _pycls(row: Row, place: str) -> Case | Refused:
    """100 epochs of ImageNet on eight V100 16 GB, PyTorch 1.6, float32."""
    size = row["model"].replace("-", "_").replace(".", "").casefold()
    found = re.match(r"(regnet[xy]|resnet|resnext|efficientnet)_(.+)", size)
    if not found:
        raise RowError("definition", f"'{row['model']}'")
    choice = _pycls_model(row["model"])
    batch, hours = whole(row, "batch_8gpu"), number(row, "train_hr_100ep_8xV100")
    if batch is None or hours is None:
        raise RowError("measurement", "no batch or no time")
    arch = json.loads(row["arch"]) if row["arch"] else {}
    accelerator = accelerator_id("V100-SXM2-16GB")
    job = Job(
        model=choice.model,
        hardware=accelerator,
        count=8,
        batch_size=batch,
        image_size=int(arch.get("IM_SIZE", 224)),
        precision="fp32",
        stack="eager-1",
        optimizer="sgd",
    )
    steps = 100 * (_IMAGENET // batch)
    count = number(row, "exact_params")
    return Case(
        "pycls_zoo",
        place,
        "step",
        job,
        choice.family,
        accelerator,
        samples=batch,
        step_s=hours * HOUR / steps,
        parameters=count,
    )


def _pycls_model(name: str) -> Choice:
    """timm's name of a network of pycls: RegNetX-1.6GF is regnetx_016."""
    regnet = re.match(r"RegNet([XY])-([\d.]+)([MG])F", name)
    if regnet:
        hundreds = float(regnet[2]) * (10 if regnet[3] == "G" else 0.01)
        return timm(f"regnet{regnet[1].lower()}_{round(hundreds):03d}")
    plain = (
        name.replace("ResNeXt-", "resnext")
        .replace("ResNet-", "resnet")
        .replace("EfficientNet-", "efficientnet_")
    )
    if plain.startswith("resnext"):
        plain += "_32x4d"
    return timm(plain.casefold())


_DETECTORS = {
    "faster_rcnn_R_50_FPN": "fasterrcnn_resnet50_fpn",
    "mask_rcnn_R_50_FPN": "maskrcnn_resnet50_fpn",
    "retinanet_R_50_FPN": "retinanet_resnet50_fpn",
    "keypoint_rcnn_R_50_FPN": "keypointrcnn_resnet50_fpn",
}


def _detectron(row: Row, place: str) -> Case | Refused:
    """Sixteen images on eight V100 16 GB, torchvision's equivalents of four networks."""
    stem = re.sub(r"_[139]x.*$", "", row["config"].rpartition("/")[2].removesuffix(".yaml"))
    if stem not in _DETECTORS or not re.search(r"_[13]x\.yaml$", row["config"]) or "LVIS" in row["config"]:
        raise RowError("definition", f"'{stem}' has no equivalent in torchvision")
    choice = torchvision(_DETECTORS[stem])
    accelerator = accelerator_id("V100-SXM2-16GB")
    step_s, peak = number(row, "train_s_per_iter"), number(row, "train_mem_GB")
    job = Job(
        model=choice.model,
        hardware=accelerator,
        count=8,
        batch_size=16,
        precision="fp32",
        stack="eager-1",
        optimizer="sgd",
    )
    return Case(
        "detectron2_zoo",
        place,
        "step",
        job,
        choice.family,
        accelerator,
        samples=16,
        step_s=step_s,
        peak_byte=None if peak is None else peak * GIGA,
        bytes="allocated",
    )


# Training images, side and channels: CIFAR-10, and the MNISTs.
_SMALL_IMAGES = {"CIFAR-10": (50_000, 32, 3), "MNIST": (60_000, 28, 1)}


def _small_images(row: Row, place: str) -> Case | Refused:
    """Whole runs of small-image networks, one GTX 1080 Ti, float32, SGD."""
    images, side, channels = _SMALL_IMAGES["CIFAR-10" if row["dataset"] == "CIFAR-10" else "MNIST"]
    if "Dual-Cutout" in row["model"]:
        raise RowError("method", "Dual-Cutout feeds every image twice")
    batch = int(number(row, "batch") or 128)
    epochs, run_s = number(row, "epochs"), number(row, "train_s")
    if epochs is None or run_s is None:
        raise RowError("measurement", "no epochs or no time")
    accelerator = accelerator_id(row["gpu"])
    job = Job(
        model=_small_network(row, channels),
        inputs=[f"float32[B,{channels},{side},{side}]"],
        hardware=accelerator,
        count=1,
        batch_size=batch,
        optimizer="sgd",
        stack="eager-1",
    )
    step_s = run_s / (epochs * -(-images // batch))
    return Case("hysts_cifar", place, "step", job, row["base"], accelerator, samples=batch, step_s=step_s)


def _small_network(row: Row, channels: int) -> partial[Any]:
    """The network of a name such as "ResNet-preact-20, widening factor 4" or "shake-shake-26 2x96d"."""
    plain = re.match(r"ResNet-preact-(\d+)(?:, widening factor (\d+))?", row["model"])
    if plain:
        return partial(preact, int(plain[1]), 16 * int(plain[2] or 1), channels)
    shaken = re.match(r"shake-shake-(\d+) 2x(\d+)d", row["model"])
    if shaken:
        return partial(shake_shake, int(shaken[1]), int(shaken[2]), channels)
    raise RowError("definition", f"'{row['base']}'")


def _bench101(row: Row, place: str) -> Case | Refused:
    """Four epochs of CIFAR-10 at batch 256, one Quadro RTX 6000; 40,000 images are trained on."""
    graphs, operators = json.loads(row["candidate_adjacency"]), json.loads(row["candidate_ops"])
    if whole(row, "n_candidate_graphs") != 1:
        raise RowError("ambiguous", f"{row['n_candidate_graphs']} cells have this number of parameters")
    run_s, count = number(row, "train_time_4ep_s"), number(row, "params")
    if run_s is None:
        raise RowError("measurement", "no time")
    edges = tuple(tuple(int(edge) for edge in line) for line in graphs[0])
    model = partial(bench101, edges, tuple(operators[0]))
    accelerator = accelerator_id("Quadro RTX 6000")
    job = Job(
        model=model,
        inputs=["float32[B,3,32,32]"],
        hardware=accelerator,
        count=1,
        batch_size=256,
        optimizer="sgd",
        stack="eager-1",
    )
    steps = 4 * -(-40_000 // 256)
    return Case(
        "ecnas_4v",
        place,
        "step",
        job,
        row["arch_id"],
        accelerator,
        samples=256,
        step_s=run_s / steps,
        parameters=count,
    )


FORMATS = (
    Format(
        "profet_aws",
        frozenset("gpu model image_px optimizer batchsize batch_latency_s".split()),
        each_row("profet_aws", _profet),
    ),
    Format(
        "pycls_zoo",
        frozenset("model batch_8gpu train_hr_100ep_8xV100 exact_params arch".split()),
        each_row("pycls_zoo", _pycls, count=8),
    ),
    Format(
        "detectron2_zoo",
        frozenset("config lr_sched train_s_per_iter train_mem_GB".split()),
        each_row("detectron2_zoo", _detectron, count=8),
    ),
    Format(
        "hysts_cifar",
        frozenset("dataset gpu model batch epochs train_s base".split()),
        each_row("hysts_cifar", _small_images),
    ),
    Format(
        "ecnas_4v",
        frozenset(
            "arch_id params train_time_4ep_s n_candidate_graphs candidate_adjacency candidate_ops".split()
        ),
        each_row("ecnas_4v", _bench101),
    ),
)
