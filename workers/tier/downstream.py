"""How the later tiers stand, as the log tells a tier worker."""

import math
from collections.abc import Iterable

import anyio
import structlog

from roadstream.schemas.topics import tier_group, tier_inputs
from roadstream.streams.log import Log
from roadstream.workers.tier.judge import Judge
from roadstream.workers.tier.presence import Presence

logger = structlog.get_logger()

# Asking costs the log a little, and a lag does not grow by much in that time.
_ASKED_EVERY = 1.0


class Downstream:
    """Tells whether a later tier is too far behind, and for which nobody works.

    Args:
        log: Asked.
        judge: For the tiers that its images may go on to.
        limit: Records that each of them may be behind.

    Attributes:
        is_behind: Whether one was too far behind when the log was asked last.
        presence: For which of them nobody works, of those that routes ask for.
    """

    def __init__(self, log: Log, judge: Judge, limit: int) -> None:
        self._log, self._tier, self._limit = log, judge.tier, limit
        self.presence = Presence(log, judge.tier)
        self.watch([judge])
        self._asked_at = -math.inf
        self.is_behind = False

    def watch(self, judges: Iterable[Judge]) -> None:
        """Ask from now on for the tiers that these judges' images may go on to, or around."""
        self._inputs: dict[str, list[str]] = {}
        down_after: dict[str, float] = {}
        for judge in judges:
            down_after |= judge.watched
            for name in judge.targets:
                self._inputs[name] = list(tier_inputs(name, first=False))
        self.presence.watch(down_after)

    async def behind(self) -> bool:
        """Return whether one is, asking the log once in a while.

        What waits for a tier that is down is no reason to wait here: routes lead around it.

        Raises:
            LogUnavailableError: The log does not answer.
        """
        now = anyio.current_time()
        if self._inputs and now - self._asked_at >= _ASKED_EVERY:
            self._asked_at = now
            asked = self._inputs.keys() - self.presence.down
            lag = max([await self._lag(name) for name in asked], default=0)
            if self.is_behind != (lag > self._limit):
                self.is_behind = not self.is_behind
                logger.info("backpressure", tier=self._tier, on=self.is_behind, lag=lag)
        return self.is_behind

    async def _lag(self, name: str) -> int:
        return await self._log.lag(tier_group(name), self._inputs[name])
