"""Which right is missing, told from Kafka's errors and from what it says a client may do."""

from collections.abc import Collection, Iterator, Sequence

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
)

from roadstream.schemas.errors import ForbiddenError
from roadstream.streams.kafka.settings import KafkaSettings
from roadstream.streams.log import Operation, Resource, Right

_CODES: dict[Operation, int] = {
    "READ": 3,
    "WRITE": 4,
    "CREATE": 5,
    "DESCRIBE": 8,
    "DESCRIBE_CONFIGS": 10,
    "IDEMPOTENT_WRITE": 12,
}
"""Numbers of Kafka's ``AclOperation``, which are positions of bits where it tells what is allowed
(KIP-430).
"""

_UNTOLD = -(2**31)
"""What brokers say that do not tell what is allowed."""

_RESOURCES: dict[type[KafkaError], Resource] = {
    TopicAuthorizationFailedError: "topic",
    GroupAuthorizationFailedError: "group",
    ClusterAuthorizationFailedError: "cluster",
}


def allows(operations: int, operation: Operation) -> bool:
    """Tell whether an operation is among those that Kafka says are allowed, or it does not say."""
    return operations == _UNTOLD or bool(operations >> _CODES[operation] & 1)


def missing_rights(error: BaseException, operation: Operation, name: str = "") -> list[Right]:
    """Return the rights for want of which Kafka refused a request; none for any other error.

    Args:
        error: What came of the request.
        operation: What it needs.
        name: The group that it was about, or the topic where the error does not name it.
    """
    for kind, resource in _RESOURCES.items():
        if isinstance(error, kind):
            if resource == "cluster":  # no request of ours needs another one
                return [Right("IDEMPOTENT_WRITE", resource, "")]
            told = [] if resource == "group" else sorted(set(_named(error.args)))
            return [Right(operation, resource, one) for one in told or [name or "(not named)"]]
    return []


def _named(told: object) -> Iterator[str]:
    """Yield the topics or groups that aiokafka's errors carry: names, partitions, sets of them."""
    if isinstance(told, str):
        yield told
    elif hasattr(told, "topic"):
        yield told.topic
    elif isinstance(told, Collection):
        for one in told:
            yield from _named(one)


def forbidden(settings: KafkaSettings, rights: Sequence[Right]) -> ForbiddenError:
    """Return the error for missing rights: which they are, and how the first is granted."""
    user = settings.sasl_username
    who = f"user {user}" if user else "this client"
    either = " (or WRITE on a topic)" if rights[0].resource == "cluster" else ""
    more = ", the others likewise" if len(rights) > 1 else ""
    return ForbiddenError(
        f"Kafka refuses {who}: missing right {', '.join(map(str, rights))}{either}; "
        f"grant it with `{grant(settings, rights[0])}`{more} (docs/guide/kafka.md, Rights)"
    )


def grant(settings: KafkaSettings, right: Right) -> str:
    """Return the command that gives a right."""
    on = "--cluster" if right.resource == "cluster" else f"--{right.resource} {right.name}"
    operation = right.operation.title().replace("_", "")
    return (
        f"kafka-acls --bootstrap-server {settings.bootstrap_servers} --add "
        f"--allow-principal User:{settings.sasl_username or 'NAME'} --operation {operation} {on}"
    )
