"""Whether a group member may still act for its group, or others may have its partitions by now.

A member's word counts while two things hold: the coordinator still knows it under the generation
in which it was given its partitions, and the last sign of life that Kafka acknowledged was *sent*
less than a session timeout ago. Kafka counts the silence from when it received that sign, which is
later, so nobody else can have been given the partitions before then. After a freeze (SIGSTOP, a
paused machine, a blocked event loop) the second fails first, before a word reaches the network.

A static member's name belongs to whoever joined under it last. Who hears that it was replaced never
joins again: by itself a client would take the name back, and the two would take turns for ever.
"""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import structlog
from aiokafka.errors import KafkaError
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, SyncGroupRequest

from roadstream.schemas.errors import ReplacedError
from roadstream.streams.kafka.client import KafkaLink
from roadstream.streams.kafka.group_requests import (
    FENCED,
    Describe,
    DescribedMember,
    Group,
    Leave,
    NamedHeartbeat,
    described_in,
)

log = structlog.get_logger(__name__)

Identity = tuple[int, str]
"""Generation of the group, and the member's id in it."""

_SIGNS_OF_LIFE = (NamedHeartbeat, SyncGroupRequest)

_ASKING = 2.0
"""Seconds for asking who has taken this member's name: it ends either way."""

_LEAVING = 1.5
"""Seconds for saying goodbye: the group misses by itself who cannot."""

_QUIET = 3.0
"""Seconds without an answer to a heartbeat, one of which goes out every second, after which nothing
more is asked of the coordinator by who leaves."""

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
        self.name: str | None = self._coordinator._group_instance_id
        self._asked = self._left = self._replaced = False
        self._answered_at = -math.inf
        self._identity: Identity | None = None
        self._lease_until = 0.0
        self._fence: str | None = None
        self.silence = 0.0

    @property
    def identity(self) -> Identity:
        """Generation and member id by which the coordinator knows this member now."""
        return self._coordinator.generation, self._coordinator.member_id

    @property
    def replaced(self) -> bool:
        """Whether another process has joined the group under this member's name."""
        return self._replaced

    @property
    def _place(self) -> tuple[str, str | None]:
        return self._coordinator.group_id, self.name

    @property
    def reachable(self) -> bool:
        """Whether the coordinator is known and has answered a heartbeat lately."""
        heard = clock() - self._answered_at < _QUIET
        return heard and self._coordinator.coordinator_id is not None

    def begin(self, identity: Identity) -> None:
        """Start to act for partitions that were assigned under ``identity``."""
        self._identity, self._fence = identity, None

    def refusal(self) -> str | None:
        """Say why work of this assignment must not be published any more; ``None`` if it may.

        Once refused it stays refused, and the group is joined anew: whoever dropped the refused
        work gets its records again only with a new assignment.
        """
        if self._fence is None:
            if self.replaced:
                self._fence = "another process has its name"
                return self._fence
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

    async def leave(self) -> bool:
        """Leave the group at once, static or not, so that nobody waits for this member.

        Returns:
            Whether its coordinator answers.
        """
        coordinator = self._coordinator
        member_id, self._left = coordinator.member_id, True
        coordinator.generation = OffsetCommitRequest.DEFAULT_GENERATION_ID  # aiokafka leaves not
        known = member_id or self.name  # by its name alone while its first request to join is open
        if not (self._asked and known) or self.replaced:
            return True
        if coordinator.coordinator_id is None:
            return False
        try:
            with anyio.fail_after(_LEAVING):
                await self._send(Leave(coordinator.group_id, member_id, self.name))
        except (KafkaError, OSError, TimeoutError) as error:
            log.info("not_left", group=coordinator.group_id, error=repr(error))
            return False
        return True

    def stay(self) -> None:
        """Keep the place in the group for this process's next consumer under the same name."""
        member_id = self._coordinator.member_id
        if self.name is not None and member_id and not self.replaced:
            self._link.member_ids[self._place] = member_id

    def check_name(self, group: Group) -> None:
        """Check, before joining, that nobody has taken the name since this process last had it.

        Raises:
            ReplacedError: Somebody has.
        """
        known = self._link.member_ids.pop(self._place, None)
        if known is not None and (other := self._other(group, known)) is not None:
            self.replace()
            raise self._replaced_by(other)

    async def replacement(self) -> ReplacedError:
        """Return the error for another process having this member's name, and name its host."""
        other = None
        with anyio.move_on_after(_ASKING), suppress(KafkaError, OSError):
            await self._coordinator.ensure_coordinator_known()
            group = described_in(await self._send(Describe(self._coordinator.group_id)))
            other = self._other(group, self._coordinator.member_id)
        return self._replaced_by(other)

    def _other(self, group: Group, member_id: str) -> DescribedMember | None:
        """Return who is in the group under this member's name and is not ``member_id``."""
        named = (member for member in group.members if member.name == self.name)
        return next((member for member in named if member.member_id != member_id), None)

    def _replaced_by(self, other: DescribedMember | None) -> ReplacedError:
        where = "another process"
        if other is not None:
            where = f"a process on {other.host} (client id {other.client_id})"
        return ReplacedError(
            f"{self._coordinator.group_id}: {where} has joined under this member's name, "
            f"{self.name}; this one ends. Give each process a --member (`up`: --name) of its own"
        )

    async def _send_and_note(self, request: Any) -> Any:
        if self.replaced or self._left:
            raise KafkaError("this member is no longer in its group")
        if isinstance(request, HeartbeatRequest):
            request = NamedHeartbeat(self._coordinator.group_id, *self.identity, self.name)
        self._asked = self._asked or isinstance(request, JoinGroupRequest)
        sent_at = clock()
        response = await self._send(request)
        code = getattr(response, "error_code", None)
        if code == FENCED:
            self.replace()
        elif isinstance(request, _SIGNS_OF_LIFE) and code in _KNOWN:
            self._answered_at = clock()
            lease = sent_at + self._link.settings.session_timeout
            self._lease_until = max(self._lease_until, lease)
        return response

    def replace(self) -> None:
        """Note that another process has this member's name."""
        if not self.replaced:
            log.error("member_replaced", group=self._coordinator.group_id, name=self.name)
            self._replaced = True
