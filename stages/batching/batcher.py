"""When to start a batch and what goes into it: pure decisions over a queue and the clock.

A batch is formed only when a slot of the device is free (late binding): live images first, earliest
deadline first, as many as still finish in time; archive images fill the rest as far as live ones
that come meanwhile still find time. A batch holds images of one shape. See docs/batching.md.
"""

import heapq
import math
from bisect import bisect_right
from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, NamedTuple, Protocol, TypeVar

from roadstream.stages.batching.arrivals import Arrivals
from roadstream.stages.batching.latency_model import AffineLatency, LatencyModel


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
        worth: Whether that makes good use of a device: 90 % of what batches without end would, or
            as much as it may take.
        slack: Seconds until its most urgent live item must begin; infinity if none waits.
        preparing: Seconds that the batch takes before it needs a device.
        running: Seconds that it takes on the device.
    """

    size: int = 0
    worth: bool = False
    slack: float = math.inf
    preparing: float = 0.0
    running: float = 0.0


def _whole(number: float, most: int) -> int:
    """Return the next whole number, or ``most`` if that is less, or the number is none."""
    return math.ceil(number) if number < most else most


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


class _Lanes(Generic[W]):
    """What waits of one shape.

    Attributes:
        live: Heap of (deadline, serial number, item).
        archive: (serial number, item), oldest first.
        latency: What batches of this shape take.
    """

    def __init__(self, latency: LatencyModel) -> None:
        self.live: list[tuple[float, int, W]] = []
        self.archive: deque[tuple[int, W]] = deque()
        self.latency = latency

    def __len__(self) -> int:
        return len(self.live) + len(self.archive)

    @property
    def urgency(self) -> tuple[float, float]:
        """Smaller goes first: the earliest deadline, then what came first."""
        if self.live:
            return self.live[0][:2]
        return math.inf, self.archive[0][0]


class Batcher(Generic[W]):
    """The queue of one tier worker.

    Args:
        max_batch: Largest batch.
        latency: What batches are expected to take.
        latencies: The same for the shapes where it is another.

    Attributes:
        cap: The largest batch that is handed out.
        latency: What a batch is expected to take.
        arrivals: What is known of live items that come.
    """

    # A live item that comes just after a batch began waits for its end, then for its own: two of
    # them must fit into its time.
    ARCHIVE_SHARE = 0.5
    # Standard deviations of a normal distribution that are exceeded in one case of ten.
    CROWD = 1.28
    # A batch is worth a turn from so many times β/α on: it does 90 % of what one without end does.
    WORTH = 9.0

    def __init__(
        self,
        max_batch: int,
        latency: LatencyModel | None = None,
        latencies: Mapping[Hashable, LatencyModel] | None = None,
    ) -> None:
        self.cap = BatchCap(max_batch)
        self.latency = latency or AffineLatency()
        self.arrivals = Arrivals()
        self._latencies = latencies or {}
        self._lanes: dict[Hashable, _Lanes[W]] = {}
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
        """Put items in the queue."""
        for item in items:
            self._count += 1
            self._size += item.size
            self._serial += 1
            lanes = self._lanes.get(item.shape)
            if lanes is None:
                lanes = self._lanes[item.shape] = _Lanes(self.latency_of(item.shape))
            deadline = item.deadline_at
            # One without end is none, and what is no number would put the heap out of order.
            if deadline is None or not -math.inf < deadline < math.inf:
                lanes.archive.append((self._serial, item))
            else:
                heapq.heappush(lanes.live, (deadline, self._serial, item))
                self.arrivals.note(deadline - now, now)

    def drop(self) -> list[W]:
        """Empty the queue and return what was in it (the partitions were revoked)."""
        dropped: list[W] = []
        for lanes in self._lanes.values():
            dropped += [item for _, _, item in lanes.live]
            dropped += [item for _, item in lanes.archive]
        self._lanes.clear()
        self._count = self._size = 0
        return dropped

    def next_batch(self, now: float, wait: float = 0.0) -> Batch[W]:
        """Take the next batch for a slot that is free now; both lists empty if nothing waits.

        Args:
            now: Wall clock.
            wait: Seconds until the device is free; the batch is decoded meanwhile.
        """
        expired = self.expired(now)
        lanes = self._next_lanes()
        if lanes is None:
            return Batch([], expired)
        items = self._take_live(lanes, now, wait)
        room = self._archive_room(lanes.latency, now, wait, items)
        items += [lanes.archive.popleft()[1] for _ in range(min(room, len(lanes.archive)))]
        self._count -= len(items)
        self._size -= sum([item.size for item in items])
        return Batch(items, expired)

    def _next_lanes(self) -> _Lanes[W] | None:
        waiting = [lanes for lanes in self._lanes.values() if lanes.live or lanes.archive]
        if len(waiting) < 2:
            return waiting[0] if waiting else None
        return min(waiting, key=lambda lanes: lanes.urgency)

    def _take_live(self, lanes: _Lanes[W], now: float, wait: float) -> list[W]:
        """Take the live items that run now: most urgent first, as many as finish in time.

        Those whose time is so short that the batch would be too small to keep up with what comes
        are passed over (early drop: Shen et al., Nexus, SOSP 2019). They stay: if nothing else
        waits they run late rather than not at all, as their answers may come just in time.
        """
        live, latency, cap = lanes.live, lanes.latency, self.cap.now
        if not live:
            return []
        least = self._keeps_up(latency, now)
        passed: list[tuple[float, int, W]] = []
        while live:
            room = latency.largest_within((live[0][0] - now) / latency.margin, cap, wait)
            if room >= min(len(live), least):
                break
            passed.append(heapq.heappop(live))
        else:
            live[:], passed, room = passed, [], 1  # in order, and so a heap
        items = [heapq.heappop(live)[2] for _ in range(min(room, len(live)))]
        for entry in passed:
            heapq.heappush(live, entry)
        return items

    def _keeps_up(self, latency: LatencyModel, now: float) -> int:
        """Return the least batch size at which the device keeps up with the live items that come.

        With λ of them a second that is ``λ·β / (1 − λ·α)``, and at most what leaves a second batch
        in time.
        """
        rate, tightest = self.arrivals.rate(now), self.arrivals.tightest(now)
        most = max(1, latency.largest_within(self.ARCHIVE_SHARE * tightest, self.cap.now))
        left = 1.0 - rate * latency.alpha
        return most if left <= 0.0 else max(1, _whole(rate * latency.beta / left, most))

    def _archive_room(self, latency: LatencyModel, now: float, wait: float, taken: list[W]) -> int:
        """Return how many archive items may go along with the live ones that were taken."""
        limit = self._archive_limit(latency, now)
        if taken:
            slack = (taken[0].deadline_at or 0.0) - now
            limit = latency.largest_within(slack / latency.margin, limit, wait)
        return max(0, limit - len(taken))

    def _archive_limit(self, latency: LatencyModel, now: float) -> int:
        """Return the largest batch with archive items; one of them runs whatever comes."""
        limit, tightest = self.cap.now, self.arrivals.tightest(now)
        if tightest < math.inf:
            limit = latency.largest_within(self.ARCHIVE_SHARE * tightest, limit)
            limit = self._leaves_time(latency, limit, tightest, self.arrivals.rate(now))
        return limit

    def _leaves_time(self, latency: LatencyModel, limit: int, budget: float, rate: float) -> int:
        """Return the largest batch after which what came meanwhile still finishes in time, or 1.

        Of the live items that come while it runs, so many are reckoned with as come in all but one
        case in ten, if they come by chance alone.
        """

        def lasts(size: int) -> float:
            seconds = latency.predict(size) * latency.margin
            come = rate * seconds
            most = _whole(come + self.CROWD * math.sqrt(come), self.cap.now)
            return seconds + latency.predict(most) * latency.margin

        return 1 + bisect_right(range(2, limit + 1), budget, key=lasts)

    def patience(self, now: float, waited: float) -> float:
        """Return how long archive items better wait for more, on a device that idles.

        A full batch saves the β of another one, so that waiting β gains at best what it costs.
        There is none with a live item, or with a batch that is worth its turn. To be asked only
        while more is known to come.

        Args:
            now: Wall clock.
            waited: Seconds for which the device has idled while something waited.
        """
        lanes = self._next_lanes()
        if lanes is None or lanes.live or self._is_worth(lanes, now):
            return 0.0
        return max(0.0, lanes.latency.beta - waited)

    def _is_worth(self, lanes: _Lanes[W], now: float) -> bool:
        latency, enough = lanes.latency, self.cap.now
        if latency.alpha > 0.0:
            enough = _whole(self.WORTH * latency.beta / latency.alpha, enough)
        return len(lanes) >= min(enough, self._archive_limit(latency, now))

    def state(self, now: float) -> QueueState:
        """Return how the queue stands."""
        lanes = self._next_lanes()
        if lanes is None:
            return QueueState()
        latency, size = lanes.latency, min(len(lanes), self.cap.now)
        slack = math.inf
        if lanes.live:
            size = min(len(lanes.live), self.cap.now)
            slack = lanes.live[0][0] - now - latency.predict(size) * latency.margin
        preparing = latency.preparing(size)
        running = latency.predict(size) - preparing
        return QueueState(size, self._is_worth(lanes, now), slack, preparing, running)

    @property
    def next_deadline_at(self) -> float | None:
        """The earliest deadline of a live item that waits; ``None`` if none does."""
        return min([lanes.live[0][0] for lanes in self._lanes.values() if lanes.live], default=None)

    def expired(self, now: float) -> list[W]:
        """Take the live items whose deadline has passed."""
        expired: list[W] = []
        for lanes in self._lanes.values():
            while lanes.live and lanes.live[0][0] <= now:
                item = heapq.heappop(lanes.live)[2]
                self._count -= 1
                self._size -= item.size
                expired.append(item)
        return expired
