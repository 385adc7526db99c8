"""Read a configuration's fields: what is missing or impossible is refused by name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from predictor.errors import InputError, did_you_mean

MOST = 10**8
MOST_LAYERS = 10_000


class NoTemplateError(Exception):
    """The configuration asks for something no template spells; the real class can still be recorded."""


class Fields:
    """The fields of one configuration; the first of several names that is present counts."""

    def __init__(self, content: Mapping[str, Any], path: Path) -> None:
        self.content, self.path = content, path

    def refuse(self, name: str, wanted: str) -> InputError:
        """What a field holds and what would be accepted."""
        return InputError(f"{self.path}: '{name}' is {self.content.get(name)!r}; expected {wanted}")

    def size(self, *names: str, default: int | None = None, most: int = MOST, least: int = 1) -> int:
        """A whole number; required when there is no default."""
        name = self._present(names)
        if name is None:
            if default is None:
                near = did_you_mean(names[0], list(self.content))
                raise InputError(f"{self.path}: '{names[0]}' is missing{near}")
            return default
        value = self.content[name]
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.refuse(name, f"a whole number from {least} to {most}")
        return value

    def layers(self, *names: str) -> int:
        """How many blocks."""
        return self.size(*names, most=MOST_LAYERS)

    def optional_size(self, *names: str) -> int | None:
        """A whole number, None where absent or null."""
        return None if self._present(names) is None else self.size(*names)

    def size_or_none(self, name: str, default: int | None = None) -> int | None:
        """A whole number, None where it is null, the default where it is absent."""
        return default if name not in self.content else self.optional_size(name)

    def number_or_none(self, name: str, default: float) -> float:
        """A plain number, 0 where it is null, the default where it is absent."""
        return default if name not in self.content else self.number(name)

    def number(self, *names: str, default: float = 0.0) -> float:
        """A plain number."""
        name = self._present(names)
        if name is None:
            return default
        value = self.content[name]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refuse(name, "a number")
        return float(value)

    def share(self, *names: str, default: float = 0.0) -> float:
        """A number from 0 to 1."""
        value = self.number(*names, default=default)
        if not 0.0 <= value <= 1.0:
            raise self.refuse(self._present(names) or names[0], "a number from 0 to 1")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self.content.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.refuse(name, "true or false")
        return value

    def text(self, *names: str, default: str) -> str:
        """A word."""
        name = self._present(names)
        if name is None:
            return default
        if not isinstance(self.content[name], str):
            raise self.refuse(name, "a word")
        return str(self.content[name])

    def words(self, name: str) -> list[str] | None:
        """A list of words, None where absent."""
        value = self.content.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise self.refuse(name, "a list of words")
        return value

    def section(self, name: str) -> "Fields":
        """A configuration inside the configuration; empty where absent."""
        value = self.content.get(name) or {}
        if not isinstance(value, Mapping):
            raise self.refuse(name, "an object")
        return Fields(value, self.path)

    def _present(self, names: Sequence[str]) -> str | None:
        return next((n for n in names if self.content.get(n) is not None), None)

    def divides(self, part: int, whole: int, what: str) -> int:
        """whole / part, which must come out even."""
        if whole % part:
            raise InputError(f"{self.path}: {what}: {whole} cannot be divided by {part}")
        return whole // part

    def without(self, *names: str) -> None:
        """Leave configurations that switch one of these on to the real class."""
        for name in names:
            if self.content.get(name):
                raise NoTemplateError(f"'{name}' is {self.content[name]!r}")
