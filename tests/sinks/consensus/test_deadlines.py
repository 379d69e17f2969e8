"""Deadlines on a wall clock that steps: no answer is postponed beyond the time that was left."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstream.sinks.consensus.deadlines import Deadlines

NOW, STEADY = 1_000.0, 7.0


def started() -> Deadlines:
    deadlines = Deadlines()
    deadlines.tick(NOW, STEADY)
    return deadlines


def test_an_image_is_due_at_its_deadline_and_not_before() -> None:
    deadlines = started()
    deadlines.push(NOW + 5, "a", NOW)

    assert deadlines.next_at == NOW + 5
    assert list(deadlines.pop(NOW + 4.9)) == []
    assert set(deadlines.pop(NOW + 5)) == {"a"}
    assert deadlines.next_at is None


def test_a_step_back_postpones_nothing() -> None:
    deadlines = started()
    deadlines.push(NOW + 5, "a", NOW)

    deadlines.tick(NOW - 3_600 + 5, STEADY + 5)

    assert deadlines.next_at == NOW - 3_600 + 5
    assert list(deadlines.pop(NOW - 3_600 + 5)) == ["a"]
    assert deadlines.next_at is None


def test_a_step_forward_makes_due_what_the_clock_says_is_due() -> None:
    deadlines = started()
    deadlines.push(NOW + 5, "a", NOW)
    deadlines.push(NOW + 7_200, "b", NOW)

    deadlines.tick(NOW + 3_600, STEADY)

    assert list(deadlines.pop(NOW + 3_600)) == ["a"]


def test_a_step_forward_that_is_taken_back_leaves_later_images_their_time() -> None:
    deadlines = started()
    deadlines.tick(NOW + 3_600, STEADY)
    deadlines.push(NOW + 3_610, "before the correction", NOW + 3_600)
    deadlines.tick(NOW, STEADY)
    deadlines.push(NOW + 20, "after it", NOW)

    deadlines.tick(NOW + 10, STEADY + 10)
    assert list(deadlines.pop(NOW + 10)) == ["before the correction"]
    deadlines.tick(NOW + 20, STEADY + 20)
    assert set(deadlines.pop(NOW + 20)) == {"after it"}


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(-100, 100)), max_size=20),
    st.lists(st.integers(0, 60), min_size=1, max_size=20),
)
def test_no_image_waits_longer_than_it_had_left(
    moves: list[tuple[int, int]], budgets: list[int]
) -> None:
    deadlines, now, steady = started(), NOW, STEADY
    left_until: dict[str, float] = {}
    for number, budget in enumerate(budgets):
        deadlines.push(now + budget, f"{number}", now)
        left_until[f"{number}"] = steady + budget
        passed, step = moves[number % len(moves)] if moves else (1, 0)
        now, steady = now + passed + step, steady + passed
        deadlines.tick(now, steady)
        for image_id in deadlines.pop(now):
            left_until.pop(image_id, None)
        assert all(until > steady for until in left_until.values())


def test_what_was_answered_is_kept_no_longer() -> None:
    deadlines = started()
    most = 0
    for number in range(10_000):
        deadlines.push(NOW + 1e9 - number, f"{number}", NOW)
        deadlines.push(NOW + 1e9, f"open {number % 10}", NOW)
        deadlines.discard(f"{number}")
        most = max(most, deadlines.entries)

    assert len(deadlines) == 10
    assert most < 200
    assert deadlines.next_at == NOW + 1e9
    assert set(deadlines.pop(NOW + 1e9)) == {f"open {i}" for i in range(10)}
    assert deadlines.next_at is None


def test_what_was_answered_is_not_due() -> None:
    deadlines = started()
    deadlines.push(NOW + 5, "a", NOW)
    deadlines.push(NOW + 6, "b", NOW)
    deadlines.discard("a")
    deadlines.discard("never there")

    assert deadlines.next_at == NOW + 6
    assert list(deadlines.pop(NOW + 6)) == ["b"]


def test_an_image_that_comes_again_is_due_at_its_new_deadline() -> None:
    deadlines = started()
    deadlines.push(NOW + 5, "a", NOW)
    deadlines.discard("a")
    deadlines.push(NOW + 9, "a", NOW)

    assert list(deadlines.pop(NOW + 8)) == []
    assert list(deadlines.pop(NOW + 9)) == ["a"]


@pytest.mark.parametrize("absurd", [math.nan, math.inf, -math.inf])
def test_a_deadline_that_is_no_time_is_none(absurd: float) -> None:
    deadlines = started()
    deadlines.push(absurd, "absurd", NOW)
    deadlines.push(NOW + 5, "a", NOW)

    assert deadlines.next_at == NOW + 5
    assert list(deadlines.pop(NOW + 1e12)) == ["a"]
    assert deadlines.next_at is None


def test_before_the_clocks_are_told_the_wall_counts_as_steady() -> None:
    deadlines = Deadlines()
    deadlines.push(NOW + 5, "a", NOW)
    assert deadlines.next_at == NOW + 5
    deadlines.tick(NOW + 3, NOW + 4)
    assert list(deadlines.pop(NOW + 3)) == []
    deadlines.tick(NOW + 4, NOW + 5)
    assert list(deadlines.pop(NOW + 4)) == ["a"]


def test_a_deadline_that_has_passed_already_is_due_at_once() -> None:
    deadlines = started()
    deadlines.push(NOW - 5, "a", NOW)
    assert deadlines.next_at == NOW - 5
    deadlines.tick(NOW - 3_600, STEADY)  # whatever the wall clock says now
    assert list(deadlines.pop(NOW - 3_600)) == ["a"]


def test_it_is_known_which_images_have_a_deadline() -> None:
    deadlines = started()
    deadlines.push(NOW + 5, "a", NOW)
    deadlines.push(math.nan, "b", NOW)
    assert ("a" in deadlines, "b" in deadlines, len(deadlines)) == (True, False, 1)
    deadlines.discard("a")
    assert ("a" in deadlines, len(deadlines)) == (False, 0)


def test_images_are_due_in_the_order_of_their_deadlines() -> None:
    deadlines = started()
    for number in (3, 1, 2):
        deadlines.push(NOW + number, f"{number}", NOW)
    due = deadlines.pop(NOW + 9)
    assert next(due) == "1"
    assert len(deadlines) == 2  # the others are not forgotten before they are asked for
    assert list(due) == ["2", "3"]


def test_what_is_due_no_more_is_let_lie_in_small_numbers_only() -> None:
    deadlines = started()
    for number in range(68):
        deadlines.push(NOW + number, f"{number}", NOW)
    for number in range(67, 1, -1):
        deadlines.discard(f"{number}")
        assert deadlines.entries <= 2 * (2 * len(deadlines) + 64)
    assert deadlines.entries == 2 * 68
    deadlines.discard("1")
    assert deadlines.entries == 2
    assert list(deadlines.pop(NOW + 99)) == ["0"]
