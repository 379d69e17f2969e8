"""Namespaces: two on one log share nothing, and no name is another system's."""

import pytest

from roadstream.schemas.errors import UsageError
from roadstream.schemas.topics import all_topics, tier_group
from roadstream.streams.log import Output, TopicPartition
from roadstream.streams.memory.log import MemoryLog
from roadstream.streams.topics.namespace import NamespacedLog, check_namespace
from roadstream.workers.service.access.connect import address, open_log
from tests.kits.contract import take

NAMES = ["a", "berlin", "crew-2", "X_1", "9"]


async def test_two_namespaces_and_none_on_one_log_do_not_see_each_other() -> None:
    memory = MemoryLog()
    logs = [memory, NamespacedLog(memory, "berlin"), NamespacedLog(memory, "paris")]
    for i, log in enumerate(logs):
        await log.create_topics(["votes"], 1)
        async with log.producer() as producer:
            await producer.publish([Output("votes", None, b"%d" % i, 0)])
    for i, log in enumerate(logs):
        async with log.consumer("g", ["votes"]) as consumer:
            ((tp, record),) = await take(consumer, 1)
            assert (tp, record.value) == (TopicPartition("votes", 0), b"%d" % i)
            await consumer.publish([], {tp: 1}, consumer.assignment.epoch)
        assert await log.committed("g", ["votes"]) == {TopicPartition("votes", 0): 1}
        assert await log.partition_counts(["votes"]) == {"votes": 1}
    assert set(memory.topics) == {"votes", "berlin.votes", "paris.votes"}
    assert set(memory.groups) == {"g", "berlin.g", "paris.g"}
    assert len({await log.identity() for log in logs}) == 3


def test_no_topic_of_a_namespace_is_one_of_another_or_of_none() -> None:
    tiers = ["one", "images", "votes", "live", "a", "tier", *NAMES[:2]]
    plain = {*all_topics(tiers), "cascades", *map(tier_group, tiers), "roadstream.consensus"}
    seen = set(plain)
    for name in map(check_namespace, NAMES):
        mine = {f"{name}.{topic}" for topic in plain}
        assert not mine & seen
        assert all(len(topic) <= 249 for topic in mine)
        seen |= mine


@pytest.mark.parametrize(
    "name", ["a.b", "-a", "_a", "a b", "é", "a/b", "x" * 65, "tier", "images", "Votes", "²", "."]
)
def test_a_name_that_kafka_refuses_or_that_means_something_else_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"--namespace: expected "):
        address("embedded:x.db", name)


def test_an_empty_name_is_none() -> None:
    assert address("embedded:x.db", "").namespace is None
    assert not isinstance(open_log(address("embedded:x.db", None)), NamespacedLog)
    assert isinstance(open_log(address("embedded:x.db", "crew")), NamespacedLog)
