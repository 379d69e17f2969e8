"""What is compared: services, deadlines and arrivals, and the settings that each policy gets."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from roadstream.bench.batching.overlap import Decoding, Overlap
from roadstream.bench.batching.policies import Aimd, Cork, Early, Greedy, Preferred, Timer
from roadstream.bench.batching.world import (
    Device,
    Outcome,
    Service,
    Worker,
    at_rate,
    in_bursts,
    poisson,
)
from roadstream.stages.batching.deadline_policy import DeadlinePolicy
from roadstream.stages.batching.device_queue import LEAD, SLOTS
from roadstream.stages.batching.policy import BatchPolicy

SERVICES = (
    Service("detector, eager", 0.33e-3, 6e-3),
    Service("detector, CUDA graph", 0.33e-3, 0.6e-3),
    Service("ViT-H+", 3e-3, 3e-3),
    Service("CPU", 20e-3, 5e-3),
)
DEADLINES = (0.05, 0.1, 0.5)
KINDS = ("Poisson", "bursts")
MAX_BATCH = 512
# Archive images that always wait in the mixed scenario: as many as a worker queues.
BACKLOG = 4 * MAX_BATCH
GOAL = 0.99
OURS, CORK = "ours", "cork (BentoML)"
# Those that do not run images whose deadline has passed.
ANSWERS_LATE = (OURS, CORK)
# A policy for a service and a deadline.
Make = Callable[[Service, float], BatchPolicy]

POLICIES: Mapping[str, Make] = {
    "timer 5 ms (Mosec)": lambda s, d: Timer(),
    "preferred 32/64/128, 5 ms (Triton)": lambda s, d: Preferred(),
    "early 10 ms, 32 (Ray Serve)": lambda s, d: Early(),
    "AIMD (Clipper)": lambda s, d: Aimd(d),
    CORK: lambda s, d: Cork(d, s.alpha, s.beta),
    "greedy late binding": lambda s, d: Greedy(),
    OURS: lambda s, d: DeadlinePolicy(),
}


def worker(name: str, service: Service, deadline: float, max_batch: int = MAX_BATCH) -> Worker:
    """Return a worker with a policy of that name."""
    policy = POLICIES[name](service, deadline)
    return Worker(policy, service, max_batch, answers_late=name in ANSWERS_LATE)


# In the mixed scenario each of the others gets that of these which turns out best; ours gets
# ``MAX_BATCH``, as ever.
GRID = (1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 90, 128, 181, 256, 362, 512)


class Scenario(NamedTuple):
    """A service under live load.

    Attributes:
        service: What batches take.
        deadline: Seconds.
        kind: How images come.
    """

    service: Service
    deadline: float
    kind: str

    @property
    def name(self) -> str:
        """For the tables."""
        return f"{self.service.name}, {self.deadline * 1000:.0f} ms, {self.kind}"


def scenarios() -> Iterator[Scenario]:
    """Yield all of them."""
    for service in SERVICES:
        for deadline in DEADLINES:
            for kind in KINDS:
                yield Scenario(service, deadline, kind)


class Load(NamedTuple):
    """The arrivals of a scenario, the same for every policy and every rate.

    Attributes:
        images: Fewest of them.
        seed: Where every chance comes from.
    """

    images: int
    seed: int

    def unit(self, service: Service, seconds: float) -> Sequence[float]:
        """Return arrivals at one a second, as many as the device can do in ``seconds``."""
        return poisson(max(self.images, int(seconds * service.peak)), self.seed)


def goodput(scenario: Scenario, name: str, load: Load, step: float) -> float:
    """Return the highest rate with so many on time, as a share of the peak, by bisection.

    The share on time does not fall evenly with the rate, so that the figure is good to about two
    steps.
    """
    service, deadline, kind = scenario
    bursts = kind == "bursts"
    # Long against the deadline; and some fifteen bursts, as the rate is a third of the peak.
    unit = load.unit(service, max(20 * deadline, 6.0 if bursts else 0.0))
    low, high = 0, round(1.0 / step)
    while high - low > 1:
        middle = (low + high) // 2
        rate = middle * step * service.peak
        arrivals = in_bursts(unit, rate, load.seed) if bursts else at_rate(unit, rate)
        device = Device(service, deadline, load.seed)
        outcome = device.run(worker(name, service, deadline), arrivals)
        low, high = (middle, high) if outcome.on_time >= GOAL else (low, middle)
    return low * step


class Mixed(NamedTuple):
    """What came of live images at half of the peak, with an archive backlog without end.

    Attributes:
        on_time: Share of the live ones.
        total: Images per second of both lanes, as a share of the peak.
        max_batch: The largest batch, which was chosen for the policy.
    """

    on_time: float
    total: float
    max_batch: int


def mixed(service: Service, deadline: float, name: str, load: Load, goal: float) -> Mixed:
    """Return the outcome at the best largest batch: of those on time the most images, or else the
    most on time.
    """
    arrivals = at_rate(load.unit(service, 60 * deadline), 0.5 * service.peak)
    # Shorter batches waste the device, and longer ones alone take more than the deadline.
    sensible = [m for m in GRID if 0.2 * deadline <= service.alpha * m + service.beta <= deadline]
    sizes = [MAX_BATCH] if name == OURS else sensible
    found = []
    for size in sizes:
        device = Device(service, deadline, load.seed, BACKLOG)
        outcome = device.run(worker(name, service, deadline, size), arrivals)
        found.append(_mixed(outcome, service, size))
    return max(found, key=lambda one: (one.on_time >= goal, one.total if one.on_time >= goal
                                       else one.on_time))  # fmt: skip


def _mixed(outcome: Outcome, service: Service, size: int) -> Mixed:
    return Mixed(outcome.on_time, outcome.throughput / service.peak, size)


class Mode(NamedTuple):
    """How two batches overlap.

    Attributes:
        name: For the table.
        slots: Batches in flight.
        lead: See ``roadstream.stages.batching.device_queue``.
    """

    name: str
    slots: int
    lead: float


MODES = (
    Mode("one in flight", 1, LEAD),
    Mode("two, bound at once", SLOTS, math.inf),
    Mode("two, bound late (ours)", SLOTS, LEAD),
)
# A decoder that takes a half of what the device takes, or so.
DECODED = tuple((service, 0.5 * service.alpha) for service in SERVICES[:3])
DECODED_DEADLINE = 0.1


def overlapped(service: Service, each: float, mode: Mode, load: Load, step: float) -> float:
    """Return the goodput of the product's batcher behind a decoder, as a share of the peak."""
    unit, deadline = load.unit(service, 20 * DECODED_DEADLINE), DECODED_DEADLINE
    decoding = Decoding(service, each, mode.slots, mode.lead)
    low, high = 0, round(1.0 / step)
    while high - low > 1:
        middle = (low + high) // 2
        arrivals = at_rate(unit, middle * step * service.peak)
        on_time = Overlap(decoding, MAX_BATCH, load.seed).run(arrivals, deadline)
        low, high = (middle, high) if on_time >= GOAL else (low, middle)
    return low * step


def bound(service: Service, deadline: float, goal: float) -> float:
    """Return what no policy exceeds in the mixed scenario, as a share of the peak.

    A device that always works has batches of some mean size b, and does b / l(b). A live image that
    comes at random waits for the rest of a batch, evenly spread over l(b), and for its own: l(b) ≤
    D / (1 + goal). Batches of unequal size make it worse, as images come in the long ones.
    """
    longest = deadline / (1.0 + goal) / (service.alpha * service.peak)
    size = (longest - service.beta) / service.alpha
    return 0.0 if size <= 0 else size * service.alpha / (size * service.alpha + service.beta)
