"""Accelerators in their nodes: how many, wired how fast, fed by which host.

``build_machine`` turns what people write ("8x h100", "aws:p5.48xlarge", a count, a number of nodes)
into one ``Machine``. Facts about nodes are rows of ``data/nodes.csv``; an accelerator without a row
gets the class defaults below, marked ``estimate`` with a wide range and named in ``notes``.
"""

import csv
import math
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from predictor.errors import InputError, did_you_mean
from predictor.profile import Accelerator, Note, find_profile, fold
from predictor.units import BIT, GIGA, UNITS
from predictor.values import STATUSES, Sourced

NODES_CSV = Path(__file__).with_name("data") / "nodes.csv"

COLUMNS = (
    "id accelerator per_node names power_of internode_gbit_s intranode_gb_s links_source links_status "
    "host_w fan_w psu_efficiency system_w power_source power_status "
    "server_kgco2e server_source server_status as_of"
)
"""Columns of the file; ``data/README.md`` explains them."""


def _estimate(value: float, low: float, high: float, source: str) -> Sourced:
    return Sourced(value, low, high, f"estimate: {source}", "2026-11-20", "estimate")


# Host share of one accelerator where no node was metered: base plus a share of the board limit, between
# half and twice that. Eight H100 get 1600 W (metered 1700), eight A100 1120 W (1500), one RTX 3090 130 W.
HOST_BASE_W, HOST_LIMIT_SHARE, HOST_SPAN = 60.0, 0.20, 2.0
FAN_LIMIT_SHARE = _estimate(
    0.06, 0.02, 0.125, "fans, share of the board limit; 700 of 5600 W in an air-cooled 8x H100"
)
PSU_EFFICIENCY = _estimate(0.95, 0.90, 0.975, "vendors claim 0.94 to 0.96, MLPerf nodes measure 0.97")
SERVER_KGCO2E = _estimate(300, 120, 700, "server without accelerators, per accelerator: an eighth of 2400 kg")
LIMIT_W = _estimate(300, 100, 700, "board power where no limit is published")
INTERNODE_BYTE_PER_S = _estimate(
    25 * GIGA * BIT, 3 * GIGA * BIT, 100 * GIGA * BIT, "25 Gbit/s per accelerator, 3 to 100"
)
INTRANODE_BYTE_PER_S = _estimate(15.75 * GIGA, 6 * GIGA, 31 * GIGA, "PCIe 3.0 x16, one direction")


@dataclass(frozen=True, slots=True)
class Node:
    """One kind of server or cloud instance, a row of ``data/nodes.csv``.

    names                   cloud instance names: "aws:p5.48xlarge"
    power_of                id of the whole node whose power and manufacture are shared, "" when unknown
    host_w                  CPU, memory, switches, NIC, disks; nearly flat with load [W DC]
    fan_w                   fans at load [W DC]
    psu_efficiency          DC over AC power
    system_w                one accelerator with its share of the host [W AC]
    server_embodied_kgco2e  making the node without its accelerators [kg CO2e]
    internode_byte_per_s    whole node to the others, one direction [byte/s]
    intranode_byte_per_s    one accelerator to the others, one direction [byte/s]
    """

    id: str
    accelerator: str
    per_node: int
    names: tuple[str, ...]
    power_of: str
    host_w: Sourced | None
    fan_w: Sourced | None
    psu_efficiency: Sourced | None
    system_w: Sourced | None
    server_embodied_kgco2e: Sourced | None
    internode_byte_per_s: Sourced | None
    intranode_byte_per_s: Sourced | None


@dataclass(frozen=True, slots=True)
class Machine:
    """What the job runs on.

    count                   accelerators in all
    nodes                   nodes they fill, the last one perhaps in part
    per_node                accelerators of the job in a full node
    node_host_w             host power charged to the job, per node [W DC]
    node_fan_w              fans, charged likewise [W DC]
    psu_efficiency          node AC power = (accelerators + host + fans) / psu_efficiency
    internode_byte_per_s    one accelerator to other nodes, one direction [byte/s]
    intranode_byte_per_s    one accelerator to the others of its node, one direction [byte/s]
    server_embodied_kgco2e  making one node without accelerators, charged likewise [kg CO2e]
    system_w                one accelerator, host included, where only that was metered (TPU); it then
                            stands for the whole sum above [W AC]
    notes                   what was assumed about nodes: (topic, text, advice); the accelerator has its own

    A job that uses part of one node is charged that part of host, fans and manufacture, as a cloud
    slice is. A job over several nodes is charged every node whole.
    """

    accelerator: Accelerator
    count: int
    nodes: int
    per_node: int
    node_host_w: Sourced
    node_fan_w: Sourced
    psu_efficiency: Sourced
    internode_byte_per_s: Sourced
    intranode_byte_per_s: Sourced
    server_embodied_kgco2e: Sourced
    system_w: Sourced | None
    notes: tuple[Note, ...]


def build_machine(hardware: str, count: int | None = None, nodes: int | None = None) -> Machine:
    """The machine people mean by ``hardware``, ``count`` and ``nodes``.

    hardware  id or alias of an accelerator ("h100"), of a node ("nvidia-dgx-h100") or a cloud instance
              ("aws:p5.48xlarge"), with a count in front if wanted ("8x h100")
    count     accelerators in all; when ``hardware`` is a node or instance, how many of those; default 1
    nodes     nodes in all; with ``count`` it must agree
    """
    name, written = _split(hardware)
    if written is not None and count not in (None, written):
        raise InputError(f"'{hardware}' says {written} and count says {count}; give one of them")
    count = count if written is None else written
    for what, number in (("count", count), ("nodes", nodes)):
        if number is not None and number < 1:
            raise InputError(f"{what} is {number}, it must be at least 1")
    node = find_node(name)
    if node:
        if None not in (count, nodes) and count != nodes:
            raise InputError(f"{count} of '{name}' are {count} nodes, not {nodes}; give one of them")
        return _assemble(find_profile(node.accelerator), node, (count or nodes or 1) * node.per_node)
    accelerator = find_profile(name)
    usual = _usual_node(accelerator)
    per_node = usual.per_node if usual else accelerator.per_node
    if count is None:
        count = nodes * per_node if nodes else 1
    _check_nodes(name, count, nodes, per_node)
    return _assemble(accelerator, usual, count)


def find_node(name: str) -> Node | None:
    """The node with this id or cloud name, None when the name is not a node's.

    A name with a provider ("aws:...") can only be an instance: InputError when it is not known.
    """
    spelled = _spelled()
    found = spelled.get(fold(name)) or spelled.get(fold(name.replace(":", ":Standard_", 1)))
    if found is None and ":" in name:
        known = [spelling for node in _nodes().values() for spelling in node.names]
        raise InputError(
            f"unknown cloud instance '{name}'{did_you_mean(name, known)}\n"
            "an accelerator will do as well, for example '8x h100'; known names: predictor hardware"
        )
    return found


def list_nodes() -> list[Node]:
    """All nodes and cloud instances, in the order of the file."""
    return list(_nodes().values())


def _split(hardware: str) -> tuple[str, int | None]:
    """The name and the count written before it.

    >>> _split("8x h100"), _split("h100")
    (('h100', 8), ('h100', None))
    """
    match = re.match(r"^\s*(\d+)\s*[xX*]\s*(\S.*)$", hardware)
    return (match[2].strip(), int(match[1])) if match else (hardware.strip(), None)


def _check_nodes(name: str, count: int, nodes: int | None, per_node: int) -> None:
    """Refuse a number of nodes that ``count`` accelerators do not fill."""
    needed = math.ceil(count / per_node)
    if nodes in (None, needed):
        return
    assert nodes is not None
    raise InputError(
        f"{count} of '{name}' fill {needed} node(s) of {per_node}, not {nodes}; give nodes={needed}, "
        f"or a count from {(nodes - 1) * per_node + 1} to {nodes * per_node}"
    )


def _usual_node(accelerator: Accelerator) -> Node | None:
    """The first whole node of the file that holds this accelerator."""
    return next(
        (n for n in _nodes().values() if n.accelerator == accelerator.id and n.power_of == n.id), None
    )


def _assemble(accelerator: Accelerator, node: Node | None, count: int) -> Machine:
    """Put the job's accelerators into nodes and charge it for them."""
    size = node.per_node if node else accelerator.per_node
    used, nodes = min(count, size), math.ceil(count / size)
    whole = _nodes().get(node.power_of) if node else None
    host = _share_of(whole, used) if whole else _class_default(accelerator, used)
    intranode = (
        (node and node.intranode_byte_per_s) or accelerator.intranode_byte_per_s or INTRANODE_BYTE_PER_S
    )
    internode = _internode(accelerator, node, count, intranode)
    notes = _whole_notes(whole, used, host[0]) if whole else _default_note(accelerator, host[0])
    return Machine(
        accelerator=accelerator,
        count=count,
        nodes=nodes,
        per_node=used,
        node_host_w=host[0],
        node_fan_w=host[1],
        psu_efficiency=host[2],
        internode_byte_per_s=internode,
        intranode_byte_per_s=intranode,
        server_embodied_kgco2e=host[3],
        system_w=whole.system_w if whole else None,
        notes=notes + (_nodes_notes(count, nodes, size, internode) if nodes > 1 else ()),
    )


_Host = tuple[Sourced, Sourced, Sourced, Sourced]
"""Host power, fan power, supply efficiency, manufacture."""


def _share_of(node: Node, used: int) -> _Host:
    """The host of ``node`` in the share of its accelerators that the job uses in it."""
    assert node.host_w
    assert node.fan_w
    assert node.psu_efficiency
    assert node.server_embodied_kgco2e
    share = used / node.per_node
    return (
        _scaled(node.host_w, share),
        _scaled(node.fan_w, share),
        node.psu_efficiency,
        _scaled(node.server_embodied_kgco2e, share),
    )


def _class_default(accelerator: Accelerator, used: int) -> _Host:
    """The host of a node nobody metered, by the board limit of its accelerators."""
    limit_w = (accelerator.limit_w or LIMIT_W).value
    each_w = HOST_BASE_W + HOST_LIMIT_SHARE * limit_w
    rule = f"{HOST_BASE_W:g} W + {HOST_LIMIT_SHARE:g} of the board limit, per accelerator"
    return (
        _scaled(_estimate(each_w, each_w / HOST_SPAN, each_w * HOST_SPAN, rule), used),
        _scaled(FAN_LIMIT_SHARE, used * limit_w),
        PSU_EFFICIENCY,
        _scaled(SERVER_KGCO2E, used),
    )


def _internode(accelerator: Accelerator, node: Node | None, count: int, intranode: Sourced) -> Sourced:
    """Bandwidth of one accelerator to other nodes: the fabric's own link while the job fits in it."""
    if accelerator.per_node < count <= accelerator.fabric_size:
        return intranode
    if node and node.internode_byte_per_s:
        return _scaled(node.internode_byte_per_s, 1 / node.per_node)
    return accelerator.internode_byte_per_s or INTERNODE_BYTE_PER_S


def _whole_notes(whole: Node, used: int, host_w: Sourced) -> tuple[Note, ...]:
    notes: tuple[Note, ...] = ()
    if host_w.status == "estimate":
        text = f"host power of a {whole.id} was not metered: {_span_w(host_w)} estimated"
        notes += (("host power", text, "meter a node and correct predictor/data/nodes.csv"),)
    if used < whole.per_node:
        text = f"{used} of {whole.per_node} accelerators of a {whole.id}: charged that share of its host"
        notes += (("part of a node", text, "give the whole node's count if you reserve it whole"),)
    return notes


def _span_w(power_w: Sourced) -> str:
    return f"{power_w.value:.0f} W ({power_w.low:.0f} to {power_w.high:.0f}) per node"


def _default_note(accelerator: Accelerator, host_w: Sourced) -> tuple[Note, ...]:
    text = f"no node with {accelerator.id} was metered: {_span_w(host_w)} taken by its class"
    return (("host power", text, "add the node to predictor/data/nodes.csv"),)


def _nodes_notes(count: int, nodes: int, size: int, internode: Sourced) -> tuple[Note, ...]:
    notes: tuple[Note, ...] = ()
    if count < nodes * size:
        text = f"{count} accelerators on {nodes} nodes of {size}: every host is charged whole"
        notes += (("part of a node", text, f"use {nodes * size} accelerators"),)
    if internode is INTERNODE_BYTE_PER_S:
        text = "network between nodes not known: 25 Gbit/s per accelerator assumed, 3 to 100"
        notes += (("network", text, "name the cloud instance, or add the node to predictor/data/nodes.csv"),)
    return notes


def _scaled(number: Sourced, factor: float) -> Sourced:
    return replace(number, value=number.value * factor, low=number.low * factor, high=number.high * factor)


@cache
def _nodes() -> dict[str, Node]:
    return read_nodes(NODES_CSV)


@cache
def _spelled() -> dict[str, Node]:
    return {fold(spelling): node for node in _nodes().values() for spelling in (node.id, *node.names)}


def read_nodes(path: Path) -> dict[str, Node]:
    """Read and check a table of nodes; InputError names file, row and column."""
    nodes: dict[str, Node] = {}
    owner: dict[str, str] = {}
    with path.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(line for line in lines if not line.startswith("#"))
        odd = set(reader.fieldnames or ()) ^ set(COLUMNS.split())
        if odd:
            raise InputError(f"{path.name}: columns differ in {', '.join(sorted(odd))}; accepted: {COLUMNS}")
        for row in reader:
            node = _node(row, f"{path.name}: {row['id']}")
            for name in (node.id, *node.names):
                first = owner.setdefault(fold(name), node.id)
                if first != node.id or node.id in nodes:
                    raise InputError(f"{path.name}: '{name}' belongs to both {first} and {node.id}")
            nodes[node.id] = node
    for node in nodes.values():
        if node.power_of and not (node.power_of in nodes and nodes[node.power_of].host_w):
            raise InputError(f"{path.name}: {node.id}: power_of '{node.power_of}' is no row with host_w")
    return nodes


def _node(row: dict[str, str], where: str) -> Node:
    if not row["per_node"].isdigit() or int(row["per_node"]) < 1:
        raise InputError(f"{where}: per_node is '{row['per_node']}', it must be a whole number of at least 1")
    return Node(
        id=row["id"],
        accelerator=row["accelerator"],
        per_node=int(row["per_node"]),
        names=tuple(row["names"].split()),
        power_of=row["power_of"],
        host_w=_read(row, "host_w", "W", "power", where),
        fan_w=_read(row, "fan_w", "W", "power", where),
        psu_efficiency=_read(row, "psu_efficiency", "", "power", where),
        system_w=_read(row, "system_w", "W", "power", where),
        server_embodied_kgco2e=_read(row, "server_kgco2e", "kgCO2e", "server", where),
        internode_byte_per_s=_read(row, "internode_gbit_s", "Gbit/s", "links", where),
        intranode_byte_per_s=_read(row, "intranode_gb_s", "GB/s", "links", where),
    )


_RANGED = re.compile(r"^(\d+(?:\.\d+)?)(?: \((\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)\))?$")


def _read(row: dict[str, str], key: str, unit: str, origin: str, where: str) -> Sourced | None:
    """A cell such as ``1700 (1400-2100)``, middle and range, in base units; None when empty.

    ``origin`` names the columns that hold its source and status.
    """
    if not row[key]:
        return None
    match = _RANGED.match(row[key])
    source, status = row[f"{origin}_source"], row[f"{origin}_status"]
    if not match:
        raise InputError(f"{where}: {key} is '{row[key]}'; write 1700 or 1700 (1400-2100)")
    if not source or status not in STATUSES:
        raise InputError(
            f"{where}: {key} needs {origin}_source, and {origin}_status out of {', '.join(STATUSES)}"
        )
    value, low, high = (float(part) for part in (match[1], match[2] or match[1], match[3] or match[1]))
    if not low <= value <= high:
        raise InputError(f"{where}: {key}: low {low} <= value {value} <= high {high} does not hold")
    factor = UNITS[unit][1]
    return Sourced(value * factor, low * factor, high * factor, source, row["as_of"], status)
