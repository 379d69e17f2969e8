"""Alive and ready: decided from what was noted and the time, without waiting."""

import time

import anyio

from roadstream.schemas.backoff import Backoff
from roadstream.schemas.errors import LogUnavailableError
from roadstream.workers.service.outage import Persistent
from roadstream.workers.service.status.health import (
    LOOP_SILENT,
    POLL_LATE,
    POLL_SILENT,
    Health,
    WatchedGroupMember,
    keep_ticking,
)


class Member:
    """Stands where a group member's last poll is asked for."""

    def __init__(self) -> None:
        self.polled_at = 0.0
        self.running = Persistent("glance", lambda: self.polled_at, backoff=Backoff(0.0, 0.0))


def working(now: float) -> tuple[Health, Member]:
    """Return the health of a process whose only part has just polled."""
    health, member = Health(), Member()
    health.watch(WatchedGroupMember(member.running))
    health.tick(now)
    member.polled_at = now
    return health, member


def test_a_process_that_polls_is_alive_and_ready() -> None:
    now = time.monotonic()
    health, _ = working(now)
    assert health.dead(now) == []
    assert health.unready(now) == []


def test_a_process_that_loads_its_models_is_alive_and_not_ready() -> None:
    health = Health()
    assert health.dead(time.monotonic()) == []
    assert health.unready(time.monotonic()) == ["its models are not warm yet"]


def test_a_worker_that_has_not_polled_yet_is_not_ready() -> None:
    now = time.monotonic()
    health, member = working(now)
    member.polled_at = 0.0
    assert health.unready(now) == ["glance: has not joined its group yet"]
    assert health.dead(now) == []


def test_an_event_loop_that_stands_still_is_dead() -> None:
    now = time.monotonic()
    health, member = working(now)
    later = now + LOOP_SILENT + 1
    member.polled_at = later
    assert health.dead(later) == [f"the event loop stands still for {LOOP_SILENT + 1:.0f} s"]


def test_a_worker_that_polls_late_is_first_unready_then_dead() -> None:
    now = time.monotonic()
    health, _ = working(now)
    for silent, dead in ((POLL_LATE + 1, False), (POLL_SILENT + 1, True)):
        health.tick(now + silent)
        assert health.unready(now + silent) == [f"glance: no poll for {silent:.0f} s"]
        assert bool(health.dead(now + silent)) == dead


async def test_an_outage_makes_a_process_unready_but_never_dead() -> None:
    now = time.monotonic()
    health, member = working(now)
    stopping = anyio.Event()

    async def fails(_stop: anyio.Event) -> None:
        if member.running.failures == 2:
            stopping.set()
        raise LogUnavailableError("no broker answers")

    await member.running.run(fails, stopping)
    later = now + 10 * POLL_SILENT
    health.tick(later)
    assert health.dead(later) == []
    (reason,) = health.unready(later)
    assert reason.startswith("glance: down for ")
    assert reason.endswith(": no broker answers")


def test_what_pauses_a_part_makes_it_unready() -> None:
    now = time.monotonic()
    health, member = working(now)
    health.members[0] = WatchedGroupMember(member.running, lambda: ["too many dead letters"])
    assert health.unready(now) == ["glance: too many dead letters"]
    assert health.dead(now) == []


async def test_beats_say_ready_and_end_when_the_process_is_dead() -> None:
    health, member = working(time.monotonic())
    beats: list[bool] = []
    stopping = anyio.Event()

    async def first_beat() -> bool:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_ticking, health, beats.append, stopping)
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        return beats[-1]

    assert await first_beat() is True
    stopping.set()
    assert await first_beat() is False
    assert health.unready(time.monotonic()) == ["it is stopping"]
    said = len(beats)
    member.polled_at = 1e-9  # long ago
    health.joined_at = -2 * POLL_SILENT
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep_ticking, health, beats.append, stopping)
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert len(beats) == said
