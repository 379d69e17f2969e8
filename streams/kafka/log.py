"""The log on Apache Kafka 4.x, through aiokafka, which only ``streams/kafka/`` import."""

import math
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import structlog
from aiokafka import TopicPartition as KafkaTopicPartition

from roadstream.schemas.errors import RegroupError, ReplacedError, RunError, UsageError
from roadstream.streams.kafka.admin import KafkaAdmin
from roadstream.streams.kafka.client import KafkaLink, answering, connected, disconnect
from roadstream.streams.kafka.consumer import KafkaConsumer
from roadstream.streams.kafka.coverage import Coverage
from roadstream.streams.kafka.group_requests import Group
from roadstream.streams.kafka.producer import KafkaProducer
from roadstream.streams.kafka.reader import KafkaReader
from roadstream.streams.kafka.settings import KafkaSettings
from roadstream.streams.kafka.stats import KafkaStats
from roadstream.streams.log import (
    Consumer,
    GroupListener,
    Log,
    Offsets,
    Producer,
    Reader,
    Right,
    Start,
    TopicFault,
    Uncommitted,
)

__all__ = ["KafkaLog", "KafkaSettings", "KafkaStats"]


log = structlog.get_logger(__name__)

_WATCH_INTERVAL = 15.0
"""Seconds between two looks at whether a group has all partitions of its topics."""


class KafkaLog(Log):
    """A Kafka cluster. Every producer, consumer and reader has connections of its own.

    It outlives its brokers: whatever failed while they were away works again when they are back.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._link = KafkaLink(settings)
        self._admin = KafkaAdmin(self._link)

    @property
    def settings(self) -> KafkaSettings:
        """How it reaches Kafka."""
        return self._link.settings

    @property
    def stats(self) -> KafkaStats:
        """Counters of all its clients."""
        return self._link.stats

    async def __aenter__(self) -> "KafkaLog":
        """Connect.

        Raises:
            LogUnavailableError: No broker answers within ``connect_timeout``.
            UsageError: Kafka refuses the credentials, or its own are not trusted.
        """
        await self._admin.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Disconnect; bounded in time even when the log is gone."""
        await self._admin.close()

    async def broker_count(self) -> int:
        """Return how many brokers the cluster has.

        Raises:
            LogUnavailableError: Kafka does not answer.
        """
        return await self._admin.broker_count()

    async def commit(self, group: str, offsets: Offsets) -> None:
        """See ``Log.commit``."""
        async with connected(self._link, group) as client:
            with answering(self._link, operation="READ", name=group):
                client.assign([KafkaTopicPartition(*tp) for tp in offsets])
                await client.commit({KafkaTopicPartition(*tp): at for tp, at in offsets.items()})

    async def identity(self) -> str:
        """See ``Log.identity``."""
        return f"kafka:{await self._admin.cluster_id()}"

    async def create_topics(self, topics: Collection[str], partitions: int) -> None:
        """See ``Log.create_topics``.

        Raises:
            LogUnavailableError: Kafka does not answer.
            UsageError: Kafka refuses a topic.
        """
        await self._admin.create_topics(topics, partitions)

    async def partition_counts(self, topics: Collection[str]) -> Mapping[str, int]:
        """See ``Log.partition_counts``."""
        return await self._admin.partition_counts(topics)

    async def uncommitted(self, group: str, topics: Collection[str]) -> Uncommitted:
        """See ``Log.uncommitted``."""
        return await self._admin.uncommitted(group, topics)

    async def topic_faults(self, topics: Collection[str]) -> Sequence[TopicFault]:
        """See ``Log.topic_faults``."""
        return await self._admin.topic_faults(topics)

    async def check_rights(self, rights: Collection[Right]) -> None:
        """See ``Log.check_rights``."""
        await self._admin.check_rights(rights)

    async def committed(self, group: str, topics: Collection[str]) -> Offsets:
        """See ``Log.committed``."""
        return await self._admin.committed(group, topics)

    async def silence(self, group: str) -> float:
        """See ``Log.silence``."""
        return 0.0 if (await self.describe(group)).is_worked else math.inf

    async def describe(self, group: str) -> Group:
        """Return who is in a group and what each was given.

        Raises:
            ForbiddenError: This client may not ask.
            LogUnavailableError: Kafka does not answer.
        """
        return await self._admin.describe(group)

    def producer(self) -> AbstractAsyncContextManager[Producer]:
        """See ``Log.producer``."""
        return self._producer()

    def consumer(
        self,
        group: str,
        topics: Collection[str],
        *,
        listener: GroupListener | None = None,
        member_id: str | None = None,
    ) -> AbstractAsyncContextManager[Consumer]:
        """See ``Log.consumer``. Who dies keeps its partitions until ``session_timeout``."""
        return self._consumer(group, list(topics), listener, member_id)

    def reader(
        self, topic: str, start: Start | Mapping[int, int]
    ) -> AbstractAsyncContextManager[Reader]:
        """See ``Log.reader``."""
        return self._reader(topic, start)

    @asynccontextmanager
    async def _producer(self) -> AsyncIterator[KafkaProducer]:
        producer = KafkaProducer(self._link)
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()

    @asynccontextmanager
    async def _consumer(
        self, group: str, topics: list[str], listener: GroupListener | None, member: str | None
    ) -> AsyncIterator[Consumer]:
        counts = await self.partition_counts(topics)
        _check_exist(topics, counts)
        if len(set(counts.values())) > 1:
            raise UsageError(f"expected topics of equal partition counts, got {dict(counts)}")
        async with self._producer() as producer, connected(self._link, group, member) as client:
            self.stats.consumers_opened += 1
            consumer = KafkaConsumer(client, producer, self._link, listener, topics)
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(consumer.committer.run)
                    tasks.start_soon(consumer.membership.watch)
                    tasks.start_soon(self._watch_partitions, consumer, group, topics)
                    if (group, member) in self._link.member_ids:
                        consumer.membership.check_name(await self.describe(group))
                    client.subscribe(topics, listener=consumer.rebalances)
                    returning = False
                    try:
                        yield consumer
                    except RunError as error:  # an outage, say, after which it joins again
                        returning = not isinstance(error, ReplacedError | RegroupError)
                        raise
                    finally:
                        with anyio.CancelScope(shield=True):
                            await disconnect(client, await consumer.leave(returning=returning))
                        tasks.cancel_scope.cancel()
            except BaseExceptionGroup as group_error:
                # The task group wraps what the caller's block raised; give it back as it was.
                if len(group_error.exceptions) == 1:
                    raise group_error.exceptions[0] from group_error.exceptions[0].__cause__
                raise

    async def _watch_partitions(
        self, consumer: KafkaConsumer, group: str, topics: list[str]
    ) -> None:
        """Have the group joined anew when its topics have more partitions, or are others."""
        coverage, told = Coverage(topics), False
        while True:
            await anyio.sleep(_WATCH_INTERVAL)
            try:
                counts = await self.partition_counts(topics)
                stood = await self.committed(group, topics)
                why = coverage.look(await self.describe(group), counts, stood)
            except RunError:
                continue  # an outage, of which polls tell
            if coverage.unequal and not told:
                log.warning("partitions_differ", group=group, counts=dict(counts))
            told = coverage.unequal
            if why is not None:
                consumer.regroup(why)

    @asynccontextmanager
    async def _reader(self, topic: str, start: Start | Mapping[int, int]) -> AsyncIterator[Reader]:
        counts = await self.partition_counts([topic])
        _check_exist([topic], counts)
        tps = [KafkaTopicPartition(topic, p) for p in range(counts[topic])]
        async with connected(self._link) as client:
            client.assign(tps)
            with answering(self._link):
                find = client.end_offsets if start == "end" else client.beginning_offsets
                positions = {tp.partition: at for tp, at in (await find(tps)).items()}
                if not isinstance(start, str):
                    ends = {tp.partition: at for tp, at in (await client.end_offsets(tps)).items()}
                    positions = {
                        p: min(ends[p], max(oldest, start.get(p, oldest)))
                        for p, oldest in positions.items()
                    }
            for tp in tps:
                client.seek(tp, positions[tp.partition])
            yield KafkaReader(client, self._link, positions)


def _check_exist(topics: Collection[str], counts: Mapping[str, int]) -> None:
    if missing := sorted(set(topics) - counts.keys()):
        raise UsageError(f"there is no topic {', '.join(missing)}")
