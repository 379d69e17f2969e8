"""The in-memory log: the same contract without a disk, with faults on demand. The test kit.

A fault is data: ``log.faults.append(Fault("publish", LogUnavailableError("gone"), after=True))``
makes the next publish append its records and then fail, as a broker does whose acknowledgement is
lost.
"""

import zlib
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from itertools import count
from typing import Literal, NamedTuple

import anyio
import anyio.lowlevel

from schemas.errors import FencedError, OutputError, RoadstreamError, UsageError
from streams.clock import Clock, SystemClock
from streams.log import (
    Assignment,
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
    in_topic_order,
)


class MemoryRecord(NamedTuple):
    """A record held in memory."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int


class Fault(NamedTuple):
    """The next call of ``operation`` raises ``error``: before its effect, or ``after`` it."""

    operation: Literal["publish", "poll"]
    error: RoadstreamError
    after: bool = False


class _Group:
    """Members in order of joining; owners per partition; a generation per change of members."""

    def __init__(self) -> None:
        self.members: list[str] = []
        self.instances: dict[str, object] = {}
        self.owners: dict[int, object] = {}
        self.generation = 0
        self.offsets: dict[TopicPartition, int] = {}

    def join(self, member: str, instance: object) -> None:
        if member in self.instances:
            self.give_up(self.instances[member])
        else:
            self.members = sorted([*self.members, member])
        self.instances[member] = instance
        self.generation += 1

    def leave(self, member: str, instance: object) -> None:
        self.give_up(instance)
        if self.instances.get(member) is instance:
            del self.instances[member]
            self.members.remove(member)
            self.generation += 1

    def give_up(self, instance: object) -> None:
        self.owners = {p: owner for p, owner in self.owners.items() if owner is not instance}

    def share(self, member: str, instance: object, partitions: int) -> list[int]:
        if self.instances.get(member) is not instance:
            return []
        rank = self.members.index(member)
        return [p for p in range(partitions) if p % len(self.members) == rank]


class MemoryLog(Log):
    """A log in this process's memory; every consumer, producer and reader shares the object."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.faults: deque[Fault] = deque()
        self.topics: dict[str, list[list[MemoryRecord]]] = {}
        self.groups: dict[str, _Group] = {}
        self._grown = anyio.Event()

    async def __aenter__(self) -> "MemoryLog":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        pass

    async def create_topics(self, topics: Collection[str], partitions: int) -> None:
        for name in topics:
            self.topics.setdefault(name, [[] for _ in range(partitions)])

    async def partition_counts(self, topics: Collection[str]) -> Mapping[str, int]:
        return {name: len(parts) for name, parts in self.topics.items() if name in topics}

    async def lag(self, group: str, topics: Collection[str]) -> int:
        committed = self.group(group).offsets
        return sum(
            len(records) - committed.get(TopicPartition(name, partition), 0)
            for name in topics
            for partition, records in enumerate(self.topics[name])
        )

    def group(self, name: str) -> _Group:
        """Return the group of that name, made on first use."""
        return self.groups.setdefault(name, _Group())

    def append(self, outputs: Sequence[Output]) -> None:
        """Append records and wake those who wait for some."""
        now = int(self.clock.now() * 1000)
        places = [self._place(output) for output in outputs]  # all or nothing
        for records, (_, key, value, _) in zip(places, outputs, strict=True):
            records.append(MemoryRecord(len(records), key, value, now))
        self._grown.set()
        self._grown = anyio.Event()

    def _place(self, output: Output) -> list[MemoryRecord]:
        if output.topic not in self.topics:
            raise UsageError(f"there is no topic {output.topic}")
        parts, partition = self.topics[output.topic], output.partition
        if partition is None:
            partition = zlib.crc32(output.key or b"") % len(parts)
        if not 0 <= partition < len(parts):
            raise OutputError(f"partition {partition}: expected 0 to {len(parts) - 1}")
        return parts[partition]

    @contextmanager
    def faulty(self, operation: str) -> Iterator[None]:
        """Raise the next fault if it is for this operation."""
        fault = self.faults[0] if self.faults and self.faults[0].operation == operation else None
        if fault is not None:
            self.faults.popleft()
            if not fault.after:
                raise fault.error
        yield
        if fault is not None:
            raise fault.error

    async def read_on(
        self,
        positions: dict[TopicPartition, int],
        topics: Sequence[str],
        max_records: int,
        timeout: float,
    ) -> Polled:
        """Read from ``positions`` and move them on, waiting up to ``timeout`` for the first."""
        await anyio.lowlevel.checkpoint()
        with self.faulty("poll"), anyio.move_on_after(timeout):
            while True:
                grown = self._grown
                if found := self._take(positions, topics, max_records):
                    return found
                await grown.wait()
        return {}

    def _take(
        self, positions: dict[TopicPartition, int], topics: Sequence[str], max_records: int
    ) -> Polled:
        found: dict[TopicPartition, list[MemoryRecord]] = {}
        for tp, at in in_topic_order(positions, topics):
            if max_records <= 0:
                break
            records = self.topics[tp.topic][tp.partition][at : at + max_records]
            if records:
                found[tp] = records
                max_records -= len(records)
                del positions[tp]
                positions[tp] = at + len(records)
        return found

    @asynccontextmanager
    async def _producer(self) -> AsyncIterator[Producer]:
        yield _MemoryProducer(self)

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
        return self._consumer(group, topics, listener, member_id or f"member-{next(_serial)}")

    @asynccontextmanager
    async def _consumer(
        self,
        group: str,
        topics: Collection[str],
        listener: GroupListener | None,
        member_id: str,
    ) -> AsyncIterator[Consumer]:
        missing = sorted(set(topics) - set(self.topics))
        if missing:
            raise UsageError(f"there is no topic {', '.join(missing)}")
        if len({len(self.topics[topic]) for topic in topics}) > 1:
            raise UsageError(f"expected topics of equal partition counts, got {list(topics)}")
        consumer = _MemoryConsumer(self, group, list(topics), listener, member_id)
        self.group(group).join(member_id, consumer)
        try:
            yield consumer
        finally:
            self.group(group).leave(member_id, consumer)

    def reader(
        self, topic: str, start: Start | Mapping[int, int]
    ) -> AbstractAsyncContextManager[Reader]:
        return self._reader(topic, start)

    @asynccontextmanager
    async def _reader(self, topic: str, start: Start | Mapping[int, int]) -> AsyncIterator[Reader]:
        if topic not in self.topics:
            raise UsageError(f"there is no topic {topic}")
        yield _MemoryReader(
            self,
            topic,
            {
                TopicPartition(topic, partition): len(records)
                if start == "end"
                else (0 if start == "beginning" else start.get(partition, 0))
                for partition, records in enumerate(self.topics[topic])
            },
        )


_serial = count()


class _MemoryProducer(Producer):
    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    async def publish(self, outputs: Sequence[Output]) -> None:
        await anyio.lowlevel.checkpoint()
        with self._log.faulty("publish"):
            self._log.append(outputs)


class _MemoryConsumer(Consumer):
    def __init__(
        self,
        log: MemoryLog,
        group: str,
        topics: list[str],
        listener: GroupListener | None,
        member: str,
    ) -> None:
        self._log, self._topics, self._listener = log, topics, listener
        self._group, self._group_name, self._member = log.group(group), group, member
        self._generation, self._complete = -1, False
        self._positions: dict[TopicPartition, int] = {}
        self._assignment = Assignment(0, frozenset())

    @property
    def assignment(self) -> Assignment:
        return self._assignment

    async def poll(
        self, *, max_records: int, timeout: float, topics: Collection[str] | None = None
    ) -> Polled:
        await self._follow_group()
        if topics is None:
            return await self._log.read_on(self._positions, self._topics, max_records, timeout)
        some = {tp: at for tp, at in self._positions.items() if tp.topic in topics}
        found = await self._log.read_on(some, self._topics, max_records, timeout)
        self._positions.update(some)
        return found

    async def _follow_group(self) -> None:
        group = self._group
        if group.generation == self._generation and self._complete:
            return
        self._generation = group.generation
        owned = self._assignment.partitions
        if owned and self._listener is not None:
            await self._listener.revoked(owned)
        group.give_up(self)
        share = group.share(self._member, self, len(self._log.topics[self._topics[0]]))
        mine = [partition for partition in share if partition not in group.owners]
        self._complete = len(mine) == len(share)
        group.owners.update(dict.fromkeys(mine, self))
        assigned = frozenset(TopicPartition(t, p) for t in self._topics for p in mine)
        if not owned and not assigned:
            return
        self._assignment = Assignment(self._assignment.epoch + 1, assigned)
        self._positions = {tp: group.offsets.get(tp, 0) for tp in sorted(assigned)}
        if self._listener is not None:
            await self._listener.assigned(assigned)

    async def publish(self, outputs: Sequence[Output], commit: Offsets, epoch: int) -> None:
        await anyio.lowlevel.checkpoint()
        with self._log.faulty("publish"):
            owners = self._group.owners
            if epoch != self._assignment.epoch or any(
                owners.get(tp.partition) is not self for tp in commit
            ):
                raise FencedError(
                    f"{self._group_name}: {self._member} no longer owns what it commits "
                    f"(epoch {epoch}, now {self._assignment.epoch})"
                )
            self._log.append(outputs)
            for tp, offset in commit.items():
                self._group.offsets[tp] = max(offset, self._group.offsets.get(tp, 0))
            if commit and self._listener is not None:
                self._listener.committed(commit)

    async def committed(self) -> Offsets:
        owned = self._assignment.partitions
        return {tp: at for tp, at in self._group.offsets.items() if tp in owned}


class _MemoryReader(Reader):
    def __init__(self, log: MemoryLog, topic: str, positions: dict[TopicPartition, int]) -> None:
        self._log, self._topic, self._positions = log, topic, positions

    @property
    def positions(self) -> Mapping[int, int]:
        return {tp.partition: offset for tp, offset in self._positions.items()}

    async def poll(self, *, max_records: int, timeout: float) -> Polled:
        return await self._log.read_on(self._positions, [self._topic], max_records, timeout)

    async def ends(self) -> Mapping[int, int]:
        return {
            partition: len(records)
            for partition, records in enumerate(self._log.topics[self._topic])
        }
