"""One kind of node, read strictly from ``hardware_profiles/nodes/<id>.toml``.

A file describes a server, a rack, a pod of servers, or a family of cloud instances that share their host;
``hardware_profiles/nodes/README.md`` explains each field.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from predictor.errors import InputError
from predictor.quantity import Quantity, Remark, Table, Text, explain, read_toml, sourced
from predictor.values import Sourced

README = "hardware_profiles/nodes/README.md"

Id = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Link = Literal[
    "nvlink",
    "xgmi",
    "pcie",
    "ici",
    "neuronlink",
    "fabric",
    "infiniband",
    "slingshot",
    "roce",
    "efa",
    "ethernet",
]
Boards = Annotated[float, Field(gt=0)]


class Inside(Table):
    """Links between the accelerators of a node."""

    topology: Text | None = None
    link: Link | None = None
    links: Quantity | None = None
    link_bandwidth: Quantity | None = None
    switches: Quantity | None = None
    bandwidth: Quantity | None = None
    pair: Quantity | None = None
    latency: Quantity | None = None
    hop: Quantity | None = None


class Between(Table):
    """The network between nodes."""

    topology: Text | None = None
    link: Link | None = None
    oversubscription: Quantity | None = None
    cards: Quantity | None = None
    card_bandwidth: Quantity | None = None
    bandwidth: Quantity | None = None
    latency: Quantity | None = None
    hop: Quantity | None = None


class Fabric(Table):
    """The link that joins all accelerators of a pod."""

    topology: Text
    link: Link | None = None
    dims: list[Annotated[int, Field(ge=1)]] = Field(default_factory=list)
    most: Annotated[int, Field(ge=1)] | None = None
    links: Quantity | None = None
    link_bandwidth: Quantity | None = None
    bandwidth: Quantity | None = None
    latency: Quantity | None = None
    hop: Quantity | None = None
    bisection: Quantity | None = None
    all_reduce: Quantity | None = None
    outer: Quantity | None = None


class Host(Table):
    """The server around the accelerators."""

    cpu: Text | None = None
    sockets: Annotated[int, Field(ge=1)] | None = None
    cores: Quantity | None = None
    memory: Quantity | None = None
    power: Quantity | None = None
    fans: Quantity | None = None
    fanless: bool = False


class Power(Table):
    """The node as a whole, at the wall."""

    maximum: Quantity | None = None
    idle: Quantity | None = None
    training: Quantity | None = None
    system: Quantity | None = None
    supply: Quantity | None = None


class Price(Table):
    """What a maker or shop asked."""

    launch: Quantity | None = None


class Instance(Table):
    """One size of a cloud family."""

    name: Annotated[str, Field(pattern=r"^[a-z]+:[A-Za-z0-9._-]+$")]
    accelerators: Boards
    hosted_by: Id | None = None
    network: Quantity | None = None
    cores: Quantity | None = None
    memory: Quantity | None = None


class NodeFile(Table):
    """The whole file; the README holds the same list for people."""

    id: Id
    name: Text
    vendor: Text
    kind: Literal["server", "instance", "rack", "pod"]
    accelerator: Id
    accelerators: Boards | None = None
    servers: Annotated[int, Field(ge=1)] = 1
    aliases: list[Text] = Field(default_factory=list)
    usual: bool = False
    hosted_by: Id | None = None
    inside: Inside = Inside()
    between: Between = Between()
    fabric: Fabric | None = None
    host: Host = Host()
    power: Power = Power()
    embodied: Quantity | None = None
    price: Price = Price()
    instance: list[Instance] = Field(default_factory=list)
    notes: list[Remark] = Field(default_factory=list)


DIMENSIONS = {
    "inside.links": "number",
    "inside.link_bandwidth": "byte rate",
    "inside.switches": "number",
    "inside.bandwidth": "byte rate",
    "inside.pair": "byte rate",
    "inside.latency": "time",
    "inside.hop": "time",
    "between.oversubscription": "number",
    "between.cards": "number",
    "between.card_bandwidth": "byte rate",
    "between.bandwidth": "byte rate",
    "between.latency": "time",
    "between.hop": "time",
    "fabric.links": "number",
    "fabric.link_bandwidth": "byte rate",
    "fabric.bandwidth": "byte rate",
    "fabric.latency": "time",
    "fabric.hop": "time",
    "fabric.bisection": "byte rate",
    "fabric.all_reduce": "byte rate",
    "fabric.outer": "byte rate",
    "host.cores": "number",
    "host.memory": "size",
    "host.power": "power",
    "host.fans": "power",
    "power.maximum": "power",
    "power.idle": "power",
    "power.training": "power",
    "power.system": "power",
    "power.supply": "number",
    "embodied": "carbon",
    "price.launch": "money",
    "network": "byte rate",
    "cores": "number",
    "memory": "size",
}
"""What each table of a file measures."""

PER_BOARD = {"inside.bandwidth", "inside.links", "fabric.bandwidth", "fabric.links", "power.system"}
"""Figures of one board; a board that software sees as two devices is halved."""


def load_file(path: Path) -> NodeFile:
    """Read one file and check its shape; InputError names file, key and rule."""
    where = str(path)
    try:
        file = NodeFile.model_validate(read_toml(path))
    except ValidationError as error:
        raise InputError(explain(error, where, README)) from None
    if file.id != path.stem:
        raise InputError(f"{where}: id is '{file.id}', it must equal the file name '{path.stem}'")
    _check_kind(file, where)
    _check_instances(file, where)
    return file


def _check_kind(file: NodeFile, where: str) -> None:
    """What a kind of node needs and does not take."""
    family, pod = file.kind == "instance", file.kind == "pod"
    if family != bool(file.instance):
        raise InputError(
            f"{where}: instance: kind 'instance' has [[instance]] entries, other kinds have none"
        )
    if family != (file.accelerators is None):
        raise InputError(f"{where}: accelerators: give it at the top, for instances in each [[instance]]")
    if family and (file.aliases or file.usual):
        raise InputError(f"{where}: aliases, usual: instances have only the name in their [[instance]]")
    if pod != (file.fabric is not None):
        raise InputError(f"{where}: fabric: a pod has [fabric], other kinds have none")
    if pod and file.hosted_by is None:
        raise InputError(f"{where}: hosted_by: a pod names the server that it is made of")
    if file.hosted_by == file.id:
        raise InputError(f"{where}: hosted_by: leave it away, a whole node hosts itself")
    if file.host.fanless and (file.host.fans or not file.host.power):
        raise InputError(f"{where}: host.fanless: it stands beside host.power, instead of host.fans")
    if file.fabric and file.fabric.dims and math.prod(file.fabric.dims) != file.accelerators:
        raise InputError(
            f"{where}: fabric.dims: {'x'.join(map(str, file.fabric.dims))} is not {file.accelerators:g}"
        )


def _check_instances(file: NodeFile, where: str) -> None:
    provider = file.id.partition("-")[0]
    names = [size.name.casefold() for size in file.instance]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"{where}: instance: '{twice}' stands there twice")
    for size in file.instance:
        if size.name.partition(":")[0] != provider:
            raise InputError(
                f"{where}: instance: '{size.name}' is not of '{provider}', as the file name says"
            )


def quantities(table: Table, where: str, devices: int) -> dict[str, Sourced]:
    """All quantities below ``table`` by key, in base units, per device where they are of one board."""
    return {
        key: sourced(value, DIMENSIONS[key], f"{where}: {key}", 1 / devices if key in PER_BOARD else 1.0)
        for key, value in _leaves(table, "")
    }


def _leaves(table: Table, prefix: str) -> Iterator[tuple[str, Quantity]]:
    for field in type(table).model_fields:
        value: Any = getattr(table, field)
        if isinstance(value, Quantity):
            yield prefix + field, value
        elif isinstance(value, Table):
            yield from _leaves(value, f"{prefix}{field}.")
