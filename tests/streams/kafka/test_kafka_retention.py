"""Retention was faster than a group: said aloud, and consumed from the oldest record on."""

import uuid

import anyio
import pytest
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from roadstream.streams.kafka.log import KafkaLog, KafkaSettings
from roadstream.streams.kafka.positions import StartPosition, first_position, next_position
from roadstream.streams.log import Offsets, TopicPartition
from tests.kits.contract import Listener, Member, numbered, owning, texts, together


class Gaps(Listener):
    """Notes which records are gone, and what was committed."""

    def __init__(self) -> None:
        self.missing: list[tuple[int, int, int]] = []
        self.acknowledged: list[dict[TopicPartition, int]] = []

    def missed(self, tp: TopicPartition, first: int, oldest: int) -> None:
        self.missing.append((tp.partition, first, oldest))

    def committed(self, offsets: Offsets) -> None:
        self.acknowledged.append(dict(offsets))


@pytest.fixture
def settings(kafka_bootstrap: str) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=kafka_bootstrap,
        session_timeout=6.0,
        drain_timeout=5.0,
        stop_timeout=3.0,
        max_partition_fetch_bytes=1,  # one batch at a time: nothing is fetched ahead of the test
    )


@pytest.fixture
def topic() -> str:
    return f"r-{uuid.uuid4().hex[:12]}"


async def delete_before(servers: str, topic: str, offset: int) -> None:
    """Delete the records of partition 0 before ``offset``, as retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        place = KafkaTopicPartition(topic, 0)
        await admin.delete_records({place: RecordsToDelete(before_offset=offset)})
    finally:
        await admin.close()


@pytest.mark.parametrize(
    ("committed", "oldest", "expected"),
    [
        (None, 0, StartPosition(0)),
        (None, 7, StartPosition(7)),
        (7, 7, StartPosition(7)),
        (9, 7, StartPosition(9)),
        (6, 7, StartPosition(7, "missed")),
        (0, 1, StartPosition(1, "missed")),
    ],
)
def test_a_group_starts_where_it_stands_or_at_the_oldest_record(
    committed: int | None, oldest: int, expected: StartPosition
) -> None:
    assert first_position(committed, oldest) == expected


@pytest.mark.parametrize(
    ("position", "oldest", "end", "expected"),
    [
        (3, 5, 9, StartPosition(5, "missed")),
        (5, 5, 9, StartPosition(5)),
        (9, 5, 9, StartPosition(9)),
        (10, 5, 9, StartPosition(5, "beyond_end")),
        (10, 0, 0, StartPosition(0, "beyond_end")),
    ],
)
def test_a_position_out_of_range_goes_on_at_the_oldest_record(
    position: int, oldest: int, end: int, expected: StartPosition
) -> None:
    assert next_position(position, oldest, end) == expected


@pytest.mark.kafka
async def test_a_group_behind_retention_is_told_and_goes_on_from_the_oldest_record(
    settings: KafkaSettings, topic: str
) -> None:
    gaps, again = Gaps(), Gaps()
    tp = TopicPartition(topic, 0)
    async with KafkaLog(settings) as log, log.producer() as producer:
        await log.create_topics([topic], 2)
        for i in range(2):
            await producer.publish(numbered(topic, range(20 * i, 20 * i + 20), 2))
        async with log.consumer(topic, [topic]) as consumer:
            await owning(consumer, 2)
            await consumer.publish([], {tp: 5}, consumer.assignment.epoch)
        await delete_before(settings.bootstrap_servers, topic, 15)

        async with log.consumer(topic, [topic], listener=gaps) as consumer:
            await owning(consumer, 2)  # it is told, and leaves without any work done
        async with log.consumer(topic, [topic], listener=again) as consumer:
            member = Member(consumer)
            await together(lambda: len(member.values) == 25, member)

        assert gaps.missing == [(0, 5, 15)]
        assert sorted(member.values, key=int) == sorted(
            texts(range(30, 40, 2)) + texts(range(1, 40, 2)), key=int
        )
        assert gaps.acknowledged == [{tp: 15}]
        assert again.missing == []
        assert max(offsets.get(tp, 0) for offsets in again.acknowledged) == 20
        assert log.stats.records_missed == 10
        assert await log.lag(topic, [topic]) == 0


@pytest.mark.kafka
async def test_a_group_that_never_committed_starts_at_the_oldest_record_in_silence(
    settings: KafkaSettings, topic: str
) -> None:
    gaps = Gaps()
    async with KafkaLog(settings) as log, log.producer() as producer:
        await log.create_topics([topic], 1)
        await producer.publish(numbered(topic, range(10), 1))
        await delete_before(settings.bootstrap_servers, topic, 4)
        async with log.consumer(topic, [topic], listener=gaps) as consumer:
            member = Member(consumer)
            await together(lambda: len(member.values) == 6, member)

    assert member.values == texts(range(4, 10))
    assert gaps.missing == []


@pytest.mark.kafka
async def test_records_that_go_while_a_member_reads_are_told_and_skipped(
    settings: KafkaSettings, topic: str
) -> None:
    gaps = Gaps()
    async with KafkaLog(settings) as log, log.producer() as producer:
        await log.create_topics([topic], 1)
        for i in range(10):
            await producer.publish(numbered(topic, range(10 * i, 10 * i + 10), 1))
        async with log.consumer(topic, [topic], listener=gaps) as consumer:
            await owning(consumer, 1)
            found: list[bytes] = []
            with anyio.fail_after(20):
                while len(found) < 20:
                    polled = await consumer.poll(max_records=10, timeout=0.2)
                    found += [r.value or b"" for records in polled.values() for r in records]
                await delete_before(settings.bootstrap_servers, topic, 80)
                while found[-1:] != [b"99"]:
                    polled = await consumer.poll(max_records=100, timeout=0.2)
                    found += [r.value or b"" for records in polled.values() for r in records]

        ((_, first, oldest),) = gaps.missing
        assert 20 <= first < oldest == 80  # one batch may have been fetched already
        assert found == texts(range(first)) + texts(range(80, 100))
        assert log.stats.records_missed == 80 - first


@pytest.mark.kafka
async def test_a_partition_shorter_than_the_group_knew_it_is_read_from_its_oldest_record(
    settings: KafkaSettings, topic: str
) -> None:
    tp = TopicPartition(topic, 0)
    async with KafkaLog(settings) as log, log.producer() as producer:
        await log.create_topics([topic], 1)
        await producer.publish(numbered(topic, range(10), 1))
        async with log.consumer(topic, [topic]) as consumer:
            await owning(consumer, 1)
            await consumer.publish([], {tp: 100}, consumer.assignment.epoch)
        async with log.consumer(topic, [topic]) as consumer:
            member = Member(consumer)
            await together(lambda: len(member.values) == 10, member)

        assert log.stats.offsets_beyond_end == 1
        assert await log.committed(topic, [topic]) == {tp: 10}
