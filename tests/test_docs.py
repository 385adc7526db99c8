"""What the pages show is what the commands print."""

import importlib.util
import re
from collections import Counter
from pathlib import Path

import pytest

from predictor.machine import list_nodes
from predictor.profile import list_profiles
from predictor.rent import check_prices
from predictor.zones import read_zones
from predictor.zoo import ZOO

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


def test_the_readme_counts_what_ships():
    """Servers and instances by their kinds; the 51 states hold the District of Columbia."""
    zones = Counter(zone.kind for zone in read_zones().values())
    nodes = Counter(node.kind for node in list_nodes())
    parts = sum(zones[kind] for kind in ("state", "subregion", "province", "zone", "area"))
    counts = {
        "model definitions": len(ZOO),
        "accelerators": len(list_profiles()),
        "servers, racks and pods": nodes["server"] + nodes["rack"] + nodes["pod"],
        "cloud instances": nodes["instance"],
        "countries": zones["country"],
        "states, provinces and grid zones": parts,
        "cloud regions": zones["cloud"],
        "computing centres": zones["hpc"],
        "prices": len(check_prices()),
    }
    page = (ROOT / "README.md").read_text()
    for name, count in counts.items():
        assert f"{count} {name}" in page, f"{count} {name}"


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
