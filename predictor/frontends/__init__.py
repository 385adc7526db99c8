"""From a model definition to a Graph: one table of frontends, each accepting its own kind of source.

PyTorch and ONNX are imported only by the frontend that needs them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from predictor.errors import InputError, did_you_mean
from predictor.frontends.jax_function import is_jax
from predictor.ir import Graph, TensorSpec
from predictor.zoo import ZOO

FORMS = (
    "zoo:NAME, timm:NAME, torchvision:NAME, file.py:factory, package.module:factory, "
    "a Hugging Face config.json, model.onnx, program.pt2, or jax:file.py:loss"
)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What the job says about reading its model; None leaves a choice to the model.

    batch  samples in the recorded micro-batch
    dims   sizes of further symbolic axes, by name
    """

    batch: int | None = None
    seq_len: int | None = None
    image_size: int | None = None
    precision: str = "fp32"
    channels_last: bool = False
    train: bool = True
    inputs: Any = None
    dims: Mapping[str, int] = field(default_factory=dict)


def load_graph(source: Any, options: ReadOptions) -> Graph:
    """Read any supported model source; raises InputError with the accepted forms when it is none."""
    if is_jax(source, options.inputs):
        return _jax(source, options)
    if not isinstance(source, str | Path):
        return _torch(source, options)
    text = str(source)
    prefix, colon, rest = text.partition(":")
    if colon and prefix in {"zoo", "timm", "torchvision"}:
        return _torch(text, options)
    for suffix, read in _FILES.items():
        if text.endswith(suffix):
            return read(_existing(text), options)
    if colon and rest.isidentifier():
        return _torch(text, options)
    raise InputError(f"model '{text}' is none of: {FORMS}{did_you_mean(text, [f'zoo:{n}' for n in ZOO])}")


def runs_code(source: Any) -> bool:
    """True when reading this source executes Python that the user names."""
    text = str(source)
    prefix, colon, rest = text.partition(":")
    data = prefix in {"zoo", "timm", "torchvision"}
    return bool(colon) and not data and (prefix == "jax" or rest.isidentifier())


def _existing(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise InputError(f"model '{text}': no such file")
    return path


def _torch(source: Any, options: ReadOptions) -> Graph:
    from predictor.frontends.torch_model import read_torch

    return read_torch(source, options)


def _onnx(path: Path, options: ReadOptions) -> Graph:
    from predictor.frontends.onnx_file import read_onnx

    if options.inputs is not None:
        raise InputError(
            f"{path}: an ONNX file names its own inputs; leave --input away and give --batch-size"
        )
    if options.image_size is not None:
        raise InputError(
            f"{path}: image_size has no effect; the file fixes the image, export it at another size"
        )
    return _by_rule(read_onnx(path, options.batch, dict(options.dims), options.seq_len), options)


def _exported(path: Path, options: ReadOptions) -> Graph:
    from predictor.frontends.exported_file import read_exported

    if options.inputs is not None:
        raise InputError(
            f"{path}: an exported program names its own inputs; leave --input away and give --batch-size"
        )
    sizes = (options.batch, dict(options.dims), options.seq_len, options.image_size)
    return _by_rule(read_exported(path, *sizes), options)


def _jax(source: Any, options: ReadOptions) -> Graph:
    from predictor.frontends.jax_function import read_jax

    graph = read_jax(
        source,
        options.inputs,
        batch=options.batch,
        sequence=options.seq_len,
        image=options.image_size,
        train=options.train,
    )
    half = _HALF.get(options.precision)
    return graph if half is None else in_half(graph, half, options.precision)


def _by_rule(graph: Graph, options: ReadOptions) -> Graph:
    """The graph of a file that holds one forward pass in fixed types, as the job asks for it."""
    if not options.train:
        graph = forward_only(graph)
    half = _HALF.get(options.precision)
    return graph if half is None else in_half(graph, half, options.precision)


def _config(path: Path, options: ReadOptions) -> Graph:
    from predictor.frontends.config import read_config

    return read_config(path, options)


_FILES = {".onnx": _onnx, ".pt2": _exported, ".json": _config}
_HALF = {
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp8": "bfloat16",
    "amp-fp16": "float16",
    "amp-bf16": "bfloat16",
}


def forward_only(graph: Graph) -> Graph:
    """A graph whose operators need no gradient, without what was said about gradients."""
    ops = tuple(
        replace(op, attrs={k: v for k, v in op.attrs.items() if k not in _GRADIENT}) for op in graph.ops
    )
    return replace(graph, ops=ops, notes=tuple(n for n in graph.notes if n[0] != "backward by rule"))


_GRADIENT = {"backward", "needs_grad", "grad_sums"}


def in_half(graph: Graph, half: str, precision: str) -> Graph:
    """A float32 graph as if its tensors were in a half type, for files that fix their types."""

    def cast(tensors: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(replace(t, dtype=half) if t.dtype == "float32" else t for t in tensors)

    text = f"the file's float32 tensors were taken as {half} throughout, for precision {precision}"
    note = ("precision", text, "a PyTorch model is recorded with each operator's own type")
    ops = tuple(replace(op, inputs=cast(op.inputs), outputs=cast(op.outputs)) for op in graph.ops)
    return replace(graph, ops=ops, notes=(*graph.notes, note))
