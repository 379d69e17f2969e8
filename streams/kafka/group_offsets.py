"""What a group has committed, as its coordinator knows it for certain.

aiokafka asks in a version of the request whose error it does not read: a coordinator that is still
loading, or is none any more, then seems to say that nothing was committed, and the group would read
everything again and commit from the beginning. It does not ask for stable offsets either: a
coordinator that has just taken over answers from what it knows to be replicated by then, which may
be less than what was acknowledged.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from aiokafka.errors import GroupLoadInProgressError, for_code
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

from roadstream.streams.kafka.requests import VersionedRequest
from roadstream.streams.log import TopicPartition

_TEXT, _TAGS = CompactString("utf-8"), ("tags", TaggedFields)
_UNSTABLE = 88
"""``UNSTABLE_OFFSET_COMMIT``, which aiokafka does not know: a commit is under way."""

Committed = dict[TopicPartition, int]


def _many(name: str, *fields: Any) -> tuple[str, CompactArray]:
    return name, CompactArray(*fields)


class CommittedRequest(
    VersionedRequest,
    key=9,
    version=7,  # of KIP-447: the first that can ask for stable offsets; Kafka 2.5
    flexible=True,
    question=Schema(
        ("group", _TEXT),
        _many("topics", ("topic", _TEXT), ("partitions", CompactArray(Int32)), _TAGS),
        ("require_stable", Boolean),
        _TAGS,
    ),
    answer=Schema(
        ("throttle_time_ms", Int32),
        _many(
            "topics",
            ("topic", _TEXT),
            _many(
                "partitions",
                ("partition", Int32),
                ("offset", Int64),
                ("leader_epoch", Int32),
                ("metadata", _TEXT),
                ("error_code", Int16),
                _TAGS,
            ),
            _TAGS,
        ),
        ("error_code", Int16),
        _TAGS,
    ),
):
    """Asks a group's coordinator what the group has committed; ``committed_in`` reads the answer.

    Args:
        group: The group.
        partitions: Of which partitions; ``None`` for all that it has committed.
    """

    def __init__(self, group: str, partitions: Iterable[TopicPartition] | None = None) -> None:
        topics: list[tuple[str, list[int], dict[int, bytes]]] | None = None
        if partitions is not None:
            numbers: dict[str, list[int]] = defaultdict(list)
            for topic, partition in partitions:
                numbers[topic].append(partition)
            topics = [(topic, found, {}) for topic, found in numbers.items()]
        super().__init__(group, topics, True, {})


def committed_in(answer: Any) -> Committed:
    """Return the offsets that an answer names; partitions without one are absent.

    Raises:
        KafkaError: The coordinator could not say, for the group or for one of the partitions.
    """
    _check(answer.error_code)
    found: Committed = {}
    for topic, partitions, _ in answer.topics:
        for partition, offset, _, _, error_code, _ in partitions:
            _check(error_code, topic)
            if offset >= 0:
                found[TopicPartition(topic, partition)] = offset
    return found


def _check(error_code: int, *about: str) -> None:
    if error_code == _UNSTABLE:
        raise GroupLoadInProgressError("a commit is under way")
    if error_code:
        raise for_code(error_code)(*about)
