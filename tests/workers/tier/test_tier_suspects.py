"""A tier worker's suspects: they run alone, one after the other, and each end is counted."""

from pathlib import Path

import anyio

from roadstream.schemas import codec
from roadstream.schemas.records.votes import Escalation
from roadstream.schemas.topics import DEAD_LETTERS
from roadstream.stages.breaker import SharePolicy
from roadstream.streams.log import TopicPartition
from roadstream.workers.tier.crash_notes import CrashNotes
from roadstream.workers.tier.devices import Devices
from roadstream.workers.tier.records import OVERHEAD
from roadstream.workers.tier.worker import TierWorker, WorkerLimits
from tests.kits.builders import cascade, member, tier
from tests.kits.fake_engine import GreyEngine
from tests.kits.slow_tier import SECONDS, TOPIC, Place, Running, Slow, at, dies, virtually
from tests.kits.tier_bench import image

TWO = cascade(tier("one", member("a"), max_batch=2), tier("two", member("c"), max_batch=2))


async def beside_another_tier(
    bench: Slow, running: Running, notes: Path
) -> tuple[TierWorker, TierWorker]:
    """Start a worker with a suspect, and one of another tier on the same devices."""
    bench.cascade, bench.engines["c"] = TWO, GreyEngine()
    await bench.create_topics()
    dies(notes, [Place(0)])
    devices = Devices()
    one, two = (bench.slow_judge(name, devices=devices) for name in ("one", "two"))
    suspicious = running.start(bench.slow(notes=CrashNotes(notes), judge=one))
    return suspicious, running.start(bench.slow(judge=two))


async def escalate(bench: Slow, count: int) -> None:
    images = [image(f"{i}") for i in range(count)]
    sent = [Escalation(one.head, one.payload, []) for one in images]
    await bench.send("tier.two.archive", *sent)


def test_nothing_of_any_tier_runs_beside_a_suspect(tmp_path: Path) -> None:
    async def test(bench: Slow, running: Running) -> None:
        one, two = await beside_another_tier(bench, running, tmp_path / "w.suspects")
        await bench.send(TOPIC, image("0"))
        await at(1)
        await escalate(bench, 4)
        await at(SECONDS - 1)
        assert (one.running, two.running, len(two.queue)) == (1, 0, 4)
        await at(SECONDS + 1)
        assert (one.running, two.running) == (0, 2)

    virtually(test)


def test_a_suspect_waits_until_nothing_of_any_tier_runs(tmp_path: Path) -> None:
    async def test(bench: Slow, running: Running) -> None:
        one, two = await beside_another_tier(bench, running, tmp_path / "w.suspects")
        await escalate(bench, 2)
        await at(1)
        await bench.send(TOPIC, image("0"))
        await at(SECONDS - 1)
        assert (one.running, two.running) == (0, 1)
        await at(SECONDS + 1)
        assert (one.running, two.running) == (1, 0)

    virtually(test)


def test_a_suspect_that_goes_while_it_waits_for_its_turn_is_left_to_others(tmp_path: Path) -> None:
    async def test(bench: Slow, running: Running) -> None:
        one, two = await beside_another_tier(bench, running, tmp_path / "w.suspects")
        await escalate(bench, 2)
        await at(1)
        await bench.send(TOPIC, image("0"))
        await at(2)
        await one.give_up([TopicPartition(TOPIC, 0)])
        await at(SECONDS + 1)
        assert (one.running, one.stats.replayed, one.judge.devices.in_flight) == (0, 0, 0)
        await bench.send(TOPIC, image("1"))
        await at(2 * SECONDS + 2)
        assert (one.stats.judged, two.stats.judged) == (1, 2)

    virtually(test)


def test_suspects_are_counted_by_their_ends(tmp_path: Path) -> None:
    async def test(bench: Slow, running: Running) -> None:
        notes, killers = tmp_path / "w.suspects", [Place(0), Place(3), Place(4)]
        dies(notes, [*killers, Place(1), Place(5)])
        for _ in range(2):
            for place in killers:
                dies(notes, [place], alone=True)
        await bench.send(TOPIC, *[image(f"{i}") for i in range(6)])
        limits = WorkerLimits(dead_letters=SharePolicy(least=6))  # more than half of them
        worker = running.start(bench.slow(limits, CrashNotes(notes)))
        await at(4 * SECONDS)
        stats = worker.stats
        assert (stats.killers, stats.replayed, stats.judged, stats.batches) == (3, 2, 6, 6)
        assert (stats.expired, stats.fenced, worker.breaker.opened) == (0, 0, 0)
        assert stats.dead_letters == bench.published(DEAD_LETTERS) == 3
        assert await bench.lag() == 0

    virtually(test)


def test_suspects_that_come_with_later_polls_wait_with_the_earlier_ones(tmp_path: Path) -> None:
    async def test(bench: Slow, running: Running) -> None:
        notes = tmp_path / "w.suspects"
        dies(notes, [Place(offset) for offset in range(4)])
        worker = running.start(bench.slow(notes=CrashNotes(notes)))
        for number in range(4):
            await bench.send(TOPIC, image(f"{number}"))
            await at(number + 1)
        assert (worker.running, worker.member.in_flight) == (1, 4)
        await at(4 * SECONDS + 1)
        assert (worker.stats.replayed, worker.member.in_flight) == (4, 0)

    virtually(test)


def test_suspects_and_other_images_share_the_bytes_that_may_wait(tmp_path: Path) -> None:
    async def test(bench: Slow, running: Running) -> None:
        notes = tmp_path / "w.suspects"
        dies(notes, [Place(offset) for offset in range(4)])
        size = len(codec.encode(image("0"))) + OVERHEAD
        limits = WorkerLimits(queue_bytes=4 * size)
        worker = running.start(bench.slow(limits, CrashNotes(notes)))
        for number in range(8):
            await bench.send(TOPIC, image(f"{number}"))
            await anyio.sleep(0.3)
        # One suspect runs and three wait, as does the first of the others.
        assert (worker.running, len(worker.queue), worker.member.in_flight) == (1, 1, 5)

    virtually(test)
