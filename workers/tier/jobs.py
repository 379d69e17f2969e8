"""Blocking calls in threads, a bounded number at once, that may outlive whoever waits for them.

A thread cannot be killed. A model that hangs must not keep its worker from leaving, so whoever
waits may be cancelled; the turn of what hangs stays taken until it ends, which keeps the number of
such threads bounded.
"""

import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from anyio import to_thread

from roadstream.stages.batching.batcher import QueueState
from roadstream.stages.batching.device_queue import SlotRequest
from roadstream.workers.tier.devices import Devices, Held

T = TypeVar("T")


class RunBlocking(Protocol):
    """Runs a blocking call away from the event loop. Cancelled, it returns at once."""

    async def __call__(self, call: Callable[[], T], /) -> T:
        """Return what ``call`` returns, or raise what it raises."""


async def in_thread(call: Callable[[], T], /) -> T:
    """Run ``call`` in a worker thread; see ``RunBlocking``."""
    return await to_thread.run_sync(call, abandon_on_cancel=True)


def _nothing(found: object) -> None:
    """Learn nothing."""


class _Job:
    """A call in a thread, which another thread may drop before it begins.

    Attributes:
        ended: Whether it has begun and ended.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._deciding = threading.Lock()
        self._begun = self._dropped = self.ended = False

    def __call__(self) -> None:
        with self._deciding:
            if self._dropped:
                return
            self._begun = True
        try:
            self._call()
        finally:
            self.ended = True

    def drop(self) -> bool:
        """Keep it from beginning from now on; return whether it runs on all the same."""
        with self._deciding:
            self._dropped = True
            return self._begun and not self.ended


class Jobs:
    """Runs a worker's blocking calls.

    Args:
        devices: The devices of this process, shared by its workers.
        occupies: Names of those that a call of this worker occupies.
        rank: Position of the worker's tier in the cascade.
        run_blocking: Runs a call.
    """

    def __init__(
        self,
        devices: Devices,
        occupies: tuple[str, ...],
        rank: int,
        run_blocking: RunBlocking = in_thread,
    ) -> None:
        self._devices, self._run_blocking = devices, run_blocking
        self._occupies, self._rank = occupies, rank
        self._left: list[tuple[_Job, Held]] = []

    @property
    def left_running(self) -> int:
        """Number of calls that nobody waits for any more and that have not ended."""
        return sum([not job.ended for job, _ in self._left])

    def reap(self) -> None:
        """Take back the turns of calls that were left running and have ended since."""
        if not self._left:
            return
        for job, held in self._left:
            if job.ended:
                held.release()
        self._left = [(job, held) for job, held in self._left if not job.ended]

    async def acquire(self, state: Callable[[], QueueState], *, alone: bool = False) -> Held:
        """Wait for a turn on the worker's devices.

        Args:
            state: Tells how the worker's queue stands, whenever that is asked.
            alone: Whether nothing else may run in this process, on whatever device.
        """
        return await self._devices.acquire(SlotRequest(self._rank, self._occupies, state, alone))

    async def run(
        self, call: Callable[[], T], held: Held, learn: Callable[[T], None] = _nothing
    ) -> T:
        """Run ``call`` in a turn; that is over when it has ended.

        Args:
            call: What blocks.
            held: The turn.
            learn: Given what ``call`` returned, before the turn goes to another.
        """
        found: list[T] = []
        job = _Job(lambda: found.append(call()))
        try:
            await self._run_blocking(job)
            learn(found[0])
        finally:
            if job.drop():
                self._left.append((job, held))
            else:
                held.release()
        return found[0]
