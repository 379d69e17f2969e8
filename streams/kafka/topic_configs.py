"""How topics are made, and what about existing ones would cost records. Pure.

Compression of votes and answers is the topic's (``compression.type``), not the producer's: one
producer sends pictures too, which do not get smaller; what foreign producers send is covered as
well; and the workers, which have no time to spare, do none of it.
"""

from collections.abc import Callable, Iterator, Mapping

from roadstream.schemas.topics import (
    ANSWERS,
    CARRIED,
    CASCADES,
    DEAD_LETTERS,
    VOTES,
    without_namespace,
)
from roadstream.streams.kafka.settings import KafkaSettings
from roadstream.streams.kafka.topic_requests import Topic
from roadstream.streams.log import Harm, TopicFault

CHECKED = (
    "cleanup.policy",
    "max.message.bytes",
    "min.insync.replicas",
    "retention.ms",
    "retention.bytes",
)
"""What is asked of existing topics."""

BATCH_BYTES = 1_000_000
"""Most bytes of a batch of several records: below the broker's default ``max.message.bytes``
(1,048,588), which foreign topics may have.
"""

OVERHEAD = 128
"""Bytes a batch adds to a lone record: 61 for the batch, about 30 for the record, and some for its
headers. What is larger by the rest of them, the broker refuses.
"""

_COMPRESSED = frozenset({VOTES, CARRIED, ANSWERS})
_KEPT = frozenset({ANSWERS, DEAD_LETTERS})
_FOR_EVER = -1


def new_topic(topic: str, replicas: int, settings: KafkaSettings) -> dict[str, str]:
    """Return the settings with which a topic is made.

    Args:
        topic: Its name, perhaps with a namespace.
        replicas: Copies that it gets.
        settings: What was asked for.
    """
    plain = without_namespace(topic)
    made = {
        "max.message.bytes": str(settings.max_record_bytes),
        "min.insync.replicas": str(wanted_in_sync(replicas, settings)),
    }
    if plain == CASCADES:
        return made | {"cleanup.policy": "compact"}
    made |= {"cleanup.policy": "delete", "retention.ms": str(_retention(plain, settings))}
    if plain not in _KEPT and settings.retention_bytes is not None:
        made["retention.bytes"] = str(settings.retention_bytes)
    if plain in _COMPRESSED:
        made["compression.type"] = settings.topic_compression
    return made


def wanted_in_sync(replicas: int, settings: KafkaSettings) -> int:
    """Return how many copies must have a record before it is acknowledged.

    Two of three outlive the loss of a disk, and one broker may be away.
    """
    return settings.min_insync_replicas or (2 if replicas >= 3 else 1)


def _retention(plain: str, settings: KafkaSettings) -> int:
    """Return for how many milliseconds a topic's records are kept."""
    longest = settings.answers_retention or settings.retention
    return int(1000 * (longest if plain in _KEPT else settings.retention))


def faults(
    topics: Mapping[str, Topic],
    configs: Mapping[str, Mapping[str, str]],
    replicas: int,
    settings: KafkaSettings,
) -> list[TopicFault]:
    """Return what is wrong with existing topics, the worst first, then by name.

    Args:
        topics: The topics.
        configs: Their settings, as far as Kafka tells: those of ``CHECKED``.
        replicas: Copies that each should have.
        settings: What is expected.
    """
    found = [
        fault
        for name, topic in sorted(topics.items())
        for fault in _Check(name, topic, configs.get(name, {}), settings).faults(replicas)
    ]
    order: tuple[Harm, ...] = ("loses", "refuses", "risks")
    return sorted(found, key=lambda fault: order.index(fault.harm))


class _Check:
    """One topic against what is expected of it."""

    def __init__(
        self, name: str, topic: Topic, config: Mapping[str, str], settings: KafkaSettings
    ) -> None:
        self._name, self._plain = name, without_namespace(name)
        self._topic, self._config, self._settings = topic, config, settings
        self._policies = set(filter(None, config.get("cleanup.policy", "").split(",")))

    def faults(self, replicas: int) -> Iterator[TopicFault]:
        yield from self._policy()
        yield from self._replicas(replicas)
        for key, check in self._numbers().items():
            if key in self._config:
                yield from check(int(self._config[key]))

    def _numbers(self) -> dict[str, Callable[[int], Iterator[TopicFault]]]:
        checks: dict[str, Callable[[int], Iterator[TopicFault]]]
        checks = {"min.insync.replicas": self._in_sync}
        if self._plain != CASCADES:
            checks["max.message.bytes"] = self._size
            if "delete" in self._policies:
                checks |= {"retention.ms": self._time, "retention.bytes": self._bytes}
        return checks

    def _policy(self) -> Iterator[TopicFault]:
        got = self._config.get("cleanup.policy", "")
        if self._plain == CASCADES:
            if "delete" in self._policies:
                yield self._fault("risks", "cleanup.policy", "compact", got, "compact")
        elif "compact" in self._policies:
            expected = "delete, since keys repeat and compaction keeps the last record of each only"
            yield self._fault("loses", "cleanup.policy", expected, got, "delete")

    def _replicas(self, wanted: int) -> Iterator[TopicFault]:
        if self._topic.replicas < wanted:
            mend = f"kafka-reassign-partitions, to {wanted} replicas of each partition"
            yield TopicFault(
                self._name,
                "replicas",
                f"at least {wanted}",
                str(self._topic.replicas),
                mend,
                "risks",
            )

    def _in_sync(self, got: int) -> Iterator[TopicFault]:
        key, copies = "min.insync.replicas", self._topic.replicas
        wanted = min(wanted_in_sync(copies, self._settings), copies)
        if got > copies:
            expected = f"at most its {copies} replicas, or nothing can be written"
            yield self._fault("refuses", key, expected, str(got), wanted)
        elif got < wanted:
            expected = f"at least {wanted}, or one lost disk loses what was acknowledged"
            yield self._fault("risks", key, expected, str(got), wanted)
        elif got == copies > wanted:
            expected = f"fewer than its {copies} replicas, or one broker away stops all writing"
            yield self._fault("risks", key, expected, str(got), wanted)

    def _size(self, got: int) -> Iterator[TopicFault]:
        pictures = self._plain.startswith(("images.", "tier."))
        limit, what = self._settings.max_record_bytes, "the largest picture"
        if not pictures and self._plain != DEAD_LETTERS:
            limit, what = min(limit, BATCH_BYTES + OVERHEAD), "a batch of records"
        if got < limit:
            harm: Harm = "risks" if self._plain == DEAD_LETTERS else "refuses"
            expected = f"at least {limit}, for {what} (max_record_bytes)"
            yield self._fault(harm, "max.message.bytes", expected, str(got), limit)

    def _time(self, got: int) -> Iterator[TopicFault]:
        wanted = _retention(self._plain, self._settings)
        if got != _FOR_EVER and got < wanted:
            expected = f"at least {wanted}, or records may go before they are read"
            yield self._fault("risks", "retention.ms", expected, str(got), wanted)

    def _bytes(self, got: int) -> Iterator[TopicFault]:
        wanted = _FOR_EVER if self._plain in _KEPT else self._settings.retention_bytes or _FOR_EVER
        if got != _FOR_EVER and (wanted == _FOR_EVER or got < wanted):
            least = "-1" if wanted == _FOR_EVER else f"at least {wanted}"
            expected = f"{least}, or records may go before they are read"
            yield self._fault("risks", "retention.bytes", expected, str(got), wanted)

    def _fault(self, harm: Harm, key: str, expected: str, got: str, right: str | int) -> TopicFault:
        mend = (
            f"kafka-configs --bootstrap-server {self._settings.bootstrap_servers} --alter "
            f"--entity-type topics --entity-name {self._name} --add-config {key}={right}"
        )
        return TopicFault(self._name, key, expected, got, mend, harm)
