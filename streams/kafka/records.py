"""Reads what Kafka sent so that a batch that cannot be read never stops its partition.

aiokafka raises where a batch is damaged, says an unknown codec, or does not unpack, and raises the
same at every later try. Here such a batch becomes one record at its last offset, whose value is an
``Unreadable`` with the batch's bytes; whoever decodes it is told why, and the partition goes on
behind it.

Layout of a batch: https://kafka.apache.org/documentation/#recordbatch.
"""

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from aiokafka.consumer import fetcher
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import ConsumerRecord

from roadstream.schemas.codec import Unreadable

_LENGTH, _LAST_DELTA, _COUNT = struct.Struct(">i"), struct.Struct(">i"), struct.Struct(">i")
_BASE, _TIMESTAMP = struct.Struct(">q"), struct.Struct(">q")
_LENGTH_AT, _MAGIC_AT, _LAST_DELTA_AT, _TIMESTAMP_AT, _COUNT_AT = 8, 16, 23, 35, 57
_OVERHEAD, _SMALLEST, _HEADER = 12, 26, 61
_MAGIC = 2
# As much of a batch as a dead letter is to carry.
MOST_BYTES = 1 << 20


class Extent(NamedTuple):
    """What the head of a batch says of it.

    Attributes:
        last: Its last offset.
        timestamp: Milliseconds since the epoch; −1 if unknown.
        sure: Whether something bears the last offset out.
    """

    last: int
    timestamp: int
    sure: bool


def extent(batch: bytes, following: bytes) -> Extent:
    """Return where a batch ends, from its head, which may itself be damaged.

    A wrong end would skip records that can be read, so it is believed only as far as the batch
    after it, or its own number of records, bears it out.

    Args:
        batch: Its bytes; at least the base offset and the length.
        following: What was fetched behind it.
    """
    base: int = _BASE.unpack_from(batch)[0]
    next_base: int | None = None
    if len(following) >= _BASE.size:
        next_base = max(base + 1, _BASE.unpack_from(following)[0])
    if len(batch) < _HEADER or batch[_MAGIC_AT] != _MAGIC:  # old formats tell the last offset
        return Extent(base if next_base is None else next_base - 1, -1, next_base is not None)
    delta: int = _LAST_DELTA.unpack_from(batch, _LAST_DELTA_AT)[0]
    timestamp: int = _TIMESTAMP.unpack_from(batch, _TIMESTAMP_AT)[0]
    if next_base is not None:
        return Extent(min(base + max(0, delta), next_base - 1), timestamp, True)
    sure = delta >= 0 and delta + 1 == _COUNT.unpack_from(batch, _COUNT_AT)[0]
    return Extent(base + delta if sure else base, timestamp, sure)


class Batches:
    """Fetched bytes, batch by batch: ``MemoryRecords`` that can tell the bytes of the last one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left: Any = MemoryRecords(data)
        self._start = self._end = 0

    def size_in_bytes(self) -> int:
        """Return the number of bytes fetched."""
        return len(self._data)

    def has_next(self) -> bool:
        """Return whether a whole batch is left."""
        found: bool = self._left.has_next()
        return found

    def next_batch(self) -> Any:
        """Return the next batch; raises whatever aiokafka does for one that it cannot read."""
        self._start = self._end
        length: int = _LENGTH.unpack_from(self._data, self._start + _LENGTH_AT)[0]
        size = _OVERHEAD + length
        self._end = self._start + size if size >= _SMALLEST else len(self._data)
        try:
            return self._left.next_batch()
        except Exception:  # it would find the same batch again
            self._left = MemoryRecords(self._data[self._end :])
            raise

    @property
    def current(self) -> bytes:
        """Bytes of the batch that was asked for last."""
        return self._data[self._start : self._end]

    @property
    def following(self) -> bytes:
        """What stands behind it, as much as tells its offset."""
        return self._data[self._end : self._end + _BASE.size]


class ToleratingRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of one fetch of one partition, those that cannot be read as ``Unreadable``."""

    _records: Batches
    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[ConsumerRecord]:
        while self._records.has_next():
            try:
                yield from super()._unpack_records()
            except Exception as error:  # whatever a stranger's bytes make a decompressor raise
                yield from self._unreadable(error)

    def _unreadable(self, error: Exception) -> Iterator[ConsumerRecord]:
        batch, first = self._records.current, self.next_fetch_offset
        last, timestamp, sure = extent(batch, self._records.following)
        if sure and last < first:
            return  # all of its records had been read
        last = max(first, last)
        where = f"offset {last}" if last == first else f"offsets {first} to {last}"
        problem = f"{where} cannot be read: {type(error).__name__}: {error}"
        value = Unreadable(batch[:MOST_BYTES])
        value.problem = problem
        self.next_fetch_offset = last + 1
        topic, partition = self._tp
        size = len(value)
        yield ConsumerRecord(topic, partition, last, timestamp, 0, None, value, None, -1, size, ())


def tolerate() -> None:
    """Have every consumer of this process read so."""
    fetcher.MemoryRecords, fetcher.PartitionRecords = Batches, ToleratingRecords
