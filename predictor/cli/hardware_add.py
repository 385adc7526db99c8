"""``predictor hardware add``: a profile of one's own from flags or from a few questions."""

import datetime
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from predictor.cli.options import Force, Verbose, flag, with_options
from predictor.cli.output import check_output, deliver
from predictor.errors import InputError

# Option -> (table of the profile, unit of a bare number, question); the order of the questions.
FIGURES = {
    "fp32": ("peak.fp32", "TFLOP/s", "Peak in fp32, vector units [TFLOP/s]"),
    "bf16": ("peak.bf16", "TFLOP/s", "Peak in bf16, dense, with fp32 accumulation [TFLOP/s]"),
    "fp16": ("peak.fp16", "TFLOP/s", "Peak in fp16, dense, with fp32 accumulation [TFLOP/s]"),
    "memory": ("memory.capacity", "GiB", "Memory, as the driver reports it or as the maker prints it [GiB]"),
    "bandwidth": ("memory.bandwidth", "GB/s", "Memory bandwidth [GB/s]"),
    "limit": ("power.limit", "W", "Power limit of the board [W]"),
    "fp8": ("peak.fp8", "TFLOP/s", ""),
    "idle": ("power.idle", "W", ""),
    "link": ("link.intranode", "GB/s", ""),
    "network": ("link.internode", "Gbit/s", ""),
}
PEAKS = ("fp32", "bf16", "fp16")
STATED = ("verified", "derived", "from memory")
KINDS = ("gpu", "tpu", "asic", "cpu")
_NUMBER = re.compile(r"^\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z/]*)\s*$")


# Option -> (type, metavar, help), in the order of --help.
FLAGS: dict[str, tuple[Any, str, str]] = {
    "name": (str, "TEXT", "Name as people write it."),
    "vendor": (str, "TEXT", "Maker."),
    "kind": (str, "|".join(KINDS), "What it is."),
    "fp32": (str, "TFLOP/s", "Peak of the vector units."),
    "bf16": (str, "TFLOP/s", "Dense peak with fp32 accumulation."),
    "fp16": (str, "TFLOP/s", "Dense peak with fp32 accumulation."),
    "fp8": (str, "TFLOP/s", "Dense peak."),
    "memory": (str, "GiB", "Capacity, best as the driver reports it; what makers print as GB is GiB."),
    "bandwidth": (str, "GB/s", "Memory bandwidth."),
    "limit": (str, "W", "Default power limit of the board."),
    "idle": (str, "W", "Power with nothing running. Default: a share of the limit."),
    "link": (str, "GB/s", "To the others of the node, one direction, all links together."),
    "network": (str, "Gbit/s", "To other nodes, one direction, for each board."),
    "per_node": (int, "N", "Boards in a node. Default: 1."),
    "architecture": (str, "TEXT", "Generation of the chip."),
    "released": (str, "DATE", "As 2025-03-01, 2025-03 or 2025. Default: this year."),
    "aliases": (list[str], "TEXT", "Another name. Repeatable."),
    "inference_only": (str, "WHY", "It cannot train, and why."),
    "source": (str, "TEXT", "Where the figures stand: title and page."),
    "status": (str, "|".join(STATED), "How well they are known. Default: verified."),
}


@with_options(FLAGS, FLAGS)
def add(
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write here. Default: your own profiles."),
    ] = None,
    force: Force = False,
    verbose: Verbose = False,
    **fields: Any,
) -> None:
    """Write the profile of an accelerator and check it; on a terminal, what is missing is asked for.

    Figures may carry a unit: --memory 81559MiB, --bandwidth '3.35 TB/s'. One of --fp32, --bf16, --fp16 is
    enough. Anything more (a source for each figure, ranges, notes) is edited in the file.
    """
    from predictor.profile import own_profiles_dir

    check_output(output, force)
    given = complete({key: value for key, value in fields.items() if value}, ask=sys.stdin.isatty())
    path = output or own_profiles_dir() / f"{profile_id(given['vendor'], given['name'])}.toml"
    fitted = path.with_suffix(".fit.json").exists()
    text = profile_text(path.stem, given, datetime.date.today(), fitted)
    check_new(text, path, given["name"])
    if output is None:
        path.parent.mkdir(parents=True, exist_ok=True)
    deliver(text, path, force)
    typer.echo(_next_steps(path, own=output is None))


def complete(given: dict[str, Any], ask: bool) -> dict[str, Any]:
    """``given`` with what is missing asked for; InputError names the missing options when it may not ask."""
    questions = {
        "name": "Name, for example Acme X1 80 GB",
        "vendor": "Maker",
        "kind": f"Kind ({', '.join(KINDS)})",
        **{key: question for key, (_, _, question) in FIGURES.items() if question},
        "source": "Source of these figures, for example 'Acme X1 datasheet, revision 3, page 2'",
    }
    missing = [key for key in questions if key not in given]
    if any(peak in given for peak in PEAKS):
        missing = [key for key in missing if key not in PEAKS]
    if not missing:
        return given
    if not ask:
        raise InputError(_needed(missing))
    found = dict(given)
    for key in missing:
        answer = _ask(key, questions[key])
        if answer:
            found[key] = answer
    if not any(peak in found for peak in PEAKS):
        raise InputError("no peak given: one of fp32, bf16 and fp16 is needed")
    return found


def _needed(missing: list[str]) -> str:
    flags = [flag(key) for key in missing if key not in PEAKS]
    if any(key in PEAKS for key in missing):
        flags.append("one or more of --fp32, --bf16, --fp16")
    return f"missing: {', '.join(flags)}\non a terminal, predictor hardware add asks for them"


def _ask(key: str, question: str) -> str:
    """An answer that can be read; a peak may be left empty."""
    while True:
        optional = key in PEAKS
        words = f"{question}{', empty when it has none' if optional else ''}"
        try:
            answer: str = typer.prompt(words, default="" if optional else None, show_default=False, err=True)
        except typer.Abort as stop:
            if isinstance(stop.__context__, EOFError):
                raise InputError(f"no answer to '{question}'; nothing was written") from None
            raise
        try:
            if answer and key in FIGURES:
                _quantity(key, answer)
            if key == "kind" and answer not in KINDS:
                raise InputError(f"kind is '{answer}', accepted: {', '.join(KINDS)}")
        except InputError as error:
            typer.echo(str(error), err=True)
            continue
        return answer.strip()


def _quantity(key: str, text: str) -> tuple[float, str]:
    """Number and unit, the unit one that measures what is asked for."""
    from predictor.profile_file import DIMENSIONS
    from predictor.units import to_base

    table, unit, _ = FIGURES[key]
    match = _NUMBER.match(text)
    if not match or not float(match[1]) > 0:
        raise InputError(
            f"--{key} is '{text}': write a number above 0, with or without its unit, as '80 {unit}'"
        )
    to_base(float(match[1]), match[2] or unit, DIMENSIONS[table], f"--{key}")
    return float(match[1]), match[2] or unit


def profile_id(vendor: str, name: str) -> str:
    """Maker and name in lower case with hyphens.

    >>> profile_id("Acme", "Acme X1 80 GB"), profile_id("Acme", "X1")
    ('acme-x1-80gb', 'acme-x1')
    """
    whole = name if name.casefold().startswith(vendor.casefold()) else f"{vendor} {name}"
    joined = re.sub(r"(\d)\s+(gb|tb|mb)\b", r"\1\2", whole.casefold())
    return re.sub(r"[^a-z0-9]+", "-", joined).strip("-")


def profile_text(id_: str, given: dict[str, Any], today: datetime.date, fitted: bool = False) -> str:
    """The profile as TOML, each figure in the unit it was given in."""
    reason = given.get("inference_only")
    top: dict[str, Any] = {
        "id": id_,
        "name": given["name"],
        "vendor": given["vendor"],
        "architecture": given.get("architecture", "not stated"),
        "kind": given["kind"],
        "status": "fitted" if fitted else "spec-only",
        "training": reason is None,
        **({"training_note": reason} if reason else {}),
        "release_date": given.get("released", str(today.year)),
        "aliases": given.get("aliases", []),
        "accelerators_per_node": given.get("per_node", 1),
    }
    lines = [f"{key} = {_toml(value)}" for key, value in top.items()]
    for key in FIGURES:
        if key in given:
            number, unit = _quantity(key, given[key])
            lines += ["", f"[{FIGURES[key][0]}]", f"value = {number:.12g}", f"unit = {_toml(unit)}"]
            lines += [f"source = {_toml(given['source'])}", f"as_of = {today}"]
            lines += [f"status = {_toml(given.get('status', 'verified'))}"]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """A text, flag, whole number or list of texts as TOML writes it, whose strings are those of JSON."""
    import json

    return json.dumps(value, ensure_ascii=False)


def check_new(text: str, path: Path, name: str) -> None:
    """Raise InputError when ``text`` is no valid profile for ``path``, or takes a name of another one.

    name  as people write it; who asks for it must not get another accelerator
    """
    import tomllib

    from predictor.accelerator import from_facts
    from predictor.profile import check_names
    from predictor.profile_file import check_content

    if path.suffix != ".toml":
        raise InputError(f"-o {path}: a profile's file name ends in .toml; the part before it becomes its id")
    found = from_facts(check_content(tomllib.loads(text), path))
    check_names((found.id, *found.aliases, name), path)


def _next_steps(path: Path, own: bool) -> str:
    """What is known now, what was assumed, and what to do with it."""
    from predictor.profile import load_profile, profiles_dir

    found = load_profile(path)
    name, flag = (found.id, "") if own else (str(path), f" --profile {path}")
    lines = [f"{found.id} is known now" if own else f"{found.id} is known where its file is given"]
    if own and (profiles_dir() / f"{found.id}.toml").exists():
        lines.append("it stands in for the shipped profile of the same id")
    lines += [f"assumed: {text}; {advice}" for _, text, advice in found.notes]
    lines += [
        "next:",
        f"  predictor hardware show {name}",
        f"  predictor hardware compare a100 {found.id}{flag}",
        f"  predictor estimate zoo:bert-large --hardware {found.id}{flag}",
        f"more facts (ranges, cache, links, notes): edit {path}, see hardware_profiles/README.md",
    ]
    return "\n".join(lines)
