"""A tier worker with somebody else's batching policy: what it is told, and what becomes of it."""

from collections.abc import Sequence

import anyio
import pytest

from roadstream.schemas.errors import ConfigError
from roadstream.schemas.topics import VOTES
from roadstream.stages.batching.policy import BatchPolicy, Moment, ShapeQueue, Take
from roadstream.streams.clock import ManualClock
from roadstream.workers.tier.worker import ProcessParts, TierWorker
from tests.kits.builders import cascade, member, tier
from tests.kits.tier_bench import LIMITS, Bench, image, running, until, voted

FOUR = cascade(tier("one", member("a"), max_batch=4))


class Noted(BatchPolicy):
    """Notes what it is told; fails where it should.

    Attributes:
        fails: The question that it does not answer.
    """

    def __init__(self) -> None:
        self.fails = ""
        self.moments: list[Moment] = []
        self.sizes: list[int] = []

    def take(self, queue: ShapeQueue, moment: Moment) -> Take:
        self.moments.append(moment)
        self._may_fail("take")
        return Take(queue.most)

    def enough(self, queue: ShapeQueue, now: float) -> int:
        self._may_fail("enough")
        return 1

    def begin_at(self, queue: ShapeQueue, moment: Moment) -> float:
        self._may_fail("begin_at")
        return moment.now

    def live_came(self, deadlines: Sequence[float], now: float) -> None:
        self._may_fail("live_came")

    def ended(self, size: int, seconds: float, now: float) -> None:
        self.sizes.append(size)
        self._may_fail("ended")

    def _may_fail(self, question: str) -> None:
        if self.fails == question:
            raise RuntimeError("does not know")


def worker_of(bench: Bench, policy: BatchPolicy, clock: ManualClock) -> TierWorker:
    return TierWorker(
        bench.log,
        bench.judge(),
        limits=LIMITS,
        process=ProcessParts(clock=clock, policy=lambda: policy),
    )


@pytest.mark.parametrize("question", ["take", "enough", "begin_at", "live_came", "ended"])
async def test_a_policy_that_fails_ends_the_worker_and_keeps_no_slot_and_no_image(
    question: str,
) -> None:
    bench, policy = Bench(FOUR), Noted()
    worker = worker_of(bench, policy, ManualClock(100.0))
    await bench.create_topics()
    await bench.send("images.live", image("0", deadline_at=200.0))
    policy.fails = question

    with pytest.raises((ConfigError, ExceptionGroup)) as failed:
        await worker.run(anyio.Event())

    told = pytest.RaisesExc(ConfigError, match=f"Noted.{question}: expected an answer, got Runti")
    assert told.matches(failed.value) or pytest.RaisesGroup(told).matches(failed.value)
    assert (worker.judge.devices.in_flight, worker.running) == (0, 0)
    assert not any(bench.log.topics[VOTES])

    policy.fails = ""
    async with running(worker):
        assert voted(await bench.packs(1)) == {"0": 1}


async def test_it_is_told_of_the_batch_that_runs_beside_and_of_none_that_holds_nothing() -> None:
    bench, policy, clock = Bench(FOUR), Noted(), ManualClock(100.0)
    engine, worker = bench.engines["a"], worker_of(bench, policy, clock)
    await bench.create_topics()
    await bench.send("images.archive", *[image(f"{i}") for i in range(8)])
    engine.gate.clear()
    async with running(worker):
        await until(lambda: worker.running == 2)
        await bench.send("images.live", image("8", deadline_at=200.0))
        await until(lambda: len(worker.queue) == 1)
        await anyio.wait_all_tasks_blocked()  # also who looks for what is late
        clock.advance(200.0)
        engine.gate.set()
        await bench.packs(9)

    assert [moment.running for moment in policy.moments] == [0, 1]
    assert policy.sizes == [4, 4]
