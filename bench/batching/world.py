"""What a batching policy is put to: arrivals, a device with affine service time, and a clock."""

import math
import random
from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from roadstream.stages.batching.batcher import Batcher
from roadstream.stages.batching.latency_model import AffineLatency
from roadstream.stages.batching.policy import BatchPolicy, Moment

# Half-normal, as a share of the time by the affine model: 2.4 % on average, 7.7 % in one of
# a hundred.
NOISE = 0.03
MEAN_NOISE = 1.0 + NOISE * math.sqrt(2.0 / math.pi)
# The first tenth of the images is not counted: policies that learn have learnt by then.
WARM_UP = 10
# Of the noise while the service time is learnt.
SWEEP_SEED = 5


class Item:
    """An image that waits; ``deadline_at`` is ``None`` in the archive lane."""

    __slots__ = ("arrived_at", "deadline_at", "size")

    shape = None

    def __init__(self, arrived_at: float, deadline_at: float | None) -> None:
        self.arrived_at, self.deadline_at, self.size = arrived_at, deadline_at, 1


class Service(NamedTuple):
    """A member on a device: ``l(b) = α·b + β`` seconds, and noise that only ever adds.

    Attributes:
        name: For the tables.
        alpha: Seconds per image.
        beta: Seconds per batch.
    """

    name: str
    alpha: float
    beta: float

    @property
    def peak(self) -> float:
        """Images per second in batches without end: 1/α, less the mean of the noise."""
        return 1.0 / (self.alpha * MEAN_NOISE)

    def seconds(self, size: int, chance: random.Random) -> float:
        """Return how long a batch takes this time."""
        return (self.alpha * size + self.beta) * (1.0 + abs(chance.gauss(0.0, NOISE)))


class Worker:
    """The product's queue before a device, with a policy.

    Args:
        policy: When a batch begins and what is in it.
        service: Swept as at warm-up, so that what it takes is learnt.
        max_batch: Most images of a batch.
        answers_late: Whether images whose deadline has passed are answered without work, as the
            product does; else they run, as in most systems that the other policies stand for.
    """

    def __init__(
        self, policy: BatchPolicy, service: Service, max_batch: int, *, answers_late: bool = False
    ) -> None:
        self._latency, chance = AffineLatency(), random.Random(SWEEP_SEED)
        size = 1
        while size <= max_batch:
            self._latency.observe(size, service.seconds(size, chance))
            size *= 2
        self.queue: Batcher[Item] = Batcher(max_batch, self._latency, policy=policy)
        self._answers_late, self._archived = answers_late, 0
        self.wake_at = math.inf

    def fill(self, backlog: int, now: float) -> None:
        """Let so many archive images wait."""
        missing = [Item(now, None) for _ in range(backlog - self._archived)]
        self.queue.add(missing, now)
        self._archived += len(missing)

    def take(self, now: float) -> Sequence[Item]:
        """Return the batch that begins now, as the device is free; nothing means: not yet."""
        if self._answers_late:
            self.queue.expired(now)
        moment = Moment(now)
        self.wake_at = self.queue.begin_at(moment) if len(self.queue) else math.inf
        batch = [] if self.wake_at > now else self.queue.take(moment)
        self._archived -= sum([item.deadline_at is None for item in batch])
        return batch

    def ended(self, size: int, seconds: float, now: float) -> None:
        """Learn what a batch took."""
        self._latency.observe(size, seconds)
        self.queue.ended(size, seconds, now)


class Outcome(NamedTuple):
    """What came of a run.

    Attributes:
        on_time: Share of live images that were done by their deadline; what was dropped was not.
        throughput: Images per second, both lanes, over the time in which live images came.
        mean_batch: Images per batch.
    """

    on_time: float
    throughput: float
    mean_batch: float


def poisson(count: int, seed: int) -> list[float]:
    """Return arrivals at a rate of one a second."""
    chance = random.Random(seed)
    return list(accumulate(chance.expovariate(1.0) for _ in range(count)))


def at_rate(unit: Sequence[float], rate: float) -> list[float]:
    """Return the same arrivals at another rate."""
    return [t / rate for t in unit]


# In a burst six times as many come as between two; a sixth of the time is burst.
BURST_RATIO, BURST_SECONDS, CALM_SECONDS = 6.0, 0.2, 1.0


def in_bursts(unit: Sequence[float], rate: float, seed: int) -> list[float]:
    """Return the same arrivals at a rate that is high in bursts and low between them.

    The lengths of both are exponential and do not scale with the rate: a burst of a second is
    longer than a deadline however many images come in it.
    """
    chance = random.Random(seed)
    whole = BURST_SECONDS + CALM_SECONDS
    low = rate * whole / (BURST_RATIO * BURST_SECONDS + CALM_SECONDS)
    found: list[float] = []
    begins_at, passed, burst = 0.0, 0.0, False
    ends_at = chance.expovariate(1 / CALM_SECONDS)
    speed = low
    for t in unit:
        while passed + (ends_at - begins_at) * speed < t:
            passed += (ends_at - begins_at) * speed
            begins_at, burst = ends_at, not burst
            ends_at += chance.expovariate(1 / (BURST_SECONDS if burst else CALM_SECONDS))
            speed = low * (BURST_RATIO if burst else 1.0)
        found.append(begins_at + (t - passed) / speed)
    return found


class Device:
    """The simulation of one worker on one device, which takes one batch at a time.

    Args:
        service: What batches take.
        deadline: Seconds from the arrival of a live image to its deadline.
        seed: Of the noise.
        backlog: Archive images that always wait; 0 for none.
    """

    def __init__(self, service: Service, deadline: float, seed: int, backlog: int = 0) -> None:
        self._service, self._deadline, self._backlog = service, deadline, backlog
        self._chance = random.Random(seed)

    def run(self, worker: Worker, arrivals: Sequence[float]) -> Outcome:
        """Let the images come, and run what the worker begins until all of them are done.

        With a backlog there is no such end: it is that of the arrivals.
        """
        coming = deque(arrivals)
        last = arrivals[-1]
        tally = _Tally(arrivals, self._deadline if self._backlog else 0.0)
        now, begun_at, busy_until = 0.0, 0.0, math.inf
        running: Sequence[Item] = ()
        while True:
            wake_at = math.inf if running else worker.wake_at
            now = min(coming[0] if coming else math.inf, busy_until, wake_at)
            if now == math.inf or (self._backlog and now > last):
                return tally.outcome()
            while coming and coming[0] <= now:
                at = coming.popleft()
                worker.queue.add((Item(at, at + self._deadline),), at)
            if now >= busy_until:
                worker.ended(len(running), now - begun_at, now)
                tally.add(running, now)
                running, busy_until = (), math.inf
            if not running and (running := self._begin(worker, now)):
                begun_at = now
                busy_until = now + self._service.seconds(len(running), self._chance)

    def _begin(self, worker: Worker, now: float) -> Sequence[Item]:
        worker.fill(self._backlog, now)
        return worker.take(now)


class _Tally:
    """Counts what is done, after the first tenth, and without those that come too near the end."""

    def __init__(self, arrivals: Sequence[float], before_end: float) -> None:
        self._from, self._last = arrivals[len(arrivals) // WARM_UP], arrivals[-1]
        self._until = self._last - before_end
        self._due = sum(self._from <= at <= self._until for at in arrivals)
        self._in_time = self._images = self._batches = 0
        self._now = 0.0

    def add(self, batch: Sequence[Item], now: float) -> None:
        """Count a batch that ended now."""
        self._now = now
        if now < self._from:
            return
        self._images += len(batch)
        self._batches += 1
        for one in batch:
            due = one.deadline_at
            if due is not None and due >= now and self._from <= one.arrived_at <= self._until:
                self._in_time += 1

    def outcome(self) -> Outcome:
        """Return what came of the run."""
        end = max(self._now, self._last)
        return Outcome(
            self._in_time / max(1, self._due),
            self._images / (end - self._from),
            self._images / max(1, self._batches),
        )
