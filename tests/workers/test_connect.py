"""From ``--log`` to a log: what is understood, and what is said of the rest."""

from pathlib import Path

import pytest

from schemas.errors import UsageError
from streams.embedded import EmbeddedLog
from streams.kafka import KafkaLog
from workers.connect import open_log


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
