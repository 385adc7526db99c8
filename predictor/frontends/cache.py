"""Recorded graphs kept on disk, so that a model is recorded once.

An entry is found by what was asked for (source, options, versions; for a user's code also the environment)
and holds the hash of every file that reading the model opened outside installed packages, and the names in
their folders; it counts only while all of them are unchanged. What code learns in other ways (a clock, the
network) is not seen. Entries are compressed JSON; a damaged one is as good as none.
"""

import hashlib
import json
import os
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from predictor.errors import InputError
from predictor.frontends import ReadOptions, load_graph, runs_code
from predictor.graph_file import dumps, from_plain, loads, to_plain
from predictor.ir import Graph, at_batch

# The batch of a recording that serves others: those between two batches at which a recording of their own
# was found equal to it. A model that loops over its batch, rounds a share of it, or has a size that the prime
# divides is recorded at every batch anew.
PRIME = 127
MOST_BYTE = 500 * 2**20
_LIBRARIES = ("torch", "timm", "torchvision", "transformers", "onnx", "jax", "numpy", "predictor")

Read = Callable[[Any, ReadOptions], Graph]


def folder() -> Path:
    """Where entries live: $PREDICTOR_CACHE, else the user's cache folder."""
    own = os.environ.get("PREDICTOR_CACHE")
    return Path(own) if own else user_cache_path("predictor") / "graphs"


def cached_graph(source: Any, options: ReadOptions, read: Read = load_graph) -> Graph:
    """The graph of ``source``, from disk when nothing it was read from has changed, else read and kept.

    Modules, callables and tensors given as objects have no name to be found by: they are read each time.
    """
    named = options.inputs is None or all(isinstance(spec, str) for spec in options.inputs)
    if not isinstance(source, str | Path) or not named:
        return read(source, options)
    source = str(source)
    asked = options.batch
    if asked is None:
        return _entry(source, options, read)
    at_prime = replace(options, batch=PRIME)
    prime = _kept(_path(source, at_prime))
    if prime is not None and prime.low <= asked <= prime.high:
        return at_batch(prime.graph, asked)
    kept = _kept(_path(source, options))
    if kept is not None:
        return kept.graph
    with _opened() as files:
        graph = read(source, options)
    scaled = prime.graph if prime is not None else _at_prime(source, at_prime, read)
    if scaled is not None and _same(at_batch(scaled, asked), graph):
        low, high = (prime.low, prime.high) if prime is not None else (PRIME, PRIME)
        _keep(_path(source, at_prime), _Entry(scaled, min(low, asked), max(high, asked)), files)
    else:
        _keep(_path(source, options), _Entry(graph, asked, asked), files)
    return graph


@dataclass(frozen=True, slots=True)
class _Entry:
    """A recording, and the smallest and largest batch it was found to hold for."""

    graph: Graph
    low: int
    high: int


def _entry(source: str, options: ReadOptions, read: Read) -> Graph:
    """The graph at the model's own batch."""
    kept = _kept(_path(source, options))
    if kept is not None:
        return kept.graph
    with _opened() as files:
        graph = read(source, options)
    _keep(_path(source, options), _Entry(graph, graph.batch, graph.batch), files)
    return graph


def _at_prime(source: str, options: ReadOptions, read: Read) -> Graph | None:
    """The graph at the prime batch; None when the model does not take it, as its own batch has told."""
    try:
        return read(source, options)
    except InputError:
        return None


def _same(scaled: Graph, graph: Graph) -> bool:
    """Whether a scaled recording is the one made at that batch: operators, shapes, storages."""

    def calls(of: Graph) -> list[Any]:
        return [
            (op.name, op.phase, op.attrs, [(t.shape, t.dtype) for t in (*op.inputs, *op.outputs)])
            for op in of.ops
        ]

    sizes = [event.byte for event in scaled.events] == [event.byte for event in graph.events]
    return sizes and scaled.batch == graph.batch and calls(scaled) == calls(graph)


def _path(source: str, options: ReadOptions) -> Path:
    return folder() / f"{_key(source, options)}.json.gz"


def _key(source: str, options: ReadOptions) -> str:
    place = str(Path(source).resolve()) if Path(source).exists() else source
    here = "" if source.partition(":")[0] in {"zoo", "timm", "torchvision"} else os.getcwd()
    request = {
        "source": place,
        "here": here,
        "options": asdict(options),
        "versions": _versions(),
        "environment": _environment() if runs_code(source) else {},
    }
    return hashlib.sha256(json.dumps(request, sort_keys=True, default=str).encode()).hexdigest()[:32]


_OF_THE_SHELL = {"_", "SHLVL", "PWD", "OLDPWD", "COLUMNS", "LINES", "PYTEST_CURRENT_TEST", "PREDICTOR_CACHE"}


def _environment() -> dict[str, str]:
    """Environment variables, which a user's code may read, but those that a shell changes by itself."""
    return {name: value for name, value in os.environ.items() if name not in _OF_THE_SHELL}


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0], "code": _own_code()}
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _own_code() -> str:
    """Changes with every edit of this package: sizes and times of its files."""
    package = Path(__file__).resolve().parent.parent
    stats = sorted((str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in package.rglob("*.py"))
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:16]


def _kept(path: Path) -> _Entry | None:
    """The entry, if it is whole and all files and folders it was read from are unchanged."""
    try:
        content = loads(path.read_bytes(), path.name)
        if any(_hash(Path(name)) != digest for name, digest in content["files"].items()):
            return None
        if any(_listing(Path(name)) != digest for name, digest in content["folders"].items()):
            return None
        entry = _Entry(from_plain(content["graph"], path.name), content["low"], content["high"])
        os.utime(path)
    except (OSError, InputError, KeyError, TypeError, AttributeError):
        return None
    return entry


def _listing(path: Path) -> str | None:
    """Digest of the names in a folder: a new file can take the place of an import."""
    try:
        names = sorted(name for name in os.listdir(path) if name != "__pycache__")
    except OSError:
        return None
    return hashlib.sha256("\0".join(names).encode()).hexdigest()


def _hash(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


_listening: list[set[Path]] = []
_audited: list[bool] = []


@contextmanager
def _opened() -> Iterator[set[Path]]:
    """Files opened meanwhile for reading, outside Python's own folders and installed packages.

    Compiled modules stand for their sources. An audit hook cannot be taken away again, so one is set for
    good and does nothing while nobody listens.
    """
    if not _audited:
        sys.addaudithook(_audit)
        _audited.append(True)
    files: set[Path] = set()
    _listening.append(files)
    try:
        yield files
        files |= _imported()
    finally:
        _listening.remove(files)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _listening or event not in {"open", "os.listdir", "os.scandir"}:
        return
    name = arguments[0] if arguments[0] is not None else "."
    read = event != "open" or arguments[1] is None or "r" in arguments[1]
    if isinstance(name, str) and read and _is_users(name):
        for files in _listening:
            files.add(Path(os.path.abspath(name)))


def _imported() -> set[Path]:
    """Source files of modules that are loaded: one imported earlier is not opened again."""
    names = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return {Path(os.path.abspath(name)) for name in names if name and _is_users(name)}


_INSTALLED = (*sysconfig.get_paths().values(), sys.base_prefix, "/proc", "/sys", "/dev")


def _is_users(name: str) -> bool:
    place = os.path.abspath(name)
    package = str(Path(__file__).resolve().parent.parent)
    return not place.startswith(_INSTALLED) and not place.startswith(package) and not place.endswith(".pyc")


def _keep(path: Path, entry: _Entry, opened: set[Path]) -> None:
    """Write an entry; a folder that cannot be written is no obstacle.

    Beside the files that were opened it holds the names in their folders and in folders that were listed.
    """
    files = {place for place in opened if not place.is_dir()}
    folders = {place for place in opened if place.is_dir()} | {place.parent for place in files}
    content = {
        "files": {str(p): digest for p in sorted(files) if (digest := _hash(p)) is not None},
        "folders": {str(p): digest for p in sorted(folders) if (digest := _listing(p)) is not None},
        "low": entry.low,
        "high": entry.high,
        "graph": to_plain(entry.graph),
    }
    with suppress(OSError):
        _write(path, dumps(content))


def _write(path: Path, data: bytes) -> None:
    """Write an entry whole or not at all, and drop the least recently used beyond the size limit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
    entries = sorted(path.parent.glob("*.json.gz"), key=lambda entry: entry.stat().st_mtime, reverse=True)
    total = 0
    for entry in entries:
        total += entry.stat().st_size
        if total > MOST_BYTE:
            entry.unlink(missing_ok=True)
