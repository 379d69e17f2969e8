"""A tier worker that pauses since too many records come to nothing, in virtual time."""

from pathlib import Path

from structlog.testing import capture_logs

from roadstream.schemas.topics import tier_group
from roadstream.stages.breaker import Cooldown, MemberPolicy, SharePolicy
from roadstream.streams.log import TopicPartition
from roadstream.workers.tier.crash_notes import CrashNotes
from roadstream.workers.tier.worker import TierWorker, WorkerLimits
from tests.kits.slow_tier import SECONDS, TOPIC, Place, Running, Slow, at, dies, virtually
from tests.kits.tier_bench import image

PAUSE = 0.5
PATIENT = MemberPolicy(pictures=1000)


def pausing(
    bench: Slow, least: int, name: str | None = None, notes: CrashNotes | None = None
) -> TierWorker:
    """Return a worker that pauses for half a second, and whose member is never taken out."""
    pause = PAUSE + 0.0004  # which is told in milliseconds
    policy = SharePolicy(least=least, cooldown=Cooldown(first=pause, longest=pause))
    limits = WorkerLimits(poll_timeout=0.3, queue_batches=1, dead_letters=policy)
    return bench.slow(limits, notes, name, bench.slow_judge(breaker=PATIENT))


def test_a_pause_ends_with_one_trial_at_a_time_however_long_it_takes() -> None:
    async def test(bench: Slow, running: Running) -> None:
        engine = bench.engines["a"]
        engine.broken = True
        worker = running.start(pausing(bench, 2))
        await bench.send(TOPIC, image("0"), image("1"))
        await at(SECONDS + 0.1)
        await bench.send(TOPIC, *[image(f"{i}") for i in range(2, 10)])  # a poll is under way
        await at(SECONDS + PAUSE - 0.01)
        assert (worker.breaker.state, worker.running, len(worker.queue)) == ("open", 0, 2)
        await at(SECONDS + PAUSE + 0.01)  # what waits already is tried when the pause is over
        assert (worker.breaker.state, worker.running) == ("half_open", 1)
        due = bench.clock.now() + 1_000
        lives = [image(f"live-{i}", deadline_at=due) for i in range(5)]
        await bench.send("images.live", lives[0])
        await at(SECONDS + 4 * PAUSE)
        assert (worker.running, len(worker.queue), worker.member.in_flight) == (1, 1, 3)
        await bench.send("images.live", *lives[1:])
        await at(2 * SECONDS)
        # Of live images so many are taken as the next trial takes; of the archive none beside it.
        assert (worker.running, len(worker.queue), worker.member.in_flight) == (1, 2, 4)
        assert worker.queue.next_deadline_at is not None
        engine.broken = False
        await at(4 * SECONDS)
        assert worker.breaker.state == "closed"
        await at(8 * SECONDS)
        assert set(await bench.said(15)) == {f"{i}" for i in range(10)} | {
            f"live-{i}" for i in range(5)
        }

    with capture_logs() as events:
        virtually(test)
    told = [(one["event"], one.get("retry_after")) for one in events if "tier_" in one["event"]]
    assert told == [("tier_paused", PAUSE), ("tier_paused", PAUSE), ("tier_resumed", None)]


def test_a_turn_that_comes_in_a_pause_is_passed_on(tmp_path: Path) -> None:
    async def test(bench: Slow, running: Running) -> None:
        engine, notes = bench.engines["a"], tmp_path / "w.suspects"
        engine.broken = True
        dies(notes, [Place(4)])
        worker = pausing(bench, 2, notes=CrashNotes(notes))
        running.start(worker)
        await bench.send(TOPIC, *[image(f"{i}") for i in range(4)])
        await at(1)
        await bench.send(TOPIC, image("4"))  # which asks for a turn before the pause
        await at(SECONDS + PAUSE - 0.01)
        assert (worker.running, worker.stats.replayed, worker.member.in_flight) == (0, 0, 1)
        await at(SECONDS + PAUSE + 0.01)
        assert worker.running == 1

    virtually(test)


def test_archive_images_come_for_a_trial_only_once_nothing_waits_or_runs() -> None:
    async def test(bench: Slow, running: Running) -> None:
        bench.engines["a"].broken = True
        await bench.send(TOPIC, *[image(f"{i}") for i in range(4)])
        worker = running.start(pausing(bench, 2))
        await at(SECONDS + 0.3)  # the poll that was under way then is over
        assert worker.breaker.state == "open"
        await bench.send(TOPIC, *[image(f"later-{i}") for i in range(9)])
        await at(SECONDS + PAUSE - 0.01)
        assert worker.member.in_flight == 0
        await at(SECONDS + PAUSE + 0.5)
        assert (worker.running, worker.member.in_flight) == (1, 2)
        await at(2 * SECONDS)
        assert (worker.running, worker.member.in_flight) == (1, 2)

    virtually(test)


def test_records_that_cannot_be_read_count_with_those_that_came_with_them() -> None:
    async def test(bench: Slow, running: Running) -> None:
        bench.engines["a"].broken = True
        worker = bench.slow(WorkerLimits(queue_batches=20))  # pauses for more than half of twenty
        await bench.send(TOPIC, *[b"\xc1"] * 15, *[image(f"{i}") for i in range(10)])
        running.start(worker)
        await at(1)
        assert (worker.breaker.state, worker.stats.dead_letters) == ("open", 15)

    virtually(test)


def test_what_another_member_does_again_says_nothing_of_the_records() -> None:
    async def test(bench: Slow, running: Running) -> None:
        bench.engines["a"].broken = True
        await bench.send(TOPIC, image("0"))
        worker = running.start(pausing(bench, 1, "a"))
        await at(1)
        bench.log.pause("a")  # it stands still for longer than its session lasts
        running.start(bench.slow(name="b"))
        await at(2 * SECONDS)
        bench.log.resume("a")
        await at(3 * SECONDS)
        assert (worker.stats.fenced, worker.breaker.state, worker.stats.batches) == (1, "closed", 0)

    virtually(test)


def test_what_another_member_does_again_does_not_end_a_pause() -> None:
    async def test(bench: Slow, running: Running) -> None:
        await bench.send(TOPIC, b"\xc1")
        worker = running.start(pausing(bench, 1, "a"))
        await at(0.1)
        assert worker.breaker.state == "open"
        await bench.send(TOPIC, image("0"))
        await at(1)
        assert (worker.breaker.state, worker.running) == ("half_open", 1)
        bench.log.pause("a")
        running.start(bench.slow(name="b"))
        await at(2 * SECONDS)
        bench.log.resume("a")
        await at(2 * SECONDS + 1)
        assert (worker.stats.fenced, worker.breaker.state) == (1, "half_open")
        committed = bench.log.groups[tier_group("one")].offsets
        assert committed == {TopicPartition(TOPIC, 0): 2}

    virtually(test)
