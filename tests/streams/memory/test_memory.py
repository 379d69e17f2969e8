"""What only the in-memory log has: scripted faults, and a clock that is moved by hand."""

import math

import pytest

from roadstream.schemas.errors import LogUnavailableError, OutputError
from roadstream.streams.clock import ManualClock
from roadstream.streams.log import Output, TopicPartition
from roadstream.streams.memory.log import Fault, MemoryLog

GONE = LogUnavailableError("gone")
TP = TopicPartition("t", 0)


async def end(log: MemoryLog) -> int:
    async with log.reader("t", "beginning") as reader:
        return (await reader.ends())[0]


async def test_records_carry_the_time_of_the_clock(
    memory_log: MemoryLog, clock: ManualClock
) -> None:
    await memory_log.create_topics(["t"], 1)
    async with memory_log.producer() as producer:
        for seconds in (0.0, 1.5, -2.0):
            clock.advance(seconds)
            await producer.publish([Output("t", None, b"")])

    async with memory_log.reader("t", "beginning") as reader:
        polled = await reader.poll(max_records=10, timeout=0)
    assert [r.timestamp for r in polled[TP]] == [1_000_000_000, 1_000_001_500, 999_999_500]


async def test_a_clock_moves_only_when_it_is_told_to(clock: ManualClock) -> None:
    assert clock.now() == clock.now()
    before = clock.now()
    clock.advance(2.5)
    assert clock.now() - before == 2.5


@pytest.mark.parametrize(("after", "appended"), [(False, 0), (True, 1)])
async def test_a_publish_fails_before_or_after_its_effect(
    memory_log: MemoryLog, *, after: bool, appended: int
) -> None:
    await memory_log.create_topics(["t"], 1)
    memory_log.faults.append(Fault("publish", GONE, after=after))
    async with memory_log.producer() as producer:
        with pytest.raises(LogUnavailableError, match="gone"):
            await producer.publish([Output("t", None, b"x")])
        assert await end(memory_log) == appended

        await producer.publish([Output("t", None, b"x")])
        assert await end(memory_log) == appended + 1


@pytest.mark.parametrize(("after", "committed"), [(False, {}), (True, {TP: 1})])
async def test_a_fault_takes_outputs_and_offsets_together(
    memory_log: MemoryLog, *, after: bool, committed: dict[TopicPartition, int]
) -> None:
    await memory_log.create_topics(["t"], 1)
    async with memory_log.producer() as producer, memory_log.consumer("g", ["t"]) as consumer:
        await producer.publish([Output("t", None, b"x")])
        await consumer.poll(max_records=1, timeout=0)
        memory_log.faults.append(Fault("publish", GONE, after=after))
        with pytest.raises(LogUnavailableError, match="gone"):
            await consumer.publish([Output("t", None, b"y")], {TP: 1}, consumer.assignment.epoch)

        assert await consumer.committed() == committed
        assert await end(memory_log) == (2 if after else 1)


async def test_faults_happen_in_order_and_each_to_its_own_operation(memory_log: MemoryLog) -> None:
    await memory_log.create_topics(["t"], 1)
    memory_log.faults += [
        Fault("poll", GONE),
        Fault("publish", OutputError("full")),
        Fault("poll", GONE, after=True),
    ]
    async with memory_log.producer() as producer, memory_log.consumer("g", ["t"]) as consumer:
        await producer.publish([Output("t", None, b"x")])
        with pytest.raises(LogUnavailableError, match="gone"):
            await consumer.poll(max_records=1, timeout=0)
        assert len((await consumer.poll(max_records=1, timeout=0))[TP]) == 1
        with pytest.raises(OutputError, match="full"):
            await producer.publish([Output("t", None, b"x")])
        with pytest.raises(LogUnavailableError, match="gone"):
            await consumer.poll(max_records=1, timeout=0)

        assert await consumer.poll(max_records=1, timeout=0) == {}
        assert not memory_log.faults


async def test_a_record_lost_with_a_failed_poll_comes_again_after_coming_back(
    memory_log: MemoryLog,
) -> None:
    await memory_log.create_topics(["t"], 1)
    await publish_one(memory_log)
    memory_log.faults.append(Fault("poll", GONE, after=True))
    async with memory_log.consumer("g", ["t"]) as consumer:
        with pytest.raises(LogUnavailableError, match="gone"):
            await consumer.poll(max_records=1, timeout=0)
    async with memory_log.consumer("g", ["t"]) as consumer:
        assert list(await consumer.poll(max_records=1, timeout=0)) == [TP]


async def publish_one(log: MemoryLog) -> None:
    async with log.producer() as producer:
        await producer.publish([Output("t", None, b"x")])


async def test_a_group_is_silent_since_the_last_poll_of_any_member() -> None:
    now = 100.0
    log = MemoryLog(monotonic=lambda: now)
    await log.create_topics(["t"], 2)
    async with log.consumer("g", ["t"]) as one:
        now += 3.0
        async with log.consumer("g", ["t"]) as two:
            now += 4.0
            assert await log.silence("g") == 4.0
            await one.poll(max_records=0, timeout=0)
            now += 2.0
            assert await log.silence("g") == 2.0
            await two.poll(max_records=0, timeout=0)
            assert await log.silence("g") == 0.0
        assert await log.silence("g") == 2.0
    assert await log.silence("g") == math.inf


async def test_who_asks_for_silence_meets_faults() -> None:
    log = MemoryLog()
    log.faults.append(Fault("silence", GONE))
    with pytest.raises(LogUnavailableError, match="gone"):
        await log.silence("g")
    assert not log.groups
