"""transformers models: what attention, experts and state spaces cost, what each task is fed, coverage."""

import importlib.util
import json
import random
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.utils.flop_counter import FlopCounterMode

from predictor.errors import InputError, PredictorError
from predictor.frontends import ReadOptions, load_graph
from predictor.frontends.torch_hf import read_config
from predictor.ir import BACKWARD, FORWARD, TensorSpec
from predictor.ops import FORMULAS
from predictor.ops.attention import scores
from predictor.ops.sequence import delta_flop, pairs_in_chunks

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "coverage-transformers.md"
SMALL = {"vocab_size": 128, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
IDS = ["input_ids:int64[B,S]", "labels:int64[B,S]"]


@pytest.fixture
def recorded(tmp_path):
    """Record one step of a configuration given as fields."""

    def record(inputs=None, batch=2, seq_len=32, **fields):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(fields), encoding="utf-8")
        return read_config(path, ReadOptions(batch=batch, seq_len=seq_len, inputs=inputs))

    return record


def ops_of(graph, name, phase=FORWARD):
    return [op for op in graph.ops if op.name == name and op.phase == phase]


def flop(graph, name="", phase=FORWARD):
    """Matrix flop of the operators whose name begins like this."""
    ops = [op for op in graph.ops if op.name.startswith(name) and op.phase == phase]
    return sum(kernel.work.matrix_flop for op in ops for kernel in FORMULAS[op.name](op))


def windowed(s, w):
    return sum(min(i + 1, w) for i in range(s))


# Attention ----------------------------------------------------------------------------------------


def test_a_window_counts_the_pairs_it_keeps():
    q = TensorSpec((3, 2, 12, 8), "float32")
    assert scores(q, q, True, window=5) == 3 * 2 * windowed(12, 5)
    both_sides = sum(abs(i - j) < 5 for i in range(12) for j in range(12))
    assert scores(q, q, False, window=5) == 3 * 2 * both_sides
    assert scores(q, q, True, window=12) == scores(q, q, True) == 3 * 2 * 12 * 13 // 2


@pytest.mark.parametrize("window", [8, 31, 4096])
def test_mistral_computes_its_sliding_window_and_shares_keys(recorded, window):
    graph = recorded(model_type="mistral", sliding_window=window, **SMALL, **HEADS)
    attention = ops_of(graph, "predictor.attention")
    assert [op.inputs[1].shape for op in attention] == [(2, 2, 32, 16)] * 2
    assert all(len(op.inputs) == 3 for op in attention)  # the kernel reads no mask
    assert flop(graph, "predictor.attention") == 2 * 2 * 4 * windowed(32, window) * 2 * (16 + 16)


def test_llama_is_six_flop_per_weight_and_token_plus_attention(recorded):
    graph = recorded(model_type="llama", tie_word_embeddings=False, **SMALL, **HEADS)
    layer = 64 * (64 + 2 * 32) + 64 * 64 + 3 * 64 * 96
    weights, tokens = 2 * layer + 64 * 128, 2 * 32
    attention = 3 * 2 * 2 * 4 * (32 * 33 // 2) * 2 * (16 + 16)
    assert flop(graph) + flop(graph, phase=BACKWARD) == 6 * weights * tokens + attention


def test_an_attention_mask_of_ones_changes_nothing(recorded):
    fields = {"model_type": "mistral", "sliding_window": 8, **SMALL, **HEADS}
    plain = recorded(inputs=IDS, **fields)
    masked = recorded(inputs=[*IDS, "attention_mask:int64[B,S]"], **fields)
    assert [op.name for op in masked.ops] == [op.name for op in plain.ops]
    assert flop(masked) == flop(plain)


def test_a_module_given_directly_counts_the_same(recorded):
    from transformers import MistralConfig, MistralForCausalLM

    fields = {"sliding_window": 8, **SMALL, **HEADS}
    module = MistralForCausalLM(MistralConfig(use_cache=False, **fields))
    given = load_graph(module, ReadOptions(batch=2, inputs=[s.replace("S", "32") for s in IDS]))
    assert flop(given) == flop(recorded(model_type="mistral", **fields))


def test_modernbert_looks_both_ways_within_its_window(recorded):
    graph = recorded(
        model_type="modernbert", pad_token_id=0, num_attention_heads=4, local_attention=12, **SMALL
    )
    half = 12 // 2
    local = sum(abs(i - j) <= half for i in range(32) for j in range(32))
    assert flop(graph, "predictor.attention") == 2 * 4 * (32 * 32 + local) * 2 * (16 + 16)


def test_llama4_attends_causally_within_chunks(recorded):
    fields = {"model_type": "llama4_text", "intermediate_size_mlp": 96, "num_local_experts": 2}
    graph = recorded(attention_chunk_size=12, layer_types=["chunked_attention", "full_attention"],
                     **fields, **SMALL, **HEADS)  # fmt: skip
    pairs = sum(i % 12 + 1 for i in range(32)) + 32 * 33 // 2
    assert flop(graph, "predictor.attention") == 2 * 4 * pairs * 2 * (16 + 16)


def test_t5_adds_its_bias_without_losing_the_causal_half(recorded):
    sizes = {"vocab_size": 128, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 1, "num_heads": 4}
    graph = recorded(model_type="t5", architectures=["T5ForConditionalGeneration"], **sizes)
    attention = ops_of(graph, "predictor.attention")
    assert all(len(op.inputs) == 4 for op in attention)  # every one reads its bias
    assert [op.attrs["is_causal"] for op in attention] == [False, True, False]
    assert flop(graph, "predictor.attention") == 2 * 4 * (32 * 32 * 2 + 32 * 33 // 2) * 2 * (16 + 16)


def test_deepseek_v3_has_wider_keys_than_values(recorded):
    latent = {"q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8}
    experts = {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1}
    sizes = {"moe_intermediate_size": 32, "num_attention_heads": 4, "num_key_value_heads": 4, **SMALL}
    graph = recorded(
        model_type="deepseek_v3", v_head_dim=12, first_k_dense_replace=1, **latent, **experts, **sizes
    )
    assert flop(graph, "predictor.attention") == 2 * 2 * 4 * (32 * 33 // 2) * 2 * (24 + 12)
    gradient = ops_of(graph, "predictor.attention_backward", BACKWARD)
    again = sum(kernel.work.recompute_flop for op in gradient for kernel in FORMULAS[op.name](op))
    assert again == 2 * 2 * 4 * (32 * 33 // 2) * 2 * 24  # q k^T once more


def test_gemma2_is_plain_unless_flash_attention_is_asked_for(recorded):
    fields = {"model_type": "gemma2", "sliding_window": 8, "query_pre_attn_scalar": 16, **SMALL, **HEADS}
    assert not ops_of(recorded(**fields), "predictor.attention")  # soft-capped scores, eager
    graph = recorded(attn_implementation="flash_attention_2", **fields)
    pairs = windowed(32, 8) + 32 * 33 // 2
    assert flop(graph, "predictor.attention") == 2 * 4 * pairs * 2 * (16 + 16)


class Flexible(nn.Module):
    """Attention through flex_attention, with and without a block mask."""

    def __init__(self):
        super().__init__()
        self.project = nn.Linear(16, 48)

    def forward(self, x):
        q, k, v = self.project(x).reshape(2, 96, 1, 48).transpose(1, 2).chunk(3, -1)
        mask = create_block_mask(lambda b, h, i, j: (i >= j) & (i - j < 9), None, None, 96, 96, device="cpu")
        return flex_attention(q, k, v, block_mask=mask) + flex_attention(q, k, v)


def test_flex_attention_counts_what_its_mask_function_keeps():
    graph = load_graph(Flexible(), ReadOptions(inputs=["x:float32[2,96,16]"]))
    pairs = windowed(96, 9) + 96 * 96
    assert flop(graph, "predictor.attention") == 2 * pairs * 2 * (16 + 16)
    assert flop(graph, "predictor.attention", BACKWARD) == 2 * flop(graph, "predictor.attention")


# Experts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mixtral", "jetmoe"])
def test_experts_work_on_the_tokens_routed_to_them(recorded, kind):
    fields = {"model_type": kind, "num_local_experts": 4, "num_experts_per_tok": 2, **SMALL, **HEADS}
    graph = recorded(**fields, **({"kv_channels": 16} if kind == "jetmoe" else {}))
    rows = 2 * 32 * 2  # tokens times experts each
    mlp = 2 * rows * (64 * 2 * 96 + 96 * 64)
    projections = 2 * rows * 2 * 64 * 32 if kind == "jetmoe" else 0  # its attention has experts too
    assert flop(graph, "predictor.grouped_mm") == 2 * (mlp + projections)
    assert flop(graph, "predictor.grouped_mm", BACKWARD) == 2 * 2 * (mlp + projections)
    kernels = [k for op in ops_of(graph, "predictor.grouped_mm") for k in FORMULAS[op.name](op)]
    assert {kernel.dims[:2] for kernel in kernels} == {(4, rows // 4)}


def test_experts_that_return_their_input_take_their_share(recorded):
    fields = {"n_routed_experts": 6, "zero_expert_num": 2, "moe_topk": 2, "expert_ffn_hidden_size": 32}
    latent = {
        "q_lora_rank": 24,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8,
        "v_head_dim": 16,
    }
    sizes = {"vocab_size": 128, "hidden_size": 64, "ffn_hidden_size": 96, "num_layers": 1}
    heads = {"num_attention_heads": 4, "head_dim": 8}
    graph = recorded(model_type="longcat_flash", **sizes, **heads, **fields, **latent)
    rows = 2 * 32 * 2 * 6 // 8
    assert flop(graph, "predictor.grouped_mm") == 2 * rows * (64 * 2 * 32 + 32 * 64)


# State spaces -------------------------------------------------------------------------------------


def test_mamba_is_one_scan_a_layer_however_long(recorded):
    fields = {
        "model_type": "mamba",
        "vocab_size": 128,
        "hidden_size": 64,
        "state_size": 8,
        "num_hidden_layers": 2,
    }
    graph, longer = recorded(**fields), recorded(**fields, seq_len=256)
    assert len(graph.ops) == len(longer.ops) < 300
    (scan, _) = ops_of(graph, "predictor.selective_scan")
    (kernel,) = FORMULAS[scan.name](scan)
    assert kernel.work.vector_flop == 2 * 128 * 32 * (7 * 8 + 11)
    assert kernel.work.write_byte == 2 * 128 * 32 * 4  # the states never leave the chip
    taps = ops_of(graph, "predictor.causal_conv1d")
    assert flop(graph, "predictor.causal_conv1d") == len(taps) * 2 * 4 * 2 * 128 * 32


def test_mamba2_keeps_the_causal_half_of_the_products_of_its_fallback(recorded):
    b, s, h, p, n, q = 2, 32, 4, 32, 8, 8
    fields = {"num_heads": h, "head_dim": p, "state_size": n, "n_groups": h, "chunk_size": q}
    graph = recorded(model_type="mamba2", vocab_size=128, hidden_size=64, num_hidden_layers=1, **fields)
    from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan

    x, heads = torch.zeros(b, s, h, p), torch.zeros(b, s, h, n)
    with FlopCounterMode(display=False) as counter:
        mamba2_chunk_scan(x, torch.zeros(b, s, h), torch.zeros(h), heads, heads, q)
    chunks = s // q
    squares = 2 * b * chunks * h * q * q * (n + p)
    states = 2 * 2 * b * s * h * n * p
    across = 2 * b * h * (chunks + 1) ** 2 * p * n  # the kernel passes states on one by one instead
    assert counter.get_total_flops() == squares + states + across
    halves = 2 * b * chunks * h * (q * (q + 1) // 2) * (n + p)
    assert flop(graph, "predictor.chunk_scan") == halves + states
    assert flop(graph, "predictor.chunk_scan", BACKWARD) == 2 * (halves + states)


def test_delta_rule_counts_each_product_of_a_chunk():
    length, k, v = 5, 3, 2
    below = sum(j < i for i in range(length) for j in range(length))
    upto = sum(j <= i for i in range(length) for j in range(length))
    substitution = sum(
        2 * sum(m < i and m > j for m in range(length)) for i in range(length) for j in range(i)
    )
    inside = 2 * k * below + substitution + 2 * upto * (v + k) + 2 * upto * (k + v)
    assert delta_flop(length, k, v)[0] == inside + 3 * 2 * length * k * v


def test_a_short_last_chunk_counts_less():
    assert pairs_in_chunks(10, 4) == sum(i % 4 + 1 for i in range(10))


def test_qwen3_next_mixes_linear_and_full_attention(recorded):
    linear = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
              "linear_value_head_dim": 16}  # fmt: skip
    fields = {**SMALL, **HEADS, "num_hidden_layers": 4, "num_experts": 4, "moe_intermediate_size": 32}
    fields["num_experts_per_tok"] = 2
    graph = recorded(
        model_type="qwen3_next", shared_expert_intermediate_size=32, seq_len=128, **fields, **linear
    )
    assert len(ops_of(graph, "predictor.delta_rule")) == 3
    assert len(ops_of(graph, "predictor.attention")) == 1
    whole, _ = delta_flop(64, 16, 16)
    assert flop(graph, "predictor.delta_rule") == 3 * 2 * 4 * (128 // 64) * whole


# Inputs and losses --------------------------------------------------------------------------------


def shapes(graph, dtype):
    """Shapes that the first operators read: the inputs of the model are among them."""
    return {t.shape for op in graph.ops for t in op.inputs if t.dtype == dtype}


@pytest.mark.parametrize(
    ("fields", "seen", "labels"),
    [
        ({"model_type": "whisper", "encoder_layers": 1, "decoder_layers": 1}, (2, 80, 3000), (2, 448)),
        ({"model_type": "vit", "num_hidden_layers": 1}, (2, 3, 224, 224), (2,)),
        ({"model_type": "clip_vision_model", "num_hidden_layers": 1}, (2, 3, 224, 224), None),
        ({"model_type": "bert", "num_hidden_layers": 1}, None, (1024,)),
    ],
)
def test_a_task_is_fed_what_it_takes(recorded, fields, seen, labels):
    graph = recorded(seq_len=None, **fields)
    assert seen is None or seen in shapes(graph, "float32")
    assert labels is None or labels in shapes(graph, "int64")
    assert ops_of(graph, "aten.nll_loss_backward", BACKWARD) or labels is None


def test_cross_entropy_over_a_vocabulary_is_computed_in_float32(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "llama", **SMALL, **HEADS}), encoding="utf-8")
    graph = read_config(path, ReadOptions(batch=2, seq_len=32, precision="bf16"))
    scores_of_vocabulary = 2 * 32 * 128
    (softmax,) = ops_of(graph, "aten._log_softmax")
    assert (softmax.inputs[0].dtype, softmax.inputs[0].elements) == ("float32", scores_of_vocabulary)
    casts = [
        (op.inputs[0].dtype, op.outputs[0].dtype, op.phase)
        for op in graph.ops
        if op.name == "aten._to_copy" and op.outputs[0].elements == scores_of_vocabulary
    ]
    assert casts == [("bfloat16", "float32", FORWARD), ("float32", "bfloat16", BACKWARD)]


def test_speech_is_trained_with_ctc(recorded):
    graph = recorded(
        model_type="wav2vec2", architectures=["Wav2Vec2ForCTC"], num_hidden_layers=1, seq_len=16000
    )
    (loss,) = ops_of(graph, "predictor.ctc_loss")
    frames, batch, classes = loss.inputs[0].shape
    assert (frames, batch, classes) == (49, 2, 32)  # 16,000 samples through strides of 5, 2, 2, 2, 2, 2, 2
    assert ops_of(graph, "predictor.ctc_loss_backward", BACKWARD)


def test_layers_that_chance_leaves_out_are_counted_and_said(recorded):
    sizes = {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
             "decoder_attention_heads": 4, "vocab_size": 128}  # fmt: skip
    graph = recorded(model_type="m2m_100", encoder_layerdrop=0.3, **sizes)
    assert len(ops_of(graph, "predictor.attention")) == 2 + 2 * 2
    assert any(topic == "layerdrop" and "0.3" in text for topic, text, _ in graph.notes)


def test_images_left_out_are_said(recorded):
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    vision = {"depth": 1, "embed_dim": 32, "num_heads": 2, "hidden_size": 64}
    graph = recorded(
        model_type="qwen2_vl", text_config={**SMALL, **HEADS, "rope_parameters": rope}, vision_config=vision
    )
    assert any(topic == "inputs" and "pixel_values" in text for topic, text, _ in graph.notes)


def test_a_plain_image_is_seen_beside_the_text(recorded):
    vision = {"model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "image_size": 32,
              "patch_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}  # fmt: skip
    text = {"model_type": "llama", **SMALL, **HEADS}
    graph = recorded(model_type="llava", text_config=text, vision_config=vision)
    patches = (32 // 8) ** 2 + 1
    seen = [op.inputs[0].shape for op in ops_of(graph, "predictor.attention")]
    assert seen == [(2, 2, patches, 16)] * 2 + [(2, 4, 32, 16)] * 2
    assert not any(topic == "inputs" for topic, _, _ in graph.notes)


def test_a_length_that_depends_on_values_is_refused(recorded):
    with pytest.raises(PredictorError, match="depends on data"):
        recorded(model_type="blt", architectures=["BltForCausalLM"])


def test_an_unknown_input_is_named(recorded):
    with pytest.raises(InputError, match="give it with --input"):
        recorded(model_type="timesfm", architectures=["TimesFmModelForPrediction"])


# Coverage -----------------------------------------------------------------------------------------


def script():
    path = ROOT / "benchmarks" / "coverage_transformers.py"
    spec = importlib.util.spec_from_file_location("coverage_transformers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_says_at_least_95_percent():
    good, of = map(int, re.search(r"\*\*(\d+) of (\d+) counted", PAGE.read_text(encoding="utf-8")).groups())
    assert of > 400
    assert good / of >= 0.95


def test_a_sample_of_architectures_is_counted():
    coverage = script()
    known = coverage.architectures()
    failed = set(re.findall(r"^\| (\w+) \| ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE))
    names = random.Random(3).sample(sorted(set(known) - failed), 20)
    results = [coverage.record(name, known[name][1], 60) for name in names]
    assert [result for result in results if not coverage.counted(result)] == []
