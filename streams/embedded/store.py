"""What the embedded log keeps in its SQLite file: topics, records, offsets. All calls block.

A record's row id is ``(topic·1024 + partition) << 40 | offset``: a partition is one range of the
table's B-tree, and reading it is a scan. Everything here runs in the database's thread.
"""

import time
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from roadstream.schemas.errors import OutputError, UsageError
from roadstream.schemas.records import headers
from roadstream.schemas.records.headers import Headers
from roadstream.streams.database import Database
from roadstream.streams.embedded.group import GROUP_SCHEMA, EmbeddedStats
from roadstream.streams.log import Offsets, Output, Polled, Record, TopicPartition, in_topic_order

MAX_PARTITIONS = 1024
# Bounds the memory of one poll; a single larger record still arrives.
MAX_POLL_BYTES = 8 << 20
SCHEMA_VERSION = 2
MIGRATIONS = {1: "ALTER TABLE records ADD COLUMN headers BLOB"}
SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS topics(
    id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, partitions INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS ends(
    topic INTEGER, partition INTEGER, first INTEGER NOT NULL, next INTEGER NOT NULL,
    PRIMARY KEY(topic, partition)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records(
    position INTEGER PRIMARY KEY, key BLOB, value BLOB, timestamp INTEGER NOT NULL, headers BLOB);
CREATE TABLE IF NOT EXISTS offsets(
    grp TEXT, topic INTEGER, partition INTEGER, next INTEGER NOT NULL,
    PRIMARY KEY(grp, topic, partition)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS identity(id TEXT NOT NULL);
INSERT INTO identity SELECT lower(hex(randomblob(16))) WHERE NOT EXISTS (SELECT * FROM identity);
"""
    + GROUP_SCHEMA
)


# Headers that nearly every record has are a number in the file, a millionth of a second cheaper to
# write and read; others are msgpack. Files hold these numbers: entries are only ever added.
_KNOWN: tuple[Headers, ...] = (
    headers.IMAGE,
    headers.ESCALATION,
    headers.VOTES,
    headers.ANSWER,
    headers.DEAD_LETTER,
    headers.SETTLED,
)
_NUMBERS = {known: number for number, known in enumerate(_KNOWN, 1)}
_BY_NUMBER: dict[object, Headers] = {None: (), **dict(enumerate(_KNOWN, 1))}
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Headers).decode


class StoredRecord(msgspec.Struct, frozen=True, gc=False):
    """A record read from the file."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: Headers = ()


class ReadResult(NamedTuple):
    """What a read found, and which positions pointed to records that were trimmed meanwhile.

    Attributes:
        records: The records, per partition.
        oldest: Where to go on instead, per partition whose position points to nothing.
    """

    records: Polled
    oldest: Mapping[TopicPartition, int]


class _Topic(NamedTuple):
    id: int
    partitions: int

    def base(self, partition: int) -> int:
        return (self.id * MAX_PARTITIONS + partition) << 40


class Store:
    """Topics, records and committed offsets of one file."""

    def __init__(self, database: Database, stats: EmbeddedStats) -> None:
        self.database, self.stats = database, stats
        self._topics: dict[str, _Topic] = {}

    def create_topics(self, topics: Collection[str], partitions: int) -> None:
        """Create the topics that do not exist yet."""
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

    def identity(self) -> str:
        """Return what the file was given when it was made, or first opened by this version."""
        row = self.database.connection.execute("SELECT id FROM identity").fetchone()
        if row is None:
            raise self.database.damaged("it has no identity")
        return f"embedded:{row[0]}"

    def partition_counts(self, topics: Collection[str]) -> Mapping[str, int]:
        """Return the partition count of each of these topics that exists."""
        rows = self.database.connection.execute("SELECT name, partitions FROM topics")
        return {name: partitions for name, partitions in rows if name in topics}

    def uncommitted(self, group: str, topics: Collection[str]) -> dict[TopicPartition, range]:
        """Return which offsets of each partition of these topics the group has not committed."""
        query = (
            "SELECT e.partition, MAX(e.first, COALESCE(o.next, 0)), e.next FROM ends e "
            "LEFT JOIN offsets o ON o.grp=? AND o.topic=e.topic AND o.partition=e.partition "
            "WHERE e.topic=?"
        )
        return {
            TopicPartition(name, partition): range(start, end)
            for name in topics
            for partition, start, end in self.database.connection.execute(
                query, (group, self.topic(name).id)
            )
        }

    def trim(self, topics: Collection[str], group: str) -> None:
        """Delete the records that the group has committed past."""
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

    def compact(self, name: str, key: bytes) -> None:
        """Delete the records of a key but the last in each partition."""
        topic = self.topic(name)
        with self.database.transaction() as tx:
            for partition in range(topic.partitions):
                rows = tx.execute(
                    "SELECT position FROM records WHERE position >= ? AND position < ? AND key = ? "
                    "ORDER BY position",
                    (topic.base(partition), topic.base(partition + 1), key),
                ).fetchall()
                tx.executemany("DELETE FROM records WHERE position = ?", rows[:-1])

    def topic(self, name: str) -> _Topic:
        """Return a topic's row.

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
        """Return first and next offset of every partition."""
        found: dict[TopicPartition, tuple[int, int]] = {}
        for name in topics:
            topic = self.topic(name)
            rows = self.database.connection.execute(
                "SELECT partition, first, next FROM ends WHERE topic=?", (topic.id,)
            ).fetchall()
            if len(rows) != topic.partitions:
                raise self.database.damaged(f"{name}: {len(rows)} partitions of {topic.partitions}")
            for partition, first, end in rows:
                found[TopicPartition(name, partition)] = first, end
        return found

    def append(self, outputs: Sequence[Output]) -> None:
        """Append records inside the open transaction."""
        now = int(time.time() * 1000)
        by_partition: dict[tuple[str, int], list[Output]] = {}
        place: tuple[str, int] | None = None
        run: list[Output] = []
        for output in outputs:
            name, key, _, partition, _ = output
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
            "INSERT INTO records VALUES (?, ?, ?, ?, ?)",
            [
                (place, key, value, now, (_NUMBERS.get(said) or _pack(said)) if said else None)
                for place, (_, key, value, _, said) in enumerate(run, first)
            ],
        )

    def read(
        self, positions: Mapping[TopicPartition, int], topics: Sequence[str], max_records: int
    ) -> ReadResult:
        """Read on from these positions, topic by topic."""
        found: dict[TopicPartition, Sequence[Record]] = {}
        oldest: dict[TopicPartition, int] = {}
        room, size = max_records, 0
        ends = self.ends({tp.topic for tp in positions})
        for tp, position in in_topic_order(positions, topics):
            if room <= 0 or size >= MAX_POLL_BYTES:
                break
            end = ends[tp][1]
            if position >= end:
                continue
            records, taken = self._read_partition(tp, (position, end), room, MAX_POLL_BYTES - size)
            # Nobody leaves gaps here, so what does not follow the position has been let go of.
            first = records[0].offset if records else end
            if first > position:
                oldest[tp] = first
            if records:
                found[tp] = records
                room -= len(records)
                size += taken
        return ReadResult(found, oldest)

    def _read_partition(
        self, tp: TopicPartition, offsets: tuple[int, int], room: int, max_bytes: int
    ) -> tuple[list[Record], int]:
        base = self.topic(tp.topic).base(tp.partition)
        records: list[Record] = []
        size = 0
        for place, key, value, timestamp, stored in self.database.connection.execute(
            "SELECT position, key, value, timestamp, headers FROM records "
            "WHERE position >= ? AND position < ? ORDER BY position LIMIT ?",
            (base + offsets[0], base + offsets[1], room),
        ):
            if value.__class__ is not bytes:
                raise self.database.damaged(f"{tp.topic}[{tp.partition}]@{place - base}: no bytes")
            told = _BY_NUMBER.get(stored)
            if told is None:
                told = self._unpacked(stored, tp, place - base)
            records.append(StoredRecord(place - base, key, value, timestamp, told))
            size += len(value)
            if size >= max_bytes:
                break
        return records, size

    def _unpacked(self, stored: Any, tp: TopicPartition, offset: int) -> Headers:
        try:
            return _unpack(stored)
        except (TypeError, msgspec.DecodeError) as error:
            problem = f"{tp.topic}[{tp.partition}]@{offset}: headers: {error}"
            raise self.database.damaged(problem) from error

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """Return a group's committed offsets."""
        rows = self.database.connection.execute(
            "SELECT t.name, o.partition, o.next FROM offsets o JOIN topics t ON t.id = o.topic "
            "WHERE o.grp=?",
            (group,),
        )
        return {TopicPartition(name, partition): at for name, partition, at in rows}

    def commit(self, group: str, offsets: Offsets) -> None:
        """Move a group's offsets forward inside the open transaction."""
        self.database.connection.executemany(
            "INSERT INTO offsets VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE "
            "SET next = MAX(next, excluded.next)",
            [(group, self.topic(tp.topic).id, tp.partition, at) for tp, at in offsets.items()],
        )
