"""The question: what to train, on what, for how long, and where.

The field names are the command line's option names with ``_`` for ``-``, the keys of a job file and
the arguments in Python. Facts that need the model or the machine (does the plan's product equal the
count, does the batch divide) are checked where they are known.
"""

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from predictor.errors import InputError, did_you_mean
from predictor.units import parse_count

Precision = Literal["fp32", "tf32", "fp16", "bf16", "amp-fp16", "amp-bf16", "fp8"]
Optimizer = Literal["sgd", "adam", "adamw", "adafactor", "lion", "none"]
MemoryFormat = Literal["contiguous", "channels-last"]
Mode = Literal["train", "infer"]
Recompute = Literal["none", "selective", "full"]


# Largest size: products of sizes stay below 2**63, where PyTorch stops counting. Largest length.
SIZE, LENGTH = 10**12, 10**18


class Job(BaseModel):
    """One training or inference job. Only ``model`` and ``hardware`` are needed.

    model          a name ("zoo:resnet50", "timm:vit_base_patch16_224", "config.json", "model.onnx",
                   "program.pt2", "net.py:build", "jax:net.py:loss"), a torch module, a callable that
                   returns one, or a JAX loss function
    inputs         tensors, a dict of tensors, or specs such as ["ids:int64[8,1024]"]; for a JAX function
                   (params, *batch), arrays or jax.ShapeDtypeStruct
    profile        file of an accelerator that ``hardware`` may name, in place of another one of its names
    batch_size     samples of one optimizer step over all accelerators (global batch)
    micro_batch    samples one data-parallel rank works on at a time
    dims           sizes of further symbolic axes of an ONNX file or an exported program: ["width=320"]
    dp tp pp cp    data, tensor, pipeline and context parallel sizes; their product is ``count``
    ep             expert parallel size, divides ``dp``
    price          US dollar per accelerator and hour
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, frozen=True)

    model: Any
    inputs: Any = None
    hardware: str
    count: int | None = Field(None, gt=0, le=SIZE, strict=True)
    nodes: int | None = Field(None, gt=0, le=SIZE, strict=True)
    profile: str | None = None
    precision: Precision = "fp32"
    stack: str | None = None
    memory_format: MemoryFormat = "contiguous"
    batch_size: int | None = Field(None, gt=0, le=SIZE, strict=True)
    micro_batch: int | None = Field(None, gt=0, le=SIZE, strict=True)
    seq_len: int | None = Field(None, gt=0, le=SIZE, strict=True)
    image_size: int | None = Field(None, gt=0, le=SIZE, strict=True)
    dims: list[str] | None = None
    optimizer: Optimizer = "adamw"
    mode: Mode = "train"
    steps: int | None = Field(None, gt=0, le=LENGTH, strict=True)
    samples: int | None = Field(None, gt=0, le=LENGTH, strict=True)
    tokens: int | None = Field(None, gt=0, le=LENGTH, strict=True)
    epochs: float | None = Field(None, gt=0, le=LENGTH, allow_inf_nan=False)
    dataset_size: int | None = Field(None, gt=0, le=LENGTH, strict=True)
    dp: int | None = Field(None, gt=0, le=SIZE, strict=True)
    tp: int = Field(1, gt=0, le=SIZE, strict=True)
    pp: int = Field(1, gt=0, le=SIZE, strict=True)
    ep: int = Field(1, gt=0, le=SIZE, strict=True)
    cp: int = Field(1, gt=0, le=SIZE, strict=True)
    zero: Literal[0, 1, 2, 3] = 0
    recompute: Recompute = "none"
    region: str | None = None
    pue: float | None = Field(None, ge=1, le=5)
    price: float | None = Field(None, ge=0, allow_inf_nan=False)
    strict: bool = False

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InputError(explain(error, type(self))) from None

    @field_validator("steps", "samples", "tokens", "dataset_size", mode="before")
    @classmethod
    def _read_count(cls, value: Any, info: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return value
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{info.field_name}: {value} is not a whole number of at least 1")
        return parse_count(value, info.field_name)

    @model_validator(mode="after")
    def _one_length(self) -> "Job":
        given = [n for n in ("steps", "samples", "tokens", "epochs") if getattr(self, n) is not None]
        if len(given) > 1:
            raise InputError(f"length given more than once: {', '.join(given)}; give one of them")
        if (self.epochs is None) != (self.dataset_size is None):
            raise InputError("epochs and dataset_size belong together; give both (or steps, samples, tokens)")
        return self

    @model_validator(mode="after")
    def _used_by_mode(self) -> "Job":
        if self.mode == "infer":
            for name, unused in (("optimizer", "none"), ("recompute", "none")):
                if name in self.model_fields_set and getattr(self, name) != unused:
                    raise InputError(
                        f"{name} {getattr(self, name)} has no effect in mode infer; leave it away"
                    )
        return self

    @property
    def dim_sizes(self) -> dict[str, int]:
        """``dims`` as numbers by name."""
        return dim_sizes(self.dims)

    @property
    def has_length(self) -> bool:
        """True when the whole run, not only one step, is asked for."""
        return any(v is not None for v in (self.steps, self.samples, self.tokens, self.epochs))


def dim_sizes(dims: list[str] | None) -> dict[str, int]:
    """Sizes by name; raises InputError for what is not NAME=SIZE.

    >>> dim_sizes(["width=320"])
    {'width': 320}
    """
    sizes = {}
    for text in dims or ():
        name, equals, size = text.partition("=")
        if not (name and equals and size.isdecimal() and 0 < int(size) <= SIZE):
            raise InputError(f"dim '{text}': write NAME=SIZE with a whole number of at least 1")
        sizes[name] = int(size)
    return sizes


def explain(error: ValidationError, model: type[BaseModel], where: str = "job") -> str:
    """The first fault of a pydantic error as one line in the user's words."""
    fault = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in fault["loc"]) or where
    if fault["type"] == "extra_forbidden":
        return (
            f"{where}: unknown key '{key}'{did_you_mean(key, model.model_fields)}; known keys: "
            + ", ".join(model.model_fields)
        )
    if fault["type"] == "missing":
        return f"{where}: '{key}' is missing"
    if fault["type"] == "literal_error":
        return f"{where}: {key} is {fault['input']!r}, accepted: {fault['ctx']['expected']}"
    return f"{where}: {key} is {fault['input']!r}: {fault['msg'].lower()}"
