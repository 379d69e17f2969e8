"""A group member: publish, commit, note; and what it leaves in its ledger."""

import contextlib
from collections.abc import Callable, Collection, Coroutine
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from roadstream.bench.simulation.virtual_loop import VirtualLoop, VirtualRunner
from roadstream.bench.simulation.virtual_time import VirtualClock, VirtualTime
from roadstream.schemas import codec
from roadstream.schemas.errors import LogUnavailableError
from roadstream.schemas.records.events import (
    Assigned,
    Closed,
    Committed,
    Delivered,
    Done,
    Event,
    Fenced,
    Missed,
    Opened,
    Revoked,
    Role,
)
from roadstream.schemas.topics import DEAD_LETTERS, VOTES
from roadstream.streams.group.dead_letter import dead_letter
from roadstream.streams.group.member import (
    HURRY,
    IDLE_AFTER,
    GroupMember,
    GroupMemberOptions,
    OffsetsDone,
    repeat_until,
)
from roadstream.streams.ledgers.event_ledger import ledger_files
from roadstream.streams.log import Output, Polled, TopicPartition
from roadstream.streams.memory.log import Fault, MemoryLog, MemoryRecord
from tests.kits.builders import pack, votes

TP = TopicPartition("in", 0)


class Owner:
    """Notes what it is told; finishes nothing of its own accord."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def take_over(self, partitions: Collection[TopicPartition]) -> None:
        self.told.append(f"take over {sorted(partitions)}")

    async def give_up(self, partitions: Collection[TopicPartition]) -> None:
        self.told.append(f"give up {sorted(partitions)}")


def member(folder: Path | None, name: str = "m") -> GroupMember:
    return GroupMember(
        Owner(), "worker", "g", ["in"], GroupMemberOptions(member_id=name, ledger=folder)
    )


async def filled(count: int = 6, *, atomic: bool = True) -> MemoryLog:
    log = MemoryLog(atomic=atomic)
    await log.create_topics(["in", "out"], 1)
    log.append([Output("in", None, b"%d" % i, 0) for i in range(count)])
    return log


def offsets(polled: Polled) -> OffsetsDone:
    return {tp: [record.offset for record in records] for tp, records in polled.items()}


def events(folder: Path) -> list[Event]:
    """Return all events without their times, file after file."""
    return [event for file in ledger_files(folder) for event in file]


def kinds(folder: Path) -> list[type]:
    return [type(event) for event in events(folder)]


async def test_the_ledger_tells_a_members_life_in_order(tmp_path: Path) -> None:
    log, worker = await filled(), member(tmp_path)
    async with worker.joined(log):
        polled = await worker.poll(max_records=4, timeout=0.1)
        assert await worker.finish([Output("out", None, b"x", 0)], offsets(polled), worker.epoch)

    found = events(tmp_path)
    assert [type(e) for e in found] == [Opened, Assigned, Delivered, Done, Committed, Closed]
    _, assigned, delivered, done, committed, _ = found
    assert isinstance(assigned, Assigned)
    assert assigned.committed == [("in", 0, -1)]
    assert isinstance(delivered, Delivered)
    assert isinstance(done, Done)
    assert delivered.ranges == done.ranges == [("in", 0, 0, 3)]
    assert delivered.epoch == done.epoch == assigned.epoch
    assert isinstance(committed, Committed)
    assert committed.offsets == [("in", 0, 4)]


async def test_a_commit_is_noted_after_the_work_that_allowed_it_on_every_log(
    tmp_path: Path,
) -> None:
    log, worker = await filled(atomic=False), member(tmp_path)
    async with worker.joined(log):
        polled = await worker.poll(max_records=4, timeout=0.1)
        await worker.finish([], offsets(polled), worker.epoch)
        polled = await worker.poll(max_records=4, timeout=0.1)

    assert kinds(tmp_path)[2:] == [Delivered, Done, Committed, Delivered, Closed]


async def test_what_an_error_kept_from_being_acknowledged_is_not_noted_as_done(
    tmp_path: Path,
) -> None:
    log, worker = await filled(), member(tmp_path)
    log.faults.append(Fault("publish", LogUnavailableError("gone"), after=True))
    async with worker.joined(log):
        polled = await worker.poll(max_records=4, timeout=0.1)
        with pytest.raises(LogUnavailableError):
            await worker.finish([], offsets(polled), worker.epoch)
        assert worker.in_flight == 4

    assert Done not in kinds(tmp_path)


async def test_batches_that_end_out_of_order_note_no_step_back(tmp_path: Path) -> None:
    log, worker = await filled(), member(tmp_path)
    async with worker.joined(log):
        await worker.poll(max_records=6, timeout=0.1)
        for offset in (1, 4, 4, 2, 5):
            worker.committed({TP: offset})
        await worker.poll(max_records=0, timeout=0)

    noted = [event.offsets for event in events(tmp_path) if isinstance(event, Committed)]
    assert noted == [[("in", 0, 1)], [("in", 0, 4)], [("in", 0, 5)]]


async def test_work_of_a_partition_that_was_lost_is_dropped_and_noted_as_fenced(
    tmp_path: Path,
) -> None:
    log, worker, heir = await filled(), member(tmp_path / "a", "m"), member(tmp_path / "b", "m")
    async with worker.joined(log):
        polled = await worker.poll(max_records=4, timeout=0.1)
        async with heir.joined(log):
            await heir.poll(max_records=0, timeout=0)
            assert not await worker.finish([], offsets(polled), worker.epoch)
            assert heir.stats.partitions == 1
    assert worker.stats.fenced == 1
    assert kinds(tmp_path / "a")[:4] == [Opened, Assigned, Delivered, Fenced]
    assert Done not in kinds(tmp_path / "a")


async def test_a_revocation_is_noted_after_the_commits_that_it_flushes(tmp_path: Path) -> None:
    log, first, second = await filled(), member(tmp_path / "1", "a"), member(tmp_path / "2", "b")
    async with first.joined(log):
        await first.poll(max_records=4, timeout=0.1)
        done = {TP: [0, 1, 2]}
        await first.finish([], done, first.epoch)
        async with second.joined(log):
            await first.poll(max_records=0, timeout=0)

    assert kinds(tmp_path / "1")[:6] == [Opened, Assigned, Delivered, Done, Committed, Revoked]


async def test_records_that_retention_took_are_counted_and_noted(tmp_path: Path) -> None:
    log, worker = await filled(), member(tmp_path)
    async with worker.joined(log):
        polled = await worker.poll(max_records=2, timeout=0.1)
        await worker.finish([], offsets(polled), worker.epoch)
    log.truncate("in", 0, 5)
    async with worker.joined(log):
        assert offsets(await worker.poll(max_records=9, timeout=0.1)) == {TP: [5]}

    [missed] = [event for event in events(tmp_path) if isinstance(event, Missed)]
    assert (missed.topic, missed.partition, missed.first, missed.oldest) == ("in", 0, 2, 5)
    assert worker.stats.missed == 3


async def test_a_member_that_joins_again_keeps_its_counters_and_begins_a_new_ledger(
    tmp_path: Path,
) -> None:
    log, worker = await filled(), member(tmp_path)
    for _ in range(2):
        async with worker.joined(log):
            polled = await worker.poll(max_records=3, timeout=0.1)
            await worker.finish([], offsets(polled), worker.epoch)

    assert (worker.stats.delivered, worker.stats.assignments) == (6, 2)
    assert kinds(tmp_path).count(Opened) == 2
    second = [event for event in events(tmp_path) if isinstance(event, Assigned)][1]
    assert second.committed == [("in", 0, 3)]
    assert worker.in_flight == 0


async def test_commits_that_are_told_while_a_member_leaves_stand_in_the_ledger_of_that_session(
    tmp_path: Path,
) -> None:
    """After an error, too: in the next ledger they would be those of a member that owns nothing."""
    log, worker = await filled(atomic=False), member(tmp_path)
    with contextlib.suppress(LogUnavailableError):
        async with worker.joined(log):
            polled = await worker.poll(max_records=4, timeout=0.1)
            await worker.finish([], offsets(polled), worker.epoch)
            raise LogUnavailableError("gone")
    async with worker.joined(log):
        await worker.poll(max_records=0, timeout=0)

    first, second = (list(file) for file in ledger_files(tmp_path))
    assert [type(e) for e in first] == [Opened, Assigned, Delivered, Done, Committed, Closed]
    assert [type(e) for e in second] == [Opened, Assigned, Closed]
    assert isinstance(second[1], Assigned)
    assert second[1].committed == [("in", 0, 4)]


async def test_work_of_an_earlier_session_is_fenced_though_the_consumer_counts_anew(
    tmp_path: Path,
) -> None:
    log, worker = await filled(), member(tmp_path)
    async with worker.joined(log):
        polled, epoch = await worker.poll(max_records=4, timeout=0.1), worker.epoch
    late = [Output("out", None, b"late", 0)]
    async with worker.joined(log):
        before = await worker.finish(late, offsets(polled), epoch)
        await worker.poll(max_records=4, timeout=0.1)
        assert worker.epoch > epoch
        assert not before
        assert not await worker.finish(late, offsets(polled), epoch)

    assert log.topics["out"][0].end == 0
    assert kinds(tmp_path).count(Fenced) == worker.stats.fenced == 2


async def test_a_step_that_hangs_is_dropped_once_the_process_is_to_stop() -> None:
    async def hang() -> None:
        steps.append("begun")
        stopping.set()
        await anyio.sleep_forever()

    steps, stopping = list[str](), anyio.Event()
    with anyio.fail_after(10 * HURRY):
        await repeat_until(stopping, hang)
    assert steps == ["begun"]


async def test_an_error_of_a_step_is_raised_as_it_is() -> None:
    async def fail() -> None:
        raise LogUnavailableError("gone")

    with pytest.raises(LogUnavailableError, match="gone"):
        await repeat_until(anyio.Event(), fail)


def virtually(test: Callable[[VirtualLoop], Coroutine[None, None, None]]) -> None:
    """Run a test in virtual time, by which members count their idling, too."""
    with VirtualRunner() as runner, pytest.MonkeyPatch.context() as patched:
        clock = VirtualClock(runner.loop)
        patched.setattr("roadstream.streams.group.member.time", VirtualTime(runner.loop, clock))
        runner.run(test(runner.loop))


def test_a_step_has_so_long_to_come_to_its_end_and_no_longer() -> None:
    async def test(loop: VirtualLoop) -> None:
        for seconds in (HURRY - 0.1, HURRY + 0.1):
            stopping, ended = anyio.Event(), list[float]()

            async def step(seconds: float = seconds, ended: list[float] = ended) -> None:
                await anyio.sleep(1.0 + seconds)
                ended.append(loop.time())

            began = loop.time()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(repeat_until, stopping, step)
                await anyio.sleep(1.0)
                stopping.set()
            assert loop.time() - began == pytest.approx(1.0 + min(seconds, HURRY))
            assert len(ended) == (seconds < HURRY)

    virtually(test)


def test_steps_are_repeated_until_it_is_time_to_stop() -> None:
    async def test(_: VirtualLoop) -> None:
        stopping, steps = anyio.Event(), 0

        async def step() -> None:
            nonlocal steps
            steps += 1
            if steps == 5:
                stopping.set()

        await repeat_until(stopping, step)
        assert steps == 5

    virtually(test)


def test_what_a_member_does_is_counted() -> None:
    async def test(loop: VirtualLoop) -> None:
        log, worker = await filled(), member(None)
        await anyio.sleep(1.0)
        async with worker.joined(log):
            polled = await worker.poll(max_records=4, timeout=0.1)
            assert worker.stats.polled_at == 1.0
            assert (worker.stats.done_at, worker.in_flight) == (0.0, 4)
            await anyio.sleep(1.0)
            outputs = [Output("out", None, b"x", 0)] * 3
            assert await worker.finish(outputs, offsets(polled), worker.epoch)
            await worker.poll(max_records=0, timeout=0)
            stats = worker.stats
            assert (stats.delivered, stats.published, stats.commits) == (4, 3, 1)
            assert (stats.assignments, stats.partitions, stats.done_at) == (1, 1, 2.0)
            assert (stats.fenced, stats.refused, stats.missed) == (0, 0, 0)
            assert worker.in_flight == 0
            assert log.groups["g"].offsets == {TP: 4}
        assert (worker.stats.partitions, worker.epoch) == (0, -1)

    virtually(test)


@pytest.mark.parametrize(
    ("role", "holds", "idles"),
    [("worker", False, True), ("worker", True, False), ("consensus", True, True)],
)
def test_a_member_with_nothing_to_do_for_a_while_does_well(
    role: Role, *, holds: bool, idles: bool
) -> None:
    async def test(loop: VirtualLoop) -> None:
        log = await filled(1 if holds else 0)
        worker = GroupMember(Owner(), role, "g", ["in"], GroupMemberOptions())
        await anyio.sleep(1.0)
        async with worker.joined(log):
            await worker.poll(max_records=1, timeout=0.1)
            began = loop.time() if holds else 1.0
            await anyio.sleep(IDLE_AFTER - 0.2 - (loop.time() - began))
            await worker.poll(max_records=1, timeout=0.1)
            assert worker.stats.done_at == 0.0
            await anyio.sleep(0.2)
            await worker.poll(max_records=0, timeout=0)  # asks for nothing, and learns nothing
            assert worker.stats.done_at == 0.0
            await worker.poll(max_records=1, timeout=0)
            assert worker.stats.done_at == (loop.time() if idles else 0.0)

    virtually(test)


async def test_outputs_that_their_topic_refuses_are_published_smaller_and_counted() -> None:
    log, worker = await filled(), member(None)
    await log.create_topics([DEAD_LETTERS], 1)
    letter = dead_letter(TP, MemoryRecord(0, None, bytes(5_000), 0), "error", "g", 1.0)
    log.store.limits[DEAD_LETTERS] = 2_000
    async with worker.joined(log):
        polled = await worker.poll(max_records=2, timeout=0.1)
        outputs = [Output("out", None, b"x", 0), Output(DEAD_LETTERS, None, letter, 0)]
        with capture_logs() as events:
            assert await worker.finish(outputs, offsets(polled), worker.epoch)

    assert (worker.stats.published, worker.stats.refused) == (2, 1)
    assert [len(log.topics[topic][0]) for topic in ("out", DEAD_LETTERS)] == [1, 1]
    [refused] = [one for one in events if one["event"] == "record_refused"]
    assert refused["topic"] == DEAD_LETTERS
    assert log.groups["g"].offsets == {TP: 2}


async def test_outputs_are_made_smaller_until_their_topic_takes_them() -> None:
    log, worker = await filled(), member(None)
    await log.create_topics([VOTES], 1)
    all_four, one = (codec.encode(pack("one", *map(votes, names))) for names in ("abcd", "a"))
    log.store.limits[VOTES] = len(one)
    async with worker.joined(log):
        polled = await worker.poll(max_records=2, timeout=0.1)
        outputs = [Output("out", None, b"x", 0), Output(VOTES, None, all_four, 0)]
        assert await worker.finish(outputs, offsets(polled), worker.epoch)

    assert [len(log.topics[topic][0]) for topic in ("out", VOTES)] == [1, 4]
    assert (worker.stats.published, worker.stats.refused) == (1 + 4, 1 + 2)


async def test_a_flush_commits_what_ended_out_of_order_once() -> None:
    log, worker = await filled(), member(None)
    async with worker.joined(log):
        await worker.poll(max_records=6, timeout=0.1)
        assert await worker.finish([], {TP: [1, 2]}, worker.epoch)
        assert TP not in log.groups["g"].offsets
        worker._tracker.done({TP: [0]}, worker.epoch)
        await worker.flush()
        assert log.groups["g"].offsets == {TP: 3}
        commits = worker.stats.commits
        await worker.flush()
        assert worker.stats.commits == commits


async def test_a_member_must_be_named_to_keep_its_place() -> None:
    log = await filled()
    named, other = (
        member(None, "a"),
        GroupMember(Owner(), "worker", "g", ["in"], GroupMemberOptions()),
    )
    async with named.joined(log), other.joined(log):
        assert "a" in log.groups["g"].sessions
        assert len(log.groups["g"].sessions) == 2


async def test_what_is_counted_is_counted_on() -> None:
    log, worker = await filled(9), member(None)
    for truncated in (2, 5):
        log.truncate("in", 0, truncated)
        async with worker.joined(log):
            polled = await worker.poll(max_records=1, timeout=0.1)
            outputs = [Output("out", None, b"x", 0)] * 2
            assert await worker.finish(outputs, offsets(polled), worker.epoch)

    stats = worker.stats
    assert (stats.delivered, stats.published, stats.commits) == (2, 4, 2)
    assert (stats.assignments, stats.missed) == (2, (5 - 3))
    assert log.groups["g"].offsets == {TP: 6}


async def test_records_that_retention_took_add_up() -> None:
    log, worker = await filled(9), member(None)
    async with worker.joined(log):
        for oldest, missed in ((0, 0), (2, 1), (6, 1 + 3)):
            log.truncate("in", 0, oldest)
            await worker.poll(max_records=1, timeout=0.1)
            assert worker.stats.missed == missed


async def test_epochs_are_those_of_the_consumer_in_the_first_session_and_go_on_from_there() -> None:
    log, worker = await filled(), member(None)
    assert worker.epoch == 0
    epochs = []
    for _ in range(3):
        async with worker.joined(log):
            await worker.poll(max_records=1, timeout=0.1)
            epochs.append(worker.epoch)
    assert epochs == [1, 3, 5]


async def test_a_member_whose_partitions_are_revoked_owns_nothing() -> None:
    log, worker = await filled(), member(None)
    async with worker.joined(log):
        await worker.poll(max_records=4, timeout=0.1)
        assert (worker.stats.partitions, worker.in_flight) == (1, 4)
        await worker.revoked([TP])
        assert (worker.stats.partitions, worker.in_flight, worker.epoch) == (0, 0, -1)


async def test_a_flush_notes_its_commit_and_no_work(tmp_path: Path) -> None:
    log, worker = await filled(), member(tmp_path)
    async with worker.joined(log):
        await worker.poll(max_records=3, timeout=0.1)
        assert await worker.finish([], {TP: [1, 2]}, worker.epoch)
        worker._tracker.done({TP: [0]}, worker.epoch)
        await worker.flush()

    assert kinds(tmp_path)[2:] == [Delivered, Done, Committed, Committed, Closed]


async def test_a_ledger_says_whose_it_is(tmp_path: Path) -> None:
    log = await filled()
    named = member(tmp_path / "a", "a")
    other = GroupMember(
        Owner(), "consensus", "h", ["in"], GroupMemberOptions(ledger=tmp_path / "b")
    )
    for worker in (named, other):
        async with worker.joined(log):
            await worker.poll(max_records=1, timeout=0.1)

    for folder, said in (("a", ("worker", "g", "a")), ("b", ("consensus", "h", "unnamed"))):
        opened = events(tmp_path / folder)[0]
        assert isinstance(opened, Opened)
        assert (opened.role, opened.group, opened.member) == said
        assert opened.log == await log.identity()


async def test_an_owner_is_told_before_its_first_record_and_before_its_partitions_go() -> None:
    log, worker = await filled(), member(None)
    assert isinstance(owner := worker._owner, Owner)
    async with worker.joined(log):
        await worker.poll(max_records=1, timeout=0.1)
        assert owner.told == [f"take over {[TP]}"]
        await worker.revoked([TP])
        assert owner.told == [f"take over {[TP]}", f"give up {[TP]}"]


async def test_what_a_member_has_yet_to_poll_is_told() -> None:
    log, worker = await filled(6), member(None)
    async with worker.joined(log):
        await worker.poll(max_records=4, timeout=0.1)
        assert worker.unpolled(await log.uncommitted("g", ["in"])) == {TP: range(4, 6)}


async def test_a_member_may_ask_for_some_of_its_topics_only() -> None:
    log = await filled(2)
    log.append([Output("out", None, b"x", 0)])
    worker = GroupMember(Owner(), "worker", "g", ["in", "out"], GroupMemberOptions())
    async with worker.joined(log):
        polled = await worker.poll(max_records=9, timeout=0.1, topics=["out"])
        assert offsets(polled) == {TopicPartition("out", 0): [0]}
        assert offsets(await worker.poll(max_records=9, timeout=0.1)) == {TP: [0, 1]}


async def test_a_member_has_to_join_before_it_polls() -> None:
    with pytest.raises(AssertionError):
        await member(None).poll(max_records=1, timeout=0)
