"""The devices of this process: which batch may begin, and whose members run next on each."""

import asyncio
import heapq
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

import anyio

from roadstream.stages.batching.turns import SLOTS, Asking, Turns

# Devices of this machine, as they begin; whatever else an engine names runs elsewhere and takes as
# many batches at once as it is sent.
_LOCAL = ("cpu", "cuda", "mps", "xpu")


def is_local(device: str) -> bool:
    """Return whether a device is of this machine, and takes one batch at a time."""
    return device.partition(":")[0] in _LOCAL


class Held:
    """A turn: slots on devices, until they are given back.

    Attributes:
        asking: Who has it.
        wait: Seconds after which the devices were expected to be free when it began.
    """

    def __init__(self, devices: "Devices", asking: Asking, wait: float) -> None:
        self._devices, self.asking, self.wait = devices, asking, wait

    def expect(self, preparing: float, seconds: Mapping[str, float]) -> None:
        """Say what the batch is expected to take; see ``Turns.expect``."""
        self._devices.expect(self.asking, preparing, seconds)

    def over(self, device: str) -> None:
        """Give a device back before the batch ends; from any thread."""
        self._devices.over(self.asking, device)

    def release(self) -> None:
        """Give everything back; twice is fine."""
        self._devices.end(self.asking)


class Devices:
    """Lets the tiers of a process share its devices.

    A batch waits for slots on its devices (``acquire``), is decoded, and then waits for its turn to
    run on each of them (``hold``). Members on different devices wait for each other in neither.

    Args:
        slots: Batches in flight per device.
    """

    def __init__(self, slots: int = SLOTS) -> None:
        self._turns = Turns(slots)
        self._changed = anyio.Event()
        self._locks: dict[str, _Turn] = {}
        self._guard = threading.Lock()
        self._home = threading.get_ident()
        self._loop: asyncio.AbstractEventLoop | None = None

    def free(self, device: str) -> int:
        """Return how many batches may begin on a device."""
        return self._turns.free(device)

    @property
    def in_flight(self) -> int:
        """Number of batches in flight."""
        return self._turns.in_flight

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
                turn = self._locks[device] = _Turn()
        return turn.held(rank)

    async def acquire(self, asking: Asking) -> Held:
        """Wait until it is the turn of who asks."""
        self._home, self._loop = threading.get_ident(), asyncio.get_running_loop()
        turns = self._turns
        turns.ask(asking)
        try:
            while turns.choose(now := anyio.current_time()) is not asking:
                changed, opens_at = self._changed, turns.opens_at(now)
                if opens_at == math.inf:
                    await changed.wait()
                    continue
                with anyio.move_on_after(opens_at - now):
                    await changed.wait()
        except BaseException:
            turns.withdraw(asking)
            self.changed()
            raise
        held = Held(self, asking, turns.wait(asking.devices, now))
        turns.grant(asking, now)
        # There may be room for others too.
        self.changed()
        return held

    def changed(self) -> None:
        """Let those who wait look again: what somebody has to run has changed."""
        if self._turns.room:
            self._changed.set()
            self._changed = anyio.Event()

    def expect(self, asking: Asking, preparing: float, seconds: Mapping[str, float]) -> None:
        """See ``Held.expect``."""
        # Nobody's turn comes sooner by it.
        self._turns.expect(asking, preparing, seconds, anyio.current_time())

    def over(self, asking: Asking, device: str) -> None:
        """See ``Held.over``."""

        def give_back() -> None:
            self._turns.over(asking, device, anyio.current_time())
            self.changed()

        self._at_home(give_back)

    def end(self, asking: Asking) -> None:
        """See ``Held.release``."""
        self._turns.end(asking, anyio.current_time())
        self.changed()

    def _at_home(self, call: Callable[[], None]) -> None:
        """Run ``call`` on the event loop, which alone keeps the books."""
        if threading.get_ident() == self._home:
            call()
        elif self._loop is not None:
            with suppress(RuntimeError):  # it has closed: nobody waits any more
                self._loop.call_soon_threadsafe(call)


class _Turn:
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
