"""A tier worker whose models hang, or whose log goes away: it leaves, comes back, loses nothing."""

import time

import anyio
import anyio.lowlevel
import pytest
from anyio import to_thread

from roadstream.schemas.errors import LogUnavailableError
from roadstream.schemas.topics import VOTES
from roadstream.stages.batching.device_queue import SLOTS
from roadstream.streams.memory.log import Fault
from roadstream.workers.tier.worker import TierWorker, WorkerLimits
from tests.kits.builders import cascade, member, tier
from tests.kits.tier_bench import DEADLINE, Bench, image, running, until, voted

GONE = LogUnavailableError("gone")
HASTY = WorkerLimits(poll_timeout=0.02, drain_timeout=0.05)
ALONE = cascade(tier("one", member("a"), max_batch=4))


async def run_until_gone(worker: TierWorker) -> None:
    with pytest.RaisesGroup(LogUnavailableError):
        await worker.run(anyio.Event())


async def test_the_same_worker_runs_again_after_its_log_was_gone() -> None:
    bench = Bench()
    await bench.create_topics()
    worker = bench.worker()
    for round_ in range(3):
        await bench.send("images.archive", *[image(f"{round_}-{i}") for i in range(40)])
        bench.log.faults.append(Fault("publish", GONE))
        await run_until_gone(worker)
    async with running(worker):
        with anyio.fail_after(DEADLINE):
            while await bench.lag():
                await anyio.lowlevel.checkpoint()
        packs = await bench.packs(120)

    # Batches that were published before an earlier one failed are judged again, and none is lost.
    assert set(voted(packs)) == {f"{r}-{i}" for r in range(3) for i in range(40)}
    assert await bench.lag() == 0
    assert (worker.running, len(worker.queue), worker.member.in_flight) == (0, 0, 0)


async def test_a_batch_that_ran_when_the_log_went_is_not_finished_in_the_next_membership() -> None:
    bench = Bench(ALONE)
    await bench.create_topics()
    engine, worker = bench.engines["a"], bench.worker()
    engine.gate.clear()
    await bench.send("images.archive", *[image(f"{i}") for i in range(4)])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_until_gone, worker)
        assert await to_thread.run_sync(engine.reached.wait, DEADLINE)
        bench.log.faults.append(Fault("poll", GONE))
    assert worker.paused() == ["1 batches hang in a model"]
    async with running(worker):
        engine.gate.set()
        packs = await bench.packs(4)
        await until(lambda: not worker.paused())

    assert voted(packs) == {f"{i}": 1 for i in range(4)}
    assert len(packs) == 1
    assert await bench.lag() == 0


async def test_a_model_that_hangs_does_not_keep_run_from_returning() -> None:
    bench = Bench(ALONE)
    await bench.create_topics()
    engine, worker = bench.engines["a"], bench.worker(limits=HASTY)
    engine.gate.clear()
    await bench.send("images.archive", *[image(f"{i}") for i in range(8)])
    with anyio.fail_after(DEADLINE):
        async with running(worker):
            await until(lambda: worker.running == 2)
    assert worker.stats.abandoned == 2
    assert not any(bench.log.topics[VOTES])
    assert await bench.lag() == 8

    engine.gate.set()
    await until(lambda: not worker.paused())
    async with running(worker):
        packs = await bench.packs(8)
    assert voted(packs) == {f"{i}": 1 for i in range(8)}


async def test_a_model_that_hangs_does_not_keep_a_member_from_giving_up_its_partitions() -> None:
    bench, other = Bench(ALONE), Bench(ALONE)
    await bench.create_topics(2)
    other.log = bench.log
    engine, hangs = bench.engines["a"], bench.worker(limits=HASTY)
    engine.gate.clear()
    for partition in range(2):
        await bench.send("images.archive", image(f"{partition}"), partition=partition)
    async with running(hangs):
        assert await to_thread.run_sync(engine.reached.wait, DEADLINE)
        async with running(other.worker()):
            await until(lambda: hangs.stats.abandoned > 0)
            packs = await other.packs(1)
            engine.gate.set()
        packs = await bench.packs(2)

    assert voted(packs) == {"0": 1, "1": 1}
    assert await bench.lag() == 0


async def test_slots_of_batches_that_hang_stay_taken_until_they_end() -> None:
    bench = Bench(ALONE)
    await bench.create_topics()
    engine, worker = bench.engines["a"], bench.worker(limits=HASTY)
    devices = worker.judge.devices
    engine.gate.clear()
    await bench.send("images.archive", *[image(f"{i}") for i in range(8)])
    for _ in range(3):
        async with running(worker):
            await until(lambda: devices.free("cpu") == 0)
    assert devices.free("cpu") == 0
    assert len(engine.batches) == 1  # the other waits for the device

    engine.gate.set()
    await until(lambda: not worker.paused())
    async with running(worker):
        await bench.packs(8)
    assert devices.free("cpu") == SLOTS


async def test_deadlines_are_kept_while_no_slot_is_free() -> None:
    bench = Bench(ALONE)
    await bench.create_topics()
    engine, worker = bench.engines["a"], bench.worker()
    engine.gate.clear()
    await bench.send("images.archive", *[image(f"{i}") for i in range(8)])
    async with running(worker):
        await until(lambda: worker.running == 2)
        soon = time.time() + 0.05
        await bench.send("images.live", *[image(f"live-{i}", deadline_at=soon) for i in range(3)])
        found = await bench.said(3)
        assert {one.error for one in found.values()} == {
            "expired: the deadline passed in the queue"
        }
        assert len(found) == 3
        engine.gate.set()
        await bench.packs(11)

    assert worker.stats.expired == 3
    assert await bench.lag() == await bench.lag(topic="images.live") == 0
