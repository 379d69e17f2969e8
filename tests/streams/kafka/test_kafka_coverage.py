"""Partitions that are added, and topics that are made anew: the group finds and works them."""

from typing import Any

import anyio
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from roadstream.schemas.errors import RegroupError
from roadstream.streams.kafka import log as kafka_log
from roadstream.streams.kafka.coverage import Coverage
from roadstream.streams.kafka.group_requests import DescribedMember, Group
from roadstream.streams.kafka.log import KafkaLog
from roadstream.streams.kafka.settings import KafkaSettings
from roadstream.streams.log import Consumer, Output, TopicPartition
from tests.kits.contract import DEADLINE


def tps(topic: str, *partitions: int) -> frozenset[TopicPartition]:
    return frozenset(TopicPartition(topic, p) for p in partitions)


def group(*given: frozenset[TopicPartition], state: str = "Stable") -> Group:
    return Group(
        state, [DescribedMember(str(i), None, "c", "h", one) for i, one in enumerate(given)]
    )


def test_a_group_with_every_partition_is_left_alone() -> None:
    coverage = Coverage(["a", "b"])
    whole = group(tps("a", 0) | tps("b", 0), tps("a", 1) | tps("b", 1))
    for _ in range(5):
        assert coverage.look(whole, {"a": 2, "b": 2}, {}) is None


def test_what_nobody_works_on_is_named_at_the_second_look() -> None:
    coverage = Coverage(["a"])
    assert coverage.look(group(tps("a", 0)), {"a": 3}, {}) is None
    assert coverage.look(group(tps("a", 0)), {"a": 3}, {}) == (
        "nobody works on a[1] and 1 more partitions"
    )


@pytest.mark.parametrize(
    ("found", "worked"),
    [
        (group(tps("a", 0), frozenset()), True),
        (group(frozenset()), False),
        (group(state="Empty"), False),
        (group(state="Dead"), False),
        (group(frozenset(), state="PreparingRebalance"), True),
        (group(frozenset(), frozenset(), state="CompletingRebalance"), True),
    ],
)
def test_a_group_is_worked_where_a_member_has_partitions_or_is_about_to(
    found: Group, *, worked: bool
) -> None:
    assert found.is_worked is worked


def test_a_group_that_settles_and_topics_that_grow_one_by_one_are_waited_for() -> None:
    coverage = Coverage(["a", "b"])
    some = group(tps("a", 0) | tps("b", 0))
    for _ in range(3):
        assert coverage.look(group(state="PreparingRebalance"), {"a": 1, "b": 1}, {}) is None
        assert coverage.look(some, {"a": 2, "b": 1}, {}) is None
        assert coverage.unequal
        assert coverage.look(some, {"a": 1}, {}) is None


def test_offsets_that_went_back_tell_of_a_topic_made_anew() -> None:
    coverage, tp = Coverage(["a"]), TopicPartition("a", 0)
    whole = group(tps("a", 0))
    assert coverage.look(whole, {"a": 1}, {tp: 15}) is None
    assert coverage.look(whole, {"a": 1}, {}) is None
    assert coverage.look(whole, {"a": 1}, {tp: 3}) == "a was deleted and made again"


async def values_until(consumer: Consumer, wanted: set[bytes]) -> set[bytes]:
    """Take records and commit them until these have come; an end of the membership is raised."""
    found: set[bytes] = set()
    with anyio.fail_after(DEADLINE):
        while not wanted <= found:
            polled = await consumer.poll(max_records=100, timeout=0.2)
            found |= {r.value or b"" for records in polled.values() for r in records}
            commit = {tp: records[-1].offset + 1 for tp, records in polled.items()}
            await consumer.publish([], commit, consumer.assignment.epoch)
    return found


async def while_it_grows(log: KafkaLog, admin: Any, topic: str, member: str | None) -> None:
    async with log.consumer(topic, [topic], member_id=member) as consumer:
        await values_until(consumer, {b"old"})
        await admin.create_partitions({topic: NewPartitions(4)})
        await values_until(consumer, {b"never"})


async def while_it_is_made_anew(log: KafkaLog, admin: Any, topic: str, member: str | None) -> None:
    async with log.consumer(topic, [topic], member_id=member) as consumer:
        assert b"new" in await values_until(consumer, {b"new"})
        assert len(consumer.assignment.partitions) == 4
        while len(await log.committed(topic, [topic])) < 2:
            await consumer.poll(max_records=0, timeout=0)
        await anyio.sleep(2 * kafka_log._WATCH_INTERVAL)  # it has looked at these commits
        await admin.delete_topics([topic])
        while await log.partition_counts([topic]):  # noqa: ASYNC110 (Kafka tells nobody)
            await anyio.sleep(0.1)
        await log.create_topics([topic], 4)
        await values_until(consumer, {b"never"})


@pytest.mark.kafka
@pytest.mark.parametrize("member", [None, "static"])
async def test_added_partitions_and_topics_made_anew_are_worked(
    kafka_bootstrap: str, topic: str, member: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_log, "_WATCH_INTERVAL", 0.3)
    settings = KafkaSettings(bootstrap_servers=kafka_bootstrap, replication_factor=1)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    try:
        async with KafkaLog(settings) as log, log.producer() as producer:
            await log.create_topics([topic], 2)
            await producer.publish([Output(topic, None, b"old", 1)])
            with pytest.raises(RegroupError, match=rf"nobody works on {topic}\[2\] and 1 more"):
                await while_it_grows(log, admin, topic, member)
            await producer.publish([Output(topic, None, b"new", 3)])
            with pytest.raises(RegroupError, match=f"{topic} was deleted and made again"):
                await while_it_is_made_anew(log, admin, topic, member)
            async with log.producer() as another:
                await another.publish([Output(topic, None, b"anew", 0)])
            async with log.consumer(topic, [topic], member_id=member) as consumer:
                assert await values_until(consumer, {b"anew"}) == {b"anew"}
    finally:
        await admin.close()
