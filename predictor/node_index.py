"""Nodes by name, without reading more files than the name needs.

Servers, racks and pods are named at the top of their files, before the first table, and only that part is
read to look a name up. Instances carry their provider ("aws:p5.48xlarge"): only its families are read.
A file in the user's own folder stands in for the shipped one of the same name.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from predictor.errors import InputError, did_you_mean
from predictor.node import Node, read_nodes
from predictor.node_file import load_file
from predictor.profile import fold, list_profiles, own_profiles_dir, profiles_dir
from predictor.quantity import read_toml


@dataclass(frozen=True, slots=True)
class _Head:
    """What stands in a file before its first table."""

    id: str
    path: Path
    changed_ns: int
    kind: str
    accelerator: str
    hosted_by: str
    usual: bool
    names: tuple[str, ...]


def nodes_dirs() -> tuple[Path, Path]:
    """Folders of the shipped nodes and of the user's own."""
    return profiles_dir() / "nodes", own_profiles_dir() / "nodes"


def find_node(name: str) -> Node | None:
    """The node with this id or name, or of this ``.toml`` file; None when the name is not a node's.

    A name with a provider ("aws:...") can only be an instance: InputError when it is not known.
    """
    if name.endswith(".toml"):
        return _from_file(Path(name))
    heads = _heads()
    owner = _owners(heads).get(fold(name))
    if owner:
        return _load(owner, heads)[0]
    known = _instances(fold(name))
    found = known.get(fold(name)) or known.get(fold(name.replace(":", ":Standard_", 1)))
    if found is None and ":" in name:
        spelled = [spelling for node in list_nodes() for spelling in node.names if ":" in spelling]
        raise InputError(
            f"unknown cloud instance '{name}'{did_you_mean(name, spelled)}\n"
            "an accelerator will do as well, for example '8x h100'; known names: predictor hardware list"
        )
    return found


def list_nodes() -> list[Node]:
    """All nodes, pods and instances by id, every rule between files checked."""
    heads = _heads()
    owners = {folded: head.id for folded, head in _owners(heads).items()}
    found = [node for head in heads for node in _load(head, heads)]
    for node in found:
        for name in {fold(name) for name in (node.id, *node.names)}:
            if owners.setdefault(name, node.id) != node.id:
                raise InputError(f"'{name}' belongs to both {owners[name]} and {node.id}")
    return sorted(found, key=lambda node: node.id)


def usual_node(accelerator: str) -> Node | None:
    """The server or rack in which an accelerator named alone is taken to stand."""
    return _usual(accelerator, pod=False)


def usual_pod(accelerator: str) -> Node | None:
    """The pod whose fabric joins the nodes of an accelerator wherever it is rented (TPU)."""
    return _usual(accelerator, pod=True)


def host_of(node: Node) -> Node | None:
    """The whole node whose host, power and manufacture ``node`` shares; None when unknown."""
    if node.power_of in {"", node.id}:
        return node if node.power_of else None
    return find_node(node.power_of)


def _usual(accelerator: str, pod: bool) -> Node | None:
    heads = _heads()
    found = [h for h in heads if h.usual and h.accelerator == accelerator and (h.kind == "pod") == pod]
    if len(found) > 1:
        raise InputError(f"{found[1].path}: usual: {found[0].id} is the usual one of {accelerator} already")
    return _load(found[0], heads)[0] if found else None


def _heads() -> tuple[_Head, ...]:
    """Heads of all files by id, the user's in place of shipped ones."""
    shipped, own = nodes_dirs()
    return _merged(_shipped(shipped), tuple(_own_head(path) for path in _files(own)))


def _own_head(path: Path) -> _Head:
    """A file of the user's; one that cannot be read claims its id alone, and is refused when used."""
    changed_ns = path.stat().st_mtime_ns
    try:
        return _head(path, changed_ns)
    except InputError:
        return _Head(
            path.stem, path, changed_ns, kind="", accelerator="", hosted_by="", usual=False, names=()
        )


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!_.]*.toml"))


@cache
def _shipped(folder: Path) -> tuple[_Head, ...]:
    return tuple(_head(path, path.stat().st_mtime_ns) for path in _files(folder))


@cache
def _merged(shipped: tuple[_Head, ...], own: tuple[_Head, ...]) -> tuple[_Head, ...]:
    return tuple(sorted({head.id: head for head in (*shipped, *own)}.values(), key=lambda head: head.id))


def _top(path: Path) -> dict[str, object]:
    """Keys before the first table."""
    text = path.read_text(encoding="utf-8")
    return read_toml(path, re.split(r"^\[", text, maxsplit=1, flags=re.MULTILINE)[0])


@cache
def _head(path: Path, changed_ns: int) -> _Head:
    top = _top(path)
    aliases = top.get("aliases")
    return _Head(
        id=path.stem,
        path=path,
        changed_ns=changed_ns,
        kind=str(top.get("kind", "")),
        accelerator=str(top.get("accelerator", "")),
        hosted_by=str(top.get("hosted_by", "")),
        usual=top.get("usual") is True,
        names=tuple(map(str, aliases)) if isinstance(aliases, list) else (),
    )


@cache
def _owners(heads: tuple[_Head, ...]) -> dict[str, _Head]:
    """Folded id or alias of every server, rack and pod -> its head; a name with two owners is refused."""
    profiles = {fold(id_): f"accelerator {id_}" for id_ in list_profiles()}
    owners: dict[str, _Head] = {}
    for head in heads:
        for name in (head.id, *head.names) if head.kind != "instance" else ():
            folded = fold(name)
            first = profiles.get(folded) or owners.setdefault(folded, head).id
            if first != head.id:
                raise InputError(f"{head.path}: aliases: '{name}' belongs to both {first} and {head.id}")
    return owners


def _instances(folded: str) -> dict[str, Node]:
    """Folded id or name -> instance, for the provider that ``folded`` begins with."""
    heads = _heads()
    providers = {head.id.partition("-")[0] for head in heads if head.kind == "instance"}
    provider = next((name for name in providers if folded.startswith(name)), None)
    return _of_provider(provider, heads) if provider else {}


@cache
def _of_provider(provider: str, heads: tuple[_Head, ...]) -> dict[str, Node]:
    families = [h for h in heads if h.kind == "instance" and h.id.partition("-")[0] == provider]
    nodes = [node for head in families for node in _load(head, heads)]
    return {fold(name): node for node in nodes for name in (node.id, *node.names)}


def _from_file(path: Path) -> Node | None:
    """The node of a file outside the folders; None when there is none or it describes an accelerator."""
    if not path.is_file() or "accelerator" not in _top(path):
        return None
    nodes = _load(_head(path.resolve(), path.stat().st_mtime_ns), _heads())
    if len(nodes) > 1:
        names = ", ".join(name for node in nodes for name in node.names)
        raise InputError(f"{path} holds {len(nodes)} instances: {names}; put it into {nodes_dirs()[1]}")
    return nodes[0]


@cache
def _load(head: _Head, heads: tuple[_Head, ...]) -> tuple[Node, ...]:
    """The node of a file, or all instances of a family, its links to other files checked."""
    if not head.accelerator:
        load_file(head.path)  # says what is wrong with it
    devices = _top(_board_path(head)).get("software_sees", 1)
    nodes = read_nodes(head.path, devices if isinstance(devices, int) else 1)
    for node in nodes:
        if node.power_of not in {"", head.id}:
            _check_host(head, node, heads)
    return nodes


def _board_path(head: _Head) -> Path:
    """The profile of a node's accelerator, the user's own first."""
    for folder in (own_profiles_dir(), profiles_dir()):
        path = folder / f"{head.accelerator}.toml"
        if path.is_file():
            return path
    raise InputError(
        f"{head.path}: accelerator: unknown accelerator '{head.accelerator}'"
        f"{did_you_mean(head.accelerator, list_profiles())}"
    )


def _check_host(head: _Head, node: Node, heads: tuple[_Head, ...]) -> None:
    """A host is a whole server or rack with the same accelerator; a pod is filled by whole ones."""
    where = f"{head.path}: hosted_by: '{node.power_of}'"
    host = next((h for h in heads if h.id == node.power_of), None)
    if host is None or host.kind not in {"server", "rack"}:
        raise InputError(f"{where} is no server or rack of {nodes_dirs()[0]}")
    if host.accelerator != head.accelerator:
        raise InputError(f"{where} holds {host.accelerator}, not {head.accelerator}")
    if host.hosted_by:
        raise InputError(f"{where} is itself hosted by another; name that one")
    size = _load(host, heads)[0].per_node
    if node.kind == "pod" and node.per_node % size:
        raise InputError(f"{where} has {size} accelerators; {node.per_node} of a pod are no multiple of it")
