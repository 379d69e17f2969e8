"""Which later tiers nobody works for, as the log tells a tier worker."""

import math
from collections.abc import Mapping

import anyio
import structlog

from roadstream.schemas.errors import ForbiddenError, RoadstreamError
from roadstream.schemas.topics import tier_group
from roadstream.streams.log import Log

logger = structlog.get_logger()

_ASKED_EVERY = 1.0
_BREAK = 3.0
"""Seconds without an answer of the log after which nobody's silence before counts."""
_FORBIDDEN_FOR = 60.0
"""Seconds after which the log is asked again for a group that it said nothing of."""


class Presence:
    """Looks once a second for which later tiers nobody works.

    A tier is down when no worker of it has polled for its ``down_after``, in all of which the log
    answered here; so none is down at the start, nor by an outage of the log. It is up again as soon
    as somebody polls, and while the log does not allow to ask.

    Args:
        log: Asked.
        tier: Name of the tier whose worker asks.

    Attributes:
        down: The tiers that are down, by name.
    """

    def __init__(self, log: Log, tier: str) -> None:
        self._log, self._tier = log, tier
        self._down_after: dict[str, float] = {}
        self._polled_at: dict[str, float] = {}
        self._ask_at: dict[str, float] = {}
        self._looked_at = -math.inf
        self.down: frozenset[str] = frozenset()

    @property
    def watched(self) -> Mapping[str, bool]:
        """Whether each tier that is looked for is down."""
        return {name: name in self.down for name in self._down_after}

    def watch(self, down_after: Mapping[str, float]) -> None:
        """Look from now on for these tiers, by name, each down after so many seconds."""
        self._down_after = dict(down_after)
        self._polled_at = {n: at for n, at in self._polled_at.items() if n in down_after}
        self.down = self.down.intersection(down_after)

    async def run(self) -> None:
        """Look, until cancelled."""
        while True:
            await self.look()
            await anyio.sleep(_ASKED_EVERY)

    async def look(self) -> None:
        """Ask the log for each tier, and say which came or went."""
        names = list(self._down_after)
        try:
            silences = {name: await self._silence(name) for name in names}
        except RoadstreamError:
            return  # an outage, say, of which polls tell
        names = [name for name in names if name in self._down_after]  # it may have changed
        now = anyio.current_time()
        if now - self._looked_at > _BREAK:
            self._polled_at |= dict.fromkeys(set(names) - self.down, now)
        self._looked_at = now
        for name in names:
            self._polled_at[name] = max(self._polled_at.get(name, now), now - silences[name])
        self._change(frozenset(name for name in names if self._is_silent(name, now)))

    def _is_silent(self, name: str, now: float) -> bool:
        return now - self._polled_at[name] >= self._down_after[name]

    async def _silence(self, name: str) -> float:
        """Return for how long nobody has polled for a tier; 0 where the log may not be asked."""
        if anyio.current_time() < self._ask_at.get(name, 0.0):
            return 0.0
        try:
            return await self._log.silence(tier_group(name))
        except ForbiddenError as error:
            if name not in self._ask_at:
                logger.warning("tier_unwatched", tier=self._tier, later=name, error=str(error))
            self._ask_at[name] = anyio.current_time() + _FORBIDDEN_FOR
            return 0.0

    def _change(self, down: frozenset[str]) -> None:
        for name in sorted(down - self.down):
            seconds = self._down_after[name]
            logger.warning("tier_down", tier=self._tier, later=name, silent_for=seconds)
        for name in sorted(self.down - down):
            logger.warning("tier_up", tier=self._tier, later=name)
        self.down = down
