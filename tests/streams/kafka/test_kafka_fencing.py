"""Work that belongs to another member by now is refused before anything of it is sent."""

import signal
import sys
import uuid
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

import anyio
import pytest
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from roadstream.schemas.errors import FencedError
from roadstream.streams.kafka.consumer import KafkaConsumer
from roadstream.streams.kafka.log import KafkaLog, KafkaSettings
from roadstream.streams.log import Log, Output, TopicPartition
from tests.kits.contract import Listener, Member, numbered, owning, together

pytestmark = pytest.mark.kafka

SESSION = 6.0
"""Kafka's own least session timeout."""


@pytest.fixture
def settings(kafka_bootstrap: str) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=kafka_bootstrap,
        session_timeout=SESSION,
        drain_timeout=2.0,
        stop_timeout=2.0,
    )


async def count(log: Log, topic: str) -> int:
    async with log.reader(topic, "end") as reader:
        return sum((await reader.ends()).values())


async def test_a_stale_epoch_publishes_nothing(settings: KafkaSettings, topic: str) -> None:
    async with KafkaLog(settings) as log, log.producer() as producer:
        await log.create_topics([topic, f"{topic}-out"], 2)
        await producer.publish(numbered(topic, range(10), 2))
        async with log.consumer(topic, [topic]) as consumer:
            await owning(consumer, 2)
            before = consumer.assignment
            async with log.consumer(topic, [topic]) as other:
                one, two = Member(consumer, commits=False), Member(other, commits=False)
                await together(lambda: len(one.partitions) == 1 == len(two.partitions), one, two)

                with pytest.raises(FencedError, match=f"epoch {before.epoch} has ended"):
                    await consumer.publish(
                        [Output(f"{topic}-out", None, b"late", 0)],
                        dict.fromkeys(before.partitions, 5),
                        before.epoch,
                    )
                await consumer.publish([], {}, before.epoch)  # there is nothing to fence

                assert log.stats.fenced == 1
        assert await count(log, f"{topic}-out") == 0
        assert await log.lag(topic, [topic]) == 10


async def test_a_listener_that_hangs_holds_the_group_up_for_the_drain_budget_only(
    settings: KafkaSettings, topic: str
) -> None:
    class Hanging(Listener):
        async def revoked(self, partitions: Collection[TopicPartition]) -> None:
            epoch = consumer.assignment.epoch
            with anyio.CancelScope(shield=True):  # not even cancellation moves it
                await released.wait()
            late = [Output(f"{topic}-out", None, b"late", 0)]
            with pytest.raises(FencedError, match="its time to give them up is over"):
                await consumer.publish(late, dict.fromkeys(partitions, 1), epoch)
            refused.set()

    async def poll_for_ever() -> None:
        while True:
            await consumer.poll(max_records=0, timeout=0.1)

    released, refused = anyio.Event(), anyio.Event()
    async with KafkaLog(settings) as log:
        await log.create_topics([topic, f"{topic}-out"], 2)
        async with log.consumer(topic, [topic], listener=Hanging()) as consumer:
            await owning(consumer, 2)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(poll_for_ever)
                async with log.consumer(topic, [topic]) as other:
                    began = anyio.current_time()
                    await owning(other, 1)
                    waited = anyio.current_time() - began
                    released.set()
                    with anyio.fail_after(10):
                        await refused.wait()
                        while len(consumer.assignment.partitions) != 1:
                            await other.poll(max_records=0, timeout=0.1)
                tasks.cancel_scope.cancel()
        assert log.stats.drains_timed_out == 1
        assert await count(log, f"{topic}-out") == 0
    # A heartbeat until it is heard of, the budget, the last commit, and joining.
    assert waited < settings.drain_timeout + settings.stop_timeout + 3.0


class Unfound:
    """aiokafka's coordinator, whose broker a committer finds only when a test lets it."""

    def __init__(self, coordinator: Any) -> None:
        self._coordinator, self.found = coordinator, anyio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coordinator, name)

    async def ensure_coordinator_known(self) -> None:
        await self.found.wait()


async def test_a_commit_that_a_rebalance_overtook_does_not_reach_behind_the_next_owners(
    settings: KafkaSettings, topic: str
) -> None:
    async with KafkaLog(settings) as log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(20), 2))
        async with log.consumer(topic, [topic]) as consumer:
            assert isinstance(consumer, KafkaConsumer)
            await owning(consumer, 2)
            before = consumer.assignment
            committer = consumer.committer
            late = committer._coordinator = Unfound(committer._coordinator)
            await consumer.publish([], dict.fromkeys(before.partitions, 3), before.epoch)
            async with log.consumer(topic, [topic]) as other:
                one, heir = Member(consumer, commits=False), Member(other)
                await together(
                    lambda: len(one.partitions) == 1 == len(heir.partitions) and bool(heir.values),
                    one,
                    heir,
                )
                (inherited,) = other.assignment.partitions
                with anyio.fail_after(10):
                    while (await log.committed(topic, [topic])).get(inherited) != 10:
                        await one.step()
                        await heir.step()
                    late.found.set()  # and so it is sent, under the generation it belongs to
                    while log.stats.commits_dropped < 2:  # given up, then refused
                        await one.step()
                        await heir.step()

                assert await log.committed(topic, [topic]) == {inherited: 10}


async def test_a_frozen_member_is_fenced_and_comes_back(
    settings: KafkaSettings, topic: str
) -> None:
    async with KafkaLog(settings) as log, log.producer() as producer:
        await log.create_topics([topic, f"{topic}-out"], 1)
        await producer.publish(numbered(topic, range(10), 1))
        async with zombie(settings, topic) as (process, said):
            assert await said("holds") == 10
            process.send_signal(signal.SIGSTOP)
            async with log.consumer(topic, [topic]) as other:
                heir = Member(other)
                await together(lambda: len(heir.values) == 10, heir)
                await order(process)  # it lies in the pipe when the process wakes up
                process.send_signal(signal.SIGCONT)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(poll_for_ever, heir)
                    assert await said("fenced") == 1
                    tasks.cancel_scope.cancel()
            assert await said("back") == 1
            assert await said("freezes") == 1
            assert await count(log, f"{topic}-out") == 0
            assert await log.lag(topic, [topic]) == 0  # its commit did not reach back behind 10

            await producer.publish(numbered(topic, range(3), 1))
            await order(process)
            assert await said("worked") == 3
        assert await log.lag(topic, [topic]) == 0
        assert await count(log, f"{topic}-out") == 1


async def poll_for_ever(member: Member) -> None:
    while True:
        await member.step()


async def order(process: Process) -> None:
    assert process.stdin is not None
    await process.stdin.send(b"go\n")


class Said:
    """What a process says, line by line."""

    def __init__(self, process: Process) -> None:
        assert process.stdout is not None
        self._stream, self._text = TextReceiveStream(process.stdout), ""

    async def __call__(self, word: str) -> int:
        """Return the number of the next line, which must start with this word."""
        with anyio.fail_after(30):
            while "\n" not in self._text:
                self._text += await self._stream.receive()
        line, _, self._text = self._text.partition("\n")
        assert line.split()[0] == word
        return int(line.split()[1])


@asynccontextmanager
async def zombie(settings: KafkaSettings, topic: str) -> AsyncIterator[tuple[Process, Said]]:
    command = [sys.executable, "-m", "tests.kits.kafka_zombie"]
    arguments = [settings.bootstrap_servers, topic, str(settings.session_timeout)]
    root = Path(__file__).parents[3]
    process = await anyio.open_process([*command, *arguments], stdin=PIPE, stderr=None, cwd=root)
    try:
        yield process, Said(process)
        with anyio.fail_after(15):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.aclose()


@pytest.fixture
def topic() -> str:
    return f"f-{uuid.uuid4().hex[:12]}"
