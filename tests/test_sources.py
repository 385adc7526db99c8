"""Shipped figures against the tables they were taken from: every difference has its note."""

import os
from pathlib import Path

import pytest

CALIBRATION = Path(__file__).resolve().parent.parent / "calibration"


@pytest.mark.soak
@pytest.mark.skipif("PREDICTOR_DATA" not in os.environ, reason="needs PREDICTOR_DATA")
@pytest.mark.parametrize("part", ["profiles", "nodes", "world"])
def test_every_difference_from_the_source_tables_has_a_note(part, monkeypatch):
    monkeypatch.syspath_prepend(str(CALIBRATION))
    import compare_sources

    data = Path(os.environ["PREDICTOR_DATA"])
    assert [found for found in getattr(compare_sources, part)(data) if not found.note] == []
