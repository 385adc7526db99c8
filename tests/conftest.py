"""Shared by all tests: what is slow to make is made once."""

import os
import tempfile
import typing

import pytest

from predictor.cli import main
from predictor.frontends import ReadOptions, load_graph
from predictor.frontends.torch_vision import ensure_torchvision

# timm and transformers import torchvision, whose native library need not load.
ensure_torchvision()


# The user's own profiles stay out. Tests list profiles while they are collected, before any fixture runs.
_NO_PROFILES = tempfile.TemporaryDirectory()
os.environ["PREDICTOR_PROFILES"] = _NO_PROFILES.name


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Recordings of the tests stay out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREDICTOR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def resnet50():
    """One float32 training step of ResNet-50 on 8 images."""
    return load_graph("zoo:resnet50", ReadOptions(batch=8))


@pytest.fixture(scope="session")
def gpt2():
    """One float32 training step of GPT-2 on 2 sequences of 64 tokens."""
    return load_graph("zoo:gpt2", ReadOptions(batch=2, seq_len=64))


class Run(typing.NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def predictor(capsys, tmp_path, monkeypatch):
    """Run the command line inside this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Run(ended.value.code, out, err)

    return run
