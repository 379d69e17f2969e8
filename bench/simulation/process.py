"""Simulated processes: killed at any await, frozen and thawed, started again; the log outlives."""

from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Self

import anyio

from roadstream.bench.simulation.virtual_loop import Process, VirtualLoop
from roadstream.schemas.errors import LogUnavailableError
from roadstream.streams.forwarding import ForwardingLog
from roadstream.streams.log import Consumer, GroupListener, Log
from roadstream.streams.memory.log import MemoryLog


class ProcessLog(ForwardingLog):
    """One process's view of the log: it knows which members die with the process."""

    def __init__(self, log: MemoryLog, name: str, run: int) -> None:
        super().__init__(log)
        self._log, self._name, self._run = log, name, run
        self._members: list[str] = []

    def sever(self) -> None:
        """Cut the process off: what it does from now on, nobody sees."""
        for member in self._members:
            self._log.crash(member)

    def consumer(
        self,
        group: str,
        topics: Collection[str],
        *,
        listener: GroupListener | None = None,
        member_id: str | None = None,
    ) -> AbstractAsyncContextManager[Consumer]:
        """See ``Log``."""
        name = member_id or f"{self._name}-{self._run}"
        self._members.append(name)
        return super().consumer(group, topics, listener=listener, member_id=name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        pass


Part = Callable[[Log, anyio.Event], Awaitable[None]]


class SimulatedProcess:
    """Runs a part of the product again and again, until it is told to stop.

    Args:
        name: For people.
        loop: The loop.
        log: The log.
        start: Runs the part until its event is set.
        downtime: Seconds until it is started again, asked anew each time.
    """

    def __init__(
        self,
        name: str,
        loop: VirtualLoop,
        log: MemoryLog,
        start: Part,
        downtime: Callable[[], float],
    ) -> None:
        self.name = name
        self.process = Process(name)
        self._loop, self._log, self._start, self._downtime = loop, log, start, downtime
        self._view = ProcessLog(log, name, 0)
        self._scope = anyio.CancelScope()
        self._stopping = anyio.Event()
        self._ended = self._killed = False
        self.running = False
        self.starts = self.kills = self.outages = 0

    async def run(self) -> None:
        """Live; killed, start anew; stopped, end."""
        while not self._ended:
            self.starts += 1
            self._view = ProcessLog(self._log, self.name, self.starts)
            self._stopping, self._killed = anyio.Event(), False
            with anyio.CancelScope() as self._scope:
                self.running = True
                try:
                    await self._start(self._view, self._stopping)
                except* LogUnavailableError:
                    self.outages += 1
                except* Exception:
                    if not self._killed:
                        raise
            self.running = False
            if not self._ended:
                await anyio.sleep(self._downtime())

    def kill(self) -> None:
        """End it at once: it cleans nothing up, and nobody hears of it."""
        if self.running:
            self.kills += 1
            self._killed = True
            self._view.sever()
            self._scope.cancel()
        self.thaw()

    def freeze(self) -> None:
        """Let it do nothing, in the middle of whatever it does; the dead do nothing anyway."""
        if not self._killed:  # or its cancellation would be tried for ever, and no time pass
            self._loop.freeze(self.process)

    def thaw(self) -> None:
        """Let it go on."""
        self._loop.thaw(self.process)

    def stop(self) -> None:
        """Ask it to end in order; ``run`` returns when it has."""
        self._ended = True
        self._stopping.set()
