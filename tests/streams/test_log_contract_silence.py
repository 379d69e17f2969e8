"""The contract of ``roadstream.streams.log``, sentence by sentence: for how long a group is silent.

A member that dies or stands still is a process of its own here; on the log in memory a test says
that it does so.
"""

import math
import signal

import anyio
import pytest

from roadstream.streams.forwarding import ForwardingLog
from roadstream.streams.log import Log
from roadstream.streams.memory.log import MemoryLog
from tests.kits.contract import DEADLINE, Member, owning, together
from tests.kits.polling_member import polling_member

# Of a log that notes polls: an eighth of ten seconds. Then what a slow machine takes.
NOTED_EVERY, SLOW = 1.25, 5.0


def in_memory(log: Log) -> MemoryLog | None:
    inner = log.inner if isinstance(log, ForwardingLog) else log
    return inner if isinstance(inner, MemoryLog) else None


async def silent_longer(log: Log, group: str, seconds: float) -> None:
    with anyio.fail_after(DEADLINE):
        while await log.silence(group) <= seconds:  # noqa: ASYNC110 (only asking tells)
            await anyio.sleep(0.05)


async def test_a_group_that_never_was_is_silent_for_ever_and_asking_makes_none(
    log: Log, topic: str
) -> None:
    async with log:
        await log.create_topics([topic], 1)
        assert await log.silence(topic) == math.inf
        assert await log.silence(topic) == math.inf
        assert await log.committed(topic, [topic]) == {}


async def test_a_group_whose_member_polls_is_not_silent(log: Log, topic: str) -> None:
    async with log:
        await log.create_topics([topic], 2)
        async with log.consumer(topic, [topic]) as consumer:
            await owning(consumer, 2)
            until = anyio.current_time() + 2 * NOTED_EVERY
            while anyio.current_time() < until:
                await consumer.poll(max_records=1, timeout=0.1)
                assert await log.silence(topic) < NOTED_EVERY + SLOW
            assert await log.silence(f"{topic}-other") == math.inf


async def test_a_group_without_members_since_they_left_is_silent_for_ever(
    log: Log, topic: str
) -> None:
    async with log:
        await log.create_topics([topic], 2)
        for name in (None, "named"):
            async with log.consumer(topic, [topic], member_id=name) as consumer:
                await owning(consumer, 2)
                assert await log.silence(topic) < SLOW
            assert await log.silence(topic) == math.inf


async def test_a_group_is_never_silent_while_members_come_and_go(log: Log, topic: str) -> None:
    async with log:
        await log.create_topics([topic], 2)
        heard: list[float] = []

        async def listen(scope: anyio.CancelScope) -> None:
            with scope:
                while True:
                    heard.append(await log.silence(topic))
                    await anyio.sleep(0.02)

        async with log.consumer(topic, [topic]) as consumer, anyio.create_task_group() as tasks:
            await owning(consumer, 2)
            first, listening = Member(consumer), anyio.CancelScope()
            tasks.start_soon(listen, listening)
            async with log.consumer(topic, [topic]) as other:
                second = Member(other)
                await together(lambda: len(second.partitions) == 1, first, second)
            await together(lambda: len(first.partitions) == 2, first)
            listening.cancel()
        assert heard
        assert max(heard) < NOTED_EVERY + SLOW


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
async def test_a_group_whose_only_member_dies_or_stands_still_falls_silent(
    log: Log, topic: str, how: signal.Signals
) -> None:
    async with log:
        await log.create_topics([topic], 2)
        if (memory := in_memory(log)) is not None:
            async with log.consumer(topic, [topic], member_id="mute") as consumer:
                await owning(consumer, 2)
                assert await log.silence(topic) < SLOW
                memory.crash("mute") if how == signal.SIGKILL else memory.pause("mute")
                await silent_longer(log, topic, 0.2)
                memory.resume("mute")
            return
        async with polling_member(log, topic) as process:
            assert await log.silence(topic) < SLOW
            process.send_signal(how)
            # Longer than a poll that takes place is reported late.
            await silent_longer(log, topic, NOTED_EVERY + 1.0)
