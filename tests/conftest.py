"""What many tests need: open logs, a clock, and a broker for those marked ``kafka``."""

import pytest

from streams.clock import ManualClock
from streams.memory.log import MemoryLog

pytest_plugins = ["tests.kafka_fixture"]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def memory_log(clock: ManualClock) -> MemoryLog:
    return MemoryLog(clock)
