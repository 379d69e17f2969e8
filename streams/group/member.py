"""A member of a consumer group that finishes its work in order: publish, then commit, then note.

The one way in which workers and the consensus read and commit. It keeps the offsets in flight, the
event ledger and the counters; its owner keeps the work.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import anyio
import msgspec
import structlog

from roadstream.schemas.errors import FencedError, RecordRefusedError
from roadstream.schemas.records.events import (
    Assigned,
    Committed,
    Delivered,
    Done,
    Fenced,
    Missed,
    Revoked,
    Role,
)
from roadstream.streams.group.refused import instead
from roadstream.streams.group.tracker import OffsetTracker
from roadstream.streams.ledgers.event_ledger import EventLedger, moment, ranges
from roadstream.streams.log import (
    Consumer,
    Log,
    Offsets,
    Output,
    Polled,
    TopicPartition,
    Uncommitted,
)

logger = structlog.get_logger()

# Longer than records take to come again to a member that has joined anew.
IDLE_AFTER = 5.0
OffsetsDone = dict[TopicPartition, list[int]]


HURRY = 2.0
"""Seconds that a step may go on once its process is to stop: a log that is gone answers nothing."""


async def repeat_until(stopping: anyio.Event, step: Callable[[], Awaitable[None]]) -> None:
    """Repeat ``step`` until ``stopping`` is set; drop one that hangs for ``HURRY`` seconds then.

    What it had not committed is delivered again.
    """
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:

        async def give_up() -> None:
            await stopping.wait()
            await anyio.sleep(HURRY)
            tasks.cancel_scope.cancel()

        tasks.start_soon(give_up)
        try:
            while not stopping.is_set():
                await step()
        except Exception as error:  # as it was, and not in a group
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


class Owner(Protocol):
    """Whoever does a member's work, as partitions come and go."""

    async def take_over(self, partitions: Collection[TopicPartition]) -> None:
        """Prepare for these partitions; none of their records was delivered yet."""

    async def give_up(self, partitions: Collection[TopicPartition]) -> None:
        """Finish or drop work on these partitions; what is finished is committed after this."""


class GroupMemberOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a process takes part in a group.

    Attributes:
        member_id: Makes the membership static; see ``Log.consumer``.
        ledger: Folder for the event ledger; ``None`` writes none.
    """

    member_id: str | None = None
    ledger: Path | None = None


class GroupMemberStats(msgspec.Struct):
    """Counters of a group member since its process began.

    Attributes:
        delivered: Records delivered.
        published: Records published.
        commits: Times that the log acknowledged offsets.
        assignments: Times that it was given partitions.
        fenced: Times that its work was refused because its partitions had another owner.
        refused: Records that their topic refused as too large; something smaller was published.
        missed: Records that retention took before the group committed them.
        partitions: Partitions owned now, per topic.
        done_at: When work was last done, on the monotonic clock: something was acknowledged, or for
            ``IDLE_AFTER`` seconds nothing came. A member that joins its group again and again and
            fails at each publish does none.
        polled_at: When the last poll returned, on the monotonic clock; 0 before the first.
    """

    delivered: int = 0
    published: int = 0
    commits: int = 0
    assignments: int = 0
    fenced: int = 0
    refused: int = 0
    missed: int = 0
    partitions: int = 0
    done_at: float = 0.0
    polled_at: float = 0.0


class _Session:
    """One time in the group, from joining to leaving, with a ledger of its own.

    What the log tells of a consumer is noted where its work was noted: a commit that is told while
    the consumer leaves, after an error, must not stand in the ledger of the next session.

    Args:
        ledger: Where to note it.
        before: Added to the consumer's epochs, which it counts from 0: above all of earlier
            sessions, so that their work does not pass for work of this one.
    """

    def __init__(self, ledger: EventLedger, before: int) -> None:
        self.ledger, self.before = ledger, before
        # Noted after the work that allowed them, whatever the log tells first.
        self._commits: list[Committed] = []
        self._acknowledged: dict[TopicPartition, int] = {}

    def committed(self, offsets: Offsets) -> None:
        """Take in offsets that the log acknowledged."""
        if not self.ledger.on:
            return
        # Batches that end out of order ask out of order; the log keeps the highest.
        stood = self._acknowledged
        higher = {tp: at for tp, at in offsets.items() if at > stood.get(tp, -1)}
        if higher:
            stood.update(higher)
            self._commits.append(Committed(moment(), [(*tp, at) for tp, at in higher.items()]))

    def note_commits(self) -> None:
        """Note the commits that were told so far."""
        for event in self._commits:
            self.ledger.write(event)
        self._commits.clear()

    def begin(self) -> None:
        """Begin an epoch; commits that were told before it are of an earlier one."""
        self.note_commits()
        self._acknowledged = {}

    def close(self) -> None:
        """End the ledger with all that was told."""
        self.note_commits()
        self.ledger.close()


class GroupMember:
    """A consumer with its bookkeeping, once ``joined``; it can join again after it has left.

    Epochs grow from one session to the next, so that work of an earlier one is fenced.

    Args:
        owner: Does the work.
        role: What the process is.
        group: Consumer group.
        topics: What it consumes.
        options: How it takes part.
    """

    def __init__(
        self,
        owner: Owner,
        role: Role,
        group: str,
        topics: Collection[str],
        options: GroupMemberOptions,
    ) -> None:
        self._owner, self._role, self._options = owner, role, options
        self.group, self._topics = group, list(topics)
        self._session: _Session  # since it has joined
        self._next_epoch = 0
        self.stats = GroupMemberStats()
        self._tracker = OffsetTracker()
        self._open: Consumer | None = None
        self._came_at: float  # when records came last, or it joined its group

    @property
    def _may_idle(self) -> bool:
        """Whether nothing is to be done; the consensus holds records for images that wait."""
        return self._role == "consensus" or not self._tracker.in_flight

    @property
    def _consumer(self) -> Consumer:
        assert self._open is not None
        return self._open

    @property
    def epoch(self) -> int:
        """Epoch of the work that is begun now."""
        return self._tracker.epoch

    @property
    def in_flight(self) -> int:
        """Number of records delivered and not finished."""
        return self._tracker.in_flight

    def unpolled(self, uncommitted: Uncommitted) -> Uncommitted:
        """Return what of its group's uncommitted offsets waits to be polled by this member."""
        return self._tracker.undelivered(uncommitted)

    async def poll(
        self, *, max_records: int, timeout: float, topics: Collection[str] | None = None
    ) -> Polled:
        """See ``Consumer.poll``. What it returns is in flight until it is finished."""
        polled = await self._consumer.poll(max_records=max_records, timeout=timeout, topics=topics)
        now = self.stats.polled_at = time.monotonic()
        if polled:
            self._came_at = now
        elif max_records and now - self._came_at > IDLE_AFTER and self._may_idle:
            self.stats.done_at = now
        self._session.note_commits()
        for tp, records in polled.items():
            self._tracker.deliver(tp, [record.offset for record in records])
            self.stats.delivered += len(records)
        if polled and self._session.ledger.on:
            found = ranges((tp, [r.offset for r in records]) for tp, records in polled.items())
            self._session.ledger.write(Delivered(moment(), self.epoch, found))
        return polled

    async def finish(self, outputs: Sequence[Output], done: OffsetsDone, epoch: int) -> bool:
        """Publish the outputs of ``done`` and commit what that allows; then note both.

        Returns:
            Whether it was done. Work of partitions that were lost meanwhile is dropped: their next
            owner does it again.

        Raises:
            LogUnavailableError: The outputs were not acknowledged; nothing is noted as done.
            OutputError: The log refuses the outputs; likewise.
        """
        if not await self._publish(outputs, self._tracker.commit_after(done, epoch), epoch, done):
            return False
        self._tracker.done(done, epoch)
        return True

    async def _append(self, outputs: Sequence[Output], commit: Offsets, epoch: int) -> int:
        """Publish outputs, or what says the same in fewer bytes; return how many were published."""
        published = 0
        while True:
            try:
                await self._consumer.publish(outputs, commit, epoch)
            except RecordRefusedError as error:
                published += len(outputs) - len(error.refused)
                self.stats.refused += len(error.refused)
                for refusal in error.refused:
                    logger.error("record_refused", topic=refusal.topic, reason=str(refusal))
                outputs = instead(outputs, error.refused)
            else:
                return published + len(outputs)

    async def flush(self) -> None:
        """Commit what work that ended out of order left behind; raises as ``finish``."""
        if commit := self._tracker.committable():
            await self._publish([], commit, self._tracker.epoch, {})

    async def _publish(
        self, outputs: Sequence[Output], commit: Offsets, epoch: int, done: OffsetsDone
    ) -> bool:
        session = self._session
        try:
            published = await self._append(outputs, commit, epoch - session.before)
        except FencedError as error:
            self.stats.fenced += 1
            logger.warning("fenced", error=str(error))
            session.ledger.write(Fenced(moment(), epoch))
            return False
        self.stats.published += published
        self.stats.done_at = time.monotonic()
        if done and session.ledger.on:
            session.ledger.write(Done(moment(), epoch, ranges(done.items())))
        self._tracker.committed(commit, epoch)
        session.note_commits()
        return True

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """See ``GroupListener``."""
        epoch = self.epoch
        await self._owner.give_up(partitions)
        await self.flush()
        self._tracker.assign(-1, [])
        self.stats.partitions = 0
        self._session.note_commits()
        self._session.ledger.write(Revoked(moment(), epoch))

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """See ``GroupListener``."""
        self._session.begin()
        await self._owner.take_over(partitions)
        epoch = self._session.before + self._consumer.assignment.epoch
        self._next_epoch = epoch + 1
        self._tracker.assign(epoch, partitions)
        self.stats.assignments += 1
        self.stats.partitions = len({tp.partition for tp in partitions})
        if self._session.ledger.on:
            stood = await self._consumer.committed()
            places = [(*tp, stood.get(tp, -1)) for tp in sorted(partitions)]
            self._session.ledger.write(Assigned(moment(), epoch, places))

    def committed(self, offsets: Offsets) -> None:
        """See ``GroupListener``."""
        self.stats.commits += 1
        self._session.committed(offsets)

    def missed(self, tp: TopicPartition, first: int, oldest: int) -> None:
        """See ``GroupListener``."""
        self.stats.missed += oldest - first
        logger.error(
            "records_missed",
            topic=tp.topic,
            partition=tp.partition,
            first=first,
            oldest=oldest,
            hint="retention is shorter than the group's lag; going on from the oldest record",
        )
        self._session.ledger.write(Missed(moment(), *tp, first, oldest))

    @asynccontextmanager
    async def joined(self, log: Log) -> AsyncIterator[None]:
        """Be in the group for as long as the block runs; see ``Log.consumer``.

        Raises:
            LogUnavailableError: The log does not answer.
            OutputError: The event ledger cannot be written.
        """
        options = self._options
        name = options.member_id or "unnamed"
        identity = "" if options.ledger is None else await log.identity()
        ledger = EventLedger(options.ledger, self._role, self.group, name, log=identity)
        session = self._session = _Session(ledger, self._next_epoch)
        try:
            async with log.consumer(
                self.group, self._topics, listener=self, member_id=options.member_id
            ) as consumer:
                self._open, self._came_at = consumer, time.monotonic()
                yield
        finally:
            self._open = None
            self._tracker.assign(-1, [])
            self.stats.partitions = 0
            session.close()
