"""The command line: ``predictor estimate``, ``compare``, ``trace``, ``hardware``, ``stacks``, ``regions``,
``validate``, ``calibrate``.

Importing this package loads typer alone, so that ``--help`` is quick; whatever computes is imported
inside the command that needs it.
"""

import shlex
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from predictor.cli import calibrate, hardware, regions
from predictor.cli.jobs import compare, estimate
from predictor.cli.stacks import stacks
from predictor.cli.trace import trace
from predictor.cli.validate import validate

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
for _command in (estimate, compare, trace, stacks, validate):
    app.command()(_command)
app.add_typer(calibrate.app, name="calibrate")
app.add_typer(hardware.app, name="hardware")
app.add_typer(regions.app, name="regions")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"predictor {version('predictor')}")
        raise typer.Exit


@app.callback()
def _predictor(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Predict time, memory, energy, carbon, water and cost of training a model; nothing is run.

    Exit codes: 0 fine, 1 a check says no, 2 the input is wrong, 3 an internal error.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; the entry point of the ``predictor`` script."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    app(args=given, prog_name="predictor", obj=shlex.join(["predictor", *given]))
