"""The devices of this process: which batch may begin, and whose members run next on each."""

import asyncio
import heapq
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

import anyio

from roadstream.stages.batching.device_queue import SLOTS, DeviceQueue, SlotRequest

# Devices of this machine, as they begin; whatever else an engine names runs elsewhere and takes as
# many batches at once as it is sent.
_LOCAL = ("cpu", "cuda", "mps", "xpu")


def is_local(device: str) -> bool:
    """Return whether a device is of this machine, and takes one batch at a time."""
    return device.partition(":")[0] in _LOCAL


class Slot:
    """Places on devices that a batch has, until they are given back.

    Attributes:
        request: Who has it.
        wait: Seconds after which the devices were expected to be free when it began.
    """

    def __init__(self, devices: "Devices", request: SlotRequest, wait: float) -> None:
        self._devices, self.request, self.wait = devices, request, wait

    def expect(self, preparing: float, seconds: Mapping[str, float]) -> None:
        """Say what the batch is expected to take; see ``DeviceQueue.expect``."""
        self._devices.expect(self.request, preparing, seconds)

    def over(self, device: str) -> None:
        """Give a device back before the batch ends; from any thread."""
        self._devices.over(self.request, device)

    def release(self) -> None:
        """Give everything back; twice is fine."""
        self._devices.end(self.request)


class Devices:
    """Lets the tiers of a process share its devices.

    A batch waits for slots on its devices (``acquire``), is decoded, and then waits for its turn to
    run on each of them (``hold``). Members on different devices wait for each other in neither.

    Args:
        slots: Batches in flight per device.
    """

    def __init__(self, slots: int = SLOTS) -> None:
        self._queue = DeviceQueue(slots)
        self._changed = anyio.Event()
        self._locks: dict[str, _DeviceLock] = {}
        self._guard = threading.Lock()
        self._home = threading.get_ident()
        self._loop: asyncio.AbstractEventLoop | None = None

    def free(self, device: str) -> int:
        """Return how many batches may begin on a device."""
        return self._queue.free(device)

    @property
    def in_flight(self) -> int:
        """Number of batches in flight."""
        return self._queue.in_flight

    def hold(self, device: str, rank: int) -> AbstractContextManager[object]:
        """Return what a thread is to be in while it runs a batch on ``device``.

        Where several wait, the most downstream goes first. What runs elsewhere is waited for by
        nobody here.

        Args:
            device: Its name, as ``Engine.device`` has it.
            rank: Position of the tier in the cascade, counted from 0.
        """
        if not is_local(device):
            return nullcontext()
        with self._guard:
            turn = self._locks.get(device)
            if turn is None:
                turn = self._locks[device] = _DeviceLock()
        return turn.held(rank)

    async def acquire(self, request: SlotRequest) -> Slot:
        """Wait until it is the turn of who asks."""
        self._home, self._loop = threading.get_ident(), asyncio.get_running_loop()
        queue = self._queue
        queue.ask(request)
        try:
            while queue.choose(now := anyio.current_time()) is not request:
                changed, opens_at = self._changed, queue.opens_at(now)
                if opens_at == math.inf:
                    await changed.wait()
                    continue
                with anyio.move_on_after(opens_at - now):
                    await changed.wait()
        except BaseException:
            queue.withdraw(request)
            self.changed()
            raise
        held = Slot(self, request, queue.wait(request.devices, now))
        queue.grant(request, now)
        # There may be room for others too.
        self.changed()
        return held

    def changed(self) -> None:
        """Let those who wait look again: what somebody has to run has changed."""
        if self._queue.room:
            self._changed.set()
            self._changed = anyio.Event()

    def expect(self, request: SlotRequest, preparing: float, seconds: Mapping[str, float]) -> None:
        """See ``Slot.expect``."""
        # Nobody's turn comes sooner by it.
        self._queue.expect(request, preparing, seconds, anyio.current_time())

    def over(self, request: SlotRequest, device: str) -> None:
        """See ``Slot.over``."""

        def give_back() -> None:
            self._queue.over(request, device, anyio.current_time())
            self.changed()

        self._at_home(give_back)

    def end(self, request: SlotRequest) -> None:
        """See ``Slot.release``."""
        self._queue.end(request, anyio.current_time())
        self.changed()

    def _at_home(self, call: Callable[[], None]) -> None:
        """Run ``call`` on the event loop, which alone keeps the books."""
        if threading.get_ident() == self._home:
            call()
        elif self._loop is not None:
            with suppress(RuntimeError):  # it has closed: nobody waits any more
                self._loop.call_soon_threadsafe(call)


class _DeviceLock:
    """A lock that goes to the most downstream of the threads that wait, then to the first."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting: list[tuple[int, int]] = []
        self._serial = 0
        self._taken = False

    @contextmanager
    def held(self, rank: int) -> Iterator[None]:
        """Be alone on the device."""
        with self._condition:
            self._serial += 1
            place = (-rank, self._serial)
            heapq.heappush(self._waiting, place)
            while self._taken or self._waiting[0] != place:
                self._condition.wait()
            heapq.heappop(self._waiting)
            self._taken = True
        try:
            yield
        finally:
            with self._condition:
                self._taken = False
                self._condition.notify_all()
