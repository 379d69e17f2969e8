"""A tier worker whose models break or run out of memory: votes missing, dead letters, pauses."""

import time
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.lowlevel
from anyio import to_thread
from msgspec.structs import replace

from roadstream.schemas import codec
from roadstream.schemas.cascade.routes import Route
from roadstream.schemas.records.image import Inline
from roadstream.schemas.topics import DEAD_LETTERS, tier_group
from roadstream.stages.breaker import Cooldown, MemberPolicy, SharePolicy
from roadstream.workers.tier.judge import Judge
from roadstream.workers.tier.worker import ProcessParts, WorkerLimits
from tests.kits.builders import cascade, member, tier
from tests.kits.fake_engine import GIANT, NONSENSE, POISON
from tests.kits.tier_bench import (
    DEADLINE,
    OPTIONS,
    SURE,
    UNSURE,
    Bench,
    image,
    running,
    until,
    voted,
)

ALONE = cascade(tier("one", member("a"), max_batch=4))
T = TypeVar("T")


def states(judge: Judge) -> dict[str, str]:
    return {name: breaker.state for name, breaker in judge.breakers.items()}


async def test_too_little_memory_makes_batches_smaller_and_blames_no_image() -> None:
    bench = Bench(ALONE)
    await bench.create_topics()
    bench.engines["a"].fits = 2
    await bench.send("images.archive", *[image(f"{i}", 100 + i) for i in range(24)])
    worker = bench.worker()
    async with running(worker):
        found = await bench.said(24)

    assert {name: said.raw for name, said in found.items()} == {
        f"{i}": [(100 + i - 128) / 16] for i in range(24)
    }
    assert not any(said.error for said in found.values())
    assert worker.queue.cap.now == 2
    assert 1 <= worker.stats.out_of_memory <= 2  # those begun before the first was done
    assert [len(batch) for batch in bench.engines["a"].batches[-3:]] == [2, 2, 2]
    assert not any(bench.log.topics[DEAD_LETTERS])


async def test_an_image_that_does_not_fit_even_alone_lacks_that_members_vote_only() -> None:
    bench = Bench()
    await bench.create_topics()
    bench.engines["b"].fits = bench.engines["shade"].fits = 0
    await bench.send("images.archive", *[image(f"{i}") for i in range(4)])
    async with running(bench.worker()):
        found = await bench.said(4)

    assert [found[f"{i}"].raw for i in range(4)] == [[7.0, None, None]] * 4
    assert not any(said.error for said in found.values())
    assert not any(bench.log.topics[DEAD_LETTERS])


async def test_a_giant_leaves_its_neighbours_as_they_are() -> None:
    bench = Bench(ALONE)
    await bench.create_topics()
    await bench.send("images.archive", image("0"), image("giant", GIANT), image("1"))
    async with running(bench.worker()):
        found = await bench.said(3)

    assert found["0"].raw == found["1"].raw == [7.0]
    assert found["giant"].error == (
        "model_failed: not even one picture fits into memory: no room on the device"
    )
    assert not any(bench.log.topics[DEAD_LETTERS])


async def test_an_image_that_breaks_a_member_leaves_a_dead_letter_with_its_bytes() -> None:
    bench = Bench()
    await bench.create_topics(2)
    poison, nonsense = image("p", POISON), image("n", NONSENSE)
    batch = [image("0"), poison, nonsense, image("bad", payload=Inline(b"no picture"))]
    await bench.send("images.archive", *batch, partition=1)
    worker = bench.worker()
    async with running(worker):
        letters = {letter.image_id: letter for letter in await bench.letters(2)}

    assert set(letters) == {"p", "n"}
    letter = letters["p"]
    assert (letter.topic, letter.partition, letter.offset) == ("images.archive", 1, 1)
    assert (letter.key, letter.value) == (b"k", codec.encode(poison))
    assert (letter.reason, letter.tier, letter.member) == ("model_failed", "one", "a")
    assert letter.error == "; ".join(f"{m}: model_failed: RuntimeError: poison" for m in "ab")
    assert (letter.group, letter.attempts) == (tier_group("one"), 3)
    assert letters["n"].value == codec.encode(nonsense)
    assert letters["n"].error.startswith("a: model_failed: expected a finite score, got nan")
    assert worker.stats.dead_letters == 2
    assert [record.key for record in bench.log.topics[DEAD_LETTERS][1]] == [b"k", b"k"]


async def test_an_image_that_breaks_a_shadow_member_leaves_no_dead_letter() -> None:
    bench = Bench()
    await bench.create_topics()
    bench.engines["shade"].broken = True
    await bench.send("images.archive", *[image(f"{i}") for i in range(4)])
    async with running(bench.worker()):
        found = await bench.said(4)

    assert [found[f"{i}"].raw for i in range(4)] == [[7.0, 7.0, None]] * 4
    assert not any(bench.log.topics[DEAD_LETTERS])


async def test_a_member_that_fails_on_everything_is_called_no_more_until_it_is_well() -> None:
    bench = Bench()
    await bench.create_topics()
    now = 0.0
    policy = MemberPolicy(pictures=6, batches=2, cooldown=Cooldown(first=5.0))
    judge = bench.judge(options=replace(OPTIONS, breaker=policy, timer=lambda: now))
    engine = bench.engines["b"]
    engine.broken = True
    worker = bench.worker(judge=judge)
    async with running(worker):
        for sent in range(1, 6):
            await bench.send("images.archive", *[image(f"{sent}-{i}") for i in range(4)])
            found = await bench.said(4 * sent)
        assert states(judge)["b"] == "open"
        calls = len(engine.batches)
        assert sum(len(levels) == 4 for levels in engine.batches) == 2
        engine.broken, now = False, 6.0
        await bench.send("images.archive", image("well"))
        found = await bench.said(21)

    assert found["5-0"].raw == [7.0, None, 7.0]
    assert (found["5-0"].error, found["5-0"].next_tier) == (None, None)
    assert found["well"].raw == [7.0, 7.0, 7.0]
    assert len(engine.batches) == calls + 1
    assert states(judge) == {"a": "closed", "b": "closed", "shade": "closed"}
    assert judge.members[1].stats.skipped == 12
    (last, *_) = [one for _, one in await bench.packs(21) if one.images[0].head.image_id == "5-0"]
    assert [(run.member, run.batch_size) for run in last.runs] == [("a", 4), ("b", 0), ("shade", 4)]
    assert len(await bench.letters(8)) == 8


async def test_with_all_members_out_images_go_on_by_the_routes() -> None:
    bench = Bench()
    await bench.create_topics()
    policy = MemberPolicy(pictures=4, batches=1, cooldown=Cooldown(first=1e6))
    judge = bench.judge(options=replace(OPTIONS, breaker=policy))
    for engine in bench.engines.values():
        engine.broken = True
    worker = bench.worker(judge=judge)
    async with running(worker):
        for sent in range(1, 31):
            await bench.send("images.archive", *[image(f"{sent}-{i}") for i in range(4)])
            found = await bench.said(4 * sent)
        escalations = await bench.receive("tier.two.archive", 120)

    assert {said.next_tier for said in found.values()} == {"two"}
    assert found["30-0"].error == "model_failed: a is out of service, as it kept failing"
    assert codec.decode_escalation(escalations[-1][1]).votes == []
    assert len(await bench.letters(4)) == 4
    assert worker.paused() == []


async def test_a_tier_whose_images_all_become_dead_letters_pauses_and_loses_none() -> None:
    bench = Bench(ALONE)
    await bench.create_topics()
    limits = WorkerLimits(
        poll_timeout=0.02,
        queue_batches=1,
        dead_letters=SharePolicy(last=20, least=8, cooldown=Cooldown(first=0.05, longest=0.05)),
    )
    patient = MemberPolicy(pictures=1000)
    engine, judge = bench.engines["a"], bench.judge(options=replace(OPTIONS, breaker=patient))
    engine.broken = True
    await bench.send("images.archive", *[image(f"{i}") for i in range(200)])
    worker = bench.worker(limits=limits, judge=judge)
    async with running(worker):
        await until(lambda: worker.breaker.opened >= 3)
        assert worker.paused() == ["too many records became dead letters"]
        lost = worker.stats.dead_letters
        # Enough to tell, the batches that ran meanwhile, and one batch per trial.
        assert lost <= 8 + 3 * 4 + 4 * worker.breaker.opened
        engine.broken = False
        found = await bench.said(200)
        assert worker.paused() == []

    failed = [name for name, said in found.items() if said.error]
    letters = await bench.letters(1)
    assert sorted(failed) == sorted(letter.image_id or "" for letter in letters)
    assert len(failed) < 60
    assert await bench.lag() == 0


async def test_a_tier_whose_records_cannot_be_read_pauses_again_after_each_trial() -> None:
    bench = Bench(ALONE)
    await bench.create_topics()
    limits = WorkerLimits(
        poll_timeout=0.02,
        queue_batches=1,
        dead_letters=SharePolicy(least=4, cooldown=Cooldown(first=0.05, longest=0.05)),
    )
    await bench.send("images.archive", *[b"\xc1"] * 40, image("sound"))
    worker = bench.worker(limits=limits)
    async with running(worker):
        await bench.said(1)
        assert worker.paused() == []

    assert (worker.breaker.opened, worker.breaker.trials) == (10, 10)
    assert worker.stats.dead_letters == 40


async def test_a_trial_is_decided_by_what_came_of_its_images_and_not_by_their_being_read() -> None:
    bench = Bench(ALONE)
    await bench.create_topics()
    limits = WorkerLimits(
        poll_timeout=0.02,
        queue_batches=1,
        dead_letters=SharePolicy(cooldown=Cooldown(first=0.05, longest=0.05)),
    )
    bench.engines["a"].broken = True
    await bench.send("images.archive", *[b"\xc1"] * 20)
    for sent in range(3):
        await bench.send("images.archive", b"\xc1", *[image(f"{sent}-{i}") for i in range(3)])
    worker = bench.worker(limits=limits)
    async with running(worker):
        await bench.said(9)
        await until(lambda: worker.breaker.opened == 1 + 3)

    assert worker.stats.dead_letters == 20 + 3 + 9


async def test_a_worker_that_pauses_stays_in_its_group_and_stops_when_told() -> None:
    bench = Bench(ALONE)
    await bench.create_topics()
    limits = WorkerLimits(
        poll_timeout=0.02, dead_letters=SharePolicy(least=4, cooldown=Cooldown(first=1e6))
    )
    await bench.send("images.archive", *[b"\xc1"] * 4)
    worker = bench.worker(limits=limits)
    async with running(worker):
        await until(lambda: worker.breaker.state == "open")
        await bench.send("images.archive", image("later"))
        polled_at = worker.member.stats.polled_at
        await until(lambda: worker.member.stats.polled_at > polled_at)

    assert await bench.lag() == 1
    async with running(bench.worker()):
        assert voted(await bench.packs(1)) == {"later": 1}


async def test_dead_letters_of_a_few_images_pause_nothing() -> None:
    bench = Bench()
    await bench.create_topics()
    levels = [POISON if i % 3 == 0 else SURE for i in range(150)]
    await bench.send("images.archive", *[image(f"{i}", v) for i, v in enumerate(levels)])
    worker = bench.worker()
    async with running(worker):
        await bench.packs(150)

    assert (worker.breaker.opened, worker.stats.dead_letters) == (0, 50)
    assert {b.opened for b in worker.judge.breakers.values()} == {0}


async def inline(call: Callable[[], T], /) -> T:
    await anyio.lowlevel.checkpoint()
    return call()


async def test_a_simulator_may_judge_without_threads() -> None:
    bench = Bench()
    await bench.create_topics()
    await bench.send("images.archive", *[image(f"{i}", UNSURE) for i in range(50)])
    worker = bench.worker(around=ProcessParts(run_blocking=inline))
    async with running(worker):
        packs = await bench.packs(50)

    assert voted(packs) == {f"{i}": 1 for i in range(50)}
    assert (worker.stats.judged, worker.stats.escalated) == (50, 50)


async def test_a_deadline_that_passes_while_the_device_is_busy_is_kept() -> None:
    routes = [Route(to="exit", min_confidence=0.0)]
    bench = Bench(cascade(tier("one", member("a"), routes=routes, max_batch=1), tier("two")))
    await bench.create_topics()
    engine = bench.engines["a"]
    engine.gate.clear()
    deadline = time.time() + 0.3
    await bench.send("images.live", *[image(f"{i}", deadline_at=deadline) for i in range(5)])
    async with running(bench.worker()):
        assert await to_thread.run_sync(engine.reached.wait, DEADLINE)
        await until(lambda: time.time() > deadline)
        engine.gate.set()
        found = await bench.said(5)

    errors = [said.error for said in found.values()]
    assert errors.count("expired: the deadline passed in the queue") == 4
    assert len(engine.batches) == 1


async def test_deadlines_are_kept_while_the_tier_is_paused() -> None:
    bench = Bench(ALONE)
    await bench.create_topics()
    limits = WorkerLimits(
        poll_timeout=0.02, dead_letters=SharePolicy(least=4, cooldown=Cooldown(first=1e6))
    )
    await bench.send("images.archive", *[b"\xc1"] * 4)
    worker = bench.worker(limits=limits)
    async with running(worker):
        await until(lambda: worker.breaker.state == "open")
        await bench.send("images.archive", image("archive"))
        await bench.send("images.live", image("live", deadline_at=time.time() + 0.05))
        found = await bench.said(1)

    assert [(name, one.error) for name, one in found.items()] == [
        ("live", "expired: the deadline passed in the queue")
    ]
    assert bench.engines["a"].batches == []
    assert (await bench.lag(), worker.breaker.state) == (1, "open")
