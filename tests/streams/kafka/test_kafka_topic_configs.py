"""How topics are made, and what is said of existing ones."""

import pytest

from roadstream.schemas.topics import ANSWERS, CASCADES, DEAD_LETTERS, VOTES
from roadstream.streams.kafka.settings import KafkaSettings
from roadstream.streams.kafka.topic_configs import faults, new_topic
from roadstream.streams.kafka.topic_requests import Topic
from roadstream.streams.log import TopicFault

WEEK = 7 * 24 * 3600 * 1000
LARGEST = 8 * 2**20 + 2**16
SOUND = {
    "cleanup.policy": "delete",
    "max.message.bytes": str(LARGEST),
    "min.insync.replicas": "2",
    "retention.ms": str(WEEK),
    "retention.bytes": "-1",
}
STOCK = KafkaSettings(bootstrap_servers="kafka-1:9092")


def found(
    topic: str,
    changes: dict[str, str] | None = None,
    replicas: int = 3,
    settings: KafkaSettings = STOCK,
) -> list[TopicFault]:
    """Return what is wrong with a topic that is sound but for these settings."""
    config = SOUND | (changes or {})
    return faults({topic: Topic(4, replicas, True, -1)}, {topic: config}, replicas, settings)


def only(faults: list[TopicFault]) -> TopicFault:
    [fault] = faults
    return fault


def test_topics_are_made_so_that_one_lost_disk_and_one_week_away_cost_nothing() -> None:
    assert new_topic("images.live", 3, STOCK) == {
        "cleanup.policy": "delete",
        "max.message.bytes": str(LARGEST),
        "min.insync.replicas": "2",
        "retention.ms": str(WEEK),
    }
    assert new_topic(VOTES, 3, STOCK)["compression.type"] == "zstd"
    assert new_topic(f"berlin.{ANSWERS}", 3, STOCK)["compression.type"] == "zstd"
    assert new_topic(CASCADES, 3, STOCK)["cleanup.policy"] == "compact"
    assert new_topic(f"berlin.{CASCADES}", 3, STOCK).keys() == {
        "cleanup.policy", "max.message.bytes", "min.insync.replicas"
    }  # fmt: skip


@pytest.mark.parametrize(("replicas", "in_sync"), [(1, "1"), (2, "1"), (3, "2"), (5, "2")])
def test_two_copies_must_have_a_record_where_there_are_three(replicas: int, in_sync: str) -> None:
    assert new_topic(VOTES, replicas, STOCK)["min.insync.replicas"] == in_sync


def test_what_was_asked_for_is_made() -> None:
    asked = KafkaSettings(
        min_insync_replicas=3,
        retention=60,
        retention_bytes=5,
        answers_retention=120,
        topic_compression="lz4",
    )
    votes, answers = new_topic(VOTES, 4, asked), new_topic(ANSWERS, 4, asked)
    assert (votes["retention.ms"], votes["retention.bytes"]) == ("60000", "5")
    assert (answers["retention.ms"], "retention.bytes" in answers) == ("120000", False)
    assert {votes["compression.type"], answers["compression.type"]} == {"lz4"}
    assert votes["min.insync.replicas"] == "3"
    assert new_topic(DEAD_LETTERS, 4, asked)["retention.ms"] == "120000"


@pytest.mark.parametrize("topic", ["images.live", "tier.look.archive", VOTES, ANSWERS, "a.votes"])
def test_a_topic_as_it_is_made_is_sound(topic: str) -> None:
    assert found(topic) == []
    assert found(topic, {"retention.ms": "-1", "cleanup.policy": ""}) == []


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
def test_a_compacted_topic_loses_records_and_the_line_says_how_to_mend_it(policy: str) -> None:
    fault = only(found(f"berlin.{VOTES}", {"cleanup.policy": policy}))
    assert fault.harm == "loses"
    assert str(fault) == (
        "berlin.votes: cleanup.policy: expected delete, since keys repeat and compaction keeps the "
        f"last record of each only, got {policy}; mend it with `kafka-configs --bootstrap-server "
        "kafka-1:9092 --alter --entity-type topics --entity-name berlin.votes --add-config "
        "cleanup.policy=delete`"
    )


def test_the_topic_that_says_whose_all_are_is_compacted_and_must_not_forget() -> None:
    assert found(CASCADES, {"cleanup.policy": "compact", "retention.ms": "1"}) == []
    fault = only(found(CASCADES, {"cleanup.policy": "delete"}))
    assert (fault.harm, fault.expected, fault.got) == ("risks", "compact", "delete")


@pytest.mark.parametrize(
    ("topic", "limit", "harm"),
    [
        ("images.archive", 1_048_588, "refuses"),
        ("tier.look.live", LARGEST - 1, "refuses"),
        ("images.archive", LARGEST, None),
        (VOTES, 1_048_588, None),
        (VOTES, 1_000_127, "refuses"),
        (ANSWERS, 500_000, "refuses"),
        (DEAD_LETTERS, 1_048_588, "risks"),
    ],
)
def test_a_topic_takes_our_largest_pictures_and_packs(
    topic: str, limit: int, harm: str | None
) -> None:
    faults = found(topic, {"max.message.bytes": str(limit)})
    assert [fault.harm for fault in faults] == ([] if harm is None else [harm])


def test_smaller_records_on_purpose_want_smaller_limits() -> None:
    small = KafkaSettings(max_record_bytes=500_000)
    for topic in ("images.live", VOTES):
        made = new_topic(topic, 3, small) | {"retention.bytes": "-1"}
        assert faults({topic: Topic(1, 3, True, -1)}, {topic: made}, 3, small) == []


@pytest.mark.parametrize(
    ("replicas", "in_sync", "harm", "right"),
    [
        (3, "1", "risks", 2),
        (3, "3", "risks", 2),
        (3, "4", "refuses", 2),
        (2, "2", "risks", 1),
        (1, "2", "refuses", 1),
    ],
)
def test_copies_in_sync_are_neither_too_few_nor_too_many(
    replicas: int, in_sync: str, harm: str, right: int
) -> None:
    fault = only(found(VOTES, {"min.insync.replicas": in_sync}, replicas))
    assert fault.harm == harm
    assert fault.mend.endswith(f"min.insync.replicas={right}")


def test_fewer_copies_than_wanted_are_a_risk() -> None:
    config = SOUND | {"min.insync.replicas": "1"}
    fault = only(faults({VOTES: Topic(4, 1, True, -1)}, {VOTES: config}, 3, STOCK))
    assert (fault.key, fault.expected, fault.got) == ("replicas", "at least 3", "1")


def test_records_that_may_go_before_they_are_read_are_a_risk() -> None:
    fault = only(found("images.live", {"retention.ms": "3600000"}))
    assert (fault.key, fault.harm, fault.got) == ("retention.ms", "risks", "3600000")
    fault = only(found("images.live", {"retention.bytes": "1000"}))
    assert (fault.key, fault.harm) == ("retention.bytes", "risks")
    hour = KafkaSettings(retention=3600, retention_bytes=1000)
    little = {"retention.ms": "3600000", "retention.bytes": "1000"}
    assert found("images.live", little, settings=hour) == []


def test_the_worst_comes_first() -> None:
    said = found("images.live", {
        "retention.ms": "1", "max.message.bytes": "1", "cleanup.policy": "compact,delete"
    })  # fmt: skip
    assert [fault.harm for fault in said] == ["loses", "refuses", "risks"]
