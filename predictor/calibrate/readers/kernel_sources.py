"""Kernels as single sources write them: FP32 operators, layers of language models, shares of peak, traces."""

import ast
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from predictor.calibrate.case import Read, Refused
from predictor.calibrate.kernel_tables import Columns, from_rows
from predictor.calibrate.readers.format import Format
from predictor.calibrate.readers.kernels import groups
from predictor.calibrate.rows import Row
from predictor.values import Array

_VIDUR = {"a100": "nvidia-a100-sxm4-80gb", "h100": "nvidia-h100-sxm5-80gb", "a40": "nvidia-a40"}
_SIMUMAX = {"A100-PCIe-80GB": "nvidia-a100-pcie-80gb", "B200-SXM": "nvidia-b200-sxm-180gb"}
_NEUSIGHT = {
    "NVIDIA A100 80GB PCIe": "nvidia-a100-pcie-80gb",
    "NVIDIA A100-PCIE-40GB": "nvidia-a100-pcie-40gb",
    "NVIDIA H100 80GB HBM3": "nvidia-h100-sxm5-80gb",
    "NVIDIA L4": "nvidia-l4",
    "Tesla P100-PCIE-16GB": "nvidia-p100-pcie-16gb",
    "Tesla P4": "nvidia-p4",
    "Tesla T4": "nvidia-t4",
    "Tesla V100-PCIE-32GB": "nvidia-v100-pcie-32gb",
    "AMD Instinct MI100": "amd-mi100",
    "AMD Instinct MI210": "amd-mi210",
    "AMD Instinct MI250": "amd-mi250",
}
_TRACED = {"h100": "nvidia-h100-sxm5-80gb", "mi300": "amd-mi300x", "compare_test_ops": "amd-mi300x"}
_GROUPED = ("linear", "bmm")


def _by_device(
    path: Path, source: str, form: str, rows: Columns, known: dict[str, str], keys: Sequence[str], **how: Any
) -> Iterator[Read]:
    """Cases of every device of a table; one no profile is named for is refused."""
    for device in dict.fromkeys(rows.text["device"]):
        mine = rows.where(rows.text["device"] == device)
        accelerator = known.get(str(device))
        if accelerator is None:
            yield Refused(source, path.name, "accelerator", f"'{device}'", mine.rows)
        else:
            yield from groups(path, source, form, mine, keys, how, accelerator)


def operators(path: Path, rows: Sequence[Row]) -> Iterator[Read]:
    """NeuSight's FP32 operators: there n is summed over, and a linear layer has no b."""
    source = "neusight operators"
    texts = ["op", "device"]
    names = "in_ch out_ch ksize in_size stride padding".split()
    text = from_rows(rows, [], texts).text["op"]
    linear, product = text == "linear", np.isin(text, _GROUPED)
    convolution = text == "conv"
    for keep, form, numbers in (
        (product, "plain-products", ["b", "m", "n", "k"]),
        (convolution, "convolutions", ["b", *names]),
        (~product & ~convolution, "streams", ["b", "h"]),
    ):
        if not keep.any():
            continue
        mine = [row for row, kept in zip(rows, keep, strict=True) if kept]
        found = from_rows(mine, [*numbers, "latency_ms"], texts)
        if form == "plain-products":
            alone = linear[keep]
            number = {
                "g": np.where(alone, 1.0, found["b"]),
                "m": np.where(alone, found["b"] * found["m"], found["m"]),
                "n": found["k"],
                "k": found["n"],
                "latency_ms": found["latency_ms"],
            }
            found = Columns(number, found.text, found.rows)
        yield from _by_device(path, source, form, found, _NEUSIGHT, ["op"])


def single_products(path: Path, rows: Sequence[Row]) -> Iterator[Read]:
    """LLMCompass: one FP16 product per row."""
    known = {"A100": "nvidia-a100-sxm4-80gb", "MI210": "amd-mi210"}
    found = from_rows(rows, ["m", "n", "k", "latency_ms"], ["device"])
    yield from _by_device(path, "llmcompass", "products", found, known, [], dtype="float16", stack="")


def layers(path: Path, rows: Sequence[Row]) -> Iterator[Read]:
    """Vidur: the products of one transformer layer per row; its other operators have no form here."""
    source = "vidur layers"
    sizes = "n_head n_kv_head n_embd n_expanded_embd num_tokens num_tensor_parallel_workers".split()
    times = "attn_pre_proj_ms attn_post_proj_ms mlp_up_proj_ms mlp_down_proj_ms".split()
    every = from_rows(rows, [*sizes, *times], ["device", "use_gated_mlp"])
    wide, split = every["n_embd"], every["num_tensor_parallel_workers"]
    head = wide / every["n_head"]
    queries = wide / split
    keys = 2 * head * np.maximum(every["n_kv_head"] / split, 1)
    inner = every["n_expanded_embd"] / split
    gates = np.where(every.text["use_gated_mlp"] == "True", 2.0, 1.0)
    shapes = {
        "attn_pre_proj_ms": (queries + keys, wide),
        "attn_post_proj_ms": (wide, queries),
        "mlp_up_proj_ms": (inner * gates, wide),
        "mlp_down_proj_ms": (wide, inner),
    }
    for name, (n, k) in shapes.items():
        known = every.where(np.isfinite(every[name]))
        number = {
            "m": known["num_tokens"],
            "n": n[np.isfinite(every[name])],
            "k": k[np.isfinite(every[name])],
            "latency_ms": known[name],
        }
        found = Columns(number, known.text, known.rows)
        how = {"dtype": "float16", "stack": "", "sustained": 1.0}
        yield from _by_device(path, source, "products", found, _VIDUR, [], **how)


def shares(path: Path, rows: Sequence[Row]) -> Iterator[Read]:
    """SimuMax: share of peak of training kernels; seconds = flop / (share x peak).

    Causal attention counts as full there, and its backward as 2.5 times the forward.
    """
    source = "simumax operators"
    for op in ("matmul", "group_matmul", "sdp_fwd", "sdp_bwd"):
        mine = [row for row in rows if row["op"] == op]
        if not mine:
            continue
        shapes = [dict(re.findall(r"(\w+)=([\w.]+)", row["shape"])) for row in mine]
        rates = from_rows(mine, ["peak_tflops_used", "efficiency_of_peak"], ["device"])
        rate = rates["peak_tflops_used"] * 1e12 * rates["efficiency_of_peak"]
        column = {name: np.array([_float(shape.get(name)) for shape in shapes]) for name in _names(shapes)}
        if op == "matmul":
            flop = 2 * column["b"] * column["m"] * column["n"] * column["k"]
            more = np.array([shape["accumulate"] == "True" for shape in shapes])
            single = np.array([4.0 if shape["out_dtype"] == "fp32" else 2.0 for shape in shapes])
            number = {name: column[name] for name in "mnk"} | {"g": column["b"], "out_byte": single}
            number["more_byte"] = np.where(more, single * column["m"] * column["n"], 0.0)
            form, how = "products", {"dtype": "bfloat16", "stack": "", "sustained": 1.0}
        elif op == "group_matmul":
            number, flop = _grouped(shapes, column)
            form, how = "grouped-products", {"sustained": 0.0}
        else:
            d = (column["qk_head_dim"] + column["v_head_dim"]) / 2
            flop = 4 * column["batch"] * column["head_num"] * column["seq_len"] ** 2 * d
            flop = flop * (2.5 if op == "sdp_bwd" else 1.0)
            number = {
                "batch": column["batch"],
                "seq_len": column["seq_len"],
                "heads": column["head_num"],
                "kv_heads": column["kv_head_num"],
                "head_dim": d,
                "causal": np.ones(len(mine)),
            }
            form, how = (
                "attention",
                {"backward": op == "sdp_bwd", "cached": 0.0, "stack": "", "sustained": 1.0},
            )
        found = Columns({**number, "latency_ms": flop / rate * 1e3}, rates.text, len(mine))
        yield from _by_device(path, source, form, found, _SIMUMAX, [], **how)


def _grouped(shapes: Sequence[dict[str, str]], column: dict[str, Array]) -> tuple[dict[str, Array], Array]:
    """Sides of grouped products: a weight gradient sums over the rows of each expert."""
    weight = np.array([shape["stage"] == "bwd_grad_w" for shape in shapes])
    m, n, k = column["M"], column["N"], column["K"]
    number = {
        "g": column["ng"],
        "m": np.where(weight, n, m),
        "n": np.where(weight, k, n),
        "k": np.where(weight, m, k),
        "out_byte": np.where(weight, 4.0, 2.0),
    }
    return number, 2 * column["ng"] * m * n * k


def _names(shapes: Sequence[dict[str, str]]) -> list[str]:
    return [name for name in shapes[0] if _float(shapes[0][name]) == _float(shapes[0][name])]


def _float(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def traces(path: Path, rows: Sequence[Row]) -> Iterator[Read]:
    """TraceLens: products of profiler traces; convolutions and attention are refused, shapes as strings."""
    source = "tracelens"
    products: dict[str, list[tuple[float, ...]]] = {}
    refused: dict[tuple[str, str], int] = {}
    for row in rows:
        accelerator = _TRACED.get(row["group"])
        shape = _product_shape(row)
        if accelerator is None:
            key = ("accelerator-unknown", "the trace's device is not named")
        elif shape is None:
            key = ("kernel", "no form prices this operator alone")
        else:
            products.setdefault(accelerator, []).append(shape)
            continue
        refused[key] = refused.get(key, 0) + 1
    for (code, detail), count in refused.items():
        yield Refused(source, path.name, code, detail, count)
    for accelerator, found in products.items():
        g, m, n, k, seconds = np.array(found).T
        number = {"g": g, "m": m, "n": n, "k": k, "latency_ms": seconds * 1e3}
        columns = Columns(number, {}, len(found))
        how = {"dtype": "bfloat16", "stack": "", "sustained": 1.0, "traced": 1.0}
        yield from groups(path, source, "products", columns, [], how, accelerator)


def _product_shape(row: Row) -> tuple[float, ...] | None:
    """(g, m, n, k, seconds) of a 16-bit product, None for anything else."""
    if row["kind"] != "GEMM":
        return None
    try:
        shape = json.loads(row["params"])
        types = ast.literal_eval(shape["dtype_A_B"])
    except (ValueError, KeyError, SyntaxError):
        return None
    if not str(types[0]).endswith(("BFloat16", "Half")):
        return None
    sides = tuple(float(shape.get(name) or 1) for name in ("B", "M", "N", "K"))
    return (*sides, float(row["kernel_us_median"]) * 1e-6)


def unpriced(path: Path, rows: Sequence[Row]) -> Iterator[Read]:
    """Gated delta nets and Mamba scans: no form."""
    yield Refused("aiconfigurator scans", path.name, "kernel", "no form prices scans yet", len(rows))


FORMATS = (
    Format(
        "neusight operators",
        frozenset("op device torch source_split b m n k h latency_ms kernel".split()),
        operators,
    ),
    Format("llmcompass", frozenset("device op m n k latency_ms tflops".split()), single_products),
    Format(
        "vidur layers",
        frozenset("device model n_embd num_tokens attn_pre_proj_ms mlp_up_proj_ms".split()),
        layers,
    ),
    Format(
        "simumax operators", frozenset("device op peak_tflops_used efficiency_of_peak shape".split()), shares
    ),
    Format("tracelens", frozenset("trace group kind op params kernel_us_median".split()), traces),
    Format(
        "aiconfigurator scans",
        frozenset("stack kind op_name kernel phase d_conv latency_ms".split()),
        unpriced,
    ),
)
