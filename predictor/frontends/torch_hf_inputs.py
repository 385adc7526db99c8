"""What a Hugging Face model is fed in training: inputs, labels and loss, found from class and configuration.

S is the length of the token sequence; in a model that hears and reads nothing, of the audio. Where both
are there, the audio keeps the length its family is trained on.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn

from predictor.errors import InputError
from predictor.frontends import torch_scans
from predictor.frontends.torch_model import Loss

_BATCH_TEXT, _BATCH_IMAGE = 8, 32
_DEFAULT_SEQ_LEN = 1024
# Ten seconds of speech: 16,000 samples or 100 feature frames a second, 50 where frames are stacked in pairs.
_SAMPLES, _FRAMES, _STACKED_FRAMES = 160_000, 1000, 500
_CTC_LABELS = 64
_CHOICES = 4

# Feature frames that a family's processor puts side by side.
_FRAMES_TOGETHER = {"granite_speech5_ctc": 4}

# End of a class name -> labels; what has no line and takes labels is labelled token by token.
_LABELS: dict[str, tuple[str, ...]] = {
    "ForSequenceClassification": ("labels:int64[B]",),
    "ForImageClassification": ("labels:int64[B]",),
    "ForVideoClassification": ("labels:int64[B]",),
    "ForAudioClassification": ("labels:int64[B]",),
    "ForNextSentencePrediction": ("labels:int64[B]",),
    "ForMultipleChoice": ("labels:int64[B]",),
    "ForQuestionAnswering": ("start_positions:int64[B]", "end_positions:int64[B]"),
    "ForSemanticSegmentation": ("labels:int64[B,P,P]",),
    "ForCTC": (),
}
# Families that take one image [b, c, p, p] beside their tokens.
_READ_AND_SEE = set(
    "aya_vision cohere2_vision deepseek_vl fast_vlm florence2 gemma3 gemma3n git got_ocr2 internvl janus "
    "llava ovis2 paligemma pp_chart2table qianfan_ocr shieldgemma2 unlimited_ocr vipllava".split()
)
# Positions that a family keeps for itself.
_RESERVED = {"prophetnet": 1}
_POSITIONS = ("max_position_embeddings", "n_positions", "max_target_positions")
# Arguments that a forward call demands of its own accord, beside its main input.
_DEMANDED = {"bbox": "bbox:int64[B,S,4]", "image": "image:float32[B,3,224,224]"}


@dataclass(frozen=True, slots=True)
class Inputs:
    """Input specs, what their letters are when the job does not say, the loss, and what was assumed."""

    specs: list[str]
    sizes: dict[str, int | None]
    loss: Loss | None = None
    notes: tuple[tuple[str, str, str], ...] = ()


def inputs_of(module: Any, config: Any) -> Inputs:
    """Inputs of the common tasks, labels included where the model computes its own loss.

    Raises InputError naming the input when the family is not known.
    """
    main, takes = module.main_input_name, _takes(module)
    name = type(module).__name__
    if main not in takes and "pixel_values" in takes:
        main = "pixel_values"
    if main == "inputs":
        main = _general_input(module, name)
    if main == "input_ids":
        return _text(module, config)
    if main in {"pixel_values", "pixel_values_videos"}:
        return _image(module, config)
    if main in {"input_features", "input_values"}:
        return _audio(module, config, main)
    raise InputError(f"{name} takes '{main}'; give it with --input {main}:float32[...], and its labels")


def _general_input(module: Any, name: str) -> str:
    """What a class that calls its input 'inputs' is fed: Perceiver, and encoders beside any decoder."""
    encoder = getattr(module, "encoder", None)
    found = getattr(encoder, "main_input_name", None)
    if found in {"input_values", "input_features", "pixel_values"}:
        return str(found)
    return "pixel_values" if "Image" in name else "input_ids"


def parts_of(config: Any) -> Iterator[Any]:
    """The configuration and those inside it, outermost first."""
    yield config
    for value in vars(config).values():
        if hasattr(value, "model_type") and hasattr(value, "to_dict"):
            yield from parts_of(value)


def _field(config: Any, *names: str) -> Any:
    """The first of these fields that the configuration or one inside it holds."""
    for part in parts_of(config):
        for name in names:
            value = getattr(part, name, None)
            if value is not None:
                return value
    return None


def _length(config: Any) -> int:
    """Tokens that every part of the model has positions for, a multiple of 8, at most the default."""
    known = [getattr(part, name, None) for part in parts_of(config) for name in _POSITIONS]
    limits = [n for n in known if isinstance(n, int) and n >= 8]
    axes = _field(config, "axial_pos_shape")
    if axes:  # Reformer trains at exactly the length its position table factors into
        return int(prod(axes))
    return (min([_DEFAULT_SEQ_LEN, *limits]) - _RESERVED.get(config.model_type, 0)) // 8 * 8


def _takes(module: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(module.forward).parameters


def _labels(module: Any, default: tuple[str, ...]) -> list[str]:
    name, takes = type(module).__name__, _takes(module)
    found = next((specs for end, specs in _LABELS.items() if name.endswith(end)), default)
    return [spec for spec in found if spec.partition(":")[0] in takes]


def _text(module: Any, config: Any) -> Inputs:
    takes, name = _takes(module), type(module).__name__
    channels = _field(config, "num_codebooks") if "SpeechToText" in name else None
    shape = "B,S" + (f",{channels + 1}" if channels else "")
    if name.endswith("ForMultipleChoice"):
        shape = f"B,{_CHOICES},S"
    specs = [f"{module.main_input_name}:int64[{shape}]"]
    labels = _labels(module, ("labels:int64[B,S]",))
    tracks = _field(config, "num_channels") if name.startswith("Dia") else None
    if tracks:  # audio tokens, several at a time; the loss is ours
        specs.append(f"decoder_input_ids:int64[B,S,{tracks}]")
        return Inputs(specs, {"B": _BATCH_TEXT, "S": _length(config)})
    specs += labels
    if "next_sentence_label" in takes and labels:
        specs.append("next_sentence_label:int64[B]")
    if "decoder_input_ids" in takes and (not labels or labels[0] != "labels:int64[B,S]"):
        specs.append("decoder_input_ids:int64[B,S]")
    specs += [spec for argument, spec in _DEMANDED.items() if _needs(takes, argument)]
    length = _length(config)
    if name.startswith("Perceiver"):  # its decoder asks for every position there is
        length = int(_field(config, "max_position_embeddings"))
    sizes: dict[str, int | None] = {"B": _BATCH_TEXT, "S": length}
    if config.model_type in _READ_AND_SEE:
        return Inputs([*specs, _picture(config)], sizes)
    return Inputs(specs, sizes, notes=_left_out(takes))


def _picture(config: Any) -> str:
    """One image of the size the vision part is built for; its places are among the tokens."""
    vision = _field(config, "vision_config", "vision") or config
    side, channels = _field(vision, "image_size") or 224, _field(vision, "num_channels", "in_channels") or 3
    side = side[0] if isinstance(side, list | tuple) else side
    return f"pixel_values:float32[B,{channels},{side},{side}]"


def _needs(takes: Mapping[str, inspect.Parameter], argument: str) -> bool:
    return argument in takes and takes[argument].default is inspect.Parameter.empty


def _left_out(takes: Mapping[str, inspect.Parameter]) -> tuple[tuple[str, str, str], ...]:
    """A model that can also see or hear, fed with text alone."""
    senses = [name for name in ("pixel_values", "input_features", "input_values") if name in takes]
    if not senses:
        return ()
    text = f"the model also takes {senses[0]}; only text was given, its encoder is not counted"
    return (("inputs", text, f"give all inputs with --input, such as {senses[0]}:float32[...]"),)


def _image(module: Any, config: Any) -> Inputs:
    side = _field(config, "image_size", "img_size") or 224
    side = side[0] if isinstance(side, list | tuple) else side
    scales = _field(config, "scaled_images_ratios")
    if scales:  # Depth Pro: the smallest copy of the image is one patch
        side = int(_field(config, "patch_size") / min(scales))
    frames = _field(config, "num_frames")
    name = type(module).__name__
    if name.startswith("Perceiver"):  # its configuration speaks of several tasks
        side, frames = (side if name.endswith("Learned") else 224), None
    shape = f"B,{f'{frames},' if frames else ''}{_field(config, 'num_channels', 'in_channels') or 3},P,P"
    patches = _field(config, "num_patches")
    if patches is not None and "pixel_attention_mask" in _takes(module):  # patches come cut out
        width = 3 * int(_field(config, "patch_size")) ** 2
        given = [
            f"pixel_values:float32[B,{patches},{width}]",
            f"pixel_attention_mask:int64[B,{patches}]",
        ]
        given.append("spatial_shapes:int64[B,2]")
        return Inputs([*given, *_labels(module, ())], {"B": _BATCH_IMAGE})
    takes = _takes(module)
    main = module.main_input_name if module.main_input_name in takes else "pixel_values"
    specs = [f"{main}:float32[{shape}]", *_labels(module, ())]
    sizes: dict[str, int | None] = {"B": _BATCH_IMAGE, "P": side}
    if "labels" in takes and "decoder_input_ids" in takes:
        specs.append("labels:int64[B,S]")
        sizes["S"] = _length(config)
    return Inputs(specs, sizes)


def _audio(module: Any, config: Any, main: str) -> Inputs:
    takes = _takes(module)
    reads = "decoder_input_ids" in takes
    shape, length = _sound(config, main)
    sizes: dict[str, int | None] = {"B": _BATCH_TEXT, "S": _length(config) if reads else length}
    specs = [f"{module.main_input_name}:float32[{shape.replace('T', str(length) if reads else 'S')}]"]
    specs += _labels(module, ("labels:int64[B,S]",) if reads else ())
    if reads and "labels" not in takes:
        specs.append("decoder_input_ids:int64[B,S]")
    if "S" not in "".join(spec.partition("[")[2] for spec in specs):
        del sizes["S"]
    return Inputs(specs, sizes, _ctc_loss if type(module).__name__.endswith("ForCTC") else None)


def _sound(config: Any, main: str) -> tuple[str, int]:
    """Shape of the audio input with its length as T, and that length."""
    mel = _field(config, "num_mel_bins", "input_dim")
    if main == "input_values":
        longest = _field(config, "max_length") if mel else None
        return (f"B,T,{mel}", longest) if isinstance(longest, int) and longest > 20 else ("B,T", _SAMPLES)
    stacked, per_channel = (
        _field(config, "feature_projection_input_dim"),
        _field(config, "input_feat_per_channel"),
    )
    if stacked:
        return f"B,T,{stacked}", _STACKED_FRAMES
    if per_channel:
        return f"B,T,{per_channel * (_field(config, 'input_channels') or 1)}", _FRAMES
    positions = _field(config, "max_source_positions")
    if positions and mel:
        return f"B,{mel},{2 * positions}", 2 * positions
    if mel:
        return f"B,T,{mel * _FRAMES_TOGETHER.get(config.model_type, 1)}", _FRAMES
    raise InputError(
        "the width of input_features is not known; give it with --input input_features:float32[...]"
    )


def _ctc_loss(outputs: Any, _: Mapping[str, Any]) -> torch.Tensor:
    """Connectionist temporal classification against labels of a usual length."""
    scores = nn.functional.log_softmax(outputs.logits, dim=-1, dtype=torch.float32).transpose(0, 1)
    frames, batch, _classes = scores.shape
    targets = torch.zeros((batch, min(_CTC_LABELS, frames)), dtype=torch.int64)
    loss: torch.Tensor = torch_scans.ctc_loss(scores, targets).mean()
    return loss
