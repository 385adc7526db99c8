"""What each source of ``throughput/*.csv`` leaves to its README: software, arithmetic, optimizer, traps."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from predictor.calibrate.case import Bytes, RowError
from predictor.calibrate.models import Choice, is_named, named, timm, torchvision
from predictor.calibrate.readers import deep_learning_examples, language, zeus
from predictor.calibrate.rows import Row, whole
from predictor.units import GIB, GIGA

Batches = tuple[int | None, int | None, int | None]


def _nothing(row: Row) -> None:
    """No trap."""


def _none(row: Row) -> None:
    """Not known from the row."""


def _unmeasured(row: Row, choice: Choice, batch: int) -> float | None:
    """The generic columns say it."""
    return None


def _columns(row: Row) -> Batches:
    return whole(row, "micro_batch"), whole(row, "global_batch"), whole(row, "grad_accum")


def _by_name(row: Row) -> Choice:
    """A model known by its name, else by published sizes."""
    if is_named(row["source"], row["model"]):
        return named(row["source"], row["model"])
    return language.choose(row)


def _pytorch_tf32(row: Row) -> bool:
    """PyTorch 1.7 to 1.11 for everything, later releases for convolutions; containers always."""
    return bool(re.search(r"NGC|1\.(7|8|9|1\d)|2\.|zeus", row["framework"], re.IGNORECASE))


@dataclass(frozen=True, slots=True)
class Source:
    """How the rows of one source are read where its columns alone do not say it.

    choose          the model
    check           raises RowError for rows that the source's notes call unusable
    batches         micro-batch, global batch, gradient accumulation
    accelerator     words of the accelerator
    arithmetic      words of the precision
    software        words of the framework
    automatic_tf32  whether "fp32" runs on matrix units that have tf32
    optimizer       words of the optimizer, None for the model's own
    step_s          measured step where the generic columns do not hold it [s]
    watt            measured mean board power of one accelerator [W]
    limit_w         power limit of the row [W]
    channels_last   layout of images
    pinned          n_params is a count of the very model
    repeats         equal jobs are repeats on several hosts: one case, their median
    zero            sharding where the column is empty
    bytes           what peak_mem_gb counts, in ``memory_unit`` bytes
    """

    choose: Callable[[Row], Choice] = _by_name
    check: Callable[[Row], None] = _nothing
    batches: Callable[[Row], Batches] = _columns
    accelerator: Callable[[Row], str] = lambda row: row["accelerator"]
    arithmetic: Callable[[Row], str] = lambda row: row["precision"]
    software: Callable[[Row], str] = lambda row: row["framework"]
    automatic_tf32: Callable[[Row], bool] = _pytorch_tf32
    optimizer: Callable[[Row], str | None] = _none
    step_s: Callable[[Row, Choice, int], float | None] = _unmeasured
    watt: Callable[[Row, int], float | None] = lambda row, count: None
    limit_w: Callable[[Row], float | None] = _none
    channels_last: Callable[[Row], bool] = lambda row: False
    pinned: bool = False
    repeats: bool = False
    zero: int = 0
    bytes: Bytes = "device"
    memory_unit: float = GIGA


def _one_process(row: Row) -> None:
    if whole(row, "n_accel") != 1:
        raise RowError("method", "nn.DataParallel: one process scatters to all accelerators")


def _lambda_traps(row: Row) -> None:
    count = whole(row, "n_accel") or 1
    if row["model"] == "NCF" and count > 1:
        raise RowError("flagged", "NCF on several accelerators jumps 10 to 50 times between hosts")
    if row["model"].endswith("SQuAD finetune") and count == 8 and row["notes"].startswith("v1"):
        raise RowError("flagged", "superlinear speed of BERT on 8 accelerators in v1")


def _parameter_server(row: Row) -> None:
    if "distributed" in row["notes"]:
        raise RowError("method", "parameter servers over ethernet")


def _consumer_traps(row: Row) -> None:
    if "PEAK" in row["notes"] and row["model"] == "BERTLarge" and not row["seq_len"]:
        raise RowError("shapes", "sequence length is not published")


def _mlperf_traps(row: Row) -> None:
    if row["model"] == "Minigo":
        raise RowError("method", "reinforcement learning: self-play takes most of the time")


def _mlperf_arithmetic(row: Row) -> str:
    """As published, else what submissions use: half precision, 8 bit for BERT on an H100 and later."""
    if row["precision"]:
        return row["precision"]
    chip = row["accelerator"]
    if chip.startswith(("TPU", "Gaudi")):
        return "bf16"
    if row["model"].startswith("BERT") and re.match(r"H100|H200|B200|GB200|B300|GB300", chip):
        return "fp8"
    return "amp_fp16"


def _mlperf_software(row: Row) -> str:
    """Submissions run on captured graphs and fused kernels, or on XLA."""
    return "xla" if row["accelerator"].startswith(("TPU", "Gaudi", "IPU")) else "Megatron"


def _nanogpt(row: Row) -> None:
    raise RowError("definition", "the network changes with each record; its code is in the log")


_CONSUMER = {"resnet50": "ResNet50"}

SOURCES: dict[str, Source] = {
    "timm_train": Source(
        choose=lambda row: timm(row["model"]),
        channels_last=lambda row: "channels_last" in row["notes"],
        pinned=True,
    ),
    "timm_infer": Source(choose=lambda row: timm(row["model"]), pinned=True),
    "torchvision_ryujaehun": Source(choose=lambda row: torchvision(row["model"]), check=_one_process),
    "u39kun": Source(choose=lambda row: torchvision(row["model"])),
    "lambda_dlbench": Source(check=_lambda_traps, repeats=True, memory_unit=GIB),
    "tensorflow_2017": Source(check=_parameter_server),
    "apple_consumer": Source(
        check=_consumer_traps,
        choose=lambda row: named("apple_consumer", _CONSUMER.get(row["model"], row["model"])),
        arithmetic=lambda row: "amp_fp16" if "3090" in row["precision"] else "fp32",
        optimizer=lambda row: "adam",
        automatic_tf32=lambda row: True,
    ),
    "zeus_power_traces": Source(
        accelerator=zeus.accelerator,
        optimizer=zeus.optimizer,
        step_s=zeus.step_s,
        watt=zeus.watt,
        limit_w=zeus.limit_w,
    ),
    "nvidia_deeplearningexamples": Source(
        choose=deep_learning_examples.choose,
        batches=deep_learning_examples.batches,
        arithmetic=deep_learning_examples.arithmetic,
        step_s=deep_learning_examples.step_s,
        software=deep_learning_examples.software,
        automatic_tf32=lambda row: False,
    ),
    "modded_nanogpt": Source(check=_nanogpt),
    "torchtitan": Source(bytes="reserved", memory_unit=GIB),
    "nemo_megatron_bridge": Source(zero=1, software=lambda row: "Megatron"),
    "nvidia_dgxc": Source(zero=1),
    "bigscience": Source(optimizer=lambda row: "adam"),
    "mlperf_training": Source(check=_mlperf_traps, arithmetic=_mlperf_arithmetic, software=_mlperf_software),
}
