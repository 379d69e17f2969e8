"""Which members of a group are dead: decided from their heartbeats alone, no clock, no file.

Times are seconds on the machine's monotonic clock, which all processes share and nobody sets.
"""

from collections.abc import Iterable
from typing import NamedTuple

BEATS = 8
"""Heartbeats within a session timeout."""
ENOUGH = 0.75
"""Share of the session timeout for which a member must have been watched to be declared dead."""


class _Seen(NamedTuple):
    """Another member's last heartbeat, and for how long it was watched without another one."""

    heartbeat_at: float
    watched: float


class Watch:
    """One member's view of the others.

    A member is dead when its heartbeat is older than the session timeout, and the watcher was there
    to see it miss several. When everybody was silent (the file's lock was held, the machine stood
    still), nobody is declared dead before having had several heartbeats' time to come back.

    Args:
        session_timeout: Seconds.
    """

    def __init__(self, session_timeout: float) -> None:
        self._timeout = session_timeout
        self._seen: dict[str, _Seen] = {}
        self._looked_at: float | None = None

    def start(self, now: float, *, waited: float) -> None:
        """Begin to watch, after having waited so many seconds for the file's lock.

        Whoever is found dead at the first look is so, unless the wait says that all had to wait.
        """
        self._seen = {}
        self._looked_at = now if waited > self._timeout / BEATS else None

    def dead(self, heartbeats: Iterable[tuple[str, float]], now: float) -> list[str]:
        """Return those of the others, as (instance, heartbeat), that are dead."""
        # What passed since the last look counts as watching only as far as it is an ordinary gap.
        gap = 0.0 if self._looked_at is None else max(now - self._looked_at, 0.0)
        watched = min(gap, 2 * self._timeout / BEATS)
        first, before = self._looked_at is None, self._seen
        self._seen, self._looked_at = {}, now
        found = []
        for instance, heartbeat_at in heartbeats:
            # A heartbeat ahead of the clock stems from before the machine was started anew.
            old = abs(now - heartbeat_at) > self._timeout
            seen = before.get(instance)
            if seen is not None and seen.heartbeat_at == heartbeat_at:
                seen = _Seen(heartbeat_at, seen.watched + watched)
            else:
                seen = _Seen(heartbeat_at, self._timeout if first and old else 0.0)
            self._seen[instance] = seen
            if old and seen.watched >= ENOUGH * self._timeout:
                found.append(instance)
        return found
