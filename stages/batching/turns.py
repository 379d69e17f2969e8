"""Whose batch may begin, of tiers that share devices: pure decisions over who asks and the clock.

A device takes two batches at once, so that one is decoded while the other runs. A batch that is not
worth its turn is bound as late as that allows: when the device is about to be free.
"""

import math
from collections.abc import Callable, Iterable, Mapping

import msgspec

from roadstream.stages.batching.batcher import Standing

# Batches in flight per device: one runs while the next one is decoded.
SLOTS = 2
# Turns of others that a tier waits for before it comes first whatever they have.
PATIENCE = 16
# A batch is bound so much earlier than its decoding is expected to need, as a device that idles
# costs more than an image that comes too late for the batch (see
# `python -m roadstream.bench.batching`).
LEAD, LEAST_LEAD = 1.2, 0.001


class Asking(msgspec.Struct, eq=False):
    """A tier that asks for its next batch's turn.

    Attributes:
        rank: Position of the tier in the cascade, counted from 0; later ones are downstream.
        devices: What the batch occupies.
        standing: Tells how its queue stands now.
        alone: Whether nothing else may run beside it, on whatever device.
        passed: Turns that others had meanwhile though its devices were free.
    """

    rank: int
    devices: tuple[str, ...]
    standing: Callable[[], Standing]
    alone: bool = False
    passed: int = 0


class _Device:
    """What is in flight on a device, and when it is expected to be done with it."""

    def __init__(self) -> None:
        self.flights: dict[Asking, float] = {}
        self.free_at = -math.inf


class Turns:
    """The devices of a process, what is in flight on them, and who asks.

    Args:
        slots: Batches in flight per device.
        lead: How much earlier a batch is bound than its decoding is expected to need, as a factor.
    """

    def __init__(self, slots: int = SLOTS, lead: float = LEAD) -> None:
        self._slots, self._lead = slots, lead
        self._devices: dict[str, _Device] = {}
        self._asking: list[Asking] = []
        self._flying: set[Asking] = set()
        self._alone: Asking | None = None

    def free(self, device: str) -> int:
        """Return how many batches may be put on a device yet."""
        if self._alone is not None:
            return 0
        return self._slots - len(self._device(device).flights)

    @property
    def in_flight(self) -> int:
        """Number of batches that have begun and not ended."""
        return len(self._flying)

    @property
    def room(self) -> bool:
        """Whether there is room for the batch of anybody who asks."""
        return any(self._has_room(asking) for asking in self._asking)

    def _has_room(self, asking: Asking) -> bool:
        if asking.alone:
            return not self._flying
        if self._alone is not None:
            return False
        return all(len(self._device(name).flights) < self._slots for name in asking.devices)

    def wait(self, devices: Iterable[str], now: float) -> float:
        """Return the seconds until these devices are expected to be free."""
        return max([0.0, *[self._device(name).free_at - now for name in devices]])

    def _device(self, name: str) -> _Device:
        return self._devices.setdefault(name, _Device())

    def ask(self, asking: Asking) -> None:
        """Take up who asks."""
        self._asking.append(asking)

    def withdraw(self, asking: Asking) -> None:
        """Forget who asked."""
        self._asking.remove(asking)

    def choose(self, now: float) -> Asking | None:
        """Return whose turn it is now, if anybody's.

        First who waited for too many others; then who is urgent, having a live image that could
        not wait for another's batch, the most urgent ahead; then the most downstream whose batch
        is worth it; then the most downstream.
        """
        for asking in self._asking:
            if asking.alone:
                return None if self.in_flight or self._alone else asking
        if self._alone is not None:
            return None
        ready = {one: found for one in self._asking if (found := self._ready(one, now))}
        if not ready:
            return None
        longest = max([standing.running for standing in ready.values()])
        return max(ready, key=lambda one: _merit(one, ready[one], longest))

    def _ready(self, asking: Asking, now: float) -> Standing | None:
        """Return how it stands if its devices have room for its batch now."""
        devices = [self._device(name) for name in asking.devices]
        if any(len(device.flights) >= self._slots for device in devices):
            return None
        standing = asking.standing()
        return standing if now >= self._opens_at(devices, standing) else None

    def opens_at(self, now: float) -> float:
        """Return when to choose again though nothing has changed; infinity for never."""
        found = math.inf
        for asking in self._asking:
            devices = [self._device(name) for name in asking.devices]
            if all(len(device.flights) < self._slots for device in devices):
                at = self._opens_at(devices, asking.standing())
                found = min(found, at if at > now else math.inf)
        return found

    def _opens_at(self, devices: Iterable[_Device], standing: Standing) -> float:
        """Return from when a batch may be bound, where there is a slot for it.

        On a device that runs another one, an archive batch that is worth its turn may begin at
        once.
        """
        if not standing.size or (standing.worth and standing.slack == math.inf):
            return -math.inf
        lead = self._lead * standing.preparing + LEAST_LEAD
        return max([d.free_at - lead if d.flights else -math.inf for d in devices])

    def grant(self, asking: Asking, now: float) -> None:
        """Give the turn to who was chosen."""
        self._asking.remove(asking)
        for other in self._asking:
            if set(other.devices) & set(asking.devices) and self._ready(other, now) is not None:
                other.passed += 1
        if asking.alone:
            self._alone = asking
        self._flying.add(asking)
        for name in asking.devices:
            self._device(name).flights[asking] = 0.0

    def expect(
        self, asking: Asking, preparing: float, seconds: Mapping[str, float], now: float
    ) -> None:
        """Take note of what the batch is expected to take.

        Args:
            asking: Who has the turn.
            preparing: Seconds before it needs a device.
            seconds: What it takes on each device.
            now: Monotonic seconds.
        """
        for name, running in seconds.items():
            device = self._device(name)
            if asking in device.flights:
                device.flights[asking] = running
                device.free_at = max(now + preparing, device.free_at) + running

    def over(self, asking: Asking, device: str, now: float) -> None:
        """Take note that a batch is done with a device; to say so twice is fine."""
        found = self._device(device)
        if found.flights.pop(asking, None) is not None:
            found.free_at = now + sum(found.flights.values())

    def end(self, asking: Asking, now: float) -> None:
        """Take note that a batch has ended; to say so twice is fine."""
        self._flying.discard(asking)
        for name in asking.devices:
            self.over(asking, name, now)
        if self._alone is asking:
            self._alone = None


def _merit(asking: Asking, standing: Standing, longest: float) -> tuple[float, ...]:
    """Return what is compared, larger first."""
    overdue = asking.passed if asking.passed >= PATIENCE else 0
    # Who has nothing left to run goes home at once.
    urgent = standing.slack < longest
    urgency = -standing.slack if urgent else -math.inf
    return not standing.size, overdue, urgent, urgency, standing.worth, asking.rank
