"""Zeus: time and power of one accelerator under many power limits.

Source of the sizes: You, Chung, Chowdhury, "Zeus", NSDI 2023, and the datasets' own papers.
"""

import re

from predictor.calibrate.case import RowError
from predictor.calibrate.models import Choice
from predictor.calibrate.rows import Row, number

# Samples of one epoch, where the table gives epochs a second only: the features of SQuAD 1.1's 87,599
# training questions at 384 tokens and stride 128 (from memory: Hugging Face's run_qa.py makes 88,524). Which
# part of LibriSpeech and Sentiment140 an epoch holds is not published: their rows are scored for power alone.
_EPOCH_SAMPLES = {"bert_base_uncased on squad": 88_524}


def _note(row: Row, name: str) -> str:
    found = re.search(rf"{name}=([^;]+)", row["notes"])
    if not found:
        raise RowError("measurement", f"notes hold no {name}")
    return found[1]


def accelerator(row: Row) -> str:
    """The board. Its V100 takes limits to 250 W and batches that 16 GB do not hold: PCIe, 32 GB."""
    return "V100-PCIe-32GB" if row["accelerator"] == "V100" else row["accelerator"]


def optimizer(row: Row) -> str:
    """The row's optimizer."""
    return _note(row, "optimizer")


def limit_w(row: Row) -> float:
    """The board's power limit [W]."""
    return float(_note(row, "power_limit").removesuffix("W"))


def watt(row: Row, count: int) -> float | None:
    """Mean board power over the epoch [W]."""
    return number(row, "avg_power_w")


def step_s(row: Row, choice: Choice, batch: int) -> float | None:
    """Seconds of one step from those of an epoch; None where the step column has it or nothing does."""
    if not row["throughput_unit"].startswith("epoch"):
        return None
    samples, speed = _EPOCH_SAMPLES.get(row["model"]), number(row, "throughput")
    return None if samples is None or speed is None else batch / (samples * speed)
