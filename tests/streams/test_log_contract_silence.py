"""The contract of ``roadstream.streams.log``, sentence by sentence: for how long a group is silent.

A member that dies or stands still is a process of its own here; on the log in memory a test says
that it does so.
"""

import math
import signal

import anyio
import pytest

from roadstream.streams.log import Log
from roadstream.streams.memory.log import MemoryLog
from tests.kits.contract import DEADLINE, Member, owning, together
from tests.kits.polling_member import polling_member

# Of a log that notes polls: an eighth of ten seconds. Then what a slow machine takes.
NOTED_EVERY, SLOW = 1.25, 5.0


# A namespace changes nothing of how long something takes.
PLAIN = pytest.mark.parametrize(
    "log",
    ["memory", "embedded", pytest.param("kafka", marks=pytest.mark.kafka)],
    indirect=True,
)


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


@PLAIN
async def test_a_group_whose_member_polls_is_not_silent(log: Log, topic: str) -> None:
    async with log:
        await log.create_topics([topic], 2)
        async with log.consumer(topic, [topic]) as consumer:
            await owning(consumer, 2)
            until = anyio.current_time() + 1.5 * NOTED_EVERY
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


@PLAIN
async def test_a_group_whose_only_member_dies_or_stands_still_falls_silent(
    log: Log, topic: str
) -> None:
    killed, stopped = f"{topic}-killed", f"{topic}-stopped"
    async with log:
        await log.create_topics([killed, stopped], 2)
        if isinstance(log, MemoryLog):
            async with (
                log.consumer(killed, [killed], member_id="killed"),
                log.consumer(stopped, [stopped], member_id="stopped"),
            ):
                log.crash("killed")
                log.pause("stopped")
                await silent_longer(log, killed, 0.2)
                await silent_longer(log, stopped, 0.2)
                log.resume("stopped")
            return
        async with polling_member(log, killed) as one, polling_member(log, stopped) as other:
            assert max(await log.silence(killed), await log.silence(stopped)) < SLOW
            one.kill()
            other.send_signal(signal.SIGSTOP)
            # Longer than a poll that takes place is reported late.
            await silent_longer(log, killed, NOTED_EVERY + 1.0)
            await silent_longer(log, stopped, NOTED_EVERY + 1.0)
