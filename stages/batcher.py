"""When to start a batch and what goes into it: pure decisions over a queue and the clock.

Service time is taken as affine, ``l(b) = α·b + β``, and learnt from measured batches. A batch is
formed only when a slot of the device is free (late binding): live images first, earliest deadline
first, as many as still finish in time; archive images fill the rest while the predicted run time
stays under 0.45 of the tightest live deadline seen lately. No timer runs while work waits.
"""

import heapq
from collections import deque
from collections.abc import Iterable
from typing import Generic, NamedTuple, Protocol, TypeVar


class Waiting(Protocol):
    """What the batcher must know of an item."""

    @property
    def deadline_at(self) -> float | None:
        """Absolute deadline; ``None`` for an archive item."""

    @property
    def size(self) -> int:
        """Bytes it holds in memory."""


W = TypeVar("W", bound=Waiting)


class Batch(NamedTuple, Generic[W]):
    """Items to run now, and live items whose deadline has passed, to be answered without work."""

    items: list[W]
    expired: list[W]


class ServiceTime:
    """Running least-squares fit of ``l(b) = α·b + β`` over recent batches.

    Old batches fade by ``DECAY`` per batch, so that the fit follows a device that slows down.
    """

    DECAY = 0.98

    def __init__(self, alpha: float = 0.0, beta: float = 0.0) -> None:
        self.alpha, self.beta = alpha, beta
        self._n = self._x = self._y = self._xx = self._xy = 0.0

    def observe(self, size: int, seconds: float) -> None:
        """Learn that a batch of ``size`` took ``seconds``."""
        decay = self.DECAY
        self._n = decay * self._n + 1
        self._x = decay * self._x + size
        self._y = decay * self._y + seconds
        self._xx = decay * self._xx + size * size
        self._xy = decay * self._xy + size * seconds
        spread = self._n * self._xx - self._x * self._x
        if spread > 1e-9 * self._n * self._xx:
            slope = (self._n * self._xy - self._x * self._y) / spread
            self.alpha = max(0.0, slope)
            self.beta = max(0.0, (self._y - self.alpha * self._x) / self._n)
        else:
            self.alpha, self.beta = self._y / self._x, 0.0

    def predict(self, size: int) -> float:
        """Return the expected seconds for a batch of ``size``."""
        return self.alpha * size + self.beta

    def largest_within(self, seconds: float, limit: int) -> int:
        """Return the largest batch up to ``limit`` that takes at most ``seconds``; 0 if none."""
        if self.predict(limit) <= seconds:
            return limit
        room = seconds - self.beta
        if self.alpha <= 0.0 or room <= 0.0:
            return 0
        return int(min(limit, room / self.alpha))


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

    Attributes:
        cap: The largest batch that is handed out.
        service_time: What a batch is expected to take.
    """

    ARCHIVE_SHARE = 0.45
    # A live deadline counts as seen lately for so many seconds after its item came.
    LIVE_MEMORY = 10.0

    def __init__(self, max_batch: int, service_time: ServiceTime | None = None) -> None:
        self.cap = BatchCap(max_batch)
        self.service_time = service_time or ServiceTime()
        self._live: list[tuple[float, int, W]] = []
        self._archive: deque[W] = deque()
        self._serial = 0
        self._size = 0
        # Budgets of live items as (until, budget), both growing: the first is the tightest.
        self._budgets: deque[tuple[float, float]] = deque()

    def __len__(self) -> int:
        """Return the number of items waiting."""
        return len(self._live) + len(self._archive)

    @property
    def size(self) -> int:
        """Bytes held by the items waiting."""
        return self._size

    @property
    def max_batch(self) -> int:
        """The batch size that was asked for."""
        return self.cap.limit

    def add(self, items: Iterable[W], now: float) -> None:
        """Put items in the queue."""
        for item in items:
            self._size += item.size
            if item.deadline_at is None:
                self._archive.append(item)
                continue
            self._serial += 1
            heapq.heappush(self._live, (item.deadline_at, self._serial, item))
            self._note_live(item.deadline_at - now, now)

    def _note_live(self, budget: float, now: float) -> None:
        if budget <= 0:
            return
        while self._budgets and self._budgets[-1][1] >= budget:
            self._budgets.pop()
        self._budgets.append((now + self.LIVE_MEMORY, budget))

    def _tightest(self, now: float) -> float | None:
        while self._budgets and self._budgets[0][0] < now:
            self._budgets.popleft()
        return self._budgets[0][1] if self._budgets else None

    def drop(self) -> list[W]:
        """Empty the queue and return what was in it (the partitions were revoked)."""
        dropped = [item for _, _, item in self._live] + list(self._archive)
        self._live, self._size = [], 0
        self._archive.clear()
        return dropped

    def next_batch(self, now: float) -> Batch[W]:
        """Take the next batch for a slot that is free now; both lists empty if nothing waits."""
        expired = self.expired(now)
        items: list[W] = []
        if self._live:
            slack = self._live[0][0] - now
            # An image that is late even alone still runs: its answer may come just in time.
            room = max(1, self.service_time.largest_within(slack, self.cap.now))
            while self._live and len(items) < room:
                items.append(self._pop_live())
        archive = self._archive_room(now, len(items))
        if archive >= len(self._archive):
            items.extend(self._archive)
            self._archive.clear()
        else:
            items.extend(self._archive.popleft() for _ in range(archive))
        self._size = self._size - sum(item.size for item in items) if len(self) else 0
        return Batch(items, expired)

    def _archive_room(self, now: float, taken: int) -> int:
        limit = self.cap.now
        if (tightest := self._tightest(now)) is not None:
            budget = self.ARCHIVE_SHARE * tightest
            limit = max(0 if taken else 1, self.service_time.largest_within(budget, limit))
        return max(0, limit - taken)

    @property
    def next_deadline_at(self) -> float | None:
        """The earliest deadline of a live item that waits; ``None`` if none does."""
        return self._live[0][0] if self._live else None

    def expired(self, now: float) -> list[W]:
        """Take the live items whose deadline has passed."""
        expired: list[W] = []
        while self._live and self._live[0][0] <= now:
            item = self._pop_live()
            self._size -= item.size
            expired.append(item)
        return expired

    def _pop_live(self) -> W:
        return heapq.heappop(self._live)[2]
