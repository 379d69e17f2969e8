"""When a tier worker begins a batch, how large it is, and what it asks of the log meanwhile."""

import io
from pathlib import Path

import anyio
import pytest
from PIL import Image as Pillow

from roadstream.schemas import codec
from roadstream.schemas.cascade.model import Member
from roadstream.schemas.records.events import Opened
from roadstream.schemas.records.image import Inline
from roadstream.schemas.records.votes import Escalation
from roadstream.schemas.topics import tier_group
from roadstream.stages.batching.latency_model import AffineLatency
from roadstream.streams.ledgers.event_ledger import ledger_files
from roadstream.streams.log import TopicPartition
from roadstream.workers.tier.devices import Devices
from roadstream.workers.tier.records import OVERHEAD
from roadstream.workers.tier.worker import TierWorker, WorkerLimits
from tests.kits.builders import cascade, member, tier
from tests.kits.fake_engine import GreyEngine
from tests.kits.slow_tier import SECONDS, TOPIC, Running, Slow, Steady, at, virtually
from tests.kits.tier_bench import image

WIDE, SQUARE = ((16, 8),), ((8, 8),)
SHAPED = cascade(
    tier("one", Member(name="a", engine="noop", width=8, height=8, sizes=[(16, 8)]), max_batch=8)
)
TWO = cascade(tier("one", member("a"), max_batch=2), tier("two", member("c"), max_batch=2))


def wide() -> Inline:
    target = io.BytesIO()
    Pillow.new("L", (16, 8)).save(target, "PNG")
    return Inline(target.getvalue())


def shaped(bench: Slow, devices: Devices | None = None) -> TierWorker:
    """Return a worker whose batches of one shape are not worth their turn: 45 images would be."""
    bench.cascade = SHAPED
    judge = bench.slow_judge(devices=devices)
    judge.latencies |= {SQUARE: Steady(0.1, 0.5), WIDE: Steady(0.1, 0.5)}
    return bench.slow(WorkerLimits(queue_batches=1), judge=judge)


async def send_both_shapes(bench: Slow, count: int) -> None:
    payloads = [wide() if number % 2 else None for number in range(count)]
    await bench.send(TOPIC, *[image(f"{i}", payload=one) for i, one in enumerate(payloads)])


def test_an_image_that_comes_alone_waits_for_no_company() -> None:
    async def test(bench: Slow, running: Running) -> None:
        worker = running.start(shaped(bench))
        await at(1.0)
        await bench.send(TOPIC, image("alone"))
        await at(1.001)
        assert worker.running == 1

    virtually(test)


def test_an_idle_device_waits_for_a_fuller_batch_while_more_is_on_the_log() -> None:
    async def test(bench: Slow, running: Running) -> None:
        worker = running.start(shaped(bench))
        await at(1.0)
        await send_both_shapes(bench, 10)
        await at(1.49)
        assert (worker.running, len(worker.queue)) == (0, 8)
        await at(1.51)
        assert worker.running == 1

    virtually(test)


def test_it_waits_likewise_where_live_images_came_of_late() -> None:
    async def test(bench: Slow, running: Running) -> None:
        worker = running.start(shaped(bench, Devices(slots=1)))
        await bench.send(TOPIC, image("first"))
        await at(6.0)
        await bench.send("images.live", image("live", deadline_at=bench.clock.now() + 3.9))
        await at(11.0)
        assert (worker.running, worker.stats.expired) == (0, 1)
        await send_both_shapes(bench, 10)
        await at(11.49)
        assert (worker.running, len(worker.queue)) == (0, 8)
        await at(11.51)
        assert worker.running == 1

    virtually(test)


def test_a_small_batch_is_bound_when_its_device_is_expected_to_be_free() -> None:
    async def test(bench: Slow, running: Running) -> None:
        worker = running.start(shaped(bench))
        await at(1.0)
        await send_both_shapes(bench, 10)
        await at(1.5 + 0.89)  # four images take 0.9 s, it is thought
        assert worker.running == 1
        await at(1.5 + 0.91)
        assert worker.running == 2

    virtually(test)


def test_a_tier_waits_for_its_own_device_and_not_for_what_others_use_besides() -> None:
    async def test(bench: Slow, running: Running) -> None:
        bench.cascade = cascade(
            tier("one", member("a"), member("b")), tier("two", member("c"), max_batch=2)
        )
        bench.engines |= {"b": GreyEngine(), "c": GreyEngine()}
        bench.engines["b"].device = "cuda:0"
        await bench.create_topics()
        devices = Devices()
        first = bench.slow_judge(devices=devices)
        first.latency = Steady(1.0, 0.0, b=("cuda:0", AffineLatency(4.0, 0.0)))
        second = bench.slow_judge("two", devices=devices)
        second.latency = Steady(0.1, 5.0)
        hasty = WorkerLimits(drain_timeout=0.0)
        one, two = (running.start(bench.slow(hasty, judge=judge)) for judge in (first, second))
        await bench.send(TOPIC, image("0"))
        await at(0.1)
        escalated = image("1")
        await bench.send("tier.two.archive", Escalation(escalated.head, escalated.payload, []))
        await at(0.99)
        assert (one.running, two.running) == (1, 0)
        await at(1.01)
        assert (one.running, two.running) == (1, 1)

    virtually(test)


def test_the_later_tier_goes_first_on_a_device_that_both_wait_for() -> None:
    async def test(bench: Slow, running: Running) -> None:
        bench.cascade, bench.engines["c"] = TWO, GreyEngine()
        await bench.create_topics()
        devices = Devices(slots=1)
        one = running.start(bench.slow(judge=bench.slow_judge(devices=devices)))
        await bench.send(TOPIC, *[image(f"{i}") for i in range(6)])
        await at(1.0)
        two = running.start(bench.slow(judge=bench.slow_judge("two", devices=devices)))
        for name in "ab":
            sent = image(name)
            await bench.send("tier.two.archive", Escalation(sent.head, sent.payload, []))
        await at(SECONDS - 1)
        assert (one.running, two.running) == (1, 0)
        await at(SECONDS + 1)
        assert (one.running, two.running) == (0, 1)

    virtually(test)


def test_live_images_that_would_be_late_behind_what_runs_wait_for_the_next_batch() -> None:
    async def test(bench: Slow, running: Running) -> None:
        bench.cascade = cascade(tier("one", member("a"), max_batch=4))
        judge = bench.slow_judge(latency=Steady(1.0, 0.0))
        judge.latency.decoding = AffineLatency(0.25, 0.0)
        worker = running.start(bench.slow(judge=judge))
        await bench.send(TOPIC, image("0"), image("1"))
        await at(0.5)
        # Those two take 2.5 s; the next four are decoded from 1.3 s on. Were the device free by
        # then, all four would be done in time; as it is, three.
        due = bench.clock.now() + 5.9
        await bench.send("images.live", *[image(f"live-{i}", deadline_at=due) for i in range(4)])
        await at(1.28)
        assert (worker.running, len(worker.queue)) == (1, 4)
        await at(1.32)
        assert (worker.running, len(worker.queue)) == (2, 1)

    virtually(test)


def test_a_place_for_one_image_is_filled() -> None:
    async def test(bench: Slow, running: Running) -> None:
        worker = running.start(bench.slow(WorkerLimits(queue_batches=1)))
        for count in (4, 1, 3):
            await bench.send(TOPIC, *[image(f"{i}") for i in range(count)])
            await anyio.sleep(0.5)
        assert (worker.running, len(worker.queue), worker.member.in_flight) == (2, 2, 6)

    virtually(test)


def test_the_bytes_that_may_wait_are_used_and_not_exceeded() -> None:
    async def test(bench: Slow, running: Running) -> None:
        size = len(codec.encode(image("0"))) + OVERHEAD
        for queue_bytes, most in ((2 * size, 2), (2 * size + 1, 3)):
            worker = running.start(bench.slow(WorkerLimits(queue_bytes=queue_bytes)))
            for number in range(9):
                await bench.send(TOPIC, image(f"{number}"))
                await anyio.sleep(0.3)
            assert len(worker.queue) == most
            running.stop(worker)
            await anyio.sleep(2 * SECONDS)
            await bench.log.commit(tier_group("one"), {TopicPartition(TOPIC, 0): 9})

    virtually(test)


def test_a_worker_asks_the_log_four_times_a_second_whether_it_idles_or_is_full() -> None:
    async def test(bench: Slow, running: Running) -> None:
        worker = running.start(bench.slow(WorkerLimits(queue_batches=1)))
        for count in (0, 9):
            await bench.send(TOPIC, *[image(f"{i}") for i in range(count)])
            await anyio.sleep(1)
            for _ in range(4):
                polled_at = worker.member.stats.polled_at
                await anyio.sleep(0.26)
                assert worker.member.stats.polled_at > polled_at

    virtually(test)


def test_a_worker_that_leaves_asks_once_a_second_and_takes_nothing_more() -> None:
    async def test(bench: Slow, running: Running) -> None:
        await bench.send(TOPIC, *[image(f"{i}") for i in range(30)])
        worker = running.start(bench.slow(WorkerLimits(queue_batches=1)))
        await at(0.5)
        running.stop(worker)
        for _ in range(8):
            polled_at = worker.member.stats.polled_at
            await anyio.sleep(1.01)
            assert worker.member.stats.polled_at > polled_at
        await at(SECONDS + 1)
        assert worker.member.stats.delivered == 2 * 2 + 2

    virtually(test)


def test_what_ends_out_of_order_is_committed_while_the_worker_idles() -> None:
    async def test(bench: Slow, running: Running) -> None:
        worker = running.start(bench.slow())
        await bench.send(TOPIC, *[image(f"{i}") for i in range(4)])
        await at(SECONDS + 1)
        assert (worker.running, worker.stats.batches) == (0, 2)
        assert await bench.lag() == 0

    virtually(test)


def test_a_turn_that_comes_after_the_images_went_is_passed_on() -> None:
    async def test(bench: Slow, running: Running) -> None:
        worker = running.start(bench.slow())
        await bench.send(TOPIC, *[image(f"{i}") for i in range(6)])
        await at(1)
        assert (worker.running, len(worker.queue)) == (2, 2)
        await worker.give_up([TopicPartition(TOPIC, 0)])
        await anyio.sleep(2 * SECONDS)
        assert (worker.stats.batches, worker.judge.devices.in_flight) == (2, 0)
        await bench.send(TOPIC, image("next"))
        await anyio.sleep(SECONDS + 1)
        assert (worker.stats.batches, worker.stats.judged) == (3, 5)

    virtually(test)


def test_each_live_image_is_answered_at_its_own_deadline_whatever_runs() -> None:
    async def test(bench: Slow, running: Running) -> None:
        await bench.send(TOPIC, *[image(f"{i}") for i in range(4)])
        running.start(bench.slow())
        await at(1)
        now = bench.clock.now()
        for due in (1.5, 0.5, 2.5):
            await bench.send("images.live", image(f"{due}", deadline_at=now + due))
        for number, due in enumerate((0.5, 1.5, 2.5)):
            await at(1 + due - 0.01)
            assert bench.published() == number
            await at(1 + due + 0.01)
            assert bench.published() == number + 1

    virtually(test)


def test_images_that_expired_when_their_batch_begins_are_counted_as_such() -> None:
    async def test(bench: Slow, running: Running) -> None:
        await bench.send(TOPIC, *[image(f"{i}") for i in range(5)])
        worker = running.start(bench.slow())
        await at(1.3)
        await bench.send("images.live", image("live", deadline_at=bench.clock.now() + 3_600))
        await at(SECONDS - 0.5)
        bench.clock.offset = 3_600.0  # which is noticed within a second; the next batch is sooner
        await at(SECONDS + 0.1)
        assert (worker.running, len(worker.queue), worker.stats.expired) == (1, 0, 0)
        await at(2 * SECONDS + 1)
        assert (worker.stats.expired, worker.stats.judged, worker.stats.batches) == (1, 6, 3)
        said = await bench.said(6)
        assert said["live"].error == "expired: the deadline passed in the queue"
        assert said["4"].error is None

    virtually(test)


@pytest.mark.parametrize("drain_timeout", [3.0, 3.5])
def test_what_is_let_go_of_is_counted_over_all_memberships(drain_timeout: float) -> None:
    async def test(bench: Slow, running: Running) -> None:
        worker = bench.slow(WorkerLimits(drain_timeout=drain_timeout, poll_timeout=0.01))
        for memberships in (1, 2):
            await bench.send(TOPIC, *[image(f"{i}") for i in range(4)])
            running.start(worker)
            await anyio.sleep(1)
            running.stop(worker)
            stopped_at = anyio.current_time()
            await anyio.sleep(3 * SECONDS)
            assert running.ended_at[worker] == pytest.approx(stopped_at + drain_timeout, abs=0.02)
            assert worker.stats.abandoned == 2 * memberships
        for more in (1, 2):
            running.start(worker)
            await anyio.sleep(1)
            await worker.give_up([TopicPartition(TOPIC, 0)])
            assert worker.stats.abandoned == 4 + 2 * more
            running.stop(worker)
            await anyio.sleep(SECONDS)

    virtually(test)


def test_a_worker_says_in_its_ledger_what_it_is(tmp_path: Path) -> None:
    async def test(bench: Slow, running: Running) -> None:
        running.start(bench.slow(name="w", ledger=tmp_path))
        await anyio.sleep(1)

    virtually(test)
    [opened] = [event for file in ledger_files(tmp_path) for event in file][:1]
    assert isinstance(opened, Opened)
    assert (opened.role, opened.group, opened.member) == ("worker", tier_group("one"), "w")
