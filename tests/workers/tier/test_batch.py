"""A batch and its thread: abandoned, it does not begin; one that runs keeps its slot."""

import threading
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.lowlevel
import pytest
from anyio import to_thread

from roadstream.streams.log import TopicPartition
from roadstream.workers.tier.batch import TierBatch
from roadstream.workers.tier.worker import ProcessParts, TierWorker
from tests.kits.tier_bench import DEADLINE, Bench, image, running, until
from tests.workers.tier.test_tier_hangs import ALONE, HASTY

T = TypeVar("T")
PARTITION = TopicPartition("images.archive", 0)


class Late:
    """Runs calls in threads, each at the last moment: when whoever waits has been cancelled."""

    def __init__(self) -> None:
        self.waiting, self.cancelled = threading.Event(), threading.Event()
        self.ended = threading.Event()

    async def __call__(self, call: Callable[[], T], /) -> T:
        def begin() -> T:
            self.waiting.set()
            assert self.cancelled.wait(DEADLINE)
            try:
                return call()
            finally:
                self.ended.set()

        return await to_thread.run_sync(begin, abandon_on_cancel=True)


async def one_batch(bench: Bench, worker: TierWorker, waits: threading.Event) -> None:
    """Let a worker begin a batch, and give up its partition while it waits for that."""
    await bench.create_topics()
    await bench.send("images.archive", image("0"))
    async with running(worker):
        assert await to_thread.run_sync(waits.wait, DEADLINE)
        await worker.give_up([PARTITION])


async def test_a_batch_that_was_abandoned_never_begins() -> None:
    bench, late = Bench(ALONE), Late()
    worker = bench.worker(limits=HASTY, around=ProcessParts(run_blocking=late))

    await one_batch(bench, worker, late.waiting)
    late.cancelled.set()
    assert await to_thread.run_sync(late.ended.wait, DEADLINE)

    assert bench.engines["a"].batches == []
    assert worker.paused() == []
    assert worker.judge.devices.in_flight == 0


async def test_a_batch_that_runs_on_keeps_its_slot_until_it_ends() -> None:
    bench = Bench(ALONE)
    engine, worker = bench.engines["a"], bench.worker(limits=HASTY)
    engine.gate.clear()

    await one_batch(bench, worker, engine.reached)

    assert (worker.paused(), worker.judge.devices.in_flight) == (["1 batches hang in a model"], 1)
    engine.gate.set()
    await until(lambda: not worker.paused())
    async with running(worker):
        await bench.packs(1)
    assert worker.judge.devices.in_flight == 0


@pytest.mark.parametrize("round_", range(200))
async def test_abandoned_while_it_begins_a_batch_is_left_to_its_thread_or_never_runs(
    round_: int,
) -> None:
    batch, begun = TierBatch([]), list[bool]()
    thread = threading.Thread(target=lambda: begun.append(batch.begin()))
    thread.start()
    for _ in range(round_):
        await anyio.lowlevel.checkpoint()

    left = batch.abandon()

    thread.join(DEADLINE)
    assert begun == [left]


@pytest.mark.parametrize("round_", range(200))
async def test_cancelled_while_it_begins_a_batch_never_loses_its_slot(
    round_: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either its thread has the slot while it runs, or it does not run."""
    worker = Bench(ALONE).worker()
    devices, seen = worker.judge.devices, list[int]()
    monkeypatch.setattr(worker.judge, "judge", lambda batch: seen.append(devices.in_flight))
    queue = worker._newest
    slot = await devices.acquire(queue._request(worker.judge))
    with anyio.move_on_after(round_ * 2e-6):
        await worker._judge(TierBatch([], slot=slot, queue=queue), slot)
    with anyio.fail_after(DEADLINE):
        while worker.paused():
            await anyio.lowlevel.checkpoint()
    worker._reap()
    assert devices.in_flight == 0
    assert set(seen) <= {1}
