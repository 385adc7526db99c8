"""Tables of facts: one row one fact, read strictly.

A fact is a value with range, unit, date, source, licence, status and note, under the key columns of its
table. Every table is read whole and checked whole, so that a faulty row is found wherever it stands; the
rows stay in memory afterwards. ``data/README.md`` explains tables and columns.
"""

import csv
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from predictor.errors import InputError, did_you_mean
from predictor.units import UNITS
from predictor.values import STATUSES, Sourced

DATA = Path(__file__).with_name("data")

Row = dict[str, str]

FACT_COLUMNS = ("value", "low", "high", "unit", "as_of", "source", "licence", "status", "note")
"""Columns that every table of facts has after its own."""

_DATE = re.compile(r"^\d{4}(-\d{2}(-\d{2})?)?$")
_NEGATIVE = re.compile(r"^\s*-\s*[0-9.]*[1-9]|^\s*-\s*inf", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Rule:
    """What a quantity may be: its unit, and the smallest and largest figure that is possible at all."""

    unit: str
    least: float
    most: float


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One file of facts; each is itself alone, so that what was read is kept by table.

    keys   columns that name a fact; the first is its subject, one is ``quantity``
    rules  quantity -> what it may be
    dated  two rows of one key are two facts when their ``as_of`` differs
    """

    file: str
    keys: tuple[str, ...]
    rules: dict[str, Rule]
    dated: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns of the file in their order."""
        return self.keys + FACT_COLUMNS


@dataclass(frozen=True, slots=True)
class Fact:
    """One row: the key columns, the number in base units, and the terms under which it is passed on."""

    keys: Row
    number: Sourced
    unit: str
    licence: str
    note: str

    def __getitem__(self, column: str) -> str:
        return self.keys[column]


def read_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, Row]]:
    """Line number and cells of every row; lines that start with # are comments.

    Raises InputError when the file cannot be read, its columns are not ``columns``, or a row has more or
    fewer cells.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name}: cannot be read: {error}") from None
    lines = csv.reader("" if line.startswith("#") else line for line in text.splitlines())
    header = next((cells for cells in lines if cells), [])
    if tuple(header) != columns:
        odd = ", ".join(sorted(set(header) ^ set(columns))) or "their order"
        raise InputError(f"{path.name}: columns differ in {odd}; accepted: {', '.join(columns)}")
    for cells in lines:
        if not cells:
            continue
        if len(cells) != len(columns):
            where = f"{path.name}: line {lines.line_num}"
            raise InputError(f"{where}: {len(cells)} cells for {len(columns)} columns; quote commas in texts")
        yield lines.line_num, dict(zip(columns, cells, strict=True))


@cache
def read_facts(table: Table, folder: Path = DATA) -> tuple[Fact, ...]:
    """All facts of a table, in the order of the file.

    Raises InputError with file, key of the row and rule when a row breaks a rule of the table or repeats
    a fact.
    """
    facts, seen = [], set()
    for _, row in read_rows(folder / table.file, table.columns):
        fact = _fact(table, row)
        key = (*fact.keys.values(), fact.number.as_of if table.dated else "")
        if key in seen:
            raise InputError(f"{_where(table, row)}: the same fact twice")
        seen.add(key)
        facts.append(fact)
    return tuple(facts)


def _fact(table: Table, row: Row) -> Fact:
    """The row as a fact, every rule checked."""
    _check_sign(table, row)
    rule = _rule(table, row)
    value, low, high = _numbers(table, row)
    if not low <= value <= high:
        raise InputError(
            f"{_where(table, row)}: low {low:g} <= value {value:g} <= high {high:g} does not hold"
        )
    if not (rule.least <= low and high <= rule.most):
        raise InputError(
            f"{_where(table, row)}: {low:g} to {high:g} is impossible for '{row['quantity']}', "
            f"accepted: {f'{rule.least:g} to {rule.most:g} {rule.unit}'.strip()}"
        )
    _check_origin(table, row, low < high)
    factor = UNITS[rule.unit][1]
    number = Sourced(value * factor, low * factor, high * factor, row["source"], row["as_of"], row["status"])
    return Fact({key: row[key] for key in table.keys}, number, rule.unit, row["licence"], row["note"])


def _check_sign(table: Table, row: Row) -> None:
    """Refuse a negative figure before anything else that may be wrong with the row."""
    for column in ("value", "low", "high"):
        if not _NEGATIVE.match(row[column]):
            continue
        rule = table.rules.get(row["quantity"])
        accepted = f", accepted: {f'{rule.least:g} to {rule.most:g} {rule.unit}'.strip()}" if rule else ""
        raise InputError(
            f"{_where(table, row)}: {column} is {row[column].strip()}: a negative figure is impossible for "
            f"'{row['quantity']}'{accepted}"
        )


def _rule(table: Table, row: Row) -> Rule:
    subject, quantity = row[table.keys[0]], row["quantity"]
    if not subject:
        raise InputError(f"{_where(table, row)}: {table.keys[0]} is empty")
    if quantity not in table.rules:
        near = did_you_mean(quantity, table.rules)
        accepted = ", ".join(table.rules)
        raise InputError(f"{_where(table, row)}: unknown quantity '{quantity}'{near}; accepted: {accepted}")
    rule = table.rules[quantity]
    if row["unit"] != rule.unit:
        raise InputError(
            f"{_where(table, row)}: unknown unit '{row['unit']}', accepted for '{quantity}': '{rule.unit}'"
        )
    return rule


def _numbers(table: Table, row: Row) -> tuple[float, float, float]:
    """Value, low and high; a figure without a range leaves both away."""
    cells = row["value"], row["low"] or row["value"], row["high"] or row["value"]
    try:
        value, low, high = map(float, cells)
    except ValueError:
        found = ", ".join(f"{name} '{row[name]}'" for name in ("value", "low", "high"))
        raise InputError(f"{_where(table, row)}: {found}: not numbers") from None
    if bool(row["low"]) != bool(row["high"]):
        raise InputError(f"{_where(table, row)}: low and high belong together; give both")
    if not math.isfinite(value + low + high):
        raise InputError(f"{_where(table, row)}: value, low and high must be finite")
    return value, low, high


def _check_origin(table: Table, row: Row, ranged: bool) -> None:
    check_source(_where(table, row), row)
    if not _DATE.match(row["as_of"]):
        raise InputError(
            f"{_where(table, row)}: as_of is '{row['as_of']}', accepted: 2026, 2026-11, 2026-11-20"
        )
    if row["status"] == "estimate" and not ranged:
        raise InputError(f"{_where(table, row)}: an estimate carries a range; give low and high")


def check_source(where: str, row: Row) -> None:
    """Refuse a row without source, licence, or a known status."""
    for column in ("source", "licence"):
        if not row[column]:
            raise InputError(f"{where}: {column} is missing")
    if row["status"] not in STATUSES:
        raise InputError(f"{where}: status is '{row['status']}', accepted: {', '.join(STATUSES)}")


def _where(table: Table, row: Row) -> str:
    """File and key of a row, for messages."""
    return f"{table.file}: {' / '.join(row[key] for key in table.keys if row[key])}"
