"""What a group has committed, as its coordinator knows it for certain.

aiokafka asks in a version of the request whose error it does not read: a coordinator that is still
loading, or is none any more, then seems to say that nothing was committed, and the group would read
everything again and commit from the beginning. It does not ask for stable offsets either: a
coordinator that has just taken over answers from what it knows to be replicated by then, which may
be less than what was acknowledged.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, ClassVar

from aiokafka.errors import GroupLoadInProgressError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
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

from roadstream.streams.log import TopicPartition

_KEY, _VERSION = 9, 7
"""``OffsetFetch`` of KIP-447: the first version that can ask for stable offsets; Kafka 2.5."""

_UNSTABLE = 88
"""``UNSTABLE_OFFSET_COMMIT``, which aiokafka does not know: a commit is under way."""

Committed = dict[TopicPartition, int]


class _Answer(Response):  # type: ignore[misc]  # aiokafka is untyped
    API_KEY, API_VERSION = _KEY, _VERSION
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", CompactString("utf-8")),
                        ("error_code", Int16),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("error_code", Int16),
        ("tags", TaggedFields),
    )


class _Question(RequestStruct):  # type: ignore[misc]  # aiokafka is untyped
    API_KEY, API_VERSION, FLEXIBLE_VERSION = _KEY, _VERSION, True
    RESPONSE_TYPE: ClassVar[type[Response]] = _Answer
    SCHEMA = Schema(
        ("group", CompactString("utf-8")),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                ("partitions", CompactArray(Int32)),
                ("tags", TaggedFields),
            ),
        ),
        ("require_stable", Boolean),
        ("tags", TaggedFields),
    )


class CommittedRequest(Request[_Question]):  # type: ignore[misc]  # aiokafka is untyped
    """Asks a group's coordinator what the group has committed; ``committed_in`` reads the answer.

    Args:
        group: The group.
        partitions: Of which partitions; ``None`` for all that it has committed.
    """

    API_KEY = _KEY

    def __init__(self, group: str, partitions: Iterable[TopicPartition] | None = None) -> None:
        self._group = group
        self._topics: list[tuple[str, list[int], dict[int, bytes]]] | None = None
        if partitions is not None:
            numbers: dict[str, list[int]] = defaultdict(list)
            for topic, partition in partitions:
                numbers[topic].append(partition)
            self._topics = [(topic, found, {}) for topic, found in numbers.items()]

    def build(self, request_struct_class: type[_Question]) -> _Question:
        """Return what goes over the wire; aiokafka calls this."""
        return request_struct_class(self._group, self._topics, True, {})


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
