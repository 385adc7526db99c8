import numpy as np
import pytest

from predictor.values import DRAWS, Sourced, Spread, draw


@pytest.mark.parametrize(("low", "mid", "high"), [(1.0, 2.0, 5.0), (-3.0, 0.0, 1.0), (0.0, 0.5, 4.0)])
def test_draws_give_back_their_percentiles(low, mid, high):
    spread = Spread.of(draw("x", low, mid, high))
    span = high - low
    assert abs(spread.low - low) < 0.02 * span
    assert abs(spread.mid - mid) < 0.02 * span
    assert abs(spread.high - high) < 0.03 * span


def test_one_name_is_one_draw_and_two_names_are_independent():
    a, again, b = draw("a", 1, 2, 4), draw("a", 1, 2, 4), draw("b", 1, 2, 4)
    assert np.array_equal(a, again)
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.2


def test_draws_of_positive_spans_are_positive():
    assert draw("x", 1e-6, 1.0, 3.0).min() > 0


def test_a_point_has_no_width():
    value = Sourced(7.0, 7.0, 7.0, "s", "2026")
    assert value.certain
    assert np.array_equal(value.draw("x"), np.full(DRAWS, 7.0))
    assert Spread.of(7.0) == Spread(7.0, 7.0, 7.0)


def test_an_unordered_span_is_our_own_error():
    with pytest.raises(ValueError, match="does not hold"):
        draw("x", 2.0, 1.0, 3.0)
