"""Blocking calls in threads, a bounded number at once, that may outlive whoever waits for them.

A thread cannot be killed. A model that hangs must not keep its worker from leaving, so whoever
waits may be cancelled; the slot of what hangs stays taken until it ends, which keeps the number of
such threads bounded.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

import anyio
from anyio import to_thread

T = TypeVar("T")


class RunBlocking(Protocol):
    """Runs a blocking call away from the event loop. Cancelled, it returns at once."""

    async def __call__(self, call: Callable[[], T], /) -> T:
        """Return what ``call`` returns, or raise what it raises."""


async def in_thread(call: Callable[[], T], /) -> T:
    """Run ``call`` in a worker thread; see ``RunBlocking``."""
    return await to_thread.run_sync(call, abandon_on_cancel=True)


class _Job:
    """A call that knows whether it began and ended."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self.dropped = self.began = self.ended = False

    def __call__(self) -> None:
        if self.dropped:
            return
        self.began = True
        try:
            self._call()
        finally:
            self.ended = True


class Jobs:
    """Runs a worker's blocking calls.

    Args:
        slots: Calls of this process that may run at once, shared by its workers.
        run_blocking: Runs a call.
    """

    def __init__(self, slots: anyio.Semaphore, run_blocking: RunBlocking = in_thread) -> None:
        self._slots, self._run_blocking = slots, run_blocking
        # All there are, as long as nothing runs yet.
        self._all = max(1, slots.value)
        self._left: list[tuple[_Job, int]] = []

    @property
    def left_running(self) -> int:
        """Number of calls that nobody waits for any more and that have not ended."""
        return sum([not job.ended for job, _ in self._left])

    def reap(self) -> None:
        """Take back the slots of calls that were left running and have ended since."""
        if not self._left:
            return
        for job, slots in self._left:
            if job.ended:
                self.release(slots)
        self._left = [(job, slots) for job, slots in self._left if not job.ended]

    async def acquire(self, *, alone: bool = False) -> int:
        """Wait for a free slot, or for all of them; return how many are held now."""
        held = 0
        try:
            for _ in range(self._all if alone else 1):
                await self._slots.acquire()
                held += 1
        except BaseException:
            self.release(held)
            raise
        return held

    def release(self, held: int) -> None:
        """Give slots back."""
        for _ in range(held):
            self._slots.release()

    async def run(self, call: Callable[[], T], held: int) -> T:
        """Run ``call`` in slots that are held; they are free again when it has ended."""
        found: list[T] = []
        job = _Job(lambda: found.append(call()))
        try:
            await self._run_blocking(job)
        finally:
            if job.began and not job.ended:
                self._left.append((job, held))
            else:
                job.dropped = True
                self.release(held)
        return found[0]
