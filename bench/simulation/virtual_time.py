"""Virtual time for the product: its clocks follow the virtual loop, its thread hops stay in it."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn, TypeVar

import anyio
from anyio import to_thread

from roadstream.bench.simulation.virtual_loop import VirtualLoop

T = TypeVar("T")
EPOCH = 1_000_000_000.0
_ROOMS = tuple(
    f"roadstream.{room}." for room in ("schemas", "streams", "stages", "sinks", "workers")
)


class VirtualClock:
    """The wall clock: follows the loop, and steps when it is told to.

    Attributes:
        offset: Seconds by which it is off.
    """

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.offset = 0.0

    def now(self) -> float:
        """Return seconds since the epoch."""
        return EPOCH + self._loop.time() + self.offset


class VirtualTime:
    """Stands in for the module ``time`` where the product reads it."""

    def __init__(self, loop: VirtualLoop, clock: VirtualClock) -> None:
        self.time = clock.now
        self.monotonic = self.perf_counter = loop.time

    def time_ns(self) -> int:
        """Return nanoseconds since the epoch."""
        return int(self.time() * 1e9)

    def sleep(self, _: float) -> NoReturn:
        """Refuse: a blocking wait would stand still in virtual time."""
        raise RuntimeError("time.sleep() on the virtual loop")


class InlineThreads:
    """Stands in for ``anyio.to_thread``: the call takes virtual time and runs in this thread.

    Args:
        seconds: How long a call takes, asked anew for every one.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds

    async def __call__(self, call: Callable[[], T], /) -> T:
        """Make a call; see ``roadstream.workers.tier.jobs.RunBlocking``."""
        return await self.run_sync(call)

    async def run_sync(self, function: Callable[..., T], *arguments: Any, **_: Any) -> T:
        """Call ``function`` in the middle of the time it takes."""
        half = self._seconds() / 2
        await anyio.sleep(half)
        result = function(*arguments)
        await anyio.sleep(half)
        return result


@contextmanager
def virtual_product(
    loop: VirtualLoop, clock: VirtualClock, threads: InlineThreads
) -> Iterator[list[str]]:
    """Let every module of the product read virtual time and stay in this thread.

    Yields:
        The modules that read the time or leave the thread on their own.
    """
    virtual = VirtualTime(loop, clock)
    found: list[str] = []
    with ExitStack() as stack:
        for name, module in sorted(sys.modules.items()):
            if not name.startswith(_ROOMS):
                continue
            for attribute, real, stand_in in (
                ("time", time, virtual),
                ("to_thread", to_thread, threads),
            ):
                if getattr(module, attribute, None) is real:
                    stack.callback(setattr, module, attribute, real)
                    setattr(module, attribute, stand_in)
                    found.append(f"{name}.{attribute}")
        yield found
