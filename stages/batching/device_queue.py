"""Whose batch may begin, of tiers that share devices: pure decisions over requests and time.

A device takes two batches at once, so that one is decoded while the other runs. A batch that is not
worth a slot is bound as late as that allows: when the device is about to be free.
"""

import math
from collections.abc import Callable, Iterable, Mapping

import msgspec

from roadstream.stages.batching.batcher import QueueState

# Batches in flight per device: one runs while the next one is decoded.
SLOTS = 2
# Batches of others that a tier waits for before it comes first whatever they have.
PATIENCE = 16
# A batch is bound so much earlier than its decoding is expected to need, as a device that idles
# costs more than an image that comes too late for the batch (see
# `python -m roadstream.bench.batching`).
LEAD, LEAST_LEAD = 1.2, 0.001


class SlotRequest(msgspec.Struct, eq=False):
    """A tier's request for slots for its next batch.

    Attributes:
        rank: Position of the tier in the cascade, counted from 0; later ones are downstream.
        devices: What the batch occupies.
        state: Tells how its queue stands now.
        alone: Whether nothing else may run beside it, on whatever device.
        passed: Batches of others that began meanwhile though its devices were free.
    """

    rank: int
    devices: tuple[str, ...]
    state: Callable[[], QueueState]
    alone: bool = False
    passed: int = 0


class _Device:
    """What is in flight on a device, and when it is expected to be done with it."""

    def __init__(self) -> None:
        self.flights: dict[SlotRequest, float] = {}
        self.free_at = -math.inf


class DeviceQueue:
    """The devices of a process, what is in flight on them, and who waits for them.

    Args:
        slots: Batches in flight per device.
        lead: How much earlier a batch is bound than its decoding is expected to need, as a factor.
    """

    def __init__(self, slots: int = SLOTS, lead: float = LEAD) -> None:
        self._slots, self._lead = slots, lead
        self._devices: dict[str, _Device] = {}
        self._requests: list[SlotRequest] = []
        self._flying: set[SlotRequest] = set()
        self._alone: SlotRequest | None = None

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
        """Whether there is room for the batch of anybody who waits."""
        return any(self._has_room(request) for request in self._requests)

    def _has_room(self, request: SlotRequest) -> bool:
        if request.alone:
            return not self._flying
        if self._alone is not None:
            return False
        return all(len(self._device(name).flights) < self._slots for name in request.devices)

    def wait(self, devices: Iterable[str], now: float) -> float:
        """Return the seconds until these devices are expected to be free."""
        return max([0.0, *[self._device(name).free_at - now for name in devices]])

    def _device(self, name: str) -> _Device:
        return self._devices.setdefault(name, _Device())

    def ask(self, request: SlotRequest) -> None:
        """Take up a request."""
        self._requests.append(request)

    def withdraw(self, request: SlotRequest) -> None:
        """Forget a request."""
        self._requests.remove(request)

    def choose(self, now: float) -> SlotRequest | None:
        """Return the request that is granted now, if any is.

        First who waited for too many others; then who is urgent, having a live image that could
        not wait for another's batch, the most urgent ahead; then the most downstream whose batch
        is worth it; then the most downstream.
        """
        for request in self._requests:
            if request.alone:
                return None if self.in_flight or self._alone else request
        if self._alone is not None:
            return None
        ready = {one: found for one in self._requests if (found := self._ready(one, now))}
        if not ready:
            return None
        longest = max([state.running for state in ready.values()])
        return max(ready, key=lambda one: _merit(one, ready[one], longest))

    def _ready(self, request: SlotRequest, now: float) -> QueueState | None:
        """Return how it stands if its devices have room for its batch now."""
        devices = [self._device(name) for name in request.devices]
        if any(len(device.flights) >= self._slots for device in devices):
            return None
        state = request.state()
        return state if now >= self._opens_at(devices, state) else None

    def opens_at(self, now: float) -> float:
        """Return when to choose again though nothing has changed; infinity for never."""
        found = math.inf
        for request in self._requests:
            devices = [self._device(name) for name in request.devices]
            if all(len(device.flights) < self._slots for device in devices):
                at = self._opens_at(devices, request.state())
                found = min(found, at if at > now else math.inf)
        return found

    def _opens_at(self, devices: Iterable[_Device], state: QueueState) -> float:
        """Return from when a batch may be bound, where there is a slot for it.

        On a device that runs another one, an archive batch that is worth a slot may begin at
        once.
        """
        if not state.size or (state.worth and state.slack == math.inf):
            return -math.inf
        lead = self._lead * state.preparing + LEAST_LEAD
        return max([d.free_at - lead if d.flights else -math.inf for d in devices])

    def grant(self, request: SlotRequest, now: float) -> None:
        """Give the slots to who was chosen."""
        self._requests.remove(request)
        for other in self._requests:
            if set(other.devices) & set(request.devices) and self._ready(other, now) is not None:
                other.passed += 1
        if request.alone:
            self._alone = request
        self._flying.add(request)
        for name in request.devices:
            self._device(name).flights[request] = 0.0

    def expect(
        self, request: SlotRequest, preparing: float, seconds: Mapping[str, float], now: float
    ) -> None:
        """Take note of what the batch is expected to take.

        Args:
            request: Who has the slots.
            preparing: Seconds before it needs a device.
            seconds: What it takes on each device.
            now: Monotonic seconds.
        """
        for name, running in seconds.items():
            device = self._device(name)
            if request in device.flights:
                device.flights[request] = running
                device.free_at = max(now + preparing, device.free_at) + running

    def over(self, request: SlotRequest, device: str, now: float) -> None:
        """Take note that a batch is done with a device; to say so twice is fine."""
        found = self._device(device)
        if found.flights.pop(request, None) is not None:
            found.free_at = now + sum(found.flights.values())

    def end(self, request: SlotRequest, now: float) -> None:
        """Take note that a batch has ended; to say so twice is fine."""
        self._flying.discard(request)
        for name in request.devices:
            self.over(request, name, now)
        if self._alone is request:
            self._alone = None


def _merit(request: SlotRequest, state: QueueState, longest: float) -> tuple[float, ...]:
    """Return what is compared, larger first."""
    overdue = request.passed if request.passed >= PATIENCE else 0
    # Who has nothing left to run goes home at once.
    urgent = state.slack < longest
    urgency = -state.slack if urgent else -math.inf
    return not state.size, overdue, urgent, urgency, state.worth, request.rank
