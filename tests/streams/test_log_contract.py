"""The contract of ``streams.log``, sentence by sentence, on each of its implementations."""

import itertools
import time
import uuid
from collections.abc import Callable, Collection
from pathlib import Path

import anyio
import pytest

from schemas.errors import FencedError, OutputError, RoadstreamError, UsageError
from streams.embedded import EmbeddedLog
from streams.log import Consumer, Log, Output, Polled, Reader, Record, TopicPartition
from streams.memory import MemoryLog

DEADLINE = 40.0
"""Seconds after which a condition that never comes true fails a test."""

ALL = ["memory", "embedded", pytest.param("kafka", marks=pytest.mark.kafka)]
ATOMIC = ["memory", "embedded"]


def _make(kind: str, request: pytest.FixtureRequest, folder: Path) -> Log:
    if kind == "memory":
        return MemoryLog()
    if kind == "embedded":
        return EmbeddedLog(folder / "log.db")
    from streams.kafka import KafkaLog, KafkaSettings

    servers: str = request.getfixturevalue("kafka_bootstrap")
    return KafkaLog(
        KafkaSettings(
            bootstrap_servers=servers, session_timeout=6.0, drain_timeout=5.0, stop_timeout=3.0
        )
    )


@pytest.fixture(params=ALL)
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Log:
    return _make(request.param, request, tmp_path)


@pytest.fixture(params=ATOMIC)
def atomic_log(request: pytest.FixtureRequest, tmp_path: Path) -> Log:
    return _make(request.param, request, tmp_path)


@pytest.fixture
def topic() -> str:
    """A topic, and a group of the same name, that no other test uses."""
    return f"c-{uuid.uuid4().hex[:12]}"


class Member:
    """Polls a consumer and notes what came; commits it at once unless told not to."""

    def __init__(self, consumer: Consumer, *, commits: bool = True) -> None:
        self.consumer, self.commits = consumer, commits
        self.values: list[bytes] = []

    async def step(self) -> None:
        polled = await self.consumer.poll(max_records=50, timeout=0.1)
        self.values += values(polled)
        if self.commits:
            await self.consumer.publish([], ends(polled), self.consumer.assignment.epoch)

    @property
    def partitions(self) -> set[int]:
        return {tp.partition for tp in self.consumer.assignment.partitions}


class Heard:
    """An assignment listener that notes what it hears, and the epoch at that moment."""

    def __init__(self) -> None:
        self.consumer: Consumer | None = None
        self.calls: list[tuple[str, frozenset[TopicPartition], int]] = []

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        self._note("revoked", partitions)

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        self._note("assigned", partitions)

    def _note(self, what: str, partitions: Collection[TopicPartition]) -> None:
        assert self.consumer is not None
        self.calls.append((what, frozenset(partitions), self.consumer.assignment.epoch))


def values(polled: Polled) -> list[bytes]:
    return [record.value or b"" for records in polled.values() for record in records]


def ends(polled: Polled) -> dict[TopicPartition, int]:
    return {tp: records[-1].offset + 1 for tp, records in polled.items()}


def numbered(topic: str, numbers: range, partitions: int) -> list[Output]:
    return [Output(topic, None, b"%d" % i, i % partitions) for i in numbers]


def texts(numbers: range) -> list[bytes]:
    return [b"%d" % i for i in numbers]


def number(value: bytes) -> int:
    return int(value)


async def take(source: Consumer | Reader, count: int) -> list[tuple[TopicPartition, Record]]:
    """Poll until ``count`` records came, and one poll more that must bring none."""
    found: list[tuple[TopicPartition, Record]] = []
    with anyio.fail_after(DEADLINE):
        while len(found) < count:
            polled = await source.poll(max_records=1000, timeout=0.2)
            found += [(tp, record) for tp, records in polled.items() for record in records]
    assert await source.poll(max_records=1000, timeout=0.1) == {}
    assert len(found) == count
    return found


async def owning(consumer: Consumer, count: int) -> None:
    """Keep the membership alive until the consumer owns ``count`` partitions of its topics."""
    with anyio.fail_after(DEADLINE):
        while len(consumer.assignment.partitions) != count:
            await consumer.poll(max_records=0, timeout=0)


async def together(condition: Callable[[], bool], *members: Member) -> None:
    """Let the members poll side by side until the condition holds."""
    with anyio.fail_after(DEADLINE):
        while not condition():
            async with anyio.create_task_group() as tasks:
                for member in members:
                    tasks.start_soon(member.step)


# Producer and reader


async def test_records_of_a_partition_keep_their_order_and_offsets_grow(
    log: Log, topic: str
) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        for start in range(0, 60, 20):
            await producer.publish(numbered(topic, range(start, start + 20), 2))
        async with log.reader(topic, "beginning") as reader:
            found = await take(reader, 60)

    for partition in range(2):
        records = [record for tp, record in found if tp == TopicPartition(topic, partition)]
        assert [record.value for record in records] == texts(range(partition, 60, 2))
        offsets = [record.offset for record in records]
        assert offsets == sorted(set(offsets))


async def test_a_key_chooses_the_same_partition_every_time_and_in_every_topic(
    log: Log, topic: str
) -> None:
    topics = [topic, f"{topic}-b"]
    partitions: dict[bytes, set[int]] = {}
    async with log, log.producer() as producer:
        await log.create_topics(topics, 4)
        for _ in range(2):
            for name in topics:
                await producer.publish([Output(name, b"key %d" % i, b"v") for i in range(20)])
        for name in topics:
            async with log.reader(name, "beginning") as reader:
                for tp, record in await take(reader, 40):
                    partitions.setdefault(record.key or b"", set()).add(tp.partition)

    assert len(partitions) == 20
    assert all(len(found) == 1 for found in partitions.values())
    assert len(set.union(*partitions.values())) > 1


async def test_a_named_partition_wins_over_the_key(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 4)
        await producer.publish([Output(topic, b"one key", b"%d" % i, i) for i in range(4)])
        async with log.reader(topic, "beginning") as reader:
            found = await take(reader, 4)

    assert {(tp.partition, record.value) for tp, record in found} == {
        (i, b"%d" % i) for i in range(4)
    }


async def test_keys_values_and_times_come_back_as_they_went_in(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 1)
        started_at = time.time()
        await producer.publish(
            [Output(topic, b"k\x00\xff", b"v\x00\xff"), Output(topic, None, b"")]
        )
        async with log.reader(topic, "beginning") as reader:
            records = [record for _, record in await take(reader, 2)]

    assert [(record.key, record.value) for record in records] == [
        (b"k\x00\xff", b"v\x00\xff"),
        (None, b""),
    ]
    for record in records:
        assert started_at - 1 <= record.timestamp / 1000 <= time.time() + 1


async def test_what_publish_acknowledged_is_there_when_it_returns(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        async with log.reader(topic, "beginning") as reader:
            assert await reader.ends() == {0: 0, 1: 0}
            for i in range(1, 4):
                await producer.publish(numbered(topic, range(10), 2))
                assert await reader.ends() == {0: 5 * i, 1: 5 * i}
            await take(reader, 30)


async def test_publishing_nothing_is_no_error(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 1)
        await producer.publish([])
        async with log.reader(topic, "beginning") as reader:
            assert await reader.ends() == {0: 0}


async def test_a_reader_starts_at_the_beginning_the_end_or_given_offsets(
    log: Log, topic: str
) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(10), 2))
        async with (
            log.reader(topic, "beginning") as whole,
            log.reader(topic, "end") as tail,
            log.reader(topic, {0: 3, 1: 5}) as chosen,
            log.reader(topic, {1: 4}) as half,
        ):
            assert whole.positions == {0: 0, 1: 0}
            assert tail.positions == {0: 5, 1: 5}
            assert chosen.positions == {0: 3, 1: 5}
            assert half.positions == {0: 0, 1: 4}
            await producer.publish(numbered(topic, range(10, 12), 2))

            assert len(await take(whole, 12)) == 12
            assert {r.value for _, r in await take(tail, 2)} == {b"10", b"11"}
            assert {r.value for _, r in await take(chosen, 4)} == {b"6", b"8", b"10", b"11"}
            assert len(await take(half, 6 + 2)) == 8
            assert whole.positions == tail.positions == chosen.positions == {0: 6, 1: 6}


async def test_a_reader_takes_no_more_than_it_was_asked_for(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(20), 2))
        async with log.reader(topic, "beginning") as reader:
            found: list[bytes] = []
            with anyio.fail_after(DEADLINE):
                while len(found) < 20:
                    polled = await reader.poll(max_records=3, timeout=0.2)
                    assert len(values(polled)) <= 3
                    found += values(polled)
                    assert sum(reader.positions.values()) == len(found)

    assert sorted(found, key=number) == texts(range(20))


# Topics and lag


async def test_topics_that_exist_are_left_as_they_are(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(4), 2))
        await log.create_topics([topic, f"{topic}-b"], 3)

        assert await log.partition_counts([topic, f"{topic}-b"]) == {topic: 2, f"{topic}-b": 3}
        async with log.reader(topic, "beginning") as reader:
            await take(reader, 4)


async def test_topics_that_do_not_exist_have_no_partition_count(log: Log, topic: str) -> None:
    async with log:
        await log.create_topics([topic], 2)

        assert await log.partition_counts([topic, f"{topic}-none"]) == {topic: 2}
        assert await log.partition_counts([]) == {}


async def test_lag_counts_what_the_group_has_not_committed(log: Log, topic: str) -> None:
    topics = [topic, f"{topic}-b"]
    async with log, log.producer() as producer:
        await log.create_topics(topics, 2)
        await producer.publish(numbered(topic, range(10), 2))
        await producer.publish(numbered(topics[1], range(4), 2))
        assert await log.lag(topic, topics) == 14

        async with log.consumer(topic, topics) as consumer:
            await take(consumer, 14)
            assert await log.lag(topic, topics) == 14
            epoch = consumer.assignment.epoch
            await consumer.publish([], {TopicPartition(topic, 0): 5}, epoch)
            await consumer.publish([], {TopicPartition(topic, 1): 2}, epoch)

        assert await log.lag(topic, topics) == 7
        assert await log.lag(topic, [topic]) == 3
        assert await log.lag(f"{topic}-other", topics) == 14


async def test_a_consumer_of_a_topic_that_does_not_exist_is_refused(log: Log, topic: str) -> None:
    async with log:
        await log.create_topics([topic], 1)
        with pytest.raises(UsageError, match=f"there is no topic {topic}-none"):
            async with log.consumer(topic, [topic, f"{topic}-none"]):
                pass


async def test_a_reader_of_a_topic_that_does_not_exist_is_refused(log: Log, topic: str) -> None:
    async with log:
        with pytest.raises(UsageError, match=f"there is no topic {topic}"):
            async with log.reader(topic, "beginning"):
                pass


async def test_publishing_to_a_topic_that_does_not_exist_is_refused(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        with pytest.raises(UsageError, match=f"there is no topic {topic}"):
            await producer.publish([Output(topic, b"k", b"v")])


async def test_topics_of_unequal_partition_counts_are_refused(log: Log, topic: str) -> None:
    async with log:
        await log.create_topics([topic], 2)
        await log.create_topics([f"{topic}-b"], 3)
        with pytest.raises(UsageError, match="expected topics of equal partition counts"):
            async with log.consumer(topic, [topic, f"{topic}-b"]):
                pass


# Consumer: polling


async def test_a_new_group_starts_at_the_beginning(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(10), 2))
        async with log.consumer(topic, [topic]) as consumer:
            assert consumer.assignment.partitions == frozenset()
            found = await take(consumer, 10)
            assert await consumer.committed() == {}

        assert sorted((r.value or b"" for _, r in found), key=number) == texts(range(10))
        for partition in range(2):
            offsets = [r.offset for tp, r in found if tp.partition == partition]
            assert offsets == sorted(offsets)


async def test_groups_do_not_disturb_each_other(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(10), 2))
        async with log.consumer(topic, [topic]) as one:
            polled = await take(one, 10)
            await one.publish([], {polled[-1][0]: 5}, one.assignment.epoch)
            async with log.consumer(f"{topic}-g", [topic]) as other:
                await take(other, 10)
                assert await other.committed() == {}


async def test_a_poll_brings_at_most_as_many_records_as_were_asked_for(
    log: Log, topic: str
) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 3)
        await producer.publish(numbered(topic, range(30), 3))
        async with log.consumer(topic, [topic]) as consumer:
            await owning(consumer, 3)
            found: list[bytes] = []
            with anyio.fail_after(DEADLINE):
                while len(found) < 30:
                    assert await consumer.poll(max_records=0, timeout=0) == {}
                    polled = await consumer.poll(max_records=4, timeout=0.2)
                    assert len(values(polled)) <= 4
                    found += values(polled)

    assert sorted(found, key=number) == texts(range(30))


async def test_no_partition_starves_behind_a_long_one(atomic_log: Log, topic: str) -> None:
    async with atomic_log as log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish([Output(topic, None, b"long", 0)] * 200)
        await producer.publish([Output(topic, None, b"short", 1)])
        async with log.consumer(topic, [topic]) as consumer:
            found: list[bytes] = []
            with anyio.fail_after(DEADLINE):
                while b"short" not in found:
                    found += values(await consumer.poll(max_records=10, timeout=0.2))

    assert len(found) < 200


async def test_an_idle_poll_returns_nothing_after_its_timeout(log: Log, topic: str) -> None:
    async with log:
        await log.create_topics([topic], 2)
        async with log.consumer(topic, [topic]) as consumer:
            await owning(consumer, 2)
            started_at = time.monotonic()

            assert await consumer.poll(max_records=10, timeout=0.3) == {}

            assert 0.2 <= time.monotonic() - started_at < 5


async def test_a_poll_that_waits_gets_a_record_as_soon_as_it_is_there(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        async with log.consumer(topic, [topic]) as consumer:
            await owning(consumer, 2)
            started_at = time.monotonic()
            polled: Polled = {}
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(producer.publish, [Output(topic, None, b"now", 1)])
                polled = await consumer.poll(max_records=10, timeout=30)

    assert values(polled) == [b"now"]
    assert time.monotonic() - started_at < 10


async def test_only_the_topics_asked_for_deliver(log: Log, topic: str) -> None:
    live, archive = f"{topic}-live", f"{topic}-archive"
    async with log, log.producer() as producer:
        await log.create_topics([live, archive], 2)
        await producer.publish(numbered(archive, range(10), 2))
        await producer.publish(numbered(live, range(10, 14), 2))
        async with log.consumer(topic, [live, archive]) as consumer:
            found: list[bytes] = []
            with anyio.fail_after(DEADLINE):
                while len(found) < 4:
                    polled = await consumer.poll(max_records=100, timeout=0.2, topics=[live])
                    assert {tp.topic for tp in polled} <= {live}
                    found += values(polled)
            assert await consumer.poll(max_records=100, timeout=0.1, topics=[live]) == {}
            rest = [record.value or b"" for _, record in await take(consumer, 10)]

    assert sorted(found, key=number) == texts(range(10, 14))
    assert sorted(rest, key=number) == texts(range(10))


async def test_co_partitioned_topics_go_to_the_same_member(log: Log, topic: str) -> None:
    topics = [topic, f"{topic}-b"]
    async with log:
        await log.create_topics(topics, 4)
        async with log.consumer(topic, topics) as one, log.consumer(topic, topics) as two:
            members = [Member(one), Member(two)]
            await together(lambda: all(len(m.partitions) == 2 for m in members), *members)

            for member in members:
                assert member.consumer.assignment.partitions == {
                    TopicPartition(name, p) for name in topics for p in member.partitions
                }
            assert members[0].partitions | members[1].partitions == {0, 1, 2, 3}


# Consumer: commits


async def test_what_was_not_committed_is_delivered_again(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 1)
        await producer.publish(numbered(topic, range(10), 1))
        async with log.consumer(topic, [topic]) as consumer:
            await take(consumer, 10)
        async with log.consumer(topic, [topic]) as consumer:
            assert [r.value for _, r in await take(consumer, 10)] == texts(range(10))
            at = {TopicPartition(topic, 0): 4}
            await consumer.publish([], at, consumer.assignment.epoch)
        async with log.consumer(topic, [topic]) as consumer:
            assert [r.value for _, r in await take(consumer, 6)] == texts(range(4, 10))
            assert await consumer.committed() == {TopicPartition(topic, 0): 4}


async def test_what_was_committed_is_not_delivered_again(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(10), 2))
        async with log.consumer(topic, [topic]) as consumer:
            await together(lambda: len(first.values) == 10, first := Member(consumer))
        async with log.consumer(topic, [topic]) as consumer:
            await owning(consumer, 2)
            assert await consumer.poll(max_records=10, timeout=0.3) == {}
            await producer.publish(numbered(topic, range(10, 12), 2))
            assert {r.value for _, r in await take(consumer, 2)} == {b"10", b"11"}


async def test_a_commit_never_moves_an_offset_backwards(log: Log, topic: str) -> None:
    tp = TopicPartition(topic, 0)
    async with log, log.producer() as producer:
        await log.create_topics([topic], 1)
        await producer.publish(numbered(topic, range(10), 1))
        async with log.consumer(topic, [topic]) as consumer:
            await take(consumer, 10)
            for offset in (7, 3, 5):
                await consumer.publish([], {tp: offset}, consumer.assignment.epoch)
        async with log.consumer(topic, [topic]) as consumer:
            await take(consumer, 3)
            await consumer.publish([], {tp: 2}, consumer.assignment.epoch)
        async with log.consumer(topic, [topic]) as consumer:
            await take(consumer, 3)
            assert await consumer.committed() == {tp: 7}


async def test_outputs_are_acknowledged_when_publish_returns(log: Log, topic: str) -> None:
    out = f"{topic}-out"
    async with log, log.producer() as producer:
        await log.create_topics([topic, out], 2)
        await producer.publish(numbered(topic, range(10), 2))
        async with log.consumer(topic, [topic]) as consumer, log.reader(out, "end") as reader:
            await take(consumer, 10)
            epoch = consumer.assignment.epoch
            commit = {TopicPartition(topic, p): 5 for p in range(2)}
            await consumer.publish(numbered(out, range(6), 2), commit, epoch)

            assert await reader.ends() == {0: 3, 1: 3}
        assert await log.lag(topic, [topic]) == 0


async def test_polling_and_publishing_go_on_side_by_side(log: Log, topic: str) -> None:
    out = f"{topic}-out"
    async with log, log.producer() as producer:
        await log.create_topics([topic, out], 2)
        async with log.consumer(topic, [topic]) as consumer:
            await owning(consumer, 2)

            async def produce() -> None:
                for start in range(0, 100, 10):
                    await producer.publish(numbered(topic, range(start, start + 10), 2))

            async def forward(polled: Polled) -> None:
                outputs = [
                    Output(out, None, value, tp.partition)
                    for tp, records in polled.items()
                    for value in values({tp: records})
                ]
                await consumer.publish(outputs, ends(polled), consumer.assignment.epoch)

            with anyio.fail_after(DEADLINE):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(produce)
                    seen = 0
                    while seen < 100:
                        polled = await consumer.poll(max_records=7, timeout=0.2)
                        seen += len(values(polled))
                        tasks.start_soon(forward, polled)
        async with log.reader(out, "beginning") as reader:
            found = [record.value or b"" for _, record in await take(reader, 100)]

        assert sorted(found, key=number) == texts(range(100))
        assert await log.lag(topic, [topic]) == 0


@pytest.mark.parametrize(
    "bad",
    [Output("no-such-topic", None, b"x"), Output("{topic}-out", None, b"x", 7)],
    ids=["unknown topic", "unknown partition"],
)
async def test_outputs_and_offsets_are_one_transaction(
    atomic_log: Log, topic: str, bad: Output
) -> None:
    out, log = f"{topic}-out", atomic_log
    bad = bad._replace(topic=bad.topic.format(topic=topic))
    async with log, log.producer() as producer:
        await log.create_topics([topic, out], 2)
        await producer.publish(numbered(topic, range(10), 2))
        async with log.consumer(topic, [topic]) as consumer:
            await take(consumer, 10)
            commit = {TopicPartition(topic, 0): 5}
            with pytest.raises(RoadstreamError, match=r"there is no topic|expected 0 to 1"):
                await consumer.publish(
                    [*numbered(out, range(4), 2), bad], commit, consumer.assignment.epoch
                )

            assert await consumer.committed() == {}
            async with log.reader(out, "beginning") as reader:
                assert await reader.ends() == {0: 0, 1: 0}


# Consumer: the group


async def test_members_share_partitions_and_hand_over_without_loss(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 4)
        async with log.consumer(topic, [topic]) as consumer:
            first = Member(consumer)
            await producer.publish(numbered(topic, range(100), 4))
            await together(lambda: len(first.values) == 100, first)
            async with log.consumer(topic, [topic]) as other:
                second = Member(other)
                await together(
                    lambda: len(first.partitions) == 2 == len(second.partitions), first, second
                )
                assert first.partitions.isdisjoint(second.partitions)
                await producer.publish(numbered(topic, range(100, 200), 4))
                await together(lambda: len(first.values) + len(second.values) == 200, first, second)
            await together(lambda: len(first.partitions) == 4, first)
            await producer.publish(numbered(topic, range(200, 300), 4))
            await together(lambda: len(first.values) + len(second.values) == 300, first)

        assert sorted(first.values + second.values, key=number) == texts(range(300))
        assert await log.lag(topic, [topic]) == 0


async def test_the_next_owner_does_again_what_was_not_committed(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(20), 2))
        async with log.consumer(topic, [topic]) as consumer:
            first = Member(consumer, commits=False)
            await together(lambda: len(first.values) == 20, first)
            async with log.consumer(topic, [topic]) as other:
                second = Member(other)
                await together(lambda: len(second.values) == 10, first, second)

                (lost,) = second.partitions
                assert second.values == texts(range(lost, 20, 2))


async def test_more_members_than_partitions_leave_some_idle(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 1)
        async with log.consumer(topic, [topic]) as one, log.consumer(topic, [topic]) as two:
            members = [Member(one), Member(two)]
            await producer.publish(numbered(topic, range(10), 1))
            await together(lambda: sum(len(m.values) for m in members) >= 10, *members)

            assert sorted(len(member.partitions) for member in members) == [0, 1]
            assert sorted(members[0].values + members[1].values, key=number) == texts(range(10))


async def test_a_stale_epoch_commits_nothing(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(20), 2))
        async with log.consumer(topic, [topic]) as consumer:
            first = Member(consumer, commits=False)
            await together(lambda: len(first.values) == 20, first)
            before = consumer.assignment
            async with log.consumer(topic, [topic]) as other:
                second = Member(other, commits=False)
                await together(
                    lambda: len(first.partitions) == 1 == len(second.partitions), first, second
                )
                assert consumer.assignment.epoch > before.epoch
                try:
                    await consumer.publish([], dict.fromkeys(before.partitions, 10), before.epoch)
                except FencedError as error:
                    assert "no longer owns what it commits" in str(error)  # noqa: PT017

        assert await log.lag(topic, [topic]) == 20


async def test_the_listener_hears_of_partitions_before_their_records_and_before_they_go(
    log: Log, topic: str
) -> None:
    heard = Heard()
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(10), 2))
        async with log.consumer(topic, [topic], listener=heard) as consumer:
            heard.consumer = consumer
            first = Member(consumer)
            await together(lambda: len(first.values) > 0, first)
            whole = frozenset(TopicPartition(topic, p) for p in range(2))
            epoch = consumer.assignment.epoch
            assert heard.calls == [("assigned", whole, epoch)]
            async with log.consumer(topic, [topic]) as other:
                second = Member(other)
                await together(lambda: len(second.partitions) == 1, first, second)
                await together(lambda: len(first.partitions) == 1, first, second)

                assert heard.calls[1] == ("revoked", whole, epoch)
                what, partitions, later = heard.calls[-1]
                assert (what, partitions) == ("assigned", consumer.assignment.partitions)
                assert later == consumer.assignment.epoch > epoch

    kinds = [what for what, _, _ in heard.calls]
    assert kinds[:2] == ["assigned", "revoked"]
    assert all(a != b for a, b in itertools.pairwise(kinds))


async def test_work_finished_while_partitions_are_revoked_is_committed(
    log: Log, topic: str
) -> None:
    class Finishing(Heard):
        async def revoked(self, partitions: Collection[TopicPartition]) -> None:
            await super().revoked(partitions)
            if first.values:
                commit = dict.fromkeys(partitions, 5)
                outputs = [Output(f"{topic}-out", None, b"done", 0)]
                await consumer.publish(outputs, commit, consumer.assignment.epoch)

    heard = Finishing()
    async with log, log.producer() as producer:
        await log.create_topics([topic, f"{topic}-out"], 2)
        await producer.publish(numbered(topic, range(10), 2))
        async with log.consumer(topic, [topic], listener=heard) as consumer:
            heard.consumer = consumer
            first = Member(consumer, commits=False)
            await together(lambda: len(first.values) == 10, first)
            async with log.consumer(topic, [topic]) as other:
                second = Member(other)
                await together(lambda: len(second.partitions) == 1, first, second)
                await second.step()

                assert second.values == []
        assert await log.lag(topic, [topic]) == 0
        async with log.reader(f"{topic}-out", "beginning") as reader:
            assert (await reader.ends())[0] >= 1


async def test_a_static_member_takes_its_partitions_back_at_once(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 4)
        async with log.consumer(topic, [topic], member_id="stays") as one:
            stays = Member(one)
            async with log.consumer(topic, [topic], member_id="leaves") as two:
                leaves = Member(two)
                await together(
                    lambda: len(stays.partitions) == 2 == len(leaves.partitions), stays, leaves
                )
                owned = leaves.partitions
            async with log.consumer(topic, [topic], member_id="leaves") as again:
                back = Member(again)
                await producer.publish(numbered(topic, range(40), 4))
                started_at = time.monotonic()
                await together(lambda: len(back.partitions) == 2, stays, back)
                assert time.monotonic() - started_at < 5
                await together(lambda: len(stays.values + back.values) >= 40, stays, back)

                assert back.partitions == owned
                assert {*stays.values, *back.values} == set(texts(range(40)))


async def test_an_error_inside_a_consumers_block_comes_out_as_it_is(log: Log, topic: str) -> None:
    async def fail() -> None:
        async with log.consumer(topic, [topic]) as consumer:
            await owning(consumer, 1)
            raise OutputError("disk full")

    async with log:
        await log.create_topics([topic], 1)
        with pytest.raises(OutputError, match="disk full"):
            await fail()


async def test_the_older_of_two_instances_under_one_name_owns_nothing(
    atomic_log: Log, topic: str
) -> None:
    async with atomic_log as log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(10), 2))
        async with log.consumer(topic, [topic], member_id="same") as older:
            zombie = Member(older, commits=False)
            await together(lambda: len(zombie.values) == 10, zombie)
            stale = older.assignment
            async with log.consumer(topic, [topic], member_id="same") as newer:
                await zombie.step()
                await together(lambda: len(fresh.values) == 10, fresh := Member(newer), zombie)

                assert older.assignment.partitions == frozenset()
                with pytest.raises(FencedError, match="no longer owns what it commits"):
                    await older.publish([], dict.fromkeys(stale.partitions, 5), stale.epoch)
            assert len(zombie.values) == 10


async def test_a_static_member_that_died_is_replaced_at_once(atomic_log: Log, topic: str) -> None:
    async with atomic_log as log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(10), 2))
        async with log.consumer(topic, [topic], member_id="same") as dead:
            await take(dead, 10)
            started_at = time.monotonic()
            async with log.consumer(topic, [topic], member_id="same") as heir:
                assert len(await take(heir, 10)) == 10
                assert time.monotonic() - started_at < 5
