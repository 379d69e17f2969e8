"""Decoding and running overlapped: when the second of two batches in flight should be bound.

The product's batcher and its device queue (``roadstream.stages.batching.device_queue``) on one
device with a decoder beside it.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from roadstream.bench.batching.world import WARM_UP, Item, Service
from roadstream.stages.batching.batcher import Batcher, QueueState
from roadstream.stages.batching.device_queue import DeviceQueue, SlotRequest
from roadstream.stages.batching.latency_model import Run, TierLatency
from roadstream.stages.batching.policy import Moment

DEVICE = "cuda:0"


class Decoding(NamedTuple):
    """A service whose batches are decoded first, each by one thread.

    Attributes:
        service: What they take on the device.
        each: Seconds to decode an image.
        slots: Batches in flight.
        lead: See ``DeviceQueue``; infinity binds a batch as soon as a slot is free.
    """

    service: Service
    each: float
    slots: int
    lead: float


class Overlap:
    """A tier worker with a decoder and a device.

    Args:
        decoding: What batches take.
        max_batch: Most images of a batch.
        seed: Of the noise.
    """

    def __init__(self, decoding: Decoding, max_batch: int, seed: int) -> None:
        self._decoding, self._chance = decoding, random.Random(seed)
        self._latency = TierLatency()
        size = 1
        while size <= max_batch:
            seconds = decoding.service.seconds(size, self._chance)
            self._latency.observe(
                size, decoding.each * size, [Run("member", DEVICE, size, seconds)]
            )
            size *= 2
        self._queue: Batcher[Item] = Batcher(max_batch, self._latency)
        self._device = DeviceQueue(decoding.slots, decoding.lead)
        self._request: SlotRequest | None = None
        # What is done next, as (when, serial number, batch, whether it was decoded).
        self._events: list[tuple[float, int, Sequence[Item], SlotRequest, bool]] = []
        self._serial = 0
        # Decoded batches that wait for the device, and what it runs.
        self._decoded: deque[tuple[Sequence[Item], SlotRequest]] = deque()
        self._running: float | None = None
        self._now = 0.0
        self.done: list[tuple[Item, float]] = []

    def run(self, arrivals: Iterable[float], deadline: float) -> float:
        """Let the images come; return the share of them that was on time."""
        coming = deque(arrivals)
        count = len(coming)
        counts_from = coming[count // WARM_UP]
        while True:
            wake_at = self._device.opens_at(self._now)
            event_at = self._events[0][0] if self._events else math.inf
            now = self._now = min(coming[0] if coming else math.inf, event_at, wake_at)
            if now == math.inf:
                break
            while coming and coming[0] <= now:
                at = coming.popleft()
                self._queue.add((Item(at, at + deadline),), at)
            while self._events and self._events[0][0] <= now:
                self._ended(*heapq.heappop(self._events)[2:])
            self._ask()
        in_time = sum(
            at <= (item.deadline_at or 0.0)
            for item, at in self.done
            if item.arrived_at >= counts_from
        )
        return in_time / (count - count // WARM_UP)

    def _state(self) -> QueueState:
        return self._queue.state(self._now)

    def _ask(self) -> None:
        """Begin as many batches as may begin now."""
        while True:
            self._queue.expired(self._now)
            if self._request is None and len(self._queue):
                self._request = SlotRequest(0, (DEVICE,), self._state)
                self._device.ask(self._request)
            request = self._device.choose(self._now)
            if request is None:
                return
            wait = self._device.wait((DEVICE,), self._now)
            self._device.grant(request, self._now)
            self._request = None
            batch = self._queue.next_batch(Moment(self._now, wait)).items
            if not batch:
                self._device.end(request, self._now)
                continue
            size = len(batch)
            running = {DEVICE: self._latency.running(size)}
            self._device.expect(request, self._latency.preparing(size), running, self._now)
            self._at(self._now + self._decoding.each * size, batch, request, False)

    def _at(self, when: float, batch: Sequence[Item], request: SlotRequest, ran: bool) -> None:
        self._serial += 1
        heapq.heappush(self._events, (when, self._serial, batch, request, ran))

    def _ended(self, batch: Sequence[Item], request: SlotRequest, ran: bool) -> None:
        if ran:
            seconds, self._running = self._running or 0.0, None
            runs = [Run("member", DEVICE, len(batch), seconds)]
            self._latency.observe(len(batch), self._decoding.each * len(batch), runs)
            self._device.end(request, self._now)
            self.done += [(item, self._now) for item in batch]
        else:
            self._decoded.append((batch, request))
        if self._running is None and self._decoded:
            batch, request = self._decoded.popleft()
            self._running = self._decoding.service.seconds(len(batch), self._chance)
            self._at(self._now + self._running, batch, request, True)
