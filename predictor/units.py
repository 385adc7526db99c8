"""Base units, their multiples, and the one place where written quantities are read.

Inside the package every number is in base units: second, byte, flop, watt, joule, kg CO2e, litre,
US dollar. One multiply-add is 2 flop. A name carries its unit (``step_s``, ``weights_byte``).
Data files keep the figure and the unit as their source prints them; ``to_base`` converts.
"""

import re

from predictor.errors import InputError, did_you_mean

KILO, MEGA, GIGA, TERA, PETA, EXA = 1e3, 1e6, 1e9, 1e12, 1e15, 1e18
KIB, MIB, GIB = 2**10, 2**20, 2**30

MINUTE = 60.0
HOUR = 3600.0
DAY = 24 * HOUR
YEAR = 365 * DAY

WATT_HOUR = 3600.0
KWH = 1000 * WATT_HOUR
GRAM = 1e-3
BIT = 1 / 8

# unit as written in data files -> (dimension, factor to the base unit)
UNITS: dict[str, tuple[str, float]] = {
    "": ("number", 1.0),
    "billion": ("number", GIGA),
    "s": ("time", 1.0),
    "us": ("time", 1e-6),
    "ms": ("time", 1e-3),
    "h": ("time", HOUR),
    "year": ("time", YEAR),
    "byte": ("size", 1.0),
    "MB": ("size", MEGA),
    "GB": ("size", GIGA),
    "TB": ("size", TERA),
    "MiB": ("size", MIB),
    "GiB": ("size", GIB),
    "GB/s": ("byte rate", GIGA),
    "TB/s": ("byte rate", TERA),
    "PB/s": ("byte rate", PETA),
    "Gbit/s": ("byte rate", GIGA * BIT),
    "GFLOP/s": ("flop rate", GIGA),
    "TFLOP/s": ("flop rate", TERA),
    "PFLOP/s": ("flop rate", PETA),
    "TOP/s": ("operation rate", TERA),
    "POP/s": ("operation rate", PETA),
    "W": ("power", 1.0),
    "kW": ("power", KILO),
    "pJ/flop": ("energy per flop", 1e-12),
    "pJ/byte": ("energy per byte", 1e-12),
    "kgCO2e": ("carbon", 1.0),
    "kgCO2e/cm2": ("carbon per area", 1e4),
    "kgCO2e/GB": ("carbon per size", 1 / GIGA),
    "kWh/cm2": ("energy per area", KWH / 1e-4),
    "gCO2e/kWh": ("carbon per energy", GRAM / KWH),
    "l/kWh": ("water per energy", 1 / KWH),
    "USD": ("money", 1.0),
    "USD/h": ("money per time", 1 / HOUR),
    "mm2": ("area", 1e-6),
    "nm": ("length", 1e-9),
    "MHz": ("frequency", MEGA),
    "GHz": ("frequency", GIGA),
}


def to_base(value: float, unit: str, dimension: str, where: str) -> float:
    """``value`` in ``unit`` converted to the base unit of ``dimension``.

    Raises InputError when the unit is unknown or measures something else; ``where`` names the place.

    >>> to_base(400, "TFLOP/s", "flop rate", "peak")
    400000000000000.0
    """
    if unit not in UNITS:
        raise InputError(f"{where}: unknown unit '{unit}'{did_you_mean(unit, UNITS)}")
    found, factor = UNITS[unit]
    if found != dimension:
        accepted = ", ".join(sorted(u for u, (d, _) in UNITS.items() if d == dimension and u))
        raise InputError(f"{where}: '{unit}' measures {found}, needed {dimension}: {accepted}")
    return value * factor


_NUMBER = re.compile(r"^\s*([0-9][0-9_]*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+)\s*([kKMGBTP]?)\s*$")
_MULTIPLES = {"": 1.0, "k": KILO, "K": KILO, "M": MEGA, "G": GIGA, "B": GIGA, "T": TERA, "P": PETA}


def parse_count(text: str | int | float, what: str) -> int:
    """A whole positive count as people write it: ``20e9``, ``300B``, ``1_000``, ``1.5T``.

    >>> parse_count("1.5T", "tokens")
    1500000000000
    """
    if isinstance(text, str):
        match = _NUMBER.match(text)
        if not match:
            raise InputError(f"{what}: '{text}' is not a count; write 1000, 20e9, 300B or 1.5T")
        value = float(match[1].replace("_", "")) * _MULTIPLES[match[2]]
    else:
        value = float(text)
    if not (0 < value < 1e30) or value != int(value):
        raise InputError(f"{what}: {text} is not a whole number of at least 1")
    return int(value)
