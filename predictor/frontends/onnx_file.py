"""An ONNX file as a Graph: forward operators with concrete shapes; weights are never loaded.

The file holds one forward pass. ``onnx_load`` opens it, ``onnx_sizes`` sizes the inputs, ``onnx_shapes``
finds every other shape, ``onnx_weights`` decides which constants are parameters, ``onnx_steps`` turns nodes
into operators and marks where gradients flow, ``onnx_attention`` finds attention. What the backward costs
is the gradient rules' to say (``predictor.ops.gradient_of``).
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import onnx

from predictor.errors import InputError
from predictor.frontends.onnx_attention import join_attention
from predictor.frontends.onnx_load import OnnxFile, open_file
from predictor.frontends.onnx_shapes import Known, Tensor, concrete, tensor_of, walk
from predictor.frontends.onnx_sizes import Sizes, resolve
from predictor.frontends.onnx_steps import Step, join_bias, live, operators, step_of
from predictor.frontends.onnx_weights import Weights, find_weights
from predictor.ir import DTYPE_BYTE, Graph, Parameter


def read_onnx(
    path: Path, batch: int | None = None, dims: dict[str, int] | None = None, sequence: int | None = None
) -> Graph:
    """Read a file; raises InputError with what is wrong and what to do.

    batch     size of the batch, the first axis of the inputs; needed where the file leaves it open
    dims      sizes of other symbolic axes, by name
    sequence  size of the axes that are named like a sequence, or the second axis of token ids
    """
    try:
        return _read(path, batch, dims or {}, sequence)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: damaged: a name in it is not text ({error}); export it again") from None


def _read(path: Path, batch: int | None, dims: Mapping[str, int], sequence: int | None) -> Graph:
    file = open_file(path)
    sizes = resolve(file.inputs, batch, dims, sequence)
    weights = find_weights(file)
    known = _known(file, sizes, weights)
    steps = [step_of(node) for node in walk(file.nodes, known)]
    outputs = _outputs(file, known, sizes)
    steps = join_bias(live(steps, outputs), known, outputs)
    steps = live(join_attention(steps, known, outputs), outputs)
    if not steps:
        raise InputError(f"{path}: the graph computes nothing from its inputs")
    used = {name for step in steps for name in step.inputs}
    buffers = (known.tensors[name] for name in used & file.sources.keys() - weights.trained)
    return Graph(
        name=path.stem,
        source=str(path),
        ops=operators(steps, known, outputs),
        parameters=_parameters(file, weights, known, used),
        batch=sizes.batch,
        buffers_byte=sum(_byte(tensor) for tensor in buffers),
        input_byte=sum(_byte(tensor) for tensor in sizes.tensors.values()),
        tokens_per_sample=sizes.tokens,
        origin=_origin(file, sizes),
        notes=_notes(file, steps, weights),
    )


def _byte(tensor: Tensor) -> int:
    return tensor.elements * DTYPE_BYTE[tensor.dtype]


def _known(file: OnnxFile, sizes: Sizes, weights: Weights) -> Known:
    """All that is known before the first node: inputs, constants, and what the file states."""
    read = {name for node in file.all_nodes for name in node.input}
    stored = {n: tensor_of(n, t.data_type, t.dims) for n, t in file.sources.items() if n in read}
    for name in weights.trained:
        if not stored[name].elements:
            raise InputError(f"{file.path}: weight '{name}' is empty: {list(stored[name].shape)}")
    declared = {}
    if sizes.baked is None:  # else the file states shapes of another batch
        for value in (*file.model.graph.value_info, *file.outputs):
            if value.type.HasField("tensor_type") and (t := concrete(value.name, value.type, sizes.symbols)):
                declared[value.name] = t
    return Known(
        tensors={**sizes.tensors, **stored},
        values=file.small_values(n for n in stored if n not in weights.trained),
        declared=declared,
        opsets=file.opsets,
        made=frozenset(name for node in file.all_nodes for name in node.output),
        hint=sizes.hint,
        weights=weights.trained,
    )


def _outputs(file: OnnxFile, known: Known, sizes: Sizes) -> list[str]:
    """Names of the results; they have to exist and to follow the batch."""
    for value in file.outputs:
        if value.name not in known.tensors:
            raise InputError(f"{file.path}: nothing writes the output '{value.name}'; the file is damaged")
        shape = known.tensors[value.name].shape
        stated = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        if sizes.baked and shape and stated[:1] == [sizes.baked] and sizes.batch not in shape:
            raise InputError(f"output '{value.name}' comes out as {list(shape)}{sizes.hint}")
    return [value.name for value in file.outputs]


def _parameters(
    file: OnnxFile, weights: Weights, known: Known, used: Collection[str]
) -> tuple[Parameter, ...]:
    return tuple(
        Parameter(name, known.tensors[source].shape, known.tensors[source].dtype, expert="expert" in name)
        for name, source in weights.names.items()
        if source in used
    )


def _origin(file: OnnxFile, sizes: Sizes) -> dict[str, str]:
    model = file.model
    return {
        "frontend": "onnx",
        "onnx": onnx.__version__,
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "opset": str(file.opsets.get("", "")),
        "batch": str(sizes.batch),
        **{f"axis {name}": str(size) for name, size in sizes.symbols.items()},
    }


def _notes(file: OnnxFile, steps: list[Step], weights: Weights) -> tuple[tuple[str, str, str], ...]:
    """What had to be assumed."""
    notes = [
        (
            "backward by rule",
            "the ONNX file holds the forward pass; gradients were priced by each operator's rule, and it has"
            " no loss",
            "give the PyTorch model to record its real backward pass",
        )
    ]
    names = {step.name for step in steps}
    if "onnx.Conv" in names and not any("Normalization" in name for name in names):
        notes.append(
            (
                "no normalisation",
                "there are convolutions and no normalisation: the export may have folded BatchNormalization"
                " into them, and training would run it",
                "export in training mode (torch.onnx.TrainingMode.TRAINING), or give the PyTorch model",
            )
        )
    if weights.merged > 0:
        notes.append(
            (
                "equal weights",
                f"{weights.merged} weights that the export merged, being equal, count as parameters again",
                "export a trained model, or give the PyTorch model",
            )
        )
    if file.lacks_contents:
        notes.append(
            (
                "weights not at hand",
                "the weights are stored in a file that is not there, so a table tied to the output layer"
                " counts twice if the export stored it twice",
                "put the data file beside the model",
            )
        )
    if not weights.names:
        notes.append(
            (
                "no weights",
                "no constant of the file was recognised as a weight, so there is no backward pass",
                "export with the weights stored in the file (export_params=True)",
            )
        )
    return tuple(notes)
