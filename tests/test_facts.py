"""The reader of fact tables: one contract over every row of every table, and every refusal."""

import dataclasses
import re
from pathlib import Path

import pytest

from predictor import embodied, equivalences, facts, rent, world, zones
from predictor.errors import InputError
from predictor.facts import DATA, FACT_COLUMNS, Rule, Table, read_facts
from predictor.units import GRAM, KWH, UNITS
from predictor.values import STATUSES

TABLES = (
    world.GRIDS,
    world.WATER,
    world.FACILITIES,
    rent.PRICES,
    embodied.EMBODIED,
    equivalences.EQUIVALENCES,
)
LICENCES = {
    "facts",
    "public domain",
    "CC BY 4.0",
    "MIT",
    "Apache-2.0",
    "MPL-2.0",
    "OGL 3.0",
}
README = (DATA / "README.md").read_text(encoding="utf-8")


# --- every table, every row --------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.file)
def test_every_row_keeps_the_contract(table):
    """Reading refuses what breaks a rule of the table; this holds what the reader cannot know."""
    for fact in read_facts(table):
        number, where = fact.number, f"{table.file}: {list(fact.keys.values())}"
        assert number.low <= number.value <= number.high, where
        assert "2009" <= number.as_of <= "2026-12", where
        assert number.status in STATUSES, where
        assert fact.licence in LICENCES, where
        assert len(number.source) >= 3, where
        assert number.source == number.source.strip(), where


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.file)
def test_every_rule_is_used_and_its_unit_known(table):
    assert {fact["quantity"] for fact in read_facts(table)} == set(table.rules)
    assert all(rule.unit in UNITS for rule in table.rules.values())
    assert "quantity" in table.keys


def test_figures_keep_their_unit():
    germany = next(f for f in read_facts(world.GRIDS) if f["zone"] == "de" and f["method"] == "life-cycle")
    line = next(line for line in (DATA / "grids.csv").read_text().splitlines() if line.startswith("de,"))
    assert germany.number.value == pytest.approx(float(line.split(",")[4]) * GRAM / KWH)


def test_every_data_file_is_a_table_or_says_what_it_is():
    known = {table.file for table in TABLES} | {zones.FILE}
    assert {path.name for path in DATA.glob("*.csv")} == known


def test_nothing_comes_from_tables_we_may_not_ship():
    """Electricity Maps and Boavizta are AGPL-3.0, TechPowerUp forbids copies of its tables."""
    for path in DATA.glob("*.csv"):
        text = path.read_text(encoding="utf-8").casefold().replace(" ", "")
        rows = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
        for name in ("electricity" + "maps", "boavizta", "techpowerup"):
            assert name not in rows, f"{path.name}: {name}"


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.file)
def test_every_column_and_quantity_is_explained(table):
    section = README.split(f"## {table.file}")[1].split("\n## ")[0]
    for word in (*table.keys, *table.rules):
        assert f"`{word}`" in section, f"{table.file}: {word}"
    common = README.split("## Columns of every table of facts")[1].split("\n## ")[0]
    assert all(f"`{column}`" in common for column in FACT_COLUMNS)


def test_the_readme_counts_the_facts():
    counted: dict[str, int] = {}
    for file, number in re.findall(r"^\| `(\w+\.csv)`[^|]*\| (\d+) \|", README, re.MULTILINE):
        counted[file] = counted.get(file, 0) + int(number)
    assert counted == {table.file: len(read_facts(table)) for table in TABLES}


def test_licences_and_attribution_are_given():
    assert "Data by Ember" in README
    header = (DATA / "grids.csv").read_text(encoding="utf-8").split("\nzone,")[0]
    assert "CC BY 4.0" in header


# --- refusals ----------------------------------------------------------------------------------------

TABLE = Table("trees.csv", ("tree", "quantity"), {"carbon intensity": Rule("gCO2e/kWh", 0.1, 3000)})
GOOD = {
    "tree": "oak",
    "quantity": "carbon intensity",
    "value": "50",
    "low": "40",
    "high": "60",
    "unit": "gCO2e/kWh",
    "as_of": "2025",
    "source": "somewhere",
    "licence": "facts",
    "status": "verified",
    "note": "",
}


def written(folder: Path, *rows: dict[str, str]) -> Path:
    lines = [",".join(GOOD), *(",".join(row.values()) for row in rows)]
    (folder / TABLE.file).write_text("# a comment, with a comma\n" + "\n".join(lines) + "\n")
    return folder


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as refusal:
        read_facts(TABLE, folder)
    return str(refusal.value)


def test_a_good_row_is_read(tmp_path):
    (fact,) = read_facts(TABLE, written(tmp_path, GOOD))
    assert fact["tree"] == "oak"
    assert fact.number.value == pytest.approx(50 * GRAM / KWH)
    assert fact.number.high == pytest.approx(60 * GRAM / KWH)
    assert (fact.number.source, fact.number.as_of, fact.licence) == ("somewhere", "2025", "facts")


def test_a_figure_without_range_is_a_point(tmp_path):
    (fact,) = read_facts(TABLE, written(tmp_path, GOOD | {"low": "", "high": ""}))
    assert fact.number.certain


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": "55"}, "low 55 <= value 50 <= high 60 does not hold"),
        ({"high": "45"}, "low 40 <= value 50 <= high 45 does not hold"),
        ({"value": "-5", "low": "-9", "high": "-1"}, "value is -5: a negative figure is impossible"),
        (
            {"value": "-5"},
            "value is -5: a negative figure is impossible for 'carbon intensity', accepted: 0.1",
        ),
        ({"value": "-5", "low": "", "unit": "kg", "source": ""}, "value is -5: a negative figure"),
        (
            {"high": "-inf", "quantity": "carbon"},
            "high is -inf: a negative figure is impossible for 'carbon'",
        ),
        ({"low": "-1"}, "impossible for 'carbon intensity', accepted: 0.1 to 3000 gCO2e/kWh"),
        ({"value": "0", "low": "0", "high": "0"}, "0 to 0 is impossible"),
        ({"high": "9000"}, "impossible"),
        ({"low": "nan"}, "must be finite"),
        ({"value": "inf", "high": "inf"}, "must be finite"),
        ({"low": ""}, "low and high belong together"),
        ({"value": "fifty"}, "value 'fifty', low '40', high '60': not numbers"),
        ({"value": ""}, "value ''"),
        ({"unit": "kg"}, "unknown unit 'kg', accepted for 'carbon intensity': 'gCO2e/kWh'"),
        ({"quantity": "carbon"}, "unknown quantity 'carbon'"),
        ({"tree": ""}, "tree is empty"),
        ({"source": ""}, "source is missing"),
        ({"licence": ""}, "licence is missing"),
        ({"status": ""}, "status is '', accepted: verified"),
        ({"status": "sure"}, "status is 'sure'"),
        ({"as_of": "last year"}, "as_of is 'last year', accepted: 2026"),
        ({"status": "estimate", "low": "", "high": ""}, "an estimate carries a range"),
    ],
)
def test_a_faulty_row_is_refused_with_file_key_and_rule(tmp_path, change, message):
    text = refused(written(tmp_path, GOOD | change))
    assert message in text
    row = GOOD | change
    assert text.startswith(f"trees.csv: {' / '.join(row[k] for k in ('tree', 'quantity') if row[k])}")


def test_a_fact_given_twice_is_refused(tmp_path):
    text = refused(written(tmp_path, GOOD, GOOD | {"value": "51"}))
    assert text == "trees.csv: oak / carbon intensity: the same fact twice"


def test_two_years_are_two_facts_of_a_dated_table(tmp_path):
    folder = written(tmp_path, GOOD, GOOD | {"as_of": "2024"})
    assert "twice" in refused(folder)
    assert len(read_facts(dataclasses.replace(TABLE, dated=True), folder)) == 2


def test_an_unknown_column_is_refused(tmp_path):
    (tmp_path / TABLE.file).write_text(",".join(GOOD).replace("note", "colour") + "\n")
    assert refused(tmp_path).startswith("trees.csv: columns differ in colour, note; accepted: tree, quantity")


def test_columns_in_another_order_are_refused(tmp_path):
    (tmp_path / TABLE.file).write_text(",".join(reversed(GOOD)) + "\n")
    assert "columns differ in their order" in refused(tmp_path)


def test_a_comma_too_many_is_refused(tmp_path):
    written(tmp_path, GOOD | {"source": "here, and there"})
    assert refused(tmp_path) == "trees.csv: line 3: 12 cells for 11 columns; quote commas in texts"


def test_a_missing_file_is_refused(tmp_path):
    assert refused(tmp_path).startswith("trees.csv: cannot be read")


def test_data_lies_in_the_package():
    assert Path(facts.__file__).with_name("data") == DATA
