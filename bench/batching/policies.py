"""What others do: small policies, each after the code or the paper of the system it stands for.

Their settings are constructor arguments with defaults, so that each can be named to a worker too:
``--batch-policy roadstream.bench.batching.policies:Timer``. Live images go before archive images,
in which most of those systems make no difference.
"""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

import numpy as np

from roadstream.stages.batching.policy import BatchPolicy, Moment, Queued, ShapeQueue, Take


class Greedy(BatchPolicy):
    """Late binding without a timer: when the device is free, all that waits (Triton, delay 0)."""

    def take(self, queue: ShapeQueue, moment: Moment) -> Take:
        """Take what waits."""
        return Take(queue.most)


class Timer(BatchPolicy):
    """A free device takes the first image, then waits for more, at most so long (Mosec).

    Args:
        wait: Seconds from the first image's dequeue; with a full batch there is no wait.
    """

    def __init__(self, wait: float = 0.005) -> None:
        self._wait, self._until = wait, math.inf

    def begin_at(self, queue: ShapeQueue, moment: Moment) -> float:
        """Begin when the batch is full or the timer has run down."""
        if self._until == math.inf:
            self._until = moment.now + self._wait
        return moment.now if len(queue) >= queue.most else self._until

    def take(self, queue: ShapeQueue, moment: Moment) -> Take:
        """Take what waits."""
        self._until = math.inf
        return Take(queue.most)


class Preferred(BatchPolicy):
    """Preferred sizes and a delay counted from the oldest image's arrival (Triton).

    Args:
        sizes: A batch of such a size begins at once, the largest that can be had.
        delay: Seconds that the oldest image waits for one; then all that waits is taken.
    """

    def __init__(self, sizes: Sequence[int] = (32, 64, 128), delay: float = 0.005) -> None:
        self._sizes, self._delay = sizes, delay

    def _largest(self, queue: ShapeQueue) -> int:
        """Return the largest preferred size that can be had; 0 if none can."""
        fitting = [size for size in self._sizes if size <= min(len(queue), queue.most)]
        return queue.most if len(queue) >= queue.most else max(fitting, default=0)

    def begin_at(self, queue: ShapeQueue, moment: Moment) -> float:
        """Begin with a preferred size, or when the oldest image has waited long enough."""
        return moment.now if self._largest(queue) else queue.oldest_at + self._delay

    def take(self, queue: ShapeQueue, moment: Moment) -> Take:
        """Take a preferred size, or what waits."""
        return Take(self._largest(queue) or queue.most)


class Early(BatchPolicy):
    """Batches are cut before the device is free, and queue up as they are (Ray Serve).

    Args:
        size: Most images of a batch.
        wait: Seconds from its first image after which a batch is cut as it is.
    """

    def __init__(self, size: int = 32, wait: float = 0.010) -> None:
        self._wanted = self._size = size  # less where that is all that a batch may hold
        self._wait, self._until = wait, math.inf
        # Live images of the open batch, and of those that were cut; archive images fill these up.
        self._open = 0
        self._cut: deque[int] = deque()

    def live_came(self, deadlines: Sequence[float], now: float) -> None:
        """Put images into the open batch; cut it when it is full."""
        for _ in deadlines:
            self._close(now)
            if self._until == math.inf:
                self._until = now + self._wait
            self._open += 1
            if self._open >= self._size:
                self._close(self._until)

    def _close(self, now: float) -> None:
        if now >= self._until:
            self._cut_open()

    def _cut_open(self) -> None:
        self._cut.append(self._open)
        self._open, self._until = 0, math.inf

    def begin_at(self, queue: ShapeQueue, moment: Moment) -> float:
        """Begin when a batch has been cut; of a backlog of archive images one is cut ahead."""
        self._size = min(self._wanted, queue.most)
        self._close(moment.now)
        if (queue.archive and len(self._cut) < 2) or not (self._cut or self._open):
            self._cut_open()
        return moment.now if self._cut else self._until

    def take(self, queue: ShapeQueue, moment: Moment) -> Take:
        """Take the batch that was cut first."""
        live = self._cut.popleft() if self._cut else self._size
        return Take(self._size, live if queue.archive else max(1, live))


class Aimd(BatchPolicy):
    """The size grows by one per batch in time and shrinks by a tenth per batch out of it (Clipper).

    Args:
        deadline: Seconds that a batch may take.
    """

    def __init__(self, deadline: float = 0.1) -> None:
        self._deadline, self._size, self._most = deadline, 1.0, math.inf

    def take(self, queue: ShapeQueue, moment: Moment) -> Take:
        """Take up to the size that has been found to be fast enough."""
        self._most = queue.most
        return Take(int(self._size))

    def ended(self, size: int, seconds: float, now: float) -> None:
        """Adapt the size."""
        if seconds > self._deadline:
            self._size = max(1.0, 0.9 * self._size)
        elif size >= int(self._size):
            self._size = min(self._size + 1.0, self._most)


class Cork(BatchPolicy):
    """Waits as long as that costs the queue less than it has waited before (BentoML).

    Its model of the service time starts from guesses and is fitted every five seconds; here every
    half second, and in the benchmark from the truth, so that its beginnings do not count against
    it.

    Args:
        deadline: What an image may take; the oldest are refused while the whole queue would not
            be done by theirs.
        alpha: Seconds per image that it begins with.
        beta: Seconds per batch likewise.
    """

    TICK, KEPT, REFRESH = 0.001, 50, 0.5

    def __init__(self, deadline: float = 0.1, alpha: float = 0.003, beta: float = 0.003) -> None:
        self._deadline = deadline
        self._alpha, self._beta, self._wait = alpha, beta, 0.01
        self._seen: deque[tuple[int, float, float]] = deque(maxlen=self.KEPT)
        self._refresh_at = self._waited = 0.0
        self._last_refused: Queued | None = None

    def _refused(self, queue: ShapeQueue, now: float) -> int:
        """Return how many live images are refused: they stay, and nobody asks for them again."""
        live = queue.live
        count = 0 if self._last_refused is None else bisect_right(live, self._last_refused)
        while len(live) - count > 1 and (
            now - live[count].came_at + self._alpha * (len(live) - count) + self._beta
            >= self._deadline
        ):
            self._last_refused = live[count]
            count += 1
        return count

    def begin_at(self, queue: ShapeQueue, moment: Moment) -> float:
        """Begin unless waiting is cheaper; those that are refused wait until their time is up."""
        size = len(queue) - self._refused(queue, moment.now)
        if not size:
            return queue.live[-1].deadline_at
        newest = queue.archive[-1] if queue.archive else queue.live[-1]
        cost = size * (moment.now - newest.came_at + self.TICK + self._alpha)
        waits = size < queue.most and cost <= 0.95 * self._wait
        return moment.now + self.TICK if waits else moment.now

    def take(self, queue: ShapeQueue, moment: Moment) -> Take:
        """Take all that waits but those that are refused."""
        refused = self._refused(queue, moment.now)
        if refused == len(queue):
            return Take(queue.most)
        first = queue.live[refused] if refused < len(queue.live) else queue.archive[0]
        self._waited = moment.now - first.came_at
        return Take(queue.most, skip=refused)

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
