"""Intervals against a plain set."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from roadstream.streams.group.intervals import Intervals

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
    assert list(intervals.gaps(start, stop)) == runs_of(set(range(start, stop)) - plain)
    assert runs == runs_of(plain)
    assert intervals.highest == max(plain, default=None)


def runs_of(plain: set[int]) -> list[tuple[int, int]]:
    return [
        (first, next(last for last in itertools.count(first) if last + 1 not in plain))
        for first in sorted(plain)
        if first - 1 not in plain
    ]


def test_offsets_that_follow_the_last_ones_make_their_run_longer() -> None:
    intervals = Intervals()
    for first, last in ((3, 4), (5, 9), (10, 10), (13, 14), (15, 15), (17, 17)):
        intervals.add(first, last)

    assert list(intervals) == [(3, 10), (13, 15), (17, 17)]
    assert list(intervals.gaps(0, 13)) == [(0, 2), (11, 12)]
    assert list(intervals.gaps(3, 11)) == []
    assert list(intervals.gaps(14, 20)) == [(16, 16), (18, 19)]
