"""A ``.pt2`` archive opened: the program's JSON and the list of its weights; nothing is unpickled.

torch.export.load unpickles tensors and evaluates expressions of the file. What a prediction needs is
plain JSON: ``<name>/models/<model>.json`` and ``<name>/data/weights/<model>_weights_config.json`` as
PyTorch 2.9 and later write them, ``serialized_exported_program.json`` as 2.6 to 2.8 do.
Layouts: torch/export/pt2_archive/constants.py and torch/export/__init__.py of PyTorch 2.13.
"""

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from predictor.errors import InputError, UnsupportedError

SCHEMA = 8  # major version of torch/_export/serde/schema.py since PyTorch 2.6
_MOST_FILES, _LARGEST_JSON, _LARGEST_RATIO = 200_000, 1 << 29, 200
_OLD = "serialized_exported_program.json"


@dataclass(frozen=True, slots=True)
class Archive:
    """What is read of a file.

    program  the exported program, as torch/_export/serde/schema.py defines it
    stores   parameter or buffer -> the file that holds it; tied ones share it; empty in old files
    """

    path: Path
    program: Mapping[str, Any]
    stores: Mapping[str, str] = field(default_factory=dict)


def open_archive(path: Path) -> Archive:
    """Read the JSON of an exported program; InputError when the file is not one."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = _checked_names(path, archive)
            place = _program_name(path, names)
            program = _json(path, archive, names, place)
            config = (
                place.replace("/models/", "/data/weights/").removesuffix(".json") + "_weights_config.json"
            )
            weights = _json(path, archive, names, config) if config in names else {}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError) as error:
        raise InputError(f"{path}: not an exported program, or damaged ({error}); export it again") from None
    _check_version(path, program)
    entries = weights.get("config", {})
    if not isinstance(entries, dict):
        raise InputError(f"{path}: its list of weights is damaged; export it again")
    stores = {name: str(entry.get("path_name")) for name, entry in entries.items() if isinstance(entry, dict)}
    return Archive(path, program, stores)


def _checked_names(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Files by name; refuses what no exporter writes."""
    infos = archive.infolist()
    if len(infos) > _MOST_FILES:
        raise InputError(f"{path}: {len(infos)} files in one archive; at most {_MOST_FILES} are read")
    names: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        parts = PurePosixPath(info.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0:1]:
            raise InputError(f"{path}: the name '{info.filename}' in it leaves the archive; refused")
        if info.filename in names:
            raise InputError(f"{path}: holds '{info.filename}' twice; refused")
        names[info.filename] = info
    return names


def _program_name(path: Path, names: Mapping[str, Any]) -> str:
    """The one file that holds a program."""
    if _OLD in names:
        return _OLD
    found = [n for n in names if PurePosixPath(n).match("*/models/*.json") and n.count("/") == 2]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(PurePosixPath(name).stem for name in found)
        raise UnsupportedError(f"{path}: holds {len(found)} programs ({listed}); save one of them by itself")
    if any("aotinductor/" in name for name in names):
        raise UnsupportedError(
            f"{path}: holds compiled code and no program; save the program with torch.export.save"
        )
    raise InputError(f"{path}: a zip archive without a program; write it with torch.export.save")


def _json(path: Path, archive: zipfile.ZipFile, names: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One JSON object of the archive, with limits on what unpacking it may take."""
    info = names[name]
    if info.file_size > _LARGEST_JSON or info.file_size > _LARGEST_RATIO * max(info.compress_size, 1024):
        raise InputError(
            f"{path}: '{name}' would unpack from {info.compress_size} to {info.file_size} bytes; refused"
        )
    with archive.open(info) as stream:
        text = stream.read(info.file_size + 1)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: '{name}' is not JSON ({str(error)[:100]}); export it again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: '{name}' holds no program; export it again")
    return value


def _check_version(path: Path, program: Mapping[str, Any]) -> None:
    version = program.get("schema_version")
    major = version.get("major") if isinstance(version, dict) else None
    if major != SCHEMA:
        writer = program.get("torch_version", "unknown")
        raise UnsupportedError(
            f"{path}: its schema has version {major}, written by torch {writer}; version {SCHEMA} is read: "
            "export it with PyTorch 2.6 or later"
        )
