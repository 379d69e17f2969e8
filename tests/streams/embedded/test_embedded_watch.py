"""Who is declared dead, from heartbeats alone: the pure part of the embedded log's groups."""

from roadstream.streams.embedded.watch import Watch

TIMEOUT = 8.0
"""Seconds; members beat once a second."""


def looked(watch: Watch, times: list[float], other: float) -> list[tuple[float, list[str]]]:
    """Look at a member that last beat at ``other`` at each of these times; return who was dead."""
    return [(now, found) for now in times if (found := watch.dead([("other", other)], now))]


def started(now: float, waited: float = 0.0) -> Watch:
    watch = Watch(TIMEOUT)
    watch.start(now, waited=waited)
    return watch


def test_a_member_that_stops_beating_is_dead_after_the_session_timeout() -> None:
    watch = started(100.0)

    found = looked(watch, [100.0 + i for i in range(12)], other=100.0)

    assert found[0] == (109.0, ["other"])


def test_a_member_that_beats_never_dies() -> None:
    watch = started(100.0)

    assert not any(watch.dead([("other", now - 0.9)], now) for now in range(100, 200))


def test_whoever_is_found_dead_at_the_first_look_is_dead() -> None:
    assert looked(started(100.0), [100.0], other=50.0) == [(100.0, ["other"])]


def test_a_heartbeat_from_before_the_machine_started_anew_is_dead() -> None:
    assert looked(started(5.0), [5.0], other=90_000.0) == [(5.0, ["other"])]
    found = looked(started(5.0), [5.0 + i for i in range(30)], other=9.0)  # alike by chance
    assert 5.0 < found[0][0] <= 9.0 + TIMEOUT + 1


def test_after_a_silence_of_all_everybody_has_time_to_come_back() -> None:
    watch = started(100.0)
    assert looked(watch, [101.0, 102.0, 103.0], other=103.0) == []

    found = looked(watch, [140.0 + i for i in range(12)], other=103.5)

    assert 142.0 <= found[0][0] <= 140.0 + TIMEOUT


def test_a_newcomer_that_had_to_wait_for_the_lock_finds_nobody_dead_at_once() -> None:
    watch = started(140.0, waited=30.0)

    found = looked(watch, [140.0 + i for i in range(12)], other=100.0)

    assert 142.0 <= found[0][0] <= 140.0 + TIMEOUT


def test_one_stall_after_another_declares_nobody_dead_who_beats_in_between() -> None:
    watch = started(0.0)
    now = beat = 0.0
    assert watch.dead([("other", beat)], now) == []
    for _ in range(20):
        now += 3 * TIMEOUT  # nobody could write
        assert watch.dead([("other", beat)], now) == []
        now += 0.5
        beat = now - 0.1
        assert watch.dead([("other", beat)], now) == []


def test_a_watcher_that_looks_seldom_still_finds_the_dead() -> None:
    found = looked(started(0.0), [0.9 * TIMEOUT * i for i in range(1, 9)], other=0.5)

    assert found
    assert found[0][0] <= 4 * TIMEOUT
