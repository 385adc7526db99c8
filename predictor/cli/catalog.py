"""``predictor hardware``, ``stacks`` and ``regions``: what is known by name, with every value's source.

Each command lists everything, lists what holds a part of a name, or shows one with all its figures.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from predictor.cli.guard import guarded
from predictor.cli.options import PlainForm, Verbose
from predictor.cli.output import choose_form, deliver
from predictor.cli.tables import Facts, figure, in_unit, lists, shown
from predictor.errors import InputError

if TYPE_CHECKING:
    from predictor.machine import Node
    from predictor.profile import Accelerator, Note
    from predictor.stack import Span, Stack
    from predictor.values import Sourced
    from predictor.world import Region

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]", help="Show this one; a part of a name lists all that hold it.", show_default=False
    ),
]
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
            accelerators = [a for a in accelerators if _holds(name, a.id, a.name, *a.aliases)]
            nodes = [n for n in nodes if _holds(name, n.id, *n.names)]
            if not accelerators and not nodes:
                raise
    listed = {
        "accelerators": [_accelerator_row(a) for a in accelerators],
        "nodes": [_node_row(n) for n in nodes],
    }
    deliver(lists(listed, form))


@guarded
def stacks(name: Name = None, *, form: PlainForm = None, verbose: Verbose = False) -> None:
    """List software stacks, or show one.

    A stack says what is fused, which attention runs and what a launch costs the host.
    """
    from predictor.stack import find_stack, list_stacks

    form = choose_form(form, None, ("table", "json"))
    _catalog("stacks", name, form, list_stacks(), find_stack, _stack_row, _stack, lambda s: (s.id, s.title))


@guarded
def regions(name: Name = None, *, form: PlainForm = None, verbose: Verbose = False) -> None:
    """List countries, states and cloud regions, or show one.

    NAME is an id, an alias or a full name; carbon, water and PUE come with range, year and source.
    """
    from predictor.world import find_region, list_regions

    form = choose_form(form, None, ("table", "json"))
    _catalog(
        "regions", name, form, list_regions(), find_region, _region_row, _region, lambda r: (r.id, r.name)
    )


def _catalog(
    title: str,
    name: str | None,
    form: str,
    ids: Iterable[str],
    find: Callable[[str], Any],
    row: Callable[[Any], Facts],
    show: Callable[[Any], Facts],
    names: Callable[[Any], tuple[str, ...]],
) -> None:
    """Show ``name``, or list all or those that hold ``name``."""
    if name is not None:
        try:
            return deliver(shown(show(find(name)), form))
        except InputError:
            found = [thing for thing in map(find, ids) if _holds(name, *names(thing))]
            if not found:
                raise
    else:
        found = [find(id_) for id_ in ids]
    deliver(lists({title: [row(thing) for thing in found]}, form))


def _holds(part: str, *names: str) -> bool:
    return any(part.casefold() in name.casefold() for name in names)


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
        "notes": _notes(accelerator.notes),
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


def _stack_row(stack: "Stack") -> Facts:
    return {"id": stack.id, "attention": stack.attention, "status": stack.status, "title": stack.title}


def _stack(stack: "Stack") -> Facts:
    spans: tuple[tuple[str, Span | None, str], ...] = (
        ("host time of a launch", stack.host_s, "us"),
        ("memory of the context", stack.context_byte, "GB"),
        ("allocator reserve over live tensors", stack.reserved_share, ""),
        ("unused segments that stay reserved", stack.fragmentation, ""),
        ("workspace of the matrix library", stack.blas_byte, "GB"),
        ("memory of the convolution library", stack.convolution_byte, "GB"),
        ("workspace over the largest convolution", stack.convolution_workspace, ""),
        ("optimizer traffic over one pass", stack.optimizer_passes, ""),
        ("gradient communication hidden", stack.overlap, ""),
    )
    return {
        "id": stack.id,
        "title": stack.title,
        "attention": stack.attention,
        "fuses_elementwise": stack.fuse_elementwise,
        "optimizer_launches_per_tensor": stack.optimizer_launches,
        "figures": [figure(name, _of_span(span, stack), unit) for name, span, unit in spans if span],
    }


def _of_span(span: "Span", stack: "Stack") -> "Sourced":
    from predictor.values import Sourced

    return Sourced(span.mid, span.low, span.high, stack.source, stack.as_of, stack.status)


def _region_row(region: "Region") -> Facts:
    return {
        "id": region.id,
        "name": region.name,
        "kind": region.kind,
        "gco2e_per_kwh": in_unit(region.kgco2e_per_j, "gCO2e/kWh"),
        "method": region.method,
        "pue": in_unit(region.pue, ""),
        "year": region.kgco2e_per_j.as_of,
    }


def _region(region: "Region") -> Facts:
    figures = (
        ("grid carbon, location-based", region.kgco2e_per_j, "gCO2e/kWh"),
        ("grid carbon, market-based", region.market_kgco2e_per_j, "gCO2e/kWh"),
        ("water of generation", region.water_l_per_j, "l/kWh"),
        ("PUE", region.pue, ""),
        ("water on site", region.wue_l_per_j, "l/kWh"),
    )
    return {
        "id": region.id,
        "name": region.name,
        "kind": region.kind,
        "method": region.method,
        "figures": [figure(name, value, unit) for name, value, unit in figures if value],
        "notes": _notes(region.notes),
    }


def _notes(notes: "Iterable[Note]") -> list[str]:
    return ["; ".join(part for part in (f"{topic}: {text}", advice) if part) for topic, text, advice in notes]
