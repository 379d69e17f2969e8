"""Records that a topic of a real broker refuses: named, with all others acknowledged."""

from collections.abc import Collection

import anyio
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from roadstream.schemas import codec
from roadstream.schemas.errors import RecordRefusedError
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.records.votes import Escalation, ImageVotes, MemberRun, VotesPack
from roadstream.schemas.topics import VOTES, tier
from roadstream.streams.group.member import GroupMember, GroupMemberOptions
from roadstream.streams.kafka.log import KafkaLog
from roadstream.streams.kafka.settings import KafkaSettings
from roadstream.streams.log import Output, TopicPartition
from roadstream.streams.topics.namespace import NamespacedLog
from tests.kits.contract import DEADLINE, take

pytestmark = pytest.mark.kafka
SMALL = 20_000
FIRST, SECOND = "images.archive", tier("second", "archive")


class Idle:
    """An owner with nothing to prepare or to finish."""

    async def take_over(self, partitions: Collection[TopicPartition]) -> None:
        pass

    async def give_up(self, partitions: Collection[TopicPartition]) -> None:
        pass


async def limit(servers: str, topic: str, partitions: int) -> None:
    """Make a topic that takes no batch above ``SMALL`` bytes, as somebody's automation may."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        wanted = {"max.message.bytes": str(SMALL)}
        await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=wanted)])
    finally:
        await admin.close()


def log_of(servers: str) -> KafkaLog:
    return KafkaLog(KafkaSettings(bootstrap_servers=servers, replication_factor=1))


async def test_only_what_is_too_large_alone_is_refused_and_the_rest_is_there_once(
    kafka_bootstrap: str, topic: str
) -> None:
    sizes = [500] * 60 + [SMALL + 1000] + [700] * 30 + [2 * SMALL] + [9]
    async with log_of(kafka_bootstrap) as log, log.producer() as producer:
        await limit(kafka_bootstrap, topic, 2)
        await log.create_topics([topic], 2)
        outputs = [
            Output(topic, None, b"%04d" % i + bytes(size), i % 2) for i, size in enumerate(sizes)
        ]
        with pytest.raises(RecordRefusedError) as raised:
            await producer.publish(outputs)
        await producer.publish([Output(topic, None, b"after", 0)])
        async with log.reader(topic, "beginning") as reader:
            found = [(record.value or b"")[:4] for _, record in await take(reader, 92)]

    refused = raised.value.refused
    assert [(one.row, one.size, one.limit) for one in refused] == [
        (60, SMALL + 1004, SMALL), (91, 2 * SMALL + 4, SMALL)
    ]  # fmt: skip
    assert str(raised.value) == (
        f"{topic} refuses a record of 21,004 bytes: expected at most 20,000 (and 1 more)"
    )
    kept = [b"%04d" % i for i in range(len(sizes)) if i not in {60, 91}]
    assert sorted(found) == sorted([*kept, b"afte"])


async def test_an_escalation_that_does_not_fit_ends_with_its_votes_and_is_committed(
    kafka_bootstrap: str, topic: str
) -> None:
    head = Head(image_id="a", uri="a.jpg")
    picture = Inline(bytes(2 * SMALL))
    run = MemberRun("m", "1", 1.0, True, 0.1, 1)
    said = ImageVotes(head, [1.0], [0.7], "second")
    pack = VotesPack(
        tier="first", cascade="c", cascade_hash="h", sent_at=1.0, runs=[run], images=[said]
    )
    async with (
        NamespacedLog(log_of(kafka_bootstrap), topic) as log,
        log.producer() as producer,
    ):
        await limit(kafka_bootstrap, f"{topic}.{SECOND}", 1)
        await log.create_topics([FIRST, SECOND, VOTES], 1)
        await producer.publish([Output(FIRST, b"a", codec.encode(Image(head, picture)), 0)])
        member = GroupMember(Idle(), "worker", "g", [FIRST], GroupMemberOptions())
        async with member.joined(log):
            with anyio.fail_after(DEADLINE):
                while not (polled := await member.poll(max_records=10, timeout=0.5)):
                    continue
            outputs = [
                Output(VOTES, None, codec.encode(pack), 0),
                Output(SECOND, b"a", codec.encode(Escalation(head, picture, [])), 0),
            ]
            tp = TopicPartition(FIRST, 0)
            assert await member.finish(outputs, {tp: [polled[tp][0].offset]}, member.epoch)
        assert await log.committed("g", [FIRST]) == {tp: 1}
        async with log.reader(VOTES, "beginning") as reader:
            packs = [codec.decode_votes(r.value or b"") for _, r in await take(reader, 2)]

    assert member.stats.refused == 1
    assert [one.images[0].next_tier for one in packs] == ["second", None]
    assert (packs[1].images[0].error or "").startswith(
        f"too_large: {topic}.{SECOND} refuses a record"
    )
