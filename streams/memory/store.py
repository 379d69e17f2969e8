"""What the in-memory log holds: partitions with retention, faults to come, appends under way."""

import heapq
import zlib
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Literal, NamedTuple, Protocol

import anyio

from roadstream.schemas.errors import OutputError, Refusal, RoadstreamError, UsageError
from roadstream.schemas.records.headers import Headers
from roadstream.streams.clock import Clock
from roadstream.streams.log import (
    Offsets,
    Output,
    Polled,
    TopicPartition,
    Uncommitted,
    in_topic_order,
)

Operation = Literal["publish", "poll", "commit", "lag", "silence"]
Gone = Callable[[TopicPartition, int, int], None]


class MemoryRecord(NamedTuple):
    """A record held in memory."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: Headers = ()


class MemoryPartition(list[MemoryRecord]):
    """The records of a partition that retention has left.

    Attributes:
        first: Offset of the first record there is, or will be.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = 0

    @property
    def end(self) -> int:
        """Offset after the last record."""
        return self.first + len(self)

    def read(self, offset: int, limit: int) -> list[MemoryRecord]:
        """Return up to ``limit`` records from ``offset`` on."""
        at = offset - self.first
        return self[at : at + limit]

    def truncate(self, before: int) -> None:
        """Let go of the records below an offset."""
        before = min(before, self.end)
        if before > self.first:
            del self[: before - self.first]
            self.first = before


class Fault(NamedTuple):
    """What befalls the next call of ``operation``; faults happen in the order they are scripted.

    Attributes:
        operation: Which call. Commits are calls of their own only where they follow the outputs
            (``MemoryLog(atomic=False)``).
        error: What it raises: before it has any effect, or ``after``. ``None`` raises nothing.
        after: See ``error``.
        copies: How often a publish appends its records, as a producer does that sends again.
        delay: Seconds until a publish takes effect, or a poll begins; if that is more than a reader
            waits it gets nothing. Where outputs and offsets are not one transaction, the records
            come then whatever has become of the publisher.
        share: Part of its records that a publish appends before its error.
    """

    operation: Operation
    error: RoadstreamError | None = None
    after: bool = False
    copies: int = 1
    delay: float = 0.0
    share: float = 1.0


class Appender(Protocol):
    """Whoever appends as a member of a group."""

    @property
    def member(self) -> str:
        """Name of the member."""

    def owns(self, partition: int) -> bool:
        """Return whether the group takes it for the owner of a partition at this moment."""


class Watcher(Protocol):
    """Hears of everything that happens on the log, at the moment when it happens."""

    def appended(self, tp: TopicPartition, record: MemoryRecord, by: Appender | None) -> None:
        """Note a new record; ``by`` is ``None`` for a producer outside every group."""

    def delivered(self, group: str, member: str, polled: Polled) -> None:
        """Note what a poll brought a member."""

    def committed(self, group: str, member: str, tp: TopicPartition, offset: int) -> None:
        """Note a commit, before the group's offset moves."""

    def missed(self, group: str, tp: TopicPartition, first: int, oldest: int) -> None:
        """Note that a member was told of records that retention took."""

    def evicted(self, group: str, member: str) -> None:
        """Note the end of a session that was silent too long."""


class _UnderWay(NamedTuple):
    """An append that a client has sent and the log has not made yet."""

    due_at: float
    serial: int
    outputs: Sequence[Output]
    by: Appender | None


class MemoryStore:
    """Topics, scripted faults, and the appends that are under way.

    Args:
        clock: Wall clock of the records' timestamps.
        monotonic: Clock of delays, in seconds.

    Attributes:
        limits: Bytes of key and value that a topic allows; without one it allows any.
    """

    def __init__(self, clock: Clock, monotonic: Callable[[], float]) -> None:
        self._clock, self._monotonic = clock, monotonic
        self.topics: dict[str, list[MemoryPartition]] = {}
        self.faults: deque[Fault] = deque()
        self.limits: dict[str, int] = {}
        self.watcher: Watcher | None = None
        self._waiting: dict[anyio.Event, Collection[str]] = {}
        self._under_way: list[_UnderWay] = []
        self._serial = 0

    def create(self, topics: Collection[str], partitions: int) -> None:
        """Create the topics that do not exist yet."""
        for name in topics:
            if name not in self.topics:
                self.topics[name] = [MemoryPartition() for _ in range(partitions)]

    def fault(self, operation: Operation) -> Fault:
        """Take the next fault if it is for this operation, and raise what comes before its effect.

        Raises:
            RoadstreamError: The fault's.
        """
        if not self.faults or self.faults[0].operation != operation:
            return _NO_FAULT
        fault = self.faults.popleft()
        if fault.error is not None and not fault.after:
            raise fault.error
        return fault

    def within_limits(self, outputs: Sequence[Output]) -> tuple[Sequence[Output], list[Refusal]]:
        """Return the outputs that their topics take, and the refusals of the others."""
        refused: list[Refusal] = []
        for i, (topic, key, value, *_) in enumerate(outputs if self.limits else ()):
            size, limit = len(value) + len(key or b""), self.limits.get(topic)
            if limit is not None and size > limit:
                refused.append(Refusal(i, topic, size, limit))
        if not refused:
            return outputs, refused
        left_out = {refusal.row for refusal in refused}
        return [one for i, one in enumerate(outputs) if i not in left_out], refused

    def append(self, outputs: Sequence[Output], by: Appender | None = None) -> None:
        """Append all of the records, or none, and wake those who wait for some.

        Raises:
            UsageError: A topic does not exist.
            OutputError: A partition does not exist.
        """
        now = int(self._clock.now() * 1000)
        places = [self._place(output) for output in outputs]
        for (tp, partition), (_, key, value, _, headers) in zip(places, outputs, strict=True):
            record = MemoryRecord(partition.end, key, value, now, headers)
            partition.append(record)
            if self.watcher is not None:
                self.watcher.appended(tp, record, by)
        grown = {tp.topic: None for tp, _ in places}
        for event, topics in self._waiting.items():
            if any(topic in topics for topic in grown):
                event.set()

    def _place(self, output: Output) -> tuple[TopicPartition, MemoryPartition]:
        if output.topic not in self.topics:
            raise UsageError(f"there is no topic {output.topic}")
        parts, partition = self.topics[output.topic], output.partition
        if partition is None:
            partition = zlib.crc32(output.key or b"") % len(parts)
        if not 0 <= partition < len(parts):
            raise OutputError(f"partition {partition}: expected 0 to {len(parts) - 1}")
        return TopicPartition(output.topic, partition), parts[partition]

    async def send(self, outputs: Sequence[Output], by: Appender | None, delay: float) -> None:
        """Append after ``delay`` seconds, even if the caller is cancelled while it waits."""
        for output in outputs:
            self._place(output)
        due_at = self._monotonic() + delay
        self._serial += 1
        heapq.heappush(self._under_way, _UnderWay(due_at, self._serial, outputs, by))
        if delay > 0:
            await anyio.sleep(delay)
        self.settle(due_at)

    def settle(self, now: float | None = None) -> None:
        """Make the appends under way that are due."""
        now = self._monotonic() if now is None else max(now, self._monotonic())
        while self._under_way and self._under_way[0].due_at <= now:
            due = heapq.heappop(self._under_way)
            self.append(due.outputs, due.by)

    async def read_on(
        self,
        positions: dict[TopicPartition, int],
        topics: Sequence[str],
        max_records: int,
        timeout: float,
        gone: Gone,
    ) -> Polled:
        """Read from ``positions`` and move them on, waiting up to ``timeout`` for the first.

        ``gone`` hears of positions that retention has passed, and of the record it goes on from.
        """
        if found := self._take(positions, topics, max_records, gone):
            return found
        if timeout <= 0:
            return {}
        with anyio.move_on_after(timeout):
            while True:
                grown = anyio.Event()
                self._waiting[grown] = topics
                try:
                    await grown.wait()
                finally:
                    del self._waiting[grown]
                if found := self._take(positions, topics, max_records, gone):
                    return found
        return {}

    def _take(
        self,
        positions: dict[TopicPartition, int],
        topics: Sequence[str],
        max_records: int,
        gone: Gone,
    ) -> Polled:
        found: dict[TopicPartition, list[MemoryRecord]] = {}
        for tp, position in in_topic_order(positions, topics):
            if max_records <= 0:
                break
            partition = self.topics[tp.topic][tp.partition]
            at = max(position, partition.first)
            if at > position:
                gone(tp, position, at)
                positions[tp] = at
            if at < partition.end and (records := partition.read(at, max_records)):
                found[tp] = records
                max_records -= len(records)
        for tp, records in found.items():  # and to the end of the line, so that none starves
            del positions[tp]
            positions[tp] = records[-1].offset + 1
        return found

    def uncommitted(self, topics: Collection[str], offsets: Offsets) -> Uncommitted:
        """Return which offsets there are that a group has not committed."""
        return {
            tp: range(max(offsets.get(tp, 0), partition.first), partition.end)
            for name in topics
            for p, partition in enumerate(self.topics[name])
            for tp in [TopicPartition(name, p)]
        }


_NO_FAULT = Fault("lag")
