"""Residual plots: measured over predicted, by kind of kernel."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from predictor.calibrate.residuals import Points
from predictor.errors import InputError

FORMS = ("svg", "png", "pdf")
# Okabe and Ito's palette, safe for every common colour blindness, without its yellow and black.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
_MARKS = "osD^v<>P"
_COLUMNS = 3
_MOST, _LEAST = 8.0, 1.5  # of the vertical scale, as a factor
_WIDE, _ROOM = 2.5, 1.12
_COARSE = (0.125, 0.25, 0.5, 1, 2, 4, 8)
_FINE = (0.4, 0.5, 0.67, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 2.5)


def check_form(path: Path) -> str:
    """The format that a file's name asks for; InputError names those that can be written."""
    form = path.suffix.lstrip(".").lower()
    if form not in FORMS:
        raise InputError(f"plot '{path}': accepted endings: {', '.join('.' + form for form in FORMS)}")
    return form


def residual_plot(points: Sequence[Points], title: str, form: str) -> bytes:
    """One panel for each kind: measured over predicted seconds against measured ones, as a file's bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows = -(-len(points) // _COLUMNS)
    columns = min(len(points), _COLUMNS)
    apart = ConstrainedLayoutEngine(wspace=0.05)  # of labels at the ends of neighbours
    with mpl.rc_context({"svg.hashsalt": "predictor", "font.size": 9, "axes.axisbelow": True}):
        figure = Figure(figsize=(3.2 * columns + 0.6, 2.6 * rows + 0.9), layout=apart)
        panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
        flat = list(panels.flat)
        reach = _reach(points)
        for place, (panel, found) in enumerate(zip(flat, points, strict=False)):
            _panel(panel, found, place, reach)
        for panel in flat[len(points) :]:
            panel.set_axis_off()
        figure.suptitle(title, fontsize=11)
        figure.supxlabel("measured time of one call", fontsize=9)
        figure.supylabel("measured over predicted", fontsize=9)
        stream = io.BytesIO()
        # Without a date: the same points give the same file.
        figure.savefig(stream, format=form, dpi=150, metadata={"Date": None} if form == "svg" else None)
    return stream.getvalue()


def _reach(points: Sequence[Points]) -> float:
    """How far the vertical axis goes, the same in all panels: the worst row, at most 8-fold."""
    worst = max(float(max(r.max(), 1 / r.min())) for p in points for r in [p.measured_s / p.predicted_s])
    return min(max(worst * 1.1, _LEAST), _MOST)


def _panel(panel: Any, points: Points, place: int, reach: float) -> None:
    """Rows of one kind; those beyond the axis are drawn at its edge."""
    ratio = (points.measured_s / points.predicted_s).clip(1 / reach, reach)
    colour, mark = _COLOURS[place % len(_COLOURS)], _MARKS[place % len(_MARKS)]
    panel.axhspan(1 / 1.1, 1.1, color="#999999", alpha=0.25, linewidth=0)
    panel.axhline(1.0, color="#555555", linewidth=0.8)
    panel.scatter(points.measured_s, ratio, s=16, color=colour, marker=mark, alpha=0.75, linewidths=0)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_ylim(1 / (reach * _ROOM), reach * _ROOM)
    panel.set_xlim(*_decade(points))
    _label(panel, reach)
    errors = points.errors()
    rows = "row" if errors.rows == 1 else "rows"
    panel.set_title(
        f"{points.kind}: {errors.rows} {rows}, median error {errors.median_ape:.0%}", fontsize=9, loc="left"
    )


def _decade(points: Points) -> tuple[float, float]:
    """Ends of the horizontal axis: whole decades, so that every panel has two labels."""
    low, high = np.floor(np.log10(points.measured_s.min())), np.ceil(np.log10(points.measured_s.max()))
    return float(10**low), float(10 ** max(high, low + 1))


def _label(panel: Any, reach: float) -> None:
    """Ratios and seconds as people say them."""
    from matplotlib.ticker import (
        EngFormatter,
        FixedLocator,
        FuncFormatter,
        LogLocator,
        NullFormatter,
        NullLocator,
    )

    ticks = [t for t in (_COARSE if reach > _WIDE else _FINE) if 1 / reach <= t <= reach]
    panel.yaxis.set_major_locator(FixedLocator(ticks))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_locator(LogLocator(numticks=5))
    panel.xaxis.set_major_formatter(EngFormatter(unit="s", sep=" "))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.grid(color="#dddddd", linewidth=0.5)
