"""Build and count one small configuration of every transformers architecture; name what cannot be counted.

    python benchmarks/coverage_transformers.py                go on where the last run stopped
    python benchmarks/coverage_transformers.py --fresh        forget earlier results
    python benchmarks/coverage_transformers.py 'Mamba*'       only classes that match, results are kept
    python benchmarks/coverage_transformers.py --only-failed  those that failed or lack a formula
    python benchmarks/coverage_transformers.py --write        also write docs/coverage-transformers.md

The architectures are the classes of transformers' tables for causal and masked language models,
sequence to sequence, speech, and encoders of text, images and speech. Each gets its default configuration
with few layers: weights take no memory, so widths stay as they are. The configuration is written as the
config.json a user would have, and read through the same door: one training step is recorded.
One line of JSON per class is kept in out/coverage-transformers.jsonl.
"""

import argparse
import fnmatch
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from predictor.errors import PredictorError
from predictor.frontends import ReadOptions
from predictor.frontends.torch_hf import read_config
from predictor.frontends.torch_vision import ensure_torchvision
from predictor.ir import FORWARD, Graph
from predictor.ops import FORMULAS

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / "out" / "coverage-transformers.jsonl"
PAGE = ROOT / "docs" / "coverage-transformers.md"
BATCH, SEQ_LEN = 2, 64
AIM = 0.95
# Classes recorded by one process before it is replaced: imported model files stay in memory.
PER_PROCESS = 60

TASKS = {
    "CAUSAL_LM": "causal language models",
    "MASKED_LM": "masked language models",
    "SEQ_TO_SEQ_CAUSAL_LM": "sequence to sequence",
    "SPEECH_SEQ_2_SEQ": "speech to text",
    "IMAGE_CLASSIFICATION": "image classification",
    "CTC": "speech recognition (CTC)",
    "AUDIO_CLASSIFICATION": "audio classification",
    "TEXT_ENCODING": "text encoders",
    "IMAGE": "image encoders",
}
# Fields that hold a number of layers, as the families call them.
LAYER_FIELDS = (
    "num_hidden_layers num_layers n_layer n_layers num_decoder_layers num_encoder_layers encoder_layers "
    "decoder_layers speech_encoder_layers t2u_encoder_layers t2u_decoder_layers encoder_num_hidden_layers "
    "decoder_num_hidden_layers depth num_hidden_groups"
).split()
# Layers without experts before the first with them.
DENSE_FIELDS = ("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index", "mlp_only_layers")
# By model_type or class: what a default configuration leaves open, or what few layers would break.
_LFM = ["conv", "full_attention"]
_ZAMBA2 = [*["linear_attention"] * 6, "hybrid"] * 2
EXCEPTIONS: dict[str, dict[str, Any]] = {
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}
    },
    "dbrx": {"attn_config": {"rope_theta": 1e4, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 6},
    "dots1": {"n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32},
    "fun_asr_nano": {"text_config": {"model_type": "qwen3", "hidden_size": 1024, "num_hidden_layers": 2}},
    "gemma3": {"vision_config": {"image_size": 896, "num_hidden_layers": 2}},
    "gemma3n": {"text_config": {"num_hidden_layers": 10, "num_kv_shared_layers": 5}},
    "gemma3n_text": {"num_hidden_layers": 10, "num_kv_shared_layers": 5},
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]]},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "lfm2_moe": {"num_hidden_layers": 4, "layer_types": _LFM * 2},
    "ministral": {"head_dim": 128},
    "moonshine_streaming": {"num_key_value_heads": 8},
    "nemotron": {"num_key_value_heads": 8},
    "perceiver": {"num_cross_attention_heads": 1},
    "nllb-moe": {"encoder_sparse_step": 1, "decoder_sparse_step": 1, "num_experts": 8},
    "shieldgemma2": {"vision_config": {"image_size": 896, "num_hidden_layers": 2}},
    "switch_transformers": {"num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1},
    "timm_backbone": {"backbone": "resnet18"},
    "timm_wrapper": {"architecture": "resnet18", "num_classes": 1000},
    "wav2vec2-bert": {"vocab_size": 32},
    "wav2vec2-conformer": {"vocab_size": 32},
    "zamba": {"num_hidden_layers": 14},
    "zamba2": {"num_hidden_layers": 14, "layers_block_type": _ZAMBA2, "hybrid_layer_ids": [6, 13]},
    "ReformerModelWithLMHead": {"is_decoder": True},
    "T5GemmaEncoderModel": {"is_encoder_decoder": False},
}

ASSUMED = (
    "- Nothing is padded or packed; a check on values says that all is well (`torch_hf_values.py`).",
    "- Causal, windowed and chunked masks count the pairs they keep. A mask made of data (the top tokens "
    "of an indexer, blocks of an image) counts every pair, as does attention written out in products.",
    "- Experts receive equal shares. Layers that training leaves out at random are all counted.",
    "- Recurrences, linear attention and short convolutions count as their accelerator kernels.",
)

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


def architectures() -> dict[str, tuple[str, str]]:
    """Class name -> its task and model_type; a class that several tables name counts once."""
    ensure_torchvision()
    from transformers.models.auto import modeling_auto

    found: dict[str, tuple[str, str]] = {}
    for task in TASKS:
        for model_type, names in getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES").items():
            for name in (names,) if isinstance(names, str) else names:
                found.setdefault(name, (task, model_type))
    return found


def small(config: Any) -> dict[str, Any]:
    """Fields that make a configuration two layers deep, or as deep as shows every kind of its layers.

    >>> from types import SimpleNamespace as Config
    >>> small(Config(num_hidden_layers=48, layer_types=["a", "a", "a", "b"] * 12, hidden_size=64))
    {'num_hidden_layers': 4}
    """
    fields = vars(config)
    depth = 2
    for kinds in fields.values():
        if isinstance(kinds, list) and len(kinds) > 2 and all(isinstance(kind, str) for kind in kinds):
            depth = max(depth, *(kinds.index(kind) + 1 for kind in kinds))
    changed: dict[str, Any] = {}
    for name, value in fields.items():
        if name in LAYER_FIELDS and isinstance(value, int) and value > depth:
            changed[name] = depth
        elif name in DENSE_FIELDS and isinstance(value, int) and value > 1:
            changed[name] = 1
        elif hasattr(value, "to_dict") and hasattr(value, "model_type"):
            inner = small(value)
            if inner:
                changed[name] = {"model_type": value.model_type, **inner}
    return changed


def content_of(name: str, model_type: str) -> dict[str, Any]:
    """The config.json of a small model of class ``name``."""
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[model_type]
    fields = EXCEPTIONS.get(model_type, {}) | EXCEPTIONS.get(name, {})
    fields = {**small(kind(**fields)), **fields}
    return {"model_type": model_type, "architectures": [name], **fields}


def kernels_of(graph: Graph) -> dict[str, int]:
    """Fused kernels of the forward pass by name; attention with a mask or bias tensor apart."""
    found: Counter[str] = Counter()
    for op in graph.ops:
        if op.phase == FORWARD and op.name.startswith("predictor."):
            masked = op.name == "predictor.attention" and len(op.inputs) > 3
            found[op.name.removeprefix("predictor.") + (" with mask" if masked else "")] += 1
    return dict(found)


def record(name: str, model_type: str, seconds: int) -> Result:
    """What happened when one training step of this class was recorded."""
    started = time.perf_counter()
    result: Result = {"name": name, "model_type": model_type}
    try:
        with time_limit(seconds), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "config.json"
            path.write_text(json.dumps(content_of(name, model_type)), encoding="utf-8")
            graph = read_config(path, ReadOptions(batch=BATCH))
            missing = Counter(op.name for op in graph.ops if op.name not in FORMULAS)
            result |= {"ops": len(graph.ops), "unpriced": dict(missing), "kernels": kernels_of(graph)}
    except OutOfTimeError:
        result["error"] = f"longer than {seconds} s"
    except PredictorError as error:
        result["error"] = str(error).partition(": ")[2] or str(error)
    except Exception as error:
        result["error"] = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
    result["seconds"] = round(time.perf_counter() - started, 2)
    return result


def load_state() -> dict[str, Result]:
    """Results so far, the latest of each class."""
    if not STATE.exists():
        return {}
    lines = [json.loads(line) for line in STATE.read_text(encoding="utf-8").splitlines()]
    return {line["name"]: line for line in lines}


def counted(result: Result) -> bool:
    """Recorded, and every operator has a formula."""
    return "error" not in result and not result["unpriced"]


def work(names: list[str], seconds: int) -> None:
    """Record these classes in this process, a line of JSON each."""
    known = architectures()
    STATE.parent.mkdir(exist_ok=True)
    for name in names:
        result = record(name, known[name][1], seconds)
        with STATE.open("a", encoding="utf-8") as out:
            out.write(json.dumps(result) + "\n")
        verdict = "ok" if counted(result) else result.get("error") or f"no formula: {result['unpriced']}"
        print(f"{name:48} {result['seconds']:6.1f} s  {verdict[:200]}", flush=True)


def page(state: dict[str, Result], known: dict[str, tuple[str, str]]) -> str:
    """The results as Markdown: totals, what failed and why, operators without a formula."""
    import torch
    import transformers

    done = {name: state[name] for name in known if name in state}
    good = [name for name, result in done.items() if counted(result)]
    lines = [
        "# Coverage of transformers",
        "",
        "Written by `python benchmarks/coverage_transformers.py --write`. One training step (forward, loss, "
        f"backward, batch {BATCH}) of a small configuration of every class in transformers' tables below, "
        "built offline without weights and recorded; counted means that every operator has a formula.",
        "",
        f"transformers {transformers.__version__}, torch {torch.__version__}: "
        f"**{len(good)} of {len(done)} counted ({len(good) / max(len(done), 1):.1%})**; aim {AIM:.0%}.",
        "",
        "| Task | Classes | Counted |",
        "| --- | ---: | ---: |",
    ]
    for task, words in TASKS.items():
        names = [name for name in done if known[name][0] == task]
        lines.append(f"| {words} | {len(names)} | {sum(counted(done[name]) for name in names)} |")
    lines += [
        "",
        *ASSUMED,
        "",
        "## Kernels",
        "",
        "| Kernel of the forward pass | Classes |",
        "| --- | ---: |",
    ]
    kernels = Counter(kernel for result in done.values() for kernel in result.get("kernels", ()))
    lines += [f"| {kernel} | {count} |" for kernel, count in sorted(kernels.items())]
    failed = {name: result for name, result in done.items() if "error" in result}
    lines += ["", f"## Not recorded ({len(failed)})", "", "| Class | Reason |", "| --- | --- |"]
    for name, result in sorted(failed.items()):
        reason = " ".join(result["error"].replace("|", "/").split())
        lines.append(f"| {name} | {reason[:250]} |")
    missing: dict[str, list[str]] = {}
    for name, result in done.items():
        for operator in result.get("unpriced", ()):
            missing.setdefault(operator, []).append(name)
    lines += ["", f"## Operators without a formula ({len(missing)})", ""]
    if missing:
        lines += ["| Operator | Classes |", "| --- | --- |"]
    lines += [f"| {operator} | {', '.join(names)} |" for operator, names in sorted(missing.items())]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Record what is asked for, in short-lived processes, and say how many are counted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("patterns", nargs="*")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--only-failed", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--seconds", type=int, default=60, help="limit per class")
    parser.add_argument("--exactly", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.exactly:
        work(asked.exactly, asked.seconds)
        return
    if asked.fresh:
        STATE.unlink(missing_ok=True)
    known, state = architectures(), load_state()
    if asked.patterns:
        todo = [name for name in known if any(fnmatch.fnmatch(name, p) for p in asked.patterns)]
    elif asked.only_failed:
        todo = [name for name in known if name in state and not counted(state[name])]
    else:
        todo = [name for name in known if name not in state]
    for start in range(0, len(todo), PER_PROCESS):
        names = todo[start : start + PER_PROCESS]
        command = [sys.executable, __file__, "--seconds", str(asked.seconds), "--exactly", *names]
        subprocess.run(command, check=False)
    state = load_state()
    print(f"{sum(counted(state[n]) for n in known if n in state)} of {len(known)} counted")
    if asked.write:
        PAGE.write_text(page(state, known), encoding="utf-8")


if __name__ == "__main__":
    main()
