"""What tables call software, arithmetic and optimizers, as the fields of a job."""

import re

from predictor.calibrate.case import RowError
from predictor.calibrate.hardware import find_accelerator

# First pattern that is found in "framework exec_mode" decides. Containers of NVIDIA by their month: 23.03 is
# the first with PyTorch 2. TensorFlow and MXNet launch kernel by kernel on cuDNN as PyTorch 1 does.
_STACKS: tuple[tuple[str, str], ...] = (
    (r"megatron|nemo|primus|dgxc|metaseq|neox|megascale|as in paper|meta\b", "megatron-fused"),
    (r"jax|maxtext|t5x|pax|xla|neuron|synapse|tf-metal", "xla"),
    (r"torchtitan .*eager", "eager-2"),
    (r"torchtitan|compiled|dynamo", "compiled-2"),
    (r"pytorch[^0-9]*(?:18|19|20)\.\d\d|torch[^0-9]*(?:0\.\d|1\.[0-7](?!\d))", "eager-1-early"),
    (r"pytorch[^0-9]*2[123]\.\d\d", "eager-1"),
    (r"pytorch ngc 2[4-9]|torch[^0-9]*2\.|nanogpt", "eager-2"),
    (r"torch[^0-9]*[01]\.|torch7|cudnn", "eager-1"),
    (r"composer", "eager-1"),
    (r"tensorflow|mxnet|caffe|chainer|theano|neon|keras", "eager-1"),
    (r"zeus|tf1|tf2", "eager-1"),
)
# Libraries without the maker's convolution kernels: own direct or FFT code, OpenCL, a processor.
_OTHER_KERNELS = re.compile(
    r"cudnn none|native|cuda-?convnet|fbfft|cl-nn|clgreentea|deepcl|theano|torch-7", re.IGNORECASE
)


def stack_of(framework: str, mode: str = "", default: str | None = None) -> str | None:
    """Software stack of a framework as a table writes it; ``default`` when nothing is known.

    Raises RowError "software" for libraries that do not use the maker's kernels.
    """
    if _OTHER_KERNELS.search(framework):
        raise RowError("software", framework)
    text = f"{framework} {mode}".casefold()
    return next((stack for pattern, stack in _STACKS if re.search(pattern, text)), default)


_PRECISIONS: tuple[tuple[str, str], ...] = (
    (r"^fp32", "fp32"),  # also "fp32 (TF32 on Ampere+ by container default)": see single_precision
    (r"fp64|float64", "fp64"),
    (r"nvfp4|mxfp4|fp4", "fp4"),
    (r"fp8", "fp8"),
    (r"tf32", "tf32"),
    (r"bf16 or fp16 mixed", "bf16"),
    (r"(amp|autocast)\W*bf16|amp_bf16|bf16 mixed", "amp-bf16"),
    (r"autocast|amp\b|amp_fp16|fp16 mixed", "amp-fp16"),
    (r"bf16", "bf16"),
    (r"fp16", "fp16"),
    (r"float32", "fp32"),
)


def precision_of(text: str) -> str:
    """Precision of a job, from a table's words; RowError "precision" for what is not predicted."""
    folded = text.casefold()
    found = next((name for pattern, name in _PRECISIONS if re.search(pattern, folded)), None)
    if found is None:
        raise RowError("precision", f"'{text}'" if text else "not published")
    if found in {"fp64", "fp4"}:
        raise RowError("precision", f"'{text}' is not predicted")
    return found


def single_precision(accelerator: str, automatic: bool) -> str:
    """What "fp32" ran as: tf32 where the chip has it and the framework uses it unasked, else fp32.

    NVIDIA containers from 20.06 and PyTorch 1.7 to 1.11 use it for products and convolutions, later PyTorch
    for convolutions.
    """
    profile = find_accelerator(accelerator)
    return (
        "tf32" if automatic and "tf32" in profile.peak_flop_per_s and profile.vendor == "NVIDIA" else "fp32"
    )


# Optimizers a job does not know, by the one that keeps as many values and passes over them as often.
_OPTIMIZERS = {
    "sgd": "sgd",
    "sgd momentum": "sgd",
    "momentum": "sgd",
    "nag": "sgd",
    "lars": "sgd",
    "lars/sgd": "sgd",
    "rmsprop": "sgd",
    "adagrad": "sgd",
    "adam": "adam",
    "adadelta": "adam",
    "lamb": "adamw",
    "adamw": "adamw",
    "adafactor": "adafactor",
    "lion": "lion",
    "none": "none",
}


def optimizer_of(text: str) -> str:
    """Optimizer of a job; RowError "method" when none is like it."""
    found = _OPTIMIZERS.get(text.strip().casefold())
    if found is None:
        raise RowError("method", f"optimizer '{text}'")
    return found


def sharding_of(text: str) -> int:
    """ZeRO stage of a table's words.

    >>> [sharding_of(t) for t in ("ZeRO-1", "FSDP FULL_SHARD mp=DEFAULT", "FSDP SHARD_GRAD_OP", "none")]
    [1, 3, 2, 0]
    """
    folded = text.casefold()
    stage = re.search(r"zero-?(\d)", folded)
    if stage:
        return int(stage[1])
    if "shard_grad_op" in folded:
        return 2
    return 3 if "fsdp" in folded and "fsdp=1" not in folded else 0


def recompute_of(text: str) -> str:
    """Recompute of a table's words: full, selective (also what keeps most values) or none."""
    folded = text.casefold()
    if folded.startswith("full"):
        return "full"
    return "selective" if re.match(r"selective|minimal|qkv|custom", folded) else "none"
