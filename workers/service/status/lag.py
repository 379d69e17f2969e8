"""How far the groups of a process are behind, asked of the log beside the work."""

import math
import time
from collections.abc import Collection, Iterator
from typing import NamedTuple

import anyio

from roadstream.schemas.errors import RunError
from roadstream.streams.group.member import GroupMember
from roadstream.streams.log import Log, Uncommitted

# A scrape asks the log nothing. It is asked seldom, and only while somebody scrapes: Prometheus
# itself forgets what it has not seen for 5 min.
INTERVAL = 5.0
PATIENCE = 10.0
WANTED = 300.0
# An older lag says nothing of now.
FORGOTTEN = 30.0


class GroupLag(NamedTuple):
    """How far a group is behind.

    Attributes:
        at: When the log said so, on the monotonic clock.
        uncommitted: Offsets that the whole group has not committed.
        unpolled: Those of them that the member here owns and has not polled.
    """

    at: float
    uncommitted: Uncommitted
    unpolled: Uncommitted

    def by_topic(self, offsets: Uncommitted) -> dict[str, int]:
        """Return how many of some offsets each topic of the group has."""
        counts = dict.fromkeys((tp.topic for tp in self.uncommitted), 0)
        for tp, left in offsets.items():
            counts[tp.topic] += len(left)
        return counts


class Lags:
    """Asks the log. Its event loop keeps them; any thread may ask what is known.

    Args:
        log: The log.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._groups: list[tuple[GroupMember, list[str]]] = []
        self._found: dict[str, GroupLag] = {}
        self._wanted_at = -math.inf

    def watch(self, member: GroupMember, topics: Collection[str]) -> None:
        """Note that a member of a group that reads these topics begins to run."""
        self._groups.append((member, list(topics)))

    def known(self) -> Iterator[tuple[str, GroupLag]]:
        """Yield what is known of each group, and note that somebody wants to know."""
        now = self._wanted_at = time.monotonic()
        for group, lag in list(self._found.items()):
            if now - lag.at < FORGOTTEN:
                yield group, lag

    def waiting(self, group: str) -> int | None:
        """Return how many records a member here owns and has not polled; ``None``: not known."""
        lag = self._found.get(group)
        if lag is None or time.monotonic() - lag.at >= FORGOTTEN:
            return None
        return sum(map(len, lag.unpolled.values()))

    @property
    def wanted(self) -> bool:
        """Whether somebody has asked of late."""
        return time.monotonic() - self._wanted_at < WANTED

    async def keep(self) -> None:
        """Ask every few seconds, for as long as somebody wants to know."""
        while True:
            await anyio.sleep(INTERVAL)
            if self.wanted:
                await self.ask()

    async def ask(self) -> None:
        """Ask once; a log that does not answer leaves it unknown."""
        for member, topics in list(self._groups):
            try:
                with anyio.move_on_after(PATIENCE):
                    uncommitted = await self._log.uncommitted(member.group, topics)
                    unpolled = member.unpolled(uncommitted)
                    self._found[member.group] = GroupLag(time.monotonic(), uncommitted, unpolled)
            except RunError:
                return  # an outage: the parts themselves say so
