"""``predictor hardware list|show|compare|add``: accelerators and nodes known by name, with every source."""

from typing import TYPE_CHECKING, Annotated

import typer

from predictor.cli.catalog import FIND, Name, Part, catalog_app, holds
from predictor.cli.guard import guarded
from predictor.cli.hardware_add import add
from predictor.cli.hardware_tables import compared, facts_of, listed
from predictor.cli.options import PlainForm, Verbose
from predictor.cli.output import choose_form, deliver
from predictor.cli.tables import Facts, shown
from predictor.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from predictor.accelerator import Accelerator
    from predictor.machine import Node

Profile = Annotated[
    str | None,
    typer.Option("--profile", metavar="FILE", help="A profile of your own, known by its names."),
]
Kind = Annotated[
    str | None, typer.Option("--kind", metavar="gpu|tpu|asic|cpu|node", help="Only those of this kind.")
]
KINDS = ("gpu", "tpu", "asic", "cpu", "node")
_FORMS = ("table", "json")

app = catalog_app(
    "List, show, compare and add accelerators, nodes and cloud instances.\n\n"
    "Without a command: NAME shows one or lists those that hold it; no NAME lists all."
)


@app.command("list")
@guarded
def list_(
    part: Part = None,
    *,
    vendor: Annotated[str | None, typer.Option(metavar="NAME", help="Only those of this maker.")] = None,
    kind: Kind = None,
    trains: Annotated[bool, typer.Option("--trains", help="Only those that can train.")] = False,
    form: PlainForm = None,
    verbose: Verbose = False,
) -> None:
    """List accelerators, nodes and cloud instances; * marks profiles of your own."""
    form = choose_form(form, None, _FORMS)
    if kind is not None and kind not in KINDS:
        raise InputError(f"--kind is '{kind}', accepted: {', '.join(KINDS)}{did_you_mean(kind, KINDS)}")
    accelerators, nodes = _known()
    able = {a.id for a in accelerators if a.training}
    if kind == "node":
        accelerators = []
    elif kind:
        accelerators, nodes = [a for a in accelerators if a.kind == kind], []
    if vendor:
        accelerators = [a for a in accelerators if holds(vendor, a.vendor)]
        nodes = [n for n in nodes if holds(vendor, n.vendor)]
    if trains:
        accelerators = [a for a in accelerators if a.training]
        nodes = [n for n in nodes if n.accelerator in able]
    if part:
        accelerators, nodes = _holding(part, accelerators, nodes)
    if not accelerators and not nodes:
        names = [name for a in _known()[0] for name in (a.id, a.vendor, *a.aliases)]
        asked = part or vendor or ""
        raise InputError(
            f"no such accelerator or node{did_you_mean(asked, names)}\nall: predictor hardware list"
        )
    deliver(listed(accelerators, nodes, form, in_full=part is not None))


@app.command()
@guarded
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Id, alias, or a file such as my.toml.")],
    *,
    profile: Profile = None,
    form: PlainForm = None,
    verbose: Verbose = False,
) -> None:
    """Show one: every value with its range, unit, status, date and source."""
    form = choose_form(form, None, _FORMS)
    deliver(shown(_found(name, profile), form))


@app.command()
@guarded
def compare(
    names: Annotated[list[str], typer.Argument(metavar="NAME NAME ...", help="Two accelerators or more.")],
    *,
    profile: Profile = None,
    form: PlainForm = None,
    verbose: Verbose = False,
) -> None:
    """Compare accelerators figure by figure, with the ratio to the first."""
    from predictor.machine import find_accelerator, find_node

    form = choose_form(form, None, _FORMS)
    for name in names:
        node = find_node(name)
        if node:
            raise InputError(
                f"'{name}' is a node of {node.per_node} x {node.accelerator}; compare takes accelerators\n"
                f"compare {node.accelerator}, or show the node: predictor hardware show {node.id}"
            )
    found = [find_accelerator(name, profile) for name in names]
    if len({a.id for a in found}) != len(found) or len(found) == 1:
        raise InputError(
            f"compare takes two or more different accelerators: {', '.join(a.id for a in found)}"
        )
    deliver(compared(found, form))


app.command()(add)


@app.command(FIND, hidden=True)
@guarded
def find(name: Name = None, *, form: PlainForm = None, verbose: Verbose = False) -> None:
    """Show NAME, or list those that hold it, or all."""
    form = choose_form(form, None, _FORMS)
    if name is None:
        return deliver(listed(*_known(), form, in_full=False))
    try:
        return deliver(shown(_found(name, None), form))
    except InputError:
        accelerators, nodes = _holding(name, *_known())
        if not accelerators and not nodes:
            raise
    return deliver(listed(accelerators, nodes, form))


def _known() -> tuple[list["Accelerator"], list["Node"]]:
    """All that can be read; a faulty profile of the user's own is named on stderr and left out."""
    from predictor.machine import list_nodes
    from predictor.profile import find_by_id, list_profiles, own_profiles

    accelerators, own = [], own_profiles()
    for id_ in list_profiles():
        try:
            accelerators.append(find_by_id(id_))
        except InputError as error:
            if id_ not in own:
                raise
            typer.echo(f"left out: {error}", err=True)
    return accelerators, list_nodes()


def _holding(
    part: str, accelerators: list["Accelerator"], nodes: list["Node"]
) -> tuple[list["Accelerator"], list["Node"]]:
    return (
        [a for a in accelerators if holds(part, a.id, a.name, a.vendor, a.architecture, *a.aliases)],
        [n for n in nodes if holds(part, n.id, n.name, n.vendor, *n.names)],
    )


def _found(name: str, profile: str | None) -> Facts:
    """The facts of a node or an accelerator."""
    from predictor.machine import find_accelerator, find_node

    node = find_node(name)
    return facts_of(node) if node else facts_of(find_accelerator(name, profile))
