"""The queue of a tier worker, which takes from it what its policy says.

A batch is formed only when a slot of the device is free (late binding). It holds images of one
shape: that of the most urgent one. See docs/batching.md.
"""

import math
import sys
from collections.abc import Hashable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from roadstream.schemas.errors import ConfigError
from roadstream.stages.batching.deadline_policy import DeadlinePolicy
from roadstream.stages.batching.latency_model import AffineLatency, LatencyModel
from roadstream.stages.batching.policy import (
    BatchPolicy,
    Moment,
    Queued,
    ShapeQueue,
    Take,
    told,
)


class Waiting(Protocol):
    """What the batcher must know of an item."""

    @property
    def deadline_at(self) -> float | None:
        """Absolute deadline; ``None`` for an archive item."""

    @property
    def size(self) -> int:
        """Bytes it holds in memory."""

    @property
    def shape(self) -> Hashable:
        """What the items of a batch have in common; ``None`` where all have one shape."""


W = TypeVar("W", bound=Waiting)


class Batch(NamedTuple, Generic[W]):
    """Items to run now, and live items whose deadline has passed, to be answered without work."""

    items: list[W]
    expired: list[W]


class QueueState(NamedTuple):
    """How a queue stands, for those who share its devices.

    Attributes:
        size: About how many items its next batch would hold; 0 if nothing waits.
        worth: Whether that makes good use of a device; see ``BatchPolicy.enough``.
        slack: Seconds until its most urgent live item must begin; infinity if none waits.
        preparing: Seconds that the batch takes before it needs a device.
        running: Seconds that it takes on the device.
    """

    size: int = 0
    worth: bool = False
    slack: float = math.inf
    preparing: float = 0.0
    running: float = 0.0


def _is_count(number: object) -> bool:
    return isinstance(number, Integral) and int(number) >= 0


class BatchCap:
    """The largest batch that is tried: lowered when memory runs out, and slowly raised again.

    After ``PATIENCE`` batches in a row that were as large as it allows and fitted, it grows by an
    eighth, at least by one. Each time that memory runs out again that patience doubles, up to
    ``MOST_PATIENCE``; so many full batches at the limit make it forget.

    Attributes:
        limit: The batch size that was asked for.
        now: The size that is tried now, 1 to ``limit``.
    """

    PATIENCE = 32
    MOST_PATIENCE = 4096

    def __init__(self, limit: int) -> None:
        self.limit = self.now = limit
        self._patience = 0
        self._fitted = 0

    def lower(self, fits: int) -> None:
        """Note that of a larger batch, parts of at most ``fits`` pictures fitted into memory."""
        self.now = max(1, min(self.now, fits))
        self._patience = min(2 * self._patience or self.PATIENCE, self.MOST_PATIENCE)
        self._fitted = 0

    def fitted(self, size: int) -> None:
        """Note that a batch of ``size`` fitted into memory."""
        if not self._patience or size < self.now:
            return
        self._fitted += 1
        if self.now == self.limit:
            if self._fitted >= self.MOST_PATIENCE:
                self._patience = 0
        elif self._fitted >= self._patience:
            self._fitted = 0
            self.now = min(self.limit, self.now + max(1, self.now // 8))


class Batcher(Generic[W]):
    """The queue of one tier worker.

    Args:
        max_batch: Largest batch.
        latency: What batches are expected to take.
        latencies: The same for the shapes where it is another.
        policy: Decides when a batch is due and what it holds.

    Attributes:
        cap: The largest batch that is handed out.
        latency: What a batch is expected to take.
        policy: As given.
    """

    def __init__(
        self,
        max_batch: int,
        latency: LatencyModel | None = None,
        latencies: Mapping[Hashable, LatencyModel] | None = None,
        policy: BatchPolicy | None = None,
    ) -> None:
        self.cap = BatchCap(max_batch)
        self.latency = latency or AffineLatency()
        self.policy = policy or DeadlinePolicy()
        self._latencies = latencies or {}
        self._queues: dict[Hashable, ShapeQueue] = {}
        self._serial = 0
        self._count = self._size = 0

    def __len__(self) -> int:
        """Return the number of items waiting."""
        return self._count

    @property
    def size(self) -> int:
        """Bytes held by the items waiting."""
        return self._size

    @property
    def max_batch(self) -> int:
        """The batch size that was asked for."""
        return self.cap.limit

    def latency_of(self, shape: Hashable) -> LatencyModel:
        """Return what batches of a shape are expected to take."""
        return self._latencies.get(shape, self.latency)

    def add(self, items: Iterable[W], now: float) -> None:
        """Put items in the queue.

        Raises:
            ConfigError: The policy fails; all the same with other methods. Nothing is lost.
        """
        deadlines = []
        for item in items:
            self._count += 1
            self._size += item.size
            self._serial += 1
            queue = self._queues.get(item.shape)
            if queue is None:
                latency = self.latency_of(item.shape)
                queue = self._queues[item.shape] = ShapeQueue(latency, self.cap.now)
            deadline = item.deadline_at
            # One without end is none, and what is no number would put the queue out of order.
            if deadline is None or not -math.inf < deadline < math.inf:
                queue.archive.append(Queued(math.inf, self._serial, now, item))
            else:
                queue.insert(Queued(deadline, self._serial, now, item))
                deadlines.append(deadline)
        if deadlines:
            self._ask("live_came", deadlines, now)

    def drop(self) -> list[W]:
        """Empty the queue and return what was in it (the partitions were revoked)."""
        dropped: list[W] = []
        for queue in self._queues.values():
            dropped += [one.item for one in (*queue.live, *queue.archive)]
        self._queues.clear()
        self._count = self._size = 0
        return dropped

    def next_batch(self, moment: Moment) -> Batch[W]:
        """Take the next batch for a slot that is free now; both lists empty if nothing waits."""
        expired = self.expired(moment.now)
        return Batch(self.take(moment), expired)

    def take(self, moment: Moment) -> list[W]:
        """Take the next batch, whether its deadlines have passed or not; empty if nothing waits."""
        queue = self._next()
        if queue is None:
            return []
        take = self._ask("take", queue, moment)
        live, archive, skip = self._checked(take, queue)
        items = [one.item for one in queue.live[skip : skip + live]]
        del queue.live[skip : skip + live]
        items += [queue.archive.popleft().item for _ in range(archive)]
        self._count -= len(items)
        self._size -= sum([item.size for item in items])
        return items

    def _checked(self, take: Take, queue: ShapeQueue) -> tuple[int, int, int]:
        """Return how many live and archive images a policy takes, and how many it passes over."""
        if not isinstance(take, Take) or not all(
            map(_is_count, (take.size, 0 if take.live is None else take.live, take.skip))
        ):
            raise self._refused("take", "a Take of numbers from 0 on", repr(take))
        size = min(take.size, self.cap.now)
        live = min(size, max(0, len(queue.live) - take.skip))
        live = live if take.live is None else min(live, take.live)
        archive = min(size - live, len(queue.archive))
        if live + archive == 0:
            got = f"{take}, where {len(queue.live)} live and {len(queue.archive)} archive ones wait"
            raise self._refused("take", "a Take with an image at least", got)
        return live, archive, take.skip

    def _number(self, question: str, *about: object) -> float:
        """Ask the policy for a number."""
        answer = self._ask(question, *about)
        # Negative ones mean no more than 0, and the least of them are no float.
        if not isinstance(answer, Real) or not answer <= sys.float_info.max:
            raise self._refused(question, "a number that is not infinite", repr(answer))
        return 0.0 if answer < 0 else float(answer)

    def _ask(self, question: str, *about: object) -> Any:
        try:
            answer = getattr(self.policy, question)(*about)
        except Exception as error:  # whatever somebody else's policy does
            raise self._refused(question, "an answer", told(error)) from error
        if (left := sum(map(len, self._queues.values()))) != self._count:
            raise self._refused(question, f"{self._count} images left in the queue", str(left))
        return answer

    def _refused(self, question: str, expected: str, got: str) -> ConfigError:
        kind = type(self.policy)
        return ConfigError(f"{kind.__module__}:{kind.__qualname__}.{question}", expected, got)

    def _next(self) -> ShapeQueue | None:
        """Return the queue whose turn it is, if anything waits."""
        waiting = [queue for queue in self._queues.values() if len(queue)]
        if not waiting:
            return None
        queue = waiting[0] if len(waiting) == 1 else min(waiting, key=lambda one: one.first)
        queue.most = self.cap.now
        return queue

    def begin_at(self, moment: Moment) -> float:
        """Return from when on a slot is wanted for the next batch; up to now means at once."""
        queue = self._next()
        return moment.now if queue is None else self._number("begin_at", queue, moment)

    def ended(self, size: int, seconds: float, now: float) -> None:
        """Tell the policy what a batch took, from its beginning to its end."""
        self._ask("ended", size, seconds, now)

    def state(self, now: float) -> QueueState:
        """Return how the queue stands."""
        queue = self._next()
        if queue is None:
            return QueueState()
        latency, size, slack = queue.latency, min(len(queue), queue.most), math.inf
        if queue.live:
            size = min(len(queue.live), queue.most)
            slack = queue.live[0].deadline_at - now - latency.predict(size) * latency.margin
        preparing = latency.preparing(size)
        running = latency.predict(size) - preparing
        worth = len(queue) >= self._number("enough", queue, now)
        return QueueState(size, worth, slack, preparing, running)

    @property
    def next_deadline_at(self) -> float | None:
        """The earliest deadline of a live item that waits; ``None`` if none does."""
        live = [queue.live for queue in self._queues.values() if queue.live]
        return min([queue[0].deadline_at for queue in live], default=None)

    def expired(self, now: float) -> list[W]:
        """Take the live items whose deadline has passed."""
        expired: list[W] = []
        for queue in self._queues.values():
            live, passed = queue.live, 0
            while passed < len(live) and live[passed].deadline_at <= now:
                passed += 1
            expired += [one.item for one in live[:passed]]
            del live[:passed]
        self._count -= len(expired)
        self._size -= sum([item.size for item in expired])
        return expired
