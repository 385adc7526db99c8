"""What the commands that list things known by name share: list all, list those that hold a part, show one."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from predictor.cli.output import deliver
from predictor.cli.tables import Facts, lists, shown
from predictor.errors import InputError

if TYPE_CHECKING:
    from predictor.profile import Note

HELP = ("-h", "--help")
FIND = "find"
"""The hidden command that stands for none: a NAME is shown, without one all are listed."""


class NameGroup(TyperGroup):
    """A group of commands that takes a name for a command: ``predictor hardware h100`` shows the H100."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put FIND before what is no command of this group."""
        named = bool(args) and (args[0] in self.commands or args[0] in HELP)
        return super().parse_args(ctx, args if named else [FIND, *args])


def catalog_app(about: str) -> typer.Typer:
    """An empty group of commands about things known by name, whose ``FIND`` the caller adds."""
    return typer.Typer(
        cls=NameGroup,
        help=about,
        add_completion=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": list(HELP), "max_content_width": 110},
    )


Name = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]", help="Show this one; a part of a name lists all that hold it.", show_default=False
    ),
]

Part = Annotated[
    str | None,
    typer.Argument(
        metavar="[PART]", help="Only those whose names hold all of its words.", show_default=False
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
    """Whether each word of ``part`` is in one of ``names``; case, hyphens and underscores do not matter."""
    from predictor.profile import fold

    folded = [fold(name) for name in names]
    return all(any(fold(word) in name for name in folded) for word in part.split())


def written(notes: "Iterable[Note]") -> list[str]:
    """Notes as lines: topic, text and advice."""
    return ["; ".join(part for part in (f"{topic}: {text}", advice) if part) for topic, text, advice in notes]
