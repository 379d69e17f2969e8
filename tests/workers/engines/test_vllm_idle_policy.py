"""When an engine is started, rested and started anew, by a clock moved by hand."""

import pytest

from roadstream.stages.breaker import Cooldown
from roadstream.workers.engines.vllm.idle_policy import IdleOptions, IdlePolicy

RESTARTS = Cooldown(first=1.0, longest=4.0)


def policy(idle_after: float | None = None) -> IdlePolicy:
    return IdlePolicy(IdleOptions(idle_after=idle_after, restarts=RESTARTS))


def running(idle_after: float | None = None, *, can_sleep: bool = False) -> IdlePolicy:
    kept = policy(idle_after)
    kept.want()
    assert kept.due(0.0) == "start"
    kept.can_sleep = can_sleep
    kept.ran(10.0)
    return kept


def test_nothing_is_started_before_somebody_wants_it() -> None:
    kept = policy()

    assert (kept.due(0.0), kept.pause(0.0)) == (None, None)
    kept.want()
    assert kept.due(0.0) == "start"
    assert (kept.due(0.0), kept.state) == (None, "starting")


def test_one_that_dies_is_started_anew_after_growing_pauses() -> None:
    kept = running()
    begun = []
    now = 100.0
    for _ in range(4):
        kept.ended(now, "killed")
        assert (kept.ailing, kept.why, kept.due(now)) == (True, "killed", None)
        pause = kept.pause(now)
        assert pause is not None
        begun.append(pause)
        now += pause
        assert kept.due(now) == "start"

    assert begun == [1.0, 2.0, 4.0, 4.0]
    kept.ran(now)
    assert (kept.ailing, kept.state) == (False, "up")


def test_pauses_start_over_once_it_has_run_for_long() -> None:
    kept = running()
    kept.ended(100.0, "killed")
    kept.due(101.0)
    kept.ran(102.0)

    kept.ended(200.0, "killed")

    assert kept.pause(200.0) == 1.0


def test_an_idle_one_sleeps_and_wakes_on_use() -> None:
    kept = running(5.0, can_sleep=True)
    kept.enter()
    assert (kept.due(100.0), kept.pause(100.0)) == (None, None)  # in use for long
    kept.leave(100.0)
    assert (kept.due(104.9), kept.pause(104.0)) == (None, 1.0)

    assert kept.due(105.0) == "sleep"
    kept.slept()
    assert (kept.state, kept.due(1000.0), kept.pause(1000.0)) == ("asleep", None, None)
    kept.want()
    assert kept.due(1000.0) == "wake"
    kept.woke(1001.0)
    assert (kept.state, kept.due(1005.9), kept.due(1006.0)) == ("up", None, "sleep")


def test_one_that_cannot_sleep_is_stopped_and_started_on_use_without_a_pause() -> None:
    kept = running(5.0)

    assert kept.due(15.0) == "stop"
    kept.ended(16.0, "stopped")
    assert (kept.ailing, kept.due(17.0)) == (False, None)
    kept.want()
    assert kept.due(17.0) == "start"


def test_one_that_dies_in_its_sleep_waits_for_somebody_to_want_it() -> None:
    kept = running(5.0, can_sleep=True)
    kept.due(15.0)
    kept.slept()

    kept.ended(20.0, "killed")

    assert (kept.due(100.0), kept.ailing) == (None, True)
    kept.want()
    assert kept.due(100.0) == "start"


def test_what_cannot_follow_is_refused() -> None:
    with pytest.raises(KeyError):
        policy().slept()
