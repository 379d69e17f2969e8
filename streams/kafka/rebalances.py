"""What a group's coordinator says, kept until the polling task has carried it out."""

import time
from collections.abc import Collection

import anyio
import structlog
from aiokafka import ConsumerRebalanceListener
from aiokafka import TopicPartition as KafkaTopicPartition

from roadstream.streams.kafka.client import KafkaLink
from roadstream.streams.kafka.committer import OffsetCommitter
from roadstream.streams.kafka.membership import Identity, Membership
from roadstream.streams.log import TopicPartition

log = structlog.get_logger(__name__)


class Grant:
    """Partitions that the group has given, and under which identity."""

    def __init__(self, partitions: frozenset[TopicPartition], identity: Identity) -> None:
        self.partitions, self.identity = partitions, identity


class Rebalances(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """aiokafka calls it from a task of its own, at any moment.

    Attributes:
        news: Set when the polling task has something to carry out.
        moving: Whether partitions are on the move: nothing can be consumed.
        moving_since: Since when, on the monotonic clock.
        granted: What the polling task is to take over.
        held: Whether the polling task holds partitions that it must give up first.
        lost: Whether what was held belongs to somebody else by now.
        given_up: Set by the polling task when it has given up what it held.
        give_up_at: When it must have done so, on the event loop's clock.
        fetch: Scope of a fetch that must not outlast news.
    """

    def __init__(self, committer: OffsetCommitter, membership: Membership, link: KafkaLink) -> None:
        self._committer, self._membership, self._link = committer, membership, link
        self.news = anyio.Event()
        self.moving, self.moving_since = True, time.monotonic()
        self.granted: Grant | None = None
        self.held = self.lost = False
        self.given_up = anyio.Event()
        self.give_up_at = 0.0
        self.fetch: anyio.CancelScope | None = None

    async def on_partitions_revoked(self, revoked: Collection[KafkaTopicPartition]) -> None:
        """Wait until the polling task has given its work up, then commit what it finished."""
        if not self.moving:
            self.moving, self.moving_since = True, time.monotonic()
        self.granted = None
        budget = self._link.settings.drain_timeout
        if self.held:
            self.given_up, self.give_up_at = anyio.Event(), anyio.current_time() + budget
            self._tell()
            with anyio.move_on_after(budget) as waiting:
                await self.given_up.wait()
            if waiting.cancelled_caught:
                self._link.stats.drains_timed_out += 1
                log.warning("drain_timed_out", budget=budget, partitions=len(revoked))
        await self._committer.flush(self._link.settings.stop_timeout)
        self._committer.end()
        self.lost = True

    async def on_partitions_assigned(self, assigned: Collection[KafkaTopicPartition]) -> None:
        """Keep the new partitions for the polling task."""
        partitions = frozenset(TopicPartition(*tp) for tp in assigned)
        self.granted = Grant(partitions, self._membership.identity)
        self.moving = False
        self._link.stats.rebalances += 1
        self._tell()

    def _tell(self) -> None:
        self.news.set()
        self.news = anyio.Event()
        if self.fetch is not None:
            self.fetch.cancel()
