"""The product's batcher as a policy of the simulation: the class itself, with a virtual clock."""

import math
import random
from collections.abc import Sequence

from roadstream.bench.batching.world import Item, Service
from roadstream.stages.batching.batcher import Batcher
from roadstream.stages.batching.latency_model import AffineLatency


class Ours:
    """The product's ``Batcher``, which has learnt the service time from a sweep as at warm-up.

    Args:
        service: What is swept, with its noise.
        max_batch: Most images of a batch.
        seed: Of the noise.
    """

    def __init__(self, service: Service, max_batch: int, seed: int) -> None:
        self._time, chance = AffineLatency(), random.Random(seed)
        size = 1
        while size <= max_batch:
            self._time.observe(size, service.seconds(size, chance))
            size *= 2
        self._batcher: Batcher[Item] = Batcher(max_batch, self._time)

    def add(self, item: Item, now: float) -> None:
        """Take an image into the queue."""
        self._batcher.add((item,), now)

    def take(self, now: float) -> Sequence[Item]:
        """Return the batch that begins now; what has expired is answered without work."""
        return self._batcher.next_batch(now).items

    def wake_at(self, now: float) -> float:
        """Never: no timer runs."""
        return math.inf

    def ended(self, size: int, seconds: float, now: float) -> None:
        """Keep the service time current."""
        self._time.observe(size, seconds)

    def waiting(self) -> int:
        """Return the number of images queued: in a backlog, archive images for the most part."""
        return len(self._batcher)
