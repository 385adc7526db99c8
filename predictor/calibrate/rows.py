"""Rows of a CSV file, plain or gzipped, and their cells as numbers."""

import csv
import gzip
import math
import re
from collections.abc import Mapping
from pathlib import Path

from predictor.calibrate.case import RowError
from predictor.errors import InputError

Row = Mapping[str, str]
_MULTIPLE = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}


def is_table(path: Path) -> bool:
    """Whether the name is that of a table this package reads."""
    return path.name.endswith((".csv", ".csv.gz"))


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Header and rows; raises InputError when the file is no readable CSV with a header."""
    opened = gzip.open if path.name.endswith(".gz") else open
    try:
        with opened(path, "rt", encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = [{key: value or "" for key, value in row.items() if key is not None} for row in reader]
            header = list(reader.fieldnames or [])
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table: {error}") from None
    if not header:
        raise InputError(f"{path}: empty; the first line names the columns")
    return header, rows


def number(row: Row, column: str) -> float | None:
    """A cell as a positive finite number, None when empty; RowError "value" for any other content."""
    text = row.get(column, "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise RowError("value", f"{column} is '{text}'") from None
    if not math.isfinite(value) or value <= 0:
        raise RowError("value", f"{column} is {text}")
    return value


def whole(row: Row, column: str) -> int | None:
    """A cell as a whole number of at least 1, None when empty."""
    value = number(row, column)
    if value is None:
        return None
    if value != int(value):
        raise RowError("value", f"{column} is {row[column]}, not a whole number")
    return int(value)


def parameter_count(text: str) -> tuple[float | None, float]:
    """A published count such as "88.59M" or "0.356B (derived)", and half of its last printed digit.

    >>> parameter_count("25.6M")
    (25600000.0, 50000.0)
    """
    match = re.match(r"\s*([0-9]+)(\.[0-9]*)?\s*([kKMBGT]?)(?![0-9A-Za-z])", text)
    if not match:
        return None, 0.0
    multiple = _MULTIPLE[match[3]]
    decimals = len(match[2] or ".") - 1
    return float(match[1] + (match[2] or "")) * multiple, 0.5 * 10.0**-decimals * multiple
