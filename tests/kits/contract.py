"""What the contract tests share: logs of each kind, members of a group, and patient polling."""

from collections.abc import Callable, Collection
from pathlib import Path

import anyio
import pytest

from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.log import (
    Consumer,
    Log,
    Offsets,
    Output,
    Polled,
    Reader,
    Record,
    TopicPartition,
)
from roadstream.streams.memory.log import MemoryLog
from roadstream.streams.topics.namespace import NamespacedLog

DEADLINE = 40.0
"""Seconds after which a condition that never comes true fails a test."""

ALL = [
    "memory",
    "embedded",
    pytest.param("kafka", marks=pytest.mark.kafka),
    "namespaced memory",
    "namespaced embedded",
    pytest.param("namespaced kafka", marks=pytest.mark.kafka),
]
ATOMIC = ["memory", "embedded", "namespaced embedded"]


def make_log(kind: str, request: pytest.FixtureRequest, folder: Path) -> Log:
    if kind.startswith("namespaced "):
        inner = make_log(kind.removeprefix("namespaced "), request, folder)
        return NamespacedLog(inner, "other")
    if kind == "memory":
        return MemoryLog()
    if kind == "embedded":
        return EmbeddedLog(folder / "log.db")
    return kafka_log(request.getfixturevalue("kafka_bootstrap"))


def kafka_log(servers: str) -> Log:
    from roadstream.streams.kafka.log import KafkaLog, KafkaSettings

    return KafkaLog(
        KafkaSettings(
            bootstrap_servers=servers, session_timeout=6.0, drain_timeout=5.0, stop_timeout=3.0
        )
    )


class Member:
    """Polls a consumer and notes what came; commits it at once unless told not to."""

    def __init__(self, consumer: Consumer, *, commits: bool = True) -> None:
        self.consumer, self.commits = consumer, commits
        self.values: list[bytes] = []

    async def step(self) -> None:
        polled = await self.consumer.poll(max_records=50, timeout=0.1)
        self.values += values(polled)
        if self.commits:
            await self.consumer.publish([], ends(polled), self.consumer.assignment.epoch)

    @property
    def partitions(self) -> set[int]:
        return {tp.partition for tp in self.consumer.assignment.partitions}


class Listener:
    """A listener to whom nothing matters; tests say what does."""

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        pass

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        pass

    def committed(self, offsets: Offsets) -> None:
        pass

    def missed(self, tp: TopicPartition, first: int, oldest: int) -> None:
        pass


class Heard(Listener):
    """Notes which partitions come and go, and the epoch at that moment."""

    def __init__(self) -> None:
        self.consumer: Consumer | None = None
        self.calls: list[tuple[str, frozenset[TopicPartition], int]] = []

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        self._note("revoked", partitions)

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        self._note("assigned", partitions)

    def _note(self, what: str, partitions: Collection[TopicPartition]) -> None:
        assert self.consumer is not None
        self.calls.append((what, frozenset(partitions), self.consumer.assignment.epoch))


class Told(Listener):
    """Notes the offsets that were acknowledged and the records that were missed."""

    def __init__(self) -> None:
        self.acknowledged: list[dict[TopicPartition, int]] = []
        self.gone: list[tuple[TopicPartition, int, int]] = []

    def committed(self, offsets: Offsets) -> None:
        self.acknowledged.append(dict(offsets))

    def missed(self, tp: TopicPartition, first: int, oldest: int) -> None:
        self.gone.append((tp, first, oldest))


async def truncate(log: Log, tp: TopicPartition, before: int) -> None:
    """Let go of the records below an offset, as retention does, whoever has not read them yet."""
    if isinstance(log, MemoryLog):
        log.truncate(*tp, before)
        return
    async with log.consumer("retention", [tp.topic], member_id="retention") as other:
        with anyio.fail_after(DEADLINE):
            while tp not in other.assignment.partitions:
                await other.poll(max_records=0, timeout=0)
        await other.publish([], {tp: before}, other.assignment.epoch)
    await log.trim([tp.topic], "retention")


def values(polled: Polled) -> list[bytes]:
    return [record.value or b"" for records in polled.values() for record in records]


def ends(polled: Polled) -> dict[TopicPartition, int]:
    return {tp: records[-1].offset + 1 for tp, records in polled.items()}


def numbered(topic: str, numbers: range, partitions: int) -> list[Output]:
    return [Output(topic, None, b"%d" % i, i % partitions) for i in numbers]


def texts(numbers: range) -> list[bytes]:
    return [b"%d" % i for i in numbers]


def number(value: bytes) -> int:
    return int(value)


async def take(source: Consumer | Reader, count: int) -> list[tuple[TopicPartition, Record]]:
    """Poll until ``count`` records came, and one poll more that must bring none."""
    found: list[tuple[TopicPartition, Record]] = []
    with anyio.fail_after(DEADLINE):
        while len(found) < count:
            polled = await source.poll(max_records=1000, timeout=0.2)
            found += [(tp, record) for tp, records in polled.items() for record in records]
    assert await source.poll(max_records=1000, timeout=0.1) == {}
    assert len(found) == count
    return found


async def owning(consumer: Consumer, count: int) -> None:
    """Keep the membership alive until the consumer owns ``count`` partitions of its topics."""
    with anyio.fail_after(DEADLINE):
        while len(consumer.assignment.partitions) != count:
            await consumer.poll(max_records=0, timeout=0)
            await anyio.sleep(0.005)


async def together(condition: Callable[[], bool], *members: Member) -> None:
    """Let the members poll side by side until the condition holds."""
    with anyio.fail_after(DEADLINE):
        while not condition():
            async with anyio.create_task_group() as tasks:
                for member in members:
                    tasks.start_soon(member.step)
