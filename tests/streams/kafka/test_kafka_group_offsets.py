"""What is asked of a group's coordinator, and how its answers are read, byte by byte."""

from io import BytesIO

import pytest
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupLoadInProgressError,
    KafkaError,
    NotCoordinatorForGroupError,
)

from roadstream.streams.kafka.group_offsets import CommittedRequest, committed_in
from roadstream.streams.log import TopicPartition

BROKER = {9: (1, 10)}
"""Versions of ``OffsetFetch`` that Kafka 4 knows."""


def asked(request: CommittedRequest) -> bytes:
    return bytes(request.prepare(BROKER).encode())


def answer(error: int, *partitions: tuple[int, int, int]) -> object:
    """Return a coordinator's answer for topic ``t``: partition, offset and error of each."""
    found = b"".join(
        number.to_bytes(4, "big")
        + offset.to_bytes(8, "big", signed=True)
        + b"\xff\xff\xff\xff"  # no leader epoch
        + b"\x01"  # no metadata
        + code.to_bytes(2, "big")
        + b"\x00"
        for number, offset, code in partitions
    )
    topics = b"\x02" + b"\x02t" + bytes([len(partitions) + 1]) + found + b"\x00"
    body = b"\x00\x00\x00\x00" + (topics if partitions else b"\x01")
    kind = CommittedRequest("g").prepare(BROKER).RESPONSE_TYPE
    return kind.decode(BytesIO(body + error.to_bytes(2, "big") + b"\x00"))


def test_stable_offsets_are_asked_for_of_the_partitions_named() -> None:
    request = CommittedRequest("g", [TopicPartition("t", 0), TopicPartition("t", 3)])

    assert asked(request) == b"\x02g" + b"\x02\x02t\x03\0\0\0\0\0\0\0\x03\0" + b"\x01" + b"\0"


def test_without_partitions_all_that_the_group_has_committed_is_asked_for() -> None:
    assert asked(CommittedRequest("g")) == b"\x02g" + b"\x00" + b"\x01" + b"\0"


def test_partitions_that_nothing_was_committed_of_are_absent() -> None:
    assert committed_in(answer(0, (0, 29, 0), (1, -1, 0))) == {TopicPartition("t", 0): 29}


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (14, GroupLoadInProgressError),
        (16, NotCoordinatorForGroupError),
        (30, GroupAuthorizationFailedError),
        (88, GroupLoadInProgressError),
    ],
)
def test_a_coordinator_that_cannot_say_is_not_taken_to_know_of_no_commit(
    code: int, error: type[KafkaError]
) -> None:
    with pytest.raises(error):
        committed_in(answer(code))
    with pytest.raises(error):
        committed_in(answer(0, (0, 29, 0), (1, -1, code)))
