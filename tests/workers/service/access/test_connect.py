"""From ``--log`` to a log: what is understood, and what is said of the rest."""

import os
import socket
from pathlib import Path

import pytest

from roadstream.schemas.errors import UsageError
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.kafka.log import KafkaLog, KafkaSettings
from roadstream.workers.observe.logging import identify
from roadstream.workers.service.access.connect import open_log


def test_an_embedded_log_is_a_file(tmp_path: Path) -> None:
    log = open_log(f"embedded:{tmp_path}/a b.db")
    assert isinstance(log, EmbeddedLog)
    assert log.database.path == tmp_path / "a b.db"


@pytest.mark.parametrize(
    "url",
    [
        "kafka://127.0.0.1:9092",
        "kafka://one:9092,two:9093",
        "kafka://[::1]:9092",
        "kafka://broker.example:9092/",
    ],
)
def test_a_kafka_log_is_one_or_more_addresses(url: str) -> None:
    assert isinstance(open_log(url), KafkaLog)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "embedded",
        "embedded:",
        "kafka://",
        "kafka://host",
        "kafka://host:port",
        "kafka://host:0",
        "kafka://host:65536",
        "kafka://:9092",
        "kafka://one:9092,",
        "kafka://one:9092,two",
        "kafka:one:9092",
        "redis://host:6379",
        "log.db",
    ],
)
def test_anything_else_is_refused_with_what_was_expected(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_log(url)
    assert str(caught.value) == (
        f"--log: expected embedded:FILE or kafka://host:port[,host:port…], got {url!r}"
    )


def test_the_rest_about_kafka_comes_from_the_file_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kafka.toml"
    file.write_text('bootstrap_servers = "elsewhere:1"\nclient_id = "fleet"\n')
    monkeypatch.setenv("ROADSTREAM_KAFKA_CONFIG", str(file))

    log = open_log("kafka://here:9092")

    assert isinstance(log, KafkaLog)
    assert log.settings == KafkaSettings(bootstrap_servers="here:9092", client_id="fleet")


@pytest.mark.parametrize(
    ("who", "client_id"),
    [
        (
            {"service": "work", "tier": "look", "member_id": "vm-look-0"},
            "roadstream-look-vm-look-0",
        ),
        ({"service": "consensus", "member_id": "vm/ü 1"}, "roadstream-consensus-vm___1"),
        ({"service": "produce"}, "roadstream-produce-HOST-PID"),
        ({}, "roadstream-HOST-PID"),
    ],
)
def test_brokers_are_told_what_kind_of_process_and_which_member_a_client_is(
    who: dict[str, str], client_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roadstream.workers.observe.logging._process", {})
    identify(**who)
    log = open_log("kafka://here:9092")
    assert isinstance(log, KafkaLog)
    here = client_id.replace("HOST", socket.gethostname()).replace("PID", str(os.getpid()))
    assert log.settings.client_id == here


def test_a_wrong_file_of_kafka_settings_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROADSTREAM_KAFKA_CONFIG", str(tmp_path / "nowhere.toml"))

    with pytest.raises(UsageError, match=r"nowhere\.toml: expected a file of Kafka settings"):
        open_log("kafka://here:9092")
    open_log(f"embedded:{tmp_path}/log.db")  # it has no need of the file


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match="expected no user or password in the URL") as caught:
        open_log("kafka://camera:secret@here:9092")
    assert "secret" not in str(caught.value)
