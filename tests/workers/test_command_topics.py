"""``topics create`` on a real Kafka: how topics are made, and what it says of existing ones."""

from pathlib import Path

import anyio
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.command import roadstream, write_cascade


async def make(servers: str, topics: dict[str, dict[str, str]]) -> None:
    client = AIOKafkaAdminClient(bootstrap_servers=servers)
    await client.start()
    try:
        made = [NewTopic(name, 2, 1, topic_configs=config) for name, config in topics.items()]
        await client.create_topics(made)
    finally:
        await client.close()


async def config_of(servers: str, topic: str) -> dict[str, str]:
    client = AIOKafkaAdminClient(bootstrap_servers=servers)
    await client.start()
    try:
        [answer] = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        return {name: value for name, value, *_ in answer.resources[0][4]}
    finally:
        await client.close()


@pytest.mark.kafka
@pytest.mark.timeout(180)
def test_topics_get_what_was_asked_for(kafka_bootstrap: str, tmp_path: Path) -> None:
    done = roadstream(
        "topics", "create", "--log", f"kafka://{kafka_bootstrap}", "--namespace", "asked",
        "--cascade", write_cascade(tmp_path), "--partitions", "2", "--retention", "3600",
        "--retention-bytes", "5000000", "--answers-retention", "7200", "--compression", "lz4",
        folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    votes = anyio.run(config_of, kafka_bootstrap, "asked.votes")
    answers = anyio.run(config_of, kafka_bootstrap, "asked.answers")
    assert (votes["retention.ms"], votes["retention.bytes"]) == ("3600000", "5000000")
    assert (answers["retention.ms"], answers["retention.bytes"]) == ("7200000", "-1")
    assert (votes["compression.type"], answers["compression.type"]) == ("lz4", "lz4")


@pytest.mark.kafka
@pytest.mark.timeout(180)
def test_topics_that_lose_or_refuse_records_are_all_named_with_what_mends_them(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    others = {
        "others.votes": {"cleanup.policy": "compact"},
        "others.images.archive": {"max.message.bytes": "1048588"},
        "others.images.live": {"retention.ms": "3600000"},
    }
    anyio.run(make, kafka_bootstrap, others)
    common = ["--log", f"kafka://{kafka_bootstrap}", "--namespace", "others"]
    common += ["--cascade", write_cascade(tmp_path)]

    done = roadstream("topics", "create", *common, "--partitions", "2", folder=tmp_path)
    sink = roadstream("consensus", *common, folder=tmp_path)

    said = [line for line in done.stderr.splitlines() if "mend it" in line]
    assert done.returncode == 2
    assert [line.split(": expected")[0] for line in said] == [
        "error: others.votes: cleanup.policy",
        "error: others.images.archive: max.message.bytes",
        "warning: others.images.live: retention.ms",
    ]
    assert sink.returncode == 2
    assert "others.votes: cleanup.policy: expected delete" in sink.stderr


def test_what_only_kafka_has_is_refused_for_another_log(tmp_path: Path) -> None:
    done = roadstream(
        "topics", "create", "--log", "embedded:log.db", "--retention", "3600", folder=tmp_path
    )
    assert done.returncode == 2
    assert "--retention: expected a kafka:// log, got embedded:log.db" in done.stderr


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--retention", "5", "--retention: expected float >= 60.0, got 5.0"),
        ("--retention", "nan", "--retention: expected float >= 60.0, got nan"),
        ("--retention-bytes", "0", "--retention-bytes: expected int >= 1, got 0"),
        ("--min-insync-replicas", "-1", "--min-insync-replicas: expected int >= 1, got -1"),
        ("--answers-retention", "60", "answers_retention: expected at least retention (604800)"),
    ],
)
def test_a_number_out_of_bounds_is_named(
    tmp_path: Path, option: str, value: str, said: str
) -> None:
    done = roadstream("topics", "create", option, value, folder=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
