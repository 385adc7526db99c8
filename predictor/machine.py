"""Accelerators in their nodes: how many, wired how fast, fed by which host.

``build_machine`` turns what people write ("8x h100", "aws:p5.48xlarge", "tpu-v4-pod", a count, a number of
nodes) into one ``Machine``. Facts about nodes are files of ``hardware_profiles/nodes/``; what no file says
is taken by class, marked ``estimate`` with a wide range and named in ``notes``.
"""

import math
import re
from dataclasses import dataclass, replace

from predictor.accelerator import LIMIT_W
from predictor.errors import InputError
from predictor.hosts import PSU_EFFICIENCY, host_share
from predictor.node import SHOWN, Node, node_quantities
from predictor.node_index import find_accelerator, find_node, host_of, list_nodes, usual_node, usual_pod
from predictor.profile import Accelerator, Note
from predictor.tpu_slice import TpuSlice, read_slice
from predictor.values import Sourced
from predictor.wiring import (
    INTERNODE_BYTE_PER_S,
    Fabric,
    Wiring,
    find_fabric,
    internode_rate,
    intranode_rate,
    wire,
)

__all__ = [
    "LIMIT_W",
    "PSU_EFFICIENCY",
    "Machine",
    "Node",
    "build_machine",
    "find_accelerator",
    "find_node",
    "list_nodes",
    "node_quantities",
]


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
    wiring                  how they are joined, and how long a message takes to start
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
    wiring: Wiring
    notes: tuple[Note, ...]


def build_machine(
    hardware: str, count: int | None = None, nodes: int | None = None, profile: str | None = None
) -> Machine:
    """The machine people mean by ``hardware``, ``count`` and ``nodes``.

    hardware  id or alias of an accelerator ("h100"), of a node or pod ("nvidia-dgx-h100", "tpu-v4-pod") or
              a cloud instance ("aws:p5.48xlarge", or "p5.48xlarge" where one provider has it) or a TPU
              slice ("v3-8"), with a count in front if wanted ("8x h100")
    count     accelerators in all; of a node, pod, instance or slice, how many of those; default 1
    nodes     nodes in all; with ``count`` it must agree
    profile   a profile file whose accelerator is known by its names too
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
        return _of_node(node, name, count, nodes, find_accelerator(node.accelerator, profile))
    tpu_slice = read_slice(name)
    if tpu_slice:
        return _of_slice(tpu_slice, name, count or 1, nodes, profile)
    accelerator = find_accelerator(name, profile)
    usual = usual_node(accelerator.id)
    per_node = usual.per_node if usual else accelerator.per_node
    if count is None:
        count = nodes * per_node if nodes else 1
    _check_nodes(name, count, nodes, per_node)
    return _assemble(accelerator, usual, count, usual_pod(accelerator.id))


def _split(hardware: str) -> tuple[str, int | None]:
    """The name and the count written before it.

    >>> _split("8x h100"), _split("h100")
    (('h100', 8), ('h100', None))
    """
    match = re.match(r"^\s*(\d+)\s*[xX*]\s*(\S.*)$", hardware)
    return (match[2].strip(), int(match[1])) if match else (hardware.strip(), None)


def _of_node(
    node: Node, name: str, count: int | None, nodes: int | None, accelerator: Accelerator
) -> Machine:
    """``count`` whole nodes, instances or pods of one kind."""
    pod = node if node.kind == "pod" else usual_pod(accelerator.id)
    unit = host_of(node) if node.kind == "pod" else node
    assert unit is not None
    each = node.per_node // unit.per_node
    if count is not None and nodes not in (None, count * each):
        raise InputError(f"{count} of '{name}' are {count * each} nodes, not {nodes}; give one of them")
    if count is None and nodes is not None and nodes % each:
        raise InputError(f"a '{name}' has {each} nodes, and {nodes} are not a multiple of it; give count")
    number = count or (nodes or each) // each
    machine = _assemble(accelerator, unit, number * node.per_node, pod)
    return _told(machine, _number_note(number, node.per_node, name)) if number > 1 else machine


def _of_slice(tpu_slice: TpuSlice, name: str, number: int, nodes: int | None, profile: str | None) -> Machine:
    """``number`` TPU slices, each joined by links of its own."""
    accelerator = find_accelerator(tpu_slice.accelerator, profile)
    host, pod = usual_node(accelerator.id), usual_pod(accelerator.id)
    chips = tpu_slice.chips
    if pod and chips > pod.per_node:
        raise InputError(f"'{name}' has {chips} chips, and a pod of {accelerator.id} has {pod.per_node}")
    if pod and number > 1:
        pod = replace(pod, per_node=chips)
    machine = _assemble(accelerator, host, number * chips, pod)
    if nodes not in (None, machine.nodes):
        raise InputError(
            f"{number} of '{name}' are {number * chips} chips on {machine.nodes} node(s), not {nodes}; "
            "give one of them"
        )
    text = f"the number in '{name}' counts {tpu_slice.counts}: {chips} x {accelerator.id}"
    told: Note = ("slice", text, f"write '{chips}x {tpu_slice.accelerator}' to count chips")
    machine = _told(machine, told)
    return _told(machine, _number_note(number, chips, name)) if number > 1 else machine


def _number_note(number: int, each: int, name: str) -> Note:
    """How many accelerators a count of nodes, pods, instances or slices comes to."""
    text = f"{number} x '{name}' of {each}: {number * each} accelerators"
    return "count", text, "name the accelerator to count accelerators"


def _told(machine: Machine, note: Note) -> Machine:
    return replace(machine, notes=(note, *machine.notes))


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


def _assemble(accelerator: Accelerator, node: Node | None, count: int, pod: Node | None) -> Machine:
    """Put the job's accelerators into nodes and charge it for them."""
    size = node.per_node if node else accelerator.per_node
    used, nodes = min(count, size), math.ceil(count / size)
    whole = host_of(node) if node else None
    host = host_share(accelerator, whole, used)
    intranode = intranode_rate(accelerator, node)
    fabric = find_fabric(accelerator, node, whole, pod, intranode)
    internode = internode_rate(accelerator, node, size, count, fabric)
    return Machine(
        accelerator=accelerator,
        count=count,
        nodes=nodes,
        per_node=used,
        node_host_w=host.power_w,
        node_fan_w=host.fan_w,
        psu_efficiency=host.psu_efficiency,
        internode_byte_per_s=internode,
        intranode_byte_per_s=intranode,
        server_embodied_kgco2e=host.embodied_kgco2e,
        system_w=host.system_w,
        wiring=wire(accelerator, node, fabric, size < count <= fabric.size),
        notes=_notes(accelerator, node, whole, host.power_w, (count, nodes, size, used), internode)
        + (_fabric_note(fabric, count) if nodes > 1 else ()),
    )


def _fabric_note(fabric: Fabric, count: int) -> tuple[Note, ...]:
    """More than one pod or slice: what joins its accelerators does not reach the others."""
    if fabric.pod is None or count <= fabric.size:
        return ()
    each = f"{math.ceil(count / fabric.size)} x {fabric.size}"
    text = f"more than one fabric joins ({each}): each pod or slice is a fabric of its own"
    return (("fabric", text, "between them the network of the nodes is priced"),)


def _notes(
    accelerator: Accelerator,
    node: Node | None,
    whole: Node | None,
    host_w: Sourced,
    counts: tuple[int, int, int, int],
    internode: Sourced,
) -> tuple[Note, ...]:
    """What was assumed; ``counts`` are accelerators, nodes, accelerators in a node, those used in it."""
    count, nodes, size, used = counts
    metered = whole is not None and whole.host_w is not None
    notes = _host_notes(whole, host_w) if whole and metered else _default_note(accelerator, whole, host_w)
    if whole and used < whole.per_node:
        text = f"{used} of {whole.per_node} accelerators of a {whole.id}: charged that share of its host"
        notes += (("part of a node", text, "give the whole node's count if you reserve it whole"),)
    if nodes > 1 and count < nodes * size:
        text = f"{count} accelerators on {nodes} nodes of {size}: every host is charged whole"
        notes += (("part of a node", text, f"use {nodes * size} accelerators"),)
    if nodes > 1 and internode is INTERNODE_BYTE_PER_S:
        text = "network between nodes not known: 25 Gbit/s per accelerator assumed, 3 to 100"
        notes += (("network", text, f"name the cloud instance, {_ADVICE}"),)
    return notes + (_node_notes(node, used > 1, nodes > 1) if node else ())


_ADVICE = "or describe the node as hardware_profiles/nodes/README.md says"


def _host_notes(whole: Node, host_w: Sourced) -> tuple[Note, ...]:
    if host_w.status != "estimate":
        return ()
    text = f"host power of a {whole.id} was not metered: {_span_w(host_w)} estimated"
    return (("host power", text, f"meter a node, {_ADVICE}"),)


def _default_note(accelerator: Accelerator, whole: Node | None, host_w: Sourced) -> tuple[Note, ...]:
    what = f"no {whole.id}" if whole else f"no node with {accelerator.id}"
    text = f"{what} was metered: {_span_w(host_w)} taken by its class"
    return (("host power", text, f"meter one, {_ADVICE}"),)


def _span_w(power_w: Sourced) -> str:
    return f"{power_w.value:.0f} W ({power_w.low:.0f} to {power_w.high:.0f}) per node"


def _node_notes(node: Node, inside: bool, between: bool) -> tuple[Note, ...]:
    """Notes of the file, and the figures used that nobody looked up."""
    used = [name for name, there in (("inside.bandwidth", inside), ("between.bandwidth", between)) if there]
    remembered = [key for key in used if key in node.figures and node.figures[key].status == "from memory"]
    if not remembered:
        return node.notes
    names = ", ".join(SHOWN[key][0] for key in remembered)
    text = f"{node.id}: {names} from memory, not checked against a source"
    return (*node.notes, ("node", text, "check the provider's page"))
