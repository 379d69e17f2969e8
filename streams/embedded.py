"""The embedded log: topics, groups and offsets in one SQLite file, shared by several processes.

Outputs and offsets commit in one transaction, so on this log nothing is ever doubled by a crash.
What is in the file, ``embedded_store`` says; who owns which partition, ``embedded_group``.
"""

import os
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from pathlib import Path

import anyio

from schemas.errors import FencedError, UsageError
from streams.database import Database
from streams.embedded_group import Membership
from streams.embedded_store import MAX_PARTITIONS, SCHEMA, SCHEMA_VERSION, Store
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
)

# How often an idle poll looks: doubling from the first to the second.
POLL_FIRST, POLL_LAST = 0.001, 0.032


class EmbeddedLog(Log):
    """A log in one SQLite file on a local disk (not on a network file system: locks fail there)."""

    def __init__(self, path: Path, *, session_timeout: float = 10.0) -> None:
        self.database = Database(path)
        self.session_timeout = session_timeout
        self.store = Store(self.database)

    async def __aenter__(self) -> "EmbeddedLog":
        await self.database.run(self.database.open, SCHEMA, SCHEMA_VERSION)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.database.close()

    async def create_topics(self, topics: Collection[str], partitions: int) -> None:
        if not 1 <= partitions <= MAX_PARTITIONS:
            raise UsageError(f"expected 1 to {MAX_PARTITIONS} partitions, got {partitions}")
        await self.database.run(self.store.create_topics, topics, partitions)

    async def partition_counts(self, topics: Collection[str]) -> Mapping[str, int]:
        return await self.database.run(self.store.partition_counts, topics)

    async def lag(self, group: str, topics: Collection[str]) -> int:
        return await self.database.run(self.store.lag, group, topics)

    async def trim(self, topics: Collection[str], group: str) -> None:
        await self.database.run(self.store.trim, topics, group)

    def producer(self) -> AbstractAsyncContextManager[Producer]:
        return self._producer()

    @asynccontextmanager
    async def _producer(self) -> AsyncIterator[Producer]:
        yield _EmbeddedProducer(self)

    def consumer(
        self,
        group: str,
        topics: Collection[str],
        *,
        listener: GroupListener | None = None,
        member_id: str | None = None,
    ) -> AbstractAsyncContextManager[Consumer]:
        return self._consumer(group, topics, listener, member_id)

    @asynccontextmanager
    async def _consumer(
        self,
        group: str,
        topics: Collection[str],
        listener: GroupListener | None,
        member_id: str | None,
    ) -> AsyncIterator[Consumer]:
        member = member_id or f"{os.getpid()}-{next(_serial)}"
        membership = Membership(self.database, group, member, self.session_timeout)
        consumer = _EmbeddedConsumer(self, group, list(topics), membership, listener)
        await consumer.join()
        try:
            yield consumer
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(5):
                await self.database.run(membership.leave)

    def reader(
        self, topic: str, start: Start | Mapping[int, int]
    ) -> AbstractAsyncContextManager[Reader]:
        return self._reader(topic, start)

    @asynccontextmanager
    async def _reader(self, topic: str, start: Start | Mapping[int, int]) -> AsyncIterator[Reader]:
        ends = await self.database.run(self.store.ends, [topic])
        positions = {
            tp: end
            if start == "end"
            else max(first, 0 if start == "beginning" else start.get(tp.partition, 0))
            for tp, (first, end) in ends.items()
        }
        yield _EmbeddedReader(self, topic, positions)


_serial = count()


class _EmbeddedProducer(Producer):
    def __init__(self, log: EmbeddedLog) -> None:
        self._log = log

    async def publish(self, outputs: Sequence[Output]) -> None:
        await self._log.database.run(self._publish, outputs)

    def _publish(self, outputs: Sequence[Output]) -> None:
        with self._log.database.transaction():
            self._log.store.append(outputs)


async def _wait_for_records(
    log: EmbeddedLog,
    positions: dict[TopicPartition, int],
    topics: Sequence[str],
    max_records: int,
    timeout: float,
) -> Polled:
    """Read from ``positions`` and move them on; rotate them so that none starves."""
    pause = POLL_FIRST
    give_up_at = time.monotonic() + timeout
    while True:
        found: Polled = {}
        if max_records:
            found = await log.database.run(log.store.read, positions, topics, max_records)
        if found or time.monotonic() + pause > give_up_at:
            break
        await anyio.sleep(pause)
        pause = min(2 * pause, POLL_LAST)
    for tp, records in found.items():
        del positions[tp]
        positions[tp] = records[-1].offset + 1
    return found


class _EmbeddedConsumer(Consumer):
    def __init__(
        self,
        log: EmbeddedLog,
        group: str,
        topics: list[str],
        membership: Membership,
        listener: GroupListener | None,
    ) -> None:
        self._log, self._group, self._topics = log, group, topics
        self._membership, self._listener = membership, listener
        self._positions: dict[TopicPartition, int] = {}
        self._assignment = Assignment(0, frozenset())

    async def join(self) -> None:
        counts = await self._log.partition_counts(self._topics)
        missing = sorted(set(self._topics) - set(counts))
        if missing:
            raise UsageError(f"{self._log.database.path}: there is no topic {', '.join(missing)}")
        if len(set(counts.values())) > 1:
            raise UsageError(f"expected topics of equal partition counts, got {dict(counts)}")
        self._membership.partitions = next(iter(counts.values()))
        await self._log.database.run(self._membership.join)

    @property
    def assignment(self) -> Assignment:
        return self._assignment

    async def poll(
        self, *, max_records: int, timeout: float, topics: Collection[str] | None = None
    ) -> Polled:
        await self._follow_group()
        if topics is None:
            return await _wait_for_records(
                self._log, self._positions, self._topics, max_records, timeout
            )
        some = {tp: at for tp, at in self._positions.items() if tp.topic in topics}
        found = await _wait_for_records(self._log, some, self._topics, max_records, timeout)
        for tp in found:
            del self._positions[tp]
            self._positions[tp] = some[tp]
        return found

    async def _follow_group(self) -> None:
        change = await self._log.database.run(self._membership.follow)
        if change is None:
            return
        owned = self._assignment.partitions
        if owned and self._listener is not None:
            await self._listener.revoked(owned)
        partitions = await self._log.database.run(self._membership.exchange, change)
        assigned = frozenset(TopicPartition(t, p) for t in self._topics for p in partitions)
        if not owned and not assigned:
            return
        self._assignment = Assignment(self._assignment.epoch + 1, assigned)
        committed = await self.committed()
        firsts = await self._log.database.run(self._log.store.ends, self._topics)
        self._positions = {tp: max(committed.get(tp, 0), firsts[tp][0]) for tp in sorted(assigned)}
        if self._listener is not None:
            await self._listener.assigned(assigned)

    async def publish(self, outputs: Sequence[Output], commit: Offsets, epoch: int) -> None:
        await self._log.database.run(self._publish, outputs, commit, epoch)
        if commit and self._listener is not None:
            self._listener.committed(commit)

    def _publish(self, outputs: Sequence[Output], commit: Offsets, epoch: int) -> None:
        with self._log.database.transaction() as tx:
            owned = self._membership.owned(tx)
            lost = [tp for tp in commit if tp.partition not in owned]
            if lost or epoch != self._assignment.epoch:
                raise FencedError(
                    f"{self._group}: {self._membership.member} no longer owns what it commits "
                    f"(epoch {epoch}, now {self._assignment.epoch})"
                )
            self._log.store.append(outputs)
            self._log.store.commit(self._group, commit)

    async def committed(self) -> Offsets:
        found = await self._log.database.run(self._log.store.committed, self._group)
        return {tp: at for tp, at in found.items() if tp in self._assignment.partitions}


class _EmbeddedReader(Reader):
    def __init__(self, log: EmbeddedLog, topic: str, positions: dict[TopicPartition, int]) -> None:
        self._log, self._topic, self._positions = log, topic, positions

    @property
    def positions(self) -> Mapping[int, int]:
        return {tp.partition: offset for tp, offset in self._positions.items()}

    async def poll(self, *, max_records: int, timeout: float) -> Polled:
        return await _wait_for_records(
            self._log, self._positions, [self._topic], max_records, timeout
        )

    async def ends(self) -> Mapping[int, int]:
        ends = await self._log.database.run(self._log.store.ends, [self._topic])
        return {tp.partition: end for tp, (_, end) in ends.items()}
