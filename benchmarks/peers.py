"""Speed of counting beside other counters, in one run on one machine.

    python benchmarks/peers.py           print the tables
    python benchmarks/peers.py --write   also put them into benchmarks/README.md

Every figure comes from processes of their own: imports, one round to warm up, then what is timed. The cases
of all counters take turns, three times, so that a busy machine slows all of them; tables show the median
and, in brackets, the lowest and highest. Building the model is part of each figure; a model that a counter
fails on does not count for its rate. A peer that is not installed is left out and named: pip install fvcore
ptflops calflops torchinfo.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from counters import COUNTERS, counted_step, variants
from page import replace_section

ROUNDS = 5  # in one process
TURNS = 3  # processes
SAMPLE = 48  # models of the smaller half of timm's registry, evenly spaced by parameter count
SHOWN = 40  # nets of the search space counted before the clock starts
FEW = 8  # of these, for counters that need real weights
LLAMA = "zoo:llama3-405b"
# Those that count a whole step: PyTorch's counter, our recording, our count alone.
STEPS = ("FlopCounterMode, meta, backward", "predictor, recording with memory", "predictor, count only")


# Cases; each runs in a process of its own


def one_model(counter: str) -> dict[str, Any]:
    """A ResNet-50 at batch 32, and at 1024 where no weights are real."""
    count, _, _, weights = COUNTERS[counter]
    found: dict[str, Any] = {}
    for batch in (32, 1024) if weights == "none" else (1,):
        found["flop"] = count("resnet50", batch) // batch
        found[str(batch)] = statistics.median(
            _seconds(lambda b=batch: count("resnet50", b)) for _ in range(ROUNDS)
        )
    return found


def sample(counter: str) -> dict[str, Any]:
    """Models per second over the sample, one process; a few models for counters with real weights."""
    count, _, _, weights = COUNTERS[counter]
    names = json.loads(os.environ["PEERS_SAMPLE"])
    batch = 32
    if weights == "real":
        names, batch = names[:: len(names) // FEW], 1
    count("resnet18", batch)
    failed, flop = [], {}
    start = time.perf_counter()
    for name in names:
        try:
            flop[name] = count(name, batch)
        except Exception as error:
            failed.append(f"{name}: {type(error).__name__}")
    seconds = time.perf_counter() - start
    return {"rate": len(flop) / seconds, "models": len(names), "failed": failed, "flop": flop}


def two_processes(what: str) -> dict[str, Any]:
    """Models per second on two processes: the sample at first sight, or nets of blocks seen before."""
    names: list[Any] = json.loads(os.environ["PEERS_SAMPLE"])
    nets = variants(216)
    warm, jobs = (nets[:SHOWN], nets[SHOWN:]) if what == "seen" else (["resnet18"] * 4, names)
    with get_context("spawn").Pool(2, _ready) as pool:
        pool.map(_count_one, warm, chunksize=1)
        start = time.perf_counter()
        pool.map(_count_one, jobs, chunksize=4)
        seconds = time.perf_counter() - start
    return {"rate": len(jobs) / seconds, "models": len(jobs)}


def _ready() -> None:
    _quiet_vision()
    counted_step("resnet18", 32)


def _count_one(job: Any) -> int:
    options = {} if isinstance(job, str) else {"inputs": ["float32[B,3,224,224]"]}
    return counted_step(job, 32, **options)


def llama(counter: str) -> dict[str, Any]:
    """A training step of a 405B Llama, bfloat16, one sequence of 8192 tokens; the first round."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    options = {"seq_len": 8192, "precision": "bf16"}
    found: dict[str, Any] = {}

    def step() -> None:
        if counter.startswith("predictor"):
            found["flop"] = COUNTERS[counter][0](LLAMA, 1, **options)
            return
        from predictor.zoo.llama import llama3_405b

        with torch.device("meta"):
            module = llama3_405b().bfloat16()
            ids = torch.zeros(1, 8192, dtype=torch.int64)
        with FlopCounterMode(display=False) as flops:
            module(ids).sum().backward()
        found["flop"] = flops.get_total_flops()

    before = _peak_gb()
    found["seconds"] = _seconds(step)
    return {**found, "peak_gb": _peak_gb(), "before_gb": before}


CASES = {"model": one_model, "sample": sample, "two": two_processes, "llama": llama}


def _seconds(step: Callable[[], Any]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _peak_gb() -> float:
    """Peak resident memory; ``ru_maxrss`` would start at the peak of the process that made this one."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e9
    raise SystemExit("no VmHWM in /proc/self/status: this case needs Linux")


def _quiet_vision() -> None:
    import logging
    import warnings

    from predictor.frontends.torch_vision import ensure_torchvision

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    ensure_torchvision()


def measured(case: str, what: str, names: list[str]) -> dict[str, Any] | None:
    """Run one case in a fresh process; None when it failed."""
    environment = os.environ | {"PEERS_SAMPLE": json.dumps(names)}
    command = [sys.executable, __file__, "--one", case, what]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        print(f"{case} {what}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    shown = {key: value for key, value in found.items() if key != "flop"}
    print(case, what, shown, file=sys.stderr, flush=True)
    return found


def smaller_half() -> tuple[list[str], int]:
    """An even sample of the half of timm's registry with fewer parameters, and the registry's size."""
    _quiet_vision()
    import timm

    from predictor.frontends.torch_meta import MetaMode, Shapes

    shapes, sizes = Shapes(), {}
    for name in timm.list_models():
        module = MetaMode(shapes).build(partial(timm.create_model, name))
        sizes[name] = sum(weight.numel() for weight in module.parameters())
    half = sorted(sizes, key=lambda name: (sizes[name], name))[: len(sizes) // 2]
    return half[:: max(len(half) // SAMPLE, 1)][:SAMPLE], len(sizes)


Found = dict[tuple[str, str], list[dict[str, Any]]]
"""(case, what) -> what each turn measured."""


def take_turns(cases: list[tuple[str, str]], names: list[str]) -> Found:
    """Every case once, then every case again."""
    found: Found = {case: [] for case in cases}
    for _ in range(TURNS):
        for case, what in cases:
            row = measured(case, what, names)
            if row is not None:
                found[case, what].append(row)
    return found


def _middle(rows: list[dict[str, Any]], key: str, form: str) -> str:
    """The median over turns, and the lowest and highest."""
    values = [row[key] for row in rows]
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def tables(names: list[str], registry: int) -> str:
    """All cases as Markdown."""
    missing = [name for name, (_, package, _, _) in COUNTERS.items() if find_spec(package) is None]
    counters = [name for name in COUNTERS if name not in missing]
    cases = [(case, name) for case in ("model", "sample") for name in counters]
    cases += [("two", "first"), ("two", "seen"), *(("llama", name) for name in STEPS)]
    before = os.getloadavg()[1]
    found = take_turns(cases, names)
    lines = [
        f"Python {platform.python_version()}, torch {version('torch')}, timm {version('timm')}, "
        f"{os.cpu_count()} cores, {platform.machine()}; load of the machine {before:.1f} before and "
        f"{os.getloadavg()[1]:.1f} at the end (others' work on it makes all figures too slow). "
        f"Medians of {TURNS} turns, in brackets the lowest and highest. Building the model is "
        "included; imports are not. Flop as each counter says, a multiply-add taken as 2.",
        "",
        *_model_table(found, counters),
        "",
        *_sample_table(found, counters, registry),
        "",
        *_llama_table(found),
    ]
    if missing:
        lines += ["", f"Not installed, so left out: {', '.join(missing)}."]
    return "\n".join(lines)


def _model_table(found: Found, counters: list[str]) -> list[str]:
    lines = [
        "ResNet-50, warm, seconds. The step of `predictor` is to take at most 0.3 s at any batch. Counters "
        "with real weights run one image.",
        "",
        "| counter | counts | batch 32 | batch 1024 | GFLOP per image |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for name in counters:
        rows = found["model", name]
        if rows:
            cells = [_middle(rows, batch, ".3f") for batch in ("32", "1024") if batch in rows[0]]
            cells = cells or [f"batch 1: {_middle(rows, '1', '.3f')}", ""]
            flop = f"{rows[0]['flop'] / 1e9:.3f}" if rows[0]["flop"] else "-"
            lines.append(f"| {name} | {COUNTERS[name][2]} | {cells[0]} | {cells[1]} | {flop} |")
    return lines


def _sample_table(found: Found, counters: list[str], registry: int) -> list[str]:
    full, fast = (found["sample", name][0] for name in STEPS[1:])
    equal = sum(full["flop"].get(name) == flop for name, flop in fast["flop"].items())
    lines = [
        f"timm, {fast['models']} models evenly spaced over the half of the registry ({registry} models) with "
        "fewer parameters, each built and counted once, batch 32; counters with real weights: "
        f"{FEW} of them, batch 1. To reach: 6 per second on two processes, 1.5 times FlopCounterMode with "
        "backward on one; nets made of blocks seen before, 30 per second. The count alone gave the flop of "
        f"the recording for {equal} of the {fast['models']} models.",
        "",
        "| counter | counts | models per second | failed |",
        "| --- | --- | ---: | --- |",
    ]
    for name in counters:
        rows = found["sample", name]
        if rows:
            failed = f"{len(rows[0]['failed'])} of {rows[0]['models']}" if rows[0]["failed"] else "none"
            lines.append(f"| {name} | {COUNTERS[name][2]} | {_middle(rows, 'rate', '.1f')} | {failed} |")
    labels = {
        "first": "the sample",
        "seen": f"{216 - SHOWN} residual nets, not seen before, of blocks that mostly were",
    }
    for what, label in labels.items():
        if found["two", what]:
            rate = _middle(found["two", what], "rate", ".1f")
            lines.append(f"| predictor, count only, two processes: {label} | step | {rate} | none |")
    return lines


def _llama_table(found: Found) -> list[str]:
    lines = [
        "Llama 3 405B, one training step of 8192 tokens, first time in a process. To reach: 2 s and 1 GB.",
        "",
        "| counter | seconds | peak memory, GB | after imports, GB | PFLOP |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in STEPS:
        rows = found["llama", name]
        if rows:
            cells = (_middle(rows, key, ".2f") for key in ("seconds", "peak_gb", "before_gb"))
            lines.append(f"| {name} | {' | '.join(cells)} | {rows[0]['flop'] / 1e15:.3f} |")
    return lines


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        _quiet_vision()
        import timm  # noqa: F401  # imports are no part of any figure
        import torch  # noqa: F401

        import predictor.frontends.torch_count
        import predictor.workload  # noqa: F401

        print(json.dumps(CASES[sys.argv[2]](sys.argv[3])))
        return
    names, registry = smaller_half()
    text = tables(names, registry)
    print(text)
    if "--write" in sys.argv:
        replace_section("peers", text)


if __name__ == "__main__":
    main()
