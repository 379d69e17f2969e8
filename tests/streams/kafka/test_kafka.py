"""What is particular to Kafka; what all logs have in common is in ``test_log_contract.py``."""

import time
import uuid
from collections.abc import Callable
from contextlib import suppress

import anyio
import pytest
from aiokafka.errors import OutOfOrderSequenceNumber

from roadstream.schemas.errors import LogUnavailableError, RecordRefusedError, UsageError
from roadstream.streams.kafka.log import KafkaLog, KafkaSettings
from roadstream.streams.kafka.producer import KafkaProducer, murmur2
from roadstream.streams.log import Output, Reader
from tests.kits.contract import Member, numbered, texts, together, values

DEADLINE = 30.0
"""Seconds after which a condition that never comes true fails a test."""


@pytest.fixture
def settings(kafka_bootstrap: str) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=kafka_bootstrap, session_timeout=6.0, drain_timeout=5.0, stop_timeout=3.0
    )


@pytest.fixture
def topic() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


async def read_all(reader: Reader, count: int) -> list[bytes | None]:
    found: list[bytes | None] = []
    with anyio.fail_after(DEADLINE):
        while len(found) < count:
            found += values(await reader.poll(max_records=1000, timeout=0.2))
    return found


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_keys_hash_as_in_kafkas_own_client(key: bytes, expected: int) -> None:
    # The cases of Kafka's UtilsTest.testMurmur2; Java's int is signed.
    assert murmur2(key) == expected & 0xFFFFFFFF


async def test_an_absent_broker_is_named_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    started_at = time.monotonic()

    with pytest.raises(LogUnavailableError, match=r"no Kafka broker answers at 127\.0\.0\.1:9 "):
        async with KafkaLog(KafkaSettings(bootstrap_servers="127.0.0.1:9")):
            pass

    assert time.monotonic() - started_at < 6
    assert capfd.readouterr().err == ""


async def test_a_server_that_never_answers_is_given_up_in_time() -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as silent:
        port = silent.extra(anyio.abc.SocketAttribute.local_port)
        settings = KafkaSettings(bootstrap_servers=f"127.0.0.1:{port}", connect_timeout=0.5)

        with pytest.raises(LogUnavailableError, match=r"nothing came within 0\.5 s"):
            async with KafkaLog(settings):
                pass


@pytest.mark.kafka
async def test_publish_returns_after_every_record_is_in_the_log(
    settings: KafkaSettings, topic: str
) -> None:
    async with KafkaLog(settings) as log, log.producer() as producer:
        await log.create_topics([topic], 4)
        async with log.reader(topic, "end") as reader:
            await producer.publish(numbered(topic, range(4000), 4))

            assert await reader.ends() == dict.fromkeys(range(4), 1000)


@pytest.mark.kafka
async def test_concurrent_publishers_share_batches_and_keep_their_order(
    settings: KafkaSettings, topic: str
) -> None:
    async def publish(name: bytes) -> None:
        for i in range(20):
            await producer.publish([Output(topic, name, b"%s %d" % (name, i), 0)])

    async with KafkaLog(settings) as log, log.producer() as producer:
        await log.create_topics([topic], 1)
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(publish, b"%d" % number)
        async with log.reader(topic, "beginning") as reader:
            found = await read_all(reader, 400)

    for number in range(20):
        mine = [value for value in found if value and value.startswith(b"%d " % number)]
        assert mine == [b"%d %d" % (number, i) for i in range(20)]


@pytest.mark.kafka
async def test_a_record_of_five_megabytes_arrives_whole(
    settings: KafkaSettings, topic: str
) -> None:
    picture = bytes(range(256)) * (5 * 2**20 // 256)
    async with KafkaLog(settings) as log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish([Output(topic, b"k", b"before", 1), Output(topic, b"k", picture, 1)])
        async with log.reader(topic, "beginning") as reader:
            assert await read_all(reader, 2) == [b"before", picture]


@pytest.mark.kafka
async def test_a_record_beyond_the_limit_is_refused_with_both_sizes(
    settings: KafkaSettings, topic: str
) -> None:
    async with KafkaLog(settings) as log, log.producer() as producer:
        await log.create_topics([topic], 1)

        sizes = r"record of 9,437,184 bytes: expected at most 8,454,016"
        with pytest.raises(RecordRefusedError, match=sizes):
            await producer.publish([Output(topic, None, bytes(9 * 2**20))])

        await producer.publish([Output(topic, None, bytes(8 * 2**20))])

        much = (("note", bytes(200)),)  # which the producer does not count
        with pytest.raises(RecordRefusedError, match=r"of 8,454,000 bytes: expected at most"):
            await producer.publish([Output(topic, None, bytes(8_454_000), None, much)])
        await producer.publish([Output(topic, None, bytes(8 * 2**20), None, much)])


@pytest.mark.kafka
async def test_a_record_beyond_the_brokers_limit_is_refused_for_good(
    settings: KafkaSettings, topic: str, kafka_bootstrap: str
) -> None:
    narrow = KafkaSettings(bootstrap_servers=kafka_bootstrap, max_record_bytes=100_000)
    async with KafkaLog(narrow) as log:
        await log.create_topics([topic], 1)
    async with KafkaLog(settings) as log, log.producer() as producer:
        sizes = f"{topic} refuses a record of 200,000 bytes: expected at most 100,000"
        with pytest.raises(RecordRefusedError, match=sizes):
            await producer.publish([Output(topic, None, bytes(200_000))])

        await producer.publish([Output(topic, None, b"small")])


@pytest.mark.kafka
async def test_a_topic_that_does_not_exist_is_named(settings: KafkaSettings, topic: str) -> None:
    async with KafkaLog(settings) as log, log.producer() as producer:
        with pytest.raises(UsageError, match=f"there is no topic {topic}"):
            await producer.publish([Output(topic, None, b"lost")])
        with pytest.raises(UsageError, match=f"there is no topic {topic}"):
            async with log.consumer("g", [topic]):
                pass
        assert await log.partition_counts([topic]) == {}


@pytest.mark.kafka
async def test_a_producer_is_rebuilt_after_a_fatal_error(
    settings: KafkaSettings, topic: str
) -> None:
    async with KafkaLog(settings) as log, log.producer() as producer:
        await log.create_topics([topic], 1)
        assert isinstance(producer, KafkaProducer)
        broken = producer._client
        assert broken is not None
        broken._message_accumulator.fail_all(OutOfOrderSequenceNumber())

        with pytest.raises(LogUnavailableError, match="OutOfOrderSequenceNumber"):
            await producer.publish([Output(topic, None, b"refused")])
        await producer.publish([Output(topic, None, b"taken")])

        async with log.reader(topic, "beginning") as reader:
            assert await read_all(reader, 1) == [b"taken"]


@pytest.mark.kafka
async def test_a_static_member_that_comes_back_disturbs_nobody(
    settings: KafkaSettings, topic: str
) -> None:
    async with KafkaLog(settings) as log, log.producer() as producer:
        await log.create_topics([topic], 4)
        async with log.consumer(topic, [topic], member_id="worker-1") as one:
            stays = Member(one)
            with suppress(LogUnavailableError):
                async with log.consumer(topic, [topic], member_id="worker-2") as two:
                    leaves = Member(two)
                    await together(
                        lambda: len(stays.partitions) == 2 == len(leaves.partitions), stays, leaves
                    )
                    raise LogUnavailableError("an outage, say")
            epoch, owned = stays.consumer.assignment.epoch, leaves.partitions
            async with log.consumer(topic, [topic], member_id="worker-2") as again:
                back = Member(again)
                await producer.publish(numbered(topic, range(40), 4))
                await together(lambda: len(back.values + stays.values) == 40, stays, back)

                assert back.partitions == owned
                assert stays.consumer.assignment.epoch == epoch


@pytest.mark.kafka
async def test_a_spare_member_takes_over_when_the_owner_leaves(
    settings: KafkaSettings, topic: str
) -> None:
    async def live(leaving: anyio.Event) -> None:
        async with log.consumer(topic, [topic]) as consumer:
            members[leaving] = member = Member(consumer)
            while not leaving.is_set():
                await member.step()
        left.append(leaving)

    async def until(condition: Callable[[], bool]) -> None:
        with anyio.fail_after(DEADLINE):
            while not condition():  # noqa: ASYNC110 (two members poll meanwhile)
                await anyio.sleep(0.02)

    members, left = dict[anyio.Event, Member](), list[anyio.Event]()
    async with KafkaLog(settings) as log, log.producer() as producer:
        await log.create_topics([topic], 1)
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(live, anyio.Event())
            await until(
                lambda: (
                    len(members) == 2
                    and all(m.consumer.assignment.epoch for m in members.values())
                    and sum(len(m.partitions) for m in members.values()) == 1
                )
            )
            await producer.publish(numbered(topic, range(5), 1))
            await until(lambda: sum(len(m.values) for m in members.values()) == 5)
            owner, spare = sorted(members, key=lambda one: not members[one].partitions)
            assert (members[owner].values, members[spare].values) == (texts(range(5)), [])

            owner.set()
            await until(lambda: left == [owner])
            await producer.publish(numbered(topic, range(5, 10), 1))
            await until(lambda: len(members[spare].values) == 5)
            spare.set()

    assert members[spare].values == texts(range(5, 10))


@pytest.mark.kafka
async def test_a_cancelled_member_leaves_the_group_at_once(
    settings: KafkaSettings, topic: str
) -> None:
    async def poll_for_ever() -> None:
        async with log.consumer(topic, [topic]) as consumer:
            cancelled = Member(consumer)
            while True:
                await cancelled.step()
                if cancelled.values:
                    started.set()

    started = anyio.Event()
    async with KafkaLog(settings) as log, log.producer() as producer:
        await log.create_topics([topic], 1)
        await producer.publish(numbered(topic, range(5), 1))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(poll_for_ever)
            await started.wait()
            tasks.cancel_scope.cancel()
        async with log.consumer(topic, [topic]) as consumer:
            next_owner = Member(consumer)
            await producer.publish(numbered(topic, range(1), 1))
            with anyio.fail_after(settings.session_timeout / 2):
                await together(lambda: bool(next_owner.values), next_owner)

    assert next_owner.values == [b"0"]  # what the other had published was committed
