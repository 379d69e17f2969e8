"""Topics, offsets and lag of a Kafka cluster, through clients that are made anew when they fail."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import anyio
import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from schemas.errors import LogUnavailableError, UsageError
from schemas.topics import CASCADES
from streams.kafka.client import CONNECTING, KafkaLink, answering, connect, disconnect
from streams.kafka.group_offsets import CommittedRequest, committed_in
from streams.kafka.group_requests import Describe, Group, described_in
from streams.log import Offsets, TopicPartition, Uncommitted

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
        self._link = link
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
                with anyio.fail_after(self._link.settings.connect_timeout):
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
            await disconnect(probe, self._link.settings.stop_timeout)
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
        """
        settings = self._link.settings
        replicas = settings.replication_factor or min(3, await self.broker_count())
        limit = {"max.message.bytes": str(settings.max_record_bytes)}
        kept = limit | {"cleanup.policy": "compact"}

        async def create(client: AIOKafkaAdminClient) -> None:
            missing = set(topics) - {t["topic"] for t in await _describe(client, topics)}
            while missing:
                await client._client.force_metadata_update()  # the controller may be another now
                answer = await client.create_topics(
                    [
                        NewTopic(
                            t,
                            partitions,
                            replicas,
                            topic_configs=kept if _is_compacted(t) else limit,
                        )
                        for t in sorted(missing)
                    ]
                )
                missing = set(_topics_to_retry(answer.topic_errors))
                await anyio.sleep(_PAUSE if missing else 0)
            ready = 0
            while ready < len(set(topics)):
                ready = sum(map(_is_led, await _describe(client, topics)))
                await anyio.sleep(0 if ready == len(set(topics)) else 0.05)

        await self._ask(create)

    async def partition_counts(self, topics: Collection[str]) -> Mapping[str, int]:
        """See ``Log.partition_counts``."""
        found = await self._ask(lambda client: _describe(client, topics))
        return {topic["topic"]: len(topic["partitions"]) for topic in found}

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

        found = await self._ask(ask)
        return {tp: offset for tp, offset in found.items() if tp.topic in topics}

    async def describe(self, group: str) -> Group:
        """Return who is in a group and what each was given.

        Raises:
            LogUnavailableError: Kafka does not answer.
        """

        async def ask(client: AIOKafkaAdminClient) -> Group:
            coordinator = await client.find_coordinator(group)
            return described_in(await client._send_request(Describe(group), coordinator))

        return await self._ask(ask)

    async def _ask(self, call: Callable[[AIOKafkaAdminClient], Awaitable[T]]) -> T:
        """Ask until the answer comes, trying again while the error is one that passes.

        Such as a coordinator being chosen, or a broker that went away asked by chance.
        """
        client: Any = None
        try:
            with answering(self._link):
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
        budget = self._link.settings.stop_timeout
        with anyio.CancelScope(shield=True), anyio.move_on_after(budget), suppress(KafkaError):
            await client.close()


async def _describe(client: AIOKafkaAdminClient, topics: Collection[str]) -> list[dict[str, Any]]:
    """Return metadata of those topics that exist; asking for one by name could create it."""
    everything = await client.describe_topics()
    return [t for t in everything if t["topic"] in topics and not t["error_code"]]


def _topics_to_retry(answers: Iterable[tuple[str, int, str | None]]) -> list[str]:
    retry = []
    for topic, code, message in answers:
        error = for_code(code)
        if error.errno == 0 or error is TopicAlreadyExistsError:
            continue
        if not error.retriable:
            raise UsageError(f"cannot create topic {topic}: {message or error.description}")
        retry.append(topic)
    return retry


def _is_compacted(topic: str) -> bool:
    """Return whether a topic, in whatever namespace, keeps the last record of each key for ever."""
    return topic == CASCADES or topic.endswith(f".{CASCADES}")


def _is_led(topic: Mapping[str, Any]) -> bool:
    return all(partition["leader"] >= 0 for partition in topic["partitions"])


async def topic_limit(link: KafkaLink, topic: str) -> int | None:
    """Return the largest batch that a topic allows, in bytes; ``None`` where Kafka does not tell.

    For an error message: it waits a moment at most, and raises nothing.
    """
    client = AIOKafkaAdminClient(**link.options())
    try:
        with anyio.move_on_after(_LIMIT_WAIT), suppress(KafkaError, OSError):
            await client.start()
            asked = [ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": None})]
            for answer in await client.describe_configs(asked):
                for resource in answer.resources:
                    for name, value, *_ in resource[4]:
                        if name == "max.message.bytes":
                            return int(value)
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(1.0), suppress(KafkaError):
            await client.close()
    return None
