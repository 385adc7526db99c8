"""Recorded graphs on disk: other batch sizes, changed sources, damage."""

import dataclasses
import gzip
import json
from collections import Counter

import pytest

from predictor.errors import InputError
from predictor.frontends import ReadOptions, load_graph
from predictor.frontends.cache import PRIME, cached_graph, folder
from predictor.graph_file import load, save
from predictor.ir import at_batch

MODEL = """
import torch
from torch import nn
{imports}

def build():
    return nn.Linear(8, WIDTH)

def example_inputs(batch_size=4):
    return torch.zeros(batch_size, 8)
"""


@pytest.fixture
def store(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PREDICTOR_CACHE", str(tmp_path_factory.mktemp("store") / "cache"))
    return folder()


class Reader:
    """Reads models and counts how often."""

    def __init__(self):
        self.times = 0

    def __call__(self, source, options):
        self.times += 1
        return load_graph(source, options)


def calls(graph):
    return Counter(
        (op.name, op.phase, tuple((t.shape, t.dtype, t.stride) for t in (*op.inputs, *op.outputs)))
        for op in graph.ops
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("zoo:resnet50", {}),
        ("zoo:resnet50", {"channels_last": True, "precision": "amp-fp16"}),
        ("zoo:gpt2", {"seq_len": 48}),
        ("zoo:transformer-base", {}),
        ("zoo:t5-11b", {"precision": "bf16"}),
        ("zoo:vit-b-16", {"train": False}),
    ],
)
@pytest.mark.parametrize("batch", [1, 6])
def test_one_recording_serves_every_batch(name, options, batch):
    prime = load_graph(name, ReadOptions(batch=PRIME, **options))
    scaled, recorded = at_batch(prime, batch), load_graph(name, ReadOptions(batch=batch, **options))
    if batch > 1:  # strides of an axis of length 1 are arbitrary
        assert calls(scaled) == calls(recorded)
    assert [op.name for op in scaled.ops] == [op.name for op in recorded.ops]
    assert [e.byte for e in scaled.events] == [e.byte for e in recorded.events]
    assert scaled.input_byte == recorded.input_byte


def test_a_saved_graph_comes_back_whole(gpt2, tmp_path):
    save(gpt2, tmp_path / "graph.json.gz")
    again = load(tmp_path / "graph.json.gz")
    for field in dataclasses.fields(gpt2):
        if field.name != "ops":
            assert getattr(again, field.name) == getattr(gpt2, field.name), field.name
    assert calls(again) == calls(gpt2)
    assert len({id(op) for op in again.ops}) == len({id(op) for op in gpt2.ops})


@pytest.mark.parametrize(
    "data", [b"", b"\x80\x04pickle", gzip.compress(b"{}"), gzip.compress(b"[" * 100_000)]
)
def test_what_is_not_a_graph_is_refused(tmp_path, data):
    path = tmp_path / "graph.json.gz"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"graph\.json\.gz: (not|cut)"):
        load(path)


def test_a_graph_of_another_format_is_refused(gpt2, tmp_path):
    path = tmp_path / "graph.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"format": 99}).encode()))
    with pytest.raises(InputError, match="format 99, this version reads 1"):
        load(path)


def test_a_model_is_recorded_once(store):
    reader = Reader()
    graphs = [cached_graph("zoo:alexnet", ReadOptions(batch=b), reader) for b in (2, 8, 2, 100)]
    assert reader.times == 2  # once as asked, once for every other batch
    assert [g.batch for g in graphs] == [2, 8, 2, 100]
    assert calls(graphs[0]) == calls(graphs[2])
    assert len(list(store.iterdir())) == 1


def test_other_options_are_another_recording(store):
    reader = Reader()
    for precision in ("fp32", "bf16", "fp32"):
        cached_graph("zoo:alexnet", ReadOptions(batch=2, precision=precision), reader)
    assert reader.times == 4


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A model file that takes its width from another module, and that from a data file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net_of_cache_test.py").write_text(
        MODEL.format(imports="from width_of_cache_test import WIDTH")
    )
    (tmp_path / "width_of_cache_test.py").write_text("WIDTH = int(open('width.txt').read())\n")
    (tmp_path / "width.txt").write_text("16")
    return tmp_path


def width(reader):
    import sys

    for name in ("width_of_cache_test", "net_of_cache_test"):  # a new process would import them afresh
        sys.modules.pop(name, None)
    graph = cached_graph("net_of_cache_test.py:build", ReadOptions(batch=2), reader)
    return graph.parameters[0].shape[0]


def test_a_changed_import_is_never_stale(store, project):
    reader = Reader()
    assert width(reader) == width(reader) == 16
    assert reader.times == 2
    (project / "width_of_cache_test.py").write_text("WIDTH = 24\n")
    assert width(reader) == 24
    assert reader.times == 4


def test_a_changed_data_file_is_never_stale(store, project):
    reader = Reader()
    assert width(reader) == 16
    (project / "width.txt").write_text("32")
    assert width(reader) == 32


def test_a_changed_model_is_never_stale(store, project):
    reader = Reader()
    assert width(reader) == 16
    path = project / "net_of_cache_test.py"
    path.write_text(path.read_text().replace("nn.Linear(8, WIDTH)", "nn.Linear(8, 5)"))
    assert width(reader) == 5


def test_a_damaged_entry_is_read_anew(store):
    reader = Reader()
    cached_graph("zoo:alexnet", ReadOptions(batch=2), reader)
    (entry,) = store.iterdir()
    entry.write_bytes(entry.read_bytes()[:100])
    cached_graph("zoo:alexnet", ReadOptions(batch=2), reader)
    assert reader.times == 4


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("PREDICTOR_CACHE", str(tmp_path / "file"))
    assert cached_graph("zoo:alexnet", ReadOptions(batch=2)).batch == 2


def test_old_entries_make_room(store, monkeypatch):
    from predictor.frontends import cache

    reader = Reader()
    cached_graph("zoo:alexnet", ReadOptions(batch=2), reader)
    monkeypatch.setattr(cache, "MOST_BYTE", next(store.iterdir()).stat().st_size + 10)
    cached_graph("zoo:alexnet", ReadOptions(batch=2, train=False), reader)
    assert len(list(store.iterdir())) == 1


def test_a_model_that_fixes_its_batch_is_recorded_at_that(store, tmp_path):
    source = MODEL.format(imports="WIDTH = 4").replace("torch.zeros(batch_size, 8)", "fixed(batch_size)")
    source += "\ndef fixed(batch_size):\n    assert batch_size < 100\n    return torch.zeros(batch_size, 8)\n"
    (tmp_path / "fixed_of_cache_test.py").write_text(source)
    reader = Reader()
    graph = cached_graph(f"{tmp_path}/fixed_of_cache_test.py:build", ReadOptions(batch=3), reader)
    assert graph.batch == 3
    assert graph.ops[0].inputs[1].shape[0] == 3


def test_a_share_of_the_batch_that_is_rounded_is_recorded_at_its_batch(store):
    for batch in (1, 5):
        options = ReadOptions(batch=batch, seq_len=3)
        graph = cached_graph("zoo:mixtral-8x7b", options)
        assert calls(graph) == calls(load_graph("zoo:mixtral-8x7b", options))


LOOP = """
import torch
from torch import nn

class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return torch.stack([self.linear(row) for row in x])

def build():
    return Loop()

def example_inputs(batch_size=4):
    return torch.zeros(batch_size, 8)
"""


def test_a_model_that_loops_over_its_batch_is_recorded_at_its_batch(store, tmp_path):
    (tmp_path / "loop_of_cache_test.py").write_text(LOOP)
    for batch in (3, 5):
        graph = cached_graph(f"{tmp_path}/loop_of_cache_test.py:build", ReadOptions(batch=batch))
        products = [op for op in graph.ops if op.name in {"aten.addmm", "aten.mv"} and op.phase == "forward"]
        assert len(products) == batch


BRANCH = """
import os
import torch
from torch import nn

class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, WIDTH)

    def forward(self, x):
        return self.linear(x) if x.shape[0] <= 64 else self.linear(x[:64])

WIDTH = int(os.environ.get("WIDTH_OF_CACHE_TEST", 8)) + len(os.listdir("parts_of_cache_test"))
WIDTH += os.path.exists("flag_of_cache_test")

def build():
    return Branch()

def example_inputs(batch_size=4):
    return torch.zeros(batch_size, 8)
"""


@pytest.fixture
def branch(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "branch_of_cache_test.py").write_text(BRANCH)
    (tmp_path / "parts_of_cache_test").mkdir()
    return "branch_of_cache_test.py:build"


def test_a_branch_on_the_batch_is_never_served_from_another(branch):
    for batch in (200, 40, 30, 1, 64, 100):
        graph = cached_graph(branch, ReadOptions(batch=batch))
        assert calls(graph) == calls(load_graph(branch, ReadOptions(batch=batch)))


def test_what_code_learns_from_its_surroundings_is_never_stale(branch, tmp_path, monkeypatch):
    def width():
        return cached_graph(branch, ReadOptions(batch=2)).parameters[0].shape[0]

    assert width() == 8
    monkeypatch.setenv("WIDTH_OF_CACHE_TEST", "16")
    assert width() == 16
    (tmp_path / "parts_of_cache_test" / "one").touch()
    assert width() == 17
    (tmp_path / "flag_of_cache_test").touch()
    assert width() == 18
