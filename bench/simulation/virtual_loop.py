"""An event loop whose time is virtual: when nothing is ready, it jumps to the next timer.

One thread, no real waiting, and the same order of callbacks in every run, so that a program that
draws its chances from a seed does the same again. ``anyio.current_time()`` follows it. Callbacks of
a ``Process`` can be held back, which is what SIGSTOP does to a real one.
"""

import asyncio
import heapq
import math
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import Any, NoReturn, TypeVar

from anyio._backends import _asyncio as anyio_asyncio

T = TypeVar("T")

# asyncio's: timers that were cancelled are swept out when they are more than so many and half.
_SWEEP_FROM = 100


class Process:
    """Whose callbacks run together, stop together and go on together; see ``in_process``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.frozen = False
        self.held: list[events.Handle] = []


_process: ContextVar[Process | None] = ContextVar("process", default=None)


class StuckError(RuntimeError):
    """Nothing is ready and no timer runs: what is awaited can never come."""


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module. Threads are refused: their timing is not ours.

    Attributes:
        steps: Callbacks run so far.
        errors: What ended in the loop's exception handler: bugs, all of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._ready: deque[events.Handle]
        self._scheduled: list[events.TimerHandle]
        self._timer_cancelled_count: int
        self._breaks: list[tuple[int, int, Callable[[], None]]] = []
        self.steps = 0
        self.errors: list[BaseException] = []
        self.set_exception_handler(self._note_error)

    def time(self) -> float:
        """Return virtual seconds since the loop was made."""
        return self._now

    def at_step(self, step: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` between two callbacks, when so many have run: at any await."""
        heapq.heappush(self._breaks, (step, len(self._breaks), callback))

    def freeze(self, process: Process) -> None:
        """Hold back every callback of a process."""
        process.frozen = True

    def thaw(self, process: Process) -> None:
        """Run what was held back, in its order, and let the process go on."""
        process.frozen = False
        self._ready.extend(process.held)
        process.held.clear()

    def _run_once(self) -> None:
        self._sweep()
        if not self._ready:
            self._jump()
        due = self._now + 1e-9
        while self._scheduled and self._scheduled[0].when() <= due:
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False  # type: ignore[attr-defined]
            self._ready.append(timer)
        for _ in range(len(self._ready)):
            handle = self._ready.popleft()
            if handle.cancelled():
                continue
            self.steps += 1
            while self._breaks and self._breaks[0][0] <= self.steps:
                heapq.heappop(self._breaks)[2]()
            self._step(handle)

    def _step(self, handle: events.Handle) -> None:
        context: Context = handle._context  # type: ignore[attr-defined]
        process = context.get(_process)
        if process is not None and process.frozen:
            process.held.append(handle)
        elif not handle.cancelled():
            handle._run()

    def _jump(self) -> None:
        """Move the time on to the next timer."""
        if self._scheduled and self._scheduled[0].when() < math.inf:
            self._now = max(self._now, self._scheduled[0].when())
        elif not self._stopping:  # type: ignore[attr-defined]
            raise StuckError("nothing is ready, and no timer runs")

    def _sweep(self) -> None:
        """Drop cancelled timers, as asyncio does: at the front, and when they are too many."""
        count = self._timer_cancelled_count
        if count > _SWEEP_FROM and 2 * count > len(self._scheduled):
            for timer in self._scheduled:
                if timer.cancelled():
                    timer._scheduled = False  # type: ignore[attr-defined]
            self._scheduled = [timer for timer in self._scheduled if not timer.cancelled()]
            heapq.heapify(self._scheduled)
            self._timer_cancelled_count = 0
        while self._scheduled and self._scheduled[0].cancelled():
            self._timer_cancelled_count -= 1
            heapq.heappop(self._scheduled)._scheduled = False  # type: ignore[attr-defined]

    def _note_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.errors.append(context.get("exception") or RuntimeError(context["message"]))

    def call_soon_threadsafe(  # type: ignore[override]
        self, *_: Any, **__: Any
    ) -> NoReturn:
        """Refuse: nothing outside this thread may have a say."""
        raise RuntimeError("a thread reports to the virtual loop: its timing is not virtual")

    def run_in_executor(  # type: ignore[override]
        self, *_: Any, **__: Any
    ) -> NoReturn:
        """Refuse threads."""
        raise RuntimeError("no threads on the virtual loop: their timing is not virtual")

    def _write_to_self(self) -> None:
        """Wake nobody: this loop never sleeps."""

    def _process_events(self, event_list: object) -> None:
        """Process no events: there are none from outside."""


@contextmanager
def in_process(process: Process) -> Iterator[None]:
    """Make the tasks that are started inside belong to a process."""
    token = _process.set(process)
    try:
        yield
    finally:
        _process.reset(token)


class _Ordered(dict[Any, None]):
    """A set that is gone through in the order of arrival."""

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)

    def remove(self, item: Any) -> None:
        del self[item]


@contextmanager
def ordered_cancellation() -> Iterator[None]:
    """Let anyio cancel tasks in the order of their start.

    Its scopes keep tasks in sets, whose order hangs on memory addresses.
    """
    plain = anyio_asyncio.CancelScope.__init__

    def made(self: Any, *args: Any, **options: Any) -> None:
        plain(self, *args, **options)
        self._tasks, self._child_scopes = _Ordered(), _Ordered()

    setattr(anyio_asyncio.CancelScope, "__init__", made)  # noqa: B010
    try:
        yield
    finally:
        setattr(anyio_asyncio.CancelScope, "__init__", plain)  # noqa: B010


class VirtualRunner:
    """Owns a virtual loop and runs coroutines on it; use ``with``.

    Attributes:
        loop: The loop.
    """

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self._ordered = ordered_cancellation()
        self._runner = asyncio.Runner(loop_factory=lambda: self.loop)

    def __enter__(self) -> "VirtualRunner":
        self._ordered.__enter__()
        self._runner.__enter__()
        return self

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end; tasks that it started go on when another one is run.

        Raises:
            ExceptionGroup: Callbacks failed meanwhile.
        """
        result = self._runner.run(coroutine)
        if self.loop.errors:
            raise BaseExceptionGroup("errors in callbacks", self.loop.errors)
        return result

    def __exit__(self, *exc_info: object) -> None:
        try:
            self._runner.close()
        finally:
            self._ordered.__exit__(None, None, None)
