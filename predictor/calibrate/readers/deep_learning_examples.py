"""NVIDIA DeepLearningExamples: tables of README files, read by the column's own heading in ``notes``.

Sizes that the rows leave away are those of the example's scripts in that repository.
"""

import re
from collections.abc import Callable

from predictor.calibrate.case import RowError
from predictor.calibrate.models import LJSPEECH_FRAMES, Choice, timm, torchvision, zoo
from predictor.calibrate.rows import Row, number, whole

_LAMB = "lamb"
_SEGMENT_FRAMES = 8192 / 256  # HiFi-GAN trains on segments of 8192 samples, 256 to a frame


def _column(row: Row) -> str:
    found = re.search(r"col=([^;]*)", row["notes"])
    return found[1] if found else ""


def arithmetic(row: Row) -> str:
    """Words of the precision: the column's heading, which the precision column copies wrongly at times."""
    heading = _column(row).casefold()
    for word, precision in (("mixed", "amp_fp16"), ("amp", "amp_fp16"), ("tf32", "tf32"), ("fp32", "fp32")):
        if word in heading:
            return precision
    return row["precision"]


def software(row: Row) -> str:
    """Words of the framework, with XLA where the column or the row says so."""
    xla = "+ XLA" in row["notes"] or re.search(r"XLA=(Yes|ON)", row["notes"])
    return f"{row['framework']} {'xla' if xla else ''}"


# Batch of one V100 or A100, where the tables give none: PyTorch/Classification/ConvNets/configs.yml and
# MxNet/Classification/RN50v1.5/README (from memory).
_BATCH = {
    ("Classification/ConvNets/resnet50v1.5", "PyTorch", "amp_fp16"): 256,
    ("Classification/ConvNets/resnet50v1.5", "PyTorch", "fp32"): 128,
    ("Classification/ConvNets/resnext101-32x4d", "PyTorch", "amp_fp16"): 128,
    ("Classification/ConvNets/resnext101-32x4d", "PyTorch", "fp32"): 64,
    ("Classification/RN50v1.5", "MxNet", "amp_fp16"): 192,
    ("Classification/RN50v1.5", "MxNet", "fp32"): 96,
}


def batches(row: Row) -> tuple[int | None, int | None, int | None]:
    """Micro-batch, global batch and accumulation.

    The batch cell of some tables holds one batch for each precision; the batch of the first
    PyTorch BERT table is that of a whole optimizer step.
    """
    micro, repeats = whole(row, "micro_batch"), whole(row, "grad_accum")
    count = whole(row, "n_accel") or 1
    if micro is not None and repeats and row["framework"] == "PyTorch":
        return micro // repeats, micro * count, repeats
    if micro is not None and row["model"] == "Recommendation/DLRM":
        return micro * 1024, None, repeats  # written as 64k
    if micro is not None:
        return micro, None if repeats else whole(row, "global_batch"), repeats
    cell = re.search(r"batch cell: (\d+) \((\w+)\) / (\d+) \((\w+)\)", row["notes"])
    if cell:
        return int(cell[3] if arithmetic(row) == "amp_fp16" else cell[1]), None, None
    sizes = re.search(r"batch cell: (\d+)/(\d+)", row["notes"])
    if sizes and row["model"] != "Translation/Transformer":
        return int(sizes[1] if arithmetic(row) == "amp_fp16" else sizes[2]), None, None
    known = _BATCH.get((row["model"], row["framework"].split()[0], arithmetic(row)))
    if known is None:
        raise RowError("batch", "the table gives none")
    return known, None, None


def _efficientnet(row: Row) -> Choice:
    found = re.search(r"Model=efficientnet-(?:widese-)?(b\d)", row["notes"])
    if not found:
        raise RowError("ambiguous", "the row does not say which EfficientNet")
    side = {"b0": 224, "b4": 380}.get(found[1], 224)
    return timm(f"efficientnet_{found[1]}", image=side, optimizer="rmsprop")


def _ssd(row: Row) -> Choice:
    name = "ssd320-resnet50-fpn" if row["framework"].startswith("TensorFlow") else "ssd300-resnet50"
    return zoo(name)


def _bert(row: Row) -> Choice:
    if row["seq_len"]:
        return zoo("bert-large", optimizer=_LAMB, plain=True)
    return zoo("bert-large-squad", sequence=384, optimizer="adam", plain=True)


def _transformer_xl(row: Row) -> Choice:
    if "Base model" in row["model_hparams"]:
        return zoo("transformer-xl-base", sequence=192, units=192, optimizer=_LAMB)
    if "Large model" in row["model_hparams"]:
        return zoo("transformer-xl-large", sequence=384, units=384, optimizer=_LAMB)
    raise RowError("ambiguous", "the row does not say which Transformer-XL")


def _fusion_transformer(row: Row) -> Choice:
    return zoo("tft-traffic" if "Traffic" in row["notes"] else "tft-electricity", optimizer="adam")


def _recommender(row: Row) -> Choice:
    """DLRM updates the rows of its tables that a batch touched, which costs next to nothing."""
    if (whole(row, "n_accel") or 1) > 1:
        raise RowError("method", "embedding tables are divided over the accelerators")
    return zoo("dlrm-small", optimizer="none")


def _nnunet(row: Row) -> Choice:
    sides = "3d" if "Dimension=3" in row["notes"] else "2d"
    return zoo(f"nnunet-{sides}", optimizer="adam")


def _refuse(code: str, detail: str) -> Callable[[Row], Choice]:
    def choose_none(row: Row) -> Choice:
        raise RowError(code, detail)

    return choose_none


_MODELS: dict[str, Callable[[Row], Choice]] = {
    "Classification/ConvNets/resnet50v1.5": lambda row: torchvision("resnet50", image=224),
    "Classification/RN50v1.5": lambda row: torchvision("resnet50", image=224),
    "Classification/ConvNets/resnext101-32x4d": lambda row: timm("resnext101_32x4d", image=224),
    "Classification/ConvNets/se-resnext101-32x4d": lambda row: timm("seresnext101_32x4d", image=224),
    "Classification/ConvNets/efficientnet": _efficientnet,
    "Classification/ConvNets/efficientnet_v1": _efficientnet,
    "Classification/ConvNets/efficientnet_v2": _refuse("batch", "the table gives none"),
    "Detection/SSD": _ssd,
    "Detection/Efficientdet": lambda row: zoo("efficientdet-d0", image=512),
    "Segmentation/MaskRCNN": lambda row: torchvision("maskrcnn_resnet50_fpn"),
    "Segmentation/UNet_Medical": lambda row: zoo("unet-medical", optimizer="adam"),
    "Segmentation/UNet_Industrial": lambda row: zoo("unet-industrial", optimizer="rmsprop"),
    "Segmentation/UNet_3D_Medical": lambda row: zoo("unet3d-medical", optimizer="adam"),
    "Segmentation/VNet": lambda row: zoo("vnet", optimizer="rmsprop"),
    "Segmentation/nnUNet": _nnunet,
    "SpeechRecognition/Jasper": lambda row: zoo("jasper", optimizer="adam"),
    "SpeechRecognition/QuartzNet": lambda row: zoo("quartznet", optimizer="adam"),
    "SpeechSynthesis/HiFiGAN": lambda row: zoo("hifigan", units=_SEGMENT_FRAMES, optimizer="adamw"),
    "SpeechSynthesis/FastPitch": lambda row: zoo("fastpitch", units=LJSPEECH_FRAMES, optimizer=_LAMB),
    "FastSpeech": lambda row: zoo("fastspeech", units=LJSPEECH_FRAMES, optimizer="adam"),
    "LanguageModeling/BERT": _bert,
    "LanguageModeling/BERT/biobert": lambda row: zoo("bert-base-names", optimizer="adam"),
    "LanguageModeling/ELECTRA": lambda row: zoo("electra-base", optimizer=_LAMB),
    "LanguageModeling/Transformer-XL": _transformer_xl,
    "Translation/Transformer": lambda row: zoo("transformer-big-fairseq", optimizer="adam"),
    "Translation/GNMT": lambda row: zoo("gnmt", optimizer="adam"),
    "Recommendation/NCF": lambda row: zoo("ncf", optimizer="adam"),
    "Recommendation/DLRM": _recommender,
    "Recommendation/WideAndDeep": lambda row: zoo("wide-and-deep", optimizer="adam"),
    "Recommendation/SIM": _refuse("batch", "the table gives none"),
    "Recommendation/VAE-CF": lambda row: zoo("vae-cf", optimizer="adam"),
    "Forecasting/TFT": _fusion_transformer,
    "DrugDiscovery/SE3Transformer": _refuse("definition", "its sizes depend on the molecules of the batch"),
}


def choose(row: Row) -> Choice:
    """The model of the example in this folder."""
    make = _MODELS.get(row["model"])
    if make is None:
        raise RowError("definition", f"'{row['model']}'")
    return make(row)


def step_s(row: Row, choice: Choice, batch: int) -> float | None:
    """Seconds of one optimizer step from the throughput in the example's own unit."""
    speed = number(row, "throughput")
    if speed is None:
        return None
    if row["model"] == "Recommendation/NCF":
        speed *= 1e6 if speed < 1e4 else 1  # printed in millions
    return batch * choice.units / speed
