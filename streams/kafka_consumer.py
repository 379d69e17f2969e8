"""A member of a Kafka consumer group, and a reader without a group.

aiokafka rebalances in a task of its own, at any moment. Here the task that polls carries out what
the coordinator says: partitions come and go only inside ``poll``, and the coordinator waits for it,
within one budget for giving up work.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import cast

import anyio
import anyio.lowlevel
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.errors import KafkaError

from schemas.errors import LogUnavailableError
from streams.kafka_client import answering
from streams.kafka_committer import OffsetCommitter
from streams.kafka_producer import KafkaProducer
from streams.kafka_settings import KafkaSettings
from streams.log import (
    Assignment,
    Consumer,
    GroupListener,
    Offsets,
    Output,
    Polled,
    Reader,
    Record,
    TopicPartition,
)

log = structlog.get_logger(__name__)

_NOTHING = (KafkaTopicPartition("", -1),)
"""Asking for a partition that does not exist takes no record, yet counts as a sign of life."""

_GRACE = 1.0
"""Seconds a client call may outlast the timeout it was given."""

_Found = Mapping[KafkaTopicPartition, Sequence[Record]]


class Rebalances(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """What aiokafka's coordinator says, kept until the polling task has carried it out."""

    def __init__(self, committer: OffsetCommitter, settings: KafkaSettings) -> None:
        self._committer, self._settings = committer, settings
        self.news = anyio.Event()
        self.moving = True
        self.granted: frozenset[TopicPartition] | None = None
        self.held = self.lost = False
        self.given_up = anyio.Event()
        self.give_up_at = 0.0
        self.fetch: anyio.CancelScope | None = None

    async def on_partitions_revoked(self, revoked: Collection[KafkaTopicPartition]) -> None:
        """Wait until the polling task has given its work up, then commit what it finished."""
        self.moving, self.granted = True, None
        budget = self._settings.drain_timeout
        if self.held:
            self.given_up, self.give_up_at = anyio.Event(), anyio.current_time() + budget
            self._tell()
            with anyio.move_on_after(budget) as waiting:
                await self.given_up.wait()
            if waiting.cancelled_caught:
                log.warning("drain_timed_out", budget=budget, partitions=len(revoked))
        await self._committer.flush(self._settings.stop_timeout)
        self._committer.forget()
        self.lost = True

    async def on_partitions_assigned(self, assigned: Collection[KafkaTopicPartition]) -> None:
        """Keep the new partitions for the polling task."""
        self._committer.forget()
        self.granted = frozenset(TopicPartition(*tp) for tp in assigned)
        self.moving = False
        self._tell()

    def _tell(self) -> None:
        self.news.set()
        self.news = anyio.Event()
        if self.fetch is not None:
            self.fetch.cancel()


class KafkaConsumer(Consumer):
    """See ``Consumer``. Offsets are committed shortly after the outputs, by one committer."""

    def __init__(
        self,
        client: AIOKafkaConsumer,
        producer: KafkaProducer,
        settings: KafkaSettings,
        listener: GroupListener | None,
        topics: Sequence[str],
    ) -> None:
        self.committer = OffsetCommitter(client, settings)
        self.rebalances = Rebalances(self.committer, settings)
        self._client, self._producer, self._settings = client, producer, settings
        self._listener = listener
        # All but the last: what is at hand of them is taken first.
        self._first = [frozenset([topic]) for topic in topics[:-1]]
        self._assignment = Assignment(0, frozenset())
        self._held: frozenset[TopicPartition] = frozenset()
        self._names: dict[KafkaTopicPartition, TopicPartition] = {}
        self._choices: dict[frozenset[str] | None, tuple[KafkaTopicPartition, ...]] = {}
        self._fruitful_at = anyio.current_time()
        self._owed: dict[KafkaTopicPartition, int] = {}

    @property
    def assignment(self) -> Assignment:
        """See ``Consumer.assignment``."""
        return self._assignment

    async def poll(
        self, *, max_records: int, timeout: float, topics: Collection[str] | None = None
    ) -> Polled:
        """See ``Consumer.poll``."""
        await anyio.lowlevel.checkpoint()
        until = anyio.current_time() + timeout
        wanted = None if topics is None else frozenset(topics)
        while True:
            await self._follow_group()
            left = max(0.0, until - anyio.current_time())
            found = await self._fetch(max_records, left, wanted)
            if found:
                self._bear_fruit()
                names = self._names
                return {names[tp]: records for tp, records in found.items()}
            if max_records == 0:
                self._bear_fruit()
                return {}
            if anyio.current_time() >= until:
                await self._check_alive(wanted)
                return {}

    async def publish(self, outputs: Sequence[Output], commit: Offsets, epoch: int) -> None:
        """See ``Consumer.publish``."""
        await self._producer.publish(outputs)
        if not commit:
            return
        now = self._assignment
        if epoch != now.epoch or self.rebalances.lost:
            log.debug("commit_dropped", partitions=len(commit), epoch=epoch, now=now.epoch)
        else:
            self.committer.put({tp: at for tp, at in commit.items() if tp in now.partitions})

    async def committed(self) -> Offsets:
        """See ``Consumer.committed``."""
        offsets: dict[TopicPartition, int] = {}
        with answering(self._settings):
            for tp in self._assignment.partitions:
                if (at := await self._client.committed(KafkaTopicPartition(*tp))) is not None:
                    offsets[tp] = at
        return offsets

    async def leave(self) -> None:
        """Commit what is pending and let a rebalance that waits for us go on."""
        self.rebalances.held = False
        self.rebalances.given_up.set()
        await self.committer.flush(self._settings.stop_timeout)

    async def _follow_group(self) -> None:
        """Carry out revocations and assignments that came since the last poll."""
        group = self.rebalances
        while True:
            if self._held and (group.moving or group.granted is not None):
                await self._give_up()
            elif group.granted is not None:
                await self._take(group.granted)
            else:
                return

    async def _give_up(self) -> None:
        group = self.rebalances
        held, self._held = self._held, frozenset()
        try:
            if self._listener is not None:
                with anyio.CancelScope(deadline=group.give_up_at):
                    await self._listener.revoked(held)
        finally:
            # Until here the old epoch may commit; the coordinator flushes that before it goes on.
            self._own(frozenset())
            group.held = False
            group.given_up.set()

    async def _take(self, granted: frozenset[TopicPartition]) -> None:
        group = self.rebalances
        group.granted, group.held, group.lost = None, bool(granted), False
        group.give_up_at = math.inf
        self._held = granted
        self._own(granted)
        log.info("partitions_assigned", epoch=self._assignment.epoch, partitions=len(granted))
        if self._listener is not None:
            await self._listener.assigned(granted)

    def _own(self, partitions: frozenset[TopicPartition]) -> None:
        self._assignment = Assignment(self._assignment.epoch + 1, partitions)
        self._names = {KafkaTopicPartition(*tp): tp for tp in partitions}
        self._choices = {None: tuple(self._names)}
        self._bear_fruit()

    def _bear_fruit(self) -> None:
        self._fruitful_at, self._owed = anyio.current_time(), {}

    async def _fetch(self, max_records: int, left: float, topics: frozenset[str] | None) -> _Found:
        """Take records that aiokafka has fetched, or wait for some, or for a rebalance.

        Even with nothing to take, ``getmany`` must be called: a member that does not for five
        minutes is put out of the group and could never come back (aiokafka#1187).
        """
        group, news = self.rebalances, self.rebalances.news
        choice = self._choose(topics)
        idle = group.moving or not choice
        left = left if max_records else 0.0
        try:
            with anyio.move_on_after(left if idle else left + _GRACE) as group.fetch:
                if idle or not max_records:
                    await self._client.getmany(*_NOTHING)
                    if idle:
                        await news.wait()
                    return {}
                found = await self._at_hand(max_records, topics)
                return found or cast(
                    "_Found",
                    await self._client.getmany(
                        *choice, timeout_ms=int(left * 1000), max_records=max_records
                    ),
                )
        except KafkaError as error:
            raise LogUnavailableError(f"Kafka: cannot consume: {error!r}") from error
        finally:
            group.fetch = None
        return {}

    async def _at_hand(self, max_records: int, topics: frozenset[str] | None) -> _Found:
        """Take what has been fetched of the first topic that has anything, the last one aside."""
        for topic in self._first:
            choice = self._choose(topic) if topics is None or topic <= topics else ()
            found = await self._client.getmany(*choice, max_records=max_records) if choice else {}
            if found:
                return cast("_Found", found)
        return {}

    def _choose(self, topics: frozenset[str] | None) -> tuple[KafkaTopicPartition, ...]:
        choice = self._choices.get(topics)
        if choice is None:
            choice = tuple(tp for tp in self._names if topics is not None and tp.topic in topics)
            self._choices[topics] = choice
        return choice

    async def _check_alive(self, topics: frozenset[str] | None) -> None:
        """After a long time without records, ask Kafka whether there were none.

        When brokers are gone aiokafka retries in silence, and its fetching has been seen to end
        (aiokafka#1037, #1187).

        Raises:
            LogUnavailableError: Kafka does not answer, or records of the last time never came.
        """
        now = anyio.current_time()
        if now - self._fruitful_at < self._settings.stall_timeout or self.rebalances.moving:
            return
        with answering(self._settings):
            ends = await self._client.end_offsets(list(self._choose(topics)))
            behind = {tp: end for tp, end in ends.items() if await self._client.position(tp) < end}
        if self._owed.keys() & behind.keys():
            raise LogUnavailableError("Kafka: records exist, but none arrive")
        self._fruitful_at, self._owed = now, behind


class KafkaReader(Reader):
    """See ``Reader``."""

    def __init__(
        self, client: AIOKafkaConsumer, settings: KafkaSettings, positions: dict[int, int]
    ) -> None:
        self._client, self._settings, self._positions = client, settings, positions

    @property
    def positions(self) -> Mapping[int, int]:
        """See ``Reader.positions``."""
        return dict(self._positions)

    async def poll(self, *, max_records: int, timeout: float) -> Polled:
        """See ``Reader.poll``."""
        await anyio.lowlevel.checkpoint()
        found: _Found = {}
        if max_records <= 0:
            return {}
        with answering(self._settings, timeout):
            found = await self._client.getmany(
                timeout_ms=int(timeout * 1000), max_records=max_records
            )
            for tp in self._client.assignment():
                self._positions[tp.partition] = await self._client.position(tp)
        return {TopicPartition(*tp): records for tp, records in found.items()}

    async def ends(self) -> Mapping[int, int]:
        """See ``Reader.ends``."""
        with answering(self._settings):
            ends = await self._client.end_offsets(list(self._client.assignment()))
        return {tp.partition: end for tp, end in ends.items()}
