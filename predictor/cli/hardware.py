"""``predictor hardware``: accelerators and nodes known by name, with every value's source."""

from typing import TYPE_CHECKING

from predictor.cli.catalog import Name, holds, written
from predictor.cli.guard import guarded
from predictor.cli.options import PlainForm, Verbose
from predictor.cli.output import choose_form, deliver
from predictor.cli.tables import Facts, figure, in_unit, lists, shown
from predictor.errors import InputError

if TYPE_CHECKING:
    from predictor.machine import Node
    from predictor.profile import Accelerator

_UNIT_OF = {
    "memory": "GB",
    "memory bandwidth": "GB/s",
    "on-chip memory": "MB",
    "compute units": "",
    "clock": "MHz",
    "link in the node": "GB/s",
    "link between nodes": "GB/s",
    "idle power": "W",
    "power limit": "W",
    "embodied carbon": "kgCO2e",
}


@guarded
def hardware(name: Name = None, *, form: PlainForm = None, verbose: Verbose = False) -> None:
    """List accelerators and cloud instances, or show one.

    NAME is an id, an alias, or a profile of your own such as my.toml; every value comes with its range,
    unit, status, date and source.
    """
    from predictor.machine import find_node, list_nodes
    from predictor.profile import find_profile, list_profiles

    form = choose_form(form, None, ("table", "json"))
    accelerators, nodes = [find_profile(id_) for id_ in list_profiles()], list_nodes()
    if name is not None:
        try:
            node = find_node(name)
            return deliver(shown(_node(node) if node else _accelerator(find_profile(name)), form))
        except InputError:
            accelerators = [a for a in accelerators if holds(name, a.id, a.name, *a.aliases)]
            nodes = [n for n in nodes if holds(name, n.id, *n.names)]
            if not accelerators and not nodes:
                raise
    listed = {
        "accelerators": [_accelerator_row(a) for a in accelerators],
        "nodes": [_node_row(n) for n in nodes],
    }
    deliver(lists(listed, form))


def _accelerator_row(accelerator: "Accelerator") -> Facts:
    peaks = accelerator.peak_flop_per_s
    half = peaks.get("bf16") or peaks.get("fp16")
    return {
        "id": accelerator.id,
        "kind": accelerator.kind,
        "tflop_per_s_16bit": in_unit(half, "TFLOP/s"),
        "memory_gb": in_unit(accelerator.memory_byte, "GB"),
        "memory_gb_per_s": in_unit(accelerator.memory_byte_per_s, "GB/s"),
        "limit_w": in_unit(accelerator.limit_w, "W"),
        "released": accelerator.release_date,
        "trains": accelerator.training,
        "status": accelerator.status,
    }


def _accelerator(accelerator: "Accelerator") -> Facts:
    from predictor.ledger import quantities
    from predictor.world import find_price

    figures = [figure(name, v, _UNIT_OF.get(name, "TFLOP/s")) for name, v in quantities(accelerator)]
    rent = find_price(accelerator.id)
    if rent:
        figures.append(figure("rent, on demand", rent, "USD/h"))
    return {
        "id": accelerator.id,
        "name": accelerator.name,
        "aliases": list(accelerator.aliases),
        "vendor": accelerator.vendor,
        "architecture": accelerator.architecture,
        "kind": accelerator.kind,
        "released": accelerator.release_date,
        "trains": accelerator.training,
        "status": accelerator.status,
        "per_node": accelerator.per_node,
        "figures": figures,
        "notes": written(accelerator.notes),
    }


def _node_row(node: "Node") -> Facts:
    return {
        "id": node.id,
        "instance": " ".join(node.names),
        "accelerator": node.accelerator,
        "per_node": node.per_node,
        "network_gbit_per_s": in_unit(node.internode_byte_per_s, "Gbit/s"),
    }


def _node(node: "Node") -> Facts:
    figures = (
        ("host power", node.host_w, "W"),
        ("fan power", node.fan_w, "W"),
        ("supply efficiency", node.psu_efficiency, ""),
        ("power with host, per accelerator", node.system_w, "W"),
        ("embodied carbon of the server", node.server_embodied_kgco2e, "kgCO2e"),
        ("network of the node", node.internode_byte_per_s, "Gbit/s"),
        ("link in the node, per accelerator", node.intranode_byte_per_s, "GB/s"),
    )
    return {
        "id": node.id,
        "instance": list(node.names),
        "accelerator": node.accelerator,
        "per_node": node.per_node,
        "power_as_in": node.power_of or None,
        "figures": [figure(name, value, unit) for name, value, unit in figures if value],
    }
