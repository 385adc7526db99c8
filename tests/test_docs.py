"""What the pages show is what the commands print."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_spec = importlib.util.spec_from_file_location("refresh", ROOT / "docs" / "refresh.py")
refresh = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(refresh)
PAGES = sorted(p for p in ROOT.rglob("*.md") if not {".venv", "out"} & set(p.relative_to(ROOT).parts))


@pytest.mark.parametrize("path", refresh.PAGES, ids=lambda p: p.name)
def test_shown_output_is_real(path):
    page = path.read_text()
    assert refresh.MARK.search(page)
    assert refresh.refreshed(page) == page, "run: python docs/refresh.py"


def test_the_readmes_python_runs():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names = {}
    exec(code.replace("zoo:bert-large", "zoo:bert-base"), names)
    assert names["answer"].run.energy_kwh.facility.mid > 0


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
