"""Brokers die and come back; clients of the same process and log go on without losing a record."""

import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import pytest

from roadstream.schemas.errors import FencedError, LogUnavailableError
from roadstream.streams.kafka.consumer import KafkaConsumer
from roadstream.streams.kafka.log import KafkaLog, KafkaSettings
from roadstream.streams.log import Consumer, Log, Output, Producer
from roadstream.workers.broker.cluster import BrokerSettings
from tests.kits.contract import ends, owning, values
from tests.kits.kafka_fixture import new_brokers

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("kafka_bootstrap"),
]


@pytest.fixture
def topic() -> str:
    return f"o-{uuid.uuid4().hex[:12]}"


def impatient(servers: str) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=servers,
        connect_timeout=4.0,
        delivery_timeout=5.0,
        request_timeout=4.0,
        stall_timeout=0.5,
        stop_timeout=1.0,
        session_timeout=6.0,
        drain_timeout=3.0,
    )


async def fails_in_time(call: Callable[[], Awaitable[object]]) -> None:
    with anyio.fail_after(20), pytest.raises(LogUnavailableError, match="Kafka"):
        await call()


class Load:
    """Records published without pause, and a group member that consumes and commits them."""

    def __init__(self, log: Log, topic: str) -> None:
        self.log, self.topic = log, topic
        self.acknowledged: list[bytes] = []
        self.ended = False
        # Whether the last records, which may be under way when it ends, are acknowledged too.
        self._produced = False
        self._seen: set[bytes] = set()
        self._progress = anyio.Event()
        # Whether all that was polled is known to be committed.
        self._committed = True

    async def produce(self, producer: Producer) -> None:
        number = 0
        while not self.ended:
            batch = [b"%d" % i for i in range(number, number + 10)]
            try:
                await producer.publish([Output(self.topic, None, value) for value in batch])
            except LogUnavailableError:
                await anyio.sleep(0.2)
                continue  # the same records again
            self.acknowledged += batch
            number += 10
            await anyio.sleep(0.01)
        self._produced = True

    async def consume(self) -> None:
        while not self.finished:
            try:
                async with self.log.consumer(self.topic, [self.topic]) as consumer:
                    while not self.finished:
                        await self._step(consumer)
            except LogUnavailableError:
                await anyio.sleep(0.2)

    async def _step(self, consumer: Consumer) -> None:
        polled = await consumer.poll(max_records=500, timeout=0.2)
        self._seen.update(values(polled))
        self._progress.set()
        self._progress = anyio.Event()
        if polled:
            self._committed = False
            with suppress(FencedError):  # the partitions have another owner: they come again
                await consumer.publish([], ends(polled), consumer.assignment.epoch)
                self._committed = True
        elif not self._committed:  # a commit that nobody acknowledged may have arrived
            self._committed = await self.log.lag(self.topic, [self.topic]) == 0

    @property
    def finished(self) -> bool:
        """Whether all that was acknowledged has been consumed, and nothing more comes."""
        return self._produced and self._committed and self._seen.issuperset(self.acknowledged)

    async def goes_on(self) -> None:
        """Wait until records published from now on are acknowledged and consumed."""
        start = len(self.acknowledged)
        with anyio.fail_after(60):
            while len(self.acknowledged) < start + 20 or self.acknowledged[-1] not in self._seen:
                await self._progress.wait()


async def test_everything_fails_in_time_without_a_broker_and_works_again_with_it(
    topic: str,
) -> None:
    async def read_for_ever() -> None:
        while True:
            await reader.poll(max_records=10, timeout=0.1)

    async with new_brokers(BrokerSettings()) as cluster:
        log = KafkaLog(impatient(cluster.bootstrap_servers))
        async with log, log.producer() as producer:
            await log.create_topics([topic, "idle"], 1)
            load = Load(log, topic)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(load.produce, producer)
                tasks.start_soon(load.consume)
                await load.goes_on()
                assert await log.lag("idle", ["idle"]) == 0
                async with log.reader("idle", "end") as reader:
                    async with log.consumer("idle", ["idle"], member_id="w-1") as consumer:
                        await owning(consumer, 1)
                        await cluster.kill(0)

                        lost = [Output("idle", None, b"lost?")]
                        await fails_in_time(lambda: producer.publish(lost))
                        await fails_in_time(lambda: poll_for_ever(consumer))
                        await fails_in_time(read_for_ever)
                        await fails_in_time(lambda: log.lag("idle", ["idle"]))
                        await fails_in_time(lambda: log.partition_counts(["idle"]))
                        await fails_in_time(lambda: join(log, "idle"))
                        left_at = anyio.current_time()
                    assert anyio.current_time() - left_at < 10  # several times the stop timeout

                await cluster.restart(0)
                await load.goes_on()
                await join(log, "idle", member_id="w-1")
                load.ended = True

            assert await log.lag(topic, [topic]) == 0
            assert log.stats.producers_rebuilt >= 1
            assert log.stats.admins_rebuilt >= 1
            assert log.stats.unavailable >= 6


async def poll_for_ever(consumer: Consumer) -> None:
    while True:
        await consumer.poll(max_records=1, timeout=0.1)


async def join(log: Log, topic: str, member_id: str | None = None) -> None:
    async with log.consumer(topic, [topic], member_id=member_id) as consumer:
        await owning(consumer, 1)


async def test_a_cluster_of_three_loses_a_broker_and_then_the_controller(topic: str) -> None:
    async with new_brokers(BrokerSettings(brokers=3)) as cluster:
        log = KafkaLog(impatient(cluster.bootstrap_servers))
        async with log, log.producer() as producer:
            await log.create_topics([topic], 3)
            load = Load(log, topic)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(load.produce, producer)
                tasks.start_soon(load.consume)
                await load.goes_on()
                controller = await cluster.controller()

                await cluster.kill((controller + 1) % 3)
                await load.goes_on()
                await cluster.restart((controller + 1) % 3)
                await cluster.kill(await cluster.controller())
                await load.goes_on()
                load.ended = True

            assert await log.lag(topic, [topic]) == 0
            await knows_its_offsets_whomever_it_asks(log, topic)


async def knows_its_offsets_whomever_it_asks(log: Log, topic: str) -> None:
    """One of the brokers coordinates the group, one does not, and one is gone."""
    async with log.consumer(topic, [topic]) as consumer:
        assert isinstance(consumer, KafkaConsumer)
        await owning(consumer, 3)
        committed = await consumer.committed()
        assert len(committed) == 3
        for broker in (1, 2, 3):
            consumer._client._coordinator.coordinator_id = broker
            assert await consumer.committed() == committed == await log.committed(topic, [topic])
