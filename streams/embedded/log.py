"""The embedded log: topics, groups and offsets in one SQLite file, shared by several processes.

Outputs and offsets commit in one transaction, so on this log nothing is ever doubled by a crash.
What is in the file, ``embedded_store`` says; who owns which partition, ``embedded_group``.
"""

import os
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from itertools import count
from pathlib import Path

import anyio

from roadstream.schemas.errors import RunError, UsageError
from roadstream.streams.database import BUSY_TIMEOUT, Database
from roadstream.streams.embedded.consumer import EmbeddedConsumer, EmbeddedReader
from roadstream.streams.embedded.group import EmbeddedStats, Membership, silence
from roadstream.streams.embedded.store import (
    MAX_PARTITIONS,
    MIGRATIONS,
    SCHEMA,
    SCHEMA_VERSION,
    Store,
)
from roadstream.streams.log import (
    Consumer,
    GroupListener,
    Log,
    Offsets,
    Output,
    Producer,
    Reader,
    Start,
    Uncommitted,
)

# How long leaving a group may take when the file is locked.
LEAVE_TIMEOUT = 5.0


class EmbeddedLog(Log):
    """A log in one SQLite file on a local disk (not on a network file system: locks fail there).

    Args:
        path: The file, made if there is none.
        session_timeout: Seconds without a heartbeat after which a group member may be declared
            dead and its partitions given to others.
        busy_timeout: Seconds that a call waits while another process holds the file's lock.

    Attributes:
        stats: Counters since this process opened it.
    """

    def __init__(
        self, path: Path, *, session_timeout: float = 10.0, busy_timeout: float = BUSY_TIMEOUT
    ) -> None:
        self.stats = EmbeddedStats()
        self.database = Database(path, busy_timeout=busy_timeout, stats=self.stats)
        self.session_timeout = session_timeout
        self.store = Store(self.database, self.stats)
        # By which instance this process was in a group when it failed, by group and member.
        self._instances: dict[tuple[str, str], str] = {}

    async def __aenter__(self) -> "EmbeddedLog":
        await self.database.run(self.database.open, SCHEMA, SCHEMA_VERSION, MIGRATIONS)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.database.close()

    async def create_topics(self, topics: Collection[str], partitions: int) -> None:
        if not 1 <= partitions <= MAX_PARTITIONS:
            raise UsageError(f"expected 1 to {MAX_PARTITIONS} partitions, got {partitions}")
        await self.database.run(self.store.create_topics, topics, partitions)

    async def commit(self, group: str, offsets: Offsets) -> None:
        await self.database.run(self._commit, group, offsets)

    def _commit(self, group: str, offsets: Offsets) -> None:
        with self.database.transaction():
            self.store.commit(group, offsets)

    async def identity(self) -> str:
        return await self.database.run(self.store.identity)

    async def partition_counts(self, topics: Collection[str]) -> Mapping[str, int]:
        return await self.database.run(self.store.partition_counts, topics)

    async def uncommitted(self, group: str, topics: Collection[str]) -> Uncommitted:
        return await self.database.run(self.store.uncommitted, group, topics)

    async def committed(self, group: str, topics: Collection[str]) -> Offsets:
        found = await self.database.run(self.store.committed, group)
        return {tp: at for tp, at in found.items() if tp.topic in topics}

    async def silence(self, group: str) -> float:
        return await self.database.run(silence, self.database, group)

    async def trim(self, topics: Collection[str], group: str) -> None:
        await self.database.run(self.store.trim, topics, group)

    async def compact(self, topic: str, key: bytes) -> None:
        await self.database.run(self.store.compact, topic, key)

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
        place = group, member
        membership = Membership(self.database, group, member, self.session_timeout, self.stats)
        membership.earlier = self._instances.pop(place, None)
        consumer = EmbeddedConsumer(self.store, group, list(topics), membership, listener)
        await consumer.join()
        try:
            yield consumer
        except RunError:
            self._instances[place] = membership.instance
            raise
        finally:
            # Who cannot say goodbye is missed soon enough, so nothing of this hides other errors.
            with suppress(RunError), anyio.move_on_after(LEAVE_TIMEOUT, shield=True):
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
            else min(end, max(first, 0 if start == "beginning" else start.get(tp.partition, 0)))
            for tp, (first, end) in ends.items()
        }
        yield EmbeddedReader(self.store, topic, positions)


_serial = count()


class _EmbeddedProducer(Producer):
    def __init__(self, log: EmbeddedLog) -> None:
        self._log = log

    async def publish(self, outputs: Sequence[Output]) -> None:
        await self._log.database.run(self._publish, outputs)

    def _publish(self, outputs: Sequence[Output]) -> None:
        # Who sends from outside may forget what is acknowledged, so it must outlive a power cut.
        # What is lost between tiers is done again from there.
        with self._log.database.durable():
            self._log.store.append(outputs)
        self._log.stats.appended += len(outputs)
