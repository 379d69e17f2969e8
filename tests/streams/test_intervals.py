"""Intervals against a plain set."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from streams.intervals import Intervals

RUN = st.tuples(st.integers(0, 30), st.integers(0, 6))
STEPS = st.lists(st.tuples(st.booleans(), RUN))


@given(STEPS, st.integers(0, 36), st.integers(0, 36))
def test_intervals_are_a_set_of_offsets(
    steps: list[tuple[bool, tuple[int, int]]], start: int, stop: int
) -> None:
    intervals, plain = Intervals(), set[int]()
    for adding, (first, more) in steps:
        run = set(range(first, first + more + 1))
        if adding:
            intervals.add(first, first + more)
            plain |= run
        else:
            intervals.remove(first, first + more)
            plain -= run

    runs = list(intervals)
    assert {n for first, last in runs for n in range(first, last + 1)} == plain
    assert all(last + 1 < first for (_, last), (first, _) in itertools.pairwise(runs))
    assert bool(intervals) == bool(plain)
    assert intervals.lowest == min(plain, default=None)
    assert {n for n in range(40) if n in intervals} == plain
    gaps = list(intervals.gaps(start, stop))
    assert {n for first, last in gaps for n in range(first, last + 1)} == (
        set(range(start, stop)) - plain
    )
