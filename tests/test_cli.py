"""The command line as people use it: what it answers, what it refuses, and what it leaves behind."""

import json
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import typer

from predictor.cli import app
from predictor.cli.guard import BROKEN_PIPE, INTERRUPTED
from predictor.cli.options import OPTIONS, READING, flag
from predictor.job import Job

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
REFERENCE = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")

NETS = """
import sys

import torch
from torch import nn


def good():
    return nn.Linear(8, 16)


def loud():
    print("hello from the model")
    return nn.Linear(8, 16)


def broken():
    raise RuntimeError("disk on fire")


def quitting():
    sys.exit(5)


def three():
    return 3


def example_inputs(batch_size=4):
    return torch.zeros(batch_size, 8)
"""
BROKEN_LINE = next(n for n, line in enumerate(NETS.splitlines(), 1) if "disk on fire" in line)


@pytest.fixture
def nets(tmp_path):
    """A file of factories, good and bad."""
    path = tmp_path / "nets_of_the_cli_test.py"
    path.write_text(NETS, encoding="utf-8")
    return path


def answer_of(run):
    assert run.code == 0, run.err
    return json.loads(run.out)


RESNET = ("estimate", "zoo:resnet50", "--hardware", "h100")


# What answers


def test_estimate_prints_a_report_and_nothing_else(predictor):
    run = predictor(*RESNET, "--steps", "10")
    assert run.code == 0
    assert run.err == ""
    assert "resnet50" in run.out
    assert "\x1b" not in run.out


def test_the_answer_carries_the_exact_command(predictor):
    answer = answer_of(predictor("estimate", "zoo:resnet50", "--hardware", "8x h100", "--format", "json"))
    command = "predictor estimate zoo:resnet50 --hardware '8x h100' --format json"
    assert answer["provenance"]["command"] == command


def test_every_option_reaches_the_job(predictor):
    options = {
        "hardware": "h100",
        "count": 16,
        "nodes": 2,
        "precision": "bf16",
        "stack": "megatron-fused",
        "batch_size": 32,
        "micro_batch": 2,
        "seq_len": 256,
        "optimizer": "sgd",
        "mode": "train",
        "tokens": "8e6",
        "dp": 4,
        "tp": 2,
        "pp": 2,
        "ep": 1,
        "cp": 1,
        "zero": 1,
        "recompute": "full",
        "region": "france",
        "pue": 1.3,
        "price": 2.0,
    }
    words = [word for name, value in options.items() for word in (flag(name), value)]
    answer = answer_of(predictor("estimate", "zoo:gpt2", *words, "--strict", "--format", "json"))
    plan = answer["plan"]
    for name in ("dp", "tp", "pp", "ep", "cp", "zero", "recompute", "batch_size", "micro_batch", "precision"):
        assert plan[name] == options[name]
    assert plan["accumulation"] == 32 // (4 * 2)
    assert (plan["optimizer"], plan["mode"]) == ("sgd", "train")
    assert (answer["machine"]["count"], answer["machine"]["nodes"]) == (16, 2)
    assert answer["stack"]["id"] == "megatron-fused"
    run = answer["run"]
    assert run["steps"] == -(-8_000_000 // (32 * 256))
    assert run["cost_usd"]["mid"] == pytest.approx(2.0 * run["accelerator_hours"]["mid"])
    assert run["energy_kwh"]["facility"]["mid"] == pytest.approx(1.3 * run["energy_kwh"]["nodes"]["mid"])


def test_options_are_the_fields_of_a_job():
    assert ["model", *sorted(OPTIONS)] == ["model", *sorted(set(Job.model_fields) - {"model"})]
    for name, (_, metavar, _) in OPTIONS.items():
        choices = typing.get_args(Job.model_fields[name].annotation)
        if choices and type(None) not in choices:
            assert metavar == "|".join(map(str, choices)), name


def test_epochs_and_image_size_and_layout(predictor):
    words = ("--epochs", "0.5", "--dataset-size", "1000", "--batch-size", "10", "--image-size", "64")
    answer = answer_of(predictor(*RESNET, *words, "--memory-format", "channels-last", "--format", "json"))
    assert answer["run"]["steps"] == 50
    assert answer["plan"]["memory_format"] == "channels-last"


# The seven forms of a model


def forward_flop(run):
    return answer_of(run)["flop"]["forward"]


def test_zoo_model(predictor):
    assert forward_flop(predictor("trace", "zoo:gpt2", "--seq-len", "64", "--format", "json")) > 0


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_library_model(predictor, library):
    pytest.importorskip(library)
    counts = answer_of(predictor("trace", f"{library}:resnet18", "--batch-size", "2", "--format", "json"))
    assert counts["model"]["parameters"] == 11_689_512  # both documentations
    assert counts["micro_batch"] == 2


def test_hugging_face_config(predictor):
    pytest.importorskip("transformers")
    config = EXAMPLES / "config_llama_1b.json"
    words = ("--precision", "bf16", "--batch-size", "1", "--seq-len", "128", "--format", "json")
    counts = answer_of(predictor("trace", config, *words))
    inside = 2048 * 2048 * 2 + 2048 * 512 * 2 + 3 * 2048 * 8192 + 2 * 2048
    assert counts["model"]["parameters"] == 128256 * 2048 + 16 * inside + 2048
    assert counts["tokens_per_sample"] == 128


@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_onnx_file(predictor, tmp_path):
    pytest.importorskip("onnxscript")
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    torch.onnx.export(net, (torch.zeros(5, 8),), tmp_path / "net.onnx", dynamo=True, verbose=False)
    run = predictor("trace", "net.onnx", "--format", "json")
    assert forward_flop(run) == 5 * 2 * (8 * 16 + 16 * 4)
    run = predictor("estimate", "net.onnx", "--hardware", "a100", "--format", "json")
    assert answer_of(run)["model"]["parameters"] == 8 * 16 + 16 + 16 * 4 + 4


def test_factory_in_a_file(predictor, nets):
    run = predictor("trace", f"{nets}:good", "--batch-size", "6", "--format", "json")
    assert forward_flop(run) == 6 * 2 * 8 * 16


def test_factory_in_a_package(predictor, nets):
    run = predictor("trace", f"{nets.stem}:good", "--format", "json")
    assert forward_flop(run) == 4 * 2 * 8 * 16


def test_example_factory(predictor):
    words = ("--hardware", "h100", "--batch-size", "32", "--tokens", "1B", "--format", "json")
    answer = answer_of(predictor("estimate", f"{EXAMPLES / 'tiny_gpt.py'}:tiny_gpt", *words))
    block = 4 * 256 * 256 + 4 * 256 + 8 * 256 * 256 + 5 * 256 + 4 * 256
    assert answer["model"]["parameters"] == 2 * 8192 * 256 + 512 * 256 + 4 * block + 2 * 256
    assert answer["run"]["steps"] == -(-(10**9) // (32 * 256))
    assert answer["coverage"]["unpriced_ops"] == []


@pytest.mark.parametrize("name", ["resnet50_h100", "llama3_8b"])
def test_example_job_file(predictor, name):
    answer = answer_of(predictor("estimate", EXAMPLES / f"{name}.toml", "--format", "json"))
    assert answer["step"]["fits"] is True
    assert answer["run"]["carbon_kgco2e"]["total"]["mid"] > 0


def test_options_replace_keys_of_the_job_file(predictor):
    words = ("--hardware", "8x nvidia-a100-sxm4-80gb", "--steps", "7", "--format", "json")
    answer = answer_of(predictor("estimate", EXAMPLES / "resnet50_h100.toml", *words))
    assert answer["machine"]["accelerator"] == "nvidia-a100-sxm4-80gb"
    assert answer["run"]["steps"] == 7
    assert answer["plan"]["batch_size"] == 2048


def test_code_in_a_job_file_needs_permission(predictor, tmp_path, nets):
    (tmp_path / "job.toml").write_text(f"model = '{nets.name}:good'\nhardware = 'h100'\n")
    refused = predictor("estimate", "job.toml")
    assert refused.code == 2
    assert "--allow-code" in refused.err
    assert predictor("estimate", "job.toml", "--allow-code").code == 0


def test_inputs_given_replace_those_of_the_model(predictor, nets):
    run = predictor("trace", f"{nets}:good", "--input", "float32[7,3,8]", "--format", "json")
    assert forward_flop(run) == 7 * 3 * 2 * 8 * 16


def test_what_a_model_prints_goes_to_stderr(predictor, nets):
    run = predictor("trace", f"{nets}:loud", "--format", "json")
    assert forward_flop(run) > 0
    assert run.err == "hello from the model\n"


# Where results go


@pytest.mark.parametrize(
    ("name", "start"), [("a.json", "{"), ("a.md", "#"), ("a.html", "<!"), ("a.txt", "Training")]
)
def test_the_suffix_of_the_output_chooses_the_format(predictor, tmp_path, name, start):
    run = predictor(*RESNET, "-o", name)
    assert (run.code, run.out, run.err) == (0, "", f"wrote {name}\n")
    assert (tmp_path / name).read_text(encoding="utf-8").lower().startswith(start.lower())
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_the_format_asked_for_wins_over_the_suffix(predictor, tmp_path):
    assert predictor(*RESNET, "-o", "a.txt", "--format", "json", "-q").err == ""
    assert json.loads((tmp_path / "a.txt").read_text())["schema_version"] == 1


def test_an_output_is_replaced_only_by_force(predictor, tmp_path):
    (tmp_path / "a.json").write_text("mine")
    refused = predictor(*RESNET, "-o", "a.json")
    assert refused.code == 2
    assert refused.err == "error: output 'a.json' exists; add --force to replace it\n"
    assert (tmp_path / "a.json").read_text() == "mine"
    assert predictor(*RESNET, "-o", "a.json", "--force").code == 0
    assert json.loads((tmp_path / "a.json").read_text())["schema_version"] == 1


def test_a_refused_job_leaves_the_old_output(predictor, tmp_path):
    (tmp_path / "a.json").write_text("mine")
    assert predictor("estimate", "zoo:nothing", "--hardware", "h100", "-o", "a.json", "--force").code == 2
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.json", "mine")]


def test_a_write_that_fails_leaves_nothing(predictor, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    run = predictor(*RESNET, "-o", "a.json")
    assert run.code == 2
    assert "cannot be written: No space left on device" in run.err
    assert list(tmp_path.iterdir()) == []


# What is refused: exit code 2, one message, no traceback, no file

BAD = {
    "unknown zoo model": (("zoo:resnet5", "--hardware", "h100"), "did you mean 'resnet50'"),
    "unknown form of model": (("resnet50", "--hardware", "h100"), "is none of: zoo:NAME, timm:NAME"),
    "missing file": (("gone.onnx", "--hardware", "h100"), "'gone.onnx': no such file"),
    "missing package": (("gone.net:build", "--hardware", "h100"), "package 'gone.net' cannot be imported"),
    "no hardware": (("zoo:gpt2",), "add --hardware"),
    "unknown hardware": (
        ("zoo:gpt2", "--hardware", "h10"),
        "unknown accelerator, node or instance 'h10'; did you mean",
    ),
    "unknown instance": (("zoo:gpt2", "--hardware", "aws:p5.49xlarge"), "or 'aws:p5.48xlarge'"),
    "unknown region": (("zoo:gpt2", "--hardware", "h100", "--region", "frnce"), "did you mean 'france'"),
    "unknown stack": (("zoo:gpt2", "--hardware", "h100", "--stack", "eager2"), "did you mean 'eager-2'"),
    "unknown precision": (("zoo:gpt2", "--hardware", "h100", "--precision", "bf15"), "did you mean 'bf16'"),
    "precision not there": (("zoo:gpt2", "--hardware", "t4", "--precision", "bf16"), "has no bf16 peak"),
    "unknown optimizer": (("zoo:gpt2", "--hardware", "h100", "--optimizer", "adan"), "did you mean 'adam'"),
    "unknown format": (("zoo:gpt2", "--hardware", "h100", "--format", "jsn"), "did you mean 'json'"),
    "unknown option": (("zoo:gpt2", "--hardwre", "h100"), "--hardware"),
    "batch of zero": (
        ("zoo:gpt2", "--hardware", "h100", "--batch-size", "0"),
        "--batch-size is 0, it must be",
    ),
    "negative count": (("zoo:gpt2", "--hardware", "h100", "--count", "-8"), "--count is -8, it must be"),
    "zero tokens": (("zoo:gpt2", "--hardware", "h100", "--tokens", "0"), "--tokens: 0 is not a whole number"),
    "tokens in words": (("zoo:gpt2", "--hardware", "h100", "--tokens", "lots"), "'lots' is not a count"),
    "two lengths": (("zoo:gpt2", "--hardware", "h100", "--tokens", "9", "--steps", "9"), "more than once"),
    "epochs alone": (("zoo:gpt2", "--hardware", "h100", "--epochs", "9"), "dataset_size belong together"),
    "endless epochs": (("zoo:gpt2", "--hardware", "h100", "--epochs", "inf"), "--epochs is inf"),
    "tokens of images": (("zoo:resnet50", "--hardware", "h100", "--tokens", "9"), "no token sequence"),
    "plan and count": (
        ("zoo:gpt2", "--hardware", "8x h100", "--dp", "2", "--tp", "2"),
        "dp 2 x tp 2 x pp 1 x cp 1 = 4 accelerators, the machine has 8",
    ),
    "batch and plan": (("zoo:gpt2", "--hardware", "8x h100", "--batch-size", "12"), "not divisible by dp 8"),
    "heads and plan": (
        ("zoo:gpt2", "--hardware", "8x h100", "--tp", "8"),
        "tp 8 does not divide 12 attention",
    ),
    "huge batch": (
        ("zoo:gpt2", "--hardware", "h100", "--batch-size", "9" * 20),
        "it must be less than or equal to 1000000000000",
    ),
    "PUE below one": (("zoo:gpt2", "--hardware", "h100", "--pue", "0.5"), "--pue is 0.5, it must be"),
    "bad input": (("zoo:gpt2", "--hardware", "h100", "--input", "ids:int64"), "write NAME:DTYPE[SIZES]"),
    "wrong shape": (("zoo:gpt2", "--hardware", "h100", "--input", "ids:int64[8]"), "zoo:gpt2: recording"),
    "missing folder": (
        ("zoo:gpt2", "--hardware", "h100", "-o", "gone/a.json"),
        "folder 'gone' does not exist",
    ),
    "folder as output": (("zoo:gpt2", "--hardware", "h100", "-o", "."), "'.' is not a plain file"),
    "missing job file": (("gone.toml",), "job file 'gone.toml': no such file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(predictor, tmp_path, name):
    words, message = BAD[name]
    output = () if "-o" in words else ("-o", "answer.json")
    run = predictor("estimate", *words, *output)
    assert run.code == 2
    assert message in run.err
    assert len(re.findall(r"^(error|Error): ", run.err, re.MULTILINE)) == 1
    assert "Traceback" not in run.err
    assert run.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("broken", f"line {BROKEN_LINE}: RuntimeError: disk on fire"),
        ("quitting", "SystemExit: 5"),
        ("three", "needed a torch.nn.Module"),
        ("goood", "did you mean 'good'"),
    ],
)
def test_a_factory_at_fault_is_named(predictor, nets, factory, message):
    run = predictor("estimate", f"{nets}:{factory}", "--hardware", "h100")
    assert (run.code, run.out) == (2, "")
    assert message in run.err
    assert "Traceback" not in run.err


def test_wrong_shapes_say_what_the_inputs_were(predictor, nets):
    run = predictor("estimate", f"{nets}:good", "--hardware", "h100", "--input", "float32[4,9]")
    assert run.code == 2
    assert "inputs were input:float32[4,9]" in run.err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("net.onnx", "no protobuf", "not an ONNX file"),
        ("config.json", "{", "not JSON"),
        ("config.json", '{"model_type": "lama"}', "unknown model_type 'lama'"),
        (
            "job.toml",
            "model = 'zoo:gpt2'\nhardwre = 'h100'\n",
            "job.toml: unknown key 'hardwre'; did you mean",
        ),
        ("job.toml", "model = 'other.toml'\nhardware = 'h100'\n", "'other.toml' is none of"),
        ("job.toml", "model = 'zoo:gpt2'\nhardware = 'h100'\nregion = 'frnce'\n", "did you mean 'france'"),
    ],
)
def test_a_bad_file_is_named(predictor, tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    run = predictor("estimate", name, *(() if name == "job.toml" else ("--hardware", "h100")))
    assert (run.code, run.out) == (2, "")
    assert message in run.err
    assert "Traceback" not in run.err
    assert len(list(tmp_path.iterdir())) == 1


def test_strict_refuses_operators_without_a_formula(predictor, tmp_path):
    (tmp_path / "odd_net_of_the_cli_test.py").write_text(
        "import torch\n"
        "class Odd(torch.nn.Linear):\n"
        "    def forward(self, x):\n"
        "        return torch.linalg.matrix_exp(super().forward(x))\n"
        "def build():\n"
        "    return Odd(8, 8)\n"
    )
    words = ("trace", "odd_net_of_the_cli_test.py:build", "--input", "float32[8,8]", "--mode", "infer")
    loose = predictor(*words, "--format", "json")
    assert answer_of(loose)["coverage"]["unpriced_ops"] != []
    assert "unpriced" in predictor(*words).out
    strict = predictor(*words, "--strict")
    assert strict.code == 2
    assert "--strict: operators without a formula: aten." in strict.err


# Faults that are ours, and endings from outside


def test_an_internal_error_asks_for_a_report(predictor, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("oh dear")

    monkeypatch.setattr("predictor.pricing.estimate", fail)
    run = predictor(*RESNET)
    assert run.code == 3
    assert run.err.startswith("error: internal: ZeroDivisionError: oh dear\n")
    assert "please report it" in run.err
    assert "Traceback" not in run.err
    assert "Traceback" in predictor(*RESNET, "-v").err


def test_a_full_disk_is_not_our_fault(predictor, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device", "/tmp/x")

    monkeypatch.setattr("predictor.pricing.estimate", fail)
    assert predictor(*RESNET) == (2, "", "error: /tmp/x: No space left on device\n")


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_interrupt_is_quiet(predictor, monkeypatch, wrapped):
    def interrupt(*_, **__):
        if wrapped:
            raise RuntimeError("import cut short") from KeyboardInterrupt()
        raise KeyboardInterrupt

    monkeypatch.setattr("predictor.pricing.estimate", interrupt)
    assert predictor(*RESNET) == (INTERRUPTED, "", "")


def test_a_limit_that_does_not_hold_ends_in_one(predictor, monkeypatch):
    from predictor.errors import CheckFailedError

    def check(*_, **__):
        raise CheckFailedError("over budget")

    monkeypatch.setattr("predictor.pricing.estimate", check)
    assert predictor(*RESNET) == (1, "", "error: over budget\n")


# Comparing


def test_compare_prices_machines_and_places_on_one_recording(predictor, monkeypatch):
    import predictor.pricing as pricing

    read, kept = [], pricing.read_model
    monkeypatch.setattr(pricing, "read_model", lambda *of: read.append(1) or kept(*of))
    words = ("--hardware", "h100,a100", "--hardware", "t4", "--region", "france,poland", "--steps", "10")
    run = predictor("compare", "zoo:resnet50", *words, "--precision", "bf16", "--format", "json")
    candidates = answer_of(run)["candidates"]
    labels = [f"{machine} / {place}" for machine in ("h100", "a100", "t4") for place in ("france", "poland")]
    assert [c["label"] for c in candidates] == labels
    assert len(read) == 1
    assert "has no bf16 peak" in json.dumps(candidates[4])
    carbon = [c["estimate"]["run"]["carbon_kgco2e"]["operational"]["location"]["mid"] for c in candidates[:2]]
    assert carbon[0] < carbon[1]


def test_compare_reads_again_for_another_micro_batch(predictor):
    words = ("--hardware", "h100,4x h100", "--batch-size", "64", "--format", "json")
    candidates = answer_of(predictor("compare", "zoo:resnet50", *words))["candidates"]
    assert [c["estimate"]["plan"]["micro_batch"] for c in candidates] == [64, 16]


def test_compare_all_prices_every_profile(predictor):
    from predictor.profile import list_profiles

    words = ("--hardware", "all", "--seq-len", "64", "--format", "json")
    candidates = answer_of(predictor("compare", "zoo:gpt2", *words))["candidates"]
    assert [c["label"] for c in candidates] == list_profiles()


def test_compare_shows_a_refusal_in_the_table(predictor):
    run = predictor("compare", "zoo:gpt2", "--hardware", "h100,t4", "--precision", "bf16", "--seq-len", "64")
    assert run.code == 0
    assert "nvidia-t4 has no bf16 peak" in " ".join(run.out.split())


def test_compare_takes_a_job_file(predictor):
    run = predictor(
        "compare", EXAMPLES / "resnet50_h100.toml", "--region", "france,poland", "--format", "json"
    )
    assert [c["label"] for c in answer_of(run)["candidates"]] == ["8x h100 / france", "8x h100 / poland"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("zoo:gpt2", "--hardware", "h100,h10"), "unknown accelerator, node or instance 'h10'"),
        (("zoo:gpt2", "--hardware", "h100", "--region", "fr,frnce"), "unknown region 'frnce'"),
        (("zoo:gpt2", "--hardware", "h100,,a100"), "an empty name in 'h100,,a100'"),
        (("zoo:gpt2",), "add --hardware"),
        (("zoo:gpt", "--hardware", "h100,a100"), "error: unknown model 'zoo:gpt'"),
        (("zoo:gpt2", "--hardware", "t4,v100", "--precision", "fp8"), "no candidate can be priced\nt4: "),
    ],
)
def test_compare_refuses(predictor, tmp_path, words, message):
    run = predictor("compare", *words, "-o", "a.json")
    assert (run.code, run.out) == (2, "")
    assert message in run.err
    assert list(tmp_path.iterdir()) == []


# Tracing


def test_trace_counts_without_hardware(predictor, nets):
    counts = answer_of(predictor("trace", f"{nets}:good", "--format", "json"))
    assert counts["flop"] == {
        "forward": 4 * 2 * 8 * 16,
        "backward": 4 * 2 * 8 * 16,
    }  # no gradient of the input
    assert counts["model"]["parameters"] == 8 * 16 + 16
    assert counts["coverage"] == {"bytes_by_formula": 1.0, "unpriced_ops": []}
    assert sum(row["flop"] for row in counts["kinds"]) == sum(counts["flop"].values())
    moved = sum(part for phase in counts["bytes"].values() for part in phase.values())
    assert sum(row["bytes"] for row in counts["kinds"]) == moved


def test_trace_of_inference_has_no_backward(predictor, nets):
    counts = answer_of(predictor("trace", f"{nets}:good", "--mode", "infer", "--format", "json"))
    assert counts["flop"] == {"forward": 4 * 2 * 8 * 16, "backward": 0}


def test_trace_prints_a_table(predictor, nets, tmp_path):
    run = predictor("trace", f"{nets}:good", "--micro-batch", "2")
    assert run.code == 0
    assert "one micro-batch: 2 samples" in run.out
    assert re.search(r"matmul +forward +1 +512", run.out)
    assert predictor("trace", f"{nets}:good", "-o", "a.json").code == 0
    assert json.loads((tmp_path / "a.json").read_text())["micro_batch"] == 4


def test_trace_takes_a_job_file(predictor):
    counts = answer_of(predictor("trace", EXAMPLES / "llama3_8b.toml", "--seq-len", "64", "--format", "json"))
    assert (counts["micro_batch"], counts["tokens_per_sample"]) == (1, 64)


# What is known by name


def test_stacks_list_and_show(predictor):
    from predictor.stack import find_stack, list_stacks

    assert [
        row["id"] for row in answer_of(predictor("stacks", "--format", "json"))["stacks"]
    ] == list_stacks()
    stack = find_stack("xla")
    assert stack.source in " ".join(predictor("stacks", "xla").out.split())
    figures = answer_of(predictor("stacks", "xla", "--format", "json"))["figures"]
    assert figures[0]["value"] == pytest.approx(stack.host_s.mid * 1e6)
    eager = [row["id"] for row in answer_of(predictor("stacks", "eager", "--format", "json"))["stacks"]]
    assert {"eager-1", "eager-2"} <= set(eager)
    assert eager == [id_ for id_ in list_stacks() if "eager" in id_]


def test_regions_list_and_show(predictor):
    from predictor.world import find_region, list_regions

    assert [
        row["id"] for row in answer_of(predictor("regions", "--format", "json"))["regions"]
    ] == list_regions()
    france = find_region("france")
    text = predictor("regions", "france").out
    assert "grid carbon, location-based" in text
    assert france.kgco2e_per_j.source in text
    assert "azure:francecentral" in predictor("regions", "franc").out


@pytest.mark.parametrize("command", ["hardware", "stacks", "regions"])
def test_an_unknown_name_is_refused(predictor, command):
    run = predictor(command, "qqqq")
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith("error: unknown ")
    assert "known" in run.err


# The process as a whole


def process(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "predictor", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


def test_version():
    from importlib.metadata import version

    done = process("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"predictor {version('predictor')}\n", "")


def test_help_loads_nothing_heavy():
    heavy = (
        "torch",
        "numpy",
        "matplotlib",
        "onnx",
        "jinja2",
        "rich.table",
        "predictor.job",
        "predictor.pricing",
    )
    code = (
        "import sys\nfrom predictor.cli import main\n"
        "try:\n    main(['estimate', '--help'])\n"
        f"finally:\n    print([m for m in {heavy} if m in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    assert "runs that code" in " ".join(done.stdout.split())


def test_the_script_keeps_results_and_messages_apart(tmp_path):
    script = Path(sys.executable).with_name("predictor")
    if not script.exists():
        pytest.skip("the package is not installed here")
    done = subprocess.run(
        [script, "stacks"], check=False, capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(
        [script, *RESNET, "--stack", "none"], check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: unknown stack 'none'")


def test_a_closed_pipe_is_quiet():
    with subprocess.Popen(
        [sys.executable, "-m", "predictor", "regions"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        running.stdout.close()
        assert running.stderr.read() == ""
    assert running.returncode == BROKEN_PIPE


def test_a_narrow_encoding_is_no_error(tmp_path):
    done = process("regions", "aws:us-east-1", env={"PYTHONIOENCODING": "ascii", "PATH": ""}, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colour_is_for_terminals_that_want_it(predictor, monkeypatch, no_color, coloured):
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert ("\x1b[" in predictor(*RESNET).out) is coloured


# The reference page


def test_the_reference_names_every_command_and_option():
    for name, command in typer.main.get_command(app).commands.items():
        assert f"## `predictor {name}" in REFERENCE
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert all(f"`{spelled}" in REFERENCE for spelled in parameter.opts), parameter.opts


def test_the_reference_names_every_key_and_exit_code():
    for key in Job.model_fields:
        assert f"`{key}`" in REFERENCE, key
    for code in (0, 1, 2, 3, INTERRUPTED, BROKEN_PIPE):
        assert f"| {code} |" in REFERENCE
    assert set(READING) < set(OPTIONS)
