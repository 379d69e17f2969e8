"""For how long a group of the embedded log is silent, by a clock that is moved by hand."""

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from roadstream.schemas.errors import LogUnavailableError
from roadstream.streams.database import Database
from roadstream.streams.embedded.group import EmbeddedStats, Membership, silence
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.embedded.store import SCHEMA, SCHEMA_VERSION

TIMEOUT = 8.0
"""Seconds; members beat once a second."""


class Machine:
    def __init__(self, database: Database) -> None:
        self.database, self.now = database, 1000.0

    def member(self, name: str) -> Membership:
        stats = EmbeddedStats()
        return Membership(self.database, "g", name, TIMEOUT, stats, lambda: self.now)

    def silence(self, group: str = "g") -> float:
        return silence(self.database, group, lambda: self.now)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    database = Database(tmp_path / "log.db")
    database.open(SCHEMA, SCHEMA_VERSION)
    yield Machine(database)
    database.close()


def test_silence_lasts_since_the_last_heartbeat_of_any_member(machine: Machine) -> None:
    one, two = machine.member("one"), machine.member("two")
    one.join()
    machine.now += 3.0
    two.join()
    machine.now += 2.0
    assert machine.silence() == 2.0
    one.follow()
    assert machine.silence() == 0.0
    one.leave()
    assert machine.silence() == 2.0
    two.leave()
    assert machine.silence() == math.inf


def test_who_is_declared_dead_is_asked_no_more(machine: Machine) -> None:
    dead, asked = machine.member("dead"), machine.member("one")
    asked.join()
    dead.join()
    for _ in range(12):
        machine.now += 1.1
        asked.follow()
        assert machine.silence() == 0.0
    asked.leave()
    assert machine.silence() == math.inf


def test_a_heartbeat_from_before_the_machine_started_anew_is_none(machine: Machine) -> None:
    machine.member("one").join()
    machine.now = 5.0
    assert machine.silence() == math.inf


async def test_while_nobody_can_beat_nobody_is_told_to_be_silent(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with EmbeddedLog(path, busy_timeout=0.1) as log, EmbeddedLog(path) as other:
        await log.create_topics(["t"], 1)
        async with other.consumer("g", ["t"]):
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                with pytest.raises(LogUnavailableError, match="another process holds it"):
                    await log.silence("g")
            assert await log.silence("g") < math.inf
