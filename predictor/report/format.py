"""Numbers as people read them: two digits, a unit that suits the size, a range in brackets.

Pure functions from numbers in base units to text. Plain ASCII, so that no terminal garbles it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from predictor.answer import Range
from predictor.units import DAY, GIGA, HOUR, KILO, MEGA, MINUTE, PETA, TERA, YEAR

NOT_ASKED = "not asked: give --steps, --samples, --tokens or --epochs"
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Rung:
    """A unit, its size in the unit of the input, and the least value written in it."""

    unit: str
    size: float
    start: float = 0.0


Ladder = tuple[Rung, ...]

SECONDS: Ladder = (
    Rung("us", 1e-6),
    Rung("ms", 1e-3, 1e-3),
    Rung("s", 1.0, 0.1),
    Rung("min", MINUTE, 2 * MINUTE),
    Rung("h", HOUR, 2 * HOUR),
    Rung("days", DAY, 2 * DAY),
    Rung("years", YEAR, 2 * YEAR),
)
BYTES: Ladder = (
    Rung("byte", 1.0),
    Rung("kB", KILO, KILO),
    Rung("MB", MEGA, MEGA),
    Rung("GB", GIGA, GIGA),
    Rung("TB", TERA, TERA),
    Rung("PB", PETA, PETA),
)
KWH: Ladder = (
    Rung("Wh", 1e-3),
    Rung("kWh", 1.0, 1.0),
    Rung("MWh", KILO, KILO),
    Rung("GWh", MEGA, MEGA),
    Rung("TWh", GIGA, GIGA),
)
JOULE: Ladder = (Rung("J", 1.0), Rung("kJ", KILO, KILO), Rung("MJ", MEGA, MEGA), Rung("GJ", GIGA, GIGA))
WATT: Ladder = (Rung("W", 1.0), Rung("kW", KILO, KILO), Rung("MW", MEGA, MEGA))
KG: Ladder = (Rung("g", 1e-3), Rung("kg", 1.0, 1.0), Rung("t", KILO, KILO))
LITRE: Ladder = (Rung("ml", 1e-3), Rung("l", 1.0, 1.0), Rung("m3", KILO, 10 * KILO))
PERCENT: Ladder = (Rung("%", 0.01),)
USD: Ladder = (
    Rung("$", 1.0),
    Rung("$ million", MEGA, MEGA),
    Rung("$ billion", GIGA, GIGA),
)
PLAIN: Ladder = (
    Rung("", 1.0),
    Rung("thousand", KILO, 100 * KILO),
    Rung("million", MEGA, MEGA),
    Rung("billion", GIGA, GIGA),
)


def significant(value: float, digits: int = 2) -> str:
    """``value`` with so many significant digits, never with an exponent between 1e-6 and 1e15.

    >>> [significant(x) for x in (0.01803, 3.0, 9.96, 3548.7, 0, -41.2)]
    ['0.018', '3.0', '10', '3,500', '0', '-41']
    """
    if value == 0:
        return "0"
    rounded = f"{value:.{digits - 1}e}"
    if not 1e-6 <= abs(value) < 1e15:
        return rounded
    return f"{Decimal(rounded):,f}"


def rung_for(value: float, ladder: Ladder) -> Rung:
    """The unit in which ``value`` reads best.

    >>> rung_for(1800.0, SECONDS).unit, rung_for(0.0667, KWH).unit
    ('min', 'Wh')
    """
    size = abs(float(f"{value:.1e}"))
    return [rung for rung in ladder if rung.start <= size or rung is ladder[0]][-1]


def with_unit(number: str, unit: str) -> str:
    """Number and unit; money carries its sign in front.

    >>> with_unit("0.17", "s"), with_unit("12", "$ million"), with_unit("12", "")
    ('0.17 s', '$12 million', '12')
    """
    if unit.startswith("$"):
        return f"${number}{unit[1:]}"
    return f"{number} {unit}".rstrip()


def quantity(value: float, ladder: Ladder, digits: int = 2) -> str:
    """One number in its unit.

    >>> quantity(0.0036579, SECONDS), quantity(42.0, USD), quantity(5546527104, BYTES, 3)
    ('3.7 ms', '$42', '5.55 GB')
    """
    rung = rung_for(value, ladder)
    return with_unit(significant(value / rung.size, digits), rung.unit)


def interval(found: Range, size: float = 1.0) -> str:
    """Low and high in brackets, or nothing when the range is a point.

    >>> interval(Range(low=0.1204, mid=0.17, high=0.2531)), interval(Range(low=2, mid=2, high=2))
    ('(0.12-0.25)', '')
    """
    if found.low == found.high:
        return ""
    to = " to " if found.low < 0 else "-"
    return f"({significant(found.low / size)}{to}{significant(found.high / size)})"


def in_rung(found: Range, rung: Rung) -> str:
    """A range as bare numbers of the rung's unit.

    >>> in_rung(Range(low=0.12, mid=0.17, high=0.25), Rung("ms", 1e-3))
    '170 (120-250)'
    """
    return f"{significant(found.mid / rung.size)} {interval(found, rung.size)}".rstrip()


def ranged(found: Range, ladder: Ladder, unit: str = "") -> str:
    """A range in the unit that suits its middle; ``unit`` is added to that of the ladder.

    >>> ranged(Range(low=0.12, mid=0.17, high=0.25), SECONDS)
    '0.17 s (0.12-0.25)'
    >>> ranged(Range(low=2.7e6, mid=3.5e6, high=4.5e6), PLAIN, "tokens/s")
    '3.5 million tokens/s (2.7-4.5)'
    """
    rung = rung_for(found.mid, ladder)
    number = with_unit(significant(found.mid / rung.size), f"{rung.unit} {unit}".strip())
    return f"{number} {interval(found, rung.size)}".rstrip()


_PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")


def _scaled(value: int, names: Sequence[str], separator: str) -> str:
    power = 0
    while abs(float(f"{value / KILO**power:.2e}")) >= KILO and power < len(names) - 1:
        power += 1
    return f"{significant(value / KILO**power, 3)}{separator}{names[power]}"


def count(value: int) -> str:
    """An exact count: whole below a million, else three digits.

    >>> count(122_071), count(25_557_032), count(8_030_261_248)
    ('122,071', '25.6 million', '8.03 billion')
    """
    if abs(value) < MEGA:
        return f"{value:,}"
    return _scaled(value, ("", "thousand", "million", "billion", "trillion"), " ")


def flop(value: int) -> str:
    """A count of flop.

    >>> flop(1_555_140_968_448), flop(0)
    ('1.56 Tflop', '0 flop')
    """
    if value == 0:
        return "0 flop"
    return f"{_scaled(value, _PREFIXES, ' ')}flop"


def size(value: int) -> str:
    """A count of bytes, in powers of 1000.

    >>> size(5_546_527_104), size(0)
    ('5.55 GB', '0 byte')
    """
    return quantity(value, BYTES, 3)


def share(part: float) -> str:
    """A part of a whole in percent.

    >>> share(0.2028), share(0.0004), share(1.0), share(0.0)
    ('20 %', '< 0.1 %', '100 %', '0 %')
    """
    if 0 < part < 0.0005:
        return "< 0.1 %"
    return f"{100 * part:.0f} %" if part == 0 or part >= 0.0995 else f"{100 * part:.1f} %"


def listed(names: Iterable[str], most: int = 5, comma: str = ", ") -> str:
    """Names in a sentence, the rest counted.

    >>> listed(["a", "b", "c"], most=2), listed(["a"])
    ('a, b and 1 more', 'a')
    """
    found = list(names)
    rest = len(found) - most
    return comma.join(found[:most]) + (f" and {rest} more" if rest > 0 else "")


def plain(text: str) -> str:
    """Text from outside on one line, every control or invisible character spelled out.

    >>> plain("a\\x1b[31mb\\n c")
    'a\\\\x1b[31mb c'
    """
    joined = re.sub(r"\s+", " ", text).strip()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in joined)


def clipped(text: str, most: int) -> str:
    """At most so many characters, cut between words.

    >>> clipped("one two three", 10), clipped("one two", 10)
    ('one two ...', 'one two')
    """
    if len(text) <= most:
        return text
    cut = text[: most + 1].rpartition(" ")[0] or text[:most]
    return cut.rstrip(",;: ") + " ..."


def shortened(text: str, most: int) -> str:
    """At most so many characters, cut in the middle: both ends tell names apart.

    >>> shortened("nvidia-h100-sxm5-80gb", 13)
    'nvidi...-80gb'
    """
    if len(text) <= most:
        return text
    kept = most - 3
    return text[: kept - kept // 2] + "..." + text[-(kept // 2) :]
