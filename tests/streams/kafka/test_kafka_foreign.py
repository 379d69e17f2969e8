"""Records of foreign producers on a real broker: compressed, damaged on its disk, and odd."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiokafka import AIOKafkaProducer

from roadstream.schemas.codec import Unreadable
from roadstream.streams.kafka.log import KafkaLog
from roadstream.streams.kafka.settings import KafkaSettings
from roadstream.streams.log import Output, Polled, TopicPartition
from roadstream.workers.broker.cluster import BrokerSettings
from tests.kits.contract import DEADLINE
from tests.kits.kafka_fixture import new_brokers

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("kafka_bootstrap")]
MARK = b"a value whose bytes are changed on the disk"


def log_of(servers: str) -> KafkaLog:
    return KafkaLog(KafkaSettings(bootstrap_servers=servers, replication_factor=1))


async def send(servers: str, topic: str, values: Sequence[bytes | None], **options: Any) -> None:
    """Send one batch, as a foreign producer does."""
    producer = AIOKafkaProducer(bootstrap_servers=servers, linger_ms=200, **options)
    await producer.start()
    try:
        headers = [("traceparent", b"00"), ("bin", b"\xff")]
        sent = [
            await producer.send(topic, value, key=b"k", partition=0, headers=headers)
            for value in values
        ]
        for one in sent:
            await one
    finally:
        await producer.stop()


async def consumed(log: KafkaLog, topic: str, until: int) -> list[Any]:
    """Return what a member of a new group is given up to an offset; everything is committed."""
    found: list[Any] = []
    async with log.consumer(topic, [topic]) as consumer:
        with anyio.fail_after(DEADLINE):
            while not found or found[-1].offset < until:
                polled: Polled = await consumer.poll(max_records=100, timeout=0.5)
                found += polled.get(TopicPartition(topic, 0), [])
        commit = {TopicPartition(topic, 0): found[-1].offset + 1}
        await consumer.publish([], commit, consumer.assignment.epoch)
    return found


async def test_a_record_is_read_whatever_it_was_compressed_with(
    kafka_bootstrap: str, topic: str
) -> None:
    async with log_of(kafka_bootstrap) as log:
        await log.create_topics([topic], 1)
        for codec in ("gzip", "snappy", "lz4", "zstd"):
            values = [codec.encode() * 99, None, b""]
            await send(kafka_bootstrap, topic, values, compression_type=codec)
        async with log.producer() as producer:
            await producer.publish([Output(topic, None, b"last", 0)])

        found = await consumed(log, topic, 12)

    assert [record.value for record in found] == [
        b"gzip" * 99, None, b"", b"snappy" * 99, None, b"", b"lz4" * 99, None, b"",
        b"zstd" * 99, None, b"", b"last",
    ]  # fmt: skip


def damage(folder: Path, topic: str) -> None:
    """Change bytes of the marked value in the broker's file."""
    files = [file for file in folder.rglob(f"{topic}-0/*.log") if MARK in file.read_bytes()]
    assert len(files) == 1
    files[0].write_bytes(files[0].read_bytes().replace(MARK, MARK.upper()))


async def test_a_batch_damaged_on_the_brokers_disk_does_not_stop_its_partition(
    topic: str,
) -> None:
    async with new_brokers(BrokerSettings()) as cluster:
        async with log_of(cluster.bootstrap_servers) as log:
            await log.create_topics([topic], 1)
            for values in ([b"0"], [b"1", MARK, b"3"], [b"4"]):
                await send(cluster.bootstrap_servers, topic, values)
        await cluster.stop()
        damage(cluster.processes[0].log_file.parent, topic)
        await cluster.restart(0)

        async with log_of(cluster.bootstrap_servers) as log:
            found = await consumed(log, topic, 4)
            async with log.reader(topic, "beginning") as reader:
                read: list[Any] = []
                with anyio.fail_after(DEADLINE):
                    while reader.positions[0] < 5:
                        polled = await reader.poll(max_records=100, timeout=0.5)
                        read += polled.get(TopicPartition(topic, 0), [])

    for records in (found, read):
        assert [record.offset for record in records] == [0, 3, 4]
        assert [records[0].value, records[2].value] == [b"0", b"4"]
        poison = records[1].value
        assert isinstance(poison, Unreadable)
        assert poison.find(MARK.upper()) > 0
        assert poison.problem.startswith("offsets 1 to 3 cannot be read: CorruptRecordException")
