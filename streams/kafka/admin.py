"""Topics, offsets and lag of a Kafka cluster, through clients that are made anew when they fail."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import anyio
import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from roadstream.schemas.errors import ForbiddenError, LogUnavailableError, UsageError
from roadstream.streams.kafka.client import CONNECTING, KafkaLink, answering, connect, disconnect
from roadstream.streams.kafka.group_offsets import CommittedRequest, committed_in
from roadstream.streams.kafka.group_requests import Describe, Group, described_in
from roadstream.streams.kafka.rights import allows, forbidden
from roadstream.streams.kafka.topic_configs import faults, new_topic, wanted_in_sync
from roadstream.streams.kafka.topic_requests import Topic, known
from roadstream.streams.kafka.topics import configs_of, described, make, wait_until_led
from roadstream.streams.log import (
    Offsets,
    Operation,
    Right,
    TopicFault,
    TopicPartition,
    Uncommitted,
)

log = structlog.get_logger(__name__)

T = TypeVar("T")

_PAUSE = 0.1
"""Seconds between two tries of a request that fails with an error that passes."""


_LIMIT_WAIT = 5.0
"""Seconds that a refused record waits at most to be told its topic's limit."""


class KafkaAdmin:
    """Asks a cluster about itself. Start it with ``start``, end it with ``close``.

    After an error that does not pass within a request's time its clients are dropped; the next
    request connects from the bootstrap servers again, wherever the brokers came back.
    """

    def __init__(self, link: KafkaLink) -> None:
        self._link, self._settings = link, link.settings
        self._lock = anyio.Lock()
        self._client: Any = None
        self._probe: AIOKafkaConsumer | None = None

    async def start(self) -> None:
        """Connect.

        Raises:
            LogUnavailableError: No broker answers within ``connect_timeout``.
            UsageError: Kafka refuses the credentials, or its own are not trusted.
        """
        await self._started()

    async def _started(self) -> Any:
        async with self._lock:
            if self._client is not None:
                return self._client
            client = AIOKafkaAdminClient(**self._link.options())
            try:
                with anyio.fail_after(self._settings.connect_timeout):
                    await client.start()
                    await client.describe_cluster()
            except CONNECTING as error:
                await self._close(client)
                raise await self._link.cannot_connect(error) from error
            except BaseException:
                await self._close(client)
                raise
            self._link.proven, self._client = True, client
            return client

    async def close(self) -> None:
        """Disconnect, bounded in time even when Kafka is gone."""
        probe, self._probe = self._probe, None
        client, self._client = self._client, None
        if probe is not None:
            await disconnect(probe, self._settings.stop_timeout)
        if client is not None:
            await self._close(client)

    async def broker_count(self) -> int:
        """Return how many brokers the cluster has.

        Raises:
            LogUnavailableError: Kafka does not answer.
        """
        answer = await self._ask(lambda client: client.describe_cluster())
        return len(answer["brokers"])

    async def cluster_id(self) -> str:
        """Return what its storage was formatted with.

        Raises:
            LogUnavailableError: Kafka does not answer.
        """
        answer = await self._ask(lambda client: client.describe_cluster())
        return str(answer["cluster_id"])

    async def create_topics(self, topics: Collection[str], partitions: int) -> None:
        """See ``Log.create_topics``.

        Raises:
            LogUnavailableError: Kafka does not answer.
            UsageError: Kafka refuses a topic.
            ForbiddenError: A right is missing.
        """
        replicas = await self._replicas()
        if (in_sync := wanted_in_sync(replicas, self._settings)) > replicas:
            raise UsageError(
                f"min_insync_replicas: expected at most the {replicas} replicas of a topic, got "
                f"{in_sync}: nothing could be written"
            )
        missing = set(topics) - (await self._topics(topics)).keys()
        made = [
            NewTopic(t, partitions, replicas, topic_configs=new_topic(t, replicas, self._settings))
            for t in sorted(missing)
        ]
        await self._ask(partial(make, made), "CREATE")
        await self._ask(partial(wait_until_led, topics))

    async def _replicas(self) -> int:
        """Return how many copies a topic gets."""
        return self._settings.replication_factor or min(3, await self.broker_count())

    async def partition_counts(self, topics: Collection[str]) -> Mapping[str, int]:
        """See ``Log.partition_counts``.

        Raises:
            ForbiddenError: Some may not be described.
            LogUnavailableError: Kafka does not answer.
        """
        found = await self._topics(topics)
        return {name: topic.partitions for name, topic in found.items()}

    async def topic_faults(self, topics: Collection[str]) -> Sequence[TopicFault]:
        """See ``Log.topic_faults``."""
        found = await self._topics(topics)
        configs = await self._ask(partial(configs_of, found), "DESCRIBE_CONFIGS")
        return faults(found, configs, await self._replicas(), self._settings)

    async def check_rights(self, rights: Collection[Right]) -> None:
        """See ``Log.check_rights``."""
        names = {right.name for right in rights if right.resource == "topic"}
        topics = await self._ask(lambda client: described(client, names))
        allowed = {
            ("topic", name): 0 if topic is None else topic.operations
            for name, topic in topics.items()
        }
        for group in {right.name for right in rights if right.resource == "group"}:
            allowed["group", group] = await self._allowed_on(group)
        missing = [
            right
            for right in rights
            if not allows(allowed.get((right.resource, right.name), -1), right.operation)
        ]
        if missing:
            raise forbidden(self._settings, missing)

    async def _allowed_on(self, group: str) -> int:
        try:
            return (await self.describe(group)).operations
        except ForbiddenError:
            return 0

    async def _topics(self, topics: Collection[str]) -> Mapping[str, Topic]:
        async def ask(client: AIOKafkaAdminClient) -> Mapping[str, Topic]:
            return known(await described(client, topics))

        return await self._ask(ask)

    async def uncommitted(self, group: str, topics: Collection[str]) -> Uncommitted:
        """See ``Log.uncommitted``."""
        counts = await self.partition_counts(topics)
        tps = [KafkaTopicPartition(t, p) for t, count in counts.items() for p in range(count)]
        kept = await self.committed(group, topics)
        committed = {tp: kept[known] for tp in tps if (known := TopicPartition(*tp)) in kept}
        fresh = [tp for tp in tps if tp not in committed]
        probe = await self._offsets()
        try:
            with answering(self._link):
                starts = committed | (await probe.beginning_offsets(fresh) if fresh else {})
                ends = await probe.end_offsets(tps) if tps else {}
        except LogUnavailableError:
            if probe is self._probe:
                await self._give_up()
            raise
        return {TopicPartition(*tp): range(starts[tp], end) for tp, end in ends.items()}

    async def committed(self, group: str, topics: Collection[str]) -> Offsets:
        """See ``Log.committed``."""
        request = CommittedRequest(group)

        async def ask(client: AIOKafkaAdminClient) -> Offsets:
            coordinator = await client.find_coordinator(group)
            return committed_in(await client._send_request(request, coordinator))

        found = await self._ask(ask, name=group)
        return {tp: offset for tp, offset in found.items() if tp.topic in topics}

    async def describe(self, group: str) -> Group:
        """Return who is in a group and what each was given.

        Raises:
            ForbiddenError: This client may not ask.
            LogUnavailableError: Kafka does not answer.
        """

        async def ask(client: AIOKafkaAdminClient) -> Group:
            coordinator = await client.find_coordinator(group)
            return described_in(await client._send_request(Describe(group), coordinator))

        return await self._ask(ask, name=group)

    async def _ask(
        self,
        call: Callable[[AIOKafkaAdminClient], Awaitable[T]],
        operation: Operation = "DESCRIBE",
        name: str = "",
    ) -> T:
        """Ask until the answer comes, trying again while the error is one that passes.

        Such as a coordinator being chosen, or a broker that went away asked by chance.

        Args:
            call: Asks.
            operation: The right that it needs.
            name: On which group, if on one.
        """
        client: Any = None
        try:
            with answering(self._link, operation=operation, name=name):
                while True:
                    client = await self._started()
                    try:
                        return await call(client)
                    except KafkaError as error:
                        if not error.retriable:
                            raise
                        if client is self._client:
                            client._client.force_metadata_update()
                        await anyio.sleep(_PAUSE)
        except LogUnavailableError:
            if client is not None and client is self._client:
                await self._give_up()
            raise

    async def _offsets(self) -> AIOKafkaConsumer:
        """Return a client that looks offsets up, connected on first use."""
        async with self._lock:
            if self._probe is None:
                self._probe = await connect(self._link)
            return self._probe

    async def _give_up(self) -> None:
        self._link.stats.admins_rebuilt += 1
        log.warning("kafka_admin_rebuilt")
        await self.close()

    async def _close(self, client: AIOKafkaAdminClient) -> None:
        budget = self._settings.stop_timeout
        with anyio.CancelScope(shield=True), anyio.move_on_after(budget), suppress(KafkaError):
            await client.close()


async def topic_limit(link: KafkaLink, topic: str) -> int | None:
    """Return the largest batch that a topic allows, in bytes; ``None`` where Kafka does not tell.

    For an error message: it waits a moment at most, and raises nothing.
    """
    client = AIOKafkaAdminClient(**link.options())
    try:
        with anyio.move_on_after(_LIMIT_WAIT), suppress(KafkaError, OSError):
            await client.start()
            return int((await configs_of([topic], client))[topic]["max.message.bytes"])
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(1.0), suppress(KafkaError):
            await client.close()
    return None
