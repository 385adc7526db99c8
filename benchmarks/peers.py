"""Speed of counting beside other counters, in one run on one machine.

    python benchmarks/peers.py           print the tables
    python benchmarks/peers.py --write   also put them into benchmarks/README.md

Every figure comes from a process of its own: imports, one round to warm up, then the median of five rounds
(one for whole samples of models). Building the model is part of each round. A peer that is not installed is
left out and named: pip install fvcore ptflops calflops torchinfo.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from typing import Any

from counters import COUNTERS, counted_step
from page import replace_section

ROUNDS = 5
SAMPLE = 96  # models of the smaller half of timm's registry, evenly spaced by parameter count
FEW = 8  # of these, for counters that need real weights
LLAMA = "zoo:llama3-405b"


def variant(depths: tuple[int, int, int, int], width: int) -> Any:
    """A residual net of a search space: the same blocks in other numbers."""
    from timm.models.resnet import Bottleneck, ResNet

    return ResNet(Bottleneck, list(depths), base_width=width)


def variants(count: int) -> list[Callable[[], Any]]:
    """Different nets of blocks that ResNet-50's family has; the first ones have shown most of them."""
    made = []
    for i in range(count):
        depths = (1 + i % 3, 1 + i // 3 % 4, 1 + i // 12 % 6, 1 + i // 72 % 3)
        made.append(partial(variant, depths, 64 if i % 2 else 128))
    return made


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
    failed = []
    start = time.perf_counter()
    for name in names:
        try:
            count(name, batch)
        except Exception as error:
            failed.append(f"{name}: {type(error).__name__}")
    return {"rate": len(names) / (time.perf_counter() - start), "models": len(names), "failed": failed}


def two_processes(what: str) -> dict[str, Any]:
    """Models per second on two processes: the sample at first sight, or nets of blocks seen before."""
    if what == "seen":
        jobs: list[Any] = variants(216)
    else:
        jobs = json.loads(os.environ["PEERS_SAMPLE"])
    with get_context("spawn").Pool(2, _ready) as pool:
        pool.map(_count_one, ["resnet18"] * 4 if what == "first" else jobs[:40], chunksize=1)
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
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


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
    print(case, what, found, file=sys.stderr, flush=True)
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


def tables(names: list[str], registry: int) -> str:
    """All cases as Markdown."""
    missing = [name for name, (_, package, _, _) in COUNTERS.items() if find_spec(package) is None]
    counters = [name for name in COUNTERS if name not in missing]
    lines = [
        f"Python {platform.python_version()}, torch {version('torch')}, timm {version('timm')}, "
        f"{os.cpu_count()} cores, {platform.machine()}. Building the model is included; imports are not. "
        "Flop per image as each counter says, a multiply-add taken as 2.",
        "",
        *_model_table({name: measured("model", name, names) for name in counters}),
        "",
        *_sample_table(names, registry, counters),
        "",
        *_llama_table(),
    ]
    if missing:
        lines += ["", f"Not installed, so left out: {', '.join(missing)}."]
    return "\n".join(lines)


def _model_table(found: dict[str, dict[str, Any] | None]) -> list[str]:
    lines = [
        "ResNet-50, warm. The step of `predictor` is to take at most 0.3 s at any batch. Counters with real "
        "weights run one image.",
        "",
        "| counter | counts | batch 32 | batch 1024 | GFLOP per image |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for name, row in found.items():
        if row is not None:
            cells = [f"{row[b]:.3f} s" if b in row else "" for b in ("32", "1024")]
            if "1" in row:
                cells = [f"{row['1']:.3f} s (batch 1)", ""]
            flop = f"{row['flop'] / 1e9:.3f}" if row["flop"] else "-"
            lines.append(f"| {name} | {COUNTERS[name][2]} | {cells[0]} | {cells[1]} | {flop} |")
    return lines


def _sample_table(names: list[str], registry: int, counters: list[str]) -> list[str]:
    lines = [
        f"timm, {len(names)} models evenly spaced over the half of the registry ({registry} models) with "
        "fewer parameters, each built and counted once, batch 32; counters with real weights: "
        f"{FEW} of them, batch 1. To reach: 6 per second on two processes, 1.5 times FlopCounterMode with "
        "backward on one; nets made of blocks seen before, 30 per second.",
        "",
        "| counter | counts | models per second | failed |",
        "| --- | --- | ---: | --- |",
    ]
    for name in counters:
        row = measured("sample", name, names)
        if row is not None:
            failed = f"{len(row['failed'])} of {row['models']}" if row["failed"] else "none"
            lines.append(f"| {name} | {COUNTERS[name][2]} | {row['rate']:.1f} | {failed} |")
    labels = {"first": "the sample", "seen": "216 residual nets, most blocks seen before"}
    for what, label in labels.items():
        row = measured("two", what, names)
        if row is not None:
            lines.append(
                f"| predictor, count only, two processes: {label} | step | {row['rate']:.1f} | none |"
            )
    return lines


def _llama_table() -> list[str]:
    lines = [
        "Llama 3 405B, one training step of 8192 tokens, first time in a process. To reach: 2 s and 1 GB.",
        "",
        "| counter | seconds | peak memory | of it imports | PFLOP |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    names = ("FlopCounterMode, meta, backward", "predictor, recording with memory", "predictor, count only")
    for name in names:
        row = measured("llama", name, [])
        if row is not None:
            memory = f"{row['peak_gb']:.2f} GB | {row['before_gb']:.2f} GB"
            lines.append(f"| {name} | {row['seconds']:.2f} s | {memory} | {row['flop'] / 1e15:.3f} |")
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
