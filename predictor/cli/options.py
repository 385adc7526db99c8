"""The options of a job, one table: each is named after its field of ``Job``, with ``-`` for ``_``."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from predictor.cli.guard import guarded

Model = Annotated[
    str,
    typer.Argument(
        help="zoo:NAME, timm:NAME, torchvision:NAME, file.py:factory, package.module:factory, a Hugging Face "
        "config.json, model.onnx, program.pt2, jax:file.py:loss, or a job file job.toml. A model given as "
        "Python runs that code.",
        metavar="MODEL",
        show_default=False,
    ),
]
Form = Annotated[
    str | None,
    typer.Option(
        "--format", metavar="table|json|markdown|html", help="Default: by the suffix of -o, else table."
    ),
]
PlainForm = Annotated[str | None, typer.Option("--format", metavar="table|json", help="Default: table.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write the result into FILE, whole or not at all."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace FILE when it exists.")]
AllowCode = Annotated[
    bool, typer.Option("--allow-code", help="Let a job file name a model in Python, whose code is then run.")
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Record the model anew; keep nothing on disk.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only errors on stderr.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show library warnings, timings and tracebacks.")
]

PRECISIONS = "fp32|tf32|fp16|bf16|amp-fp16|amp-bf16|fp8"
# field of Job -> (type, metavar, help), in the order of Job
OPTIONS: dict[str, tuple[Any, str, str]] = {
    "hardware": (
        str,
        "ID",
        "Accelerator, node, instance or TPU slice: h100, '8x h100', aws:p5.48xlarge, v3-8, my.toml.",
    ),
    "count": (int, "N", "Number of accelerators, or of the node, pod or instance named. Default: 1."),
    "nodes": (int, "N", "Nodes in all."),
    "profile": (
        str,
        "FILE",
        "Profile of an accelerator of your own; known by its names, in place of others.",
    ),
    "precision": (str, PRECISIONS, "Type of the arithmetic. Default: fp32."),
    "stack": (str, "ID", "Software stack. Default: the usual one of the accelerator."),
    "memory_format": (str, "contiguous|channels-last", "Layout of images. Default: contiguous."),
    "batch_size": (int, "N", "Samples of one optimizer step over all accelerators."),
    "micro_batch": (int, "N", "Samples one data-parallel rank works on at a time."),
    "seq_len": (int, "N", "Tokens of one sample."),
    "image_size": (int, "N", "Side of an image in pixels."),
    "inputs": (
        list[str],
        "NAME:DTYPE[SIZES]",
        "A model input: ids:int64[8,1024], or B, S, P as sizes. Repeatable.",
    ),
    "dims": (list[str], "NAME=SIZE", "A symbolic axis of an ONNX or .pt2 file. Repeatable."),
    "optimizer": (str, "sgd|adam|adamw|adafactor|lion|none", "Default: adamw."),
    "mode": (str, "train|infer", "Default: train."),
    "steps": (str, "COUNT", "Length of the run in optimizer steps; counts as 20e9, 300B."),
    "samples": (str, "COUNT", "Length of the run in samples."),
    "tokens": (str, "COUNT", "Length of the run in tokens."),
    "epochs": (float, "E", "Length of the run in passes over the dataset."),
    "dataset_size": (str, "COUNT", "Samples of the dataset, with --epochs."),
    "dp": (int, "N", "Data parallel size. Default: what the other sizes leave."),
    "tp": (int, "N", "Tensor parallel size."),
    "pp": (int, "N", "Pipeline parallel size."),
    "ep": (int, "N", "Expert parallel size, divides the data parallel size."),
    "cp": (int, "N", "Context parallel size."),
    "zero": (int, "0|1|2|3", "ZeRO stage: what data-parallel ranks share out."),
    "recompute": (str, "none|selective|full", "Activations computed again in the backward pass."),
    "region": (str, "ID", "Where it runs, for carbon and water: france, us-ca, aws:us-east-1."),
    "pue": (float, "X", "Facility energy over IT energy, 1 or more."),
    "price": (float, "USD", "Dollars per accelerator and hour."),
    "strict": (bool, "", "Stop when an operator has no formula."),
}
READING = (
    "precision",
    "memory_format",
    "batch_size",
    "micro_batch",
    "seq_len",
    "image_size",
    "inputs",
    "dims",
    "mode",
    "strict",
)


def flag(field: str) -> str:
    """The option of a field of Job."""
    singular = {"inputs": "--input", "dims": "--dim", "aliases": "--alias"}  # repeated, one value each time
    return singular.get(field, "--" + field.replace("_", "-"))


def with_options(
    names: Iterable[str], options: Mapping[str, tuple[Any, str, str]] = OPTIONS
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command those ``options``, which reach it as ``**fields``, and guard it."""
    added = [_parameter(name, *options[name]) for name in names]

    def add(command: Callable[..., None]) -> Callable[..., None]:
        run = guarded(command)
        signature = inspect.signature(command)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        required = [p for p in own if p.default is p.empty]
        optional = [p for p in own if p.default is not p.empty]
        run.__signature__ = signature.replace(parameters=required + added + optional)  # type: ignore[attr-defined]
        return run

    return add


def _parameter(name: str, kind: Any, metavar: str, text: str) -> inspect.Parameter:
    """One option as typer reads it off a signature; None (False for a flag) means not given."""
    annotation: Any = Annotated[bool, typer.Option(flag(name), help=text)]
    if kind is not bool:
        option = typer.Option(flag(name), metavar=metavar, help=text, show_default=False)
        annotation = Annotated[kind | None, option]
    default = False if kind is bool else None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
