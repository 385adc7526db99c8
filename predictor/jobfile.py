"""A job written down: a flat TOML file whose keys are the fields of ``Job``.

Options of the command line go on top of the file. A file that names Python code is only read when the
caller allows code, so that a job file from elsewhere can be priced without trusting it.
"""

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from predictor.errors import InputError, did_you_mean
from predictor.frontends import runs_code
from predictor.job import Job
from predictor.units import parse_count

COUNTS = ("steps", "samples", "tokens", "dataset_size")
_LENGTHS = ("steps", "samples", "tokens", "epochs")
# In a file or an option; Python callers give more.
_WORDS = {"model": str, "inputs": list[str], "dims": list[str]}
_FILES = (".py", ".json", ".onnx", ".pt2")
_LIBRARIES = ("zoo:", "timm:", "torchvision:")
_FILE_HARDWARE = re.compile(r"^(\s*\d+\s*[xX*]\s*)?(.*\.toml)$")


def read_job(
    path: Path, overrides: Mapping[str, Any] | None = None, allow_code: bool = False
) -> dict[str, Any]:
    """The fields of the job in ``path``, ``overrides`` in place of its own.

    Raises InputError that names the file and the key: unknown key, wrong type, no model, or Python
    code in the file while ``allow_code`` is False.
    """
    fields = {key: check_value(key, value, f"{path}: {key}") for key, value in _content(path).items()}
    fields = _merge(_beside(fields, path.parent), overrides or {})
    if "model" not in fields:
        raise InputError(f"{path}: 'model' is missing; write for example model = \"zoo:resnet50\"")
    if runs_code(fields["model"]) and not allow_code:
        raise InputError(
            f"{path}: model '{fields['model']}' is Python code, which pricing the job would run; "
            "read that code, then repeat with --allow-code"
        )
    return fields


def check_value(key: str, value: Any, label: str) -> Any:
    """``value`` as the field ``key`` of a Job takes it; InputError says what ``label`` accepts instead."""
    if isinstance(value, bool) and key != "strict":
        raise InputError(f"{label} is {str(value).lower()}, it must not be true or false")
    if value == "":
        raise InputError(f"{label} is empty")
    if key in COUNTS and isinstance(value, str | int | float):
        return parse_count(value, label)
    try:
        return _adapter(key).validate_python(value, strict=True)
    except ValidationError as error:
        raise InputError(f"{label} is {value!r}{_reason(error, value)}") from None


@cache
def _adapter(key: str) -> TypeAdapter[Any]:
    """The check of one field."""
    field = Job.model_fields[key]
    accepted: Any = _WORDS.get(key) or Annotated[field.annotation, field]
    return TypeAdapter(accepted)


def _reason(error: ValidationError, value: Any) -> str:
    fault = error.errors(include_url=False)[0]
    if fault["type"] != "literal_error":
        return ", " + fault["msg"].replace("Input should", "it must")
    accepted = [str(choice) for choice in re.findall(r"[\w-]+", fault["ctx"]["expected"]) if choice != "or"]
    return f", accepted: {', '.join(accepted)}{did_you_mean(str(value), accepted)}"


def _content(path: Path) -> dict[str, Any]:
    """The keys of the file, each one known."""
    if not path.is_file():
        raise InputError(f"job file '{path}': no such file")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    for key in content:
        if key not in Job.model_fields:
            near = did_you_mean(key, Job.model_fields)
            raise InputError(f"{path}: unknown key '{key}'{near}\nknown keys: {', '.join(Job.model_fields)}")
    return content


def _beside(fields: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Relative paths of a model or a profile start at the folder of the job file."""
    named = fields.get("model", "")
    model = named.removeprefix("jax:")
    if model.partition(":")[0].endswith(_FILES) and not model.startswith(_LIBRARIES):
        fields["model"] = named.removesuffix(model) + str(folder / model)
    hardware = _FILE_HARDWARE.match(fields.get("hardware", ""))
    if hardware:
        fields["hardware"] = (hardware[1] or "") + str(folder / hardware[2])
    if "profile" in fields:
        fields["profile"] = str(folder / fields["profile"])
    return fields


def _merge(fields: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A length among the overrides replaces the length of the file, whichever way that is written."""
    replaced = [key for key in _LENGTHS if any(length in overrides for length in _LENGTHS)]
    merged = {key: value for key, value in fields.items() if key not in replaced} | dict(overrides)
    if replaced and "epochs" not in overrides and "dataset_size" not in overrides:
        merged.pop("dataset_size", None)
    return merged
