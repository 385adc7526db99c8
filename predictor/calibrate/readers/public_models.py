"""Sizes of public language models, by their plain name: configurations their makers publish.

Source of every entry: the model's ``config.json`` on Hugging Face or its paper, from memory.
"""

from typing import Any


def _llama(
    width: int,
    layers: int,
    heads: int,
    key_heads: int,
    inner: int,
    vocabulary: int,
    kind: str = "llama",
    architecture: str = "LlamaForCausalLM",
    **more: Any,
) -> dict[str, Any]:
    return {
        "model_type": kind,
        "architectures": [architecture],
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
        "max_position_embeddings": 4096,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        **more,
    }


def _gpt(width: int, layers: int, heads: int, vocabulary: int = 51_200) -> dict[str, Any]:
    return {
        "model_type": "gpt_neox",
        "architectures": ["GPTNeoXForCausalLM"],
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "vocab_size": vocabulary,
        "max_position_embeddings": 2048,
        "hidden_act": "gelu",
        "rotary_pct": 1.0,
    }


_LLAMA2_7B = _llama(4096, 32, 32, 32, 11008, 32000)
_LLAMA2_13B = _llama(5120, 40, 40, 40, 13824, 32000)
_LLAMA2_70B = _llama(8192, 80, 64, 8, 28672, 32000)
_LLAMA3_8B = _llama(4096, 32, 32, 8, 14336, 128_256)
_LLAMA3_70B = _llama(8192, 80, 64, 8, 28672, 128_256)
_LLAMA3_405B = _llama(16384, 126, 128, 8, 53248, 128_256)


def _experts(base: dict[str, Any], kind: str, architecture: str, **more: Any) -> dict[str, Any]:
    return {**base, "model_type": kind, "architectures": [architecture], **more}


PUBLIC: dict[str, dict[str, Any]] = {
    "llama27b": _LLAMA2_7B,
    "llama213b": _LLAMA2_13B,
    "llama270b": _LLAMA2_70B,
    "llama38b": _LLAMA3_8B,
    "llama3.18b": _LLAMA3_8B,
    "llama370b": _LLAMA3_70B,
    "llama3.170b": _LLAMA3_70B,
    "llama3.1405b": _LLAMA3_405B,
    "mistral7b": _llama(4096, 32, 32, 8, 14336, 32000),
    "mixtral8x7b": _experts(
        _llama(4096, 32, 32, 8, 14336, 32000),
        "mixtral",
        "MixtralForCausalLM",
        num_local_experts=8,
        num_experts_per_tok=2,
    ),
    "mixtral8x22b": _experts(
        _llama(6144, 56, 48, 8, 16384, 32768),
        "mixtral",
        "MixtralForCausalLM",
        num_local_experts=8,
        num_experts_per_tok=2,
    ),
    "grok1314b": _experts(
        _llama(6144, 64, 48, 8, 32768, 131_072),
        "mixtral",
        "MixtralForCausalLM",
        num_local_experts=8,
        num_experts_per_tok=2,
    ),
    "qwen330ba3b": _experts(
        _llama(2048, 48, 32, 4, 6144, 151_936),
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        head_dim=128,
        moe_intermediate_size=768,
        num_experts=128,
        num_experts_per_tok=8,
    ),
    "qwen3235ba22b": _experts(
        _llama(4096, 94, 64, 4, 12288, 151_936),
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        head_dim=128,
        moe_intermediate_size=1536,
        num_experts=128,
        num_experts_per_tok=8,
    ),
    "deepseekv3": _llama(
        7168,
        61,
        128,
        128,
        18432,
        129_280,
        "deepseek_v3",
        "DeepseekV3ForCausalLM",
        q_lora_rank=1536,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
        moe_intermediate_size=2048,
        n_routed_experts=256,
        n_shared_experts=1,
        num_experts_per_tok=8,
        first_k_dense_replace=3,
        n_group=8,
        topk_group=4,
    ),
    "deepseekv2": _llama(
        5120,
        60,
        128,
        128,
        12288,
        102_400,
        "deepseek_v2",
        "DeepseekV2ForCausalLM",
        q_lora_rank=1536,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
        moe_intermediate_size=1536,
        n_routed_experts=160,
        n_shared_experts=2,
        num_experts_per_tok=6,
        first_k_dense_replace=1,
    ),
    "gpt35b": _gpt(4096, 24, 32),
    "gpt320b": _gpt(6144, 44, 48),
    "gpt36.7b": _gpt(4096, 32, 32),
    "gpt3175b": _gpt(12288, 96, 96),
    "mlperfgpt3175b": _gpt(12288, 96, 96),
    "nemotron340b": _gpt(18432, 96, 96, 256_000),
    "nemotron15b": _gpt(6144, 32, 48, 256_000),
}
PUBLIC["deepseek3671b"] = PUBLIC["deepseekv3"]
