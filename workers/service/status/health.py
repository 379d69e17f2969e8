"""Whether this process is alive and whether it is ready, from what its event loop notes down.

Alive means: leave it running. Ready means: it does its work now. A process that waits out an outage
of its log is alive and not ready.
"""

import time
from collections.abc import Callable, Collection
from typing import NamedTuple

import anyio

from roadstream.workers.service.outage import Persistent

# The event loop notes every second that it turns.
TICK = 1.0
LOOP_SILENT = 30.0
# Polls pause while a member hands over its partitions or a publish waits for its acknowledgement,
# each of which the log bounds; this is beyond them all.
POLL_SILENT = 180.0
# Polls come at least every second from a member that is well.
POLL_LATE = 30.0


class WatchedGroupMember(NamedTuple):
    """One group member that this process runs.

    Attributes:
        running: Runs it, through outages.
        paused: Returns the reasons for which it takes no work now.
    """

    running: Persistent
    paused: Callable[[], Collection[str]] = tuple


class Health:
    """What is known of this process. The event loop writes it; any thread may read it."""

    def __init__(self) -> None:
        now = time.monotonic()
        self.members: list[WatchedGroupMember] = []
        self.starting: Persistent | None = None
        self.warm = False
        self.stopping = False
        self._ticked_at = self.joined_at = now

    def watch(self, member: WatchedGroupMember) -> None:
        """Note that the models are warm and that this member begins to run."""
        self.joined_at = time.monotonic()
        self.members.append(member)
        self.warm = True

    def dead(self, now: float) -> list[str]:
        """Return why this process should be ended and started again; nothing if it is alive."""
        reasons = []
        if now - self._ticked_at > LOOP_SILENT:
            reasons.append(f"the event loop stands still for {now - self._ticked_at:.0f} s")
        for member in self.members:
            silent = self._silent(member, now)
            if silent > POLL_SILENT and member.running.down_for(now) is None:
                reasons.append(f"{member.running.name}: no poll for {silent:.0f} s")
        return reasons

    def unready(self, now: float) -> list[str]:
        """Return why this process does not do its work now; nothing if it is ready."""
        reasons = self.dead(now)
        if self.stopping:
            reasons.append("it is stopping")
        elif self.starting is not None and self.starting.down_for(now) is not None:
            reasons.append(f"it waits for its log: {self.starting.last_error}")
        elif not self.warm:
            reasons.append("its models are not warm yet")
        for member in self.members:
            name, down_for = member.running.name, member.running.down_for(now)
            if down_for is not None:
                reasons.append(f"{name}: down for {down_for:.0f} s: {member.running.last_error}")
            elif member.running.worked_at() == 0:
                reasons.append(f"{name}: has not joined its group yet")
            elif POLL_LATE < self._silent(member, now) <= POLL_SILENT:
                reasons.append(f"{name}: no poll for {self._silent(member, now):.0f} s")
            reasons += [f"{name}: {reason}" for reason in member.paused()]
        return reasons

    def _silent(self, member: WatchedGroupMember, now: float) -> float:
        return now - max(member.running.worked_at(), self.joined_at)

    def tick(self, now: float) -> None:
        """Note that the event loop turns."""
        self._ticked_at = now


async def keep_ticking(health: Health, beat: Callable[[bool], None], stopping: anyio.Event) -> None:
    """Note every second that the event loop turns; while alive, call ``beat`` with readiness."""
    while True:
        now = time.monotonic()
        health.tick(now)
        health.stopping = stopping.is_set()
        if not health.dead(now):
            beat(not health.unready(now))
        await anyio.sleep(TICK)
