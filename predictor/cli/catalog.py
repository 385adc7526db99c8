"""What the commands that list things known by name share: list all, list those that hold a part, show one."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from predictor.cli.output import deliver
from predictor.cli.tables import Facts, lists, shown
from predictor.errors import InputError

if TYPE_CHECKING:
    from predictor.profile import Note

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]", help="Show this one; a part of a name lists all that hold it.", show_default=False
    ),
]


def show_or_list(
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
            found = [thing for thing in map(find, ids) if holds(name, *names(thing))]
            if not found:
                raise
    else:
        found = [find(id_) for id_ in ids]
    deliver(lists({title: [row(thing) for thing in found]}, form))


def holds(part: str, *names: str) -> bool:
    """Whether one of ``names`` holds ``part``, whatever the case."""
    return any(part.casefold() in name.casefold() for name in names)


def written(notes: "Iterable[Note]") -> list[str]:
    """Notes as lines: topic, text and advice."""
    return ["; ".join(part for part in (f"{topic}: {text}", advice) if part) for topic, text, advice in notes]
