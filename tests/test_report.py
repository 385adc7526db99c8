"""Every report says the same, never breaks on a name, and says so when it does not know.

The text in tests/golden is refreshed with ``PREDICTOR_REFRESH_GOLDEN=1 pytest tests/test_report.py``.
"""

import doctest
import json
import math
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pytest
from markdown_it import MarkdownIt
from rich.cells import cell_len

from predictor import Job
from predictor.answer import BreakdownRow, Estimate, LedgerEntry, Range
from predictor.cli.jobs import asked_width
from predictor.errors import InputError, PredictorError
from predictor.pricing import price, resolve
from predictor.report import (
    FORMATS,
    assumed,
    comparison,
    content,
    html,
    many,
    markdown,
    question,
    render,
    render_comparison,
)
from predictor.report import format as fmt
from predictor.report.comparison import ORIGIN_FIGURES, RUN_FIGURES, STEP_FIGURES
from predictor.report.schema import json_schema, text
from predictor.report.terminal import in_width
from predictor.units import DAY, GIGA, HOUR, KILO, MEGA, MINUTE, TERA

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"
REFERENCE = ROOT / "docs" / "reference"
HUMAN = ("table", "markdown", "html")


def rng(mid, low=0.8, high=1.5):
    return {"low": mid * low, "mid": mid, "high": mid * high}


def run_part():
    return {
        "steps": 12_000,
        "time_s": {"steady": rng(2040.0), "wall": rng(2160.0)},
        "accelerator_hours": rng(4.8),
        "node_hours": rng(0.6),
        "energy_kwh": {"accelerators": rng(2.5), "nodes": rng(3.2), "facility": rng(4.1)},
        "carbon_kgco2e": {
            "operational": {"location": rng(1.9), "market": rng(0.7)},
            "embodied": rng(0.2),
            "total": rng(2.1),
        },
        "water_l": {"on_site": rng(7.0), "off_site": rng(12.0)},
        "cost_usd": rng(19.0),
    }


def rows():
    """Ten rows, 170 ms in all; eight are shown, so the rest are the 6 ms of pool and copy."""
    times_ms = {"matmul": 80, "conv": 30, "attention": 20, "norm": 12, "softmax": 8}
    times_ms |= {"optimizer": 6, "elementwise": 4.5, "reduce": 3.5, "pool": 3.4, "copy": 2.6}
    return [
        {
            "kind": kind,
            "phase": "optimizer" if kind == "optimizer" else ("backward" if index % 2 else "forward"),
            "time_s": time_ms / 1000,
            "flop": 4_000_000_000 if kind in ("matmul", "conv") else 0,
            "bytes": 2_000_000,
            "energy_j": time_ms / 10,
            "count": 3,
        }
        for index, (kind, time_ms) in enumerate(times_ms.items())
    ]


def ledger():
    return [
        {"topic": "grid", "text": "grid of Freedonia, 2024", "share": 0.4, "advice": "hours differ"},
        {
            "topic": "efficiency",
            "text": "priced from its datasheet",
            "share": 1.0,
            "advice": "measure a step",
        },
        {"topic": "stack", "text": "no stack given", "share": None, "advice": "give --stack"},
        {"topic": "PUE", "text": "PUE 1.3 (1.1-1.6)", "share": 0.23, "advice": "give --pue"},
    ]


def small(**changes):
    """A hand-built answer; no number in it comes from the pricing."""
    value = {
        "model": {
            "name": "tiny",
            "source": "zoo:tiny",
            "parameters": 12_345_678,
            "trainable_parameters": 12_000_000,
        },
        "machine": {"accelerator": "acme-x1", "count": 8, "nodes": 1, "profile_status": "spec-only"},
        "stack": {"id": "eager-2", "status": "estimate"},
        "plan": {
            **{"dp": 4, "tp": 2, "pp": 1, "ep": 1, "cp": 1, "zero": 1, "recompute": "full"},
            **{"batch_size": 64, "micro_batch": 8, "accumulation": 2, "precision": "amp-bf16"},
            **{"optimizer": "adamw", "memory_format": "contiguous", "mode": "train"},
        },
        "step": {
            "flop": {
                **{"forward": 2_000_000_000, "backward": 4_000_000_000, "optimizer": 144_000_000},
                **{"recompute": 2_000_000_000, "model": 6_000_000_000, "total": 8_144_000_000},
            },
            "bytes": {"read": 3_000_000_000, "written": 1_500_000_000},
            "communication_bytes": 96_000_000,
            "time_s": rng(0.17, 0.7),
            "samples_per_s": rng(376.0),
            "tokens_per_s": rng(385_000.0),
            "mfu": rng(0.31),
            "hfu": rng(0.41),
            "peak_memory_bytes": {
                "allocated": rng(31e9),
                "reserved": rng(34e9),
                "device": rng(36e9),
            },
            "fits": True,
            "accelerator_power_w": rng(520.0),
            "node_power_w": rng(6100.0),
        },
        "run": run_part(),
        "breakdown": rows(),
        "coverage": {"bytes_by_formula": 0.97, "unpriced_ops": ["aten.erfinv", "acme.secret"]},
        "ledger": ledger(),
        "provenance": {
            "version": "0.1.0",
            "data_date": "2026-11-20",
            "command": "predictor estimate zoo:tiny --hardware acme-x1 --count 8 --steps 12000",
            "input_hash": "0123456789abcdef",
        },
    }
    for key, new in changes.items():
        *way, last = key.split("__")
        part = value
        for name in way:
            part = part[name]
        part[last] = new
    return Estimate.model_validate(value)


UNKNOWN = {
    "step__tokens_per_s": None,
    "step__fits": None,
    "step__accelerator_power_w": None,
    "step__node_power_w": None,
    "run__energy_kwh": None,
    "run__carbon_kgco2e": None,
    "run__water_l": None,
    "run__cost_usd": None,
    "breakdown": [],
    "ledger": [],
    "provenance__command": "",
}


# Reading the reports back


class Page(HTMLParser):
    """Visible text, table cells, tags and attributes of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.words, self.rows = [], [], [], []
        self._cell = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data):
        self.words.append(data)
        if self._cell:
            self.rows[-1][-1] += data


def table_rows(answer):
    """Name and value per line of the terminal's report, which has two spaces between columns."""
    lines = [line.strip() for line in render(answer, "table", width=300).splitlines()]
    return [re.split(r" {2,}", line) for line in lines if "  " in line]


def markdown_rows(answer):
    lines = [line for line in render(answer, "markdown").splitlines() if line.startswith("|")]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    return [[re.sub(r"\\(.)", r"\1", cell.strip()) for cell in row] for row in cells]


def html_rows(answer):
    return [[" ".join(cell.split()) for cell in row] for row in Page(render(answer, "html")).rows]


READERS = {"table": table_rows, "markdown": markdown_rows, "html": html_rows}


def values(answer, form):
    return {row[0]: row[1] for row in READERS[form](answer) if len(row) > 1}


UNIT_SIZE = {
    **{"us": 1e-6, "ms": 1e-3, "s": 1, "min": MINUTE, "h": HOUR, "days": DAY},
    **{"MB": MEGA, "GB": GIGA, "TB": TERA, "W": 1, "kW": KILO, "%": 0.01},
    **{"Wh": 1e-3, "kWh": 1, "MWh": KILO, "g": 1e-3, "kg": 1, "t": KILO, "ml": 1e-3, "l": 1, "m3": KILO},
    **{"": 1, "samples/s": 1, "tokens/s": 1, "thousand tokens/s": KILO, "million": MEGA},
}
SHOWN = {
    "step time": "step.time_s",
    "speed": "step.tokens_per_s",
    "MFU": "step.mfu",
    "peak memory": "step.peak_memory_bytes.device",
    "power": "step.accelerator_power_w",
    "run time": "run.time_s.wall",
    "accelerator-hours": "run.accelerator_hours",
    "energy": "run.energy_kwh.facility",
    "carbon (CO2e)": "run.carbon_kgco2e.total",
    "water on site": "run.water_l.on_site",
    "water off site": "run.water_l.off_site",
    "cost": "run.cost_usd",
}


def read_range(value):
    """Middle, low and high in base units, from text such as "0.17 s (0.12-0.25)"."""
    found = re.match(r"\$?([\d.,]+) ?([^(:]*?) ?(?:\(([\d.,]+)-([\d.,]+)\))?(?::.*)?$", value)
    assert found, value
    mid, unit, low, high = found.groups()
    numbers = [float((number or mid).replace(",", "")) for number in (mid, low, high)]
    return [number * UNIT_SIZE[unit] for number in numbers]


def at(answer, key):
    part = json.loads(render(answer, "json"))
    for name in key.split("."):
        part = part[name]
    return part


@pytest.fixture(scope="module")
def real(resnet50):
    """Priced answers, with and without a run."""
    jobs = [
        Job(model="zoo:resnet50", hardware="h100", micro_batch=8, steps=1000, region="FR"),
        Job(model="zoo:resnet50", hardware="a100-80gb", micro_batch=8),
    ]
    return [price(job, resolve(job), resnet50, "predictor estimate zoo:resnet50") for job in jobs]


# The same numbers everywhere


@pytest.mark.parametrize("form", HUMAN)
def test_every_number_is_the_json_number_rounded_to_two_digits(form):
    answer = small()
    shown = values(answer, form)
    for name, key in SHOWN.items():
        expected = at(answer, key)
        for found, end in zip(read_range(shown[name]), ("mid", "low", "high"), strict=True):
            assert found == pytest.approx(expected[end], rel=0.05), (name, end)


def test_the_formats_show_the_same_strings(real):
    for answer in (small(), *real):
        said = {form: values(answer, form) for form in HUMAN}
        for name in [line.name for line in (*content.report_of(answer).step, *content.report_of(answer).run)]:
            assert said["table"][name] == said["markdown"][name] == said["html"][name]


def test_the_formats_show_the_same_breakdown():
    kept = [
        [row for row in READERS[form](small()) if row[0] in ("matmul", "whole step", "other (2 rows)")]
        for form in HUMAN
    ]
    kept = [[[cell for cell in row if cell] for row in found] for found in kept]
    assert kept[0] == kept[1] == kept[2]


def test_json_is_the_answer():
    answer = small()
    assert Estimate.model_validate_json(render(answer, "json")) == answer
    assert render(answer, "json").endswith("}\n")


def test_every_compared_figure_is_a_range_of_the_answer():
    answer = small()
    for figure in (*STEP_FIGURES, *RUN_FIGURES, *ORIGIN_FIGURES):
        assert figure.pick(answer) == Range(**at(answer, figure.key))


# Words


def test_the_question_comes_first_in_one_sentence():
    assert question.question(small()) == (
        "Training tiny (12.3 million parameters, 12.0 million trainable, zoo:tiny) on 8 x acme-x1: "
        "data parallel 4, tensor parallel 2, ZeRO 1, full recompute, "
        "batch 64 (micro-batch 8, 2 accumulated), amp-bf16, adamw, stack eager-2."
    )


def test_inference_is_not_called_training():
    words = question.question(small(plan__mode="infer"))
    assert words.startswith("Running ")
    assert "adamw" not in words
    assert "batch time" in values(small(plan__mode="infer"), "table")


@pytest.mark.parametrize(
    ("fits", "words"), [(True, "fits"), (False, "does not fit"), (None, "capacity unknown")]
)
def test_memory_says_in_words_whether_it_fits(fits, words):
    for form in HUMAN:
        assert values(small(step__fits=fits), form)["peak memory"] == f"36 GB (29-54): {words}"


@pytest.mark.parametrize("form", HUMAN)
def test_an_answer_that_does_not_fit_warns(form):
    assert "every other figure is for the case" in render(small(step__fits=False), form, width=200)
    assert "every other figure is for the case" not in render(small(), form, width=200)


@pytest.mark.parametrize("form", HUMAN)
def test_a_run_not_asked_for_says_what_to_give(form):
    assert values(small(run=None), form)["whole run"] == fmt.NOT_ASKED


@pytest.mark.parametrize("form", HUMAN)
@pytest.mark.parametrize("changes", [UNKNOWN, {"run": None}, {"run__water_l__on_site": None}])
def test_nothing_unknown_reads_none_or_nan(form, changes):
    answer = small(**changes)
    both = render(answer, form), render_comparison([("a", answer), ("b", answer)], form)
    for shown in both:
        words = " ".join(Page(shown).words) if form == "html" else shown
        assert not re.search(r"\b(None|NaN|nan|inf|null|undefined)\b", words)


def test_unknown_quantities_say_unknown():
    shown = values(small(**UNKNOWN), "table")
    for name in ("power", "energy", "carbon (CO2e)", "water on site", "water off site", "cost"):
        assert shown[name] == "unknown"
    assert "give --price" in render(small(**UNKNOWN), "table")


def test_an_empty_command_says_python():
    assert "estimate(Job(...))" in render(small(provenance__command=""), "table")


def test_a_model_without_tokens_shows_samples():
    assert values(small(step__tokens_per_s=None), "table")["speed"] == "380 samples/s (300-560)"


def test_recomputed_work_shows_hfu():
    assert "HFU" in render(small(), "table")
    assert "HFU" not in render(small(step__flop__recompute=0), "table")


def test_the_three_largest_assumptions_come_first_and_the_rest_are_counted():
    found = content.report_of(small())
    assert [entry.topic for entry in found.main_assumptions] == ["efficiency", "grid", "PUE"]
    assert [entry.topic for entry in found.further_assumptions] == ["stack"]
    assert "1 more" in render(small(), "table")
    for form in ("markdown", "html"):
        assert "no stack given" in render(small(), form)


def test_unpriced_operators_are_named():
    assert "97 % of bytes by formula" in render(small(), "table")
    assert "aten.erfinv, acme.secret" in render(small(), "table", width=120)


def test_breakdown_shows_the_top_rows_and_sums_the_rest():
    shown = content.report_of(small()).breakdown
    assert len(shown) == content.TOP_ROWS + 2
    other, whole = shown[-2:]
    assert (other.kind, other.time, other.share) == ("other (2 rows)", "6.0 ms", "3.5 %")  # 3.4 + 2.6 of 170
    assert (whole.kind, whole.time, whole.share) == ("whole step", "0.17 s", "100 %")
    assert whole.energy == "17 J"  # 170 ms, a tenth of a joule per ms
    assert sum(row.part for row in shown[:-1]) == pytest.approx(1.0)


def test_a_single_remaining_row_keeps_its_name():
    shown = content.report_of(small(breakdown=rows()[:9])).breakdown
    assert [row.kind for row in shown][-2:] == ["pool", "whole step"]


def test_one_row_without_energy_leaves_the_sum_unknown():
    broken = [BreakdownRow(**(row | {"energy_j": None})) for row in rows()[:1]] + rows()[1:]
    assert content.report_of(small(breakdown=broken)).breakdown[-1].energy == "unknown"


# Numbers


@pytest.mark.parametrize(
    "module", [fmt, markdown, html, content, comparison, many, assumed], ids=lambda module: module.__name__
)
def test_examples_in_docstrings_run(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (5e-6, "5.0 us"),
        (0.0314, "31 ms"),
        (0.0996, "0.10 s"),
        (0.17, "0.17 s"),
        (110, "110 s"),
        (119, "2.0 min"),
        (90 * MINUTE, "90 min"),
        (26 * HOUR, "26 h"),
        (3 * DAY, "3.0 days"),
        (800 * DAY, "2.2 years"),
    ],
)
def test_times_read_in_the_unit_that_suits_them(seconds, shown):
    assert fmt.quantity(seconds, fmt.SECONDS) == shown


def test_a_range_has_the_unit_of_its_middle():
    found = Range(low=0.9 * HOUR, mid=3 * HOUR, high=30 * HOUR)
    assert fmt.ranged(found, fmt.SECONDS) == "3.0 h (0.90-30)"


def test_a_point_has_no_brackets():
    assert fmt.ranged(Range(low=2, mid=2, high=2), fmt.KG) == "2.0 kg"


def test_money_carries_its_sign():
    assert fmt.ranged(Range(low=8e5, mid=1.24e6, high=2e6), fmt.USD) == "$1.2 million (0.80-2.0)"
    assert fmt.ranged(Range(low=0, mid=0, high=0), fmt.USD) == "$0"


def test_a_range_that_starts_below_zero_is_not_read_as_a_sign():
    assert fmt.ranged(Range(low=-1, mid=1, high=2), fmt.KG) == "1.0 kg (-1.0 to 2.0)"


@pytest.mark.parametrize(
    "ladder", [fmt.SECONDS, fmt.BYTES, fmt.KWH, fmt.JOULE, fmt.WATT, fmt.KG, fmt.LITRE, fmt.USD, fmt.PLAIN]
)
def test_ladders_climb(ladder):
    for value in (10.0**power for power in range(-9, 25)):
        rung = fmt.rung_for(value, ladder)
        assert rung.start <= value * 1.05 or rung is ladder[0]
    assert [rung.start for rung in ladder] == sorted(rung.start for rung in ladder)
    assert [rung.size for rung in ladder] == sorted(rung.size for rung in ladder)


def test_a_small_share_is_not_shown_as_nothing():
    assert fmt.share(1e-6) == "< 0.1 %"


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_number_that_is_none_is_never_reported(form, wrong):
    answer = small(step__mfu={"low": 0.1, "mid": wrong, "high": 0.3})
    with pytest.raises(PredictorError, match=r"step\.mfu\.mid"):
        render(answer, form)
    with pytest.raises(PredictorError, match=r"step\.mfu\.mid"):
        render_comparison([("a", answer)], form)


def test_an_unknown_format_names_those_accepted():
    with pytest.raises(InputError, match=r"did you mean 'html'.*table, json, markdown, html"):
        render(small(), "htm")
    with pytest.raises(InputError, match="accepted"):
        render_comparison([], "pdf")


# The terminal


@pytest.mark.parametrize("width", [50, 80, 120])
def test_no_line_is_wider_than_asked(width, real):
    answers = [small(), small(**UNKNOWN), small(run=None), *real]
    texts = [render(answer, "table", width=width) for answer in answers]
    texts.append(render_comparison([(str(i), a) for i, a in enumerate(answers)], "table", width=width))
    for line in "\n".join(texts).splitlines():
        assert cell_len(line) <= width, line


def test_no_number_of_a_comparison_is_cut():
    grids = comparison.comparison_of([("a", small()), ("a much longer label than that", small())]).grids
    shown = render_comparison([("a", small()), ("a much longer label than that", small())], "table", width=80)
    for grid in grids:
        assert [c for part in in_width(grid, 80) for c in part.columns] == list(grid.columns)
        for _, cells in grid.rows:
            assert all(word in shown for cell in cells for word in cell.split())


def test_colour_only_when_asked():
    assert "\x1b[" not in render(small(), "table")
    coloured = render(small(), "table", color=True)
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured).split() == render(small(), "table").split()


def test_the_environment_has_no_say(monkeypatch):
    before = render(small(), "table")
    for name, value in {"COLUMNS": "40", "FORCE_COLOR": "1", "TERM": "dumb", "NO_COLOR": ""}.items():
        monkeypatch.setenv(name, value)
    assert render(small(), "table") == before


def test_a_table_does_not_load_matplotlib():
    code = (
        "import sys; from predictor.report import render; from predictor.answer import Estimate; "
        "answer = Estimate.model_validate_json(sys.argv[1]); "
        "[render(answer, form) for form in ('table', 'json', 'markdown')]; "
        "sys.exit('matplotlib' in sys.modules or 'jinja2' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, render(small(), "json")], check=False)
    assert done.returncode == 0


# Names that try to break out

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a|b|c",
    "a] [red]b[/red] [link=http://x]c[/link]",
    "\x1b[31mred\x07 \u202eright to left",
    "two\nlines\r\n# heading\n| cell |",
    "```\n</pre>```",
    "$x^2$ $\\frac$ `code` *em* _em_ ~~gone~~ \\",
    "{{ 7 * 7 }} {% raw %}",
    "--> <!-- ]]> </svg><script>x</script>",
    "模型 naïve é😀",
    "",
    "x" * 300,
    "&amp; &lt;b&gt;",
]


def everywhere(name):
    """An answer with ``name`` in every place where text from outside can stand."""
    entry = LedgerEntry(topic=name, text=name, share=1.0, advice=name)
    return small(
        model__name=name,
        model__source=name,
        machine__accelerator=name,
        stack__id=name,
        stack__status=name,
        breakdown=[row | {"kind": name, "phase": name} for row in rows()[:2]],
        coverage__unpriced_ops=[name],
        ledger=[entry],
        provenance__command=name,
    )


def pages(name):
    answer = everywhere(name)
    rows = [(name, answer), (f"{name} ", small()), ("refused", name)]
    return {form: [render(answer, form), render_comparison(rows, form)] for form in FORMATS}


PLAIN_TAGS = [set(Page(page).tags) for page in pages("plain")["html"]]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_never_breaks_a_report(name):
    made = pages(name)
    for page, tags in zip(made["html"], PLAIN_TAGS, strict=True):
        found = Page(page)
        assert set(found.tags) <= tags
        assert not [key for key, _ in found.attributes if key.startswith("on")]
    for shown in made["table"]:
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", shown)
    for page in made["markdown"]:
        drawn = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(page)
        assert set(Page(drawn).tags) <= {
            *("h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td", "pre", "code", "strong")
        }
        widths = [len(row) for row in Page(drawn).rows]
        assert set(widths) <= {2, 3, 4, 6, 7}, widths
    for page in made["json"]:
        assert json.loads(page)


@pytest.mark.parametrize("name", [n for n in HOSTILE if n and n.isprintable() and len(n) < 60])
def test_a_hostile_name_is_shown_as_it_is(name):
    answer = everywhere(name)
    assert name in render(answer, "table", width=500)
    assert name in " ".join(Page(render(answer, "html")).words)
    drawn = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(render(answer, "markdown"))
    assert name in " ".join(Page(drawn).words)


# The web page


def test_the_page_fetches_nothing(real):
    answers = [("a", real[0]), ("b", small()), ("c", "no such accelerator")]
    for page in (render(small(), "html"), render(real[0], "html"), render_comparison(answers, "html")):
        found = Page(page)
        assert not {"script", "link", "img", "iframe", "object", "image", "base"} & set(found.tags)
        assert "src" not in dict(found.attributes)
        links = [value for key, value in found.attributes if key in ("href", "xlink:href")]
        assert all(value.startswith("#") for value in links)
        assert "http" not in page
        assert "@import" not in page
        assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))


def test_drawings_have_ids_of_their_own_and_words():
    page = render_comparison([("a", small()), ("b", small(step__samples_per_s=rng(500.0)))], "html")
    for shown in (page, render(small(), "html")):
        found = Page(shown)
        ids = [value for key, value in found.attributes if key == "id"]
        assert ids
        assert len(ids) == len(set(ids))
        labels = [value for key, value in found.attributes if key == "aria-label"]
        assert len(labels) == found.tags.count("svg") > 0


def test_drawings_state_their_finding_and_units():
    words = " ".join(Page(render(small(), "html")).words)
    assert "matmul takes 47 % of the step's 0.17 s" in words  # 80 of 170 ms
    assert "time in one step [s]" in words
    assert "The step time is the least certain: between 0.70 and 1.5 times its middle value" in words
    assert "times the middle value" in words


def test_a_page_without_anything_to_draw_has_no_drawing():
    sure = {"low": 1.0, "mid": 1.0, "high": 1.0}
    assert "svg" not in Page(render(small(run=None, breakdown=[], step__time_s=sure), "html")).tags


# Comparisons


def candidates():
    slow, large = small(step__samples_per_s=rng(90.0)), small(step__fits=False)
    return [("x1", small()), ("x0", slow), ("x2", large), ("x9", "unknown accelerator\ndid you mean 'x1'?")]


@pytest.mark.parametrize("form", HUMAN)
def test_a_refused_candidate_keeps_its_message(form):
    shown = render_comparison(candidates(), form, width=120)
    words = " ".join(Page(shown).words) if form == "html" else shown.replace("\\", "")
    assert "unknown accelerator; did you mean 'x1'?" in words


def test_comparison_json_keeps_order_label_and_refusal():
    made = json.loads(render_comparison(candidates(), "json"))
    assert [c["label"] for c in made["candidates"]] == ["x1", "x0", "x2", "x9"]
    assert [c["estimate"] is None for c in made["candidates"]] == [False, False, False, True]
    assert [c["refusal"] is None for c in made["candidates"]] == [True, True, True, False]
    assert made["candidates"][0]["estimate"] == small().to_dict()


def test_the_best_is_among_those_that_fit():
    found = comparison.comparison_of(candidates())
    assert found.findings[0].value == "x1: 380 samples/s (300-560)"
    assert found.findings[0].note == "next x0: 90 samples/s (72-140)"
    assert "x2" not in str(found.findings)
    assert any("x2" in words for words in found.remarks)


def test_candidates_that_do_not_differ_have_no_best():
    assert comparison.comparison_of([("a", small()), ("b", small())]).findings == ()


def test_a_column_has_one_unit():
    answers = [("fast", small(step__time_s=rng(0.002))), ("slow", small(step__time_s=rng(8.0)))]
    grid = comparison.comparison_of([*answers, ("middle", small())]).grids[0]
    assert grid.columns[0] == "step time [s]"  # the unit of the middle candidate, 0.17 s
    assert [cells[0] for _, cells in grid.rows] == [
        "0.0020 (0.0016-0.0030)",
        "8.0 (6.4-12)",
        "0.17 (0.12-0.26)",
    ]


def test_parts_of_the_carbon_have_the_unit_of_the_whole():
    assert "hardware 0.20 kg (0.16-0.30)" in render(small(), "table", width=200)
    grid = comparison.comparison_of([("a", small())]).grids[2]
    assert all(column.endswith("[kg]") for column in grid.columns[:3])


def test_a_comparison_without_a_run_says_what_to_give():
    found = comparison.comparison_of([("a", small(run=None)), ("b", small(run=None))])
    assert [grid.name for grid in found.grids] == ["One step"]
    assert found.remarks == (f"Whole run {fmt.NOT_ASKED}.",)


def test_assumptions_name_the_candidates_they_are_about():
    other = small(ledger=[ledger()[1] | {"text": "fitted to another"}])
    found = comparison.comparison_of([("a", small()), ("b", other)]).assumptions
    assert found[0].text == "a: priced from its datasheet; alike for b"
    assert found[1].text == "a: grid of Freedonia, 2024"


def test_a_shared_command_is_shown_once():
    shown = render_comparison([("a", small()), ("b", small())], "table", width=200)
    assert shown.count("--hardware acme-x1") == 1


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("answers", [[], [("a", "refused")], [("a", small())]])
def test_a_comparison_of_few_still_renders(form, answers):
    assert render_comparison(answers, form)


# Many candidates

LONG = "nvidia-rtx-pro-6000-blackwell-server"  # 36 letters, the longest name of a profile
SPEEDS = {
    "mid": 3_000.0,
    "slow": 200.0,
    LONG: 8_000.0,
    "small-fast": 9_000.0,
    "small-slow": 50.0,
    "odd": 70.0,
}
WIDTHS = [50, 80, 100, 140, 200]


def remembered(which):
    text = f"acme-x1: figures from memory, not checked against a source: {which}"
    return [*ledger(), {"topic": "profile", "text": text, "share": None, "advice": "check acme-x1"}]


def crowd(**changes):
    """Seven candidates in no order: four that fit, two that do not, one that was refused."""
    rows = [("chip", "chip cannot train: analog memory; use --mode infer\nsee others")]
    for label, speed in SPEEDS.items():
        own = {"step__tokens_per_s": rng(speed), "step__fits": not label.startswith("small")}
        own["ledger"] = remembered("memory; 1 that no answer rests on") if label == "slow" else ledger()
        own["ledger"] = remembered("2 that no answer rests on") if label == "odd" else own["ledger"]
        rows.append((label, small(**{**own, **changes})))
    return rows


RANKED = [LONG, "mid", "slow", "odd", "small-fast", "small-slow", "chip"]


def ranked_rows(form, rows):
    """Cells of the candidates' rows, in the order shown; a marked name without its mark."""
    shown = render_comparison(rows, form, width=300)
    if form == "html":
        found = [[" ".join(cell.split()) for cell in row] for row in Page(shown).rows]
    elif form == "markdown":
        lines = [line for line in shown.splitlines() if line.startswith("|")]
        found = [[re.sub(r"\\(.)", r"\1", c.strip()) for c in re.split(r"(?<!\\)\|", x)[1:-1]] for x in lines]
    else:
        found = [re.split(r" {2,}", line) for line in shown.splitlines()]
    labels = {label for label, _ in rows}
    cleaned = [[row[0].rstrip("* "), *row[1:]] for row in found if row]
    return [row for row in cleaned if row[0] in labels]


@pytest.mark.parametrize("form", HUMAN)
def test_many_candidates_are_ranked_those_that_do_not_fit_after_those_that_do(form):
    assert [row[0] for row in ranked_rows(form, crowd())] == RANKED


@pytest.mark.parametrize("form", HUMAN)
def test_few_candidates_stay_side_by_side(form):
    words = "Candidates, fastest first"
    assert words in render_comparison(crowd(), form)
    assert words not in render_comparison(crowd()[:6], form)


@pytest.mark.parametrize("form", HUMAN)
def test_every_figure_of_the_ranked_table_is_the_json_number_rounded(form):
    rows = dict(crowd())
    keys = ["step.tokens_per_s", "step.time_s", "step.peak_memory_bytes.device", "step.accelerator_power_w"]
    keys += ["run.time_s.wall", "run.energy_kwh.facility", "run.carbon_kgco2e.total", "run.cost_usd"]
    sizes = [1, 1, GIGA, 1, MINUTE, 1, 1, 1]  # tokens/s by their middle one of six, 200
    for label, *cells in ranked_rows(form, crowd())[:-1]:
        del cells[3]  # the capacity, a fact of the profile
        for key, size, cell in zip(keys, sizes, cells, strict=False):
            expected = at(rows[label], key)
            mid, low, high = re.fullmatch(r"([\d.,]+) \(([\d.,]+)-([\d.,]+)\)", cell).groups()
            for found, end in ((mid, "mid"), (low, "low"), (high, "high")):
                assert float(found.replace(",", "")) * size == pytest.approx(expected[end], rel=0.05), key


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("changes", [{}, {"run": None}, {"step__tokens_per_s": None}])
def test_a_candidate_has_one_line_and_its_name_in_one_piece(width, changes):
    lines = render_comparison(crowd(**changes), "table", width=width).splitlines()
    assert max(map(cell_len, lines)) <= width
    table = lines[lines.index("Candidates, fastest first") :]
    for label in RANKED:
        assert len([line for line in table if re.match(rf"{label}[* ]", line)]) == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_what_a_narrow_terminal_leaves_out_is_named(width):
    shown = render_comparison(crowd(), "table", width=width)
    head, rest = shown.partition("Candidates, fastest first")[2].split("Fits in memory")
    named = re.search(r"Left out for want of room: (.*?)\. See", rest.replace("\n", " "))
    left_out = named.group(1) if named else ""
    for name in ("tokens/s", "time", "memory", "power", "run", "energy", "carbon", "cost"):
        assert name in head or name in left_out, (width, name)
    assert bool(left_out) == (width < 200)


def test_who_rests_on_figures_from_memory_is_marked():
    found = many.many_of(crowd())
    entries = [entry for part in found.parts for entry in part.entries]
    assert [entry.label for entry in entries if entry.marked] == ["slow"]
    assert any(words.startswith("* ") and "(1)" in words for words in found.remarks)


def test_the_parts_of_the_table_are_counted():
    found = many.many_of(crowd())
    assert found.counts == "7 candidates: 4 fit, 2 do not fit, 1 not priced."
    assert [len(part.entries) for part in found.parts] == [4, 2]


def test_the_best_of_many_is_among_those_that_fit():
    fastest = many.many_of(crowd()).findings[0]
    assert fastest.value.startswith(f"{LONG}: 8.0 thousand tokens/s")
    assert fastest.note.startswith("next mid: 3.0 thousand tokens/s")


@pytest.mark.parametrize("form", HUMAN)
def test_a_refused_one_of_many_has_a_short_reason_and_json_the_whole(form):
    shown = render_comparison(crowd(), form, width=140)
    assert "cannot train: analog memory" in shown
    assert "use --mode infer" not in shown
    assert "see others" in json.loads(render_comparison(crowd(), "json"))["candidates"][0]["refusal"]


def test_json_keeps_the_order_given_however_many():
    made = json.loads(render_comparison(crowd(), "json"))
    assert [row["label"] for row in made["candidates"]] == [label for label, _ in crowd()]


def test_the_peak_stands_beside_the_capacity():
    rows = crowd(machine__memory_bytes=80e9)
    cells = {tuple(row[3:5]) for row in ranked_rows("markdown", rows)[:-1]}
    assert cells == {("36.0 (29-54)", "80.0")}


def test_a_figure_that_is_lacking_says_so():
    rows = crowd()
    rows[1] = ("mid", small(run__cost_usd=None, step__accelerator_power_w=None))
    cells = {row[0]: row for row in ranked_rows("markdown", rows)}
    assert cells["mid"].count(many.ABSENT) == 3  # power and cost, and no answer here has a capacity
    assert "- not known" in render_comparison(rows, "table")


def test_a_place_that_all_share_is_said_once():
    rows = [(f"{label} / FR", answer) for label, answer in crowd()]
    shown = render_comparison(rows, "table")
    assert shown.count("/ FR") == 1
    rows[0] = ("chip / PL", rows[0][1])
    assert render_comparison(rows, "table").count("/ FR") > len(SPEEDS)


def test_what_all_assume_is_said_once_and_the_rest_counted():
    lines = {entry.topic: entry for entry in many.many_of(crowd()).assumptions}
    assert lines["grid"].text == "all: grid of Freedonia, 2024"
    assert lines["profile"].text.startswith("slow, odd: it: figures from memory")
    assert lines["profile"].text.endswith("(other words or figures for 1 of them)")
    topics = [entry.topic for entry in many.many_of(crowd()).assumptions]
    assert topics[:3] == ["efficiency", "grid", "PUE"]  # shares 1, 0.4 and 0.23


@pytest.mark.parametrize("form", HUMAN)
def test_many_refused_candidates_still_render(form):
    assert "not priced" in render_comparison([(f"x{n}", "no") for n in range(9)], form)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_never_breaks_the_ranked_table(name):
    rows = [*crowd(), (name, everywhere(name)), (f"{name} refused", name)]
    page = Page(render_comparison(rows, "html"))
    assert set(page.tags) <= set(Page(render_comparison([*crowd(), ("a", small())], "html")).tags)
    drawn = (
        MarkdownIt("commonmark", {"html": True}).enable(["table"]).render(render_comparison(rows, "markdown"))
    )
    assert {len(row) for row in Page(drawn).rows} <= {2, 3, 4, 11}
    for width in (50, 100):
        shown = render_comparison(rows, "table", width=width)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", shown)
        assert max(map(cell_len, shown.splitlines())) <= width


def test_the_width_of_a_pipe_is_that_of_columns(monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "132")
    assert asked_width(None) == 132
    assert asked_width(tmp_path / "out.txt") is None
    for wrong in ("", "wide", "0", "-3"):
        monkeypatch.setenv("COLUMNS", wrong)
        assert asked_width(None) is None


# The schema


def test_the_schema_file_is_current():
    assert (REFERENCE / "estimate.schema.json").read_text() == text()


def test_answers_are_valid(real):
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    for answer in (small(), small(run=None), small(**UNKNOWN), *real):
        check.validate(json.loads(render(answer, "json")))
    assert real[0].run is not None
    assert real[1].run is None


def test_a_key_too_few_is_invalid_and_one_of_a_later_version_is_not():
    check = jsonschema.Draft202012Validator(json_schema())
    value = small().to_dict()
    check.validate(value | {"new_in_schema_1_1": 3})
    del value["step"]["mfu"]
    with pytest.raises(jsonschema.ValidationError, match="mfu"):
        check.validate(value)


def keys(schema, node, prefix=""):
    """Dotted keys of every leaf; a range counts as one, a list has ``[]`` behind its name."""
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        if name == "Range":
            return {prefix}
        return keys(schema, schema["$defs"][name], prefix)
    if "anyOf" in node:
        return set().union(
            *(keys(schema, part, prefix) for part in node["anyOf"] if part != {"type": "null"})
        )
    if node.get("type") == "array" and "$ref" in node["items"]:
        return keys(schema, node["items"], f"{prefix}[]")
    if "properties" not in node:
        return {prefix}
    below = [keys(schema, part, f"{prefix}.{name}".lstrip(".")) for name, part in node["properties"].items()]
    return set().union(*below)


def test_the_reference_explains_every_key_and_no_other():
    page = (REFERENCE / "json.md").read_text()
    explained = set(re.findall(r"^\| `([\w.\[\]]+)` \|", page, re.MULTILINE))
    schema = json_schema()
    known = keys(schema, schema)
    assert known <= explained
    parents = {"run", "run.energy_kwh", "run.carbon_kgco2e", "run.water_l", "ledger"}
    assert explained - known <= parents
    for line in page.splitlines():
        assert not line.startswith("| `") or line.count("|") == 5, line


# Golden files: rendered text of the hand-built answer, to be reviewed as a diff

GOLDENS = {
    "estimate-80.txt": lambda: render(small(), "table"),
    "estimate-120.txt": lambda: render(small(), "table", width=120),
    "estimate-no-run.txt": lambda: render(small(run=None), "table"),
    "estimate.md": lambda: render(small(), "markdown"),
    "comparison-80.txt": lambda: render_comparison(candidates(), "table"),
    "comparison.md": lambda: render_comparison(candidates(), "markdown"),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_rendered_text_is_as_reviewed(name):
    path = GOLDEN / name
    if os.environ.get("PREDICTOR_REFRESH_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(GOLDENS[name](), encoding="utf-8")
    assert GOLDENS[name]() == path.read_text(encoding="utf-8")


def test_every_golden_file_has_its_test():
    assert {path.name for path in GOLDEN.iterdir()} == set(GOLDENS)
