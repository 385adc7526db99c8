"""How the accelerators of a machine are joined: rates and starting times inside and between its nodes."""

from dataclasses import dataclass

from predictor.links import LINK_CLASSES, link_of
from predictor.node import Node
from predictor.profile import Accelerator
from predictor.quantity import scaled
from predictor.units import BIT, GIGA
from predictor.values import Sourced


def _estimate(value: float, low: float, high: float, source: str) -> Sourced:
    return Sourced(value, low, high, f"estimate: {source}", "2026-11-20", "estimate")


INTERNODE_BYTE_PER_S = _estimate(
    25 * GIGA * BIT, 3 * GIGA * BIT, 100 * GIGA * BIT, "25 Gbit/s per accelerator, 3 to 100"
)
INTRANODE_BYTE_PER_S = _estimate(15.75 * GIGA, 6 * GIGA, 31 * GIGA, "PCIe 3.0 x16, one direction")


@dataclass(frozen=True, slots=True)
class Wiring:
    """Links of a machine beside their rates.

    topology, network    how accelerators of a node, and nodes, are joined, in words; "" when unknown
    intranode_latency_s  start of a collective in the node; each further accelerator adds intranode_hop_s [s]
    internode_latency_s  the same between nodes [s]
    pair_byte_per_s      one accelerator to one other of the node where not all links lead there [byte/s]
    oversubscription     what nodes may send together over what the network carries; None when unknown
    fabric_size          accelerators that one link joins: a node, a rack, a pod
    dims                 sides of the torus that joins them, () when it is none
    """

    topology: str
    network: str
    intranode_latency_s: Sourced
    intranode_hop_s: Sourced
    internode_latency_s: Sourced
    internode_hop_s: Sourced
    pair_byte_per_s: Sourced | None
    oversubscription: Sourced | None
    fabric_size: int
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fabric:
    """The link that reaches beyond one node: so many accelerators, at this rate [byte/s]."""

    size: int
    byte_per_s: Sourced
    pod: Node | None = None


def intranode_rate(accelerator: Accelerator, node: Node | None) -> Sourced:
    """One accelerator to the others of its node, one direction [byte/s]."""
    known = (node and node.intranode_byte_per_s) or accelerator.intranode_byte_per_s
    return known or INTRANODE_BYTE_PER_S


def find_fabric(
    accelerator: Accelerator, node: Node | None, whole: Node | None, pod: Node | None, intranode: Sourced
) -> Fabric:
    """The link beyond the node: of the pod, of the rack that hosts it, or as the profile says."""
    if pod and pod.fabric_byte_per_s:
        return Fabric(pod.per_node, pod.fabric_byte_per_s, pod)
    if node and whole:
        return Fabric(
            max(node.per_node, whole.per_node) if whole.kind == "rack" else node.per_node, intranode
        )
    return Fabric(accelerator.fabric_size, intranode)


def internode_rate(
    accelerator: Accelerator, node: Node | None, size: int, count: int, fabric: Fabric
) -> Sourced:
    """One accelerator to other nodes: over the fabric while the job fits in it [byte/s]."""
    if size < count <= fabric.size:
        return fabric.byte_per_s
    if node and node.internode_byte_per_s:
        return scaled(node.internode_byte_per_s, 1 / node.per_node)
    return accelerator.internode_byte_per_s or INTERNODE_BYTE_PER_S


def wire(accelerator: Accelerator, node: Node | None, fabric: Fabric, over_fabric: bool) -> Wiring:
    """The links of a machine; ``over_fabric`` when its nodes talk over the fabric."""
    figures = node.figures if node else {}
    inside = link_of(accelerator.link_kind)
    outside = LINK_CLASSES["infiniband" if accelerator.internode_byte_per_s else "ethernet"]
    between = {
        "latency": figures.get("between.latency", outside.latency_s),
        "hop": figures.get("between.hop", outside.hop_s),
    }
    latency_s = figures.get("inside.latency", inside.latency_s)
    hop_s = figures.get("inside.hop", inside.hop_s)
    if over_fabric:
        pod = fabric.pod.figures if fabric.pod else {}
        between = {"latency": pod.get("fabric.latency", latency_s), "hop": pod.get("fabric.hop", hop_s)}
    return Wiring(
        topology=node.topology if node else accelerator.link_kind,
        network=(fabric.pod.fabric if over_fabric and fabric.pod else node.network) if node else "",
        intranode_latency_s=latency_s,
        intranode_hop_s=hop_s,
        internode_latency_s=between["latency"],
        internode_hop_s=between["hop"],
        pair_byte_per_s=node.pair_byte_per_s if node else None,
        oversubscription=figures.get("between.oversubscription"),
        fabric_size=fabric.size,
        dims=fabric.pod.dims if fabric.pod else (),
    )
