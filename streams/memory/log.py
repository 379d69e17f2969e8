"""The in-memory log: the same contract without a disk, and with faults on demand for tests.

A fault is data: ``log.faults.append(Fault("publish", LogUnavailableError("gone"), after=True))``
makes the next publish append its records and then fail, as a broker does whose acknowledgement is
lost. Members crash, freeze and time out when a test says so (``crash``, ``pause``, the session
timeout on an injected clock), and retention passes whom it will (``truncate``).
"""

import math
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio

from roadstream.schemas.errors import RecordRefusedError, UsageError
from roadstream.streams.clock import Clock, SystemClock
from roadstream.streams.log import (
    Consumer,
    GroupListener,
    Log,
    Offsets,
    Output,
    Polled,
    Producer,
    Reader,
    Start,
    TopicPartition,
    Uncommitted,
)
from roadstream.streams.memory.broker import Latency, MemoryBroker
from roadstream.streams.memory.consumer import MemoryConsumer
from roadstream.streams.memory.store import Fault, MemoryPartition, MemoryRecord, Watcher

__all__ = ["Fault", "MemoryLog", "MemoryPartition", "MemoryRecord", "Watcher"]


class MemoryLog(Log):
    """A log in this process's memory; every consumer, producer and reader shares the object.

    Args:
        clock: Wall clock of the records' timestamps.
        session_timeout: Seconds without a poll after which the others put a member out.
        atomic: Whether outputs and offsets are one transaction, as on the embedded log. Without,
            it is as hard to live on as Kafka: outputs are on their way before the offsets, whatever
            becomes of the publisher meanwhile, and offsets follow with a later poll, or never.
        latency: Seconds a call takes, asked anew for every one.
        monotonic: Clock of sessions and delays, in seconds; only grows.

    Attributes:
        topics: The partitions of every topic.
        faults: The faults to come, in order.
        groups: The consumer groups.
        named: Its identity; a test may let it pass for another log.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        session_timeout: float = math.inf,
        atomic: bool = True,
        latency: Latency = lambda _: 0.0,
        monotonic: Callable[[], float] = anyio.current_time,
    ) -> None:
        self.broker = MemoryBroker(
            clock or SystemClock(), session_timeout, atomic, latency, monotonic
        )
        self.store, self.groups = self.broker.store, self.broker.groups
        self.topics, self.faults = self.store.topics, self.store.faults
        self._open: list[MemoryConsumer] = []
        self._joined, self.named = 0, f"memory:{uuid.uuid4().hex}"

    def crash(self, member: str) -> None:
        """Let a member die: it does nothing more, and its group learns of it by its silence."""
        for consumer in self._open:
            if consumer.member == member:
                consumer.crashed = True
        self.resume(member)

    def pause(self, member: str) -> None:
        """Freeze a member: its calls wait, before they have any effect, until ``resume``."""
        self.broker.pause(member)

    def resume(self, member: str) -> None:
        """Let a frozen member go on; that others may have its partitions, it does not know."""
        self.broker.resume(member)

    def truncate(self, topic: str, partition: int, before: int) -> None:
        """Let retention take the records of a partition below an offset."""
        self.topics[topic][partition].truncate(before)

    async def __aenter__(self) -> "MemoryLog":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        pass

    async def create_topics(self, topics: Collection[str], partitions: int) -> None:
        self.store.create(topics, partitions)

    async def partition_counts(self, topics: Collection[str]) -> Mapping[str, int]:
        return {name: len(parts) for name, parts in self.topics.items() if name in topics}

    async def uncommitted(self, group: str, topics: Collection[str]) -> Uncommitted:
        fault = await self.broker.call("lag")
        found = self.store.uncommitted(topics, self.broker.group(group).offsets)
        if fault.error is not None:
            raise fault.error
        return found

    async def committed(self, group: str, topics: Collection[str]) -> Offsets:
        offsets = self.broker.group(group).offsets
        return {tp: at for tp, at in offsets.items() if tp.topic in topics}

    async def silence(self, group: str) -> float:
        fault = await self.broker.call("silence")
        if fault.error is not None:
            raise fault.error
        found = self.groups.get(group)
        return math.inf if found is None else found.silence(self.broker.monotonic())

    async def commit(self, group: str, offsets: Offsets) -> None:
        self.broker.group(group).offsets.update(offsets)

    async def identity(self) -> str:
        return self.named

    async def trim(self, topics: Collection[str], group: str) -> None:
        for tp, offset in self.broker.group(group).offsets.items():
            if tp.topic in topics:
                self.truncate(*tp, offset)

    def append(self, outputs: Sequence[Output]) -> None:
        """Append records at once, as somebody outside does."""
        self.store.append(outputs)

    @asynccontextmanager
    async def _producer(self) -> AsyncIterator[Producer]:
        yield _MemoryProducer(self.broker)

    def producer(self) -> AbstractAsyncContextManager[Producer]:
        return self._producer()

    def consumer(
        self,
        group: str,
        topics: Collection[str],
        *,
        listener: GroupListener | None = None,
        member_id: str | None = None,
    ) -> AbstractAsyncContextManager[Consumer]:
        return self._consumer(group, list(topics), listener, member_id)

    @asynccontextmanager
    async def _consumer(
        self,
        group: str,
        topics: list[str],
        listener: GroupListener | None,
        member_id: str | None,
    ) -> AsyncIterator[Consumer]:
        missing = sorted(set(topics) - set(self.topics))
        if missing:
            raise UsageError(f"there is no topic {', '.join(missing)}")
        if len({len(self.topics[topic]) for topic in topics}) > 1:
            raise UsageError(f"expected topics of equal partition counts, got {topics}")
        self._joined += 1
        consumer = MemoryConsumer(
            self.broker, group, topics, listener, member_id or f"member-{self._joined}"
        )
        self._open.append(consumer)
        try:
            yield consumer
        finally:
            self._open.remove(consumer)
            consumer.leave()

    def reader(
        self, topic: str, start: Start | Mapping[int, int]
    ) -> AbstractAsyncContextManager[Reader]:
        return self._reader(topic, start)

    @asynccontextmanager
    async def _reader(self, topic: str, start: Start | Mapping[int, int]) -> AsyncIterator[Reader]:
        if topic not in self.topics:
            raise UsageError(f"there is no topic {topic}")
        self.store.settle()
        positions: dict[TopicPartition, int] = {}
        for number, partition in enumerate(self.topics[topic]):
            wanted = 0 if isinstance(start, str) else start.get(number, 0)
            at = max(partition.first, partition.end if start == "end" else wanted)
            at = min(partition.end, at)
            positions[TopicPartition(topic, number)] = at
        yield _MemoryReader(self.broker, topic, positions)


class _MemoryProducer(Producer):
    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def publish(self, outputs: Sequence[Output]) -> None:
        fault = await self._broker.call("publish")
        outputs, refused = self._broker.store.within_limits(outputs)
        await self._broker.append(outputs, fault, None)
        if fault.error is not None:
            raise fault.error
        if refused:
            raise RecordRefusedError(refused)


class _MemoryReader(Reader):
    def __init__(
        self, broker: MemoryBroker, topic: str, positions: dict[TopicPartition, int]
    ) -> None:
        self._broker, self._topic, self._positions = broker, topic, positions

    @property
    def positions(self) -> Mapping[int, int]:
        return {tp.partition: offset for tp, offset in self._positions.items()}

    async def poll(self, *, max_records: int, timeout: float) -> Polled:
        fault = await self._broker.call("poll")
        if fault.delay:
            await anyio.sleep(min(fault.delay, timeout))
            if fault.delay > timeout:
                return {}
        found = await self._broker.store.read_on(
            self._positions, [self._topic], max_records, timeout, lambda *_: None
        )
        if fault.error is not None:
            raise fault.error
        return found

    async def ends(self) -> Mapping[int, int]:
        self._broker.store.settle()
        return {n: part.end for n, part in enumerate(self._broker.store.topics[self._topic])}
