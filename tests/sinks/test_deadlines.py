"""Deadlines on a wall clock that steps: no answer is postponed beyond the time that was left."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.deadlines import Deadlines

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
