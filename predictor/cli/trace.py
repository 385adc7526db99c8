"""``predictor trace``: what one micro-batch of a model computes and moves, before any hardware."""

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from predictor.cli.jobs import job_fields, reading
from predictor.cli.options import (
    READING,
    AllowCode,
    Force,
    Model,
    Output,
    PlainForm,
    Quiet,
    Verbose,
    with_options,
)
from predictor.cli.output import check_output, choose_form, deliver
from predictor.cli.tables import plain_table
from predictor.errors import CheckFailedError, InputError

if TYPE_CHECKING:
    from predictor.ir import Graph
    from predictor.oracles.comparison import Check
    from predictor.workload import Workload

STACK = "eager-2"
_TOP = 15

CheckToo = Annotated[
    bool,
    typer.Option(
        "--check", help="Also count with PyTorch's counter and fvcore, and explain every difference."
    ),
]


@with_options(READING)
def trace(
    context: typer.Context,
    model: Model,
    *,
    check: CheckToo = False,
    form: PlainForm = None,
    output: Output = None,
    force: Force = False,
    allow_code: AllowCode = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **fields: Any,
) -> None:
    """Count parameters, flop and bytes; no hardware needed.

    Counts are those of one forward and backward pass of one micro-batch: --micro-batch samples, else
    --batch-size, else the model's own. MODEL given as Python runs that code; every other form is data.
    """
    form = choose_form(form, output, ("table", "json"))
    check_output(output, force)
    with reading(verbose):
        counts = _count(job_fields(model, fields, allow_code), context.obj, check)
    text = json.dumps(counts, indent=2) if form == "json" else _table(counts)
    deliver(text, output, force, quiet)


def _count(fields: dict[str, Any], command: str, check: bool) -> dict[str, Any]:
    """Read the model and count it; InputError under --strict when an operator has no formula.

    With ``check``, CheckFailedError when another counter differs for no known reason.
    """
    from predictor.frontends import ReadOptions, load_graph
    from predictor.job import dim_sizes
    from predictor.stack import find_stack
    from predictor.workload import count

    train = fields.get("mode", "train") == "train"
    options = ReadOptions(
        batch=fields.get("micro_batch") or fields.get("batch_size"),
        seq_len=fields.get("seq_len"),
        image_size=fields.get("image_size"),
        precision=fields.get("precision", "fp32"),
        channels_last=fields.get("memory_format") == "channels-last",
        train=train,
        inputs=fields.get("inputs"),
        dims=dim_sizes(fields.get("dims")),
    )
    graph = load_graph(fields["model"], options)
    work = count(graph, find_stack(STACK), train)
    if fields.get("strict") and work.unpriced:
        raise InputError(f"--strict: operators without a formula: {', '.join(work.unpriced)}")
    counts = _as_dict(graph, work, command)
    return counts | {"check": _checked(fields["model"], options, graph)} if check else counts


def _checked(source: Any, options: Any, graph: "Graph") -> dict[str, Any]:
    """The comparison with other counters, as JSON."""
    from predictor.oracles import check

    found = check(source, options, graph)
    if found.unexplained:
        rows = "\n".join(
            f"{line.oracle}, {line.phase}, {line.family}: {line.unexplained:+d} flop of {line.theirs}"
            for line in found.unexplained
        )
        raise CheckFailedError(
            f"the counts of {graph.name} differ for no known reason (theirs minus ours):\n{rows}\n"
            "one of the counts is wrong; please report the model"
        )
    return _check_dict(found)


def _check_dict(found: "Check") -> dict[str, Any]:
    return {
        "lines": [
            {
                "oracle": line.oracle,
                "phase": line.phase,
                "operators": line.family,
                "flop": line.ours,
                "oracle_flop": line.theirs,
                "reasons": dict(line.reasons),
            }
            for line in found.lines
        ],
        "not_run": dict(found.missing),
    }


def _as_dict(graph: "Graph", work: "Workload", command: str) -> dict[str, Any]:
    """The counts under the names of the answer's schema; matrix flop, a multiply-add is 2."""
    from importlib.metadata import version

    from predictor.ir import BACKWARD, FORWARD

    forward, backward = work.total(FORWARD), work.total(BACKWARD)
    return {
        "schema_version": 1,
        "model": {
            "name": graph.name,
            "source": graph.source,
            "parameters": graph.parameter_count,
            "trainable_parameters": graph.trainable_count,
        },
        "micro_batch": graph.batch,
        "tokens_per_sample": graph.tokens_per_sample,
        "flop": {"forward": forward.matrix_flop, "backward": backward.matrix_flop},
        "bytes": {
            "forward": {"read": forward.read_byte, "written": forward.write_byte},
            "backward": {"read": backward.read_byte, "written": backward.write_byte},
        },
        "kinds": _kinds(work),
        "coverage": {"bytes_by_formula": work.bytes_by_formula, "unpriced_ops": list(work.unpriced)},
        "notes": [{"topic": topic, "text": text, "advice": advice} for topic, text, advice in graph.notes],
        "provenance": {"version": version("predictor"), "stack": STACK, "command": command, **graph.origin},
    }


def _kinds(work: "Workload") -> list[dict[str, Any]]:
    """Rows by kind and phase, most bytes first."""
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in work.rows:
        cost = row.kernel.work
        part = sums[row.kernel.kind, row.phase]
        part[0] += row.count
        part[1] += row.count * cost.matrix_flop
        part[2] += row.count * (cost.read_byte + cost.write_byte)
    rows = [
        {"kind": kind, "phase": phase, "count": count, "flop": flop, "bytes": byte}
        for (kind, phase), (count, flop, byte) in sums.items()
    ]
    return sorted(rows, key=lambda row: -row["bytes"])


def _table(counts: dict[str, Any]) -> str:
    """The counts for people."""
    model, flop, byte = counts["model"], counts["flop"], counts["bytes"]
    frozen = model["parameters"] - model["trainable_parameters"]
    tokens = counts["tokens_per_sample"]
    length = f", {tokens} tokens each" if tokens else ""
    coverage = counts["coverage"]
    lines = [
        f"{model['name']} ({model['source']}), one micro-batch: {counts['micro_batch']} samples{length}",
        "",
        f"parameters  {model['parameters']:,}" + (f", {frozen:,} of them frozen" if frozen else ""),
        f"forward     {flop['forward']:.4g} matrix flop, {_moved(byte['forward'])}",
        f"backward    {flop['backward']:.4g} matrix flop, {_moved(byte['backward'])}",
        f"coverage    {coverage['bytes_by_formula']:.1%} of the bytes priced by a formula",
    ]
    if coverage["unpriced_ops"]:
        lines.append(f"unpriced    {', '.join(coverage['unpriced_ops'])}")
    rows: list[tuple[str, ...]] = [
        (row["kind"], row["phase"], str(row["count"]), f"{row['flop']:.4g}", f"{row['bytes']:.4g}")
        for row in counts["kinds"][:_TOP]
    ]
    headers = ("kind", "phase", "kernels", "matrix flop", "bytes")
    lines += ["", plain_table(headers, rows, frozenset({2, 3, 4}))]
    lines += [f"{note['topic']}: {note['text']}; {note['advice']}" for note in counts["notes"]]
    if "check" in counts:
        lines += ["", *_check_table(counts["check"])]
    return "\n".join(lines)


def _moved(byte: dict[str, int]) -> str:
    return f"{byte['read']:.4g} bytes read, {byte['written']:.4g} written"


def _check_table(check: dict[str, Any]) -> list[str]:
    """One line for each oracle, phase and family of operators, and what could not run."""
    rows = []
    for line in check["lines"]:
        difference = line["oracle_flop"] - line["flop"]
        why = "; ".join(f"{reason} ({flop:+d})" for reason, flop in line["reasons"].items())
        cells = (
            line["oracle"],
            line["phase"],
            line["operators"],
            f"{line['flop']}",
            f"{line['oracle_flop']}",
        )
        rows.append((*cells, f"{difference:+d}" if difference else "0", why or "equal"))
    headers = ("counter", "phase", "operators", "our flop", "its flop", "difference", "reason")
    table = [plain_table(headers, rows, frozenset({3, 4, 5}))] if rows else []
    return [*table, *(f"{oracle} {why}" for oracle, why in check["not_run"].items())]
