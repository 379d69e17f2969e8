"""``topics create`` on a real Kafka: how topics are made, and what it says of existing ones."""

from pathlib import Path

import anyio
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.kits.command import NOOP_CASCADE, here, write_cascade


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


async def names_of(servers: str) -> list[str]:
    client = AIOKafkaAdminClient(bootstrap_servers=servers)
    await client.start()
    try:
        return list(await client.list_topics())
    finally:
        await client.close()


@pytest.mark.kafka
@pytest.mark.timeout(180)
def test_topics_get_what_was_asked_for(kafka_bootstrap: str, tmp_path: Path) -> None:
    done = here(
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

    done = here("topics", "create", *common, "--partitions", "2", folder=tmp_path)
    sink = here("consensus", *common, folder=tmp_path)

    said = [line for line in done.stderr.splitlines() if "mend it" in line]
    assert done.returncode == 2
    assert [line.split(": expected")[0] for line in said] == [
        "error: others.votes: cleanup.policy",
        "error: others.images.archive: max.message.bytes",
        "warning: others.images.live: retention.ms",
    ]
    assert sink.returncode == 2
    assert "others.votes: cleanup.policy: expected delete" in sink.stderr


@pytest.mark.kafka
@pytest.mark.timeout(180)
def test_of_topics_of_which_kafka_refuses_one_none_is_made(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    # To Kafka, dots and underscores are the same in names.
    anyio.run(make, kafka_bootstrap, {"none.images_live": {"retention.ms": "-1"}})
    done = here(
        "topics", "create", "--log", f"kafka://{kafka_bootstrap}", "--namespace", "none",
        "--cascade", write_cascade(tmp_path), folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert "cannot create topic none.images.live" in done.stderr
    made = [name for name in anyio.run(names_of, kafka_bootstrap) if name.startswith("none.")]
    assert sorted(made) == ["none.cascades", "none.images_live"]


def test_topics_of_another_tier_are_made_only_like_those_that_exist(tmp_path: Path) -> None:
    common = ["topics", "create", "--log", "embedded:log.db", "--cascade"]
    more = '[[tiers]]\nname = "third"\n[[tiers.members]]\nname = "three"\nengine = "noop"\n'
    route = '[[tiers.routes]]\nmin_confidence = 0.999\nto = "exit"\n'
    (tmp_path / "more.toml").write_text(NOOP_CASCADE + route + more)

    one = write_cascade(tmp_path)
    first = here(*common, one, "--partitions", "2", folder=tmp_path)
    other = here(*common, "more.toml", folder=tmp_path)
    alike = here(*common, "more.toml", "--partitions", "2", folder=tmp_path)
    again = here(*common, "more.toml", folder=tmp_path)

    codes = [done.returncode for done in (first, other, alike, again)]
    assert codes == [0, 2, 0, 0], first.stderr + other.stderr + alike.stderr
    assert "tier.third.archive would get 16 partitions, but answers, dead" in other.stderr
    assert "give --partitions 2" in other.stderr
    assert "warning" not in first.stderr + alike.stderr
    assert "tier.third.live  2 partitions" in alike.stderr
    assert "warning: 10 topics existed already" in again.stderr


def test_what_only_kafka_has_is_refused_for_another_log(tmp_path: Path) -> None:
    done = here(
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
        ("--replication-factor", "40000", "--replication-factor: expected int <= 32767"),
        ("--min-insync-replicas", "-1", "--min-insync-replicas: expected int >= 1, got -1"),
        ("--answers-retention", "60", "answers_retention: expected at least retention (604800)"),
    ],
)
def test_a_number_out_of_bounds_is_named(
    tmp_path: Path, option: str, value: str, said: str
) -> None:
    done = here("topics", "create", option, value, folder=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
