"""The machinery behind the in-memory log: groups, call times, frozen members, whole appends."""

import math
from collections.abc import Callable, Sequence

import anyio
import anyio.lowlevel

from roadstream.streams.clock import Clock
from roadstream.streams.log import Output
from roadstream.streams.memory.group import Group
from roadstream.streams.memory.store import Appender, Fault, MemoryStore, Operation

Latency = Callable[[Operation], float]


class MemoryBroker:
    """What every consumer, producer and reader of one in-memory log shares.

    Args:
        clock: Wall clock of the records' timestamps.
        session_timeout: Seconds without a poll after which a member is put out.
        atomic: Whether outputs and offsets are one transaction.
        latency: Seconds a call takes, asked anew for every one.
        monotonic: Clock of sessions and delays.
    """

    def __init__(
        self,
        clock: Clock,
        session_timeout: float,
        atomic: bool,
        latency: Latency,
        monotonic: Callable[[], float],
    ) -> None:
        self.store = MemoryStore(clock, monotonic)
        self.groups: dict[str, Group] = {}
        self.session_timeout, self.atomic = session_timeout, atomic
        self.latency, self.monotonic = latency, monotonic
        self._paused: dict[str, anyio.Event] = {}

    def group(self, name: str) -> Group:
        """Return the group of that name, made on first use."""
        return self.groups.setdefault(name, Group())

    def pause(self, member: str) -> None:
        """Freeze a member."""
        self._paused.setdefault(member, anyio.Event())

    def resume(self, member: str) -> None:
        """Let a frozen member go on."""
        if (event := self._paused.pop(member, None)) is not None:
            event.set()

    async def thawed(self, member: str | None) -> None:
        """Wait while a member is frozen."""
        while member is not None and (event := self._paused.get(member)) is not None:
            await event.wait()

    async def call(self, operation: Operation, member: str | None = None) -> Fault:
        """Let a call take its time; return what befalls it after its effect.

        Raises:
            RoadstreamError: What befalls it before.
        """
        await anyio.lowlevel.checkpoint()
        if (seconds := self.latency(operation)) > 0:
            await anyio.sleep(seconds)
        await self.thawed(member)
        self.store.settle()
        return self.store.fault(operation)

    async def append(self, outputs: Sequence[Output], fault: Fault, by: Appender | None) -> None:
        """Append as the fault says; where there are no transactions, on a way of its own."""
        chosen = outputs[: math.ceil(len(outputs) * fault.share)] if fault.error else outputs
        for _ in range(fault.copies):
            if self.atomic and by is not None:
                self.store.append(chosen, by)
            else:
                await self.store.send(chosen, by, fault.delay + self.latency("publish"))
