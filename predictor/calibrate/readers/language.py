"""Language models from published sizes, as Hugging Face configurations written beside the recordings."""

import hashlib
import json
import re
from typing import Any

from predictor.calibrate.case import RowError
from predictor.calibrate.models import Choice
from predictor.calibrate.readers.public_models import PUBLIC
from predictor.calibrate.rows import Row, whole
from predictor.frontends.cache import folder

Sizes = dict[str, Any]


def choose(row: Row) -> Choice:
    """A language model from the row's sizes, or from those its public name stands for.

    Raises RowError "definition" when neither is known, "shapes" when a size is missing.
    """
    sizes = sizes_of(row["model_hparams"])
    public = PUBLIC.get(_plain(row["model"]))
    length = whole(row, "seq_len") or sizes.get("seq")
    if "d" in sizes and "L" in sizes:
        return Choice(config_file(_config(row, sizes, length)), _family(row["model"]), optimizer="adam")
    if public is None:
        raise RowError("definition", f"'{row['model']}'")
    config = {**public, "max_position_embeddings": max(length or 0, public["max_position_embeddings"])}
    return Choice(config_file(config), _family(row["model"]), optimizer="adam")


def _plain(name: str) -> str:
    """A model's name without case, spaces, punctuation and remarks in brackets.

    >>> _plain("LLAMA3_70B"), _plain("Llama 3.1 70b"), _plain("Qwen3_30B_a3B (tokendrop)")
    ('llama370b', 'llama3.170b', 'qwen330ba3b')
    """
    return re.sub(r"[\s_-]+", "", re.sub(r"\(.*\)", "", name)).casefold()


def _family(name: str) -> str:
    return re.split(r"[\d\W_]", name.casefold(), maxsplit=1)[0] or name.casefold()


_SIZE = re.compile(r"\b(d_model|n_heads|n_layers|head_dim|kv|vocab|ffn|seq|d|L|h)\s*[= ]\s*(\d+)(k|x|d)?")
_SAME = {"d_model": "d", "n_heads": "h", "n_layers": "L"}


def sizes_of(text: str) -> dict[str, int]:
    """Sizes in words such as "d=4096;L=32;h=32;kv=8;ffn=14336;vocab=128256".

    >>> sizes_of("d=1024;L=24;h=16;ffn=4d;gelu;vocab 250k")
    {'d': 1024, 'L': 24, 'h': 16, 'vocab': 250000}
    """
    found = {}
    for name, number, unit in _SIZE.findall(text):
        if unit in {"x", "d"}:
            continue  # a multiple of the width, which is the default
        found[_SAME.get(name, name)] = int(number) * (1000 if unit == "k" else 1)
    return found


# BLOOM's vocabulary, which the table rounds to 250k.
_VOCABULARY = {250_000: 250_880}
_GPT_VOCABULARY = 50_257


def _config(row: Row, sizes: dict[str, int], length: int | None) -> Sizes:
    """A configuration of the family that the sizes speak of: gated feed-forward is the llama line."""
    if "h" not in sizes:
        raise RowError("shapes", "the number of attention heads is not published")
    vocabulary = _VOCABULARY.get(sizes.get("vocab", 0), sizes.get("vocab", _GPT_VOCABULARY))
    width, heads = sizes["d"], sizes["h"]
    if width % heads and "head_dim" not in sizes:
        raise RowError("shapes", f"{heads} heads do not divide a width of {width}")
    if "padded to a multiple" in row["model_hparams"]:
        tensor = whole(row, "tp") or 1
        step = 128 * tensor if tensor > 1 else 1
        vocabulary = -(-vocabulary // step) * step
    positions = max(length or 0, 1024)
    if "alibi" in row["model_hparams"]:
        return {
            "model_type": "mpt",
            "d_model": width,
            "n_heads": heads,
            "n_layers": sizes["L"],
            "max_seq_len": positions,
            "vocab_size": vocabulary,
        }
    if "kv" in sizes or "gated" in row["model_hparams"] or "llama" in row["model"].casefold():
        return llama(
            width, sizes["L"], heads, sizes.get("kv", heads), sizes["ffn"], vocabulary, positions
        ) | ({"head_dim": sizes["head_dim"]} if "head_dim" in sizes else {})
    return {
        "model_type": "gpt2",
        "n_embd": width,
        "n_layer": sizes["L"],
        "n_head": heads,
        "n_inner": sizes.get("ffn", 4 * width),
        "n_positions": positions,
        "vocab_size": vocabulary,
        "architectures": ["GPT2LMHeadModel"],
    }


def llama(
    width: int, layers: int, heads: int, key_heads: int, inner: int, vocabulary: int, positions: int
) -> Sizes:
    """A configuration of the llama line."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
        "max_position_embeddings": positions,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    }


def config_file(content: Sizes) -> str:
    """Path of a ``.json`` file that holds ``content``; equal contents share one file."""
    text = json.dumps(content, indent=1, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = folder() / "configs" / f"{content['model_type']}-{digest}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return str(path)
