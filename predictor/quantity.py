"""Numbers as data files hold them: a value with unit, source, date, status and range, read strictly."""

import datetime
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from predictor.errors import InputError
from predictor.units import to_base
from predictor.values import Sourced

Text = Annotated[str, Field(min_length=1)]
Day = datetime.date | Annotated[str, Field(pattern=r"^\d{4}(-\d{2})?$")]


SHIPPED = "2026-11-20"
"""Newest date of the shipped data: a clock that says less is slow, and no reason to refuse them."""


def check_past(day: datetime.date | str, where: str) -> None:
    """Raise InputError when a date (a day, "2026-11" or "2026") lies in the future."""
    today = max(str(datetime.date.today()), SHIPPED)
    if str(day) > today[: len(str(day))]:
        raise InputError(f"{where} is {day}, in the future; accepted: up to today, {today}")


class Table(BaseModel):
    """A table of a data file: unknown keys and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Quantity(Table):
    """A number as its source prints it."""

    value: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    unit: str = ""
    source: Text
    as_of: Day
    status: Literal["verified", "derived", "from memory", "estimate"]
    low: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    high: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    sparse: bool | None = None
    note: Text | None = None


class Remark(Table):
    """What every answer must tell."""

    topic: Text
    text: Text
    advice: str = ""


def sourced(quantity: Quantity, dimension: str, where: str, share: float = 1.0) -> Sourced:
    """``quantity`` in base units times ``share``, its rules checked; InputError says ``where``."""
    check_past(quantity.as_of, f"{where}: as_of")
    if (quantity.low is None) != (quantity.high is None):
        raise InputError(f"{where}: low and high belong together; give both")
    low = quantity.value if quantity.low is None else quantity.low
    high = quantity.value if quantity.high is None else quantity.high
    if quantity.sparse:
        raise InputError(f"{where}: sparse is true; give the dense figure, half of a 2:4 sparse headline")
    if not low <= quantity.value <= high:
        raise InputError(f"{where}: low {low} <= value {quantity.value} <= high {high} does not hold")
    if quantity.status == "estimate" and not low < high:
        raise InputError(f"{where}: an estimate carries a range; give low and high")
    value, low, high = (
        share * to_base(x, quantity.unit, dimension, where) for x in (quantity.value, low, high)
    )
    return Sourced(value, low, high, quantity.source, str(quantity.as_of), quantity.status)


def scaled(number: Sourced, factor: float) -> Sourced:
    """``number`` and its range times ``factor``."""
    return replace(number, value=number.value * factor, low=number.low * factor, high=number.high * factor)


def read_toml(path: Path, text: str | None = None) -> dict[str, Any]:
    """The content of a TOML file, or of ``text`` taken from it; InputError when it is not valid."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8") if text is None else text)
    except FileNotFoundError:
        raise InputError(f"no profile file '{path}'; known names: predictor hardware list") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None


def explain(error: ValidationError, where: str, readme: str) -> str:
    """One fault of a file, unknown keys first because they explain missing ones: file, key, rule."""
    faults = error.errors(include_url=False)
    fault = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    path = [str(part) for part in fault["loc"]]
    key = ".".join(path)
    if fault["type"] == "extra_forbidden":
        inside = ".".join(path[:-1]) or "the top level"
        return f"{where}: unknown key '{key}': {inside} does not take it; see {readme}"
    if fault["type"] == "missing":
        return f"{where}: '{key}' is missing"
    return f"{where}: '{key}' is {fault['input']!r}: {fault['msg'].lower()}"
