"""Measured peaks of kernels/gpumemnet beside the replay of each run."""

import csv
import gzip
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from predictor import PredictorError
from predictor.frontends import ReadOptions, load_graph
from predictor.ir import Graph, at_batch
from predictor.memory.peak import lifetimes, replay_stage
from predictor.memory.terms import convolutions, has_attention, largest_convolution_byte
from predictor.parallel import Plan
from predictor.stack import find_stack
from predictor.training import RECIPES

MIB = 2**20
# Divides no width of these models: a size that it divides grows with the batch.
PRIME = 61
ONE = Plan(1, 1, 1, 1, 1, 0, "none", 1, 1)


@dataclass(frozen=True)
class Row:
    """One measured run and its replay [MiB]; ``published`` is FakeTensor's own estimate."""

    model: str
    family: str
    batch: int
    measured: float
    allocated: float
    reserved: float
    largest: float
    convolutions: int
    attention: int
    published: float
    forward_ratio: float


def replay_rows(graph: Graph, rows: list[dict[str, str]], optimizer: str) -> Iterator[Row]:
    """Replay one recorded model at every batch size measured."""
    stack, recipe = find_stack("eager-2"), RECIPES["fp32"]
    count = len(convolutions(graph))
    for row in rows:
        batch = int(row["batch"])
        sized = at_batch(graph, batch)
        tape = lifetimes(sized, ONE, stack, recipe, train=True)
        found = replay_stage(sized, tape, ONE, stack, recipe, optimizer, True, 0)
        after_forward = sum(x.byte for x in tape.lives if x.start < tape.turn_time < x.end)
        held = (4 * graph.parameter_count + graph.buffers_byte + sized.input_byte + after_forward) / MIB
        yield Row(
            row["model"],
            row["family"],
            batch,
            float(row["measured_peak_mib"]),
            found.allocated / MIB,
            found.reserved / MIB,
            largest_convolution_byte(sized) / MIB,
            count,
            int(has_attention(graph)),
            float(row["faketensor_pred_mib"] or "nan"),
            held / float(row["faketensor_after_fwd_mib"] or "nan"),
        )


def timm_rows(folder: Path, every: int, optimizer: str) -> tuple[list[Row], list[str]]:
    """Every ``every``-th timm model, recorded and replayed; and the models that no longer build."""
    with (folder / "kernels" / "gpumemnet" / "timm_train_peak_memory.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["over_capacity"] == "0"]
    found: list[Row] = []
    refused: list[str] = []
    for model in sorted({row["model"] for row in rows})[::every]:
        try:
            graph = load_graph(f"timm:{model}", ReadOptions(batch=PRIME))
        except PredictorError:
            refused.append(model)
            continue
        found += replay_rows(graph, [row for row in rows if row["model"] == model], optimizer)
        print(f"{len(found)} of {len(rows)} rows", end="\r", file=sys.stderr)
    return found, refused


def mlp_rows(folder: Path, count: int) -> list[Row]:
    """Generated MLPs: linear layers, batch norms, activations, dropout, softmax, cross-entropy."""
    with gzip.open(folder / "kernels" / "gpumemnet" / "mlp_train_peak_memory.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    chosen = np.random.default_rng(0).permutation(len(rows))[:count]
    found: list[Row] = []
    for row in (rows[i] for i in chosen):
        factory, width = mlp(row["layers"])
        batch = int(row["batch"])
        options = ReadOptions(batch=batch, inputs=[f"float32[B,{width}]"])
        graph = load_graph(factory, options)
        tape = lifetimes(graph, ONE, find_stack("eager-2"), RECIPES["fp32"], train=True)
        peak = replay_stage(graph, tape, ONE, find_stack("eager-2"), RECIPES["fp32"], "adam", True, 0)
        size = (peak.allocated / MIB, peak.reserved / MIB)
        found.append(
            Row("mlp", "mlp", batch, float(row["measured_peak_mib"]), *size, 0, 0, 0, float("nan"), 1.0)
        )
    return found


def mlp(layers: str) -> tuple[Callable[[], object], int]:
    """A factory for ``[(linear,width,parameters),...]``, and its input width: width (in + 1) parameters."""
    from torch import nn

    parts = re.findall(r"\((\w+),(\d+),(\d+)\)", layers)
    _, first, parameters = next(part for part in parts if part[0] == "linear")
    width = int(parameters) // int(first) - 1

    def build() -> nn.Module:
        modules: list[nn.Module] = []
        last = width
        for name, size, _ in parts:
            if name == "linear":
                modules.append(nn.Linear(last, int(size)))
                last = int(size)
            elif name == "batch_normalization":
                modules.append(nn.BatchNorm1d(last))
            elif name == "dropout":
                modules.append(nn.Dropout(0.3))
            elif name == "Softmax":
                modules.append(nn.Softmax(dim=1))
            else:
                modules.append(getattr(nn, name)())
        return nn.Sequential(*modules)

    return build, width


def write_rows(path: Path, rows: list[Row]) -> None:
    """Keep replays, one row a line."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(Row))
        writer.writerows(astuple(row) for row in rows)


def read_rows(path: Path) -> list[Row]:
    """Replays kept before."""
    with path.open() as file:
        return [
            Row(**{f.name: r[f.name] if f.type is str else f.type(r[f.name]) for f in fields(Row)})  # type: ignore[operator]
            for r in csv.DictReader(file)
        ]
