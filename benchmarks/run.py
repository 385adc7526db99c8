"""Time and peak memory of whole commands, against the limits we hold ourselves to.

    python benchmarks/run.py           print the table
    python benchmarks/run.py --write   also put it into benchmarks/README.md

Each command runs in its own process, once to warm the file cache and then five times; the table shows
the median of wall time and the largest resident set. Compare figures taken on one machine only.
"""

import os
import platform
import shlex
import statistics
import sys
import sysconfig
import time
from pathlib import Path

from page import replace_section

RUNS = 5
LLAMA = "--hardware h100 --count 16384 --tp 8 --pp 16 --batch-size 2048 --micro-batch 1 --precision bf16"
# command, most seconds, most GB (None: no limit)
RESNET = "predictor estimate zoo:resnet50 --hardware h100"
LARGE = f"predictor estimate zoo:llama3-405b {LLAMA} --tokens 15.6T --region us"
CASES = [
    ("predictor --help", 0.2, None),
    (f"{RESNET} --no-cache", 4.0, None),
    (f"{LARGE} --no-cache", 20.0, 2.0),
    (RESNET, 4.0, None),
    (LARGE, 20.0, 2.0),
]


def measure(command: str) -> tuple[float, float]:
    """Wall seconds and peak resident GB of one run; stops when the command fails."""
    program, *arguments = shlex.split(command)
    path = Path(sysconfig.get_path("scripts")) / program
    start = time.perf_counter()
    process = os.posix_spawn(
        str(path),
        [program, *arguments],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"failed: {command}")
    return seconds, usage.ru_maxrss * 1024 / 1e9


def table() -> list[str]:
    """The results as Markdown rows."""
    rows = [
        "| command | wall (median of 5) | limit | peak memory | limit |",
        "| --- | --- | --- | --- | --- |",
    ]
    for command, most_s, most_gb in CASES:
        measure(command)
        runs = [measure(command) for _ in range(RUNS)]
        wall_s = statistics.median(seconds for seconds, _ in runs)
        peak_gb = max(gigabytes for _, gigabytes in runs)
        limit = "-" if most_gb is None else f"{most_gb:g} GB"
        rows.append(f"| `{command}` | {wall_s:.2f} s | {most_s:g} s | {peak_gb:.2f} GB | {limit} |")
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}"
    rows = table()
    if "--write" in sys.argv:
        replace_section("results", f"{machine}\n\n" + "\n".join(rows))


if __name__ == "__main__":
    main()
