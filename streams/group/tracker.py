"""Which offsets may be committed: pure bookkeeping of work in flight, per partition and epoch."""

from collections import deque
from collections.abc import Collection, Iterable, Sequence

from roadstream.streams.log import Offsets, TopicPartition, Uncommitted


class _Partition:
    """Offsets in flight of one partition.

    ``order`` holds offsets as delivered, ``pending`` those not done; the head of ``order`` is
    dropped lazily, so that every operation costs amortised constant time per offset.
    """

    __slots__ = ("order", "pending", "position")

    def __init__(self) -> None:
        self.order: deque[int] = deque()
        self.pending: set[int] = set()
        self.position: int | None = None

    def committable(self, also_done: Collection[int] = ()) -> int | None:
        order, pending = self.order, self.pending
        while order and order[0] not in pending:
            order.popleft()
        if not also_done:
            return order[0] if order else self.position
        done = set(also_done)
        return next((o for o in order if o in pending and o not in done), self.position)


class OffsetTracker:
    """Decides the offset to commit: the lowest in flight, else the position after the last.

    Offsets may have gaps (compaction, transaction markers) and may finish in any order. Work from
    an earlier epoch is refused, so that a completion that comes after a rebalance changes nothing.
    """

    def __init__(self) -> None:
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._committed: dict[TopicPartition, int] = {}
        self.epoch = 0

    def assign(self, epoch: int, partitions: Iterable[TopicPartition]) -> None:
        """Start an epoch with these partitions; whatever was in flight before is forgotten."""
        self.epoch = epoch
        self._partitions = {tp: _Partition() for tp in partitions}
        self._committed = {}

    def deliver(self, tp: TopicPartition, offsets: Sequence[int]) -> None:
        """Note that ``offsets``, ascending, were delivered and are now in flight."""
        part = self._partitions[tp]
        part.order.extend(offsets)
        part.pending.update(offsets)
        part.position = offsets[-1] + 1

    def owns(self, tp: TopicPartition, epoch: int) -> bool:
        """Return whether work on ``tp`` begun in ``epoch`` still counts."""
        return epoch == self.epoch and tp in self._partitions

    def commit_after(self, done: dict[TopicPartition, list[int]], epoch: int) -> Offsets:
        """Return the offsets that may be committed once ``done`` is done, without noting it.

        Only partitions whose committed offset would advance are named. Empty for a stale epoch.
        """
        if epoch != self.epoch:
            return {}
        advanced: dict[TopicPartition, int] = {}
        for tp, offsets in done.items():
            part = self._partitions.get(tp)
            if part is None:
                continue
            offset = part.committable(offsets)
            if offset is not None and offset > self._committed.get(tp, -1):
                advanced[tp] = offset
        return advanced

    def done(self, done: dict[TopicPartition, list[int]], epoch: int) -> None:
        """Note that the outputs of these offsets are acknowledged. A stale epoch is ignored."""
        if epoch != self.epoch:
            return
        for tp, offsets in done.items():
            if (part := self._partitions.get(tp)) is not None:
                part.pending.difference_update(offsets)

    def committed(self, offsets: Offsets, epoch: int) -> None:
        """Note what was committed, so that a commit is neither repeated nor moved backwards."""
        if epoch == self.epoch:
            for tp, offset in offsets.items():
                self._committed[tp] = max(offset, self._committed.get(tp, -1))

    def committable(self) -> Offsets:
        """Return every offset that may be committed now and is not yet."""
        return {
            tp: offset
            for tp, part in self._partitions.items()
            if (offset := part.committable()) is not None and offset > self._committed.get(tp, -1)
        }

    def undelivered(self, uncommitted: Uncommitted) -> Uncommitted:
        """Return what of the uncommitted offsets was not delivered yet, of partitions owned now."""
        return {
            tp: range(max(left.start, part.position or 0), left.stop)
            for tp, part in self._partitions.items()
            if (left := uncommitted.get(tp)) is not None
        }

    @property
    def in_flight(self) -> int:
        """Number of offsets delivered and not done."""
        return sum(len(part.pending) for part in self._partitions.values())
