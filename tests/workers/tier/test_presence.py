"""For which later tiers nobody works: down after a silence, up at once; time is virtual."""

import math
from collections.abc import Awaitable, Callable

import anyio
import pytest
from structlog.testing import capture_logs

from roadstream.bench.simulation.virtual_loop import VirtualRunner
from roadstream.schemas.cascade.routes import Route
from roadstream.schemas.errors import (
    ForbiddenError,
    LogUnavailableError,
    OutputError,
    RoadstreamError,
    UsageError,
)
from roadstream.schemas.records.votes import Escalation
from roadstream.streams.log import Consumer
from roadstream.streams.memory.log import Fault, MemoryLog
from roadstream.workers.tier.presence import Presence
from roadstream.workers.tier.worker import WorkerLimits
from tests.kits.builders import cascade, member, tier
from tests.kits.fake_engine import GreyEngine
from tests.kits.slow_tier import TOPIC, Running, Slow, virtually
from tests.kits.tier_bench import UNSURE, image

AROUND = cascade(
    tier("one", member("a"), max_batch=2, routes=[Route(to="exit", tiers_down=["two"])]),
    tier("two", member("b"), max_batch=2),
)


class Watched:
    """A log with the group of tier ``two``, and who looks for it."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.presence = Presence(self.log, "one")
        self.presence.watch({"two": 10.0})

    async def for_seconds(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self.presence.run()

    async def polls(self, seconds: float) -> None:
        """Look for so long, while a worker of the tier polls."""
        await self.log.create_topics(["t"], 1)
        async with (
            self.log.consumer("roadstream.tier.two", ["t"]) as consumer,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(self._poll, consumer)
            await self.for_seconds(seconds)
            tasks.cancel_scope.cancel()

    async def _poll(self, consumer: Consumer) -> None:
        while True:
            await consumer.poll(max_records=0, timeout=0)
            await anyio.sleep(0.25)

    @property
    def down(self) -> bool:
        return self.presence.down == {"two"}


def virtual(test: Callable[[Watched], Awaitable[None]]) -> list[str]:
    """Run a test; return which edges were logged."""

    async def main() -> None:
        await test(Watched())

    with capture_logs() as lines, VirtualRunner() as runner:
        runner.run(main())
    return [line["event"] for line in lines]


def test_a_tier_that_nobody_ever_worked_for_is_down_once_it_had_its_time() -> None:
    async def test(watched: Watched) -> None:
        await watched.for_seconds(9.5)
        assert not watched.down
        await watched.for_seconds(2.0)
        assert watched.down
        assert watched.presence.watched == {"two": True}
        assert not watched.log.groups
        await watched.for_seconds(1000.0)

    assert virtual(test) == ["tier_down"]


def test_a_tier_is_up_as_soon_as_somebody_polls_and_each_change_is_said_once() -> None:
    async def test(watched: Watched) -> None:
        await watched.for_seconds(12.0)
        await watched.polls(1.5)
        assert not watched.down
        await watched.polls(100.0)
        assert not watched.down
        await watched.for_seconds(8.0)
        assert not watched.down
        await watched.for_seconds(3.0)
        assert watched.down

    assert virtual(test) == ["tier_down", "tier_up", "tier_down"]


def test_a_worker_that_was_away_for_less_than_its_time_was_never_down() -> None:
    async def test(watched: Watched) -> None:
        for _ in range(5):
            await watched.polls(2.0)
            await watched.for_seconds(8.0)

    assert virtual(test) == []


@pytest.mark.parametrize(
    "error", [LogUnavailableError("gone"), OutputError("full"), UsageError("no")]
)
def test_while_the_log_does_not_answer_no_tier_goes_down_or_up(error: RoadstreamError) -> None:
    async def test(watched: Watched) -> None:
        await watched.polls(5.0)
        watched.log.faults.extend([Fault("silence", error)] * 60)
        await watched.for_seconds(59.5)
        assert not watched.down
        watched.log.faults.clear()
        await watched.for_seconds(9.0)
        assert not watched.down  # it has its time again to come back
        await watched.for_seconds(3.0)
        assert watched.down
        watched.log.faults.extend([Fault("silence", error)] * 60)
        await watched.for_seconds(59.5)
        assert watched.down

    assert virtual(test) == ["tier_down"]


def test_a_process_that_stood_still_itself_takes_nobody_as_down_for_it() -> None:
    async def test(watched: Watched) -> None:
        await watched.polls(5.0)
        await anyio.sleep(3600)
        await watched.for_seconds(1.5)
        assert not watched.down
        await watched.for_seconds(12.0)
        assert watched.down
        await anyio.sleep(3600)
        await watched.for_seconds(1.5)
        assert watched.down

    assert virtual(test) == ["tier_down"]


def test_a_tier_that_may_not_be_asked_for_is_taken_as_worked_for_with_one_warning() -> None:
    forbidden = ForbiddenError("missing right DESCRIBE on group roadstream.tier.two")

    async def test(watched: Watched) -> None:
        watched.log.faults.extend([Fault("silence", forbidden)] * 5)
        await watched.for_seconds(4.5 * 60)
        assert not watched.down
        assert len(watched.log.faults) == 0  # asked once a minute, and not more often
        await watched.for_seconds(100.0)  # granted meanwhile
        assert watched.down

    assert virtual(test) == ["tier_unwatched", "tier_down"]


def test_each_tier_has_its_own_time() -> None:
    async def test(watched: Watched) -> None:
        watched.presence.watch({"two": 10.0, "three": 30.0, "four": math.inf})
        await watched.for_seconds(20.0)
        assert watched.presence.down == {"two"}
        await watched.for_seconds(20.0)
        assert watched.presence.down == {"two", "three"}

    assert virtual(test) == ["tier_down", "tier_down"]


def test_a_tier_that_is_no_longer_named_is_looked_for_no_more() -> None:
    async def test(watched: Watched) -> None:
        await watched.for_seconds(12.0)
        assert watched.down
        watched.presence.watch({"three": 10.0})
        assert watched.presence.down == frozenset()
        assert watched.presence.watched == {"three": False}
        await watched.for_seconds(12.0)
        assert watched.presence.down == {"three"}
        watched.presence.watch({"two": 10.0, "three": 10.0})
        await watched.for_seconds(1.5)
        assert watched.presence.down == {"three"}

    assert virtual(test) == ["tier_down", "tier_down"]


def test_images_go_around_a_tier_that_is_down_and_to_it_when_it_is_up_again() -> None:
    async def test(bench: Slow, running: Running) -> None:
        bench.cascade = AROUND
        bench.engines["b"] = GreyEngine()
        await bench.create_topics()
        running.start(bench.slow())
        await bench.send(TOPIC, image("early", UNSURE))
        await anyio.sleep(15)
        await bench.send(TOPIC, image("down", UNSURE))
        await anyio.sleep(15)
        later = running.start(bench.slow(judge=bench.slow_judge("two")))
        await anyio.sleep(3)
        await bench.send(TOPIC, image("up", UNSURE))
        await anyio.sleep(30)
        running.stop(later)
        await anyio.sleep(15)
        await bench.send(TOPIC, image("again", UNSURE))
        await anyio.sleep(15)
        said = {
            (one.tier, said.head.image_id): said
            for _, one in await bench.packs(6)
            for said in one.images
        }
        first = {image: said for (tier, image), said in said.items() if tier == "one"}
        went = {name: (said.next_tier, said.down) for name, said in first.items()}
        assert went == {
            "early": ("two", None),
            "down": (None, ["two"]),
            "up": ("two", None),
            "again": (None, ["two"]),
        }
        assert first["down"].reason == "nobody works for two"
        assert {image for tier, image in said if tier == "two"} == {"early", "up"}

    virtually(test)


def test_the_lag_of_a_tier_that_is_down_holds_nothing_back() -> None:
    async def test(bench: Slow, running: Running) -> None:
        bench.cascade = AROUND
        await bench.create_topics()
        behind = [image(f"behind-{i}") for i in range(3)]
        await bench.send("tier.two.archive", *[Escalation(b.head, b.payload, []) for b in behind])
        await bench.send(TOPIC, image("a", UNSURE))
        worker = running.start(bench.slow(WorkerLimits(downstream_lag=2)))
        await anyio.sleep(8)
        assert (worker.stats.held_back, worker.member.in_flight) == (True, 0)
        await anyio.sleep(15)
        assert not worker.stats.held_back
        assert (await bench.said(1))["a"].down == ["two"]

    virtually(test)
