"""Whether a group member may still act for its group, or others may have its partitions by now.

A member's word counts while two things hold: the coordinator still knows it under the generation
in which it was given its partitions, and the last sign of life that Kafka acknowledged was *sent*
less than a session timeout ago. Kafka counts the silence from when it received that sign, which is
later, so nobody else can have been given the partitions before then. After a freeze (SIGSTOP, a
paused machine, a blocked event loop) the second fails first, before a word reaches the network.
"""

import time
from collections.abc import Callable
from typing import Any

import anyio
import structlog
from aiokafka.protocol.group import HeartbeatRequest, SyncGroupRequest

from streams.kafka.client import KafkaLink

log = structlog.get_logger(__name__)

Identity = tuple[int, str]
"""Generation of the group, and the member's id in it."""

_SIGNS_OF_LIFE = (HeartbeatRequest, SyncGroupRequest)

_KNOWN = (0, 27)
"""Codes by which a coordinator shows that it knows the member: fine, and ``REBALANCE_IN_PROGRESS``,
during which the old generation still stands."""


def _elapsed() -> float:
    """Return seconds on a clock that also runs while the machine sleeps, where there is one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


clock: Callable[[], float] = _elapsed if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic


class Membership:
    """The standing of one consumer in its group.

    Args:
        client: aiokafka's consumer, connected as a member of a group.
        link: Settings and counters.
    """

    def __init__(self, client: Any, link: KafkaLink) -> None:
        self._coordinator = client._coordinator
        self._link = link
        self._send = self._coordinator._send_req
        self._coordinator._send_req = self._send_and_note
        self._identity: Identity | None = None
        self._lease_until = 0.0
        self._fence: str | None = None
        self.silence = 0.0

    @property
    def identity(self) -> Identity:
        """Generation and member id by which the coordinator knows this member now."""
        return self._coordinator.generation, self._coordinator.member_id

    def begin(self, identity: Identity) -> None:
        """Start to act for partitions that were assigned under ``identity``."""
        self._identity, self._fence = identity, None

    def refusal(self) -> str | None:
        """Say why work of this assignment must not be published any more; ``None`` if it may.

        Once refused it stays refused, and the group is joined anew: whoever dropped the refused
        work gets its records again only with a new assignment.
        """
        if self._fence is None:
            if self.identity != self._identity:
                self._fence = "the group has moved on"
            elif clock() >= self._lease_until:
                self._fence = "the group did not hear of this member for its session timeout"
            if self._fence is not None:
                log.warning("member_fenced", reason=self._fence)
                self._coordinator.request_rejoin()
        return self._fence

    async def watch(self) -> None:
        """Note when the process stands still, and for how long nobody in the group hears of it.

        ``silence`` is how many seconds this process was awake after the session ran out; the time
        it stood still is no fault of Kafka's.
        """
        limit = self._link.settings.session_timeout / 2
        pause = min(1.0, limit / 4)
        last = clock()
        while True:
            await anyio.sleep(pause)
            now = clock()
            if (gap := now - last) > limit:
                self._link.stats.freezes += 1
                log.warning("process_stood_still", seconds=round(gap, 1))
            expired = self._identity is not None and now >= self._lease_until
            self.silence = self.silence + min(gap, pause) if expired else 0.0
            last = now

    async def _send_and_note(self, request: Any) -> Any:
        sent_at = clock()
        response = await self._send(request)
        if isinstance(request, _SIGNS_OF_LIFE) and response.error_code in _KNOWN:
            lease = sent_at + self._link.settings.session_timeout
            self._lease_until = max(self._lease_until, lease)
        return response
