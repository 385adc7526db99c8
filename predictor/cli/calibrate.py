"""``predictor calibrate measure|fit|report``: a profile's rates from measurements of one's own device."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from predictor.cli.calibrate_fit import fit, report
from predictor.cli.guard import guarded
from predictor.cli.options import Quiet, Verbose
from predictor.errors import InputError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Measure a device of your own, fit its rates, see what is left.",
)
Hardware = Annotated[
    str | None,
    typer.Option(
        "--hardware", metavar="ID", help="Its profile. Default: the one that has the device's name."
    ),
]


@app.command()
@guarded
def measure(
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE.csv", help="Where rows go, and go on. Default: the device's name."
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="cuda, cuda:1 (also ROCm), mps, cpu. Default: the first."),
    ] = None,
    hardware: Hardware = None,
    minutes: Annotated[
        float, typer.Option(metavar="N", min=0.1, help="No measurement starts after this many minutes.")
    ] = 25.0,
    steps: Annotated[bool, typer.Option("--steps/--no-steps", help="Run whole training steps too.")] = True,
    flush: Annotated[
        bool,
        typer.Option("--flush/--no-flush", help="Keep inputs out of the last cache, as training finds them."),
    ] = True,
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the menu: a minute or two.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure one device with PyTorch: kernels, whole training steps, sustained loops with power.

    Rows are written as they come; a second run with the same file goes on where the first stopped. Close
    other programs on the device. Started by torchrun on several devices, it measures their exchanges instead.
    """
    from predictor.calibrate import measure as work
    from predictor.calibrate.measure_collectives import between_devices, measure_collectives
    from predictor.calibrate.measure_device import find_device

    tell = _teller(quiet)
    if between_devices():
        measure_collectives(output or Path("collectives.csv"), tell)
        return
    found = find_device(device)
    path = output or Path(f"{_file_name(found.name)}.csv")
    if path.suffix != ".csv" or not path.parent.is_dir():
        raise InputError(f"output '{path}': give a file that ends in .csv, in a folder that exists")
    plan = work.Plan(minutes=minutes, flush=flush, quick=quick, steps=steps)
    if not quiet:
        typer.echo(f"measuring {found.name} for up to {minutes:g} min into {path}", err=True)
    done = work.measure(found, path, _known_as(found.name, hardware), plan, tell)
    typer.echo(
        f"{path}: {done.written} rows written, {done.failed} of them without a time, {done.left} left"
        + (f"; go on with: predictor calibrate measure -o {path}" if done.left else "")
    )
    if not done.left:
        typer.echo(f"next: predictor calibrate fit {path}")


def _teller(quiet: bool) -> Callable[[str], None]:
    """Progress on stderr."""
    return (lambda line: None) if quiet else (lambda line: print(line, file=sys.stderr, flush=True))


def _file_name(device: str) -> str:
    """A device's name as a file's.

    >>> _file_name("NVIDIA H200 (80 GB)")
    'nvidia-h200-80-gb'
    """
    words = "".join(c if c.isalnum() else " " for c in device.casefold()).split()
    return "-".join(words) or "device"


def _known_as(device: str, hardware: str | None) -> str:
    """The id that rows of steps carry: the one given, the profile with the device's name, else that name."""
    from predictor.profile import find_profile

    try:
        return find_profile(hardware or device).id
    except InputError as error:
        if hardware:
            raise
        typer.echo(f"{error}\nthe kernels are measured all the same; rows of steps name the device", err=True)
        return device


app.command()(fit)
app.command()(report)
