"""What Kafka's errors and its word on what is allowed say of missing rights."""

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    NotLeaderForPartitionError,
    TopicAuthorizationFailedError,
)

from roadstream.streams.kafka.rights import allows, forbidden, missing_rights
from roadstream.streams.kafka.settings import KafkaSettings
from roadstream.streams.log import Right

READ, WRITE, DESCRIBE = 1 << 3, 1 << 4, 1 << 8


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TopicAuthorizationFailedError("votes"), ["READ on topic votes"]),
        (TopicAuthorizationFailedError({"b", "a"}), ["READ on topic a", "READ on topic b"]),
        (TopicAuthorizationFailedError(TopicPartition("a", 3)), ["READ on topic a"]),
        (TopicAuthorizationFailedError(), ["READ on topic named"]),
        (GroupAuthorizationFailedError("FindCoordinator request failed"), ["READ on group named"]),
        (ClusterAuthorizationFailedError(), ["IDEMPOTENT_WRITE on cluster"]),
        (NotLeaderForPartitionError("votes"), []),
        (KafkaError("votes"), []),
        (OSError("votes"), []),
    ],
)
def test_operation_and_resource_are_told_from_an_error(
    error: BaseException, said: list[str]
) -> None:
    assert [str(right) for right in missing_rights(error, "READ", "named")] == said


def test_bits_tell_what_is_allowed_and_brokers_that_do_not_tell_forbid_nothing() -> None:
    assert allows(READ | DESCRIBE, "READ")
    assert not allows(READ | DESCRIBE, "WRITE")
    assert not allows(0, "DESCRIBE")
    assert allows(-(2**31), "WRITE")


@pytest.mark.parametrize(
    ("right", "command"),
    [
        (Right("DESCRIBE_CONFIGS", "topic", "votes"), "--operation DescribeConfigs --topic votes"),
        (Right("READ", "group", "g"), "--operation Read --group g"),
        (Right("IDEMPOTENT_WRITE", "cluster", ""), "--operation IdempotentWrite --cluster"),
    ],
)
def test_the_error_says_how_a_right_is_granted(right: Right, command: str) -> None:
    settings = KafkaSettings(
        bootstrap_servers="kafka-1:9093", security_protocol="SASL_SSL", sasl_username="camera"
    )
    assert (
        "grant it with `kafka-acls --bootstrap-server kafka-1:9093 --add --allow-principal "
        f"User:camera {command}`" in str(forbidden(settings, [right]))
    )


def test_a_client_without_a_user_name_is_not_given_one() -> None:
    said = str(forbidden(KafkaSettings(), [Right("READ", "topic", "votes")]))
    assert said.startswith("Kafka refuses this client: missing right READ on topic votes;")
    assert "--allow-principal User:NAME" in said
