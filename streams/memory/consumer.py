"""A member of a consumer group on the in-memory log; see ``Consumer`` for what it promises."""

from collections.abc import Collection, Iterable, Sequence

import anyio

from roadstream.schemas.errors import (
    FencedError,
    LogUnavailableError,
    RecordRefusedError,
    ReplacedError,
    RoadstreamError,
)
from roadstream.streams.log import (
    Assignment,
    Consumer,
    GroupListener,
    Offsets,
    Output,
    Polled,
    TopicPartition,
)
from roadstream.streams.memory.broker import MemoryBroker
from roadstream.streams.memory.group import Session
from roadstream.streams.memory.store import Fault, Operation


class MemoryConsumer(Consumer):
    """See ``Consumer``.

    Attributes:
        member: Its name in the group.
        crashed: Whether it is dead: it then does nothing more, and does not leave either.
    """

    def __init__(
        self,
        broker: MemoryBroker,
        group: str,
        topics: list[str],
        listener: GroupListener | None,
        member: str,
    ) -> None:
        self._broker, self._store = broker, broker.store
        self._topics, self._listener = topics, listener
        self._group, self._group_name, self.member = broker.group(group), group, member
        self._session: Session = self._group.join(member, broker.monotonic())
        self._generation, self._complete = -1, False
        self._positions: dict[TopicPartition, int] = {}
        self._assignment = Assignment(0, frozenset())
        self._pending: dict[TopicPartition, int] = {}
        self.crashed = False

    @property
    def assignment(self) -> Assignment:
        """See ``Consumer.assignment``."""
        return self._assignment

    def owns(self, partition: int) -> bool:
        """Return whether the group takes it for the owner of a partition at this moment."""
        return self._group.owns(self._session, (partition,))

    def leave(self) -> None:
        """Commit what is pending and leave; somebody dead does neither."""
        if not self.crashed:
            self._commit(self._pending)
            self._group.leave(self._session)

    async def poll(
        self, *, max_records: int, timeout: float, topics: Collection[str] | None = None
    ) -> Polled:
        """See ``Consumer.poll``."""
        fault = await self._call("poll")
        if fault.delay:
            await anyio.sleep(fault.delay)
        self._stay()
        if not self._group.is_member(self._session) and self.member in self._group.sessions:
            raise ReplacedError(
                f"{self._group_name}: another process has joined under this member's name, "
                f"{self.member}"
            )
        self._commit_pending()
        await self._follow_group()
        some = self._positions
        if topics is not None:
            some = {tp: at for tp, at in self._positions.items() if tp.topic in topics}
        found = await self._store.read_on(some, self._topics, max_records, timeout, self._gone)
        await self._broker.thawed(self.member)
        if some is not self._positions:
            self._positions.update(some)
        if fault.error is not None:
            raise fault.error
        if found and self._store.watcher is not None:
            self._store.watcher.delivered(self._group_name, self.member, found)
        return found

    async def _call(self, operation: Operation) -> Fault:
        fault = await self._broker.call(operation, self.member)
        self._check_alive()
        return fault

    def _check_alive(self) -> None:
        if self.crashed:
            raise LogUnavailableError(f"{self._group_name}: {self.member} has crashed")

    def _stay(self) -> None:
        """Show that this member lives, and put out those who did not for too long."""
        now = self._broker.monotonic()
        for session in self._group.evict(now, self._broker.session_timeout):
            if self._store.watcher is not None:
                self._store.watcher.evicted(self._group_name, session.member)
        self._session.seen_at = now

    async def _follow_group(self) -> None:
        group = self._group
        partitions = len(self._store.topics[self._topics[0]])
        # What others have yet to hand over is no reason to drop everything again at every poll.
        settled = self._complete or not group.gains(self._session, partitions)
        if group.is_member(self._session) and group.generation == self._generation and settled:
            return
        owned = self._assignment.partitions
        self._generation = group.generation
        if owned and self._listener is not None:
            await self._listener.revoked(owned)
        self._commit(self._pending)
        if not group.is_member(self._session):
            self._session = group.join(self.member, self._broker.monotonic())
            self._generation = group.generation
        mine, self._complete = group.exchange(self._session, partitions)
        assigned = frozenset(TopicPartition(t, p) for t in self._topics for p in mine)
        if not owned and not assigned:
            return
        self._assignment = Assignment(self._assignment.epoch + 1, assigned)
        self._positions = {tp: self._start(tp) for tp in sorted(assigned)}
        if self._listener is not None:
            await self._listener.assigned(assigned)

    def _start(self, tp: TopicPartition) -> int:
        """Return where to begin: a group without a committed offset has missed nothing."""
        committed = self._group.offsets.get(tp)
        return self._store.topics[tp.topic][tp.partition].first if committed is None else committed

    def _gone(self, tp: TopicPartition, first: int, oldest: int) -> None:
        if self._store.watcher is not None:
            self._store.watcher.missed(self._group_name, tp, first, oldest)
        if self._listener is not None:
            self._listener.missed(tp, first, oldest)

    async def publish(self, outputs: Sequence[Output], commit: Offsets, epoch: int) -> None:
        """See ``Consumer.publish``."""
        partitions = {tp.partition for tp in commit}
        self._check_fence(partitions, epoch)
        fault = await self._call("publish")
        if self._broker.atomic:
            if fault.delay:
                await anyio.sleep(fault.delay)
                await self._broker.thawed(self.member)
                self._check_alive()
            self._check_fence(partitions, epoch)
        outputs, refused = self._store.within_limits(outputs)
        if outputs:
            await self._broker.append(outputs, fault, self)
        if refused and fault.error is None:
            raise RecordRefusedError(refused)
        if self._broker.atomic:
            self._commit(commit)
        elif fault.error is None and epoch == self._assignment.epoch:
            for tp, offset in commit.items():
                self._pending[tp] = max(offset, self._pending.get(tp, 0))
        if fault.error is not None:
            raise fault.error

    def _check_fence(self, partitions: Iterable[int], epoch: int) -> None:
        silence = self._broker.monotonic() - self._session.seen_at
        owner = self._group.owns(self._session, partitions)
        if not owner or silence > self._broker.session_timeout or epoch != self._assignment.epoch:
            raise FencedError(
                f"{self._group_name}: {self.member} no longer owns what it commits "
                f"(epoch {epoch}, now {self._assignment.epoch})"
            )

    def _commit_pending(self) -> None:
        """Commit what earlier publishes left, unless a fault keeps it back once more."""
        if not self._pending:
            return
        pending = self._pending
        try:
            fault = self._store.fault("commit")
        except RoadstreamError:
            return
        if fault.error is None:
            self._commit(pending)
        else:  # it is done, but nobody knows: it is sent again
            self._commit(pending, heard=False)
            self._pending = pending

    def _commit(self, offsets: Offsets, *, heard: bool = True) -> None:
        """Move the group's offsets on; where other work has moved them further, they stay."""
        self._pending, stands = {}, self._group.offsets
        mine = {tp: offset for tp, offset in offsets.items() if self.owns(tp.partition)}
        for tp, offset in mine.items():
            if offset > stands.get(tp, 0):
                if self._store.watcher is not None:
                    self._store.watcher.committed(self._group_name, self.member, tp, offset)
                self._group.commit(tp, offset)
        if mine and heard and self._listener is not None:
            self._listener.committed(mine)

    async def committed(self) -> Offsets:
        """See ``Consumer.committed``."""
        owned = self._assignment.partitions
        return {tp: at for tp, at in self._group.offsets.items() if tp in owned}
