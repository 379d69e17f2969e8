"""Which deaths of a child are restarted, and after how long: a table and its properties."""

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstream.schemas.backoff import Backoff
from roadstream.workers.service.supervision.restarts import (
    MAX_DEATHS,
    SETTLED_AFTER,
    Death,
    Restarts,
)

KILLED, CRASHED, OUTAGE, USAGE, CHANGED = -signal.SIGKILL, 1, 75, 2, 65


def restarts(kind: str) -> Restarts:
    return Restarts("job" if kind == "job" else "service", Backoff(1.0, 8.0, lambda: 0.0))


def delays(kind: str, *deaths: Death) -> list[float | None]:
    decider = restarts(kind)
    return [decider.after(death) for death in deaths]


@pytest.mark.parametrize("kind", ["job", "service"])
def test_wrong_usage_of_a_child_that_never_worked_is_final(kind: str) -> None:
    assert delays(kind, Death(USAGE, 0.0)) == [None]
    assert delays(kind, Death(KILLED, 0.0), Death(USAGE, 0.0)) == [0.0, None]


def test_a_service_that_worked_comes_back_when_what_is_around_it_became_wrong() -> None:
    found = delays("service", Death(KILLED, 0.1), *[Death(USAGE, 0.0)] * 50)
    assert None not in found
    assert found[-1] == 4.0


def test_a_service_comes_back_though_weights_changed_before_it_ever_worked() -> None:
    assert None not in delays("service", *[Death(CHANGED, 0.0)] * 50)


@pytest.mark.parametrize("status", [USAGE, CHANGED])
def test_a_job_ends_if_what_is_around_it_stays_wrong_and_nothing_is_done(status: int) -> None:
    found = delays("job", Death(KILLED, 1.0), *[Death(status, 0.0)] * (MAX_DEATHS - 1))
    assert found[-1] is None
    assert None not in found[:-1]
    busy = [Death(status, 0.0, progress=i) for i in range(50)]
    assert None not in delays("job", Death(KILLED, 1.0), *busy)


@pytest.mark.parametrize("kind", ["job", "service"])
def test_a_member_name_that_another_has_is_final_also_after_good_work(kind: str) -> None:
    assert delays(kind, Death(78, SETTLED_AFTER)) == [None]


@pytest.mark.parametrize("kind", ["job", "service"])
def test_the_first_death_is_restarted_at_once_and_later_ones_ever_later(kind: str) -> None:
    assert delays(kind, *[Death(KILLED, 0.0)] * 4) == [0.0, 0.5, 1.0, 2.0]


def test_a_job_ends_after_five_deaths_in_a_row_whatever_killed_it() -> None:
    for status in (KILLED, CRASHED):
        found = delays("job", *[Death(status, 0.0)] * MAX_DEATHS)
        assert found[-1] is None
        assert None not in found[:-1]


def test_a_job_that_makes_progress_between_deaths_goes_on() -> None:
    found = delays("job", *[Death(KILLED, 0.0, progress=i // 3) for i in range(60)])
    assert None not in found
    assert found[-1] == 4.0  # without hurry: half of the longest bound


def test_a_service_that_was_killed_from_outside_always_comes_back() -> None:
    assert None not in delays("service", *[Death(KILLED, 0.0)] * 50)


def test_a_service_that_never_worked_and_fails_by_itself_ends() -> None:
    found = delays("service", *[Death(CRASHED, 0.0)] * MAX_DEATHS)
    assert found[-1] is None


def test_a_service_that_worked_well_once_comes_back_from_its_own_crashes_for_ever() -> None:
    crashes = [Death(CRASHED, 0.0)] * 50
    assert None not in delays("service", Death(CRASHED, SETTLED_AFTER), *crashes)


def test_a_child_that_worked_well_is_restarted_at_once_again() -> None:
    well = Death(KILLED, SETTLED_AFTER)
    found = delays("service", *[Death(KILLED, 0.0)] * 3, well, Death(KILLED, 0.0))
    assert found == [0.0, 0.5, 1.0, 0.0, 0.5]


@pytest.mark.parametrize("kind", ["job", "service"])
def test_an_outage_is_waited_out_and_counts_as_no_death(kind: str) -> None:
    outage, crash = Death(OUTAGE, 0.0), Death(CRASHED, 0.0)
    found = delays(kind, *[outage] * 40, *[crash] * (MAX_DEATHS - 1))
    assert None not in found
    assert found[:5] == [0.5, 1.0, 2.0, 4.0, 4.0]


@given(
    st.sampled_from(["job", "service"]),
    st.lists(
        st.builds(Death, st.sampled_from([KILLED, CRASHED, OUTAGE, 0]), st.floats(0, 60)),
        max_size=40,
    ),
)
def test_delays_are_bounded_and_only_final_faults_end_it(kind: str, deaths: list[Death]) -> None:
    decider = restarts(kind)
    in_a_row = 0
    for death in deaths:
        in_a_row = 0 if death.worked_for >= SETTLED_AFTER else in_a_row
        in_a_row += death.status != OUTAGE
        delay = decider.after(death)
        if delay is None:
            assert in_a_row >= MAX_DEATHS
            return
        assert 0 <= delay <= 8
