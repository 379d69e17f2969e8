"""A thread with an event loop of its own, for programs that have none, or another."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar, TypeVarTuple

import anyio

from roadstream.workers.observe.logging import log_as_library

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Main = Callable[[Callable[[], object], anyio.Event], Awaitable[None]]


class EndedError(Exception):
    """The thread has ended, or is about to."""


class LoopThread:
    """Runs a coroutine function until it returns, or is told to stop.

    It installs no signal handlers, logs as a library does, and does not keep the interpreter from
    ending.

    Args:
        main: Called with what it calls when it is ready, and with an event that tells it to stop.

    Attributes:
        failure: Why it ended, if it did not end in order.
    """

    def __init__(self, main: Main) -> None:
        self._main = main
        # The threads that it starts are daemons as it is.
        self._thread = threading.Thread(target=self._run, name="roadstream", daemon=True)
        self._ready, self._lock = threading.Event(), threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: anyio.Event | None = None
        self._told_to_stop = False
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Start it, and wait until it is ready; raise what has ended it before."""
        self._thread.start()
        self._ready.wait()
        if self.failure is not None:
            raise self.failure

    def call(self, function: Callable[[*Ts], Coroutine[Any, Any, T]], *args: *Ts) -> "Future[T]":
        """Run a coroutine function there; the future is cancelled if the thread ends before.

        Raises:
            EndedError: It has ended.
        """
        with self._lock:
            if self._loop is None or self._told_to_stop:
                raise EndedError
            return asyncio.run_coroutine_threadsafe(function(*args), self._loop)

    def stop(self, patience: float) -> None:
        """Tell it to stop, and wait for that so many seconds; fine if it has ended.

        It may be called by the thread itself, where the garbage collector happens to run.
        """
        with self._lock:
            self._told_to_stop = True
            if self._loop is not None and self._stopping is not None:
                self._loop.call_soon_threadsafe(self._stopping.set)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(patience)

    def _run(self) -> None:
        try:
            anyio.run(self._in_loop)
        except BaseException as error:
            self._fail(error)
        finally:
            self._ready.set()

    def _fail(self, error: BaseException) -> None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        self.failure = self.failure or error

    async def _in_loop(self) -> None:
        log_as_library()
        stopping = anyio.Event()
        with self._lock:
            self._loop, self._stopping = asyncio.get_running_loop(), stopping
            if self._told_to_stop:
                stopping.set()
        try:
            await self._main(self._ready.set, stopping)
        except BaseException as error:
            self._fail(error)  # before those who call learn that it has ended
            raise
        finally:
            with self._lock:
                self._loop = None
            # What was called just before begins now, and is cancelled with all that is left.
            await asyncio.sleep(0)
