"""Delays between tries: how they grow, and how they are spread."""

from hypothesis import given
from hypothesis import strategies as st

from roadstream.schemas.backoff import Backoff, no_jitter


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=12, max_size=12))
def test_delays_grow_to_a_limit_and_never_below_half_of_their_bound(draws: list[float]) -> None:
    numbers = iter(draws)
    backoff = Backoff(0.5, 15.0, lambda: next(numbers))
    bounds = [0.5, 1, 2, 4, 8, 15, 15, 15, 15, 15, 15]
    for bound in bounds:
        assert bound / 2 <= backoff.next() <= bound
    backoff.reset()
    assert 0.25 <= backoff.next() <= 0.5


def test_delays_without_jitter_are_their_bounds() -> None:
    backoff = Backoff(0.5, 3.0, no_jitter)
    assert [backoff.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_no_delay_is_longer_than_the_last() -> None:
    assert Backoff(30.0, 3.0, no_jitter).next() == 3.0
