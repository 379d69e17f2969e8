"""What the consensus waits for, and for how long, on a loop whose time is virtual."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgspec
import pytest
from structlog.testing import capture_logs

from roadstream.bench.simulation.virtual_loop import VirtualLoop, VirtualRunner
from roadstream.bench.simulation.virtual_time import VirtualClock
from roadstream.schemas import codec
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import LogUnavailableError, UsageError
from roadstream.schemas.records import headers
from roadstream.schemas.records.events import Committed, Opened
from roadstream.schemas.records.votes import VotesPack
from roadstream.schemas.topics import ANSWERS, CARRIED, CONSENSUS_GROUP, DEAD_LETTERS, VOTES
from roadstream.sinks.consensus.join import Join, JoinLimits
from roadstream.sinks.consensus.restore import RESTORE_PATIENCE
from roadstream.sinks.consensus.versions import KnownVersions
from roadstream.sinks.consensus.worker import CASCADES_NAMED, POLL_RECORDS, Consensus
from roadstream.stages.voting.rules import vote_math
from roadstream.streams.group.member import GroupMemberOptions
from roadstream.streams.ledgers.event_ledger import ledger_files
from roadstream.streams.log import Output
from roadstream.streams.memory.log import Fault, MemoryLog
from roadstream.streams.memory.store import Operation
from tests.kits import builders
from tests.kits.builders import head, pack, votes
from tests.kits.consensus_kit import GONE, SMALL


class Bench:
    """A log and a consensus member whose clocks are the loop's."""

    def __init__(
        self,
        loop: VirtualLoop,
        *,
        atomic: bool = True,
        limits: JoinLimits = SMALL,
        ledger: Path | None = None,
        cascade: Cascade | None = None,
    ) -> None:
        self.clock, self.latency = VirtualClock(loop), dict[Operation, float]()
        self.log = MemoryLog(
            self.clock,
            atomic=atomic,
            monotonic=loop.time,
            latency=lambda operation: self.latency.get(operation, 0.0),
        )
        join = Join(KnownVersions(cascade or builders.cascade(), vote_math), limits)
        options = GroupMemberOptions(ledger=ledger)
        self.member = Consensus(self.log, join, clock=self.clock, steady=loop.time, options=options)

    async def create_topics(self, partitions: int = 1) -> None:
        await self.log.create_topics([VOTES, CARRIED, ANSWERS, DEAD_LETTERS], partitions)

    def send(self, *packs: VotesPack, topic: str = VOTES, partition: int = 0) -> None:
        self.log.append([Output(topic, b"k", codec.encode(one), partition) for one in packs])

    @property
    def answers(self) -> list[str]:
        """Ids of the images answered, partition after partition."""
        return [codec.decode_answer(value).head.image_id for value in self.values(ANSWERS)]

    def values(self, topic: str) -> list[bytes]:
        """Values of a topic's records, partition after partition."""
        return [record.value or b"" for part in self.log.topics[topic] for record in part]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        stopping = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.member.run, stopping)
            yield
            stopping.set()


Test = Callable[[VirtualLoop], Awaitable[None]]


def virtually(test: Test) -> None:
    async def bounded() -> None:
        with anyio.fail_after(10_000):
            await test(runner.loop)

    with VirtualRunner() as runner:
        runner.run(bounded())


def test_answers_do_not_run_ahead_of_offsets_that_are_not_acknowledged() -> None:
    async def test(loop: VirtualLoop) -> None:
        bench = Bench(loop, atomic=False)
        await bench.create_topics()
        late = head("late", deadline_at=bench.clock.now() + 3)
        bench.send(pack("one", votes(late, 0.9, next_tier="two")))
        bench.send(*(pack("one", votes(f"{i}")) for i in range(100)))
        bench.log.faults.extend([Fault("commit", GONE)] * 1_000)
        async with bench.running():
            await anyio.sleep(5)
            most = SMALL.wait_after + SMALL.at_once
            assert SMALL.wait_after < len(bench.answers) <= most
            assert "late" not in bench.answers
            assert 15 <= bench.member.stats.held_back <= 21  # four times a second
            bench.log.faults.clear()
            await anyio.sleep(1)
            assert len(bench.answers) == 101
            held_back = bench.member.stats.held_back
            await anyio.sleep(5)
            assert bench.member.stats.held_back == held_back
        assert await bench.log.lag(CONSENSUS_GROUP, [VOTES]) == 0

    virtually(test)


def test_answers_go_on_as_soon_as_offsets_are_acknowledged() -> None:
    async def test(loop: VirtualLoop) -> None:
        bench = Bench(loop, atomic=False)
        await bench.create_topics()
        bench.send(*(pack("one", votes(f"{i}")) for i in range(2_000)))
        async with bench.running():
            # Commits follow with the next poll, so nobody need ever wait out a poll's timeout.
            await anyio.sleep(0.01)
            assert len(bench.answers) == 2_000

    virtually(test)


def test_an_image_is_answered_at_its_deadline_and_not_at_the_next_poll() -> None:
    async def test(loop: VirtualLoop) -> None:
        bench = Bench(loop)
        await bench.create_topics()
        live = head("a", deadline_at=bench.clock.now() + 0.1)
        bench.send(pack("one", votes(live, 0.9, next_tier="two")))
        async with bench.running():
            await anyio.sleep(0.099)
            assert bench.answers == []
            assert bench.member.stats.open_images == 1
            await anyio.sleep(0.002)
            assert bench.answers == ["a"]

    virtually(test)


def test_how_long_an_image_waits_is_told() -> None:
    async def test(loop: VirtualLoop) -> None:
        bench = Bench(loop)
        await bench.create_topics()
        bench.send(pack("one", votes("a", 0.9, next_tier="two")))
        async with bench.running():
            await anyio.sleep(2)
            stats = bench.member.stats
            assert stats.open_images == 1
            assert 1.5 < stats.oldest_open_seconds <= 2.0
            bench.clock.offset = -60
            await anyio.sleep(1)
            assert stats.oldest_open_seconds == 0.0
            bench.send(pack("two", votes("a", 0.9)))
            await anyio.sleep(1)
            assert (stats.open_images, stats.oldest_open_seconds) == (0, 0.0)

    virtually(test)


def test_carried_votes_that_never_come_are_waited_for_and_then_given_up() -> None:
    async def test(loop: VirtualLoop) -> None:
        bench = Bench(loop)
        await bench.create_topics(2)
        bench.send(pack("one", votes("gone")), topic=CARRIED)
        bench.log.truncate(CARRIED, 0, 1)
        bench.send(pack("one", votes("a")))
        bench.send(pack("one", votes("b")), partition=1)
        with capture_logs() as events:
            async with bench.running():
                await anyio.sleep(RESTORE_PATIENCE - 1)
                assert bench.answers == []
                await anyio.sleep(2)
                assert bench.answers == ["a", "b"]
                bench.send(pack("one", votes("c")), topic=CARRIED)
                await anyio.sleep(1)
                assert bench.answers == ["a", "c", "b"]
        missing = [one["partitions"] for one in events if one["event"] == "carried_votes_missing"]
        assert missing == [[0]]

    virtually(test)


def test_patience_for_carried_votes_begins_anew_with_each_that_comes() -> None:
    async def test(loop: VirtualLoop) -> None:
        bench = Bench(loop)
        await bench.create_topics()
        names = [f"{i}" for i in range(2 * POLL_RECORDS + 1)]
        bench.send(*(pack("one", votes(i, 0.9, next_tier="two")) for i in names), topic=CARRIED)
        bench.send(pack("two", *map(votes, names)))
        slow = Fault("poll", delay=RESTORE_PATIENCE - 5)
        bench.log.faults.extend([Fault("poll"), slow, slow])
        with capture_logs() as events:
            async with bench.running():
                await anyio.sleep(2 * RESTORE_PATIENCE)
                assert sorted(bench.answers) == sorted(names)
        assert not [one for one in events if one["event"] == "carried_votes_missing"]

    virtually(test)


def test_copies_keep_their_order_before_the_rest_of_the_backlog() -> None:
    async def test(loop: VirtualLoop) -> None:
        bench = Bench(loop, limits=JoinLimits(window=40, carry_after=8, at_once=1))
        await bench.create_topics()
        older = pack("one", votes("a", 0.9, next_tier="three"))
        newer = pack("one", votes("a", 0.6, next_tier="two"))
        bench.send(older, newer, topic=CARRIED)
        bench.send(pack("two", votes("a", 0.8)), *(pack("one", votes(f"{i}")) for i in range(5)))
        async with bench.running():
            await anyio.sleep(1)
        assert bench.answers == ["a", *(f"{i}" for i in range(5))]

    virtually(test)


def test_copies_that_are_overdue_come_before_what_was_polled_already() -> None:
    async def test(loop: VirtualLoop) -> None:
        bench = Bench(loop)
        await bench.create_topics()
        bench.send(pack("one", votes("a", 0.9, next_tier="two")))
        bench.send(*(pack("one", votes(f"{i}")) for i in range(20)))
        bench.send(pack("two", votes("a", 0.9)))
        bench.send(*(pack("one", votes(f"{i}")) for i in range(20, POLL_RECORDS - 2)))
        async with bench.running():
            await anyio.sleep(1)
        # One poll brought all of votes; the copy was made while they were worked off.
        assert bench.answers[20] == "a"
        assert len(bench.answers) == POLL_RECORDS - 1
        assert bench.member.stats.join.carried == 1
        assert await bench.log.lag(CONSENSUS_GROUP, [VOTES, CARRIED]) == 0

    virtually(test)


def test_carried_votes_stand_in_the_partition_of_their_image() -> None:
    async def test(loop: VirtualLoop) -> None:
        bench = Bench(loop)
        await bench.create_topics(3)
        bench.send(pack("one", votes("a", 0.9, next_tier="two")), partition=2)
        bench.send(*(pack("one", votes(f"{i}")) for i in range(40)), partition=2)
        async with bench.running():
            await anyio.sleep(1)
        carried = [list(part) for part in bench.log.topics[CARRIED]]
        assert [bool(part) for part in carried] == [False, False, True]
        assert {record.headers for record in carried[2]} == {headers.VOTES}

    virtually(test)


def test_answers_are_read_back_as_far_as_the_window_reaches() -> None:
    async def test(loop: VirtualLoop) -> None:
        bench = Bench(loop)
        await bench.create_topics()
        bench.send(*(pack("one", votes(f"{i}")) for i in range(2 * SMALL.window)))
        with capture_logs() as events:
            for takeovers in (1, 2):
                async with bench.running():
                    await anyio.sleep(1)
                assert bench.member.stats.restores == takeovers
                assert 0.0 <= bench.member.stats.restore_seconds < 60.0
        restored = [one["restored"] for one in events if one["event"] == "assigned"]
        assert restored == [0, SMALL.window]

    virtually(test)


def test_carried_votes_that_were_committed_before_are_not_waited_for() -> None:
    async def test(loop: VirtualLoop) -> None:
        bench = Bench(loop)
        await bench.create_topics(2)
        bench.send(pack("one", votes("a")), topic=CARRIED, partition=1)
        for names in (["a"], ["a", "b"]):
            async with bench.running():
                await anyio.sleep(1)
                assert bench.answers == names
            bench.send(pack("one", votes("b")), partition=1)

    virtually(test)


def test_what_an_outage_left_is_forgotten_before_anything_else_is_done() -> None:
    async def test(loop: VirtualLoop) -> None:
        bench = Bench(loop)
        await bench.create_topics()
        bench.send(pack("one", votes("a", 0.9, next_tier="two")), pack("one", votes("b")))
        bench.log.faults.append(Fault("publish", GONE))
        with pytest.raises(LogUnavailableError, match="gone"):
            await bench.member.run(anyio.Event())
        stopping = anyio.Event()
        stopping.set()
        with capture_logs() as events:
            await bench.member.run(stopping)
        [stopped] = [one for one in events if one["event"] == "consensus_stopped"]
        assert (stopped["open"], bench.answers) == (0, [])

    virtually(test)


def test_a_log_without_topics_is_told_and_nothing_is_made_in_it() -> None:
    async def test(loop: VirtualLoop) -> None:
        bench = Bench(loop)
        with pytest.raises(UsageError, match="there is no topic votes"):
            await bench.member.run(anyio.Event())
        assert bench.log.topics == {}

    virtually(test)


def test_each_foreign_cascade_is_named_once_and_only_so_many_of_them() -> None:
    async def test(loop: VirtualLoop) -> None:
        bench = Bench(loop)
        await bench.create_topics()
        for number in range(CASCADES_NAMED + 3):
            foreign = pack("one", votes(f"{number}"))
            bench.send(msgspec.structs.replace(foreign, cascade_hash=f"{number:016}"))
        bench.send(msgspec.structs.replace(pack("one", votes("again")), cascade_hash=f"{0:016}"))
        with capture_logs() as events:
            async with bench.running():
                await anyio.sleep(5)
        named = [one["got"] for one in events if one["event"] == "foreign_cascade"]
        assert named == [f"{number:016}" for number in range(CASCADES_NAMED)]
        assert bench.member.stats.foreign_packs == CASCADES_NAMED + 4

    virtually(test)


@pytest.mark.parametrize(("others", "answered"), [(0, 8), (20, 9)])
def test_what_falls_due_at_once_is_answered_in_steps(others: int, answered: int) -> None:
    async def test(loop: VirtualLoop) -> None:
        bench = Bench(loop)
        await bench.create_topics()
        due = [head(f"{i}", deadline_at=bench.clock.now() - 1) for i in range(30)]
        bench.send(pack("one", *(votes(one, 0.9, next_tier="two") for one in due)))
        bench.send(*(pack("one", votes(f"other-{i}")) for i in range(others)))
        bench.log.faults.append(Fault("publish", GONE, after=True))
        with pytest.raises(LogUnavailableError, match="gone"):
            await bench.member.run(anyio.Event())
        assert len(bench.answers) == answered

    virtually(test)


def test_every_dead_letter_is_counted_and_every_commit_noted(tmp_path: Path) -> None:
    async def test(loop: VirtualLoop) -> None:
        bench = Bench(loop, ledger=tmp_path)
        await bench.create_topics()
        bench.log.append([Output(VOTES, None, b"\xc1", 0)] * 2)
        async with bench.running():
            await anyio.sleep(1)
        assert bench.member.stats.dead_letters == len(bench.log.topics[DEAD_LETTERS][0]) == 2

    virtually(test)
    events = [event for file in ledger_files(tmp_path) for event in file]
    assert isinstance(opened := events[0], Opened)
    assert (opened.role, opened.group) == ("consensus", CONSENSUS_GROUP)
    committed = [event.offsets for event in events if isinstance(event, Committed)]
    assert committed == [[(VOTES, 0, 2)]]
