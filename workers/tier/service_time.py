"""Tells the workers of earlier tiers, by the log, what an image takes at this one."""

from collections.abc import Callable
from uuid import uuid4

import anyio
import structlog

from roadstream.schemas.errors import OutputError, RoadstreamError
from roadstream.schemas.records.claims import ServiceTime
from roadstream.schemas.topics import CASCADES
from roadstream.stages.batching.service_time import ServiceTimeEstimate, ToldTime
from roadstream.streams.log import Log
from roadstream.streams.topics.claims import tell
from roadstream.workers.tier.batch import TierBatch

logger = structlog.get_logger()

_LOOKED_EVERY = 1.0


class ServiceTimeTeller:
    """Learns what images with a deadline take at a tier, and tells when that has changed.

    Where the topic ``cascades`` is not there or may not be written, nothing is told: a warning says
    so once, and it is tried again in a minute.

    Args:
        log: Where it is told.
        tier: Name of the tier.
        worker: Name of its worker; ``None`` gives it one of its own.
        alone: Returns what a batch of one is expected to take, in seconds.
        wall: Wall clock.

    Attributes:
        told: What was told last.
    """

    def __init__(
        self,
        log: Log,
        tier: str,
        worker: str | None,
        alone: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._log, self._tier, self._worker = log, tier, worker or uuid4().hex
        self._alone, self._wall = alone, wall
        self._estimate = ServiceTimeEstimate()
        self.told = ToldTime()
        self._refused = False

    def observe(self, batch: TierBatch) -> None:
        """Learn from a batch whose votes are on the log.

        An image whose deadline passed in the queue has waited, and would have needed its batch yet.
        """
        now = self._wall()
        judged = batch.items if batch.judged else []
        took = [max(0.0, now - one.arrived_at) for one in judged if one.deadline_at is not None]
        if batch.expired:
            alone = self._alone()
            took += [max(0.0, now - one.arrived_at) + alone for one in batch.expired]
        self._estimate.observe(took, batch.seconds, anyio.current_time())

    async def run(self) -> None:
        """Tell, whenever it is due, until cancelled."""
        while True:
            now = anyio.current_time()
            seconds = self._estimate.seconds(self._alone(), now)
            if seconds is not None and self.told.is_due(seconds, now):
                await self._tell(seconds)
            await anyio.sleep(_LOOKED_EVERY)

    async def _tell(self, seconds: float) -> None:
        changed = self.told.differs(seconds)
        self.told.note(seconds, anyio.current_time())
        one = ServiceTime(
            tier=self._tier, worker=self._worker, seconds=seconds, told_at=self._wall()
        )
        try:
            if CASCADES not in await self._log.partition_counts([CASCADES]):
                return
            await tell(self._log, one)
            await self._log.compact(CASCADES, one.key)
        except OutputError as error:
            if not self._refused:
                self._refused = True
                topic = self._log.real_name(CASCADES)
                logger.warning(
                    "service_time_untold", tier=self._tier, topic=topic, reason=str(error)
                )
            return
        except RoadstreamError:
            return  # an outage, of which polls tell
        if changed:
            logger.info("tier_service_time", tier=self._tier, seconds=round(seconds, 4))
