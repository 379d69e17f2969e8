"""Calibrators: from any finite raw score to a probability, never down when the score goes up."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstream.schemas.cascade.model import Isotonic, Platt
from roadstream.stages.voting.vote import calibrator, sigmoid

RAW = st.floats(allow_nan=False, allow_infinity=False)
SMALL = st.floats(-30, 30)


@given(RAW)
def test_sigmoid_is_a_probability_and_mirrored(x: float) -> None:
    assert 0.0 <= sigmoid(x) <= 1.0
    assert sigmoid(x) + sigmoid(-x) == pytest.approx(1.0)


@given(SMALL)
def test_a_member_without_a_calibrator_is_taken_to_give_log_odds(x: float) -> None:
    assert calibrator(None)(x) == pytest.approx(1 / (1 + math.exp(-x)))


@given(SMALL, st.floats(-3, 3), st.floats(-3, 3))
def test_platt_is_a_sigmoid_of_a_line(x: float, slope: float, intercept: float) -> None:
    expected = 1 / (1 + math.exp(-(slope * x + intercept)))
    assert calibrator(Platt(slope, intercept))(x) == pytest.approx(expected)


@given(RAW, st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_platt_gives_a_probability_for_every_finite_score(
    x: float, slope: float, intercept: float
) -> None:
    assert 0.0 <= calibrator(Platt(slope, intercept))(x) <= 1.0


KNOTS = st.lists(
    st.tuples(st.integers(-100, 100), st.floats(0, 1)),
    min_size=2,
    max_size=10,
    unique_by=lambda knot: knot[0],
)


def isotonic(knots: list[tuple[int, float]]) -> Isotonic:
    raw = sorted(float(x) for x, _ in knots)
    return Isotonic(raw, sorted(y for _, y in knots))


@given(KNOTS, RAW, RAW)
def test_isotonic_never_goes_down(knots: list[tuple[int, float]], a: float, b: float) -> None:
    fitted = isotonic(knots)
    calibrate = calibrator(fitted)
    low, high = calibrate(min(a, b)), calibrate(max(a, b))

    assert low <= high + 1e-12
    assert fitted.probability[0] <= low
    assert high <= fitted.probability[-1] + 1e-12


@given(KNOTS)
def test_isotonic_passes_through_its_knots(knots: list[tuple[int, float]]) -> None:
    fitted = isotonic(knots)
    calibrate = calibrator(fitted)

    for x, y in zip(fitted.raw, fitted.probability, strict=True):
        assert calibrate(x) == pytest.approx(y)


def test_isotonic_is_linear_between_and_level_beyond_its_knots() -> None:
    calibrate = calibrator(Isotonic([0.0, 2.0], [0.2, 0.6]))

    assert [calibrate(x) for x in (-5.0, 0.0, 0.5, 1.0, 2.0, 9.0)] == pytest.approx(
        [0.2, 0.2, 0.3, 0.4, 0.6, 0.6]
    )
