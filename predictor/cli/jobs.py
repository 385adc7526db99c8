"""``predictor estimate`` and ``predictor compare``: a job, or one job on several machines and places."""

import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from predictor.cli.options import (
    OPTIONS,
    AllowCode,
    Force,
    Form,
    Model,
    NoCache,
    Output,
    Quiet,
    Verbose,
    flag,
    with_options,
)
from predictor.cli.output import check_output, choose_form, deliver, styling
from predictor.errors import InputError

if TYPE_CHECKING:
    from predictor.answer import Estimate
    from predictor.ir import Graph
    from predictor.job import Job
    from predictor.parallel import Plan

_SEVERAL = ("hardware", "region")

Hardware = Annotated[
    list[str] | None,
    typer.Option(
        metavar="A,B,C",
        help="Candidates, repeated or with commas; 'all' is every accelerator.",
        show_default=False,
    ),
]
Region = Annotated[
    list[str] | None,
    typer.Option(
        metavar="X,Y",
        help="Places, repeated or with commas; each is priced with each candidate.",
        show_default=False,
    ),
]


@with_options(OPTIONS)
def estimate(
    context: typer.Context,
    model: Model,
    *,
    form: Form = None,
    output: Output = None,
    force: Force = False,
    allow_code: AllowCode = False,
    no_cache: NoCache = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **fields: Any,
) -> None:
    """Predict one job: time, memory, energy, carbon, cost.

    MODEL given as Python runs that code; every other form is data.
    """
    form = choose_form(form, output)
    check_output(output, force)
    with reading(verbose):
        job = make_job(_one_machine(job_fields(model, fields, allow_code)))
        from predictor.pricing import estimate as predict

        answer = predict(job, context.obj, cache=not no_cache)
    from predictor.report import render

    color, width = styling(output)
    deliver(render(answer, form, color=color, width=width), output, force, quiet)


@with_options(name for name in OPTIONS if name not in _SEVERAL)
def compare(
    context: typer.Context,
    model: Model,
    *,
    hardware: Hardware = None,
    region: Region = None,
    form: Form = None,
    output: Output = None,
    force: Force = False,
    allow_code: AllowCode = False,
    no_cache: NoCache = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **fields: Any,
) -> None:
    """Predict one job on several machines, in several places.

    A candidate that cannot be priced shows its reason, and the others still come. MODEL given as Python
    runs that code; every other form is data.
    """
    form = choose_form(form, output)
    check_output(output, force)
    with reading(verbose):
        machines, places = _split(hardware, "hardware"), _split(region, "region")
        job = job_fields(model, fields, allow_code)
        rows = _price_all(_candidates(job, machines, places), context.obj, cache=not no_cache)
    from predictor.report import render_comparison

    color, width = styling(output)
    text = render_comparison(rows, form, color=color, width=width or asked_width(output))
    deliver(text, output, force, quiet)


def asked_width(output: Path | None) -> int | None:
    """COLUMNS where it is set for a pipe; a file looks the same wherever it is written."""
    asked = os.environ.get("COLUMNS", "")
    return int(asked) if output is None and asked.isdecimal() and int(asked) else None


def job_fields(model: str, options: Mapping[str, Any], allow_code: bool) -> dict[str, Any]:
    """Fields of the job that MODEL and the given options describe; MODEL may be a job file."""
    from predictor.jobfile import check_value, read_job

    given = {
        name: check_value(name, value, flag(name))
        for name, value in options.items()
        if value is not None and value is not False and value != []
    }
    if model.endswith(".toml"):
        return read_job(Path(model), given, allow_code)
    return {"model": model, **given}


def make_job(fields: Mapping[str, Any]) -> "Job":
    """The job of these fields."""
    from predictor.job import Job

    if "hardware" not in fields:
        raise InputError("no accelerator given; add --hardware ID\nknown names: predictor hardware list")
    return Job(**fields)


def _one_machine(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields as they are; InputError when they name several machines."""
    name = str(fields.get("hardware", ""))
    if _is_all(name) or ("," in name and not name.endswith(".toml")):
        raise InputError(
            f"--hardware '{name}' names several, and estimate takes one\n"
            f"for several: predictor compare {fields['model']} --hardware '{name}'"
        )
    return fields


def _is_all(name: str) -> bool:
    return name.strip().casefold() == "all"


@contextmanager
def reading(verbose: bool) -> Iterator[None]:
    """What a model's code prints goes to stderr, libraries stay silent unless asked."""
    start = time.perf_counter()
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        if not verbose:
            warnings.simplefilter("ignore")
        yield
    if verbose:
        typer.echo(f"read and priced in {time.perf_counter() - start:.1f} s", err=True)


@dataclass(frozen=True, slots=True)
class _Candidate:
    label: str
    fields: dict[str, Any]


def _split(values: list[str] | None, name: str) -> list[str]:
    """The names in repeated options and comma lists, each once."""
    names = [name.strip() for value in values or [] for name in value.split(",")]
    if "" in names:
        raise InputError(f"--{name}: an empty name in '{','.join(values or [])}'")
    return list(dict.fromkeys(names))


def _candidates(job: Mapping[str, Any], machines: list[str], places: list[str]) -> list[_Candidate]:
    """Every machine in every place. All names are looked up first: a misspelt one stops."""
    from predictor.machine import build_machine
    from predictor.profile import list_profiles
    from predictor.world import find_region

    profile = job.get("profile")
    for name in machines:
        if not _is_all(name):
            build_machine(name, profile=profile)
    if any(map(_is_all, machines)):
        machines = list_profiles(profile)
    chosen: list[str | None] = [*machines] or [job.get("hardware")]
    where: list[str | None] = [*places] or [job.get("region")]
    for name in places:
        find_region(name)
    return [
        _Candidate(
            label=" / ".join(
                name for name, several in ((machine, True), (place, places)) if name and several
            ),
            fields={**job, **{k: v for k, v in (("hardware", machine), ("region", place)) if v}},
        )
        for machine, place in product(chosen, where)
    ]


@dataclass(slots=True)
class _Readings:
    """The model as recorded at each micro-batch, so that candidates share one recording."""

    cache: bool
    graphs: dict[int, "Graph | InputError"] = field(default_factory=dict)

    def read(self, job: "Job", plan: "Plan") -> "Graph":
        """The graph at the plan's micro-batch; a model that was refused once is refused again."""
        from predictor.pricing import read_model

        if plan.micro_batch not in self.graphs:
            try:
                self.graphs[plan.micro_batch] = read_model(job, plan, self.cache)
            except InputError as error:
                self.graphs[plan.micro_batch] = error
        found = self.graphs[plan.micro_batch]
        if isinstance(found, InputError):
            raise found
        return found


def _price_all(candidates: list[_Candidate], command: str, cache: bool) -> list[tuple[str, "Estimate | str"]]:
    """The answer to each candidate or the reason why there is none; InputError when there is no answer."""
    from predictor.pricing import Shared, price, resolve

    readings, shared = _Readings(cache), Shared()
    rows: list[tuple[str, Estimate | str]] = []
    for candidate in candidates:
        job = make_job(candidate.fields)
        try:
            setting = resolve(job)
            graph = readings.read(job, setting.plan)
            rows.append((candidate.label, price(job, setting, graph, command, shared)))
        except InputError as error:
            rows.append((candidate.label, str(error)))
    if all(isinstance(answer, str) for _, answer in rows):
        raise InputError(_reasons(rows))
    return rows


def _reasons(rows: list[tuple[str, "Estimate | str"]]) -> str:
    """Each reason once, with the candidates it refused."""
    refused: dict[str, list[str]] = {}
    for label, reason in rows:
        refused.setdefault(str(reason), []).append(label)
    if len(refused) == 1:
        return next(iter(refused))
    listed = (f"{', '.join(labels)}: {reason}" for reason, labels in refused.items())
    return "\n".join(("no candidate can be priced", *listed))
