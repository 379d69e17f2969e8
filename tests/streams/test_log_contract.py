"""The contract of ``roadstream.streams.log``, sentence by sentence: producing, reading, polling."""

import time

import anyio
import pytest

from roadstream.schemas.errors import UsageError
from roadstream.schemas.records import headers
from roadstream.schemas.records.headers import Headers
from roadstream.streams.log import Log, Output, Polled, TopicPartition
from tests.kits.contract import (
    DEADLINE,
    Member,
    number,
    numbered,
    owning,
    take,
    texts,
    together,
    values,
)

# Producer and reader


async def test_records_of_a_partition_keep_their_order_and_offsets_grow(
    log: Log, topic: str
) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        for start in range(0, 60, 20):
            await producer.publish(numbered(topic, range(start, start + 20), 2))
        async with log.reader(topic, "beginning") as reader:
            found = await take(reader, 60)

    for partition in range(2):
        records = [record for tp, record in found if tp == TopicPartition(topic, partition)]
        assert [record.value for record in records] == texts(range(partition, 60, 2))
        offsets = [record.offset for record in records]
        assert offsets == sorted(set(offsets))


async def test_a_key_chooses_the_same_partition_every_time_and_in_every_topic(
    log: Log, topic: str
) -> None:
    topics = [topic, f"{topic}-b"]
    partitions: dict[bytes, set[int]] = {}
    async with log, log.producer() as producer:
        await log.create_topics(topics, 4)
        for _ in range(2):
            for name in topics:
                await producer.publish([Output(name, b"key %d" % i, b"v") for i in range(20)])
        for name in topics:
            async with log.reader(name, "beginning") as reader:
                for tp, record in await take(reader, 40):
                    partitions.setdefault(record.key or b"", set()).add(tp.partition)

    assert len(partitions) == 20
    assert all(len(found) == 1 for found in partitions.values())
    assert len(set.union(*partitions.values())) > 1


async def test_a_named_partition_wins_over_the_key(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 4)
        await producer.publish([Output(topic, b"one key", b"%d" % i, i) for i in range(4)])
        async with log.reader(topic, "beginning") as reader:
            found = await take(reader, 4)

    assert {(tp.partition, record.value) for tp, record in found} == {
        (i, b"%d" % i) for i in range(4)
    }


async def test_of_a_key_that_is_compacted_the_last_record_stays_and_all_of_other_keys(
    log: Log, topic: str
) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic, f"{topic}-b"], 2)
        keys = [b"a", b"b", b"a", b"b", b"a"]
        for name, partition in ((topic, 0), (topic, 1), (f"{topic}-b", 0)):
            await producer.publish(
                [Output(name, key, b"%d" % i, partition) for i, key in enumerate(keys)]
            )
        await log.compact(topic, b"a")
        await log.compact(topic, b"nobody's")
        async with log.reader(topic, "beginning") as reader:
            found: dict[int, list[bytes | None]] = {0: [], 1: []}
            with anyio.fail_after(DEADLINE):
                while dict(reader.positions) != {0: 5, 1: 5}:
                    for tp, records in (await reader.poll(max_records=2, timeout=1)).items():
                        found[tp.partition] += [record.value for record in records]
        async with log.reader(f"{topic}-b", "beginning") as reader:
            assert len(await take(reader, 5)) == 5
    for values_ in found.values():
        assert [value for value in values_ if value in {b"1", b"3", b"4"}] == [b"1", b"3", b"4"]


async def test_keys_values_and_times_come_back_as_they_went_in(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 1)
        started_at = time.time()
        await producer.publish(
            [Output(topic, b"k\x00\xff", b"v\x00\xff"), Output(topic, None, b"")]
        )
        async with log.reader(topic, "beginning") as reader:
            records = [record for _, record in await take(reader, 2)]

    assert [(record.key, record.value) for record in records] == [
        (b"k\x00\xff", b"v\x00\xff"),
        (None, b""),
    ]
    for record in records:
        assert started_at - 1 <= record.timestamp / 1000 <= time.time() + 1


async def test_headers_come_back_as_they_went_in(log: Log, topic: str) -> None:
    given: list[Headers] = [
        headers.IMAGE,
        (),
        (("b", b"2"), ("a", b"1"), ("b", b"2"), ("a", None), ("", b""), ("ö", b"\x00\xff" * 500)),
        headers.IMAGE,
    ]
    async with log, log.producer() as producer:
        await log.create_topics([topic], 1)
        await producer.publish([Output(topic, b"k", b"v", 0, told) for told in given])
        async with log.consumer("group", [topic]) as consumer:
            await owning(consumer, 1)
            outputs = [Output(topic, None, b"w", 0, headers.VOTES)]
            await consumer.publish(outputs, {}, consumer.assignment.epoch)
            found = [record.headers for _, record in await take(consumer, 5)]
        async with log.reader(topic, "beginning") as reader:
            again = [record.headers for _, record in await take(reader, 5)]

    assert found == again == [*given, headers.VOTES]
    assert all(isinstance(told, tuple) for told in found)


async def test_what_publish_acknowledged_is_there_when_it_returns(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        async with log.reader(topic, "beginning") as reader:
            assert await reader.ends() == {0: 0, 1: 0}
            for i in range(1, 4):
                await producer.publish(numbered(topic, range(10), 2))
                assert await reader.ends() == {0: 5 * i, 1: 5 * i}
            await take(reader, 30)


async def test_publishing_nothing_is_no_error(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 1)
        await producer.publish([])
        async with log.reader(topic, "beginning") as reader:
            assert await reader.ends() == {0: 0}


async def test_a_reader_starts_at_the_beginning_the_end_or_given_offsets(
    log: Log, topic: str
) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(10), 2))
        async with (
            log.reader(topic, "beginning") as whole,
            log.reader(topic, "end") as tail,
            log.reader(topic, {0: 3, 1: 5}) as chosen,
            log.reader(topic, {1: 4}) as half,
        ):
            assert whole.positions == {0: 0, 1: 0}
            assert tail.positions == {0: 5, 1: 5}
            assert chosen.positions == {0: 3, 1: 5}
            assert half.positions == {0: 0, 1: 4}
            await producer.publish(numbered(topic, range(10, 12), 2))

            assert len(await take(whole, 12)) == 12
            assert {r.value for _, r in await take(tail, 2)} == {b"10", b"11"}
            assert {r.value for _, r in await take(chosen, 4)} == {b"6", b"8", b"10", b"11"}
            assert len(await take(half, 6 + 2)) == 8
            assert whole.positions == tail.positions == chosen.positions == {0: 6, 1: 6}


async def test_a_reader_goes_on_from_the_end_where_the_log_ends_before_its_offsets(
    log: Log, topic: str
) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(10), 2))
        async with log.reader(topic, {0: 3, 1: 900}) as reader:
            assert reader.positions == {0: 3, 1: 5}
            await producer.publish(numbered(topic, range(10, 12), 2))

            assert {r.value for _, r in await take(reader, 4)} == {b"6", b"8", b"10", b"11"}


async def test_a_reader_takes_no_more_than_it_was_asked_for(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(20), 2))
        async with log.reader(topic, "beginning") as reader:
            found: list[bytes] = []
            with anyio.fail_after(DEADLINE):
                while len(found) < 20:
                    polled = await reader.poll(max_records=3, timeout=0.2)
                    assert len(values(polled)) <= 3
                    found += values(polled)
                    assert sum(reader.positions.values()) == len(found)

    assert sorted(found, key=number) == texts(range(20))


# Topics and lag


async def test_a_log_keeps_its_identity_whoever_asks(log: Log) -> None:
    async with log:
        first = await log.identity()
    async with log:
        again = await log.identity()

    assert first == again
    kind, _, name = first.partition(":")
    assert kind in {"embedded", "kafka", "memory"}
    assert len(name) > 10


async def test_topics_that_exist_are_left_as_they_are(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(4), 2))
        await log.create_topics([topic, f"{topic}-b"], 3)

        assert await log.partition_counts([topic, f"{topic}-b"]) == {topic: 2, f"{topic}-b": 3}
        async with log.reader(topic, "beginning") as reader:
            await take(reader, 4)


async def test_topics_that_do_not_exist_have_no_partition_count(log: Log, topic: str) -> None:
    async with log:
        await log.create_topics([topic], 2)

        assert await log.partition_counts([topic, f"{topic}-none"]) == {topic: 2}
        assert await log.partition_counts([]) == {}


async def test_lag_counts_what_the_group_has_not_committed(log: Log, topic: str) -> None:
    topics = [topic, f"{topic}-b"]
    async with log, log.producer() as producer:
        await log.create_topics(topics, 2)
        await producer.publish(numbered(topic, range(10), 2))
        await producer.publish(numbered(topics[1], range(4), 2))
        assert await log.lag(topic, topics) == 14

        async with log.consumer(topic, topics) as consumer:
            await take(consumer, 14)
            assert await log.lag(topic, topics) == 14
            epoch = consumer.assignment.epoch
            await consumer.publish([], {TopicPartition(topic, 0): 5}, epoch)
            await consumer.publish([], {TopicPartition(topic, 1): 2}, epoch)

        assert await log.uncommitted(topic, topics) == {
            (topic, 0): range(5, 5),
            (topic, 1): range(2, 5),
            (topics[1], 0): range(2),
            (topics[1], 1): range(2),
        }
        assert await log.lag(topic, topics) == 7
        assert await log.lag(topic, [topic]) == 3
        assert await log.lag(f"{topic}-other", topics) == 14


async def test_a_consumer_of_a_topic_that_does_not_exist_is_refused(log: Log, topic: str) -> None:
    async with log:
        await log.create_topics([topic], 1)
        with pytest.raises(UsageError, match=rf"there is no topic (other\.)?{topic}-none"):
            async with log.consumer(topic, [topic, f"{topic}-none"]):
                pass


async def test_a_reader_of_a_topic_that_does_not_exist_is_refused(log: Log, topic: str) -> None:
    async with log:
        with pytest.raises(UsageError, match=rf"there is no topic (other\.)?{topic}"):
            async with log.reader(topic, "beginning"):
                pass


async def test_publishing_to_a_topic_that_does_not_exist_is_refused(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        with pytest.raises(UsageError, match=rf"there is no topic (other\.)?{topic}"):
            await producer.publish([Output(topic, b"k", b"v")])


async def test_topics_of_unequal_partition_counts_are_refused(log: Log, topic: str) -> None:
    async with log:
        await log.create_topics([topic], 2)
        await log.create_topics([f"{topic}-b"], 3)
        with pytest.raises(UsageError, match="expected topics of equal partition counts"):
            async with log.consumer(topic, [topic, f"{topic}-b"]):
                pass


# Consumer: polling


async def test_a_new_group_starts_at_the_beginning(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(10), 2))
        async with log.consumer(topic, [topic]) as consumer:
            assert consumer.assignment.partitions == frozenset()
            found = await take(consumer, 10)
            assert await consumer.committed() == {}

        assert sorted((r.value or b"" for _, r in found), key=number) == texts(range(10))
        for partition in range(2):
            offsets = [r.offset for tp, r in found if tp.partition == partition]
            assert offsets == sorted(offsets)


async def test_groups_do_not_disturb_each_other(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(10), 2))
        async with log.consumer(topic, [topic]) as one:
            polled = await take(one, 10)
            await one.publish([], {polled[-1][0]: 5}, one.assignment.epoch)
            async with log.consumer(f"{topic}-g", [topic]) as other:
                await take(other, 10)
                assert await other.committed() == {}


async def test_a_poll_brings_at_most_as_many_records_as_were_asked_for(
    log: Log, topic: str
) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 3)
        await producer.publish(numbered(topic, range(30), 3))
        async with log.consumer(topic, [topic]) as consumer:
            await owning(consumer, 3)
            found: list[bytes] = []
            with anyio.fail_after(DEADLINE):
                while len(found) < 30:
                    assert await consumer.poll(max_records=0, timeout=0) == {}
                    polled = await consumer.poll(max_records=4, timeout=0.2)
                    assert len(values(polled)) <= 4
                    found += values(polled)

    assert sorted(found, key=number) == texts(range(30))


async def test_no_partition_starves_behind_a_long_one(atomic_log: Log, topic: str) -> None:
    async with atomic_log as log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish([Output(topic, None, b"long", 0)] * 200)
        await producer.publish([Output(topic, None, b"short", 1)])
        async with log.consumer(topic, [topic]) as consumer:
            found: list[bytes] = []
            with anyio.fail_after(DEADLINE):
                while b"short" not in found:
                    found += values(await consumer.poll(max_records=10, timeout=0.2))

    assert len(found) < 200


async def test_an_idle_poll_returns_nothing_after_its_timeout(log: Log, topic: str) -> None:
    async with log:
        await log.create_topics([topic], 2)
        async with log.consumer(topic, [topic]) as consumer:
            await owning(consumer, 2)
            started_at = time.monotonic()

            assert await consumer.poll(max_records=10, timeout=0.3) == {}

            assert 0.2 <= time.monotonic() - started_at < 5


async def test_a_poll_that_waits_gets_a_record_as_soon_as_it_is_there(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        async with log.consumer(topic, [topic]) as consumer:
            await owning(consumer, 2)
            started_at = time.monotonic()
            polled: Polled = {}
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(producer.publish, [Output(topic, None, b"now", 1)])
                polled = await consumer.poll(max_records=10, timeout=30)

    assert values(polled) == [b"now"]
    assert time.monotonic() - started_at < 10


async def test_only_the_topics_asked_for_deliver(log: Log, topic: str) -> None:
    live, archive = f"{topic}-live", f"{topic}-archive"
    async with log, log.producer() as producer:
        await log.create_topics([live, archive], 2)
        await producer.publish(numbered(archive, range(10), 2))
        await producer.publish(numbered(live, range(10, 14), 2))
        async with log.consumer(topic, [live, archive]) as consumer:
            found: list[bytes] = []
            with anyio.fail_after(DEADLINE):
                while len(found) < 4:
                    polled = await consumer.poll(max_records=100, timeout=0.2, topics=[live])
                    assert {tp.topic for tp in polled} <= {live}
                    found += values(polled)
            assert await consumer.poll(max_records=100, timeout=0.1, topics=[live]) == {}
            rest = [record.value or b"" for _, record in await take(consumer, 10)]

    assert sorted(found, key=number) == texts(range(10, 14))
    assert sorted(rest, key=number) == texts(range(10))


async def test_co_partitioned_topics_go_to_the_same_member(log: Log, topic: str) -> None:
    topics = [topic, f"{topic}-b"]
    async with log:
        await log.create_topics(topics, 4)
        async with log.consumer(topic, topics) as one, log.consumer(topic, topics) as two:
            members = [Member(one), Member(two)]
            await together(lambda: all(len(m.partitions) == 2 for m in members), *members)

            for member in members:
                assert member.consumer.assignment.partitions == {
                    TopicPartition(name, p) for name in topics for p in member.partitions
                }
            assert members[0].partitions | members[1].partitions == {0, 1, 2, 3}


async def test_topics_deliver_in_the_order_of_their_subscription(log: Log, topic: str) -> None:
    urgent, patient = f"{topic}-b", f"{topic}-a"
    async with log:
        await log.create_topics([urgent, patient], 2)
        async with log.producer() as producer, log.consumer(topic, [urgent, patient]) as consumer:
            await owning(consumer, 4)
            await producer.publish(numbered(patient, range(40_000), 2))
            seen: list[str] = []
            with anyio.fail_after(DEADLINE):
                while patient not in seen:  # its records are at hand now
                    seen += [tp.topic for tp in await consumer.poll(max_records=1, timeout=1)]
                await producer.publish(numbered(urgent, range(4), 2))
                while seen.count(urgent) < 4:
                    seen += [tp.topic for tp in await consumer.poll(max_records=1, timeout=1)]
    assert seen.count(patient) < 40_000
