"""Build and count every model of timm and torchvision; say by name what cannot be counted.

    python benchmarks/coverage.py                    go on where the last run stopped
    python benchmarks/coverage.py --fresh            forget earlier results
    python benchmarks/coverage.py timm:vit*          only sources that match, results are kept
    python benchmarks/coverage.py --again --every 30   count a sample again, after a change
    python benchmarks/coverage.py --only-failed      those that failed or met an operator without formula
    python benchmarks/coverage.py --write            also put the results into docs/coverage.md

Each model is built without weights and one training step on a small batch is recorded: forward, loss
and backward. One line of JSON per model is kept in out/coverage.jsonl.
"""

import argparse
import fnmatch
import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from predictor.errors import PredictorError
from predictor.frontends import ReadOptions, load_graph
from predictor.frontends.torch_vision import import_vision
from predictor.ir import BACKWARD, FORWARD, Graph
from predictor.ops import FORMULAS

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / "out" / "coverage.jsonl"
PAGE = ROOT / "docs" / "coverage.md"
BEGIN, END = "<!-- vision -->", "<!-- end vision -->"
# Batch norm over one value per channel stops, so two images.
BATCH = 2
AIM = {"timm": 0.99, "torchvision": 0.95}

Result = dict[str, Any]


class OutOfTimeError(Exception):
    """A model took longer than the limit."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise OutOfTimeError in the block when it runs longer."""

    def stop(*_: Any) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def sources() -> list[str]:
    """Every model of both registries."""
    timm, vision = import_vision("timm"), import_vision("torchvision.models")
    return [f"timm:{n}" for n in timm.list_models()] + [f"torchvision:{n}" for n in vision.list_models()]


def count(source: str, seconds: int) -> Result:
    """Record one model; the result says how it went."""
    start = time.perf_counter()
    try:
        with time_limit(seconds):
            facts = facts_of(load_graph(source, ReadOptions(batch=BATCH)))
    except OutOfTimeError:
        facts = {"error": f"took longer than {seconds} s"}
    except PredictorError as error:
        facts = {"error": str(error)}
    except Exception as error:  # a fault of ours in one model must not end the sweep
        facts = {"error": f"our fault: {type(error).__name__}: {error}"}
    return {"source": source, "seconds": round(time.perf_counter() - start, 2), **facts}


def facts_of(graph: Graph) -> Result:
    """What is kept of a graph that was recorded."""
    unpriced = Counter(op.name for op in graph.ops if op.name not in FORMULAS)
    kernels = [
        (op.phase, k.work.matrix_flop)
        for op in graph.ops
        if op.name in FORMULAS
        for k in FORMULAS[op.name](op)
    ]
    return {
        "operators": len(graph.ops),
        "parameters": graph.parameter_count,
        "forward_flop": sum(flop for phase, flop in kernels if phase == FORWARD),
        "backward_flop": sum(flop for phase, flop in kernels if phase == BACKWARD),
        "unpriced": dict(unpriced),
    }


def read_state() -> dict[str, Result]:
    """Results of earlier runs by source."""
    if not STATE.exists():
        return {}
    return {r["source"]: r for r in map(json.loads, STATE.read_text().splitlines())}


def counted(result: Result) -> bool:
    """Recorded, and every operator has a formula."""
    return "error" not in result and not result["unpriced"]


def table(results: list[Result]) -> list[str]:
    """Totals per library."""
    rows = ["| library | models | recorded | every operator by formula | share | aim |", "| --- " * 6 + "|"]
    for library, aim in AIM.items():
        own = [r for r in results if r["source"].startswith(library + ":")]
        recorded = sum("error" not in r for r in own)
        full = sum(map(counted, own))
        share = full / max(len(own), 1)
        rows.append(f"| {library} | {len(own)} | {recorded} | {full} | {share:.2%} | {aim:.0%} |")
    return rows


def section(results: list[Result]) -> str:
    """The generated part of the page."""
    failed = [f"| {r['source']} | {r['error'].replace('|', '/')} |" for r in results if "error" in r]
    missing: dict[str, list[str]] = {}
    for result in results:
        for name in result.get("unpriced", ()):
            missing.setdefault(name, []).append(result["source"])
    unpriced = [
        f"- `{name}`: {len(users)} models, such as {users[0]}" for name, users in sorted(missing.items())
    ]
    versions = ", ".join(
        f"{name} {import_vision(name).__version__}" for name in ("torch", "timm", "torchvision")
    )
    return "\n".join(
        [
            f"One training step of {BATCH} samples per model; {versions}.\n",
            *table(results),
            "\n### Not recorded\n",
            *(["| model | reason |", "| --- | --- |", *failed] if failed else ["None."]),
            "\n### Operators without a formula\n",
            *(unpriced or ["None."]),
        ]
    )


def write_page(results: list[Result]) -> None:
    """Replace the generated part of docs/coverage.md."""
    head, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n\n{section(results)}\n\n{END}{tail}")


def chosen(arguments: argparse.Namespace, known: dict[str, Result]) -> list[str]:
    """Sources to count in this run."""
    names = [s for s in sources() if any(fnmatch.fnmatch(s, p) for p in arguments.patterns)]
    if arguments.only_failed:
        return [s for s in names if s in known and not counted(known[s])]
    left = names if arguments.again else [s for s in names if s not in known]
    return left[:: arguments.every]


def main() -> None:
    """Count what is left, print what went wrong, write the page when asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("patterns", nargs="*", default=["*"])
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--again", action="store_true", help="count what is known, too")
    parser.add_argument("--only-failed", action="store_true")
    parser.add_argument("--every", type=int, default=1, help="count one in N")
    parser.add_argument("--seconds", type=int, default=120, help="limit per model")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    STATE.parent.mkdir(exist_ok=True)
    if arguments.fresh:
        STATE.unlink(missing_ok=True)
    known = read_state()
    for source in chosen(arguments, known):
        known[source] = result = count(source, arguments.seconds)
        with STATE.open("a") as file:
            file.write(json.dumps(result) + "\n")
        if not counted(result):
            print(source, result.get("error") or result["unpriced"], flush=True)
    results = [known[s] for s in sources() if s in known]
    print("\n".join(table(results)))
    if arguments.write:
        write_page(results)


if __name__ == "__main__":
    main()
