"""Asks about topics by name, and what this client may do with them.

Of all topics, which aiokafka asks for, brokers leave out those that this client may not describe,
as if they were not there.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from aiokafka.errors import TopicAuthorizationFailedError
from aiokafka.protocol.types import Boolean, Int16, Int32, Schema, String

from roadstream.streams.kafka.requests import VersionedRequest, many

_TEXT = String("utf-8")
_FORBIDDEN = TopicAuthorizationFailedError.errno


class DescribeTopics(
    VersionedRequest,
    key=3,
    version=8,  # of KIP-430: the first that tells what is allowed; Kafka 2.3
    question=Schema(
        many("topics", _TEXT),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_operations", Boolean),
        ("include_topic_operations", Boolean),
    ),
    answer=Schema(
        ("throttle_time_ms", Int32),
        many("brokers", ("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT)),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        many(
            "topics",
            ("error_code", Int16),
            ("topic", _TEXT),
            ("is_internal", Boolean),
            many(
                "partitions",
                ("error_code", Int16),
                ("partition", Int32),
                ("leader", Int32),
                ("leader_epoch", Int32),
                many("replicas", Int32),
                many("isr", Int32),
                many("offline_replicas", Int32),
            ),
            ("authorized_operations", Int32),
        ),
        ("cluster_operations", Int32),
    ),
):
    """Asks about topics, without creating any; ``topics_in`` reads the answer."""

    def __init__(self, topics: Collection[str]) -> None:
        super().__init__(sorted(set(topics)), False, False, True)


class Topic(NamedTuple):
    """A topic, as a broker knows it.

    Attributes:
        partitions: How many it has.
        replicas: Copies of the partition that has fewest.
        led: Whether each partition has a leader.
        operations: What this client may do, as bits; see ``rights.allows``.
    """

    partitions: int
    replicas: int
    led: bool
    operations: int


def topics_in(answer: Any) -> Mapping[str, Topic | None]:
    """Return the topics that exist by name; ``None`` for those that may not be described.

    Raises:
        KafkaError: A name is none that a topic can have, or a broker cannot say.
    """
    found: dict[str, Topic | None] = {}
    for code, name, _, partitions, operations in answer.topics:
        if code == _FORBIDDEN:
            found[name] = None
        elif not code:
            led = all(leader >= 0 for _, _, leader, *_ in partitions)
            replicas = min((len(one[4]) for one in partitions), default=0)
            found[name] = Topic(len(partitions), replicas, led, operations)
    return found


def known(topics: Mapping[str, Topic | None]) -> dict[str, Topic]:
    """Return the topics that exist.

    Raises:
        TopicAuthorizationFailedError: Some may not be described, so nobody knows whether they do.
    """
    if hidden := {name for name, topic in topics.items() if topic is None}:
        raise TopicAuthorizationFailedError(hidden)
    return {name: topic for name, topic in topics.items() if topic is not None}
