"""Topics of a cluster: what exists, how it is set, and making what does not."""

from collections.abc import Collection, Iterable, Mapping

import anyio
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)

from roadstream.schemas.errors import UsageError
from roadstream.streams.kafka.topic_configs import CHECKED
from roadstream.streams.kafka.topic_requests import DescribeTopics, Topic, known, topics_in

_PAUSE = 0.1
"""Seconds between two tries of what fails with an error that passes."""

_LOOK_INTERVAL = 0.05
"""Seconds between two looks at whether new topics have leaders: Kafka tells nobody."""


async def make(topics: Collection[NewTopic], client: AIOKafkaAdminClient) -> None:
    """Make topics, all or none, also those that another client has made meanwhile.

    Raises:
        TopicAuthorizationFailedError: Some may not be made.
        UsageError: Kafka refuses one.
    """
    missing = list(topics)
    if missing:  # of a list with one that Kafka refuses, it makes the others
        answer = await client.create_topics(missing, validate_only=True)
        _to_retry(answer.topic_errors)
    while missing:
        await client._client.force_metadata_update()  # the controller may be another now
        answer = await client.create_topics(missing)
        again = _to_retry(answer.topic_errors)
        missing = [topic for topic in missing if topic.name in again]
        await anyio.sleep(_PAUSE if missing else 0)


async def wait_until_led(topics: Collection[str], client: AIOKafkaAdminClient) -> None:
    """Wait until all of these topics are known to a broker, with leaders."""
    while True:
        found = known(await described(client, topics))
        if len(found) == len(set(topics)) and all(topic.led for topic in found.values()):
            return
        await anyio.sleep(_LOOK_INTERVAL)


async def described(
    client: AIOKafkaAdminClient, topics: Collection[str]
) -> Mapping[str, Topic | None]:
    """Return those topics that exist, and ``None`` for those that may not be described."""
    return topics_in(await client._send_request(DescribeTopics(topics))) if topics else {}


async def configs_of(
    topics: Collection[str], client: AIOKafkaAdminClient
) -> Mapping[str, Mapping[str, str]]:
    """Return the settings of topics, as far as they are checked.

    Raises:
        TopicAuthorizationFailedError: Those of some may not be described.
        KafkaError: A broker cannot say.
    """
    asked = [
        ConfigResource(ConfigResourceType.TOPIC, topic, dict.fromkeys(CHECKED)) for topic in topics
    ]
    found: dict[str, dict[str, str]] = {}
    hidden: set[str] = set()
    for answer in await client.describe_configs(asked) if asked else ():
        for code, _, _, name, entries in answer.resources:
            error = for_code(code)
            if error is TopicAuthorizationFailedError:
                hidden.add(name)
            elif code:
                raise error(name)
            found[name] = {key: value for key, value, *_ in entries if value is not None}
    if hidden:
        raise TopicAuthorizationFailedError(hidden)
    return found


def _to_retry(answers: Iterable[tuple[str, int, str | None]]) -> list[str]:
    """Return the topics that may be made with the next try.

    Raises:
        TopicAuthorizationFailedError: Some may not be made.
        UsageError: Kafka refuses one.
    """
    retry, refused = [], set()
    for topic, code, message in answers:
        error = for_code(code)
        if error is TopicAuthorizationFailedError:
            refused.add(topic)
        elif error.errno and not (error.retriable or error is TopicAlreadyExistsError):
            raise UsageError(f"cannot create topic {topic}: {message or error.description}")
        elif error.retriable:
            retry.append(topic)
    if refused:
        raise TopicAuthorizationFailedError(refused)
    return retry
