"""Consumers and readers of the embedded log: following the group, reading on, fenced commits."""

import time
from collections.abc import Collection, Mapping, Sequence
from enum import Enum, auto
from typing import NamedTuple

import anyio

from roadstream.schemas.backoff import Backoff, no_jitter
from roadstream.schemas.errors import FencedError, UsageError
from roadstream.streams.embedded.group import Membership
from roadstream.streams.embedded.store import ReadResult, Store
from roadstream.streams.log import (
    Assignment,
    Consumer,
    GroupListener,
    Offsets,
    Output,
    Polled,
    Reader,
    TopicPartition,
)

# How often an idle poll looks: doubling from the first to the second.
POLL_FIRST, POLL_LAST = 0.001, 0.032


class _Read(NamedTuple):
    """Records read, and (position, oldest) of partitions that lost some before they were read."""

    records: Polled
    missed: Mapping[TopicPartition, tuple[int, int]]


async def _wait_for_records(
    store: Store,
    positions: dict[TopicPartition, int],
    topics: Sequence[str],
    max_records: int,
    timeout: float,
) -> _Read:
    """Read from ``positions`` and move them on; rotate them so that none starves."""
    pauses = Backoff(POLL_FIRST, POLL_LAST, no_jitter)
    give_up_at = time.monotonic() + timeout
    found = ReadResult({}, {})
    while True:
        if max_records:
            found = await store.database.run(store.read, positions, topics, max_records)
        pause = pauses.next()
        if found.records or found.oldest or time.monotonic() + pause > give_up_at:
            break
        await anyio.sleep(pause)
    missed = {tp: (positions[tp], oldest) for tp, oldest in found.oldest.items()}
    positions.update(found.oldest)
    for tp, records in found.records.items():
        del positions[tp]
        positions[tp] = records[-1].offset + 1
    return _Read(found.records, missed)


class _State(Enum):
    """Where a consumer is between one exchange of partitions and the next."""

    IDLE = auto()  # owns nothing, and nobody was told otherwise
    REVOKED = auto()  # the listener has given up what it had
    ASSIGNED = auto()  # the partitions are taken; the listener does not know yet
    WORKING = auto()  # the listener knows


class EmbeddedConsumer(Consumer):
    """A member of a group. What an error interrupts, the next ``poll`` takes up again."""

    def __init__(
        self,
        store: Store,
        group: str,
        topics: list[str],
        membership: Membership,
        listener: GroupListener | None,
    ) -> None:
        self._store, self._group, self._topics = store, group, topics
        self._membership, self._listener = membership, listener
        self._positions: dict[TopicPartition, int] = {}
        self._assignment = Assignment(0, frozenset())
        self._state = _State.IDLE
        self._run = store.database.run

    async def join(self) -> None:
        """Enter the group; raises as ``Log.consumer``."""
        counts = await self._run(self._store.partition_counts, self._topics)
        missing = sorted(set(self._topics) - set(counts))
        if missing:
            raise UsageError(f"{self._store.database.path}: there is no topic {', '.join(missing)}")
        if len(set(counts.values())) > 1:
            raise UsageError(f"expected topics of equal partition counts, got {dict(counts)}")
        self._membership.partitions = next(iter(counts.values()))
        await self._run(self._membership.join)

    @property
    def assignment(self) -> Assignment:
        """See ``Consumer.assignment``."""
        return self._assignment

    async def poll(
        self, *, max_records: int, timeout: float, topics: Collection[str] | None = None
    ) -> Polled:
        """See ``Consumer.poll``."""
        await self._follow_group()
        some = self._positions
        if topics is not None:
            some = {tp: at for tp, at in some.items() if tp.topic in topics}
        read = await _wait_for_records(self._store, some, self._topics, max_records, timeout)
        if topics is not None:
            for tp in [*read.missed, *read.records]:
                self._positions.pop(tp, None)
                self._positions[tp] = some[tp]
        for tp, (position, oldest) in read.missed.items():
            self._tell_missed(tp, position, oldest)
        return read.records

    async def _follow_group(self) -> None:
        """Exchange partitions if the group asks; after an error the next call takes it up again."""
        generation = await self._run(self._membership.follow)
        if generation is not None:
            owned = self._assignment.partitions
            if self._state is _State.WORKING and owned and self._listener is not None:
                await self._listener.revoked(owned)
            self._state = _State.REVOKED
            partitions = await self._run(self._membership.exchange, generation)
            assigned = frozenset(TopicPartition(t, p) for t in self._topics for p in partitions)
            if owned or assigned:
                self._assignment = Assignment(self._assignment.epoch + 1, assigned)
                self._positions = {}
                self._state = _State.ASSIGNED
        if self._state is _State.ASSIGNED:
            await self._begin()
            self._state = _State.WORKING

    async def _begin(self) -> None:
        """Find where the group stands on the new partitions and tell the listener."""
        assigned = self._assignment.partitions
        committed = await self.committed()
        ends = await self._run(self._store.ends, self._topics)
        if self._listener is not None:
            await self._listener.assigned(assigned)
        self._positions = {tp: max(committed.get(tp, 0), ends[tp][0]) for tp in sorted(assigned)}
        for tp, position in self._positions.items():
            if committed.get(tp, position) < position:
                self._tell_missed(tp, committed[tp], position)

    def _tell_missed(self, tp: TopicPartition, position: int, oldest: int) -> None:
        self._store.stats.missed += oldest - position
        if self._listener is not None:
            self._listener.missed(tp, position, oldest)

    async def publish(self, outputs: Sequence[Output], commit: Offsets, epoch: int) -> None:
        """See ``Consumer.publish``."""
        await self._run(self._publish, outputs, commit, epoch)
        if commit and self._listener is not None:
            self._listener.committed(commit)

    def _publish(self, outputs: Sequence[Output], commit: Offsets, epoch: int) -> None:
        with self._store.database.transaction() as tx:
            self._fence(self._membership.owned(tx), commit, epoch)
            self._store.append(outputs)
            self._store.commit(self._group, commit)
        self._store.stats.appended += len(outputs)

    def _fence(self, owned: set[int], commit: Offsets, epoch: int) -> None:
        """Refuse work of an earlier epoch, and of a member that has lost any partition since."""
        now = self._assignment
        if epoch == now.epoch and all(tp.partition in owned for tp in (*now.partitions, *commit)):
            return
        self._store.stats.fenced += 1
        raise FencedError(
            f"{self._group}: {self._membership.member} no longer owns what it commits "
            f"(epoch {epoch}, now {now.epoch})"
        )

    async def committed(self) -> Offsets:
        """See ``Consumer.committed``."""
        found = await self._run(self._store.committed, self._group)
        return {tp: at for tp, at in found.items() if tp in self._assignment.partitions}


class EmbeddedReader(Reader):
    """Reads one topic without a group."""

    def __init__(self, store: Store, topic: str, positions: dict[TopicPartition, int]) -> None:
        self._store, self._topic, self._positions = store, topic, positions

    @property
    def positions(self) -> Mapping[int, int]:
        """See ``Reader.positions``."""
        return {tp.partition: offset for tp, offset in self._positions.items()}

    async def poll(self, *, max_records: int, timeout: float) -> Polled:
        """See ``Reader.poll``."""
        read = await _wait_for_records(
            self._store, self._positions, [self._topic], max_records, timeout
        )
        return read.records

    async def ends(self) -> Mapping[int, int]:
        """See ``Reader.ends``."""
        ends = await self._store.database.run(self._store.ends, [self._topic])
        return {tp.partition: end for tp, (_, end) in ends.items()}
