"""Configurations per second by template, from the parsed file to the counted workload.

    python benchmarks/templates.py           print the table
    python benchmarks/templates.py --write   also put it into benchmarks/README.md

Every configuration differs from the others in its widths, as in a search over sizes, so that no shape
repeats. To reach: 200 a second on two processes, without importing torch.
"""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from page import replace_section

from predictor.frontends import ReadOptions
from predictor.frontends.config import from_template
from predictor.stack import find_stack
from predictor.workload import count

COUNT = 60
OPTIONS = ReadOptions(batch=4, seq_len=2048, precision="bf16")
SHORT = ReadOptions(batch=32, seq_len=512, precision="bf16")


def llama(i: int) -> dict[str, Any]:
    """From 1 to 405 billion weights."""
    heads = (16, 32, 40, 64, 128)[i % 5]
    return {
        "model_type": "llama",
        "hidden_size": heads * 128,
        "intermediate_size": heads * 440 + 8 * i,
        "num_hidden_layers": (16, 32, 40, 80, 126)[i % 5],
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
    }


def gemma3(i: int) -> dict[str, Any]:
    """Two kinds of layers, 4 to 27 billion weights."""
    return {
        **llama(i),
        "model_type": "gemma3_text",
        "num_hidden_layers": (34, 48, 62)[i % 3],
        "sliding_window": 1024,
        "num_key_value_heads": 4,
    }


def mixtral(i: int) -> dict[str, Any]:
    """Eight experts, two for each token."""
    return {**llama(i), "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}


def deepseek(i: int) -> dict[str, Any]:
    """Latent attention, 256 experts, three dense layers."""
    return {
        **llama(i),
        "model_type": "deepseek_v3",
        "num_hidden_layers": 61,
        "num_key_value_heads": (16, 32, 40, 64, 128)[i % 5],
        "n_routed_experts": 256,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 2048 + 8 * i,
    }


def gpt2(i: int) -> dict[str, Any]:
    """GPT-2 from small to XL."""
    heads = 12 + i % 14
    layers = (12, 24, 36, 48)[i % 4]
    return {
        "model_type": "gpt2",
        "n_embd": 64 * heads,
        "n_head": heads,
        "n_layer": layers,
        "n_positions": 2048,
        "vocab_size": 50_257 + i,
    }


def bert(i: int) -> dict[str, Any]:
    """BERT, base and large."""
    heads = (12, 16)[i % 2]
    return {
        "model_type": "bert",
        "hidden_size": 64 * heads,
        "intermediate_size": 256 * heads + 8 * i,
        "num_attention_heads": heads,
        "num_hidden_layers": 2 * heads,
        "vocab_size": 30_522,
    }


def t5(i: int) -> dict[str, Any]:
    """T5 from base to XXL."""
    return {
        "model_type": "t5",
        "d_model": (768, 1024, 2048, 4096)[i % 4],
        "d_kv": 64,
        "d_ff": 2048 + 64 * i,
        "num_heads": (12, 16, 32, 64)[i % 4],
        "num_layers": (12, 24)[i % 2],
        "vocab_size": 32_128,
    }


FAMILIES = {
    "llama, 16-126 layers": (llama, OPTIONS),
    "gemma 3, 34-62 layers of two kinds": (gemma3, OPTIONS),
    "mixtral": (mixtral, OPTIONS),
    "deepseek v3, 61 layers of two kinds": (deepseek, OPTIONS),
    "gpt2": (gpt2, OPTIONS),
    "bert": (bert, SHORT),
    "t5": (t5, SHORT),
}


def counted(name: str) -> float:
    """Seconds to read and count the configurations of one family."""
    make, options = FAMILIES[name]
    stack, path = find_stack("eager-2"), Path(name)
    configs = [make(i) for i in range(COUNT)]
    from_template(make(COUNT), path, options)
    start = time.perf_counter()
    for config in configs:
        count(from_template(config, path, options), stack, train=True)
    return time.perf_counter() - start


def rows() -> Iterator[str]:
    """One line for each family on one process, and all of them on one and on two."""
    seconds = {name: counted(name) for name in FAMILIES}
    for name, taken in seconds.items():
        yield f"| {name} | {COUNT / taken:.0f} |"
    total = COUNT * len(FAMILIES)
    yield f"| all | {total / sum(seconds.values()):.0f} |"
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(counted, list(FAMILIES)[:2]))  # both processes are up and have read their files
        start = time.perf_counter()
        list(pool.map(counted, 2 * list(FAMILIES)))
        yield f"| all, two processes | {2 * total / (time.perf_counter() - start):.0f} |"


def main() -> None:
    """Measure, print, and write when asked."""
    head = ["| family | configurations per second |", "| --- | ---: |"]
    text = "\n".join([*head, *rows()])
    if "torch" in sys.modules:
        sys.exit("torch was imported")
    print(text)
    if "--write" in sys.argv[1:]:
        replace_section("templates", text)


if __name__ == "__main__":
    main()
