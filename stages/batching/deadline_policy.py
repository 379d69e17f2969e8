"""The policy that is used unless another is named: live images in time, and then the most work.

It starts no timer while work waits, and sizes batches by what is learnt of their time and of the
live images that come. See docs/batching.md.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence

from roadstream.stages.batching.arrivals import Arrivals
from roadstream.stages.batching.policy import (
    BatchPolicy,
    Moment,
    ShapeQueue,
    Take,
    rounded_up,
)


class DeadlinePolicy(BatchPolicy):
    """As many live images as finish in time, and archive images as far as they delay none.

    Attributes:
        arrivals: What is known of live images that come.
    """

    # A live image that comes just after a batch began waits for its end, then for its own: two of
    # them must fit into its time.
    ARCHIVE_SHARE = 0.5
    # Standard deviations of a normal distribution that are exceeded in one case of ten.
    CROWD = 1.28

    def __init__(self) -> None:
        self.arrivals = Arrivals()

    def live_came(self, deadlines: Sequence[float], now: float) -> None:
        """Learn how often live images come, and how tight their deadlines are."""
        for deadline in deadlines:
            self.arrivals.note(deadline - now, now)

    def begin_at(self, queue: ShapeQueue, moment: Moment) -> float:
        """Wait on idle devices for more archive images, for β seconds in all, if more will come.

        A full batch saves the β of another one, so that waiting β gains at best what it costs.
        """
        now = moment.now
        if not moment.more or moment.running or queue.live or len(queue) >= self.enough(queue, now):
            return now
        return now + queue.latency.beta - moment.idle

    def take(self, queue: ShapeQueue, moment: Moment) -> Take:
        """Take the live images that run now, most urgent first, and fill up with archive images.

        Those whose time is so short that the batch would be too small to keep up with what comes
        are passed over (early drop: Shen et al., Nexus, SOSP 2019). They stay: if nothing else
        waits they run late rather than not at all, as their answers may come just in time.
        """
        now, wait = moment.now, moment.free_in
        limit, latency = self._archive_limit(queue, now), queue.latency
        skip, count = self._live(queue, now, wait)
        if count:
            slack = queue.live[skip].deadline_at - now
            limit = latency.largest_within(slack / latency.margin, limit, wait)
        return Take(max(count, limit), count, skip)

    def _live(self, queue: ShapeQueue, now: float, wait: float) -> tuple[int, int]:
        """Return how many live images are passed over, and how many run."""
        live, latency = queue.live, queue.latency
        least = self._keeps_up(queue, now) if live else 0
        for skip, first in enumerate(live):
            left = len(live) - skip
            time = (first.deadline_at - now) / latency.margin
            room = latency.largest_within(time, queue.most, wait)
            if room >= min(left, least):
                return skip, min(room, left)
        return 0, min(1, len(live))

    def _keeps_up(self, queue: ShapeQueue, now: float) -> int:
        """Return the least batch size at which the device keeps up with the live images that come.

        With λ of them a second that is ``λ·β / (1 − λ·α)``, and at most what leaves a second batch
        in time.
        """
        latency = queue.latency
        rate, tightest = self.arrivals.rate(now), self.arrivals.tightest(now)
        most = max(1, latency.largest_within(self.ARCHIVE_SHARE * tightest, queue.most))
        left = 1.0 - rate * latency.alpha
        return most if left <= 0.0 else max(1, rounded_up(rate * latency.beta / left, most))

    def _archive_limit(self, queue: ShapeQueue, now: float) -> int:
        """Return the largest batch with archive images; one of them runs whatever comes."""
        limit, tightest = queue.most, self.arrivals.tightest(now)
        if tightest < math.inf:
            limit = queue.latency.largest_within(self.ARCHIVE_SHARE * tightest, limit)
            limit = self._leaves_time(queue, limit, tightest, self.arrivals.rate(now))
        return limit

    def _leaves_time(self, queue: ShapeQueue, limit: int, budget: float, rate: float) -> int:
        """Return the largest batch after which what came meanwhile still finishes in time, or 1.

        Of the live images that come while it runs, so many are reckoned with as come in all but one
        case in ten, if they come by chance alone.
        """
        latency, cap = queue.latency, queue.most

        def lasts(size: int) -> float:
            seconds = latency.predict(size) * latency.margin
            come = rate * seconds
            most = rounded_up(come + self.CROWD * math.sqrt(come), cap)
            return seconds + latency.predict(most) * latency.margin

        return 1 + bisect_right(range(2, limit + 1), budget, key=lasts)

    def enough(self, queue: ShapeQueue, now: float) -> int:
        """See ``BatchPolicy``: there may be no more than live images leave time for."""
        return min(super().enough(queue, now), self._archive_limit(queue, now))
