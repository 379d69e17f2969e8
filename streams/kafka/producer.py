"""Appends records to Kafka in whole batches per partition, through a client rebuilt on faults.

``send()`` costs a future and a lock per record and is quadratic under concurrency (aiokafka#528);
``create_batch``/``send_batch`` is five times as fast. Callers that publish at the same time share a
round of batches, so many small publishes cost as little as one large.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import chain
from struct import unpack_from
from typing import Any, NamedTuple, NoReturn

import anyio
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)

from roadstream.schemas.errors import FencedError, RecordRefusedError, Refusal, UsageError
from roadstream.schemas.records.headers import Headers
from roadstream.streams.kafka.admin import topic_limit
from roadstream.streams.kafka.client import CONNECTING, KafkaLink
from roadstream.streams.kafka.topic_configs import BATCH_BYTES, OVERHEAD
from roadstream.streams.log import Output, Producer

log = structlog.get_logger(__name__)

_TOPIC_WAIT = 1.0
"""Seconds a new topic may take to be known to the broker that is asked first."""

_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
"""A batch is too large for its topic: perhaps all of it, perhaps one record."""

Target = tuple[str, int]


Fence = Callable[[], None]
"""Raises ``FencedError`` when what is to be published is somebody else's by now."""


class _Part:
    """What one caller has to publish in a round."""

    def __init__(self, outputs: Sequence[Output], fence: Fence | None) -> None:
        self.outputs, self.fence = outputs, fence
        self.fenced: FencedError | None = None

    def passes(self) -> bool:
        """Tell whether it may still be sent."""
        try:
            if self.fence is not None:
                self.fence()
        except FencedError as error:
            self.fenced = error
        return self.fenced is None


class _Sent(NamedTuple):
    """A batch that was handed over: the records of its partition from ``first`` to ``last``."""

    future: asyncio.Future[object]
    target: Target
    first: int
    last: int


class _Round:
    """Parts of all callers that arrived while the round before them was being enqueued."""

    def __init__(self, *, alone: bool = False) -> None:
        self.alone = alone  # one caller's, that nobody else can join
        self.parts: dict[_Part, None] = {}
        self.sent: list[_Sent] | None = None
        self.keyless = 0


class KafkaProducer(Producer):
    """The one publishing path to Kafka. Open with ``start``, end with ``stop``."""

    def __init__(self, link: KafkaLink) -> None:
        self._link, self._settings = link, link.settings
        self._client: AIOKafkaProducer | None = None
        self._lock = anyio.Lock()
        self._round = _Round()
        self._partitions: dict[str, int] = {}
        self._keyless = 0

    async def start(self) -> None:
        """Connect and obtain a producer id.

        Raises:
            LogUnavailableError: No broker answers in time.
            UsageError: Kafka refuses us.
        """
        client = self._make()
        try:
            with anyio.fail_after(self._settings.connect_timeout):
                await client.start()
        except CONNECTING as error:
            await self._discard(client)
            raise await self._link.cannot_connect(error) from error
        except BaseException:
            await self._discard(client)
            raise
        self._link.proven = True
        self._link.stats.producers_opened += 1
        self._client = client

    def _make(self) -> AIOKafkaProducer:
        settings = self._settings
        return AIOKafkaProducer(
            acks="all",
            enable_idempotence=True,
            max_batch_size=BATCH_BYTES,
            max_request_size=settings.max_record_bytes + OVERHEAD,
            compression_type=settings.compression,
            linger_ms=0,
            **self._link.options(),
        )

    async def stop(self) -> None:
        """Disconnect, bounded in time even when Kafka is gone."""
        client, self._client = self._client, None
        if client is not None:
            await self._discard(client)

    async def publish(self, outputs: Sequence[Output], fence: Fence | None = None) -> None:
        """See ``Producer.publish``.

        Args:
            outputs: What to append.
            fence: Called right before they are handed over, however long that took.

        Raises:
            FencedError: ``fence`` raised it; nothing was sent.
        """
        if not outputs:
            return
        refused = self._too_large(outputs)
        kept = [i for i in range(len(outputs)) if i not in refused] if refused else None
        sendable = outputs if kept is None else [outputs[i] for i in kept]
        limits: dict[str, int | None] = {}  # asked once per call, as each question connects anew
        for row in await self._publish(sendable, fence):
            index = row if kept is None else kept[row]
            topic, key, value, *_ = outputs[index]
            if topic not in limits:
                limits[topic] = await topic_limit(self._link, topic)
            refused[index] = Refusal(index, topic, len(value) + len(key or b""), limits[topic])
        if refused:
            raise RecordRefusedError([refused[i] for i in sorted(refused)])

    async def _publish(self, outputs: Sequence[Output], fence: Fence | None) -> list[int]:
        """Append outputs; return the positions of those that are too large for their topic."""
        if not outputs:
            return []
        turn, part = self._round, _Part(outputs, fence)
        turn.parts[part] = None
        try:
            client = await self._send(turn)
        finally:
            if turn is self._round:  # given up before anyone sent it: do not let it pile up
                turn.parts.pop(part, None)
        if part.fenced is not None:
            raise part.fenced
        failed = [sent for sent in turn.sent or () if sent.future.exception() is not None]
        if not failed:
            return []
        if not any(isinstance(sent.future.exception(), _TOO_LARGE) for sent in failed):
            await self._raise(failed[0].future.exception(), client, failed[0].target[0])
        # A refused batch leaves a gap in the producer's numbers: those behind it fail for it.
        await self._rebuild(client)
        return await self._send_alone(part, self._rows(turn, part, failed))

    def _rows(self, turn: _Round, part: _Part, failed: Sequence[_Sent]) -> list[int]:
        """Return the positions of a part's outputs that were in batches that failed."""
        at: dict[Target, int] = {}
        mine: list[int] = []
        for one in turn.parts:
            if one.fenced is not None:
                continue
            for row, (topic, key, _, partition, _) in enumerate(one.outputs):
                count = self._partitions.get(topic, 1)
                target = topic, self._chosen(key, count, turn.keyless, partition)
                number = at.get(target, 0)
                at[target] = number + 1
                if one is part and any(
                    sent.target == target and sent.first <= number < sent.last for sent in failed
                ):
                    mine.append(row)
        return mine

    async def _send_alone(self, part: _Part, rows: Sequence[int]) -> list[int]:
        """Send outputs one by one; return the positions of those that are too large."""
        refused: list[int] = []
        for row in rows:
            alone = _Round(alone=True)
            alone.parts[one := _Part([part.outputs[row]], part.fence)] = None
            client = await self._send(alone)
            if one.fenced is not None:
                raise one.fenced
            for sent in alone.sent or ():
                error = sent.future.exception()
                if isinstance(error, _TOO_LARGE):
                    refused.append(row)
                    await self._rebuild(client)
                elif error is not None:
                    await self._raise(error, client, sent.target[0])
        return refused

    async def _send(self, turn: _Round) -> AIOKafkaProducer:
        """Hand a round over unless another caller did, and wait for its acknowledgements."""
        client: AIOKafkaProducer | None = None
        try:
            with anyio.fail_after(self._settings.delivery_timeout):
                async with self._lock:
                    client = await self._ensure_started()
                    mine = turn is self._round
                    if mine:
                        self._round = _Round()
                    if mine or turn.alone:
                        turn.sent = await self._enqueue(client, turn)
                if turn.sent is None:
                    raise self._link.unavailable("Kafka: publishing was interrupted")
                if turn.sent:
                    await asyncio.wait([sent.future for sent in turn.sent])
        except TimeoutError as error:
            await self._rebuild(client)
            raise self._link.unavailable(
                f"Kafka at {self._settings.bootstrap_servers} did not acknowledge "
                f"records within {self._settings.delivery_timeout:g} s"
            ) from error
        except (KafkaError, OSError) as error:
            await self._raise(error, client)
        return client

    async def _ensure_started(self) -> AIOKafkaProducer:
        if self._client is None:
            await self.start()
        return self._client

    async def _raise(
        self, error: BaseException | None, client: AIOKafkaProducer | None, topic: str = ""
    ) -> NoReturn:
        """Raise our error for aiokafka's, and rebuild the producer unless only records are bad.

        After OutOfOrderSequence an idempotent producer fails for ever (aiokafka ``_fail_all``).
        """
        await self._rebuild(client)
        raise self._link.failed(error or KafkaError(), "WRITE", topic) from error

    async def _rebuild(self, client: AIOKafkaProducer | None) -> None:
        """Give up this client, once, however many callers saw it fail; the next publish starts
        another one.
        """
        if client is not None and client is self._client:
            self._client = None
            self._link.stats.producers_rebuilt += 1
            log.warning("kafka_producer_rebuilt")
            await self._discard(client)

    def _too_large(self, outputs: Sequence[Output]) -> dict[int, Refusal]:
        """Return what is larger than these settings allow, by position."""
        limit = self._settings.max_record_bytes - OVERHEAD
        sizes = [len(value) + len(key or b"") for _, key, value, _, _ in outputs]
        if max(sizes) <= limit:
            return {}
        return {
            i: Refusal(i, outputs[i].topic, size, limit)
            for i, size in enumerate(sizes)
            if size > limit
        }

    async def _enqueue(self, client: AIOKafkaProducer, turn: _Round) -> list[_Sent]:
        """Build batches and hand them over, one per partition in turn, as aiokafka sends them."""
        sound = [part.outputs for part in turn.parts if part.passes()]
        batches = await self._build(client, chain.from_iterable(sound))
        turn.keyless = self._keyless
        sent: list[_Sent] = []
        firsts = dict.fromkeys(batches, 0)
        depth = 0
        while batches:
            batches = {target: queue for target, queue in batches.items() if len(queue) > depth}
            for target, queue in batches.items():
                first, last = firsts[target], firsts[target] + queue[depth].record_count()
                future = await client.send_batch(queue[depth], target[0], partition=target[1])
                future.add_done_callback(_retrieve)
                sent.append(_Sent(future, target, first, last))
                firsts[target] = last
            depth += 1
        return sent

    async def _build(
        self, client: AIOKafkaProducer, outputs: Iterable[Output]
    ) -> dict[tuple[str, int], list[Any]]:
        """Sort records into batches per partition, in their order. The hot loop of every hop."""
        now = int(time.time() * 1000)
        batches: dict[tuple[str, int], list[Any]] = {}
        last: tuple[str, int] | None = None
        queue: list[Any] = []
        self._keyless += 1
        shared: Headers | None = None
        as_list: list[Any] = []
        for topic, key, value, partition, headers in outputs:
            if headers is not shared:  # most have those of the one before; aiokafka wants a list
                shared, as_list = headers, list(headers)
            if last is None or partition is None or (topic, partition) != last:
                count = self._partitions.get(topic) or await self._count(client, topic)
                chosen = self._chosen(key, count, self._keyless, partition)
                if not 0 <= chosen < count:
                    await self._check_grown(client, topic, chosen)
                last = (topic, chosen)
                queue = batches.get(last) or batches.setdefault(last, [client.create_batch()])
                append = queue[-1].append
            if append(timestamp=now, key=key, value=value, headers=as_list) is None:
                queue.append(client.create_batch())
                append = queue[-1].append
                append(timestamp=now, key=key, value=value, headers=as_list)
        return batches

    @staticmethod
    def _chosen(key: bytes | None, count: int, keyless: int, partition: int | None) -> int:
        """Choose as Kafka's default partitioner; records without a key stay together per round."""
        if partition is not None:
            return partition
        return (keyless if key is None else murmur2(key) & 0x7FFFFFFF) % count

    async def _count(self, client: AIOKafkaProducer, topic: str) -> int:
        with anyio.move_on_after(_TOPIC_WAIT):
            self._partitions[topic] = len(await client.partitions_for(topic))
            return self._partitions[topic]
        if topic in client.client.cluster.unauthorized_topics:
            raise TopicAuthorizationFailedError(topic)
        everything = await client.client.fetch_all_metadata()
        if topic not in everything.topics():
            raise UsageError(f"there is no topic {topic}")
        return len(everything.partitions_for_topic(topic))

    async def _check_grown(self, client: AIOKafkaProducer, topic: str, partition: int) -> None:
        """Look whether a topic has got a partition since it was counted.

        Raises:
            LogUnavailableError: It has not, or not yet: topics are altered one after the other.
            UsageError: No topic can have such a partition.
        """
        everything = await client.client.fetch_all_metadata()
        count = len(everything.partitions_for_topic(topic) or ())
        if partition < 0:
            raise UsageError(f"{topic}: expected a partition of 0 or more, got {partition}")
        if partition >= count:
            raise self._link.unavailable(
                f"{topic}: expected a partition below {count}, got {partition}; "
                "all topics need equally many"
            )
        self._partitions[topic] = count
        await client.client.force_metadata_update()

    async def _discard(self, client: AIOKafkaProducer) -> None:
        """Disconnect a client that may be stuck, leaving no task of it behind.

        ``stop()`` alone waits for undelivered batches, for ever when the broker is gone: their
        futures are failed first, for which the sender must have ended. Takes ``stop_timeout``, and
        a second at most for what is cancelled.
        """
        sender = client._sender.sender_task
        with anyio.CancelScope(shield=True):
            if sender is not None and client._message_accumulator._batches:
                sender.cancel()
                await asyncio.wait([sender], timeout=0.5)
            with anyio.move_on_after(self._settings.stop_timeout):
                await client.client.close()
            if sender is not None and not sender.done():
                sender.cancel()
                await asyncio.wait([sender], timeout=0.5)
            _fail_batches(client._message_accumulator)
            with anyio.move_on_after(0.5), suppress(KafkaError, asyncio.CancelledError):
                await client.stop()


def _fail_batches(accumulator: Any) -> None:
    """Fail what is not delivered, without a word from asyncio about futures nobody looks at.

    A batch that waits to be sent again is in one of two places, its callback looks in the other.
    """
    batches = [*chain.from_iterable(accumulator._batches.values()), *accumulator._pending_batches]
    accumulator._pending_batches.update(batches)
    accumulator.fail_all(KafkaConnectionError("producer was given up"))
    for batch in batches:
        if batch._drain_waiter.done():
            _retrieve(batch._drain_waiter)


def _retrieve(future: asyncio.Future[object]) -> None:
    """Mark an exception as seen: its publisher may have been cancelled meanwhile."""
    if not future.cancelled():
        future.exception()


def murmur2(key: bytes) -> int:
    """Hash as Kafka's Java client does (``Utils.murmur2``), four bytes at a time.

    aiokafka's own, byte by byte, takes four times as long.
    """
    length = len(key)
    whole = length & ~3
    h = 0x9747B28C ^ length
    for word in unpack_from(f"<{length >> 2}I", key):
        k = word * 0x5BD1E995 & 0xFFFFFFFF
        h = h * 0x5BD1E995 & 0xFFFFFFFF ^ (k ^ k >> 24) * 0x5BD1E995 & 0xFFFFFFFF
    if whole != length:
        h = (h ^ int.from_bytes(key[whole:], "little")) * 0x5BD1E995 & 0xFFFFFFFF
    h = (h ^ h >> 13) * 0x5BD1E995 & 0xFFFFFFFF
    return h ^ h >> 15
