"""Calls that never return: told by how long they take, and ended with their process.

A thread cannot be killed, so a model or a disk that hangs would hold its turn on the device for
ever. The process ends instead; its supervisor starts it again, and what ran then runs alone (see
``suspects``). Members that run elsewhere are not watched: their clients give up by themselves.
"""

import os
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

import anyio
import structlog

logger = structlog.get_logger()

# The most that a call may take; one picture takes milliseconds to seconds.
HANG_TIMEOUT = 120.0
HUNG = 1
_LOOK_EVERY = 1.0

# Frames told of where it hangs, innermost last.
_FRAMES = 5

Restarted = Callable[[], None]


class Call(NamedTuple):
    """A call that runs.

    Attributes:
        began: When, in monotonic seconds.
        what: What it does.
        thread: Identity of its thread.
    """

    began: float
    what: str
    thread: int

    def stands_at(self) -> list[str]:
        """Return where its thread is in the code."""
        frame = sys._current_frames().get(self.thread)
        told = traceback.extract_stack(frame)[-_FRAMES:] if frame is not None else []
        return [f"{one.filename}:{one.lineno} {one.name}" for one in told]


class Calls:
    """The blocking calls of this process that run now. Thread-safe.

    Args:
        timer: Monotonic seconds.
    """

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._running: dict[int, Call] = {}

    @contextmanager
    def running(self, what: str) -> Iterator[Restarted]:
        """Watch what the block does; what it yields is called where another call begins in it."""

        def restarted() -> None:
            self._running[key] = Call(self._timer(), what, threading.get_ident())

        key = id(restarted)
        restarted()
        try:
            yield restarted
        finally:
            del self._running[key]

    def over(self, timeout: float) -> Call | None:
        """Return the call that has taken longest, if that is more than ``timeout`` seconds."""
        oldest = min(list(self._running.values()), default=None)
        return oldest if oldest is not None and self._timer() - oldest.began > timeout else None


@asynccontextmanager
async def watched(
    calls: Calls, timeout: float, end: Callable[[int], object] = os._exit
) -> AsyncIterator[None]:
    """In the block, end this process once a call has taken longer than ``timeout`` seconds.

    Args:
        calls: The calls.
        timeout: Seconds; 0 for never.
        end: Ends the process with a status, at once.
    """
    async with anyio.create_task_group() as tasks:
        if timeout:
            tasks.start_soon(_watch, calls, timeout, end)
        yield
        tasks.cancel_scope.cancel()


async def _watch(calls: Calls, timeout: float, end: Callable[[int], object]) -> None:
    while True:
        await anyio.sleep(min(_LOOK_EVERY, timeout / 4))
        if (call := calls.over(timeout)) is not None:
            logger.error("call_hangs", call=call.what, hang_timeout=timeout, at=call.stands_at())
            end(HUNG)
            return
