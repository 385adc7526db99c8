import pytest

from predictor.errors import InputError, did_you_mean
from predictor.units import GIB, KWH, TERA, UNITS, parse_count, to_base


def test_a_kilowatt_hour_is_3_6_megajoule():
    assert KWH == 3.6e6


def test_figures_convert_to_base_units():
    assert to_base(3.35, "TB/s", "byte rate", "x") == 3.35 * TERA
    assert to_base(80, "GiB", "size", "x") == 80 * 1024**3 == 80 * GIB
    assert to_base(400, "Gbit/s", "byte rate", "x") == 50e9
    assert to_base(36, "gCO2e/kWh", "carbon per energy", "x") == pytest.approx(0.036 / 3.6e6)


def test_a_unit_of_another_dimension_is_refused_with_the_accepted_ones():
    with pytest.raises(InputError, match=r"peak: 'W' measures power, needed flop rate: .*TFLOP/s"):
        to_base(1, "W", "flop rate", "peak")


def test_an_unknown_unit_is_refused_with_a_near_one():
    with pytest.raises(InputError, match="did you mean 'TFLOP/s'"):
        to_base(1, "TFLOPS/s", "flop rate", "peak")


@pytest.mark.parametrize(
    ("text", "count"),
    [("1000", 1000), ("20e9", 20_000_000_000), ("300B", 300 * 10**9), ("1.5T", 15 * 10**11), ("1_000", 1000)],
)
def test_counts_are_read_as_people_write_them(text, count):
    assert parse_count(text, "tokens") == count


@pytest.mark.parametrize("text", ["", "-1", "0", "1.5", "ten", "1e99", "nan", "0x10"])
def test_what_is_not_a_count_is_refused(text):
    with pytest.raises(InputError, match="tokens"):
        parse_count(text, "tokens")


def test_units_of_one_dimension_rescale():
    for unit, (dimension, factor) in UNITS.items():
        assert to_base(2.0, unit, dimension, "x") == 2.0 * factor


def test_near_names_are_found_by_spelling_and_by_part():
    assert did_you_mean("gpt2-larg", ["gpt2-large", "bert"]) == "; did you mean 'gpt2-large'?"
    assert did_you_mean("405b", ["llama3-405b", "bert"]) == "; did you mean 'llama3-405b'?"
    assert did_you_mean("zzz", ["bert"]) == ""
