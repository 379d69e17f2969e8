"""A cluster with ACLs: what docs/guide/kafka.md grants is enough, and each is needed and named."""

import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import anyio
import pytest
import structlog.testing
from anyio.from_thread import start_blocking_portal

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import ForbiddenError, RoadstreamError, UsageError
from roadstream.schemas.topics import ANSWERS, CASCADES, VOTES, tier_group
from roadstream.sinks.files.readers import read_answers
from roadstream.streams.kafka.log import KafkaLog
from roadstream.streams.kafka.settings import KafkaSettings
from roadstream.streams.log import Log, Output, Reader, TopicPartition
from roadstream.workers.service.access.rights import (
    to_decide,
    to_produce,
    to_read,
    to_verify,
    to_work,
)
from roadstream.workers.service.access.topics import create_topics, enter, settings_faults
from roadstream.workers.tier.presence import Presence
from tests.kits.acl_kit import (
    PASSWORD,
    Acl,
    Guarded,
    documented,
    grant,
    guarded_broker,
    settings_file,
    take,
)
from tests.kits.command import roadstream, started, wait_for_answers, write_pictures
from tests.kits.kafka_fixture import give_up

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]
PAGE = Path(__file__).parents[4] / "docs/guide/kafka.md"
DOCUMENTED = documented(PAGE.read_text())
CASCADE = """
name = "lite"
threshold = 0.5
""" + "".join(
    f'[[tiers]]\nname = "{name}"\n[[tiers.members]]\nname = "{name}-one"\nengine = "noop"\n'
    for name in ("glance", "look", "closer")
)
PATIENCE = 30
Act = Callable[[], Awaitable[object]]
PASSWORD_VARIABLE = "ROADSTREAM_KAFKA_PASSWORD"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    """A broker whose topics exist and on which the documented rights are given."""
    with start_blocking_portal() as portal:
        running = portal.wrap_async_context_manager(guarded_broker())
        try:
            broker = running.__enter__()
        except RoadstreamError as error:
            give_up(str(error))
        try:
            portal.call(grant, broker.open, DOCUMENTED)
            yield broker
        finally:
            running.__exit__(None, None, None)


@pytest.fixture
def cascade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cascade:
    """The tiers of ``lite``, with models that do nothing."""
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    (tmp_path / "lite.toml").write_text(CASCADE)
    return load_cascade(str(tmp_path / "lite.toml"))


def log_as(user: str, guarded: Guarded) -> KafkaLog:
    return KafkaLog(
        KafkaSettings(
            bootstrap_servers=guarded.sasl,
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="PLAIN",
            sasl_username=user,
        )
    )


async def make_topics(log: Log, cascade: Cascade) -> None:
    await create_topics(log, cascade, 1)
    await settings_faults(log, cascade)


async def produces(log: Log, cascade: Cascade) -> None:
    await enter(log, cascade, to_produce(cascade, "archive"))


async def works(log: Log, cascade: Cascade) -> None:
    await enter(log, cascade, to_work(cascade, cascade.tier_names))


async def decides(log: Log, cascade: Cascade) -> None:
    await enter(log, cascade, to_decide(cascade))


async def follows(log: Log, _: Cascade) -> None:
    await log.check_rights(to_read(ANSWERS))


async def verifies(log: Log, cascade: Cascade) -> None:
    await log.check_rights(to_verify(cascade))


BEGIN = {
    "operator": make_topics,
    "producer": produces,
    "worker": works,
    "consensus": decides,
    "reader": follows,
    "auditor": verifies,
}
"""What the command of each documented user asks of the log before it does anything."""


def kafkas_word(operation: str) -> str:
    return {"DescribeConfigs": "DESCRIBE_CONFIGS"}.get(operation, operation.upper())


async def refused(act: Act) -> str:
    """Try until it is refused, since an authorizer hears of a right with a delay; return why."""
    with anyio.fail_after(PATIENCE):
        while True:
            try:
                await act()
            except ForbiddenError as error:
                return str(error)


async def allowed(act: Act) -> None:
    """Try until it is allowed, likewise."""
    with anyio.fail_after(PATIENCE):
        while True:
            try:
                await act()
            except ForbiddenError:
                await anyio.sleep(0.02)
            else:
                return


async def is_needed(guarded: Guarded, acl: Acl, act: Act, *named: str) -> None:
    """Take a right, see that its lack is named, give it back, and see that it suffices."""
    await take(guarded.open, [acl])
    said = await refused(act)
    await grant(guarded.open, [acl])
    for right in named or [f"{kafkas_word(acl.operation)} on {acl.resource} {acl.name}"]:
        assert said.startswith(f"Kafka refuses user {acl.user}: missing right {right}"), said
    await allowed(act)


def test_topics_are_not_made_without_the_right_and_it_is_named(
    guarded: Guarded, cascade: Cascade
) -> None:
    lacking = Acl("operator", "Create", "topic", "images.", prefixed=True)

    async def check() -> None:
        async with log_as("operator", guarded) as log:
            await is_needed(guarded, lacking, partial(make_topics, log, cascade))

    anyio.run(check)


@pytest.mark.parametrize(
    "user", ["operator", "producer", "worker", "consensus", "reader", "auditor"]
)
def test_each_documented_right_is_needed_and_named(
    guarded: Guarded, cascade: Cascade, user: str
) -> None:
    acls = [acl for acl in DOCUMENTED if acl.user == user and acl.name != CASCADES]

    async def check() -> None:
        async with log_as("operator", guarded) as log:
            await make_topics(log, cascade)
        async with log_as(user, guarded) as log:
            act = partial(BEGIN[user], log, cascade)
            await act()
            for acl in acls:
                if acl.operation != "Create":  # they exist by now
                    await is_needed(guarded, acl, act)

    assert len(acls) > 0
    anyio.run(check)


def test_without_a_right_on_cascades_it_goes_on_with_a_warning_that_names_it(
    guarded: Guarded, cascade: Cascade
) -> None:
    lacking = Acl("operator", "Read", "topic", CASCADES)

    async def check() -> None:
        async with log_as("operator", guarded) as log:
            await make_topics(log, cascade)
            await take(guarded.open, [lacking])
            warnings: list[str] = []
            with anyio.fail_after(PATIENCE), structlog.testing.capture_logs() as logs:
                while not warnings:
                    await make_topics(log, cascade)
                    warnings = [e["reason"] for e in logs if e["event"] == "owner_unchecked"]
            await grant(guarded.open, [lacking])
        assert "missing right READ on topic cascades;" in warnings[0]

    anyio.run(check)


def test_a_right_that_is_lost_while_running_is_named(guarded: Guarded, cascade: Cascade) -> None:
    group, topic = tier_group("glance"), "images.archive"
    to_write = Acl("worker", "Write", "topic", VOTES)
    to_read = Acl("worker", "Read", "topic", topic)
    to_join = Acl("worker", "Read", "group", group)

    async def check() -> None:
        async with log_as("operator", guarded) as log:
            await make_topics(log, cascade)
        async with log_as("worker", guarded) as log, log.producer() as producer:
            begin = {TopicPartition(topic, 0): 0}
            write = partial(producer.publish, [Output(VOTES, None, b"x")])
            await write()
            await is_needed(guarded, to_write, write)
            await producer.publish([Output("tier.look.archive", None, b"x")])
            await is_needed(
                guarded,
                to_join,
                partial(log.committed, group, [topic]),
                f"DESCRIBE on group {group}",
            )
            await is_needed(guarded, to_join, partial(log.commit, group, begin))
            await is_needed(guarded, to_join, partial(joins, log, group))
            async with log.reader(VOTES, "beginning") as reader:
                assert "missing right READ on topic votes;" in await refused(partial(reads, reader))
            await take(guarded.open, [to_read])
            said = await refused(partial(joins, log, group))
            await grant(guarded.open, [to_read])
            assert f"missing right DESCRIBE on topic {topic};" in said

    anyio.run(check)


async def joins(log: Log, group: str) -> None:
    async with log.consumer(group, ["images.archive"]) as consumer:
        while not consumer.assignment.partitions:
            await consumer.poll(max_records=1, timeout=0.5)


async def reads(reader: Reader) -> None:
    await reader.poll(max_records=1, timeout=0.5)


def test_a_producer_that_may_write_nothing_is_told_so_and_not_that_no_broker_answers(
    guarded: Guarded, cascade: Cascade
) -> None:
    async def check() -> None:
        async with log_as("nobody", guarded) as log:
            with pytest.raises(ForbiddenError, match=r"IDEMPOTENT_WRITE on cluster \(or WRITE on"):
                await log.producer().__aenter__()

    anyio.run(check)


def test_who_may_not_ask_whether_a_tier_is_worked_for_is_told_so_and_takes_it_as_worked_for(
    guarded: Guarded, cascade: Cascade
) -> None:
    group = tier_group("closer")

    async def check() -> None:
        async with log_as("nobody", guarded) as log:
            with pytest.raises(ForbiddenError, match=f"DESCRIBE on group {group};"):
                await log.silence(group)
            with structlog.testing.capture_logs() as logs:
                presence = Presence(log, "look")
                presence.watch({"closer": 0.1})
                for _ in range(3):
                    await presence.look()
                    await anyio.sleep(0.1)
        assert presence.down == frozenset()
        (said,) = [line["error"] for line in logs if line["event"] == "tier_unwatched"]
        assert f"missing right DESCRIBE on group {group};" in said

    anyio.run(check)


def test_a_topic_that_may_be_described_and_is_not_there_is_missing(
    guarded: Guarded, cascade: Cascade
) -> None:
    async def check() -> None:
        async with log_as("operator", guarded) as log:
            with pytest.raises(UsageError, match=r"^there is no topic votes\.none$"):
                await log.reader("votes.none", "beginning").__aenter__()
        async with log_as("nobody", guarded) as log:
            with pytest.raises(ForbiddenError, match=r"DESCRIBE on topic votes\.none;"):
                await log.reader("votes.none", "beginning").__aenter__()

    anyio.run(check)


def test_the_commands_work_with_what_is_documented(
    guarded: Guarded, cascade: Cascade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ("--log", f"kafka://{guarded.sasl}")
    common = (*log, "--cascade", "lite.toml")

    def do(user: str, *words: str, status: int = 0) -> str:
        where = {"ROADSTREAM_KAFKA_CONFIG": str(settings_file(tmp_path, user))}
        done = roadstream(*words, folder=tmp_path, environment=where)
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    def start(user: str, *words: str) -> subprocess.Popen[str]:
        monkeypatch.setenv("ROADSTREAM_KAFKA_CONFIG", str(settings_file(tmp_path, user)))
        return started(*words, folder=tmp_path)

    pictures = write_pictures(tmp_path / "in", 5)
    do("operator", "topics", "create", *common, "--partitions", "1")
    assert "5 images sent" in do("producer", "produce", str(pictures), *common)
    running = [start("worker", "work", *common), start("consensus", "consensus", *common)]
    try:
        wait_for_answers(guarded.open, lambda ids: len(ids) == 5)
        do("reader", "answers", *log, "--out", str(tmp_path / "out.jsonl"))
        assert len(list(read_answers(tmp_path / "out.jsonl"))) == 5
        assert [process.poll() for process in running] == [None, None]
        assert "dead letters" in do("clerk", "dead-letters", "list", *log)
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
    assert [process.returncode for process in running] == [0, 0]
    assert "images" in do("auditor", "verify", *common)
