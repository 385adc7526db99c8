"""Plots of an answer as inline SVG; the only file that knows matplotlib.

Drawn at the width of a phone, without a background. Text takes the colour of the page around it, so
one drawing serves light, dark and paper.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from predictor.answer import BreakdownRow, Estimate, Range
from predictor.report import format as fmt
from predictor.report.comparison import RUN_FIGURES, STEP_FIGURES, Candidate, Figure, groups, ranked

# Okabe and Ito's palette, safe for every common colour blindness, without its yellow and black
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
_INK, _FAINT = "#010203", "#808182"
_PHASES = {
    "forward": BLUE,
    "backward": ORANGE,
    "recompute": PURPLE,
    "optimizer": GREEN,
    "step": VERMILION,
    "other": SKY,
}
_TOP_KINDS = 7
_TIGHT = {"handlelength": 1.0, "handletextpad": 0.4, "columnspacing": 0.9}
_MOST_BARS = 20
_LONGEST_LABEL = 24
_WIDTH_INCH = 4.6
_LABEL = "@label@"
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "predictor",
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
}
_ONE_AT_A_TIME = Lock()  # matplotlib's settings are global, and a web server has threads


@dataclass(frozen=True, slots=True)
class Plot:
    """A finding in words, the drawing that shows it, and how to read it."""

    title: str
    svg: str
    note: str = ""


def breakdown_plot(answer: Estimate) -> Plot | None:
    """Time of one step by kind of work, each bar divided into phases."""
    rows = answer.breakdown
    total_s = sum(row.time_s for row in rows)
    if total_s <= 0:
        return None
    kinds = _by_kind(rows)
    rung = fmt.rung_for(total_s, fmt.SECONDS)
    largest, parts = kinds[0]
    title = (
        f"{fmt.plain(largest)} takes {fmt.share(sum(parts.values()) / total_s)} of the step's "
        f"{fmt.quantity(total_s, fmt.SECONDS)}"
    )
    with _ONE_AT_A_TIME, mpl.rc_context(_STYLE):
        figure, axes = _blank(len(kinds))
        phases = [phase for phase in _PHASES if any(phase in found for _, found in kinds)]
        for phase in phases:
            left = [_before(found, phases, phase) / rung.size for _, found in kinds]
            width = [found.get(phase, 0.0) / rung.size for _, found in kinds]
            axes.barh(range(len(kinds)), width, left=left, height=0.7, color=_PHASES[phase], label=phase)
        _name_rows(axes, [kind for kind, _ in kinds])
        axes.set_xlabel(f"time in one step [{rung.unit}]")
        figure.legend(frameon=False, loc="outside lower center", ncols=len(phases), fontsize=9.5, **_TIGHT)
        return Plot(title, _svg(figure, "breakdown", title))


def _by_kind(rows: Sequence[BreakdownRow]) -> list[tuple[str, dict[str, float]]]:
    """Seconds by phase for the longest kinds, the rest together as "other"."""
    kinds: dict[str, dict[str, float]] = {}
    for row in rows:
        phases, phase = kinds.setdefault(row.kind, {}), row.phase if row.phase in _PHASES else "other"
        phases[phase] = phases.get(phase, 0.0) + row.time_s
    ordered = sorted(kinds.items(), key=lambda item: -sum(item[1].values()))
    top, rest = ordered[:_TOP_KINDS], ordered[_TOP_KINDS:]
    if not rest:
        return top
    other: dict[str, float] = {}
    for _, phases in rest:
        for phase, time_s in phases.items():
            other[phase] = other.get(phase, 0.0) + time_s
    return [*top, ("other", other)]


def _before(found: dict[str, float], phases: Sequence[str], phase: str) -> float:
    return sum(found.get(name, 0.0) for name in phases[: phases.index(phase)])


def ranges_plot(answer: Estimate) -> Plot | None:
    """Low, middle and high of the main quantities, relative to the middle."""
    found = [(figure.name, figure.pick(answer), figure.ladder) for figure in (STEP_FIGURES[0], *RUN_FIGURES)]
    named = [(name, r, fmt.quantity(r.mid, ladder)) for name, r, ladder in found if r and 0 < r.low < r.high]
    if not named:
        return None
    widest, r, _ = max(named, key=lambda item: item[1].high / item[1].low)
    title = (
        f"The {widest} is the least certain: between {fmt.significant(r.low / r.mid)} and "
        f"{fmt.significant(r.high / r.mid)} times its middle value"
    )
    with _ONE_AT_A_TIME, mpl.rc_context(_STYLE):
        figure, axes = _blank(len(named), per_row=0.34)
        for index, (_, span, _) in enumerate(named):
            low, high = span.low / span.mid, span.high / span.mid
            axes.plot([low, high], [index, index], color=BLUE, linewidth=3, solid_capstyle="round")
            axes.plot([1.0], [index], marker="o", markersize=8, color=VERMILION)
        _name_rows(axes, [f"{name} {value}" for name, _, value in named], longest=40)
        _times_axis(axes, min(r.low / r.mid for _, r, _ in named), max(r.high / r.mid for _, r, _ in named))
        return Plot(title, _svg(figure, "ranges", title), "dot: middle value; line: 5th to 95th percentile")


_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)


def _times_axis(axes: Any, low: float, high: float) -> None:
    """A logarithmic axis, so that half and double are equally far from the middle."""
    ends = min(low / 1.15, 0.45), max(high * 1.15, 2.2)
    ticks = [tick for tick in _TICKS if ends[0] <= tick <= ends[1]]
    axes.set_xscale("log")
    axes.set_xlim(*ends)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("times the middle value")


def comparison_plots(priced: Sequence[Candidate]) -> list[Plot]:
    """One chart per quantity, candidates from best to worst."""
    wanted = [figure for figure in (*STEP_FIGURES, *RUN_FIGURES) if figure.best]
    drawn = [_bars(figure, priced, index) for index, figure in enumerate(wanted)]
    return [plot for plot in drawn if plot is not None]


def _bars(figure: Figure, priced: Sequence[Candidate], index: int) -> Plot | None:
    order = ranked(figure, priced)
    if len(groups(figure, priced)) < 2:
        return None
    rung = fmt.rung_for(max(found.mid for _, found in order), figure.ladder)
    unit = " ".join(part for part in (rung.unit, figure.unit) if part)
    (label, best), total = order[0], len(order)
    order = order[:_MOST_BARS]
    title = f"{figure.best.capitalize()}: {label}, {fmt.ranged(best, figure.ladder, figure.unit)}"
    with _ONE_AT_A_TIME, mpl.rc_context(_STYLE):
        canvas, axes = _blank(len(order))
        mids = [found.mid / rung.size for _, found in order]
        axes.barh(range(len(order)), mids, height=0.62, color=SKY)
        axes.errorbar(
            mids,
            range(len(order)),
            xerr=_whiskers([found for _, found in order], rung.size),
            fmt="none",
            ecolor=_INK,
            elinewidth=2,
            capsize=3,
        )
        axes.set_xlim(left=0)
        _name_rows(axes, [label for label, _ in order])
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        name = figure.name if figure.name != figure.unit else "speed"
        axes.set_xlabel(f"{name} [{unit}]")
        svg = _svg(canvas, f"compare{index}", title)
        cut = f"; the best {_MOST_BARS} of {total}" if total > _MOST_BARS else ""
        return Plot(title, svg, f"bar: middle value; line: 5th to 95th percentile{cut}")


def _whiskers(found: Sequence[Range], size: float) -> list[list[float]]:
    below = [max(r.mid - r.low, 0.0) / size for r in found]
    above = [max(r.high - r.mid, 0.0) / size for r in found]
    return [below, above]


def _blank(rows: int, per_row: float = 0.32) -> tuple[Canvas, Any]:
    """Axes with room for so many named rows, the first on top."""
    figure = Canvas(figsize=(_WIDTH_INCH, 0.85 + per_row * max(rows, 2)), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(axis="x", color=_FAINT, alpha=0.35, linewidth=0.6)
    axes.tick_params(length=0)
    return figure, axes


def _name_rows(axes: Any, names: Sequence[str], longest: int = _LONGEST_LABEL) -> None:
    labels = [fmt.shortened(fmt.plain(name), longest) for name in names]
    axes.set_yticks(range(len(names)), [_drawable(label) for label in labels], parse_math=False)
    axes.set_ylim(len(names) - 0.5, -0.5)


def _drawable(label: str) -> str:
    """Letters outside the font's alphabets as a question mark: they could not be measured."""
    return "".join(c if ord(c) < 0x250 else "?" for c in label)


def _svg(figure: Canvas, name: str, title: str) -> str:
    """The drawing alone: no prolog, no metadata, ids of its own, text in the colour of the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", text)
    opening = rf'<svg viewBox="\1" role="img" aria-label="{_LABEL}">'
    text = re.sub(r'<svg[^>]*?viewBox="([^"]*)"[^>]*>', opening, text)
    return text.replace(_LABEL, _attribute(title)).replace(_INK, "currentColor").strip()


def _attribute(text: str) -> str:
    """Text inside a quoted attribute."""
    for raw, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(raw, safe)
    return text
