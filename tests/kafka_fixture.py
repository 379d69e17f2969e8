"""A real Kafka broker for the whole test session, for tests marked ``kafka``."""

import os
from collections.abc import Iterator
from typing import NoReturn

import pytest
from anyio.from_thread import start_blocking_portal

from schemas.errors import RoadstreamError
from workers.broker import BrokerSettings, run_brokers


@pytest.fixture(scope="session")
def kafka_bootstrap() -> Iterator[str]:
    """Addresses of a broker: the one in the environment, or one that lives as long as the session.

    The broker's task runs in a loop and thread of its own, since every test has its own loop.
    """
    if given := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield given
        return
    with start_blocking_portal() as portal:
        running = portal.wrap_async_context_manager(run_brokers(BrokerSettings()))
        try:
            cluster = running.__enter__()
        except RoadstreamError as error:
            _give_up(str(error))
        try:
            yield cluster.bootstrap_servers
        finally:
            running.__exit__(None, None, None)


def _give_up(reason: str) -> NoReturn:
    message = f"NO KAFKA BROKER, so nothing about Kafka is tested: {reason}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
