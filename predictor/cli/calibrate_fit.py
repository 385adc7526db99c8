"""``predictor calibrate fit`` and ``report``: rates from measurements, and what they leave."""

import json
from dataclasses import asdict
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from predictor.cli.guard import guarded
from predictor.cli.options import Force, PlainForm, Quiet, Verbose
from predictor.cli.output import check_output, choose_form, deliver
from predictor.cli.tables import plain_table
from predictor.errors import InputError

if TYPE_CHECKING:
    from predictor.calibrate.residuals import Points
    from predictor.profile import Accelerator

Measurements = Annotated[
    Path, typer.Argument(metavar="FILE.csv", help="What 'calibrate measure' wrote.", show_default=False)
]
Hardware = Annotated[
    str | None,
    typer.Option(
        "--hardware", metavar="ID", help="Its profile. Default: the one that has the device's name."
    ),
]
Profile = Annotated[
    Path | None,
    typer.Option("--profile", metavar="FILE", help="A profile of your own, in place of others."),
]


@guarded
def fit(
    measured: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE.csv]", help="What 'calibrate measure' wrote.", show_default=False),
    ] = None,
    *,
    steps: Annotated[
        Path | None,
        typer.Option(
            "--steps", metavar="RUNS.csv", help="Steps of your own: model, hardware, batch, step_s."
        ),
    ] = None,
    hardware: Hardware = None,
    profile: Profile = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE.json", help="Default: ID.fit.json among your own profiles."
        ),
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Fit the rates of one device to its measurements, to measured steps, or to both.

    Rates are weighed against those of the device's class, so that few rows move them little and many decide.
    Predictions use the result from then on.
    """
    from predictor.calibrate.fit_file import installed, own_fit_path, whole, write_fit

    if measured is None and steps is None:
        raise InputError("give a file of measurements, --steps RUNS.csv, or both")
    accelerator = _accelerator(measured, steps, hardware, profile)
    parts, lines, notes = [], [], []
    if measured is not None:
        part, said, found = _fitted_kernels(measured, accelerator)
        parts.append(part)
        lines += said
        notes += found
    if steps is not None:
        before = whole(accelerator.id, parts)
        with installed(accelerator.id, before):
            part, said, found = _fitted_steps(steps, accelerator, before)
        parts.append(part)
        lines += said
        notes += found
    path = output or own_fit_path(accelerator.id)
    write_fit(path, whole(accelerator.id, parts), force)
    marked = output is None and _mark(accelerator.id, profile)
    if not quiet:
        for note in notes:
            typer.echo(f"note: {note}", err=True)
    deliver("\n".join(lines))
    typer.echo(f"wrote {path}" + ("; its profile is now 'fitted'" if marked else ""), err=True)


def _accelerator(
    measured: Path | None, steps: Path | None, hardware: str | None, profile: Path | None
) -> "Accelerator":
    """The profile that is meant: named, in a file, or with the name of the device in the measurements."""
    from predictor.calibrate.measurements import read_measurements
    from predictor.calibrate.rows import read_rows
    from predictor.profile import find_profile, load_profile

    if profile is not None:
        return load_profile(profile)
    if hardware is not None:
        return find_profile(hardware)
    if measured is not None:
        name = read_measurements(measured)[0][0].device
    else:
        assert steps is not None
        _, rows = read_rows(steps)
        names = sorted({row.get("hardware", "") for row in rows} - {""})
        if len(names) != 1:
            raise InputError(f"{steps}: names {len(names)} devices; give one file for each, or --hardware ID")
        name = names[0]
    try:
        return find_profile(name)
    except InputError:
        raise InputError(
            f"no profile has the device's name '{name}'\n"
            f"is it known by another one? predictor hardware list; then give --hardware ID\n"
            f"else describe it first: predictor hardware add --alias '{name}' ..."
        ) from None


_Part = tuple[dict[str, Any], list[str], list[str]]


def _fitted_kernels(path: Path, accelerator: "Accelerator") -> _Part:
    """The part of the fit file, lines to show, and notes."""
    from predictor.calibrate.fit_checks import check
    from predictor.calibrate.fit_file import kernels_part, shipped_fit
    from predictor.calibrate.fit_user import fit_rates
    from predictor.calibrate.measurements import read_measurements

    rows, untimed = read_measurements(path)
    notes = check(path, rows, accelerator)
    if untimed:
        notes.append(f"{untimed} rows without a time are not used")
    found = fit_rates(rows, accelerator, shipped_fit(accelerator.id))
    table = [(name, f"{value:.4g}", f"{sd:.1%}") for name, (value, sd) in found.values.items()]
    if found.sustained is not None:
        table.append(("sustained", f"{found.sustained[0]:.4g}", f"{found.sustained[1]:.1%}"))
    lines = [plain_table(("rate", "value", "sd"), table, frozenset({1, 2}))]
    return kernels_part(path, rows, found), lines, [*notes, *found.notes]


def _fitted_steps(path: Path, accelerator: "Accelerator", before: dict[str, Any]) -> _Part:
    """The part of the fit file, lines to show, and notes."""
    from predictor.calibrate.fit_file import steps_part
    from predictor.calibrate.step_factors import NAMES, step_factors
    from predictor.calibrate.step_pairs import read_steps

    steps = read_steps(path, accelerator.id)
    found = step_factors(steps.pairs, steps.prior)
    table = [
        (name, f"{exp(value):.3f}", f"{sd:.1%}", f"{getattr(steps.prior, name):.1%}")
        for name in NAMES
        for value, sd in [getattr(found, name)]
    ]
    lines = [plain_table(("factor", "value", "sd", "sd before"), table, frozenset({1, 2, 3}))]
    return steps_part(path, found, steps.notes, before), lines, list(steps.notes)


def _mark(id_: str, profile: Path | None) -> bool:
    """Set the status of a profile of the user's own."""
    from predictor.calibrate.fit_file import mark_fitted
    from predictor.profile import own_profiles

    path = profile or own_profiles().get(id_)
    return path is not None and mark_fitted(path)


@guarded
def report(
    measured: Measurements,
    *,
    hardware: Hardware = None,
    profile: Profile = None,
    steps: Annotated[
        Path | None,
        typer.Option("--steps", metavar="RUNS.csv", help="Default: the file of steps beside FILE.csv."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.svg|.png|.pdf", help="Also draw a plot.")
    ] = None,
    form: PlainForm = None,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare measurements with what is predicted now, by kind: a table, and a plot with -o."""
    from predictor.calibrate.fit_checks import check
    from predictor.calibrate.measurements import read_measurements, steps_path
    from predictor.calibrate.plots import check_form, residual_plot
    from predictor.calibrate.residuals import kernel_points, step_points
    from predictor.kernels.chip import rates

    form = choose_form(form, None, ("table", "json"))
    check_output(output, force)
    drawn = None if output is None else check_form(output)
    accelerator = _accelerator(measured, None, hardware, profile)
    rows, _ = read_measurements(measured)
    notes = check(measured, rows, accelerator)
    chip = rates(accelerator)
    points = kernel_points(rows, chip, accelerator)
    table = steps or steps_path(measured)
    if table.is_file():
        whole, left = step_points(table)
        points += [whole] if whole else []
        notes += left
    if not quiet:
        for note in notes:
            typer.echo(f"note: {note}", err=True)
    deliver(_summary(points, form))
    if output is not None and drawn is not None:
        state = "fitted" if chip.fitted else "not fitted"
        output.write_bytes(residual_plot(points, f"{accelerator.id}, {state}", drawn))
        if not quiet:
            typer.echo(f"wrote {output}", err=True)


def _summary(points: "list[Points]", form: str) -> str:
    """Errors by kind."""
    if form == "json":
        return json.dumps(
            {
                p.kind: {k: v for k, v in asdict(p.errors()).items() if k not in {"tau", "coverage"}}
                for p in points
            },
            indent=2,
        )
    cells = [
        (
            p.kind,
            str(e.rows),
            *(f"{100 * x:.1f} %" for x in (e.median_ape, e.mean_ape, e.p90_ape)),
            f"{100 * e.bias:+.1f} %",
        )
        for p in points
        for e in [p.errors()]
    ]
    return plain_table(("kind", "rows", "median", "mean", "p90", "bias"), cells, frozenset(range(1, 6)))
