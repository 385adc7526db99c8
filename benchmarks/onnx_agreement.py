"""ONNX files against the models they were exported from: matrix flop of forward and backward, in percent.

    python benchmarks/onnx_agreement.py [NAME ...]   print a row for each model
    python benchmarks/onnx_agreement.py --write      also write docs/onnx-agreement.md

Each model is built small, recorded as PyTorch trains it, exported by one of torch.onnx's two exporters and
counted again from the file. Nothing is downloaded. Takes some minutes and a few hundred MB of disk.
"""

import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "onnx-agreement.md"
LIMIT = 0.01

# timm model -> side of its image
TIMM = {
    "resnet18": 64,
    "resnet26d": 64,
    "seresnext26t_32x4d": 64,
    "regnetx_002": 64,
    "regnety_002": 64,
    "mobilenetv2_050": 64,
    "mobilenetv3_small_050": 64,
    "efficientnet_b0": 64,
    "tf_efficientnetv2_b0": 64,
    "ghostnet_100": 64,
    "repvgg_a0": 64,
    "dla34": 64,
    "hrnet_w18_small": 64,
    "densenet121": 64,
    "convnext_atto": 64,
    "convnextv2_atto": 64,
    "edgenext_xx_small": 64,
    "mobilevit_xxs": 64,
    "poolformer_s12": 64,
    "efficientvit_b0": 64,
    "fastvit_t8": 64,
    "vit_tiny_patch16_224": 224,
    "deit_tiny_distilled_patch16_224": 224,
    "pit_ti_224": 224,
    "levit_128s": 224,
    "xcit_nano_12_p16_224": 224,
    "mixer_s32_224": 224,
    "resmlp_12_224": 224,
    "gmlp_s16_224": 224,
    "swin_tiny_patch4_window7_224": 224,
    "coatnet_nano_rw_224": 224,
}
TORCHVISION = {"squeezenet1_1": 64, "shufflenet_v2_x0_5": 64, "mnasnet0_5": 64, "googlenet": 64}
DYNAMO = ("resnet18", "vit_tiny_patch16_224", "convnext_atto", "bert")
# Their masks use torch.diff, which the TorchScript exporter does not know.
DYNAMO_ONLY = ("gpt2", "llama", "qwen2", "opt", "gpt_neox")
_SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 128,
}
# transformers model type -> class, settings of its configuration
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", {"n_layer": 2, "n_embd": 32, "n_head": 4, "vocab_size": 128}),
    "llama": ("LlamaForCausalLM", {**_SMALL, "num_key_value_heads": 2}),
    "qwen2": ("Qwen2ForCausalLM", {**_SMALL, "num_key_value_heads": 2}),
    "opt": ("OPTForCausalLM", {**_SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "gpt_neox": ("GPTNeoXForCausalLM", _SMALL),
    "bert": ("BertForMaskedLM", _SMALL),
    "roberta": ("RobertaForMaskedLM", _SMALL),
    "distilbert": ("DistilBertForMaskedLM", {"dim": 32, "n_layers": 2, "n_heads": 4, "vocab_size": 128}),
    "electra": ("ElectraForMaskedLM", {**_SMALL, "embedding_size": 16}),
    "vit": ("ViTForImageClassification", {**_SMALL, "image_size": 64, "patch_size": 16}),
    "t5": ("T5ForConditionalGeneration", {"d_model": 32, "d_ff": 64, "d_kv": 8, "num_layers": 2,
                                          "num_heads": 4, "vocab_size": 128}),
}  # fmt: skip
# Why counts differ, for the page; a difference without a reason stops the script.
REASONS: dict[str, str] = {}


@dataclass(frozen=True)
class Case:
    """A model to build, its inputs, and the exporter."""

    name: str
    exporter: str
    build: Callable[[], tuple[Any, tuple[Any, ...]]]


def cases() -> list[Case]:
    """Every model with the TorchScript exporter, and some with dynamo as well."""
    made = [Case(f"timm:{n}", "torchscript", lambda n=n, s=s: timm_model(n, s)) for n, s in TIMM.items()]
    made += [
        Case(f"torchvision:{n}", "torchscript", lambda n=n, s=s: vision_model(n, s))
        for n, s in TORCHVISION.items()
    ]
    made += [Case(f"transformers:{n}", "torchscript", lambda n=n: language_model(n)) for n in TRANSFORMERS]
    of = {case.name.partition(":")[2]: case for case in made}
    dynamo = [replace(of[name], exporter="dynamo") for name in (*DYNAMO, *DYNAMO_ONLY)]
    return [case for name, case in of.items() if name not in DYNAMO_ONLY] + dynamo


def timm_model(name: str, side: int) -> tuple[Any, tuple[Any, ...]]:
    import timm
    import torch

    return timm.create_model(name), (torch.zeros(2, 3, side, side),)


def vision_model(name: str, side: int) -> tuple[Any, tuple[Any, ...]]:
    import torch
    import torchvision

    more = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    return torchvision.models.get_model(name, weights=None, **more), (torch.zeros(2, 3, side, side),)


def language_model(name: str) -> tuple[Any, tuple[Any, ...]]:
    """The model with plain tensors in and out, as exporters want it; ``model`` is the one to record."""
    import torch
    import transformers

    kind, settings = TRANSFORMERS[name]
    config = transformers.AutoConfig.for_model(name, **settings)

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = getattr(transformers, kind)(config)

        def named(self, x: Any) -> dict[str, Any]:
            if name == "vit":
                return {"pixel_values": x}
            return {"input_ids": x, "decoder_input_ids": x} if name == "t5" else {"input_ids": x}

        def forward(self, x: Any) -> Any:
            return self.model(**self.named(x)).logits

    x = torch.zeros(2, 3, 64, 64) if name == "vit" else torch.zeros(2, 16, dtype=torch.int64)
    return Logits(), (x,)


def export(module: Any, inputs: tuple[Any, ...], path: Path, exporter: str) -> None:
    import torch

    module.eval()
    if hasattr(module, "named"):
        module.model.config.use_cache = False  # a cache is a second result, of a class of its own
    if exporter == "dynamo":
        torch.onnx.export(module, inputs, str(path), dynamo=True, external_data=False, verbose=False)
    else:
        torch.onnx.export(module, inputs, str(path), dynamo=False, do_constant_folding=True)


def flop(graph: Any) -> tuple[int, int]:
    """Matrix flop forward and backward."""
    from predictor.ir import BACKWARD, FORWARD
    from predictor.passes import steps_of

    steps = steps_of(graph, train=True)
    forward, backward = (
        sum(k.work.matrix_flop for step in steps if step.phase == phase for k in step.kernels)
        for phase in (FORWARD, BACKWARD)
    )
    return forward, backward


def measure(case: Case) -> tuple[tuple[int, int], tuple[int, int]]:
    """Counts of the recorded model and of its exported file."""
    from predictor.frontends import ReadOptions, load_graph
    from predictor.frontends.onnx_file import read_onnx

    module, inputs = case.build()
    given = module.named(*inputs) if hasattr(module, "named") else inputs
    recorded = flop(load_graph(getattr(module, "model", module).train(), ReadOptions(inputs=given)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export(module, inputs, path, case.exporter)
        return recorded, flop(read_onnx(path))


def difference(ours: tuple[int, int], theirs: tuple[int, int]) -> float:
    """Of the whole step, as a fraction of the recording."""
    return sum(theirs) / sum(ours) - 1


def row(case: Case) -> tuple[str, float]:
    """One line of the table, and the difference."""
    recorded, exported = measure(case)
    off = difference(recorded, exported)
    reason = "" if off == 0 else REASONS.get(case.name, "")
    name = case.name.partition(":")
    shown = f"| {name[0]} {name[2]} | {case.exporter} | {recorded[0]:,} | {recorded[1]:,} | {exported[0]:,} "
    return f"{shown}| {exported[1]:,} | {off:+.3%} | {reason} |", off


HEAD = """# ONNX against PyTorch

Matrix flop of one training step, counted from the recorded PyTorch model and from its ONNX export, whose
backward is priced by rule. A multiply-add is 2 flop; causal attention counts the scores it keeps. Written by
`python benchmarks/onnx_agreement.py --write`.

| Model | Exporter | PyTorch forward | backward | ONNX forward | backward | Difference | Reason |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def main() -> None:
    from predictor.frontends.torch_vision import ensure_torchvision

    warnings.simplefilter("ignore")
    ensure_torchvision()
    chosen = [a for a in sys.argv[1:] if not a.startswith("-")]
    rows, all_off = [], []
    for case in cases():
        if chosen and not any(c in f"{case.name}:{case.exporter}" for c in chosen):
            continue
        start = time.perf_counter()
        text, off = row(case)
        rows.append(text)
        all_off.append(abs(off))
        print(f"{text} {time.perf_counter() - start:.1f} s", flush=True)
    worst = max(all_off, default=0.0)
    equal = all_off.count(0.0)
    summary = f"\n{len(rows)} exports, {equal} of them equal to the flop, largest difference {worst:.2%}.\n"
    print(summary)
    if "--write" in sys.argv:
        PAGE.write_text(HEAD + "\n".join(rows) + "\n" + summary)
    unexplained = [text for text, off in zip(rows, all_off, strict=True) if off and text.endswith("|  |")]
    if worst > LIMIT or unexplained:
        sys.exit(f"differences above {LIMIT:.0%}, or without a reason: {unexplained}")


if __name__ == "__main__":
    main()
