"""Templates of Hugging Face configurations against the classes of transformers, recorded."""

import json
import subprocess
import sys
from collections import Counter
from functools import partial

import pytest

from predictor.errors import InputError
from predictor.frontends import ReadOptions, load_graph
from predictor.frontends.config import TEMPLATES, from_template
from predictor.frontends.config.fields import NoTemplateError
from predictor.frontends.config.layout import elementwise_stride, view_stride
from predictor.ir import BACKWARD, FORWARD
from predictor.stack import find_stack
from predictor.workload import count

PATH = "config.json"
EAGER, COMPILED = find_stack("eager-2"), find_stack("compiled-2")


def _decoder(**more):
    return {
        "hidden_size": 96,
        "intermediate_size": 200,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "num_hidden_layers": 3,
        "vocab_size": 500,
        "max_position_embeddings": 256,
        **more,
    }


def _encoder(**more):
    return {k: v for k, v in _decoder(**more).items() if k != "num_key_value_heads"}


_LATENT = {
    "num_key_value_heads": 6,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 48,
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 1,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
_FALCON = {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 6, "vocab_size": 500}
_T5 = {"d_model": 96, "d_kv": 24, "d_ff": 200, "num_heads": 6, "vocab_size": 500}
_WHISPER = {
    "d_model": 96,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 6,
    "decoder_attention_heads": 6,
    "encoder_ffn_dim": 200,
    "decoder_ffn_dim": 160,
    "vocab_size": 500,
    "max_source_positions": 64,
    "max_target_positions": 128,
    "num_mel_bins": 20,
    "pad_token_id": 1,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "decoder_start_token_id": 1,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

# name: (configuration class, its fields, architecture); sizes are unequal, so that a mixed-up axis shows.
FAMILIES = {
    "llama": ("LlamaConfig", _decoder(), "LlamaForCausalLM"),
    "llama, biases, tied": (
        "LlamaConfig",
        _decoder(attention_bias=True, mlp_bias=True, tie_word_embeddings=True, rope_scaling=_LLAMA3),
        "LlamaForCausalLM",
    ),
    "mistral": ("MistralConfig", _decoder(sliding_window=16), "MistralForCausalLM"),
    "mixtral": (
        "MixtralConfig",
        _decoder(num_local_experts=4, num_experts_per_tok=2, sliding_window=None),
        "MixtralForCausalLM",
    ),
    "qwen2": (
        "Qwen2Config",
        _decoder(use_sliding_window=True, sliding_window=8, max_window_layers=1),
        "Qwen2ForCausalLM",
    ),
    "qwen2_moe": (
        "Qwen2MoeConfig",
        _decoder(**_EXPERTS, shared_expert_intermediate_size=80, decoder_sparse_step=2),
        "Qwen2MoeForCausalLM",
    ),
    "qwen3": ("Qwen3Config", _decoder(head_dim=24), "Qwen3ForCausalLM"),
    "qwen3_moe": ("Qwen3MoeConfig", _decoder(**_EXPERTS, head_dim=16), "Qwen3MoeForCausalLM"),
    "gemma": ("GemmaConfig", _decoder(head_dim=24), "GemmaForCausalLM"),
    "gemma2": ("Gemma2Config", _decoder(head_dim=24, sliding_window=16), "Gemma2ForCausalLM"),
    "gemma3_text": (
        "Gemma3TextConfig",
        _decoder(head_dim=24, sliding_window=16, num_hidden_layers=7),
        "Gemma3ForCausalLM",
    ),
    "phi": ("PhiConfig", _decoder(partial_rotary_factor=0.5), "PhiForCausalLM"),
    "phi3": ("Phi3Config", _decoder(pad_token_id=0, sliding_window=8), "Phi3ForCausalLM"),
    "gpt2": (
        "GPT2Config",
        {"n_embd": 96, "n_layer": 3, "n_head": 6, "vocab_size": 500, "n_positions": 256},
        "GPT2LMHeadModel",
    ),
    "gpt_neox": ("GPTNeoXConfig", _encoder(rotary_pct=0.25), "GPTNeoXForCausalLM"),
    "opt": ("OPTConfig", _encoder(ffn_dim=200, word_embed_proj_dim=48), "OPTForCausalLM"),
    "bloom": (
        "BloomConfig",
        {"hidden_size": 96, "n_layer": 3, "n_head": 6, "vocab_size": 500},
        "BloomForCausalLM",
    ),
    "falcon": ("FalconConfig", _FALCON, "FalconForCausalLM"),
    "falcon, grouped": (
        "FalconConfig",
        {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2},
        "FalconForCausalLM",
    ),
    "falcon, bias on scores": (
        "FalconConfig",
        {**_FALCON, "multi_query": False, "parallel_attn": False, "alibi": True, "bias": True},
        "FalconForCausalLM",
    ),
    "mpt": (
        "MptConfig",
        {"d_model": 96, "n_heads": 6, "n_layers": 3, "vocab_size": 500, "max_seq_len": 256},
        "MptForCausalLM",
    ),
    "deepseek_v2": ("DeepseekV2Config", _decoder(**_LATENT, q_lora_rank=None), "DeepseekV2ForCausalLM"),
    "deepseek_v3": ("DeepseekV3Config", _decoder(**_LATENT, q_lora_rank=40), "DeepseekV3ForCausalLM"),
    "olmo": ("OlmoConfig", _decoder(clip_qkv=8.0), "OlmoForCausalLM"),
    "olmo2": ("Olmo2Config", _decoder(), "Olmo2ForCausalLM"),
    "bert": ("BertConfig", _encoder(), "BertForMaskedLM"),
    "bert, pretraining": ("BertConfig", _encoder(), "BertForPreTraining"),
    "bert, classes": ("BertConfig", _encoder(num_labels=5), "BertForSequenceClassification"),
    "roberta": ("RobertaConfig", _encoder(), "RobertaForMaskedLM"),
    "t5": ("T5Config", {**_T5, "num_layers": 3}, "T5ForConditionalGeneration"),
    "t5, gated": (
        "T5Config",
        {**_T5, "num_layers": 2, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        "T5ForConditionalGeneration",
    ),
    "vit": ("ViTConfig", {**_encoder(), "image_size": 64, "num_labels": 10}, "ViTForImageClassification"),
    "whisper": ("WhisperConfig", _WHISPER, "WhisperForConditionalGeneration"),
}


def _saved(name, folder):
    """The configuration as its own class writes it."""
    transformers = pytest.importorskip("transformers")
    kind, fields, architecture = FAMILIES[name]
    config = getattr(transformers, kind)(**fields, architectures=[architecture])
    config.save_pretrained(folder)
    return folder / "config.json"


def _options(name, **more):
    return ReadOptions(batch=2, seq_len=None if name == "vit" else 24, **more)


@pytest.fixture
def both(tmp_path, monkeypatch):
    """The template's graph and that of the recorded class, every block recorded for itself."""
    torch_hf = pytest.importorskip("predictor.frontends.torch_hf")
    torch_model = pytest.importorskip("predictor.frontends.torch_model")
    monkeypatch.setattr(torch_model, "record_step", partial(torch_model.record_step, fold=False))

    def read(name, **more):
        path, options = _saved(name, tmp_path), _options(name, **more)
        mine = load_graph(str(path), options)
        assert mine.origin["frontend"] == "config template"
        return mine, torch_hf.read_config(path, options)

    return read


def _peak(graph):
    """Most bytes alive at once, and what is alive at the end."""
    alive = most = 0
    for event in graph.events:
        alive += event.byte
        most = max(most, alive)
    return most, alive


def _total(graph, phase, stack=EAGER):
    train = any(op.phase == BACKWARD for op in graph.ops)
    work = count(graph, stack, train).total(phase)
    return work.matrix_flop, work.read_byte + work.write_byte


def _agree(mine, real, stack=EAGER):
    for phase in (FORWARD, BACKWARD):
        flop, moved = _total(mine, phase, stack)
        real_flop, real_moved = _total(real, phase, stack)
        assert flop == pytest.approx(real_flop, rel=0.005), phase
        assert moved == pytest.approx(real_moved, rel=0.01), phase


@pytest.mark.parametrize("name", FAMILIES)
def test_a_template_agrees_with_the_recorded_class(name, both):
    mine, real = both(name)
    _agree(mine, real)
    assert mine.parameter_count == real.parameter_count
    assert mine.trainable_count == real.trainable_count
    assert Counter(p.shape for p in mine.parameters) == Counter(p.shape for p in real.parameters)
    for field in ("name", "batch", "tokens_per_sample", "buffers_byte", "input_byte"):
        assert getattr(mine, field) == getattr(real, field), field
    assert len(mine.gradients) == len(real.gradients)
    assert _peak(mine)[0] == pytest.approx(_peak(real)[0], rel=0.03)
    # What is alive after the step are the gradients, one float32 for each trained weight.
    assert _peak(mine)[1] == 4 * mine.trainable_count


@pytest.mark.parametrize("name", ["llama", "mixtral", "gpt2", "vit"])
def test_a_template_casts_as_autocast_does(name, both):
    mine, real = both(name, precision="amp-bf16")
    _agree(mine, real)
    assert _peak(mine)[0] == pytest.approx(_peak(real)[0], rel=0.03)


@pytest.mark.parametrize("name", ["gemma2", "deepseek_v3", "t5"])
def test_a_template_holds_all_weights_in_a_half_type(name, both):
    mine, real = both(name, precision="bf16")
    _agree(mine, real)
    assert mine.buffers_byte == real.buffers_byte
    assert _peak(mine)[1] == 2 * mine.trainable_count


@pytest.mark.parametrize("name", ["qwen3_moe", "opt", "whisper"])
def test_a_forward_pass_alone_agrees_too(name, both):
    mine, real = both(name, train=False)
    assert not any(op.phase == BACKWARD for op in mine.ops)
    assert _total(mine, FORWARD) == pytest.approx(_total(real, FORWARD), rel=0.005)
    assert _peak(mine)[0] == pytest.approx(_peak(real)[0], rel=0.03)
    assert _peak(mine)[1] == 0


@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral"])
def test_a_stack_that_fuses_finds_the_same_chains(name, both):
    _agree(*both(name), stack=COMPILED)


def _plain(**more):
    return {"model_type": "llama", **_decoder(), **more}


def test_flop_of_a_llama_are_those_of_its_formula():
    b, s, layers, heads, size = 2, 40, 3, 6, 16
    graph = from_template(_plain(), PATH, ReadOptions(batch=b, seq_len=s))
    block = 96 * 96 * 2 + 2 * 96 * 32 + 3 * 96 * 200  # q and o, k and v, the three of the feed-forward
    linear = layers * block + 96 * 500
    scores = b * heads * s * (s + 1) // 2
    attention = layers * scores * 2 * (size + size)
    assert _total(graph, FORWARD)[0] == 2 * linear * b * s + attention
    assert _total(graph, BACKWARD)[0] == 2 * (2 * linear * b * s + attention)
    weights = linear + 500 * 96 + layers * 2 * 96 + 96
    assert graph.parameter_count == weights


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "deepseek_v3", "t5", "whisper"])
def test_every_storage_is_taken_once_and_given_back_in_full(name, tmp_path):
    graph = load_graph(str(_saved(name, tmp_path)), _options(name))
    alive = {}
    for before, event in zip((graph.events[0], *graph.events), graph.events, strict=False):
        assert before.at <= event.at <= len(graph.ops)
        if event.byte > 0:
            assert event.storage not in alive
            alive[event.storage] = event.byte
        else:
            assert alive.pop(event.storage) == -event.byte
    assert set(alive) == graph.gradients


def test_blocks_share_their_operators_however_many_there_are():
    few, many = (
        from_template(_plain(num_hidden_layers=n), PATH, ReadOptions(batch=1, seq_len=16)) for n in (4, 64)
    )
    assert len({id(op) for op in few.ops}) == len({id(op) for op in many.ops})
    one = len(few.ops) - len(
        from_template(_plain(num_hidden_layers=3), PATH, ReadOptions(batch=1, seq_len=16)).ops
    )
    assert len(many.ops) == len(few.ops) + 60 * one
    assert sum(e.byte for e in many.events) == 4 * many.parameter_count


def test_experts_are_marked_and_shared_ones_are_not(tmp_path):
    graph = load_graph(str(_saved("qwen2_moe", tmp_path)), _options("qwen2_moe"))
    # One of three layers is sparse: gate-and-up and down of four experts of 48.
    assert sum(p.elements for p in graph.parameters if p.expert) == 4 * 3 * 48 * 96


def test_reading_a_configuration_does_not_load_torch(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(_plain()))
    code = (
        "import sys; from predictor.frontends import ReadOptions, load_graph; "
        f"graph = load_graph({str(path)!r}, ReadOptions(batch=1, seq_len=16)); "
        "print(len(graph.events) > 0, [m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "True []"


def test_another_type_or_head_is_recorded_instead(tmp_path):
    transformers = pytest.importorskip("transformers")
    kinds = {
        "other type": transformers.StableLmConfig(**_decoder(), architectures=["StableLmForCausalLM"]),
        "other head": transformers.LlamaConfig(
            **_decoder(pad_token_id=0), architectures=["LlamaForSequenceClassification"]
        ),
    }
    for name, config in kinds.items():
        config.save_pretrained(tmp_path / name)
        graph = load_graph(str(tmp_path / name / "config.json"), ReadOptions(batch=2, seq_len=16))
        assert graph.origin["frontend"] == "torch", name


@pytest.mark.parametrize(
    "change",
    [
        {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
        {"hidden_act": "mish"},
        {"architectures": ["LlamaModel"]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_template_says_what_it_does_not_spell(change):
    with pytest.raises(NoTemplateError, match=r"dynamic|mish|LlamaModel"):
        from_template(_plain(**change), PATH, ReadOptions(batch=1, seq_len=16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": None}, "'hidden_size' is missing"),
        ({"hidden_size": -96}, "'hidden_size' is -96; expected a whole number"),
        ({"hidden_size": "96"}, "'hidden_size' is '96'; expected a whole number"),
        ({"hidden_size": True}, "'hidden_size' is True"),
        ({"hidden_size": 97}, "97 cannot be divided by 6"),
        ({"num_key_value_heads": 4}, "6 cannot be divided by 4"),
        (
            {"num_hidden_layers": 10**9},
            "'num_hidden_layers' is 1000000000; expected a whole number from 1 to",
        ),
        ({"rms_norm_eps": "small"}, "'rms_norm_eps' is 'small'; expected a number"),
        ({"attention_bias": "yes"}, "'attention_bias' is 'yes'; expected true or false"),
        ({"attention_dropout": 1.5}, "'attention_dropout' is 1.5; expected a number from 0 to 1"),
        ({"architectures": "Llama"}, "'architectures' is 'Llama'; expected a list of words"),
    ],
)
def test_an_impossible_configuration_is_refused_by_name(change, message):
    fields = {k: v for k, v in (_plain() | change).items() if v is not None}
    with pytest.raises(InputError) as error:
        from_template(fields, PATH, ReadOptions(batch=1, seq_len=16))
    assert message in str(error.value)
    assert str(error.value).startswith(PATH)


@pytest.mark.parametrize("kind", sorted(TEMPLATES))
def test_an_empty_configuration_is_refused_by_every_template(kind):
    with pytest.raises(InputError, match="is missing"):
        from_template({"model_type": kind}, PATH, ReadOptions())


def test_a_size_that_changes_nothing_or_has_no_position_is_refused():
    with pytest.raises(InputError, match="image_size 32 has no effect"):
        from_template(_plain(), PATH, ReadOptions(batch=1, image_size=32))
    gpt2 = {
        "model_type": "gpt2",
        "n_embd": 96,
        "n_layer": 1,
        "n_head": 6,
        "vocab_size": 500,
        "n_positions": 64,
    }
    with pytest.raises(InputError, match="seq_len 65: its table of positions is for 64"):
        from_template(gpt2, PATH, ReadOptions(batch=1, seq_len=65))


def test_a_job_without_sizes_gets_the_usual_ones():
    graph = from_template(_plain(max_position_embeddings=100), PATH, ReadOptions())
    assert (graph.batch, graph.tokens_per_sample) == (8, 96)


def test_strides_follow_pytorch():
    torch = pytest.importorskip("torch")
    base = torch.empty((2, 6, 5, 8), device="meta")
    layouts = [base, base.transpose(1, 2), base.permute(3, 0, 2, 1), base[..., :4], base[:, ::2]]
    for x in layouts:
        shape, stride = tuple(x.shape), x.stride()
        assert elementwise_stride(shape, ((shape, stride),)) == torch.neg(x).stride()
        y = torch.empty((1, 1, *shape[2:]), device="meta")
        both = ((shape, stride), (tuple(y.shape), y.stride()))
        assert elementwise_stride(shape, both) == (x * y).stride()
        for new in ((shape[0] * shape[1], *shape[2:]), (*shape[:2], shape[2] * shape[3]), (x.numel(),)):
            try:
                real = x.view(new).stride()
            except RuntimeError:
                real = None
            assert view_stride(shape, stride, new) == real
