"""How far the class defaults are from measured training steps, before any accelerator has a fit.

    PREDICTOR_DATA=... python calibration/class_defaults.py [--every N] [--write]

Reads the published timm training speeds on an RTX 3090 (PyTorch 1.12, amp, both memory formats), predicts
every Nth model by name from its definition and compares. A row is left out, and counted, when the model
library no longer has the name or builds it with another number of parameters.
"""

import argparse
import csv
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from predictor import Job, PredictorError, estimate

HERE = Path(__file__).resolve().parent
SOURCE = "huggingface/pytorch-image-models@aa4b5850c154:results/benchmark-train-amp-*-pt112-cu113-rtx3090.csv"


def rows_of(folder: Path, every: int) -> list[dict[str, str]]:
    """Measured rows of every ``every``-th model."""
    with (folder / "throughput" / "timm_train.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if "pt112" in row["provenance"]]
    chosen = set(sorted({row["model"] for row in rows})[::every])
    return [row for row in rows if row["model"] in chosen]


def predict(row: dict[str, str]) -> tuple[float, bool]:
    """Predicted over measured step time, and whether the range held the measurement."""
    last = "nhwc" in row["provenance"]
    job = Job(
        model=f"timm:{row['model']}",
        hardware="nvidia-rtx-3090",
        precision="amp-fp16",
        batch_size=int(row["global_batch"]),
        image_size=int(float(row["image_size"])),
        memory_format="channels-last" if last else "contiguous",
        optimizer="sgd",
        stack="eager-1",
    )
    answer = estimate(job)
    published = float(row["n_params"].rstrip("M")) * 1e6
    if abs(answer.model.parameters / published - 1) > 0.01:
        raise PredictorError("another number of parameters")
    measured_s = float(row["step_time_s"])
    step = answer.step.time_s
    return step.mid / measured_s, step.low <= measured_s <= step.high


def table(rows: list[dict[str, str]]) -> list[str]:
    """The errors as Markdown."""
    ratios: dict[str, list[tuple[float, bool]]] = {"contiguous": [], "channels-last": []}
    refused: Counter[str] = Counter()
    for index, row in enumerate(rows):
        try:
            result = predict(row)
        except PredictorError as error:
            refused["unknown name" if "unknown model" in str(error) else str(error).split(":")[0]] += 1
            continue
        ratios["channels-last" if "nhwc" in row["provenance"] else "contiguous"].append(result)
        print(f"{index + 1}/{len(rows)}", end="\r", file=sys.stderr)
    names = ("memory format", "rows", "median error", "mean error", "90th percentile", "bias", "inside range")
    lines = [f"| {' | '.join(names)} |", "| --- " * len(names) + "|"]
    for name, found in ratios.items():
        ratio = np.array([r for r, _ in found])
        error = np.abs(ratio - 1)
        held = np.mean([inside for _, inside in found])
        lines.append(
            f"| {name} | {len(found)} | {np.median(error):.1%} | {error.mean():.1%} | "
            f"{np.percentile(error, 90):.1%} | {np.median(ratio) - 1:+.1%} | {held:.0%} |"
        )
    left_out = ", ".join(f"{reason} {n}" for reason, n in refused.most_common())
    return [*lines, "", f"Left out: {left_out or 'none'}."]


def main() -> None:
    """Measure, print, and with --write put the table into ACCURACY.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    folder = os.environ.get("PREDICTOR_DATA")
    if not folder:
        sys.exit("set PREDICTOR_DATA to the folder with throughput/timm_train.csv")
    lines = table(rows_of(Path(folder), options.every))
    print("\n".join(lines))
    if options.write:
        page = HERE / "ACCURACY.md"
        head, _, _ = page.read_text().partition("<!-- results -->")
        page.write_text(
            f"{head}<!-- results -->\n\nEvery {options.every}th model by name. {SOURCE}\n\n"
            + "\n".join(lines)
            + "\n"
        )


if __name__ == "__main__":
    main()
