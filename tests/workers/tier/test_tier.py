"""A tier worker on the in-memory log: votes, escalations, commits, poison, and backpressure."""

import time

import anyio
import pytest
from anyio import to_thread

from roadstream.schemas import codec
from roadstream.schemas.cascade.routes import Route
from roadstream.schemas.errors import LogUnavailableError
from roadstream.schemas.records.image import Inline, Payload, Unreadable
from roadstream.schemas.records.votes import Escalation, PriorVote
from roadstream.schemas.topics import DEAD_LETTERS, VOTES, tier_group
from roadstream.stages.batching.device_queue import SLOTS
from roadstream.stages.voting.vote import sigmoid
from roadstream.streams.log import TopicPartition
from roadstream.streams.memory.log import Fault
from roadstream.workers.tier.worker import WorkerLimits
from tests.kits.builders import cascade, member, tier
from tests.kits.fake_engine import NONSENSE, POISON, GreyEngine
from tests.kits.tier_bench import (
    CASCADE,
    DEADLINE,
    SURE,
    UNSURE,
    Bench,
    image,
    running,
    until,
    voted,
)

GONE = LogUnavailableError("gone")


async def test_the_votes_of_a_batch_travel_in_one_pack_per_partition() -> None:
    bench = Bench()
    await bench.create_topics(2)
    for partition in range(2):
        batch = [image(f"{partition}-{i}") for i in range(3)]
        await bench.send("images.archive", *batch, partition=partition)
    async with running(bench.worker()):
        packs = await bench.packs(6)

    assert sorted(partition for partition, _ in packs) == [0, 1]
    for partition, one in packs:
        assert [said.head.image_id for said in one.images] == [f"{partition}-{i}" for i in range(3)]
        assert (one.tier, one.cascade, one.cascade_hash) == ("one", "test", CASCADE.hash)
        assert [(r.member, r.weight, r.batch_size) for r in one.runs] == [
            ("a", 1.0, 6),
            ("b", 2.0, 6),
            ("shade", 0.0, 6),
        ]
        for said in one.images:
            assert said.raw == [7.0, 7.0, 7.0]
            assert (said.next_tier, said.reason) == (None, "confidence ≥ 0.9")
    assert await bench.lag() == 0


async def test_an_unsure_image_goes_on_with_its_picture_and_the_votes_so_far() -> None:
    bench = Bench()
    await bench.create_topics(2)
    unsure = image("a", UNSURE)
    await bench.send("images.archive", image("sure"), unsure, partition=1)
    async with running(bench.worker()):
        ((partition, value),) = await bench.receive("tier.two.archive", 1)
        packs = await bench.packs(2)

    escalation = codec.decode_escalation(value)
    p = sigmoid((UNSURE - 128) / 16)
    assert partition == 1
    assert (escalation.head, escalation.payload) == (unsure.head, unsure.payload)
    assert escalation.votes == [PriorVote("a", 1.0, p), PriorVote("b", 2.0, p)]
    assert escalation.reason == "no route held: next tier"
    (record,) = bench.log.topics["tier.two.archive"][1]
    assert record.key == b"a"
    next_tiers = {said.head.image_id: said.next_tier for _, one in packs for said in one.images}
    assert next_tiers == {"sure": None, "a": "two"}


async def test_a_live_image_stays_in_the_live_lane() -> None:
    bench = Bench()
    await bench.create_topics()
    await bench.send("images.live", image("a", UNSURE, deadline_at=time.time() + 60))
    async with running(bench.worker()):
        ((_, value),) = await bench.receive("tier.two.live", 1)

    assert codec.decode_escalation(value).head.image_id == "a"
    assert not any(bench.log.topics["tier.two.archive"])


async def test_a_later_tier_routes_by_all_votes_and_hands_them_all_on() -> None:
    three = cascade(
        tier("one"),
        tier("two", member("c"), routes=[Route(to="exit", min_confidence=0.9)]),
        tier("three"),
    )
    bench = Bench(three)
    await bench.create_topics()
    undecided = [PriorVote("one-member", 3.0, 0.5)]
    decided = [PriorVote("one-member", 3.0, 0.99)]
    for name, prior in (("a", undecided), ("b", decided)):
        one = image(name)
        await bench.send("tier.two.archive", Escalation(one.head, one.payload, prior))
    async with running(bench.worker("two")):
        packs = await bench.packs(2)
        ((_, value),) = await bench.receive("tier.three.archive", 1)

    by_id = {said.head.image_id: said for _, one in packs for said in one.images}
    assert (by_id["a"].next_tier, by_id["b"].next_tier) == ("three", None)
    assert [vote.member for vote in codec.decode_escalation(value).votes] == ["one-member", "c"]


@pytest.mark.parametrize("after", [False, True], ids=["before its effect", "after its effect"])
async def test_a_failed_publish_loses_nothing(*, after: bool) -> None:
    bench = Bench()
    await bench.create_topics()
    await bench.send("images.archive", *[image(f"{i}", UNSURE) for i in range(5)])
    bench.log.faults.append(Fault("publish", GONE, after=after))
    with pytest.RaisesGroup(pytest.RaisesExc(LogUnavailableError, match="gone")):
        await bench.worker().run(anyio.Event())

    assert await bench.lag() == (0 if after else 5)
    async with running(bench.worker()):
        packs = await bench.packs(5)
        escalations = await bench.receive("tier.two.archive", 5)
    assert voted(packs) == {f"{i}": 1 for i in range(5)}
    assert len(escalations) == 5
    assert await bench.lag() == 0


async def test_offsets_wait_for_the_batches_before_them() -> None:
    two_slots = cascade(tier("one", member("a"), max_batch=1), tier("two"))
    bench = Bench(two_slots)
    await bench.create_topics()
    engine = bench.engines["a"]
    engine.gate.clear()
    await bench.send("images.archive", image("0"), image("1"))
    async with running(bench.worker()):
        assert await to_thread.run_sync(engine.reached.wait, DEADLINE)
        assert await bench.lag() == 2
        assert not any(bench.log.topics[VOTES])
        engine.gate.set()
        await bench.packs(2)

    assert await bench.lag() == 0


async def test_an_image_whose_deadline_passed_in_the_queue_is_answered_without_work() -> None:
    bench = Bench()
    await bench.create_topics()
    late, early = time.time() - 1, time.time() + 60
    batch = [image("late", POISON, deadline_at=late), image("early", deadline_at=early)]
    await bench.send("images.live", *batch)
    async with running(bench.worker()):
        packs = await bench.packs(2)

    by_id = {said.head.image_id: said for _, one in packs for said in one.images}
    assert by_id["late"].error == "expired: the deadline passed in the queue"
    assert (by_id["late"].raw, by_id["late"].next_tier) == ([None, None, None], None)
    assert by_id["early"].error is None
    assert [level for batch in bench.engines["a"].batches for level in batch] == [SURE]
    assert await bench.lag(topic="images.live") == 0


async def test_a_picture_that_breaks_a_member_harms_no_neighbour() -> None:
    levels = [SURE, POISON, UNSURE, NONSENSE, 20, 200]
    clean, bench = Bench(), Bench()
    for one, chosen in ((clean, [SURE, 0, UNSURE, 0, 20, 200]), (bench, levels)):
        await one.create_topics()
        await one.send("images.archive", *[image(f"{i}", v) for i, v in enumerate(chosen)])
        async with running(one.worker()):
            await one.packs(6)

    before = {s.head.image_id: s for _, one in await clean.packs(6) for s in one.images}
    found = {s.head.image_id: s for _, one in await bench.packs(6) for s in one.images}
    for i in (0, 2, 4, 5):
        assert (found[f"{i}"].raw, found[f"{i}"].probability, found[f"{i}"].next_tier) == (
            before[f"{i}"].raw,
            before[f"{i}"].probability,
            before[f"{i}"].next_tier,
        )
        assert found[f"{i}"].error is None
    assert found["1"].error == "model_failed: RuntimeError: poison"
    assert found["3"].error == "model_failed: expected a finite score, got nan"
    assert found["1"].raw == found["3"].raw == [None, None, None]
    assert await bench.lag() == 0


async def test_an_image_that_one_member_cannot_judge_has_the_votes_of_the_others() -> None:
    bench = Bench()
    bench.engines["a"] = GreyEngine(scale=float("nan"))
    await bench.create_topics()
    await bench.send("images.archive", image("x"))
    async with running(bench.worker()):
        ((_, one),) = await bench.packs(1)

    assert one.images[0].raw == [None, 7.0, 7.0]
    assert (one.images[0].error, one.images[0].next_tier) == (None, None)


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (Inline(b"no picture"), "not_an_image: "),
        (Inline(b""), "empty: "),
        (Inline(bytes(2 << 20)), "too_large: "),
        (Unreadable("missing", "it has vanished"), "missing: it has vanished"),
    ],
)
async def test_a_bad_picture_leaves_with_a_reason_and_harms_no_neighbour(
    payload: Payload, error: str
) -> None:
    bench = Bench()
    await bench.create_topics()
    await bench.send("images.archive", image("0"), image("bad", payload=payload), image("1"))
    async with running(bench.worker()):
        packs = await bench.packs(3)

    found = {said.head.image_id: said for _, one in packs for said in one.images}
    assert (found["bad"].error or "").startswith(error)
    assert (found["bad"].next_tier, found["bad"].raw) == (None, [None, None, None])
    assert found["0"].raw == found["1"].raw == [7.0, 7.0, 7.0]


async def test_records_that_cannot_be_read_become_dead_letters() -> None:
    bench = Bench()
    await bench.create_topics(2)
    one = image("a")
    escalation = codec.encode(Escalation(one.head, one.payload, []))
    await bench.send("images.archive", b"\xc1", one, escalation, partition=1)
    async with running(bench.worker()):
        letters = await bench.receive(DEAD_LETTERS, 2)
        packs = await bench.packs(1)

    decoded = [codec.decode_dead_letter(value) for _, value in letters]
    assert [partition for partition, _ in letters] == [1, 1]
    assert [(x.topic, x.partition, x.offset, x.value, x.group) for x in decoded] == [
        ("images.archive", 1, 0, b"\xc1", tier_group("one")),
        ("images.archive", 1, 2, escalation, tier_group("one")),
    ]
    assert voted(packs) == {"a": 1}
    assert await bench.lag() == 0


async def test_archive_images_wait_while_a_later_tier_is_behind_and_live_ones_do_not() -> None:
    bench = Bench()
    await bench.create_topics()
    behind = [image(f"behind-{i}") for i in range(3)]
    await bench.send("tier.two.archive", *[Escalation(b.head, b.payload, []) for b in behind])
    await bench.send("images.archive", image("archive"))
    await bench.send("images.live", image("live", deadline_at=time.time() + 60))
    limits = WorkerLimits(poll_timeout=0.02, downstream_lag=2)
    async with running(bench.worker(limits=limits)):
        assert voted(await bench.packs(1)) == {"live": 1}
        assert await bench.lag() == 1
        async with running(bench.worker("two")):
            packs = await bench.packs(5)

    assert voted(packs) == {"live": 1, "archive": 1, **{f"behind-{i}": 1 for i in range(3)}}
    assert await bench.lag() == 0


async def test_stopping_finishes_what_runs_and_leaves_the_rest_for_later() -> None:
    narrow = cascade(tier("one", member("a"), max_batch=2), tier("two"))
    bench = Bench(narrow)
    await bench.create_topics()
    engine = bench.engines["a"]
    engine.gate.clear()
    await bench.send("images.archive", *[image(f"{i}") for i in range(90)])
    stopping = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.worker().run, stopping)
        assert await to_thread.run_sync(engine.reached.wait, DEADLINE)
        stopping.set()
        engine.gate.set()
    done = voted(await bench.packs(1))
    assert 2 <= done.total() < 90
    assert await bench.lag() == 90 - done.total()

    async with running(bench.worker()):
        assert voted(await bench.packs(90)) == {f"{i}": 1 for i in range(90)}
    assert await bench.lag() == 0


async def test_work_in_flight_is_finished_before_partitions_are_given_up() -> None:
    bench = Bench()
    await bench.create_topics(2)
    engine = bench.engines["a"]
    engine.gate.clear()
    for partition in range(2):
        await bench.send("images.archive", image(f"{partition}"), partition=partition)
    async with running(bench.worker()):
        assert await to_thread.run_sync(engine.reached.wait, DEADLINE)
        async with running(bench.worker()):
            engine.gate.set()
            await bench.packs(2)

    assert voted(await bench.packs(2)) == {"0": 1, "1": 1}
    assert await bench.lag() == 0


async def test_workers_that_come_and_go_judge_everything() -> None:
    bench = Bench()
    await bench.create_topics(4)
    for i in range(80):
        await bench.send("images.archive", image(f"{i}", UNSURE), partition=i % 4)
    async with running(bench.worker()):
        await bench.packs(1)
        async with running(bench.worker(), bench.worker()):
            await bench.packs(40)
        packs = await bench.packs(80)

    assert voted(packs) == {f"{i}": 1 for i in range(80)}
    offsets = bench.log.groups[tier_group("one")].offsets
    assert offsets == {TopicPartition("images.archive", p): 20 for p in range(4)}


async def test_a_device_goes_to_others_while_a_batch_runs_on_another_one() -> None:
    bench = Bench(cascade(tier("one", member("a"), member("b"))))
    await bench.create_topics()
    there = bench.engines["b"]
    there.device = "cuda:0"
    there.gate.clear()
    await bench.send("images.archive", image("0"))
    worker = bench.worker()
    devices = worker.judge.devices
    async with running(worker):
        assert await to_thread.run_sync(there.reached.wait, DEADLINE)
        await until(lambda: devices.free("cpu") == SLOTS)
        assert (worker.running, devices.free("cuda:0")) == (1, SLOTS - 1)
        there.gate.set()
        assert (await bench.said(1))["0"].raw == [7.0, 7.0]
