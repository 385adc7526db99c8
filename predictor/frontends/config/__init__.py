"""A Hugging Face ``config.json`` to a Graph without transformers and without torch.

Each family is a template: a function of the configuration that spells, operator by operator, the step
that the class in transformers takes, on a tape that differentiates it. ``TEMPLATES`` maps a model type to
its template; a new family is one function and one entry. What a template does not spell (another
architecture, an option that changes the step) is left to the class itself, recorded.
"""

import gc
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from predictor.errors import InputError
from predictor.frontends import ReadOptions
from predictor.frontends.config import alibi, encoder, falcon, families, gpt, mla, moe, opt, t5, whisper
from predictor.frontends.config.backward import backward
from predictor.frontends.config.expand import Events, Expansion
from predictor.frontends.config.fields import Fields, NoTemplateError
from predictor.frontends.config.model import Model
from predictor.frontends.config.tape import Tape
from predictor.ir import Graph

Template = Callable[[Fields], Model]

CAUSAL: dict[str, Template] = {
    "bloom": alibi.bloom,
    "deepseek_v2": mla.deepseek_v2,
    "deepseek_v3": mla.deepseek_v3,
    "falcon": falcon.falcon,
    "gemma": families.gemma,
    "gemma2": families.gemma2,
    "gemma3_text": families.gemma3,
    "gpt2": gpt.gpt2,
    "gpt_neox": gpt.gpt_neox,
    "llama": families.llama,
    "mistral": families.mistral,
    "mixtral": moe.mixtral,
    "mpt": alibi.mpt,
    "olmo": families.olmo,
    "olmo2": families.olmo2,
    "opt": opt.opt,
    "phi": opt.phi,
    "phi3": families.phi3,
    "qwen2": families.qwen2,
    "qwen2_moe": moe.qwen2_moe,
    "qwen3": families.qwen3,
    "qwen3_moe": moe.qwen3_moe,
}
TEMPLATES: dict[str, Template] = CAUSAL | {
    "bert": encoder.bert,
    "roberta": encoder.roberta,
    "t5": t5.t5,
    "vit": encoder.vit,
    "whisper": whisper.whisper,
}
_CAUSAL_HEADS = ("ForCausalLM", "LMHeadModel")
_WEIGHTS = {"bf16": "bfloat16", "fp16": "float16", "fp8": "bfloat16"}
_AUTOCAST = {"amp-bf16": "bfloat16", "amp-fp16": "float16"}


def read_config(path: Path, options: ReadOptions) -> Graph:
    """One training step, or forward pass, of the configured model.

    Raises InputError for a file that is no configuration, for fields that are missing or impossible, and
    for a model type that neither a template nor the installed transformers knows.
    """
    content = content_of(path)
    try:
        return from_template(content, path, options)
    except NoTemplateError as reason:
        return _recorded(path, options, str(reason))


def content_of(path: Path) -> dict[str, Any]:
    """The configuration as parsed JSON."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("model_type"), str):
        raise InputError(f"{path}: not a Hugging Face model configuration: 'model_type' is missing")
    return content


def from_template(content: dict[str, Any], path: Path, options: ReadOptions) -> Graph:
    """A parsed configuration by its template; raises NoTemplateError where there is none for it."""
    fields = Fields(content, path)
    model = _model(fields, options)
    batch, size = _sizes(model, fields, options)
    tape = Tape(options.train, _WEIGHTS.get(options.precision, "float32"), _AUTOCAST.get(options.precision))
    with _no_collection():
        loss = model.step(tape, batch, size)
        if options.train:
            backward(tape, loss)
        del loss
        expansion = Expansion(tape)
        ops, parameters = expansion.ops(), expansion.parameters()
        tape.close()
    return Graph(
        name=str(content.get("_name_or_path") or content["model_type"]),
        source=str(path),
        ops=ops,
        parameters=parameters,
        batch=batch,
        buffers_byte=tape.buffers_byte,
        input_byte=tape.input_byte,
        tokens_per_sample=size if model.size_name == "seq_len" else None,
        events=Events(expansion),
        gradients=expansion.gradients(),
        origin={"frontend": "config template", "model_type": content["model_type"]},
    )


def _model(fields: Fields, options: ReadOptions) -> Model:
    kind = fields.content["model_type"]
    named = fields.words("architectures") or []
    if kind not in TEMPLATES:
        raise NoTemplateError(f"model_type '{kind}'")
    if options.inputs is not None:
        raise NoTemplateError("inputs of its own")
    if kind in CAUSAL and named and not named[0].endswith(_CAUSAL_HEADS):
        raise NoTemplateError(f"architecture '{named[0]}'")
    model = TEMPLATES[kind](fields)
    if options.channels_last and model.size_name == "image_size":
        raise NoTemplateError("channels last")
    return model


def _sizes(model: Model, fields: Fields, options: ReadOptions) -> tuple[int, int]:
    """Samples of the batch, and tokens or pixels of a side."""
    asked = {"seq_len": options.seq_len, "image_size": options.image_size}
    for name, value in asked.items():
        if value is not None and name != model.size_name:
            raise InputError(f"{fields.path}: {name} {value} has no effect on its inputs; leave it away")
    size = asked[model.size_name] or model.size
    limit = model.longest
    if limit is not None and (size > limit or (size != limit and model.size_name == "image_size")):
        raise InputError(f"{fields.path}: {model.size_name} {size}: its table of positions is for {limit}")
    return options.batch or model.batch, size


@contextmanager
def _no_collection() -> Iterator[None]:
    """Values die by their count of references; looking for cycles among them doubles the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _recorded(path: Path, options: ReadOptions, reason: str) -> Graph:
    """The class of the installed transformers, built and recorded."""
    try:
        from predictor.frontends.torch_hf import read_config as record
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path}: no template for {reason}; recording the class needs {error.name}: "
            "pip install 'predictor[hf]'"
        ) from None
    return record(path, options)
