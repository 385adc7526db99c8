"""Which accelerators are known, by which names, and in which file each is described.

Shipped profiles lie in ``hardware_profiles/``, the user's own in ``own_profiles_dir()``; one more file may
be given for a single call. A profile of one's own stands in for the shipped one with the same id. Names
are read from the heads of the files, so that one accelerator costs the reading of one file.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from predictor.accelerator import Accelerator, Note, from_facts
from predictor.errors import InputError, UnknownNameError, did_you_mean
from predictor.profile_file import read_file
from predictor.quantity import read_toml

__all__ = [
    "Accelerator",
    "Note",
    "check_names",
    "find_by_id",
    "find_profile",
    "fold",
    "list_profiles",
    "load_profile",
    "own_profiles",
    "own_profiles_dir",
    "profiles_dir",
    "read_header",
]


def fold(name: str) -> str:
    """The form in which names are compared: no case, space, hyphen or underscore.

    >>> fold("H100 SXM") == fold("h100_sxm") == fold("h100-sxm")
    True
    """
    return re.sub(r"[\s_-]+", "", name).casefold()


def profiles_dir() -> Path:
    """``hardware_profiles/`` beside the package (source checkout), else inside it (installed)."""
    package = Path(__file__).resolve().parent
    beside = package.parent / "hardware_profiles"
    return beside if beside.is_dir() else package / "hardware_profiles"


def own_profiles_dir() -> Path:
    """Folder of the user's own profiles: ``$PREDICTOR_PROFILES``, else in the user's data folder."""
    from platformdirs import user_data_path

    given = os.environ.get("PREDICTOR_PROFILES")
    return Path(given).expanduser() if given else user_data_path("predictor") / "hardware_profiles"


def own_profiles() -> dict[str, Path]:
    """Files of the user's own profiles by id, good and bad ones alike."""
    return {path.stem: path for path in _files(own_profiles_dir())}


def list_profiles(profile: str | None = None) -> list[str]:
    """Ids of all profiles, sorted: shipped, the user's own, and the one in the file ``profile``."""
    given = {Path(profile).stem} if profile else set()
    return sorted({*_shipped(profiles_dir()), *own_profiles(), *given})


def find_profile(name: str, profile: str | None = None) -> Accelerator:
    """The accelerator with this id or alias, or the one in this ``.toml`` file.

    profile  a file whose accelerator is known by its names too, before all others with these names

    Case, spaces, hyphens and underscores do not matter. Raises InputError: an unknown name, with near
    ones; a name with two owners, with both; a fault of the file, with key and rule.
    """
    if profile:
        given = _given(Path(profile))
        if fold(name) in {fold(known) for known in (given.id, *given.aliases)}:
            return given
    if name.endswith(".toml"):
        return _given(Path(name))
    own = _own_entries()
    entry = _owner(name, own)
    if entry is None:
        _refuse_shared(name, own)
        raise UnknownNameError(
            f"unknown accelerator '{name}'{did_you_mean(name, _spelled(own))}\n"
            "known names: predictor hardware list; a chip of your own: predictor hardware add"
        )
    found = _loaded(entry.path, _changed_ns(entry.path))
    if entry.id in own:
        check_names(entry.names, entry.path)
    return found


def find_by_id(id_: str) -> Accelerator:
    """One of ``list_profiles()``; of the user's own raises what ``find_profile`` does, also where a shipped
    profile keeps its name."""
    path = own_profiles().get(id_)
    return _given(path) if path else find_profile(id_)


def load_profile(path: Path) -> Accelerator:
    """Read and check one profile file; InputError names the file, the key and the rule."""
    found = from_facts(read_file(path))
    _check_status(found, path)
    return found


def _check_status(found: Accelerator, path: Path) -> None:
    """Refuse a status that contradicts the fits: one lies beside the file, or where fits are looked for."""
    name = f"{found.id}.fit.json"
    if found.status == "fitted" and not any(
        (folder / name).exists() for folder in (path.parent, own_profiles_dir(), profiles_dir())
    ):
        raise InputError(f"{path}: status is 'fitted', and no {name} lies beside it; write 'spec-only'")
    if found.status == "spec-only" and (path.parent / name).exists():
        raise InputError(f"{path}: status is 'spec-only', and {name} lies beside it; write 'fitted'")


def _given(path: Path) -> Accelerator:
    """The accelerator of a file of the user's, its names checked."""
    found = load_profile(path)
    check_names((found.id, *found.aliases), path)
    return found


def check_names(names: Iterable[str], path: Path) -> None:
    """Raise InputError when a profile or node other than the one of the same id owns one of ``names``."""
    claims = [*_own_entries().values(), *_shipped(profiles_dir()).values(), *_nodes()]
    for name in names:
        other = next((c for c in claims if c.id != path.stem and fold(name) in map(fold, c.names)), None)
        if other:
            raise _two_owners(name, [_Entry(path.stem, path, ()), other])


def read_header(path: Path) -> dict[str, Any]:
    """The keys of a file before its first table, which hold its names; InputError when that is no TOML."""
    try:
        with path.open(encoding="utf-8") as lines:
            head = "".join(takewhile(lambda line: not line.startswith("["), lines))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    return read_toml(path, head)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One file and the names that it claims, its id first, as spelled; ``shared`` ones with others."""

    id: str
    path: Path
    names: tuple[str, ...]
    shared: tuple[str, ...] = ()


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!_.]*.toml"))


def _changed_ns(path: Path) -> int:
    return path.stat().st_mtime_ns


@cache
def _loaded(path: Path, _changed_ns: int) -> Accelerator:
    return load_profile(path)


@cache
def _entry(path: Path, _changed_ns: int) -> _Entry:
    head = read_header(path)
    if head.get("id") != path.stem:
        return _Entry(path.stem, path, (path.stem,))  # refused when used
    return _Entry(path.stem, path, (path.stem, *_texts(head, "aliases")), _texts(head, "shared_names"))


def _texts(head: dict[str, Any], key: str) -> tuple[str, ...]:
    found = head.get(key)
    return tuple(map(str, found)) if isinstance(found, list) else ()


@cache
def _node(path: Path, _changed_ns: int) -> _Entry | None:
    """A server, rack or pod by its names; an instance's hold a colon, which no accelerator's may."""
    try:
        head = read_header(path)
    except InputError:
        return None  # refused when used
    if head.get("kind") == "instance":
        return None
    return _Entry(path.stem, path, (path.stem, *_texts(head, "aliases")))


def _nodes() -> list[_Entry]:
    """Names of nodes, the user's own in place of shipped ones."""
    paths = [*_files(profiles_dir() / "nodes"), *_files(own_profiles_dir() / "nodes")]
    found = {path.stem: _node(path, _changed_ns(path)) for path in paths}
    return [entry for entry in found.values() if entry]


@cache
def _shipped(folder: Path) -> dict[str, _Entry]:
    return {path.stem: _entry(path, _changed_ns(path)) for path in _files(folder)}


@cache
def _shipped_owners(folder: Path) -> dict[str, _Entry]:
    """Folded name -> its shipped owner; a name with two is an error that names both files."""
    owners: dict[str, _Entry] = {}
    for entry in _shipped(folder).values():
        for name in entry.names:
            first = owners.setdefault(fold(name), entry)
            if first is not entry:
                raise _two_owners(name, [first, entry])
    return owners


def _own_entries() -> dict[str, _Entry]:
    """The user's profiles by id; one that cannot be read claims its id alone, and is refused when used."""
    entries = {}
    for id_, path in own_profiles().items():
        try:
            entries[id_] = _entry(path, _changed_ns(path))
        except (InputError, OSError):
            entries[id_] = _Entry(id_, path, (id_,))
    return entries


def _owner(name: str, own: dict[str, _Entry]) -> _Entry | None:
    """Who owns ``name``: a shipped profile, or its stand-in of the same id, before others of ``own``."""
    folded = fold(name)
    shipped = _shipped_owners(profiles_dir()).get(folded)
    if shipped and shipped.id not in own:
        return shipped
    owners = [entry for entry in own.values() if folded in map(fold, entry.names)]
    replaced = [entry for entry in owners if shipped and entry.id == shipped.id]
    if len(owners) > 1 and not replaced:
        raise _two_owners(name, owners)
    return next(iter(replaced or owners), None)


def _refuse_shared(name: str, own: dict[str, _Entry]) -> None:
    """Raise InputError with the ids when ``name`` is one that several accelerators go by."""
    known = _shipped(profiles_dir()) | own
    found = sorted(entry.id for entry in known.values() if fold(name) in map(fold, entry.shared))
    if found:
        raise InputError(f"'{name}' may be {' or '.join(found)}; write its id")


def _two_owners(name: str, owners: list[_Entry]) -> InputError:
    files = " and ".join(str(owner.path) for owner in owners)
    return InputError(
        f"alias '{name}' belongs to {len(owners)} profiles: {files}; take it out of one of them, "
        "or give one the id of the other to stand in for it"
    )


def _spelled(own: dict[str, _Entry]) -> list[str]:
    shipped = _shipped(profiles_dir())
    return [name for entry in (shipped | own).values() for name in entry.names]
