"""The in-memory log as a test kit: members that crash and freeze, retention, Kafka's ways."""

from collections.abc import Awaitable, Callable

import anyio
import pytest

from roadstream.schemas.errors import FencedError, LogUnavailableError
from roadstream.streams.clock import ManualClock
from roadstream.streams.log import Consumer, Offsets, Output, Polled, TopicPartition
from roadstream.streams.memory.log import Fault, MemoryLog
from roadstream.streams.memory.store import Appender, MemoryRecord
from tests.kits.contract import Listener, numbered, values

GONE = LogUnavailableError("gone")
TP = TopicPartition("t", 0)
Make = Callable[..., Awaitable[MemoryLog]]


@pytest.fixture
def make(clock: ManualClock) -> Make:
    """Make a log of one partition with ten records, whose sessions last 10 s on the clock."""

    async def made(*, atomic: bool = True, partitions: int = 1) -> MemoryLog:
        log = MemoryLog(clock, session_timeout=10.0, atomic=atomic, monotonic=clock.now)
        await log.create_topics(["t", "out"], partitions)
        log.append(numbered("t", range(10), partitions))
        return log

    return made


class Hears(Listener):
    def __init__(self) -> None:
        self.commits: list[Offsets] = []
        self.gone: list[tuple[TopicPartition, int, int]] = []

    def committed(self, offsets: Offsets) -> None:
        self.commits.append(dict(offsets))

    def missed(self, tp: TopicPartition, first: int, oldest: int) -> None:
        self.gone.append((tp, first, oldest))


async def poll(consumer: Consumer, count: int = 10) -> list[bytes]:
    return values(await consumer.poll(max_records=count, timeout=0))


async def finish(consumer: Consumer, offset: int) -> None:
    output = Output("out", None, b"done", 0)
    await consumer.publish([output], {TP: offset}, consumer.assignment.epoch)


# Sessions


async def test_a_member_that_is_silent_too_long_is_put_out_by_the_others(
    make: Make, clock: ManualClock
) -> None:
    log = await make()
    async with log.consumer("g", ["t"], member_id="a") as a:
        assert len(await poll(a)) == 10
        async with log.consumer("g", ["t"], member_id="b") as b:
            clock.advance(9.0)
            assert await poll(b) == []
            clock.advance(1.5)
            assert len(await poll(b)) == 10

            with pytest.raises(FencedError, match="no longer owns what it commits"):
                await finish(a, 10)
            assert len(log.topics["out"][0]) == 0


async def test_a_member_that_was_silent_too_long_is_fenced_though_nobody_noticed(
    make: Make, clock: ManualClock
) -> None:
    log = await make()
    async with log.consumer("g", ["t"]) as consumer:
        await poll(consumer)
        clock.advance(10.5)
        for commit in ({TP: 10}, {}):
            with pytest.raises(FencedError, match="no longer owns"):
                await consumer.publish(
                    [Output("out", None, b"x")], commit, consumer.assignment.epoch
                )
        assert not log.topics["out"][0]


async def test_who_was_put_out_comes_back_with_the_next_poll_and_gives_up_first(
    make: Make, clock: ManualClock
) -> None:
    class GivesUp(Listener):
        async def revoked(self, partitions: object) -> None:
            with pytest.raises(FencedError, match="no longer owns"):
                await finish(consumer, 10)
            told.append(partitions)

    log, told = await make(), list[object]()
    async with log.consumer("g", ["t"], listener=GivesUp()) as consumer:
        assert len(await poll(consumer)) == 10
        clock.advance(11.0)
        assert len(await poll(consumer)) == 10

        assert told == [frozenset([TP])]
        await finish(consumer, 10)
        assert await consumer.committed() == {TP: 10}


async def test_polling_keeps_a_member_in_its_group(make: Make, clock: ManualClock) -> None:
    log = await make()
    async with log.consumer("g", ["t"]) as consumer:
        await poll(consumer)
        for _ in range(5):
            clock.advance(8.0)
            await consumer.poll(max_records=0, timeout=0)
        await finish(consumer, 10)


async def test_one_who_waits_for_anothers_partitions_keeps_its_own(make: Make) -> None:
    class Counts(Listener):
        changes = 0

        async def assigned(self, partitions: object) -> None:
            self.changes += 1

    log, counts = await make(partitions=4), Counts()
    async with (
        log.consumer("g", ["t"], member_id="b"),
        log.consumer("g", ["t"], member_id="c", listener=counts) as second,
    ):
        await poll(second)
        async with log.consumer("g", ["t"], member_id="a") as first:
            await poll(first)  # its share is what b and c own
            await poll(second)
            before = counts.changes
            for _ in range(5):
                await poll(second)

            assert counts.changes == before


# Death and sleep


async def test_a_crashed_member_leaves_its_partitions_until_its_session_ends(
    make: Make, clock: ManualClock
) -> None:
    log = await make()
    async with log.consumer("g", ["t"], member_id="dead") as dead:
        await poll(dead)
        log.crash("dead")
        for call in (poll(dead), finish(dead, 10)):
            with pytest.raises(LogUnavailableError, match="dead has crashed"):
                await call
    async with log.consumer("g", ["t"], member_id="heir") as heir:
        assert await poll(heir) == []
        clock.advance(10.5)
        assert len(await poll(heir)) == 10


async def test_a_crashed_member_that_comes_back_under_its_name_has_its_partitions_at_once(
    make: Make,
) -> None:
    log = await make()
    async with log.consumer("g", ["t"], member_id="same") as dead:
        await poll(dead)
        log.crash("same")
        async with log.consumer("g", ["t"], member_id="same") as again:
            assert len(await poll(again)) == 10


async def test_a_frozen_member_wakes_as_a_zombie_and_is_fenced(
    make: Make, clock: ManualClock
) -> None:
    log, ended = await make(), list[str]()

    async def zombie() -> None:
        with pytest.raises(FencedError, match="no longer owns"):
            await finish(frozen, 10)
        ended.append("fenced")

    async with (
        log.consumer("g", ["t"], member_id="frozen") as frozen,
        log.consumer("g", ["t"], member_id="other") as other,
    ):
        await poll(frozen)
        log.pause("frozen")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(zombie)
            await anyio.wait_all_tasks_blocked()
            clock.advance(10.5)
            assert len(await poll(other)) == 10
            assert ended == []
            log.resume("frozen")
        assert ended == ["fenced"]
        assert not log.topics["out"][0]


# Retention


async def test_a_member_hears_of_records_that_retention_took_and_goes_on_from_the_oldest(
    make: Make,
) -> None:
    log, hears = await make(), Hears()
    async with log.consumer("g", ["t"], listener=hears) as consumer:
        assert await poll(consumer, 3) == [b"0", b"1", b"2"]
        await finish(consumer, 3)
        log.truncate("t", 0, 7)
        assert await poll(consumer) == [b"7", b"8", b"9"]
    assert hears.gone == [(TP, 3, 7)]
    assert await log.lag("g", ["t"]) == 3


async def test_the_next_owner_hears_of_what_was_committed_and_gone_before_it_came(
    make: Make,
) -> None:
    log, hears = await make(), Hears()
    async with log.consumer("g", ["t"]) as consumer:
        await poll(consumer)
        await finish(consumer, 4)
    log.truncate("t", 0, 9)
    async with log.consumer("g", ["t"], listener=hears) as consumer:
        assert await poll(consumer) == [b"9"]
    assert hears.gone == [(TP, 4, 9)]


async def test_a_new_group_begins_at_the_oldest_record_and_has_missed_nothing(make: Make) -> None:
    log, hears = await make(), Hears()
    log.truncate("t", 0, 8)
    async with log.consumer("g", ["t"], listener=hears) as consumer:
        assert await poll(consumer) == [b"8", b"9"]
    async with log.reader("t", "beginning") as reader:
        assert values(await reader.poll(max_records=9, timeout=0)) == [b"8", b"9"]
        assert await reader.ends() == {0: 10}
    assert hears.gone == []


async def test_trimming_lets_go_of_what_a_group_has_committed_past(make: Make) -> None:
    log = await make()
    async with log.consumer("g", ["t"]) as consumer:
        await poll(consumer)
        await finish(consumer, 6)
    await log.trim(["t"], "g")
    assert (log.topics["t"][0].first, len(log.topics["t"][0])) == (6, 4)


# A log that has no transactions


async def test_offsets_follow_with_a_later_poll_and_never_before_the_outputs(make: Make) -> None:
    log, hears = await make(atomic=False), Hears()
    async with log.consumer("g", ["t"], listener=hears) as consumer:
        await poll(consumer)
        await finish(consumer, 10)
        assert (len(log.topics["out"][0]), hears.commits) == (1, [])
        await poll(consumer)
        assert hears.commits == [{TP: 10}]


async def test_leaving_commits_what_is_pending_and_a_crash_does_not(make: Make) -> None:
    log = await make(atomic=False)
    async with log.consumer("crashes", ["t"], member_id="dead") as consumer:
        await poll(consumer)
        await finish(consumer, 10)
        log.crash("dead")
    async with log.consumer("leaves", ["t"]) as consumer:
        await poll(consumer)
        await finish(consumer, 10)
    assert await log.committed("crashes", ["t"]) == {}
    assert await log.committed("leaves", ["t"]) == {TP: 10}
    assert len(log.topics["out"][0]) == 2


@pytest.mark.parametrize(("after", "stands"), [(False, {}), (True, {TP: 10})])
async def test_a_commit_that_fails_is_sent_again(
    make: Make, *, after: bool, stands: dict[TopicPartition, int]
) -> None:
    log, hears = await make(atomic=False), Hears()
    async with log.consumer("g", ["t"], listener=hears) as consumer:
        await poll(consumer)
        await finish(consumer, 10)
        log.faults.append(Fault("commit", GONE, after=after))
        await poll(consumer)
        assert await consumer.committed() == stands
        assert hears.commits == []
        await poll(consumer)
        assert hears.commits == [{TP: 10}]
        assert await consumer.committed() == {TP: 10}


async def test_a_failed_publish_may_leave_any_part_of_its_records(make: Make) -> None:
    log = await make(atomic=False)
    log.faults.append(Fault("publish", GONE, after=True, share=0.5))
    async with log.consumer("g", ["t"]) as consumer:
        await poll(consumer)
        outputs = [Output("out", None, b"%d" % i, 0) for i in range(4)]
        with pytest.raises(LogUnavailableError, match="gone"):
            await consumer.publish(outputs, {TP: 10}, consumer.assignment.epoch)
        await poll(consumer)
        assert [record.value for record in log.topics["out"][0]] == [b"0", b"1"]
        assert await consumer.committed() == {}


async def test_a_late_append_comes_though_its_publisher_is_gone(
    make: Make, clock: ManualClock
) -> None:
    log = await make(atomic=False)
    log.faults.append(Fault("publish", delay=5.0))
    async with log.consumer("g", ["t"]) as consumer:
        await poll(consumer)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(finish, consumer, 10)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        await log.lag("g", ["t"])
        assert not log.topics["out"][0]
        clock.advance(5.5)
        await log.lag("g", ["t"])
        assert len(log.topics["out"][0]) == 1
        assert await consumer.committed() == {}


async def test_a_producer_that_sends_again_doubles_its_records(make: Make) -> None:
    log = await make()
    log.faults.append(Fault("publish", copies=2))
    async with log.producer() as producer:
        await producer.publish([Output("out", None, b"x", 0)])
    assert [record.value for record in log.topics["out"][0]] == [b"x", b"x"]


async def test_asking_for_the_lag_can_fail(make: Make) -> None:
    log = await make()
    log.faults.append(Fault("lag", GONE))
    with pytest.raises(LogUnavailableError, match="gone"):
        await log.lag("g", ["t"])
    assert await log.lag("g", ["t"]) == 10


# The watcher


class Watches:
    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []

    def appended(self, tp: TopicPartition, record: MemoryRecord, by: Appender | None) -> None:
        self.seen.append(("appended", tp.topic, record.offset, by and by.owns(tp.partition)))

    def delivered(self, group: str, member: str, polled: Polled) -> None:
        self.seen.append(("delivered", member, len(values(polled))))

    def committed(self, group: str, member: str, tp: TopicPartition, offset: int) -> None:
        self.seen.append(("committed", member, offset))

    def missed(self, group: str, tp: TopicPartition, first: int, oldest: int) -> None:
        self.seen.append(("missed", first, oldest))

    def evicted(self, group: str, member: str) -> None:
        self.seen.append(("evicted", member))


async def test_a_watcher_sees_every_effect_as_it_happens(make: Make, clock: ManualClock) -> None:
    log = await make()
    watches = log.store.watcher = Watches()
    async with (
        log.consumer("g", ["t"], member_id="a") as a,
        log.consumer("g", ["t"], member_id="b") as b,
    ):
        await poll(a, 2)
        await finish(a, 2)
        log.truncate("t", 0, 5)
        await poll(a, 1)
        clock.advance(11.0)
        await poll(b)
    log.append([Output("out", None, b"", 0)])

    assert watches.seen == [
        ("delivered", "a", 2),
        ("appended", "out", 0, True),
        ("committed", "a", 2),
        ("missed", 2, 5),
        ("delivered", "a", 1),
        ("evicted", "a"),
        ("evicted", "b"),
        ("missed", 2, 5),
        ("delivered", "b", 5),
        ("appended", "out", 1, None),
    ]
