"""The report as one self-contained web page: styles and drawings inside, nothing fetched."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from predictor.answer import Estimate
from predictor.report.comparison import comparison_of, split
from predictor.report.content import report_of
from predictor.report.many import many_of
from predictor.report.plots import Plot, breakdown_plot, comparison_plots, ranges_plot

TEMPLATES = Path(__file__).parent / "templates"


@cache
def environment() -> Environment:
    """Templates in which every value is escaped unless it is one of our own drawings."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["whole"] = whole
    return made


_IN_ONE_PIECE = re.compile(r"\([^\s()]*\d-\d[^\s()]*\)|--[a-z][\w-]*")


def whole(text: str) -> Markup:
    """Escaped text in which a range and an option are never broken at their hyphens.

    >>> str(whole("<b> (1-2)"))
    '&lt;b&gt; <span class="whole">(1-2)</span>'
    """
    return Markup(_IN_ONE_PIECE.sub(r'<span class="whole">\g<0></span>', str(escape(text))))


def render_report(answer: Estimate) -> str:
    """One answer."""
    plots = [plot for plot in (ranges_plot(answer), breakdown_plot(answer)) if plot is not None]
    return environment().get_template("estimate.html").render(report=report_of(answer), plots=_safe(plots))


def render_comparison(answers: Sequence[tuple[str, Estimate | str]]) -> str:
    """Several answers side by side."""
    plots = comparison_plots(split(answers)[0])
    page = environment().get_template("comparison.html")
    return page.render(report=comparison_of(answers), plots=_safe(plots))


def render_many(answers: Sequence[tuple[str, Estimate | str]]) -> str:
    """Many answers, ranked in one table."""
    plots = comparison_plots(split(answers)[0])
    page = environment().get_template("many.html")
    return page.render(report=many_of(answers), plots=_safe(plots))


def _safe(plots: Sequence[Plot]) -> list[tuple[str, Markup, str]]:
    """Title, drawing and note; matplotlib has escaped every word in the drawing."""
    return [(plot.title, Markup(plot.svg), plot.note) for plot in plots]
