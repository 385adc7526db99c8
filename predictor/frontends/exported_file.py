"""A program saved by ``torch.export.save`` (``.pt2``) as a Graph; nothing of the file is executed.

The file holds one forward pass. ``exported_archive`` opens it, ``exported_inputs`` sizes its symbols,
``exported_calls`` walks its nodes, ``exported_names`` spells them as PyTorch's recorder does,
``exported_flow`` marks where gradients flow. What the backward costs is the gradient rules' to say.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from predictor.errors import InputError, PredictorError
from predictor.frontends.exported_archive import Archive, open_archive
from predictor.frontends.exported_calls import Call, Reader, tensor_names
from predictor.frontends.exported_flow import check_fit, operators
from predictor.frontends.exported_inputs import Sizes, resolve
from predictor.frontends.exported_names import Maker, canonical
from predictor.ir import Graph, Parameter


def read_exported(
    path: Path,
    batch: int | None = None,
    dims: Mapping[str, int] | None = None,
    sequence: int | None = None,
    image: int | None = None,
) -> Graph:
    """Read a file; raises InputError with what is wrong and what to do.

    batch     size of the batch, the first axis of the inputs; the exported example's when not given
    dims      sizes of other symbolic axes, by their names in the file or as "input[axis]"
    sequence  size of the second axis of token ids
    image     size of the last two axes of images
    """
    archive = open_archive(path)
    try:
        return _read(archive, batch, dims or {}, sequence, image)
    except PredictorError as error:
        raise type(error)(f"{path}: {error}") from None
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, RecursionError) as error:
        raise InputError(
            f"{path}: its program is damaged ({type(error).__name__}: {error}); export it again"
        ) from None


def _read(
    archive: Archive, batch: int | None, dims: Mapping[str, int], sequence: int | None, image: int | None
) -> Graph:
    module = archive.program["graph_module"]
    graph, signature = module["graph"], module["signature"]
    sizes = resolve(archive.program, batch, dims, sequence, image)
    reader = Reader(sizes.symbols)
    called = reader.calls(graph)
    if not called:
        raise InputError("the program computes nothing")
    maker = Maker({name: call for call in called for name in call.outputs})
    calls = [step for call in called for step in canonical(call, reader.specs, maker)]
    used = {name for call in called for name in call.inputs}
    stored = _stored(signature)
    parameters = _parameters(archive, stored, graph, used, reader)
    trained = {
        name
        for name, (kind, _) in stored.items()
        if kind == "parameter" and graph["tensor_values"][name]["requires_grad"]
    }
    outputs = [name for argument in graph["outputs"] for name in tensor_names(argument)]
    ops = operators(calls, reader.specs, trained, outputs)
    check_fit(ops)
    return Graph(
        name=archive.path.stem,
        source=str(archive.path),
        ops=ops,
        parameters=parameters,
        batch=sizes.batch,
        buffers_byte=sum(
            reader.specs[n].byte for n, (kind, _) in stored.items() if kind != "parameter" and n in used
        ),
        input_byte=sum(reader.specs[name].byte for name in sizes.inputs),
        tokens_per_sample=sizes.tokens,
        origin=_origin(archive, sizes),
        notes=_notes(called, sizes),
    )


def _stored(signature: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Tensor of the graph -> (parameter, buffer or constant; name in the model)."""
    found = {}
    for spec in signature["input_specs"]:
        for kind, name in _KINDS.items():
            if kind in spec:
                found[str(spec[kind]["arg"]["name"])] = (kind, str(spec[kind][name]))
    return found


_KINDS = {
    "parameter": "parameter_name",
    "buffer": "buffer_name",
    "tensor_constant": "tensor_constant_name",
}


def _parameters(
    archive: Archive,
    stored: Mapping[str, tuple[str, str]],
    graph: Mapping[str, Any],
    used: set[str],
    reader: Reader,
) -> tuple[Parameter, ...]:
    """Weights that the program reads, tied ones once: those the archive stores in one file."""
    seen: dict[str, Parameter] = {}
    for tensor, (kind, name) in stored.items():
        place = archive.stores.get(name, name)
        if kind == "parameter" and tensor in used and place not in seen:
            spec = reader.specs[tensor]
            trainable = bool(graph["tensor_values"][tensor]["requires_grad"])
            seen[place] = Parameter(name, spec.shape, spec.dtype, trainable, "expert" in name)
    return tuple(seen.values())


def _origin(archive: Archive, sizes: Sizes) -> dict[str, str]:
    version = archive.program["schema_version"]
    return {
        "frontend": "exported",
        "producer": f"torch {archive.program.get('torch_version', 'unknown')}",
        "schema": f"{version.get('major')}.{version.get('minor')}",
        "batch": str(sizes.batch),
        **{f"axis {name}": str(size) for name, size in sizes.symbols.items()},
    }


def _notes(calls: list[Call], sizes: Sizes) -> tuple[tuple[str, str, str], ...]:
    """What had to be assumed."""
    notes = [
        (
            "backward by rule",
            "the exported program holds the forward pass; gradients were priced by each operator's rule, and"
            " it has no loss",
            "give the PyTorch model to record its real backward pass",
        )
    ]
    if sizes.assumed:
        listed = ", ".join(f"{name} = {sizes.symbols[name]}" for name in sizes.assumed)
        notes.append(
            (
                "example sizes",
                f"sizes that were not given are those of the exported example: {listed}",
                "give --batch-size, --seq-len or --image-size",
            )
        )
    if any(call.attrs.get("train") is False or call.attrs.get("training") is False for call in calls):
        notes.append(
            (
                "exported for evaluation",
                "the program was exported in evaluation mode: dropout is absent or switched off, and batch"
                " normalisation was priced as in training",
                "call model.train() before torch.export.export",
            )
        )
    return tuple(notes)
