"""Columns of measured kernels as arrays, read once."""

import csv
import gzip
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from predictor.errors import InputError
from predictor.values import Array

Text = npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Columns:
    """Some rows of a table, by column: numbers [rows], nan for an empty cell, and texts."""

    number: Mapping[str, Array]
    text: Mapping[str, Text]
    rows: int

    def __getitem__(self, name: str) -> Array:
        return self.number[name]

    def where(self, keep: npt.NDArray[Any]) -> "Columns":
        """The rows that a mask or a list of places keeps."""
        number = {name: column[keep] for name, column in self.number.items()}
        text = {name: column[keep] for name, column in self.text.items()}
        return Columns(number, text, len(next(iter((*number.values(), *text.values())))))


def from_rows(rows: Sequence[Mapping[str, str]], numbers: Iterable[str], texts: Iterable[str]) -> Columns:
    """Columns of rows read before; a cell that is no number becomes nan."""
    return Columns(
        {name: _floats([row[name] for row in rows]) for name in numbers},
        {name: np.array([row[name] for row in rows], dtype=str) for name in texts},
        len(rows),
    )


def read_columns(path: Path, numbers: Iterable[str], texts: Iterable[str]) -> Columns:
    """Columns of a ``.csv`` or ``.csv.gz`` file; InputError when it cannot be read or lacks one."""
    opened = gzip.open if path.name.endswith(".gz") else open
    try:
        with opened(path, "rt", encoding="utf-8", newline="") as file:
            header, *lines = csv.reader(file)
    except (OSError, EOFError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table: {error}") from None
    missing = [name for name in (*numbers, *texts) if name not in header]
    if missing:
        raise InputError(f"{path}: lacks the columns {', '.join(missing)}; found: {', '.join(header)}")
    found = dict(zip(header, zip(*lines, strict=True), strict=True))
    return Columns(
        {name: _floats(found[name]) for name in numbers},
        {name: np.array(found[name], dtype=str) for name in texts},
        len(lines),
    )


def _floats(cells: Sequence[str]) -> Array:
    try:
        return np.array([cell or "nan" for cell in cells], dtype=np.float64)
    except ValueError:
        return np.array([_number(cell) for cell in cells])


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def sha256(paths: Iterable[Path]) -> str:
    """Digest over the bytes of all files, in the given order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
