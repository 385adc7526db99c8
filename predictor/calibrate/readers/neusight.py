"""NeuSight's end-to-end times: Hugging Face models in float32 without tf32, forward or forward and backward.

Sizes: the configurations of sitar-lab/NeuSight, scripts/asplos, as Hugging Face spells them.
"""

from typing import Any

from predictor.calibrate.case import Case, Refused, RowError
from predictor.calibrate.hardware import accelerator_id
from predictor.calibrate.readers.format import Format, each_row
from predictor.calibrate.readers.language import config_file
from predictor.calibrate.rows import Row, number, whole
from predictor.job import Job

NAME = "neusight_e2e"
COLUMNS = frozenset(
    "model seq_len global_batch device mode option measured_fwd_ms measured_bwd_ms measured_total_ms "
    "num_gpus".split()
)
# Backward takes twice the forward pass; below this the source's own forward times are suspect.
_LEAST_BACKWARD = 1.4
_PLANS: dict[str, dict[str, int]] = {"dp4": {"dp": 4}, "tp4": {"tp": 4}, "pp4_1": {"pp": 4}}


def _gpt(width: int, layers: int, heads: int, positions: int) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_embd": width,
        "n_layer": layers,
        "n_head": heads,
        "n_positions": positions,
        "vocab_size": 50257,
    }


_CONFIGS: dict[str, dict[str, Any]] = {
    "bert_large": {
        "model_type": "bert",
        "architectures": ["BertLMHeadModel"],
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "vocab_size": 30522,
    },
    "gpt2_large": _gpt(1280, 36, 20, 1024),
    "gpt3_27": _gpt(2560, 32, 32, 2048),
    "gpt3_xl": _gpt(3072, 24, 24, 2048),
    "opt_13": {
        "model_type": "opt",
        "architectures": ["OPTForCausalLM"],
        "hidden_size": 2048,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "ffn_dim": 8192,
        "max_position_embeddings": 2048,
        "vocab_size": 50272,
        "word_embed_proj_dim": 2048,
    },
    "switchxl4": {
        "model_type": "switch_transformers",
        "architectures": ["SwitchTransformersForConditionalGeneration"],
        "d_model": 1024,
        "d_ff": 16384,
        "d_kv": 128,
        "num_heads": 32,
        "num_layers": 24,
        "num_decoder_layers": 24,
        "num_experts": 4,
        "expert_capacity": 64,
        "num_sparse_encoder_layers": 12,
        "num_sparse_decoder_layers": 12,
        "vocab_size": 32128,
    },
}


def _read(row: Row, place: str) -> Case | Refused:
    accelerator = accelerator_id(row["device"])
    count = whole(row, "num_gpus") or 1
    option = row["option"]
    plan = _PLANS.get(option, {})
    if option not in {"", "fusion", *_PLANS}:
        raise RowError("plan", f"option '{option}'")
    if row["model"] not in _CONFIGS:
        raise RowError("definition", f"'{row['model']}'")
    train = row["mode"] == "train"
    total_ms = number(row, "measured_total_ms")
    if total_ms is None:
        raise RowError("measurement", "no time")
    if train and not plan and _suspect(row):
        raise RowError("flagged", f"backward takes under {_LEAST_BACKWARD} times the forward pass")
    batch, length = whole(row, "global_batch"), whole(row, "seq_len")
    if batch is None or length is None:
        raise RowError("shapes", "no batch or sequence length")
    job = Job(
        model=config_file(_CONFIGS[row["model"]]),
        hardware=accelerator,
        count=count,
        batch_size=batch,
        seq_len=length,
        precision="fp32",
        stack="compiled-2" if option == "fusion" else "eager-1",  # attention is not fused in eager rows
        optimizer="none",
        mode="train" if train else "infer",
        **plan,
    )
    return Case(NAME, place, "step", job, row["model"], accelerator, samples=batch, step_s=total_ms * 1e-3)


def _suspect(row: Row) -> bool:
    forward, backward = float(row["measured_fwd_ms"] or 0), float(row["measured_bwd_ms"] or 0)
    return backward < _LEAST_BACKWARD * forward


FORMATS = (Format(NAME, COLUMNS, each_row(NAME, _read)),)
