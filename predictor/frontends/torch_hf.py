"""A Hugging Face ``config.json`` to a Graph, through the model class of the installed transformers.

The configuration is data: remote code it may name is never fetched nor run.
"""

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from predictor.errors import InputError, did_you_mean
from predictor.frontends import ReadOptions
from predictor.frontends.torch_build import build
from predictor.frontends.torch_hf_inputs import inputs_of, parts_of
from predictor.frontends.torch_hf_kernels import accelerator_paths
from predictor.frontends.torch_hf_values import AnsweringMode
from predictor.frontends.torch_model import Loaded, read_module
from predictor.frontends.torch_vision import ensure_torchvision
from predictor.ir import Graph

# Tasks tried in this order for a configuration that names no architecture.
_TASKS = (
    "AutoModelForSpeechSeq2Seq",
    "AutoModelForSeq2SeqLM",
    "AutoModelForMaskedLM",
    "AutoModelForCausalLM",
    "AutoModelForImageTextToText",
    "AutoModelForImageClassification",
    "AutoModelForCTC",
    "AutoModelForAudioClassification",
    "AutoModel",
)
# Names under which a configuration asks for a fused attention kernel.
_FUSED = ("flash", "flex", "kernels-community")

Note = tuple[str, str, str]


def read_config(path: Path, options: ReadOptions) -> Graph:
    """Build the configured class without weights and record one step.

    Raises InputError for a file that is not a configuration and for an unknown model type.
    """
    content = _content(path)
    ensure_torchvision()  # transformers imports it for models that take images
    try:
        import transformers
    except ModuleNotFoundError:
        raise InputError(
            f"{path}: needs transformers; install it with: pip install 'predictor[hf]'"
        ) from None
    transformers.logging.set_verbosity_error()
    config = _config(content, path, transformers)
    notes = _settle(config)
    mode = AnsweringMode()
    module = _module(config, content, path, transformers, mode)
    options, given = _without_padding(options)
    if given is None:
        found = inputs_of(module, module.config)
        specs, sizes, loss, notes = found.specs, found.sizes, found.loss, (*notes, *found.notes)
    else:
        specs, sizes, loss = given, {}, None
    fused = _asks_for_fused(content)
    name = str(content.get("_name_or_path") or content["model_type"])
    loaded = Loaded(
        module,
        name,
        str(path),
        specs,
        sizes,
        loss,
        around=lambda _: accelerator_paths(module, transformers, fused),
    )
    graph = read_module(loaded, options, mode)
    return replace(graph, notes=(*graph.notes, *notes))


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("model_type"), str):
        raise InputError(f"{path}: not a Hugging Face model configuration: 'model_type' is missing")
    return content


def _config(content: dict[str, Any], path: Path, transformers: Any) -> Any:
    kind = content["model_type"]
    known = transformers.CONFIG_MAPPING
    if kind not in known:
        raise InputError(f"{path}: unknown model_type '{kind}'{did_you_mean(kind, known.keys())}")
    apart = {"model_type", "auto_map", "transformers_version", "attn_implementation", "_attn_implementation"}
    fields = {k: v for k, v in content.items() if k not in apart}
    try:
        return known[kind].from_dict(fields)
    except Exception as error:
        raise InputError(f"{path}: transformers refuses it: {type(error).__name__}: {error}") from None


def _settle(config: Any) -> tuple[Note, ...]:
    """Settings of generation and of chance, for a step of training: no cache, no layer left out."""
    dropped = set()
    for part in parts_of(config):
        part.use_cache = False
        # The decoder's input is the label shifted; which token starts it is no matter.
        if part.is_encoder_decoder and getattr(part, "decoder_start_token_id", None) is None:
            part.decoder_start_token_id = 0
        if part.is_encoder_decoder and getattr(part, "pad_token_id", None) is None:
            part.pad_token_id = 0
        if getattr(part, "languages", None) and getattr(part, "default_language", "") is None:
            part.default_language = next(iter(part.languages))  # adapters of one language train at a time
        for name in [n for n in vars(part) if n.endswith("layerdrop") and vars(part)[n]]:
            dropped.add(f"{name} {vars(part)[name]}")
            setattr(part, name, 0.0)
    if not dropped:
        return ()
    text = f"layers that training leaves out at random are all counted ({', '.join(sorted(dropped))})"
    return (("layerdrop", text, "expect that share of the layers' work to be saved"),)


def _module(
    config: Any, content: dict[str, Any], path: Path, transformers: Any, mode: FakeTensorMode
) -> nn.Module:
    named = content.get("architectures") or []
    kind: Any = getattr(transformers, named[0], None) if named and isinstance(named[0], str) else None
    makers: list[Any]
    if inspect.isclass(kind) and issubclass(kind, transformers.PreTrainedModel):
        makers = [kind]
        config = _part_for(kind, config)
    else:
        autos = [getattr(transformers, task) for task in _TASKS if hasattr(transformers, task)]
        makers = [auto.from_config for auto in autos if type(config) in auto._model_mapping]
    if not makers:
        raise InputError(f"{path}: transformers has no model for '{content['model_type']}'")
    try:
        module: nn.Module = build(lambda: makers[0](config), mode)
    except Exception as error:
        raise InputError(f"{path}: building the model failed: {type(error).__name__}: {error}") from error
    return module


def _part_for(kind: Any, config: Any) -> Any:
    """The part of a composite configuration that a class is built from, such as its text part."""
    wanted = kind.config_class
    if wanted is None or isinstance(config, wanted):
        return config
    return next((part for part in parts_of(config) if isinstance(part, wanted)), config)


def _without_padding(options: ReadOptions) -> tuple[ReadOptions, list[str] | None]:
    """Options without an attention_mask [b, s]: nothing is padded, and a mask of ones hides nothing.

    Also the specs that remain, None when the job gives no inputs.
    """
    given = options.inputs
    specs = [given] if isinstance(given, str) else given
    if not isinstance(specs, list | tuple) or not all(isinstance(s, str) for s in specs):
        return options, None if given is None else []
    kept = [s for s in specs if not (s.strip().startswith("attention_mask") and s.count(",") == 1)]
    return replace(options, inputs=kept), list(kept)


def _asks_for_fused(content: dict[str, Any]) -> bool:
    """Whether the configuration itself asks for a fused attention kernel."""
    asked = content.get("attn_implementation") or content.get("_attn_implementation") or ""
    return isinstance(asked, str) and asked.startswith(_FUSED)
