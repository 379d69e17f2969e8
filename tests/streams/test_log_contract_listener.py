"""The contract of ``roadstream.streams.log``, sentence by sentence: what the listener hears."""

import anyio

from roadstream.streams.log import Log, Output, TopicPartition
from tests.kits.contract import (
    DEADLINE,
    Member,
    Told,
    numbered,
    owning,
    take,
    texts,
    together,
    truncate,
)


async def test_the_listener_hears_of_every_offset_that_was_acknowledged(
    log: Log, topic: str
) -> None:
    told, tp = Told(), TopicPartition(topic, 0)
    async with log, log.producer() as producer:
        await log.create_topics([topic, f"{topic}-out"], 1)
        await producer.publish(numbered(topic, range(10), 1))
        async with log.consumer(topic, [topic], listener=told) as consumer:
            await take(consumer, 10)
            epoch = consumer.assignment.epoch
            await consumer.publish([Output(f"{topic}-out", None, b"x", 0)], {tp: 4}, epoch)
            await consumer.publish([Output(f"{topic}-out", None, b"y", 0)], {}, epoch)
            await consumer.publish([], {tp: 9}, epoch)
            with anyio.fail_after(DEADLINE):
                while not told.acknowledged or told.acknowledged[-1] != {tp: 9}:
                    await consumer.poll(max_records=0, timeout=0.05)
            assert await consumer.committed() == {tp: 9}

    offsets = [offset for heard in told.acknowledged for offset in heard.values()]
    assert offsets in ([4, 9], [9])  # a log may put several commits into one
    assert told.gone == []


async def test_a_group_whose_offset_was_passed_by_retention_is_told_and_goes_on_from_the_oldest(
    atomic_log: Log, topic: str
) -> None:
    told, tp = Told(), TopicPartition(topic, 0)
    async with atomic_log as log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(20), 2))
        async with log.consumer(topic, [topic]) as consumer:
            await take(consumer, 20)
            await consumer.publish([], {tp: 3}, consumer.assignment.epoch)
        await truncate(log, tp, 7)

        async with log.consumer(topic, [topic], listener=told) as consumer:
            found = await take(consumer, 3 + 10)
            assert told.gone == [(tp, 3, 7)]
            offsets = [record.offset for where, record in found if where == tp]
            assert offsets == [7, 8, 9]
            await consumer.publish([], {tp: 10}, consumer.assignment.epoch)
            assert await consumer.committed() == {tp: 10}


async def test_a_consumer_that_retention_overtakes_while_it_runs_is_told_even_when_nothing_follows(
    atomic_log: Log, topic: str
) -> None:
    told, tp = Told(), TopicPartition(topic, 1)
    async with atomic_log as log, log.producer() as producer:
        await log.create_topics([topic], 2)
        async with log.consumer(topic, [topic], listener=told) as consumer:
            await owning(consumer, 2)
            await producer.publish(numbered(topic, range(20), 2))
            await truncate(log, tp, 10)  # all there is
            member = Member(consumer)
            await together(lambda: bool(told.gone), member)
            assert told.gone == [(tp, 0, 10)]
            await producer.publish([Output(topic, None, b"20", 1)])
            await together(lambda: len(member.values) == 11, member)

        assert sorted(member.values, key=int) == [*texts(range(0, 20, 2)), b"20"]
        assert told.gone == [(tp, 0, 10)]


async def test_a_new_group_misses_nothing_that_was_gone_before_it(
    atomic_log: Log, topic: str
) -> None:
    told, tp = Told(), TopicPartition(topic, 0)
    async with atomic_log as log, log.producer() as producer:
        await log.create_topics([topic], 1)
        await producer.publish(numbered(topic, range(10), 1))
        await truncate(log, tp, 6)
        async with log.consumer(topic, [topic], listener=told) as consumer:
            assert [record.offset for _, record in await take(consumer, 4)] == [6, 7, 8, 9]

    assert told.gone == []


async def test_what_a_group_has_committed_can_be_seen_from_outside(log: Log, topic: str) -> None:
    tp = TopicPartition(topic, 0)
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(10), 2))
        async with log.consumer(topic, [topic]) as consumer:
            await take(consumer, 10)
            await consumer.publish([], {tp: 4}, consumer.assignment.epoch)

        assert await log.committed(topic, [topic]) == {tp: 4}
        assert await log.committed(topic, []) == {}
        assert await log.committed(f"{topic}-none", [topic]) == {}
