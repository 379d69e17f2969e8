"""What a tier worker holds, and how long it waits, on a loop whose time is virtual.

Batches take ten seconds each here, so that there is always one on its way.
"""

import struct
from pathlib import Path

import anyio
import anyio.lowlevel
import msgspec
import pytest
from structlog.testing import capture_logs

from roadstream.schemas.errors import LogUnavailableError
from roadstream.schemas.records.votes import Escalation
from roadstream.schemas.topics import DEAD_LETTERS
from roadstream.stages.inference import Pictures, Score
from roadstream.streams.log import TopicPartition
from roadstream.streams.memory.log import Fault
from roadstream.workers.tier.crash_notes import CrashNotes
from roadstream.workers.tier.worker import WorkerLimits
from tests.kits.builders import cascade, member, tier
from tests.kits.fake_engine import GreyEngine
from tests.kits.slow_tier import SECONDS, TOPIC, Place, Running, Slow, dies, virtually
from tests.kits.tier_bench import UNSURE, image, voted

GONE = LogUnavailableError("gone")


def test_so_many_images_are_taken_as_batches_run_and_may_wait() -> None:
    async def test(bench: Slow, running: Running) -> None:
        await bench.send(TOPIC, *[image(f"{i}") for i in range(40)])
        worker = running.start(bench.slow(WorkerLimits(queue_batches=3)))
        await anyio.sleep(5)
        assert (worker.running, len(worker.queue)) == (2, 3 * 2)
        assert worker.member.in_flight == 2 * 2 + 3 * 2
        await anyio.sleep(SECONDS)
        assert worker.member.in_flight == 2 * 2 + 3 * 2
        assert voted(await bench.packs(4)).total() == 4

    virtually(test)


def test_no_image_is_taken_while_those_that_wait_fill_their_bytes() -> None:
    async def test(bench: Slow, running: Running) -> None:
        worker = running.start(bench.slow(WorkerLimits(queue_bytes=1)))
        for number in range(3):  # two batches that run, and an image that waits
            await bench.send(TOPIC, image(f"{number}"))
            await anyio.sleep(0.5)
        await bench.send(TOPIC, *[image(f"late-{i}") for i in range(5)])
        await anyio.sleep(5)
        assert (worker.running, len(worker.queue), worker.member.in_flight) == (2, 1, 3)
        polled_at = worker.member.stats.polled_at
        await anyio.sleep(1)
        assert worker.member.stats.polled_at > polled_at
        await anyio.sleep(8 * SECONDS)
        assert voted(await bench.packs(8)).total() == 8

    virtually(test)


def test_suspects_that_wait_count_towards_images_and_bytes(tmp_path: Path) -> None:
    async def test(bench: Slow, running: Running) -> None:
        places = [Place(offset) for offset in range(4)]
        notes = tmp_path / "w.suspects"
        dies(notes, places)
        await bench.send(TOPIC, *[image(f"{i}") for i in range(20)])
        for limits, most in (
            (WorkerLimits(queue_bytes=1), 4 * 2),  # what the first poll took
            (WorkerLimits(queue_batches=3), 1 + 3 * 2),
        ):
            worker = running.start(bench.slow(limits, CrashNotes(notes)))
            await anyio.sleep(5)
            assert worker.running == 1
            assert worker.member.in_flight == most
            running.stop(worker)
            await anyio.sleep(3 * SECONDS)
            worker._process.notes.close()
            dies(notes, places)

    virtually(test)


def test_a_worker_that_is_full_stays_a_member_of_its_group() -> None:
    async def test(bench: Slow, running: Running) -> None:
        limits = WorkerLimits(queue_batches=1, drain_timeout=5.0)
        await bench.send(TOPIC, *[image(f"{i}") for i in range(6)])
        worker = running.start(bench.slow(limits, name="a"))
        await anyio.sleep(SECONDS - 2)
        assert worker.member.in_flight == 6
        heir = running.start(bench.slow(limits, name="b"))
        found = await bench.packs(6)
        assert voted(found) == {f"{i}": 1 for i in range(6)}
        assert (worker.stats.fenced, heir.stats.fenced) == (0, 0)
        assert worker.stats.judged + heir.stats.judged == 6

    virtually(test)


def test_a_worker_that_leaves_stays_a_member_until_its_batches_are_done() -> None:
    async def test(bench: Slow, running: Running) -> None:
        await bench.send(TOPIC, *[image(f"{i}") for i in range(2)])
        worker = running.start(bench.slow(name="a"))
        await anyio.sleep(0.5)
        running.stop(worker)
        await anyio.sleep(SECONDS - 2)
        heir = running.start(bench.slow(name="b"))
        await anyio.sleep(SECONDS)
        assert voted(await bench.packs(2)) == {"0": 1, "1": 1}
        assert (worker.stats.judged, worker.stats.fenced, heir.stats.judged) == (2, 0, 0)

    virtually(test)


@pytest.mark.parametrize("sent", [2, 4])
def test_leaving_takes_as_long_as_the_batches_that_run_and_begins_no_other(sent: int) -> None:
    async def test(bench: Slow, running: Running) -> None:
        await bench.send(TOPIC, *[image(f"{i}") for i in range(sent + 20)])
        worker = running.start(bench.slow(WorkerLimits(queue_batches=sent // 2)))
        await anyio.sleep(0.5)
        running.stop(worker)
        await anyio.sleep(3 * SECONDS)
        assert SECONDS <= running.ended_at[worker] < SECONDS + 1
        assert voted(await bench.packs(4)).total() == 4
        assert (len(worker.queue), worker.member.in_flight, worker.stats.abandoned) == (0, 0, 0)

    virtually(test)


def test_batches_that_outlast_the_drain_budget_are_let_go_of() -> None:
    async def test(bench: Slow, running: Running) -> None:
        await bench.send(TOPIC, *[image(f"{i}") for i in range(4)])
        worker = running.start(bench.slow(WorkerLimits(drain_timeout=3.0)))
        await anyio.sleep(1)
        with capture_logs() as events:
            running.stop(worker)
            await anyio.sleep(4)
        assert running.ended_at[worker] == pytest.approx(4.0, abs=0.3)
        assert (worker.stats.abandoned, worker.running, worker.stats.judged) == (2, 0, 0)
        [drained] = [one for one in events if one["event"] == "drain_timed_out"]
        assert drained["batches"] == 2
        await anyio.sleep(3 * SECONDS)
        assert bench.published() == 0

    virtually(test)


def test_partitions_are_given_up_as_soon_as_the_batches_that_run_are_done() -> None:
    async def test(bench: Slow, running: Running) -> None:
        await bench.send(TOPIC, *[image(f"{i}") for i in range(4)])
        worker = running.start(bench.slow())
        await anyio.sleep(SECONDS - 2)
        with capture_logs() as events:
            await worker.give_up([TopicPartition(TOPIC, 0)])
        assert anyio.current_time() == SECONDS
        assert (worker.running, worker.stats.abandoned, events) == (0, 0, [])
        assert voted(await bench.packs(4)).total() == 4

    virtually(test)


def test_batches_that_hang_are_cancelled_when_their_partitions_go() -> None:
    async def test(bench: Slow, running: Running) -> None:
        await bench.send(TOPIC, *[image(f"{i}") for i in range(4)])
        worker = running.start(bench.slow(WorkerLimits(drain_timeout=3.0)))
        await anyio.sleep(1)
        with capture_logs() as events:
            await worker.give_up([TopicPartition(TOPIC, 0)])
        assert anyio.current_time() == 4.0
        await anyio.lowlevel.checkpoint()
        assert (worker.running, worker.stats.abandoned) == (0, 2)
        [drained] = [one for one in events if one["event"] == "drain_timed_out"]
        assert (drained["batches"], drained["after"], drained["tier"]) == (2, 3.0, "one")
        await anyio.sleep(2 * SECONDS)
        assert (bench.published(), worker.stats.judged, worker.stats.fenced) == (0, 0, 0)

    virtually(test)


def test_suspects_are_known_until_their_outputs_are_acknowledged(tmp_path: Path) -> None:
    async def test(bench: Slow, _: Running) -> None:
        notes = tmp_path / "w.suspects"
        dies(notes, [Place(0)])
        await bench.send(TOPIC, image("0"))
        suspects = CrashNotes(notes)
        worker = bench.slow(notes=suspects)
        bench.log.faults.append(Fault("publish", GONE, after=True))
        with pytest.RaisesGroup(pytest.RaisesExc(LogUnavailableError, match="gone")):
            await worker.run(anyio.Event())
        assert len(suspects) == 1
        suspects.close()
        assert len(CrashNotes(notes)) == 1

    virtually(test)


def test_suspects_whose_work_was_fenced_stay_suspects(tmp_path: Path) -> None:
    async def test(bench: Slow, running: Running) -> None:
        notes = tmp_path / "w.suspects"
        dies(notes, [Place(0)])
        await bench.send(TOPIC, image("0"))
        suspects = CrashNotes(notes)
        worker = running.start(bench.slow(notes=suspects, name="a"))
        await anyio.sleep(1)
        bench.log.pause("a")  # it stands still for longer than its session lasts
        heir = running.start(bench.slow(name="b"))
        await anyio.sleep(2 * SECONDS)
        bench.log.resume("a")
        await anyio.sleep(SECONDS)
        assert (worker.stats.fenced, heir.stats.judged) == (1, 1)
        assert len(suspects) == 1
        assert voted(await bench.packs(1)) == {"0": 1}

    virtually(test)


@pytest.mark.parametrize(("alone", "fails"), [(1, False), (2, True)])
def test_an_image_that_killed_so_many_processes_alone_is_not_tried_again(
    tmp_path: Path, alone: int, *, fails: bool
) -> None:
    async def test(bench: Slow, running: Running) -> None:
        notes = tmp_path / "w.suspects"
        dies(notes, [Place(0)])
        for _ in range(alone):
            dies(notes, [Place(0)], alone=True)
        await bench.send(TOPIC, image("0"), image("1"))
        suspects = CrashNotes(notes)
        worker = running.start(bench.slow(notes=suspects))
        await anyio.sleep(3 * SECONDS)
        found = await bench.said(2)
        killed = f"process_killed: {alone + 1} processes died while they judged it"
        assert (found["0"].error, found["1"].error) == (killed if fails else None, None)
        assert (worker.stats.killers, worker.stats.replayed) == (fails, not fails)
        assert (worker.stats.dead_letters, bench.published(DEAD_LETTERS)) == (fails, fails)
        for letter in await bench.letters(int(fails)):
            assert (letter.reason, letter.attempts, letter.error) == ("process_killed", 3, killed)
            assert (letter.image_id, letter.tier, letter.offset) == ("0", "one", 0)
            assert letter.failed_at == bench.clock.now() - anyio.current_time()
        assert (len(suspects), worker.judge.devices.in_flight) == (0, 0)

    virtually(test)


def test_a_suspect_is_noted_as_running_alone_and_others_are_not(tmp_path: Path) -> None:
    notes, noted = tmp_path / "w.suspects", list[object]()

    class Peeking(GreyEngine):
        def infer(self, batch: Pictures) -> list[Score]:
            found = notes.read_bytes()
            headers = [(struct.unpack_from("<4sQI", found, at), at) for at in (0, 1 << 18)]
            (_, _, length), at = max(headers, key=lambda header: header[0][1])
            noted.append(msgspec.msgpack.decode(found[at + 20 : at + 20 + length])[0])
            return super().infer(batch)

    async def test(bench: Slow, running: Running) -> None:
        dies(notes, [Place(0)])
        bench.engines["a"] = Peeking()
        await bench.send(TOPIC, *[image(f"{i}") for i in range(3)])
        running.start(bench.slow(notes=CrashNotes(notes)))
        await anyio.sleep(3 * SECONDS)

    virtually(test)
    assert noted == [[[True, [[TOPIC, 0, 0, 0]]]], [[False, [[TOPIC, 0, 1, 2]]]]]


def test_one_suspect_runs_at_a_time_in_all_tiers_of_a_process(tmp_path: Path) -> None:
    async def test(bench: Slow, running: Running) -> None:
        notes, other = tmp_path / "w.suspects", Slow(bench.loop)
        dies(notes, [Place(0)])
        suspects = CrashNotes(notes)
        await other.create_topics()
        for one in (bench, other):
            await one.send(TOPIC, image("0"))
        workers = [running.start(one.slow(notes=suspects)) for one in (bench, other)]
        await anyio.sleep(SECONDS / 2)
        assert sum(worker.running for worker in workers) == 1
        await anyio.sleep(SECONDS)
        assert sum(worker.running for worker in workers) == 1
        await anyio.sleep(SECONDS)
        assert [one.published() for one in (bench, other)] == [1, 1]

    virtually(test)


def test_live_images_are_answered_at_their_deadline_whatever_runs() -> None:
    async def test(bench: Slow, running: Running) -> None:
        await bench.send(TOPIC, *[image(f"{i}") for i in range(4)])
        worker = running.start(bench.slow())
        await anyio.sleep(1)
        due = bench.clock.now() + 2.5
        await bench.send("images.live", *[image(f"live-{i}", deadline_at=due) for i in range(2)])
        await anyio.sleep(2.499)
        assert bench.published() == 0
        await anyio.sleep(0.01)
        said = await bench.said(2)
        assert {name: one.error for name, one in said.items()} == {
            f"live-{i}": "expired: the deadline passed in the queue" for i in range(2)
        }
        stats = worker.stats
        assert (stats.judged, stats.dead_letters, stats.service.count) == (2, 0, 0)
        assert (worker.stats.expired, worker.running) == (2, 2)

    virtually(test)


def test_images_that_come_too_late_are_answered_beside_those_that_do_not() -> None:
    async def test(bench: Slow, running: Running) -> None:
        now = bench.clock.now()
        late = [image(f"late-{i}", deadline_at=now - 1) for i in range(2)]
        early = image("early", deadline_at=now + 60)
        worker = running.start(bench.slow())
        await anyio.sleep(1)
        await bench.send("images.live", late[0], early, late[1])
        await anyio.sleep(SECONDS + 1)
        said = await bench.said(3)
        expired = "expired: the deadline passed in the queue"
        assert {name: (one.error, one.raw) for name, one in said.items()} == {
            "late-0": (expired, [None]),
            "late-1": (expired, [None]),
            "early": (None, [7.0]),
        }
        assert (worker.stats.judged, worker.stats.expired) == (3, 2)
        assert (worker.stats.service.count, worker.member.in_flight) == (1, 0)

    virtually(test)


def test_deadlines_are_noticed_within_a_second_of_a_clock_that_steps() -> None:
    async def test(bench: Slow, running: Running) -> None:
        await bench.send(TOPIC, *[image(f"{i}") for i in range(4)])
        running.start(bench.slow())
        await anyio.sleep(1)
        await bench.send("images.live", image("live", deadline_at=bench.clock.now() + 3_600))
        await anyio.sleep(0.5)
        bench.clock.offset = 3_600.0
        await anyio.sleep(1.01)
        assert bench.published() == 1

    virtually(test)


def test_what_leaves_a_worker_is_counted() -> None:
    async def test(bench: Slow, running: Running) -> None:
        two = cascade(tier("one", member("a"), max_batch=2), tier("two"))
        bench.cascade = two
        await bench.create_topics()
        await bench.send(TOPIC, b"\xc1", *[image(f"{i}", UNSURE) for i in range(3)])
        worker = running.start(bench.slow())
        await bench.packs(3)
        await anyio.sleep(1)
        stats = worker.stats
        assert (stats.judged, stats.batches, stats.escalated) == (3, 2, 3)
        assert (stats.dead_letters, stats.expired, stats.fenced, stats.abandoned) == (1, 0, 0, 0)
        assert (stats.killers, stats.replayed, stats.out_of_memory, stats.held_back) == (0, 0, 0, 0)
        assert bench.published("tier.two.archive") == 3

    virtually(test)


def test_archive_images_wait_while_a_later_tier_is_behind_and_this_is_told() -> None:
    async def test(bench: Slow, running: Running) -> None:
        bench.cascade = cascade(tier("one", member("a"), max_batch=2), tier("two"))
        await bench.create_topics()
        behind = [image(f"behind-{i}") for i in range(3)]
        await bench.send("tier.two.archive", *[Escalation(b.head, b.payload, []) for b in behind])
        await bench.send(TOPIC, image("a"))
        worker = running.start(bench.slow(WorkerLimits(downstream_lag=2)))
        await anyio.sleep(5)
        assert (worker.stats.held_back, worker.member.in_flight) == (True, 0)
        await bench.log.commit("roadstream.tier.two", {TopicPartition("tier.two.archive", 0): 1})
        await anyio.sleep(2)
        assert (worker.stats.held_back, worker.member.in_flight) == (False, 1)

    virtually(test)
