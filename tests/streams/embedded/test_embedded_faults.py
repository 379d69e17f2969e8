"""The embedded log under faults, in one process: locks, stalls, clocks, full disks, damage."""

import itertools
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import anyio
import pytest

from roadstream.schemas.errors import FencedError, LogUnavailableError, OutputError, RunError
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.log import Output, TopicPartition
from tests.kits.contract import DEADLINE, Member, owning, take, together, values
from tests.kits.embedded_kit import everything, forward

TP = TopicPartition("in", 0)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file's write lock, as a foreign program may."""
    foreign = sqlite3.connect(path, isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        foreign.execute("ROLLBACK")
        foreign.close()


# Locks and stalls


async def test_a_lock_held_for_too_long_is_named_and_after_it_everything_goes_on_in_place(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.db"
    async with (
        EmbeddedLog(path, session_timeout=0.4, busy_timeout=0.1) as log,
        log.producer() as producer,
    ):
        await log.create_topics(["in", "out"], 2)
        async with log.consumer("g", ["in"]) as one, log.consumer("g", ["in"]) as two:
            members = [Member(one), Member(two)]
            await together(lambda: all(len(m.partitions) == 1 for m in members), *members)
            epochs = [one.assignment.epoch, two.assignment.epoch]
            with locked(path):
                until = time.monotonic() + 3 * log.session_timeout
                while time.monotonic() < until:
                    for consumer in (one, two):
                        with pytest.raises(LogUnavailableError, match="another process holds it"):
                            await consumer.publish([], {}, consumer.assignment.epoch)
                        with pytest.raises(LogUnavailableError, match=r"lock within 0\.1 s"):
                            await consumer.poll(max_records=10, timeout=0)
                assert await everything(log, "in") == []  # reading needs no lock

            await producer.publish([Output("in", None, b"%d" % i, i % 2) for i in range(10)])
            await together(lambda: sum(len(m.values) for m in members) == 10, *members)
            # All were silent for longer than the session timeout, and nobody was thrown out.
            assert [one.assignment.epoch, two.assignment.epoch] == epochs
            assert (log.stats.evictions, log.stats.returns, log.stats.fenced) == (0, 0, 0)
            assert log.stats.lock_timeouts >= 4
        assert await log.lag("g", ["in"]) == 0


async def test_an_owner_that_gave_up_while_the_file_was_locked_joins_again_through_the_same_log(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.db"
    async with EmbeddedLog(path, busy_timeout=0.1) as log, log.producer() as producer:
        await log.create_topics(["in", "out"], 1)
        await producer.publish([Output("in", None, b"x")])

        async def work(held: ExitStack) -> None:
            async with log.consumer("g", ["in"], member_id="m") as consumer:
                assert len(await take(consumer, 1)) == 1
                held.enter_context(locked(path))
                epoch = consumer.assignment.epoch
                await consumer.publish([Output("out", None, b"x")], {TP: 1}, epoch)

        with ExitStack() as held, pytest.raises(LogUnavailableError, match="another process"):
            await work(held)

        async with log.consumer("g", ["in"], member_id="m") as consumer:
            with anyio.fail_after(DEADLINE):
                while not await forward(consumer):
                    pass
        assert await everything(log, "out") == [b"x"]
        assert await log.lag("g", ["in"]) == 0


async def test_whoever_waits_for_the_lock_can_be_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with EmbeddedLog(path) as log, log.producer() as producer:
        await log.create_topics(["in"], 1)
        with locked(path), anyio.fail_after(10), anyio.move_on_after(0.05) as scope:
            await producer.publish([Output("in", None, b"x")])

        assert scope.cancelled_caught
        assert await everything(log, "in") == []


async def test_a_log_that_cannot_be_opened_leaves_nothing_open(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with EmbeddedLog(path) as log:
        await log.create_topics(["in"], 1)
    again = EmbeddedLog(path, busy_timeout=0.05)
    with locked(path), pytest.raises(LogUnavailableError, match="another process holds it"):
        async with again:
            pass
    with pytest.raises(RunError, match="is closed"):
        await again.partition_counts(["in"])
    async with again:
        assert await again.partition_counts(["in"]) == {"in": 1}


async def test_a_member_that_went_silent_is_fenced_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with (
        EmbeddedLog(path, session_timeout=0.2) as one,
        EmbeddedLog(path, session_timeout=0.2) as other,
        one.producer() as producer,
    ):
        await one.create_topics(["in", "out"], 1)
        async with one.consumer("g", ["in"]) as silent, other.consumer("g", ["in"]) as lively:
            await producer.publish([Output("in", None, b"x")])
            first = silent if await silent.poll(max_records=1, timeout=0.1) else lively
            second = lively if first is silent else silent
            stale = first.assignment
            assert len(stale.partitions) == 1
            with anyio.fail_after(DEADLINE):
                while not await second.poll(max_records=1, timeout=0.02):
                    pass

            for commit in ({TP: 1}, dict[TopicPartition, int]()):
                with pytest.raises(FencedError, match="no longer owns what it commits"):
                    await first.publish([Output("out", None, b"x")], commit, stale.epoch)
            assert await everything(one, "out") == []
            with anyio.fail_after(DEADLINE):
                while first.assignment.epoch == stale.epoch:
                    await first.poll(max_records=0, timeout=0)
            assert one.stats.evictions + other.stats.evictions == 1
            assert one.stats.returns + other.stats.returns == 1
            assert one.stats.fenced + other.stats.fenced == 2


async def test_an_error_while_partitions_are_taken_over_is_made_good_by_the_next_poll(
    tmp_path: Path,
) -> None:
    class Unlucky(Member):
        """Its place cannot be told while it is being assigned, twice."""

        tries = 0

        async def revoked(self, partitions: object) -> None: ...

        async def assigned(self, partitions: object) -> None:
            self.tries += 1
            if self.tries <= 2:
                raise LogUnavailableError("gone")

        def committed(self, offsets: object) -> None: ...

        def missed(self, tp: TopicPartition, first: int, oldest: int) -> None: ...

    async with EmbeddedLog(tmp_path / "log.db") as log, log.producer() as producer:
        await log.create_topics(["in"], 1)
        await producer.publish([Output("in", None, b"x")])
        listener = Unlucky.__new__(Unlucky)
        async with log.consumer("g", ["in"], listener=listener) as consumer:
            for _ in range(2):
                with pytest.raises(LogUnavailableError, match="gone"):
                    await consumer.poll(max_records=10, timeout=0)
            assert values(await consumer.poll(max_records=10, timeout=1)) == [b"x"]
            assert (listener.tries, consumer.assignment.epoch) == (3, 1)


async def test_setting_the_wall_clock_moves_no_partition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, real = itertools.cycle([0.0, 3600.0, -86_400.0, 5.0, 1e9]), time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(steps))
    async with EmbeddedLog(tmp_path / "log.db", session_timeout=0.3) as log:
        await log.create_topics(["in"], 2)
        async with log.consumer("g", ["in"]) as one, log.consumer("g", ["in"]) as two:
            members = [Member(one), Member(two)]
            await together(lambda: all(len(m.partitions) == 1 for m in members), *members)
            epochs = [one.assignment.epoch, two.assignment.epoch]
            until = time.monotonic() + 4 * log.session_timeout
            await together(lambda: time.monotonic() > until, *members)

            assert [one.assignment.epoch, two.assignment.epoch] == epochs
            assert (log.stats.evictions, log.stats.returns) == (0, 0)


async def test_members_from_before_the_machine_started_anew_are_dead(tmp_path: Path) -> None:
    async with EmbeddedLog(tmp_path / "log.db") as log:
        await log.create_topics(["in"], 1)
        async with log.consumer("g", ["in"]) as before:
            await owning(before, 1)
            # What is left of it: a heartbeat that the clock, begun anew, will not reach for days.
            later = time.monotonic() + 1e6
            log.database.connection.execute("UPDATE members SET heartbeat_at=?", (later,))
            async with log.consumer("g", ["in"]) as after:
                started_at = time.monotonic()
                await owning(after, 1)
                assert time.monotonic() - started_at < log.session_timeout


# The file


async def test_a_full_disk_is_an_output_error_that_changes_nothing(tmp_path: Path) -> None:
    async with EmbeddedLog(tmp_path / "log.db") as log, log.producer() as producer:
        await log.create_topics(["in", "out"], 1)
        await producer.publish([Output("in", None, b"before")])
        async with log.consumer("g", ["in"]) as consumer:
            await consumer.poll(max_records=1, timeout=1)
            epoch = consumer.assignment.epoch
            log.database.connection.execute("PRAGMA max_page_count=1")  # as large as it is
            with pytest.raises(
                OutputError, match=r"log\.db: cannot be written: .*the disk is full"
            ):
                await producer.publish([Output("out", None, bytes(1 << 20))])
            with pytest.raises(OutputError, match="the disk is full"):
                await consumer.publish([Output("out", None, bytes(1 << 20))], {TP: 1}, epoch)
            assert await consumer.committed() == {}
            assert await everything(log, "out") == []

            log.database.connection.execute("PRAGMA max_page_count=1000000")
            await consumer.publish([Output("out", None, b"after")], {TP: 1}, epoch)
            assert await everything(log, "out") == [b"after"]
            assert log.stats.write_errors == 2


@pytest.mark.parametrize("damage", ["torn", "overwritten"])
async def test_a_damaged_file_is_told_as_such(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "log.db"
    async with EmbeddedLog(path) as log, log.producer() as producer:
        await log.create_topics(["in"], 1)
        await producer.publish([Output("in", None, bytes(10_000))] * 50)
    data = bytearray(path.read_bytes())
    if damage == "torn":
        del data[len(data) // 2 :]
    else:
        data[16_384:] = b"\xa5" * (len(data) - 16_384)
    path.write_bytes(data)

    with pytest.raises(RunError, match=r"log\.db: is damaged \(.*move it away"):
        async with EmbeddedLog(path) as log:
            await everything(log, "in")


async def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="expected the name of a file"):
        async with EmbeddedLog(tmp_path / "a\0b"):
            pass
