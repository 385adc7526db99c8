"""Nodes by name, without reading more files than the name needs.

Servers, racks and pods are named at the top of their files, before the first table, and only that part is
read to look a name up. Instances carry their provider ("aws:p5.48xlarge"): only its families are read.
A file in the user's own folder stands in for the shipped one of the same name.
"""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from predictor.errors import InputError, UnknownNameError, did_you_mean
from predictor.node import Node, read_nodes
from predictor.node_file import load_file
from predictor.profile import (
    Accelerator,
    find_profile,
    fold,
    list_profiles,
    own_profiles,
    own_profiles_dir,
    profiles_dir,
    read_header,
)
from predictor.quantity import read_toml

_INSTANCE_NAME = re.compile(r"""^name *= *["']([^"':]+:[^"']+)["']""", re.MULTILINE)


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
    instances: tuple[str, ...] = ()


def nodes_dirs() -> tuple[Path, Path]:
    """Folders of the shipped nodes and of the user's own."""
    return profiles_dir() / "nodes", own_profiles_dir() / "nodes"


def find_node(name: str) -> Node | None:
    """The node with this id or name, or of this ``.toml`` file; None when the name is not a node's.

    The provider of an instance may be left out ("p5.48xlarge") where one provider alone has the name. A
    name with a provider ("aws:...") can only be an instance: InputError when it is not known.
    """
    if name.endswith(".toml"):
        return _from_file(Path(name))
    heads = _heads()
    owner = _owners(heads).get(fold(name))
    if owner:
        return _load(owner, heads)[0]
    full = name if ":" in name else _with_provider(name, heads)
    known = _instances(fold(full))
    found = known.get(fold(full)) or known.get(fold(full.replace(":", ":Standard_", 1)))
    if found is None and ":" in name:
        raise InputError(
            f"unknown cloud instance '{name}'{did_you_mean(name, instance_names())}\n"
            "an accelerator will do as well, for example '8x h100'; known names: predictor hardware list"
        )
    return found


def find_accelerator(name: str, profile: str | None = None) -> Accelerator:
    """The accelerator ``find_profile`` finds; a name that nothing has is refused with near ones of all."""
    try:
        return find_profile(name, profile)
    except UnknownNameError:
        if name.endswith(".toml"):
            raise
    heads = _heads()
    nodes = [known for head in heads if head.kind != "instance" for known in (head.id, *head.names)]
    near = did_you_mean(name, [*_accelerator_names(), *nodes]) or _near_instances(name)
    raise InputError(
        f"unknown accelerator, node or instance '{name}'{near}\n"
        "known names: predictor hardware list; a chip of your own: predictor hardware add"
    )


def instance_names() -> list[str]:
    """Cloud instances as their providers spell them, the provider in front: "aws:p5.48xlarge"."""
    return [name for head in _heads() for name in head.instances]


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


def _bare(name: str) -> str:
    """An instance's name without its provider and without what Azure puts in front of all names, folded."""
    return fold(name.partition(":")[2] or name).removeprefix("standard")


def _with_provider(name: str, heads: tuple[_Head, ...]) -> str:
    """An instance named without its provider, with it; ``name`` where none has it. Two are refused."""
    spelled = _by_bare_name(heads).get(_bare(name), ())
    if len(spelled) > 1:
        raise InputError(
            f"'{name}' is an instance of {len(spelled)} providers: {', '.join(spelled)}; name one"
        )
    return spelled[0] if spelled else name


@cache
def _by_bare_name(heads: tuple[_Head, ...]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for spelled in dict.fromkeys(name for head in heads for name in head.instances):
        found[_bare(spelled)] = (*found.get(_bare(spelled), ()), spelled)
    return found


def _near_instances(name: str) -> str:
    """Instances whose names are near without their provider; they are told with it."""
    spelled = {_bare(known): known for known in instance_names()}
    near = get_close_matches(_bare(name), spelled, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(spelled[known]) for known in near)}?" if near else ""


def _accelerator_names() -> list[str]:
    """Ids and aliases of all profiles as spelled; of a faulty one of the user's its id."""
    names = list_profiles()
    for folder in (profiles_dir(), own_profiles_dir()):
        for path in _files(folder):
            try:
                aliases = read_header(path).get("aliases", [])
            except InputError:
                continue
            names += map(str, aliases) if isinstance(aliases, list) else []
    return names


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


def _top(path: Path, text: str | None = None) -> dict[str, object]:
    """Keys before the first table of a file, of its ``text`` where that was read already."""
    if text is None:
        return read_header(path)
    return read_toml(path, re.split(r"^\[", text, maxsplit=1, flags=re.MULTILINE)[0])


@cache
def _head(path: Path, changed_ns: int) -> _Head:
    text = path.read_text(encoding="utf-8")
    top = _top(path, text)
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
        instances=tuple(_INSTANCE_NAME.findall(text)) if top.get("kind") == "instance" else (),
    )


@cache
def _owners(heads: tuple[_Head, ...]) -> dict[str, _Head]:
    """Folded id or alias of every server, rack and pod -> its head; a name with two owners is refused."""
    own = own_profiles()
    profiles = {fold(id_): f"accelerator {id_}" for id_ in list_profiles() if id_ not in own}
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
