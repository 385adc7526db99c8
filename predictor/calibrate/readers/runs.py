"""Published whole runs: hours from the first to the last step, ``runs_*.csv``.

Scored are full runs and benchmark runs whose hours are stated or logged (tiers A and B). Achieved rates,
utilisation and total flop of a row are not read.
"""

import re
from collections.abc import Callable
from typing import Any

from predictor.calibrate.case import Case, Refused, RowError
from predictor.calibrate.hardware import accelerator_id
from predictor.calibrate.models import Choice, family_of, timm, torchvision, zoo
from predictor.calibrate.readers.format import Format, each_row
from predictor.calibrate.readers.language import config_file, llama
from predictor.calibrate.rows import Row, number, whole
from predictor.calibrate.software import optimizer_of, precision_of, recompute_of
from predictor.job import Job
from predictor.units import HOUR

COLUMNS = frozenset(
    "run_id run_kind family std_model_name layers hidden heads ffn_hidden vocab seq_len tokens samples "
    "samples_unit steps epochs global_batch global_batch_unit precision optimizer accelerator "
    "accelerator_count wall_hours time_tier".split()
)
NAME = "runs"
_KINDS = ("full training run", "benchmark time-to-quality run")
_OTHER = "NAS, reinforcement learning or a part of a run"
_NAMED: dict[str, Callable[[], Choice]] = {
    "alexnet": lambda: zoo("alexnet"),
    "vgg16": lambda: torchvision("vgg16"),
    "resnet18": lambda: torchvision("resnet18"),
    "resnet50": lambda: torchvision("resnet50"),
    "resnet152": lambda: torchvision("resnet152"),
    "transformer_big": lambda: zoo("transformer-big", optimizer="adam"),
    "bert_large": lambda: zoo("bert-large"),
    "gpt3_175b": lambda: zoo("gpt3-175b"),
    "unet3d": lambda: zoo("unet3d-mlperf"),
    "dlrm_dcnv2": lambda: zoo("dlrm-dcnv2"),
    "vit_base_patch16": lambda: timm("vit_base_patch16_224"),
    "vit_large_patch16": lambda: timm("vit_large_patch16_224"),
    "vit_huge_patch14": lambda: timm("vit_huge_patch14_224"),
}
_SEVERAL = re.compile(
    r"two-stream|shared across|masking|multi-crop|text tower|text transformer|progressive|at 512"
)


def _read(row: Row, place: str) -> Case | Refused:
    if row["run_kind"] not in _KINDS:
        raise RowError("method", f"{row['run_kind']}: {_OTHER}")
    if row["time_tier"] not in {"A", "B"}:
        raise RowError("measurement", f"time of tier '{row['time_tier']}'")
    hours, count = number(row, "wall_hours"), whole(row, "accelerator_count")
    if hours is None:
        raise RowError("measurement", "no hours from start to end")
    if count is None:
        raise RowError("plan", "the number of accelerators is not published")
    if _SEVERAL.search(row.get("arch_notes", "")):
        raise RowError("method", row["arch_notes"])
    choice = _choose(row)
    accelerator = accelerator_id(re.sub(r"\s*\(.*\)", "", row["accelerator"]))
    sizes = {name: whole(row, name) for name in ("tp", "pp", "ep", "cp") if row.get(name)}
    ranks = whole(row, "dp") or max(count // ((sizes.get("tp") or 1) * (sizes.get("pp") or 1)), 1)
    micro = re.search(r"micro-batch (\d+)", row.get("plan_notes", ""))
    batch = _batch(row, ranks * (int(micro[1]) if micro else 1))
    job = Job(
        model=choice.model,
        hardware=accelerator,
        count=count,
        precision=precision_of(row["precision"]),
        stack=_stack(row),
        batch_size=batch,
        micro_batch=int(micro[1]) if micro else None,
        seq_len=choice.sequence,
        image_size=whole(row, "image_size_px") or choice.image,
        optimizer=optimizer_of(row["optimizer"] or choice.optimizer),
        zero=_zero(row.get("zero_stage", "")),
        recompute=recompute_of(row.get("recompute", "")),
        **sizes,
        **_length(row),
    )
    return Case(
        source=NAME,
        row=row["run_id"],
        kind="run",
        job=job,
        family=choice.family,
        accelerator=accelerator,
        samples=1.0,
        step_s=hours * HOUR,
        parameters=None,
    )


def _zero(text: str) -> int:
    return 3 if text == "FSDP" else int(text or 0)


def _stack(row: Row) -> str | None:
    """The usual stack of the chip; large language models on GPUs run on fused kernels."""
    if row["accelerator"].startswith(("TPU", "Graphcore")):
        return None
    year = int(row.get("year") or 0)
    if row["family"].startswith("transformer decoder") or row["run_kind"].startswith("benchmark"):
        return "megatron-fused"
    return "eager-2" if year > 2023 else "eager-1"


def _choose(row: Row) -> Choice:
    """The model by its common name, else from the sizes of its transformer."""
    name, family = row["std_model_name"], row["family"]
    if name in _NAMED:
        return _NAMED[name]()
    if row["run_id"].endswith(("transformer_base", "transformer_big")):
        return zoo("transformer-" + row["run_id"].rpartition("_")[2], optimizer="adam")
    if row.get("experts_total") or not family.startswith(("transformer decoder", "transformer encoder")):
        raise RowError("definition", f"'{name or row['run_id']}' of family '{family}'")
    sizes = [whole(row, column) for column in ("hidden", "layers", "heads", "ffn_hidden", "vocab", "seq_len")]
    if None in sizes:
        raise RowError("shapes", "a size of the transformer is not published")
    return Choice(
        config_file(_config(row, *[size for size in sizes if size is not None])),
        family_of(row["run_id"]),
        sequence=sizes[5],
        optimizer="adamw",
    )


def _config(
    row: Row, width: int, layers: int, heads: int, inner: int, vocabulary: int, length: int
) -> dict[str, Any]:
    if row["family"].startswith("transformer encoder"):
        return {
            "model_type": "bert",
            "architectures": ["BertForMaskedLM"],
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": inner,
            "vocab_size": vocabulary,
            "max_position_embeddings": length,
        }
    if whole(row, "ffn_matrices") == 3:
        return llama(width, layers, heads, whole(row, "kv_heads") or heads, inner, vocabulary, length)
    return {
        "model_type": "gpt_neox",
        "architectures": ["GPTNeoXForCausalLM"],
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
        "max_position_embeddings": length,
        "hidden_act": "gelu",
    }


def _batch(row: Row, ranks: int) -> int:
    """Samples of one step, the published figure rounded to what the ranks can share."""
    size = number(row, "global_batch")
    if size is None:
        raise RowError("batch", "the batch is not published")
    if row["global_batch_unit"].startswith("tokens"):
        # a translation step of 25,000 source and 25,000 target tokens is as many pairs of 32 tokens each
        length = 64 if "source" in row["global_batch_unit"] else whole(row, "seq_len")
        if length is None:
            raise RowError("shapes", "batch in tokens, and no sequence length")
        size /= length
    return max(round(size / ranks), 1) * ranks


def _length(row: Row) -> dict[str, Any]:
    """How long the run was, as one of the lengths of a job."""
    steps, tokens = number(row, "steps"), number(row, "tokens")
    if steps is not None:
        return {"steps": int(steps)}
    if tokens is not None:
        return {"tokens": int(tokens)}
    samples, epochs = number(row, "samples"), number(row, "epochs")
    if samples is None or (epochs is None and "per epoch" in row["samples_unit"]):
        raise RowError("shapes", "the length of the run is not published")
    if "per epoch" in row["samples_unit"]:
        return {"epochs": epochs, "dataset_size": int(samples)}
    return {"samples": int(samples)}


FORMATS = (Format(NAME, COLUMNS, each_row(NAME, _read)),)
