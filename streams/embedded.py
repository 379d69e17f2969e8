"""The embedded log: topics, groups and offsets in one SQLite file, shared by several processes.

Outputs and offsets commit in one transaction, so on this log nothing is ever doubled by a crash.
A record's row id is ``(topic·1024 + partition) << 40 | offset``: a partition is one range of the
table's B-tree, and reading it is a scan.
"""

import os
import time
import zlib
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple

import anyio
import msgspec

from schemas.errors import FencedError, OutputError, UsageError
from streams.database import Database
from streams.embedded_group import GROUP_SCHEMA, Membership
from streams.log import (
    Assignment,
    AssignmentListener,
    Consumer,
    Log,
    Offsets,
    Output,
    Polled,
    Producer,
    Reader,
    Record,
    Start,
    TopicPartition,
    in_topic_order,
)

MAX_PARTITIONS = 1024
# Bounds the memory of one poll; a single larger record still arrives.
MAX_POLL_BYTES = 8 << 20
# How often an idle poll looks: doubling from the first to the second.
POLL_FIRST, POLL_LAST = 0.001, 0.032
SCHEMA_VERSION = 1
SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS topics(
    id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, partitions INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS ends(
    topic INTEGER, partition INTEGER, first INTEGER NOT NULL, next INTEGER NOT NULL,
    PRIMARY KEY(topic, partition)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records(
    position INTEGER PRIMARY KEY, key BLOB, value BLOB, timestamp INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS offsets(
    grp TEXT, topic INTEGER, partition INTEGER, next INTEGER NOT NULL,
    PRIMARY KEY(grp, topic, partition)) WITHOUT ROWID;
"""
    + GROUP_SCHEMA
)


class StoredRecord(msgspec.Struct, frozen=True, gc=False):
    """A record read from the file."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int


class _Topic(NamedTuple):
    id: int
    partitions: int

    def base(self, partition: int) -> int:
        return (self.id * MAX_PARTITIONS + partition) << 40


class EmbeddedLog(Log):
    """A log in one SQLite file on a local disk (not on a network file system: locks fail there)."""

    def __init__(self, path: Path, *, session_timeout: float = 10.0) -> None:
        self.database = Database(path)
        self.session_timeout = session_timeout
        self._topics: dict[str, _Topic] = {}

    async def __aenter__(self) -> "EmbeddedLog":
        await self.database.run(self.database.open, SCHEMA, SCHEMA_VERSION)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.database.close()

    async def create_topics(self, topics: Collection[str], partitions: int) -> None:
        if not 1 <= partitions <= MAX_PARTITIONS:
            raise UsageError(f"expected 1 to {MAX_PARTITIONS} partitions, got {partitions}")
        await self.database.run(self._create_topics, topics, partitions)

    def _create_topics(self, topics: Collection[str], partitions: int) -> None:
        with self.database.transaction() as tx:
            for name in topics:
                row = tx.execute(
                    "INSERT OR IGNORE INTO topics(name, partitions) VALUES (?, ?) RETURNING id",
                    (name, partitions),
                ).fetchone()
                if row is not None:
                    tx.executemany(
                        "INSERT INTO ends VALUES (?, ?, 0, 0)",
                        [(row[0], partition) for partition in range(partitions)],
                    )

    async def partition_counts(self, topics: Collection[str]) -> Mapping[str, int]:
        return await self.database.run(self._partition_counts, topics)

    def _partition_counts(self, topics: Collection[str]) -> Mapping[str, int]:
        rows = self.database.connection.execute("SELECT name, partitions FROM topics")
        return {name: partitions for name, partitions in rows if name in topics}

    async def lag(self, group: str, topics: Collection[str]) -> int:
        return await self.database.run(self._lag, group, topics)

    def _lag(self, group: str, topics: Collection[str]) -> int:
        query = (
            "SELECT COALESCE(SUM(e.next - MAX(e.first, COALESCE(o.next, 0))), 0) FROM ends e "
            "LEFT JOIN offsets o ON o.grp=? AND o.topic=e.topic AND o.partition=e.partition "
            "WHERE e.topic=?"
        )
        connection = self.database.connection
        return sum(
            connection.execute(query, (group, self.topic(name).id)).fetchone()[0] for name in topics
        )

    async def trim(self, topics: Collection[str], group: str) -> None:
        await self.database.run(self._trim, topics, group)

    def _trim(self, topics: Collection[str], group: str) -> None:
        for name in topics:
            topic = self.topic(name)
            with self.database.transaction() as tx:
                rows = tx.execute(
                    "SELECT partition, next FROM offsets WHERE grp=? AND topic=?", (group, topic.id)
                ).fetchall()
                for partition, offset in rows:
                    base = topic.base(partition)
                    tx.execute(
                        "DELETE FROM records WHERE position >= ? AND position < ?",
                        (base, base + offset),
                    )
                    tx.execute(
                        "UPDATE ends SET first = MAX(first, ?) WHERE topic=? AND partition=?",
                        (offset, topic.id, partition),
                    )

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
        listener: AssignmentListener | None = None,
        member_id: str | None = None,
    ) -> AbstractAsyncContextManager[Consumer]:
        return self._consumer(group, topics, listener, member_id)

    @asynccontextmanager
    async def _consumer(
        self,
        group: str,
        topics: Collection[str],
        listener: AssignmentListener | None,
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
        ends = await self.database.run(self.ends, [topic])
        positions = {
            tp: end
            if start == "end"
            else max(first, 0 if start == "beginning" else start.get(tp.partition, 0))
            for tp, (first, end) in ends.items()
        }
        yield _EmbeddedReader(self, topic, positions)

    def topic(self, name: str) -> _Topic:
        """Return a topic's row (called in the database's thread).

        Raises:
            UsageError: There is no such topic.
        """
        if name not in self._topics:
            row = self.database.connection.execute(
                "SELECT id, partitions FROM topics WHERE name=?", (name,)
            ).fetchone()
            if row is None:
                raise UsageError(f"{self.database.path}: there is no topic {name}")
            self._topics[name] = _Topic(*row)
        return self._topics[name]

    def ends(self, topics: Iterable[str]) -> dict[TopicPartition, tuple[int, int]]:
        """Return first and next offset of every partition (in the database's thread)."""
        return {
            TopicPartition(name, partition): (first, end)
            for name in topics
            for partition, first, end in self.database.connection.execute(
                "SELECT partition, first, next FROM ends WHERE topic=?", (self.topic(name).id,)
            )
        }

    def append(self, outputs: Sequence[Output]) -> None:
        """Append records inside the open transaction (in the database's thread)."""
        now = int(time.time() * 1000)
        by_partition: dict[tuple[str, int], list[Output]] = {}
        place: tuple[str, int] | None = None
        run: list[Output] = []
        for output in outputs:
            name, key, _, partition = output
            if partition is None:
                partition = zlib.crc32(key or b"") % self.topic(name).partitions
            # Most outputs go where the one before went.
            if place is None or place[1] != partition or place[0] != name:
                place = name, partition
                run = by_partition.setdefault(place, [])
            run.append(output)
        for (name, partition), run in by_partition.items():
            self._append_run(self.topic(name), partition, run, now)

    def _append_run(self, topic: _Topic, partition: int, run: list[Output], now: int) -> None:
        connection = self.database.connection
        row = connection.execute(
            "UPDATE ends SET next = next + ? WHERE topic=? AND partition=? RETURNING next",
            (len(run), topic.id, partition),
        ).fetchone()
        if row is None:
            raise OutputError(f"partition {partition}: expected 0 to {topic.partitions - 1}")
        first = topic.base(partition) + row[0] - len(run)
        connection.executemany(
            "INSERT INTO records VALUES (?, ?, ?, ?)",
            [(place, key, value, now) for place, (_, key, value, _) in enumerate(run, first)],
        )

    def read(
        self, positions: Mapping[TopicPartition, int], topics: Sequence[str], max_records: int
    ) -> Polled:
        """Read on from these positions, topic by topic (in the database's thread)."""
        found: dict[TopicPartition, Sequence[Record]] = {}
        room, size = max_records, 0
        ends = self.ends({tp.topic for tp in positions})
        for tp, position in in_topic_order(positions, topics):
            if room <= 0 or size >= MAX_POLL_BYTES:
                break
            if position >= ends[tp][1]:
                continue
            base = self.topic(tp.topic).base(tp.partition)
            records: list[Record] = []
            for place, key, value, timestamp in self.database.connection.execute(
                "SELECT position, key, value, timestamp FROM records "
                "WHERE position >= ? AND position < ? ORDER BY position LIMIT ?",
                (base + position, base + ends[tp][1], room),
            ):
                records.append(StoredRecord(place - base, key, value, timestamp))
                size += len(value)
                if size >= MAX_POLL_BYTES:
                    break
            if records:
                found[tp] = records
                room -= len(records)
        return found


_serial = count()


class _EmbeddedProducer(Producer):
    def __init__(self, log: EmbeddedLog) -> None:
        self._log = log

    async def publish(self, outputs: Sequence[Output]) -> None:
        await self._log.database.run(self._publish, outputs)

    def _publish(self, outputs: Sequence[Output]) -> None:
        with self._log.database.transaction():
            self._log.append(outputs)


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
        found = (
            await log.database.run(log.read, positions, topics, max_records) if max_records else {}
        )
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
        listener: AssignmentListener | None,
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
        firsts = await self._log.database.run(self._log.ends, self._topics)
        self._positions = {tp: max(committed.get(tp, 0), firsts[tp][0]) for tp in sorted(assigned)}
        if self._listener is not None:
            await self._listener.assigned(assigned)

    async def publish(self, outputs: Sequence[Output], commit: Offsets, epoch: int) -> None:
        await self._log.database.run(self._publish, outputs, commit, epoch)

    def _publish(self, outputs: Sequence[Output], commit: Offsets, epoch: int) -> None:
        with self._log.database.transaction() as tx:
            owned = self._membership.owned(tx)
            lost = [tp for tp in commit if tp.partition not in owned]
            if lost or epoch != self._assignment.epoch:
                raise FencedError(
                    f"{self._group}: {self._membership.member} no longer owns what it commits "
                    f"(epoch {epoch}, now {self._assignment.epoch})"
                )
            self._log.append(outputs)
            tx.executemany(
                "INSERT INTO offsets VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE "
                "SET next = MAX(next, excluded.next)",
                [
                    (self._group, self._log.topic(tp.topic).id, tp.partition, offset)
                    for tp, offset in commit.items()
                ],
            )

    async def committed(self) -> Offsets:
        return await self._log.database.run(self._committed)

    def _committed(self) -> Offsets:
        rows = self._log.database.connection.execute(
            "SELECT t.name, o.partition, o.next FROM offsets o JOIN topics t ON t.id = o.topic "
            "WHERE o.grp=?",
            (self._group,),
        )
        found = {TopicPartition(name, partition): at for name, partition, at in rows}
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
        ends = await self._log.database.run(self._log.ends, [self._topic])
        return {tp.partition: end for tp, (_, end) in ends.items()}
