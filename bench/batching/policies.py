"""What others do: small policies, each after the code or the paper of the system it stands for.

In the mixed scenario each of them is given a queue per lane, live first, which most of them lack.
"""

import math
from collections import deque
from collections.abc import Sequence

import numpy as np

from roadstream.bench.batching.world import Item


class Greedy:
    """Late binding without a timer: when the device is free, all that waits (Triton, delay 0).

    Args:
        max_batch: Most images of a batch.
    """

    def __init__(self, max_batch: int) -> None:
        self.max_batch = max_batch
        self.live: deque[Item] = deque()
        self.archive: deque[Item] = deque()

    def add(self, item: Item, now: float) -> None:
        """Put an image in its lane."""
        (self.archive if item.deadline_at is None else self.live).append(item)

    def take(self, now: float) -> Sequence[Item]:
        """Return up to ``max_batch`` of what waits."""
        return self.cut(self.max_batch)

    def cut(self, size: int) -> list[Item]:
        """Take the oldest images off the queue, live ones first."""
        batch = [self.live.popleft() for _ in range(min(size, len(self.live)))]
        room = min(size - len(batch), len(self.archive))
        return batch + [self.archive.popleft() for _ in range(room)]

    def wake_at(self, now: float) -> float:
        """Never: there is no timer."""
        return math.inf

    def ended(self, size: int, seconds: float, now: float) -> None:
        """Learn nothing."""

    def waiting(self) -> int:
        """Return the number of archive images queued."""
        return len(self.archive)

    def __len__(self) -> int:
        """Return the number of images queued."""
        return len(self.live) + len(self.archive)


class Timer(Greedy):
    """A free device takes the first image, then waits for more, at most so long (Mosec).

    Args:
        max_batch: Most images of a batch; with so many it does not wait.
        wait: Seconds from the first image's dequeue.
    """

    def __init__(self, max_batch: int, wait: float) -> None:
        super().__init__(max_batch)
        self._wait, self._until = wait, math.inf

    def take(self, now: float) -> Sequence[Item]:
        """Return a batch when it is full or the timer has run down."""
        if not len(self):
            return ()
        if self._until == math.inf:
            self._until = now + self._wait
        if len(self) < self.max_batch and now < self._until:
            return ()
        self._until = math.inf
        return self.cut(self.max_batch)

    def wake_at(self, now: float) -> float:
        """Return when the timer runs down."""
        return self._until


class Preferred(Greedy):
    """Preferred sizes and a delay counted from the oldest image's arrival (Triton).

    Args:
        max_batch: Most images of a batch.
        sizes: A batch of such a size begins at once, the largest that can be had.
        delay: Seconds that the oldest image waits for one; then all that waits is taken.
    """

    def __init__(self, max_batch: int, sizes: Sequence[int], delay: float) -> None:
        super().__init__(max_batch)
        self._sizes, self._delay = sorted({*sizes, max_batch}), delay

    def _oldest(self) -> float:
        fronts = [lane[0].arrived_at for lane in (self.live, self.archive) if lane]
        return min(fronts, default=math.inf)

    def take(self, now: float) -> Sequence[Item]:
        """Return a batch of a preferred size, or whatever there is after the delay."""
        fitting = [size for size in self._sizes if size <= len(self)]
        if fitting:
            return self.cut(fitting[-1])
        return self.cut(self.max_batch) if now >= self.wake_at(now) else ()

    def wake_at(self, now: float) -> float:
        """Return when the oldest image has waited long enough."""
        return self._oldest() + self._delay


class Early(Greedy):
    """Batches are cut before the device is free, and queue up as they are (Ray Serve).

    Args:
        max_batch: Most images of a batch.
        wait: Seconds from its first image after which a batch is cut as it is.
    """

    def __init__(self, max_batch: int, wait: float) -> None:
        super().__init__(max_batch)
        self._wait, self._until = wait, math.inf
        self._cut: deque[list[Item]] = deque()

    def add(self, item: Item, now: float) -> None:
        """Put an image into the open batch; cut it when it is full."""
        self._close(now)
        super().add(item, now)
        # The backlog of the mixed scenario is not drained into batches: one is cut ahead.
        if item.deadline_at is None:
            return
        if self._until == math.inf:
            self._until = now + self._wait
        if len(self.live) >= self.max_batch:
            self._close(self._until)

    def _close(self, now: float) -> None:
        if now >= self._until:
            self._cut.append(self.cut(self.max_batch))
            self._until = math.inf

    def take(self, now: float) -> Sequence[Item]:
        """Return the batch that was cut first."""
        self._close(now)
        if self.archive and len(self._cut) < 2:
            self._cut.append(self.cut(self.max_batch))
            self._until = math.inf
        return self._cut.popleft() if self._cut else ()

    def wake_at(self, now: float) -> float:
        """Return when the open batch is cut."""
        return now if self._cut else self._until


class Aimd(Greedy):
    """The largest batch grows by one until it takes too long, then shrinks by a tenth (Clipper).

    Args:
        max_batch: Most images of a batch.
        deadline: Seconds that a batch may take.
    """

    def __init__(self, max_batch: int, deadline: float) -> None:
        super().__init__(max_batch)
        self._deadline, self._size = deadline, 1.0

    def take(self, now: float) -> Sequence[Item]:
        """Return up to the size that has been found to be fast enough."""
        return self.cut(int(self._size))

    def ended(self, size: int, seconds: float, now: float) -> None:
        """Adapt the size."""
        if seconds > self._deadline:
            self._size = max(1.0, 0.9 * self._size)
        elif size >= int(self._size):
            self._size = min(self._size + 1.0, float(self.max_batch))


class Cork(Greedy):
    """Waits as long as that costs the queue less than it has waited before (BentoML).

    Its model of the service time starts from guesses and is fitted every five seconds; here from
    the truth and every half second, so that its beginnings do not count against it.

    Args:
        max_batch: Most images of a batch.
        deadline: What an image may take; the oldest are refused while the whole queue would not
            be done by theirs.
        alpha: Seconds per image that it begins with.
        beta: Seconds per batch likewise.
    """

    TICK, KEPT, REFRESH = 0.001, 50, 0.5

    def __init__(self, max_batch: int, deadline: float, alpha: float, beta: float) -> None:
        super().__init__(max_batch)
        self._deadline = deadline
        self._alpha, self._beta, self._wait = alpha, beta, 0.01
        self._seen: deque[tuple[int, float, float]] = deque(maxlen=self.KEPT)
        self._refresh_at, self._waited, self._asks = 0.0, 0.0, False

    def take(self, now: float) -> Sequence[Item]:
        """Return all that waits, unless waiting is cheaper."""
        live = self.live
        while len(live) > 1 and (
            now - live[0].arrived_at + self._alpha * len(live) + self._beta >= self._deadline
        ):
            live.popleft()
        n = len(self)
        self._asks = False
        if not n:
            return ()
        newest = self.archive[-1] if self.archive else live[-1]
        cost = n * (now - newest.arrived_at + self.TICK + self._alpha)
        if n < self.max_batch and cost <= 0.95 * self._wait:
            self._asks = True
            return ()
        batch = self.cut(self.max_batch)
        self._waited = now - batch[0].arrived_at
        return batch

    def wake_at(self, now: float) -> float:
        """Return the next tick while it waits."""
        return now + self.TICK if self._asks and len(self) else math.inf

    def ended(self, size: int, seconds: float, now: float) -> None:
        """Fit α and β to the last batches now and then, and the wait likewise."""
        self._seen.append((size, seconds, self._waited))
        if now < self._refresh_at:
            return
        self._refresh_at = now + self.REFRESH
        sizes, times, waits = np.array(self._seen).T
        rows = np.stack([sizes, np.ones_like(sizes)], axis=1)
        alpha, beta = np.linalg.lstsq(rows, times, rcond=None)[0]
        self._alpha, self._beta = max(1e-6, float(alpha)), max(0.0, float(beta))
        self._wait = float(waits.mean())
