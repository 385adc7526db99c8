"""A Hugging Face ``config.json`` to a Graph, through the model class of the installed transformers.

The configuration is data: remote code it may name is never fetched nor run.
"""

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from predictor.errors import InputError, did_you_mean
from predictor.frontends import ReadOptions
from predictor.frontends.torch_build import build, fake_mode
from predictor.frontends.torch_model import Loaded, read_module
from predictor.frontends.torch_vision import ensure_torchvision
from predictor.ir import Graph

# Tasks tried in this order for a configuration that names no architecture.
_TASKS = (
    "AutoModelForSeq2SeqLM",
    "AutoModelForMaskedLM",
    "AutoModelForCausalLM",
    "AutoModelForImageClassification",
    "AutoModel",
)
_DEFAULT_SEQ_LEN = 1024
_BATCH_TEXT, _BATCH_IMAGE = 8, 32


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
    mode = fake_mode()
    module = _module(config, content, path, transformers, mode)
    name = str(content.get("_name_or_path") or content["model_type"])
    specs, sizes = _inputs(module, config)
    with _unpacked(transformers):
        return read_module(Loaded(module, name, str(path), specs, sizes), options, mode)


@contextmanager
def _unpacked(transformers: Any) -> Iterator[None]:
    """One sequence per row, as the position ids say.

    Whether several are packed is read from tensor values, which fake tensors lack; unable to tell,
    transformers would write out a full mask and lose the causal kernel.
    """
    masking = getattr(transformers, "masking_utils", None)
    name = "find_packed_sequence_indices"
    if not hasattr(masking, name):
        yield
        return
    kept = getattr(masking, name)
    setattr(masking, name, lambda *_, **__: None)
    try:
        yield
    finally:
        setattr(masking, name, kept)


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
    fields = {k: v for k, v in content.items() if k not in {"model_type", "auto_map", "transformers_version"}}
    try:
        config = known[kind].from_dict(fields)
    except Exception as error:
        raise InputError(f"{path}: transformers refuses it: {type(error).__name__}: {error}") from None
    config.use_cache = False
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = (
            0  # the decoder's input is the label shifted; which token is no matter
        )
    return config


def _module(
    config: Any, content: dict[str, Any], path: Path, transformers: Any, mode: FakeTensorMode
) -> nn.Module:
    named = content.get("architectures") or []
    kind: Any = getattr(transformers, named[0], None) if named and isinstance(named[0], str) else None
    makers: list[Any]
    if inspect.isclass(kind) and issubclass(kind, transformers.PreTrainedModel):
        makers = [kind]
    else:
        autos = [getattr(transformers, task) for task in _TASKS]
        makers = [auto.from_config for auto in autos if type(config) in auto._model_mapping]
    if not makers:
        raise InputError(f"{path}: transformers has no model for '{content['model_type']}'")
    try:
        module: nn.Module = build(lambda: makers[0](config), mode)
    except Exception as error:
        raise InputError(f"{path}: building the model failed: {type(error).__name__}: {error}") from error
    return module


def _inputs(module: Any, config: Any) -> tuple[list[str], dict[str, int | None]]:
    """Input specs of the common tasks, labels included where the model computes its own loss."""
    takes = inspect.signature(module.forward).parameters
    main = module.main_input_name
    if main == "pixel_values":
        vision = getattr(config, "vision_config", config)
        side, channels = getattr(vision, "image_size", 224), getattr(vision, "num_channels", 3)
        side = side[0] if isinstance(side, list | tuple) else side
        labels = ["labels:int64[B]"] if "labels" in takes else []
        return [f"pixel_values:float32[B,{channels},P,P]", *labels], {"B": _BATCH_IMAGE, "P": side}
    longest = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    sizes: dict[str, int | None] = {"B": _BATCH_TEXT, "S": min(longest or _DEFAULT_SEQ_LEN, _DEFAULT_SEQ_LEN)}
    if main != "input_ids":
        raise InputError(f"{type(module).__name__} takes '{main}'; give it with --input {main}:float32[...]")
    specs = ["input_ids:int64[B,S]"]
    name = type(module).__name__
    if name.endswith(("SequenceClassification",)):
        specs.append("labels:int64[B]")
    elif "labels" in takes and not name.endswith(("QuestionAnswering", "MultipleChoice")):
        specs.append("labels:int64[B,S]")
    elif "decoder_input_ids" in takes:
        specs.append("decoder_input_ids:int64[B,S]")
    if "next_sentence_label" in takes and "labels" in takes:
        specs.append("next_sentence_label:int64[B]")
    return specs, sizes
