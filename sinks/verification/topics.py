"""Reads topics from end to end, for ``verify``."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from roadstream.schemas.errors import LogUnavailableError
from roadstream.streams.log import Log, Record, Start, TopicPartition

READ_RECORDS = 2048
PATIENCE = 10
"""Seconds without a record after which the log is said not to answer."""

Take = Callable[[TopicPartition, Record], None]


class Bounds(NamedTuple):
    """Where the records of a topic begin and end, per partition."""

    oldest: Mapping[TopicPartition, int]
    ends: Mapping[TopicPartition, int]


async def bounds(log: Log, topic: str) -> Bounds:
    """Return where a topic begins and ends.

    Raises:
        LogUnavailableError: The log does not answer.
    """
    async with log.reader(topic, "beginning") as reader:
        oldest = {TopicPartition(topic, p): at for p, at in reader.positions.items()}
        ends = {TopicPartition(topic, p): at for p, at in (await reader.ends()).items()}
    return Bounds(oldest, ends)


async def oldest_record(log: Log, tp: TopicPartition) -> Record | None:
    """Return the oldest record that a partition has; ``None`` if it has none, or is none.

    Raises:
        LogUnavailableError: The log does not answer, or the record does not come.
    """
    oldest, ends = await bounds(log, tp.topic)
    if oldest.get(tp, 0) >= ends.get(tp, 0):
        return None
    start = {other.partition: end for other, end in ends.items()} | {tp.partition: oldest[tp]}
    async with log.reader(tp.topic, start) as reader:
        waited = 0
        while waited < PATIENCE:
            polled = await reader.poll(max_records=1, timeout=1.0)
            if records := polled.get(tp):
                return records[0]
            waited += not polled
    raise LogUnavailableError(f"{tp.topic}: records exist, but none arrive")


async def scan(
    log: Log, topic: str, start: Start | Mapping[int, int], take: Take
) -> dict[int, int]:
    """Hand every record that is there now to ``take``; return where to go on from.

    Raises:
        LogUnavailableError: The log does not answer, or records that exist do not come.
    """
    async with log.reader(topic, start) as reader:
        ends, waited = await reader.ends(), 0
        while any(reader.positions[p] < end for p, end in ends.items()):
            polled = await reader.poll(max_records=READ_RECORDS, timeout=1.0)
            for tp, records in polled.items():
                for record in records:
                    take(tp, record)
            waited = 0 if polled else waited + 1
            if waited and await _trimmed(log, topic, reader.positions, ends):
                break
            if waited >= PATIENCE:
                raise LogUnavailableError(f"{topic}: records exist, but none arrive")
        return dict(ends)


async def _trimmed(
    log: Log, topic: str, positions: Mapping[int, int], ends: Mapping[int, int]
) -> bool:
    """Return whether what is left to be read was let go of meanwhile."""
    oldest = (await bounds(log, topic)).oldest
    return all(
        oldest[TopicPartition(topic, p)] >= end for p, end in ends.items() if positions[p] < end
    )
