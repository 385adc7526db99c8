"""One server, rack, pod or cloud instance, its figures in base units, made from its file.

Facts are files of ``hardware_profiles/nodes/``. What a file leaves away and has a class default (latency
of a kind of link, manufacture of a server by its memory) is filled here, marked as such.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from predictor.errors import InputError
from predictor.links import LINK_CLASSES
from predictor.node_file import Instance, NodeFile, load_file, quantities
from predictor.units import GIGA, UNITS
from predictor.values import Sourced

# Server without accelerators where nobody published one: Cloud Carbon Footprint takes 1000 kg per server and
# 100 kg per further CPU; memory by Teads' measurement of p4d (1575 kg for 1152 GB).
SERVER_KG, CPU_KG, MEMORY_KG_PER_GB = 1000.0, 100.0, 1.37
SERVER_SPAN = (0.55, 1.7)
"""Low and high end over the middle: as far as tools and makers' studies of such servers differ."""

SHOWN = {
    "host.cores": ("host cores", ""),
    "host.memory": ("host memory", "GB"),
    "host.power": ("host power", "W"),
    "host.fans": ("fan power", "W"),
    "power.supply": ("supply efficiency", ""),
    "power.system": ("power with host, per accelerator", "W"),
    "power.maximum": ("rated power of the node", "W"),
    "power.training": ("measured power in training", "W"),
    "power.idle": ("measured power at idle", "W"),
    "embodied": ("embodied carbon of the server", "kgCO2e"),
    "price.launch": ("price at launch", "USD"),
    "inside.bandwidth": ("link in the node, per accelerator", "GB/s"),
    "inside.pair": ("link between a pair", "GB/s"),
    "inside.links": ("links per accelerator", ""),
    "inside.link_bandwidth": ("one link", "GB/s"),
    "inside.switches": ("switches in the node", ""),
    "inside.latency": ("start of a collective in the node", "us"),
    "inside.hop": ("further step in the node", "us"),
    "between.bandwidth": ("network of the node", "Gbit/s"),
    "between.cards": ("network cards", ""),
    "between.card_bandwidth": ("one network card", "Gbit/s"),
    "between.oversubscription": ("oversubscription", ""),
    "between.latency": ("start of a collective between nodes", "us"),
    "between.hop": ("further step between nodes", "us"),
    "fabric.bandwidth": ("link across the pod, per accelerator", "GB/s"),
    "fabric.links": ("links across the pod, per accelerator", ""),
    "fabric.link_bandwidth": ("one link across the pod", "GB/s"),
    "fabric.latency": ("start of a collective across the pod", "us"),
    "fabric.hop": ("further step across the pod", "us"),
    "fabric.bisection": ("bisection of the pod", "TB/s"),
    "fabric.all_reduce": ("all-reduce of the pod, together", "TB/s"),
    "fabric.outer": ("network out of the pod, per accelerator", "Gbit/s"),
}
"""Key of a figure -> how it is shown, and its unit."""


@dataclass(frozen=True, slots=True)
class Node:
    """One kind of server, rack, pod or cloud instance, its figures in base units.

    kind        server, rack (servers whose accelerators one link joins), pod (nodes that a fabric joins),
                instance (of a cloud)
    per_node    accelerators in it, as software sees them; of a pod, all of them
    names       other names, cloud instance names among them: "aws:p5.48xlarge"
    power_of    id of the node whose host, power and manufacture it shares; its own for a whole node,
                "" when unknown
    usual       an accelerator named alone stands in this node, or in this pod
    cpu         host processors, in words; ``sockets`` of them
    topology    how the accelerators of the node are joined, in words
    network     how nodes are joined, in words
    fabric      how a pod is joined, in words; "" for others
    dims        sides of a pod's torus
    figures     every sourced figure by its key in the file ("inside.bandwidth")
    notes       what every answer must tell: (topic, text, advice)
    """

    id: str
    name: str
    vendor: str
    kind: str
    accelerator: str
    per_node: int
    names: tuple[str, ...]
    power_of: str
    usual: bool
    cpu: str
    sockets: int | None
    topology: str
    network: str
    fabric: str
    dims: tuple[int, ...]
    figures: dict[str, Sourced]
    notes: tuple[tuple[str, str, str], ...]

    @property
    def host_w(self) -> Sourced | None:
        """CPU, memory, switches, network cards, disks; nearly flat with load [W DC]."""
        return self.figures.get("host.power")

    @property
    def fan_w(self) -> Sourced | None:
        """Fans at load [W DC]."""
        return self.figures.get("host.fans")

    @property
    def psu_efficiency(self) -> Sourced | None:
        """DC over AC power."""
        return self.figures.get("power.supply")

    @property
    def system_w(self) -> Sourced | None:
        """One accelerator with its share of the host [W AC]."""
        return self.figures.get("power.system")

    @property
    def server_embodied_kgco2e(self) -> Sourced | None:
        """Making the node without its accelerators [kg CO2e]."""
        return self.figures.get("embodied")

    @property
    def intranode_byte_per_s(self) -> Sourced | None:
        """One accelerator to the others of the node, one direction [byte/s]."""
        return self.figures.get("inside.bandwidth")

    @property
    def pair_byte_per_s(self) -> Sourced | None:
        """One accelerator to one other where not all links lead there, one direction [byte/s]."""
        return self.figures.get("inside.pair")

    @property
    def internode_byte_per_s(self) -> Sourced | None:
        """Whole node to the others, one direction [byte/s]."""
        return self.figures.get("between.bandwidth")

    @property
    def fabric_byte_per_s(self) -> Sourced | None:
        """One accelerator to other nodes of its pod, one direction [byte/s]."""
        return self.figures.get("fabric.bandwidth")


def node_quantities(node: Node) -> list[tuple[str, Sourced, str]]:
    """Every sourced figure of a node as (name for people, figure, unit to show it in)."""
    return [(name, node.figures[key], unit) for key, (name, unit) in SHOWN.items() if key in node.figures]


def read_nodes(path: Path, devices: int) -> tuple[Node, ...]:
    """The node of a file, or all instances of a family; InputError names file, key and rule.

    devices  what software sees of one board of the accelerator
    """
    file = load_file(path)
    figures = quantities(file, str(path), devices)
    figures |= _latencies(file, figures) | _host(file, figures)
    _check_power(file, figures, str(path))
    node = Node(
        id=file.id,
        name=file.name,
        vendor=file.vendor,
        kind=file.kind,
        accelerator=file.accelerator,
        per_node=_whole(file.accelerators or 1, devices, f"{path}: accelerators"),
        names=tuple(file.aliases),
        power_of=file.hosted_by or (file.id if file.kind in {"server", "rack"} else ""),
        usual=file.usual,
        cpu=file.host.cpu or "",
        sockets=file.host.sockets,
        topology=file.inside.topology or "",
        network=file.between.topology or "",
        fabric=file.fabric.topology if file.fabric else "",
        dims=tuple(file.fabric.dims) if file.fabric else (),
        figures=figures,
        notes=tuple((remark.topic, remark.text, remark.advice) for remark in file.notes),
    )
    return tuple(_instance(node, each, devices, path) for each in file.instance) or (node,)


def _instance(family: Node, size: Instance, devices: int, path: Path) -> Node:
    """One size of a family: the shared facts, with its own count, network and host."""
    where = f"{path}: instance '{size.name}'"
    own = quantities(size, where, devices)
    keys = {"network": "between.bandwidth", "cores": "host.cores", "memory": "host.memory"}
    return replace(
        family,
        id=instance_id(size.name),
        name=size.name.partition(":")[2],
        per_node=_whole(size.accelerators, devices, f"{where}: accelerators"),
        names=(size.name,),
        power_of=size.hosted_by or family.power_of,
        figures=family.figures | {keys[key]: figure for key, figure in own.items()},
    )


def instance_id(name: str) -> str:
    """The id of a cloud instance.

    >>> instance_id("aws:g5.xlarge"), instance_id("azure:Standard_ND40rs_v2")
    ('aws-g5-xlarge', 'azure-standard-nd40rs-v2')
    """
    return name.lower().replace(":", "-").replace(".", "-").replace("_", "-")


def _whole(boards: float, devices: int, where: str) -> int:
    """Devices of ``boards``; half a board is allowed where software sees each half."""
    number = boards * devices
    if number != int(number):
        raise InputError(f"{where}: {boards:g} boards are not a whole number of devices, {devices} a board")
    return int(number)


def _latencies(file: NodeFile, figures: dict[str, Sourced]) -> dict[str, Sourced]:
    """Start and step of collectives by kind of link, where the file has none."""
    found = {}
    fabric = file.fabric.link if file.fabric else None
    for place, link in (("inside", file.inside.link), ("between", file.between.link), ("fabric", fabric)):
        if link:
            found[f"{place}.latency"] = LINK_CLASSES[link].latency_s
            found[f"{place}.hop"] = LINK_CLASSES[link].hop_s
    return {key: figure for key, figure in found.items() if key not in figures}


def _host(file: NodeFile, figures: dict[str, Sourced]) -> dict[str, Sourced]:
    """What follows from the figures of the host: no fans, and manufacture by memory and processors."""
    found = {}
    system = figures.get("power.system")
    if system:
        found["host.fans"] = _within(system, 0.0)
        found["power.supply"] = _within(system, 1.0)
    elif file.host.fanless:
        found["host.fans"] = _within(figures["host.power"], 0.0)
    memory = figures.get("host.memory")
    if memory and file.kind in {"server", "rack"} and file.hosted_by is None:
        found["embodied"] = _manufacture(memory, file.servers, file.host.sockets or 2 * file.servers)
    return {key: figure for key, figure in found.items() if key not in figures}


def _within(known: Sourced, value: float) -> Sourced:
    """``value`` exactly, because ``known`` holds the rest."""
    status = "derived" if known.status == "estimate" else known.status
    return Sourced(value, value, value, known.source, known.as_of, status)


def _manufacture(memory_byte: Sourced, servers: int, sockets: int) -> Sourced:
    """Making ``servers`` without accelerators [kg CO2e].

    kg = servers x 1000 + further sockets x 100 + 1.37 x GB of memory

    Source: Cloud Carbon Footprint (server, CPU), Teads data set (memory of p4d.24xlarge).
    """
    memory_gb = memory_byte.value / GIGA
    value = servers * SERVER_KG + max(sockets - servers, 0) * CPU_KG + memory_gb * MEMORY_KG_PER_GB
    low, high = (value * end for end in SERVER_SPAN)
    source = (
        f"Cloud Carbon Footprint {servers} x 1000 kg + {max(sockets - servers, 0)} x 100 kg further CPU + "
        f"1.37 kg per GB of memory (Teads, p4d), {memory_gb:.0f} GB"
    )
    return Sourced(value, low, high, source, memory_byte.as_of, "derived")


def _check_power(file: NodeFile, figures: dict[str, Sourced], where: str) -> None:
    """Idle below training below the rated maximum; a metered host has fans and a supply."""
    order = [key for key in ("power.idle", "power.training", "power.maximum") if key in figures]
    for lower, upper in pairwise(order):
        if not figures[lower].value < figures[upper].value:
            raise InputError(
                f"{where}: {lower} {figures[lower].value:g} W is not below {upper} {figures[upper].value:g} W"
            )
    if "host.power" in figures:
        for key in ("host.fans", "power.supply"):
            if key not in figures:
                raise InputError(f"{where}: {key} is missing: host.power needs it")
    supply = figures.get("power.supply")
    if supply and not supply.high <= UNITS[""][1]:
        raise InputError(f"{where}: power.supply {supply.high:g} is above 1, it is DC over AC power")
    taken = [key for key in ("host.power", "power.system", "embodied") if key in figures]
    if file.kind == "instance" and taken:
        raise InputError(f"{where}: {taken[0]}: it stands in the file of the server that hosted_by names")
