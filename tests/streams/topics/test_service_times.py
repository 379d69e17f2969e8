"""What workers told of their tiers: the slowest that was heard of late counts."""

import time

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstream.schemas.records.claims import Roll, ServiceTime
from roadstream.schemas.topics import CASCADES
from roadstream.streams.log import Log
from roadstream.streams.memory.log import MemoryLog
from roadstream.streams.topics.claims import make_topic, tell
from roadstream.streams.topics.service_times import AGED, MARGIN, MOST_WORKERS, ServiceTimes
from roadstream.streams.topics.versions import Versions


def told(tier: str, seconds: float, worker: str = "w", at: float = 0.0) -> ServiceTime:
    return ServiceTime(tier=tier, worker=worker, seconds=seconds, told_at=at)


def test_the_last_word_of_a_worker_counts_and_of_several_workers_the_slowest() -> None:
    times = ServiceTimes()
    for one in (told("a", 9.0, "x"), told("a", 1.0, "x"), told("a", 2.0, "y"), told("b", 3.0)):
        times.hear(one, 0.0)
    assert times.needed(1.0) == {"a": 2.0 + MARGIN, "b": 3.0 + MARGIN}


def test_what_is_old_is_forgotten_and_a_worker_s_later_word_is_not() -> None:
    times = ServiceTimes()
    times.hear(told("a", 9.0, "x"), 0.0)
    times.hear(told("a", 1.0, "y", at=100.0), 100.0)
    assert times.needed(AGED - 1.0) == {"a": 9.0 + MARGIN}
    assert times.needed(AGED) == {"a": 1.0 + MARGIN}
    assert times.needed(AGED + 100.0) == {}


def test_a_record_of_an_earlier_run_says_nothing_nor_does_one_of_the_future() -> None:
    times = ServiceTimes()
    times.hear(told("a", 9.0), AGED)
    times.hear(told("b", 9.0, at=1e9), 0.0)
    assert times.needed(0.0) == {}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.floats(0, 1e9))))
def test_no_tier_takes_less_than_any_of_its_workers_says(
    heard: list[tuple[str, str, float]],
) -> None:
    times, last = ServiceTimes(), dict[tuple[str, str], float]()
    for tier, worker, seconds in heard:
        times.hear(told(tier, seconds, worker), 0.0)
        last[tier, worker] = seconds
    wanted = {
        tier: max(seconds for (of, _), seconds in last.items() if of == tier) + MARGIN
        for tier, _ in last
    }
    assert times.needed(0.0) == wanted


def test_whoever_may_write_to_the_topic_fills_no_memory() -> None:
    times = ServiceTimes()
    for number in range(MOST_WORKERS + 10):
        times.hear(told(f"{number}", 1.0), 0.0)
    times.hear(told("0", 2.0), 0.0)
    found = times.needed(0.0)
    assert (len(found), found["0"]) == (MOST_WORKERS, 2.0 + MARGIN)


async def test_who_follows_the_versions_is_not_woken_by_service_times() -> None:
    log: Log = MemoryLog()
    await make_topic(log)
    versions, woken = Versions(log), list[int]()
    now = time.time()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(versions.follow, lambda: woken.append(1))
        await tell(log, told("a", 1.0, at=now))
        with anyio.fail_after(30):
            while not versions.service_times.needed(now):  # noqa: ASYNC110 (nobody tells)
                await anyio.sleep(0.01)
        assert woken == []
        await tell(log, Roll(main="m"))
        with anyio.fail_after(30):
            while not woken:  # noqa: ASYNC110 (nobody tells)
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert versions.service_times.needed(now) == {"a": 1.0 + MARGIN}


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf"), "1"])
async def test_what_is_no_time_is_not_heard(wrong: object) -> None:
    log = MemoryLog()
    await make_topic(log)
    await tell(log, told("a", wrong))  # type: ignore[arg-type]
    versions = Versions(log)
    await versions.refresh()
    assert versions.service_times.needed(0.0) == {}
    assert len(log.topics[CASCADES][0]) == 1
