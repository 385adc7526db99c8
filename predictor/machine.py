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
from predictor.profile import Accelerator, Note, find_profile, fold, list_profiles
from predictor.units import BIT, GIGA
from predictor.values import Sourced

_DATA = Path(__file__).with_name("data")


def _estimate(value: float, low: float, high: float, source: str) -> Sourced:
    return Sourced(value, low, high, f"estimate: {source}", "2026-11-20", "estimate")


# Host share of one accelerator where no node was metered: HOST_BASE_W + HOST_SHARE * limit_w, between
# half and twice that. At 8 accelerators it gives 1600 W beside 8x H100 (1700 in nodes.csv), 1120 beside
# 8x A100 (1500) and 130 W beside one RTX 3090.
HOST_BASE_W, HOST_SHARE = 60.0, 0.20
HOST_SPAN = 2.0
FAN_SHARE = _estimate(
    0.06, 0.02, 0.125, "fans as a share of the board limit; 700 of 5600 W in an air-cooled 8x H100"
)
PSU_EFFICIENCY = _estimate(0.95, 0.90, 0.975, "vendor claims 0.94-0.96, MLPerf nodes measure 0.97")
SERVER_KGCO2E = _estimate(300, 120, 700, "server without accelerators, per accelerator; an eighth of 2400 kg")
INTERNODE_BYTE_PER_S = _estimate(
    25 * GIGA * BIT,
    3 * GIGA * BIT,
    100 * GIGA * BIT,
    "per accelerator, from 25 Gbit/s for a node of 8 to 100 each",
)
INTRANODE_BYTE_PER_S = _estimate(15.75 * GIGA, 6 * GIGA, 31 * GIGA, "PCIe 3.0 x16, one direction")
LIMIT_W = _estimate(300, 100, 700, "board power of an accelerator with no published limit")


@dataclass(frozen=True, slots=True)
class Node:
    """One kind of server, rack slice or cloud instance.

    names                   cloud instance names, "aws:p5.48xlarge"
    power_of                the node whose host power and manufacture are shared, often itself
    host_w                  CPU, memory, switches, NIC, disks of a whole node, nearly flat with load [W DC]
    fan_w                   fans at load [W DC]
    psu_efficiency          DC over AC
    system_w                per accelerator with its share of the host, where only that is published [W AC]
    server_embodied_kgco2e  making the node without its accelerators [kg CO2e]
    internode_byte_per_s    whole node, one direction [byte/s]
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
    node_host_w             host power charged to the job per node, a cloud slice pays its share [W DC]
    node_fan_w              fans, charged likewise [W DC]
    psu_efficiency          node AC watts = (accelerators + host + fans) / psu_efficiency
    internode_byte_per_s    to other nodes, per accelerator, one direction [byte/s]
    intranode_byte_per_s    to the other accelerators of its node, per accelerator, one direction [byte/s]
    server_embodied_kgco2e  making one node without accelerators, charged likewise [kg CO2e]
    system_w                per accelerator, host included, AC; None unless the maker published it. It
                            then replaces the sum over board, host and fans [W AC]
    notes                   assumptions about nodes and links: (topic, text, advice); the
                            accelerator's own notes stay with it
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

    hardware  an accelerator's id or alias, "8x h100", a node's id, or "aws:p5.48xlarge"
    count     accelerators in all (instances, when ``hardware`` is one), default 1
    nodes     nodes in all; must agree with ``count`` when both are given
    """
    name, written = _split(hardware)
    if written is not None and count not in (None, written):
        raise InputError(f"'{hardware}' and count={count} contradict each other; give one of them")
    count = written if written is not None else count
    node = find_node(name)
    if node is not None:
        instances = _agree(name, 1, count, nodes)
        return _assemble(find_profile(node.accelerator), node, instances * node.per_node, instances)
    accelerator = _find_accelerator(name)
    node = usual_node(accelerator)
    per_node = node.per_node if node else accelerator.per_node
    if count is None and nodes is not None:
        count = nodes * per_node
    return _assemble(accelerator, node, count or 1, _agree(name, per_node, count, nodes))
