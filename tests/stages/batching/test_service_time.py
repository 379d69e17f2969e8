"""What an image with a deadline takes at a tier: a high quantile of late, else a reckoning."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstream.stages.batching.service_time import (
    AGAIN,
    LATELY,
    OFTEN,
    QUANTILE,
    ServiceTimeEstimate,
    ToldTime,
)

SECONDS = st.floats(0, 1e6)


@given(st.lists(SECONDS, min_size=1, max_size=50), SECONDS)
def test_nine_in_ten_images_took_no_longer_and_one_more_would_be_too_many(
    took: list[float], alone: float
) -> None:
    estimate = ServiceTimeEstimate()
    for seconds in took:
        estimate.observe([seconds], 1e6, 0.0)
    found = estimate.seconds(alone, 1.0)
    assert found in took
    assert sum(one <= found for one in took) >= QUANTILE * len(took)
    assert sum(one < found for one in took) < QUANTILE * len(took)


def test_one_slow_image_in_ten_does_not_count() -> None:
    estimate = ServiceTimeEstimate()
    estimate.observe([0.2] * 9 + [30.0], 0.1, 0.0)
    assert estimate.seconds(0.1, 0.0) == 0.2
    estimate.observe([30.0], 0.1, 0.0)
    assert estimate.seconds(0.1, 0.0) == 30.0


def test_without_an_image_of_late_it_is_the_batch_that_may_run_and_a_batch_of_one() -> None:
    estimate = ServiceTimeEstimate()
    assert estimate.seconds(0.1, 0.0) == 0.1
    estimate.observe([], 4.0, 0.0)
    assert estimate.seconds(0.1, 1.0) == 4.1
    assert estimate.seconds(0.1, LATELY) == 0.1


def test_after_a_burst_images_may_come_again() -> None:
    """None is sent while it is taken to be slow, so nothing new is learnt of it."""
    estimate = ServiceTimeEstimate()
    estimate.observe([600.0], 0.1, 0.0)
    assert estimate.seconds(0.1, LATELY - 1.0) == 600.0
    assert estimate.seconds(0.1, LATELY + 1.0) == 0.1


def test_nothing_is_known_of_a_tier_that_has_judged_nothing_and_learnt_nothing() -> None:
    estimate = ServiceTimeEstimate()
    assert estimate.seconds(0.0, 0.0) is None
    estimate.observe([], 0.0, 0.0)  # expired archive images, say
    assert estimate.seconds(0.0, 0.0) is None


def test_a_change_is_told_soon_and_what_stays_is_told_again_now_and_then() -> None:
    told = ToldTime()
    assert told.is_due(1.0, 0.0)
    told.note(1.0, 0.0)
    assert not told.is_due(9.0, OFTEN - 0.1)
    assert told.is_due(9.0, OFTEN)
    assert told.is_due(0.1, OFTEN)
    assert not told.is_due(1.2, AGAIN - 0.1)
    assert told.is_due(1.2, AGAIN)


@pytest.mark.parametrize(("before", "now"), [(0.001, 0.009), (1.0, 1.24), (1.0, 0.76)])
def test_a_small_change_is_none(before: float, now: float) -> None:
    told = ToldTime()
    told.note(before, 0.0)
    assert not told.differs(now)


@given(st.lists(st.tuples(st.floats(0, 30), SECONDS), max_size=60))
def test_it_is_told_every_ten_seconds_at_most(steps: list[tuple[float, float]]) -> None:
    told, now, last = ToldTime(), 0.0, -math.inf
    for after, seconds in steps:
        now += after
        if told.is_due(seconds, now):
            assert now - last >= OFTEN
            told.note(seconds, now)
            last = now
        else:
            assert now - last < AGAIN
