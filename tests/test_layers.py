"""Imports go one way, and the public door stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "predictor"

# Part of the package -> level; a part imports only from lower levels, or from itself.
LEVEL = {
    "errors": 0,
    "units": 1,
    "values": 2,
    "ir": 2,
    "job": 2,
    "answer": 3,
    "graph_file": 3,
    "links": 3,
    "ops": 3,
    "quantity": 3,
    "stack": 3,
    "zoo": 3,
    "frontends": 4,
    "passes": 4,
    "profile_file": 4,
    "node_file": 4,
    "bounds": 3,
    "facts": 3,
    "zones": 4,
    "rent": 4,
    "equivalences": 4,
    "world": 5,
    "embodied": 6,
    "accelerator": 5,
    "node": 5,
    "profile": 6,
    "hosts": 7,
    "node_index": 7,
    "wiring": 7,
    "tpu_slice": 7,
    "machine": 8,
    "kernels": 9,
    "workload": 9,
    "oracles": 9,
    "parallel": 10,
    "training": 11,
    "power": 11,
    "run": 11,
    "memory": 12,
    "timing": 12,
    "energy": 13,
    "carbon": 14,
    "cost": 14,
    "breakdown": 15,
    "ledger": 15,
    "pricing": 16,
    "calibrate": 17,
    "report": 17,
    "jobfile": 17,
    "cli": 18,
    "__main__": 19,
}
HEAVY = {
    "torch": ("frontends", "oracles", "calibrate"),
    "fvcore": ("oracles",),
    "transformers": ("frontends",),
    "onnx": ("frontends",),
    "jax": ("frontends",),
    "matplotlib": ("report", "calibrate"),
    "scipy": ("calibrate",),
    "sklearn": ("calibrate",),
    "jinja2": ("report",),
    "rich": ("report", "cli"),
    "typer": ("cli",),
}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "predictor":
                found |= {f"predictor.{alias.name}" for alias in node.names}
    return found


FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    here = part_of(path)
    assert here in LEVEL, f"{here} has no level in tests/test_layers.py"
    for module in imported_modules(path):
        package, _, rest = module.partition(".")
        there = rest.partition(".")[0]
        if package == "predictor" and there in LEVEL:
            assert there == here or LEVEL[there] < LEVEL[here], f"{here} imports {there}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_packages_stay_in_their_place(path):
    here = part_of(path)
    for module in imported_modules(path):
        places = HEAVY.get(module.partition(".")[0])
        if places is None or (here == "zoo" and module.startswith("torch") and path.name != "__init__.py"):
            continue
        assert here in places, f"{here} imports {module}"
        if module.startswith("torch") and here == "frontends":
            assert path.name.startswith("torch_"), f"{path.name} imports torch"


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, predictor; "
        "print([m for m in ('torch', 'numpy', 'pydantic', 'matplotlib', 'onnx', 'rich') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_public_names_are_the_listed_ones():
    import predictor

    assert sorted(predictor.__all__) == ["Estimate", "InputError", "Job", "PredictorError", "estimate"]
    for name in predictor.__all__:
        assert getattr(predictor, name).__module__.startswith("predictor.")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = predictor.nothing
