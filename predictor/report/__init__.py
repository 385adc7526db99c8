"""Reports of an answer: for a terminal, for GitHub, as one web page, and as JSON.

Each is a string made from the answer alone; whoever asked prints it or writes it to a file.
"""

from collections.abc import Sequence

from predictor.answer import Estimate
from predictor.errors import InputError, did_you_mean
from predictor.report.as_json import check_finite, comparison_json, estimate_json
from predictor.report.comparison import comparison_of
from predictor.report.content import report_of
from predictor.report.many import MANY, many_of

FORMATS = ("table", "json", "markdown", "html")


def render(answer: Estimate, form: str, *, color: bool = False, width: int | None = None) -> str:
    """One answer in one of FORMATS; ``color`` and ``width`` (80 if not given) are the terminal's."""
    _check_form(form)
    check_finite(answer)
    if form == "json":
        return estimate_json(answer)
    if form == "markdown":
        from predictor.report.markdown import render_report as draw_markdown

        return draw_markdown(report_of(answer))
    if form == "html":
        from predictor.report.html import render_report as draw_html

        return draw_html(answer)
    from predictor.report.terminal import render_report as draw_terminal

    return draw_terminal(report_of(answer), color, width)


def render_comparison(
    answers: Sequence[tuple[str, Estimate | str]],
    form: str,
    *,
    color: bool = False,
    width: int | None = None,
) -> str:
    """Labelled answers side by side, from MANY on ranked in one table; a refused candidate has its message.

    ``width`` is 80 if not given, 100 for the ranked table.
    """
    _check_form(form)
    for _, answer in answers:
        if not isinstance(answer, str):
            check_finite(answer)
    if form == "json":
        return comparison_json(answers)
    if len(answers) >= MANY:
        return _render_many(answers, form, color, width)
    if form == "markdown":
        from predictor.report.markdown import render_comparison as draw_markdown

        return draw_markdown(comparison_of(answers))
    if form == "html":
        from predictor.report.html import render_comparison as draw_html

        return draw_html(answers)
    from predictor.report.terminal import render_comparison as draw_terminal

    return draw_terminal(comparison_of(answers), color, width)


def _render_many(
    answers: Sequence[tuple[str, Estimate | str]], form: str, color: bool, width: int | None
) -> str:
    if form == "markdown":
        from predictor.report.markdown import render_many as draw_markdown

        return draw_markdown(many_of(answers))
    if form == "html":
        from predictor.report.html import render_many as draw_html

        return draw_html(answers)
    from predictor.report.many_terminal import render_many as draw_terminal

    return draw_terminal(many_of(answers), color, width)


def _check_form(form: str) -> None:
    if form not in FORMATS:
        raise InputError(
            f"unknown format '{form}'{did_you_mean(form, FORMATS)}; accepted: {', '.join(FORMATS)}"
        )
