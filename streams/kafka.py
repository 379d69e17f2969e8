"""The log on Apache Kafka 4.x, through aiokafka, which only ``streams/kafka*.py`` import."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import anyio
import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from schemas.errors import UsageError
from streams.kafka_client import answering, connected
from streams.kafka_consumer import KafkaConsumer, KafkaReader
from streams.kafka_producer import KafkaProducer
from streams.kafka_settings import KafkaSettings, unavailable
from streams.log import Consumer, GroupListener, Log, Producer, Reader, Start

__all__ = ["KafkaLog", "KafkaSettings"]

log = structlog.get_logger(__name__)

T = TypeVar("T")


class KafkaLog(Log):
    """A Kafka cluster. Every producer, consumer and reader has connections of its own."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self._offsets_lock = anyio.Lock()

    async def __aenter__(self) -> "KafkaLog":
        """Connect.

        Raises:
            LogUnavailableError: No broker answers within ``connect_timeout``.
        """
        settings = self._settings
        self._admin = AIOKafkaAdminClient(
            bootstrap_servers=settings.bootstrap_servers,
            client_id=settings.client_id,
            request_timeout_ms=int(settings.request_timeout * 1000),
        )
        try:
            with anyio.fail_after(settings.connect_timeout):
                await self._admin.start()
                await self._admin.describe_cluster()
        except (KafkaError, OSError, TimeoutError) as error:
            await self._close_admin()
            raise unavailable(settings, error) from error
        except BaseException:
            await self._close_admin()
            raise
        self._stack.push_async_callback(self._close_admin)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Disconnect; bounded in time even when the log is gone."""
        await self._stack.aclose()

    async def broker_count(self) -> int:
        """Return how many brokers the cluster has.

        Raises:
            LogUnavailableError: Kafka does not answer.
        """
        with answering(self._settings):
            return len((await self._admin.describe_cluster())["brokers"])

    async def create_topics(self, topics: Collection[str], partitions: int) -> None:
        """See ``Log.create_topics``.

        Raises:
            LogUnavailableError: Kafka does not answer.
            UsageError: Kafka refuses a topic.
        """
        replicas = self._settings.replication_factor or min(3, await self.broker_count())
        limit = {"max.message.bytes": str(self._settings.max_record_bytes)}
        missing = set(topics) - (await self.partition_counts(topics)).keys()
        with answering(self._settings):
            while missing:
                answer = await self._admin.create_topics(
                    [
                        NewTopic(t, partitions, replicas, topic_configs=limit)
                        for t in sorted(missing)
                    ]
                )
                missing = set(_topics_to_retry(answer.topic_errors))
                await anyio.sleep(0.1 if missing else 0)
            ready = 0
            while ready < len(set(topics)):
                ready = sum(map(_is_led, await self._describe(topics)))
                await anyio.sleep(0 if ready == len(set(topics)) else 0.05)

    async def partition_counts(self, topics: Collection[str]) -> Mapping[str, int]:
        """See ``Log.partition_counts``."""
        with answering(self._settings):
            return {t["topic"]: len(t["partitions"]) for t in await self._describe(topics)}

    async def lag(self, group: str, topics: Collection[str]) -> int:
        """See ``Log.lag``."""
        counts = await self.partition_counts(topics)
        tps = [KafkaTopicPartition(t, p) for t, count in counts.items() for p in range(count)]
        with answering(self._settings):
            probe = await self._offsets()
            kept = await _retried(lambda: self._admin.list_consumer_group_offsets(group))
            committed = {tp: kept[tp].offset for tp in tps if tp in kept and kept[tp].offset >= 0}
            fresh = [tp for tp in tps if tp not in committed]
            starts = committed | (await probe.beginning_offsets(fresh) if fresh else {})
            ends = await probe.end_offsets(tps) if tps else {}
        return sum(max(0, end - starts[tp]) for tp, end in ends.items())

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
        """See ``Log.consumer``. A static member keeps its partitions until ``session_timeout``."""
        return self._consumer(group, list(topics), listener, member_id)

    def reader(
        self, topic: str, start: Start | Mapping[int, int]
    ) -> AbstractAsyncContextManager[Reader]:
        """See ``Log.reader``."""
        return self._reader(topic, start)

    @asynccontextmanager
    async def _producer(self) -> AsyncIterator[KafkaProducer]:
        producer = KafkaProducer(self._settings)
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
        settings = self._settings
        async with self._producer() as producer, connected(settings, group, member) as client:
            consumer = KafkaConsumer(client, producer, settings, listener, list(topics))
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(consumer.committer.run)
                    client.subscribe(topics, listener=consumer.rebalances)
                    try:
                        yield consumer
                    finally:
                        with anyio.CancelScope(shield=True):
                            await consumer.leave()
                        tasks.cancel_scope.cancel()
            except BaseExceptionGroup as group_error:
                # The task group wraps what the caller's block raised; give it back as it was.
                if len(group_error.exceptions) == 1:
                    raise group_error.exceptions[0] from group_error.exceptions[0].__cause__
                raise

    @asynccontextmanager
    async def _reader(self, topic: str, start: Start | Mapping[int, int]) -> AsyncIterator[Reader]:
        counts = await self.partition_counts([topic])
        _check_exist([topic], counts)
        tps = [KafkaTopicPartition(topic, p) for p in range(counts[topic])]
        async with connected(self._settings) as client:
            client.assign(tps)
            with answering(self._settings):
                find = client.end_offsets if start == "end" else client.beginning_offsets
                positions = {tp.partition: at for tp, at in (await find(tps)).items()}
            if not isinstance(start, str):
                positions |= {p: at for p, at in start.items() if p in positions}
            for tp in tps:
                client.seek(tp, positions[tp.partition])
            yield KafkaReader(client, self._settings, positions)

    async def _describe(self, topics: Collection[str]) -> list[dict[str, Any]]:
        """Return metadata of those topics that exist; asking for one by name could create it."""
        everything = await self._admin.describe_topics()
        return [t for t in everything if t["topic"] in topics and not t["error_code"]]

    async def _offsets(self) -> AIOKafkaConsumer:
        """Return a client that looks offsets up, connected on first use."""
        async with self._offsets_lock:
            if not hasattr(self, "_probe"):
                self._probe = await self._stack.enter_async_context(connected(self._settings))
            return self._probe

    async def _close_admin(self) -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(self._settings.stop_timeout):
            await self._admin.close()


async def _retried(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat a request while the error is one that passes, such as a coordinator being chosen."""
    while True:
        try:
            return await call()
        except KafkaError as error:
            if not error.retriable:
                raise
            await anyio.sleep(0.1)


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


def _is_led(topic: Mapping[str, Any]) -> bool:
    return all(partition["leader"] >= 0 for partition in topic["partitions"])


def _check_exist(topics: Collection[str], counts: Mapping[str, int]) -> None:
    if missing := sorted(set(topics) - counts.keys()):
        raise UsageError(f"there is no topic {', '.join(missing)}")
