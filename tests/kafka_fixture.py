"""A real Kafka broker for tests marked ``kafka``: one for all of them, or one for a test alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from anyio.from_thread import start_blocking_portal

from roadstream.schemas.errors import RoadstreamError
from roadstream.workers.broker import BrokerSettings, run_brokers
from roadstream.workers.connect import KAFKA_CONFIG


def pytest_configure() -> None:
    """Spare brokers Java's second compiler: they live for seconds, and start with 40 % less CPU."""
    os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")


@pytest.fixture(scope="session")
def kafka_bootstrap() -> Iterator[str]:
    """Addresses of a broker: the one in the environment, or one that lives as long as the session.

    Tests share it with all its topics and groups, so names that matter must be unique.
    """
    if given := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield given
        return
    with _broker() as bootstrap:
        yield bootstrap


@pytest.fixture
def own_kafka() -> Iterator[str]:
    """Addresses of a broker that no other test has used: for what is said of whole topics."""
    with _broker() as bootstrap:
        yield bootstrap


@pytest.fixture
def impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands give up on members, and on Kafka, after seconds in place of half a minute.

    A static member that ends keeps its partitions for the session timeout: on a shared broker
    every command would wait so long for what the one before it has left.
    """
    settings = tmp_path / "impatient.toml"
    settings.write_text("session_timeout = 6.0\nstall_timeout = 2.0\n")
    monkeypatch.setenv(KAFKA_CONFIG, str(settings))


@contextmanager
def _broker() -> Iterator[str]:
    """Run a broker; its task runs in a loop and thread of its own, since every test has its own."""
    with start_blocking_portal() as portal:
        running = portal.wrap_async_context_manager(run_brokers(BrokerSettings()))
        try:
            cluster = running.__enter__()
        except RoadstreamError as error:
            give_up(str(error))
        try:
            yield cluster.bootstrap_servers
        finally:
            running.__exit__(None, None, None)


def give_up(reason: str) -> NoReturn:
    message = f"NO KAFKA BROKER, so nothing about Kafka is tested: {reason}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
