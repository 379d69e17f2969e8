"""A tier's worker tells what images with a deadline take there; time is virtual."""

from collections.abc import Sequence

import anyio
import pytest
from structlog.testing import capture_logs

from roadstream.bench.simulation.virtual_loop import VirtualRunner
from roadstream.schemas.errors import ForbiddenError, LogUnavailableError, RoadstreamError
from roadstream.schemas.records.claims import ServiceTime, decode_told
from roadstream.schemas.records.votes import Escalation
from roadstream.schemas.topics import CASCADES
from roadstream.streams.memory.log import Fault, MemoryLog
from roadstream.streams.topics.claims import make_topic
from roadstream.workers.tier.service_time import ServiceTimeTeller
from tests.kits.builders import cascade, member, tier
from tests.kits.fake_engine import GreyEngine
from tests.kits.slow_tier import SECONDS, Running, Slow, Steady, virtually
from tests.kits.tier_bench import UNSURE, image

TWO = cascade(tier("one", member("a"), max_batch=2), tier("two", member("b"), max_batch=2))


def told(log: MemoryLog) -> list[ServiceTime]:
    found = [decode_told(one.value or b"") for one in log.topics[CASCADES][0]]
    return [one for one in found if isinstance(one, ServiceTime)]


class Teller:
    """A teller whose tier takes so long alone, and its log."""

    def __init__(self, *faults: RoadstreamError) -> None:
        self.log, self.alone = MemoryLog(), 1.0
        self.log.faults.extend(Fault("publish", error) for error in faults)
        self.teller = ServiceTimeTeller(self.log, "two", "w", lambda: self.alone, lambda: 7.0)

    async def for_seconds(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self.teller.run()


def test_it_is_told_at_once_again_each_minute_and_soon_after_a_change() -> None:
    made = Teller()

    async def main() -> None:
        await make_topic(made.log)
        await made.for_seconds(125.5)
        assert told(made.log) == [ServiceTime(tier="two", worker="w", seconds=1.0, told_at=7.0)] * 3
        made.alone = 2.0
        await made.for_seconds(10.5)
        assert [one.seconds for one in told(made.log)] == [1.0, 1.0, 1.0, 2.0]

    with capture_logs() as said, VirtualRunner() as runner:
        runner.run(main())
    assert [(one["event"], one["seconds"]) for one in said] == [
        ("tier_service_time", 1.0),
        ("tier_service_time", 2.0),
    ]


def test_a_tier_of_which_nothing_is_known_tells_nothing() -> None:
    made = Teller()

    async def main() -> None:
        await make_topic(made.log)
        made.alone = 0.0
        await made.for_seconds(200.0)
        assert told(made.log) == []

    with VirtualRunner() as runner:
        runner.run(main())


@pytest.mark.parametrize(
    ("faults", "events"),
    [
        ([ForbiddenError("missing right WRITE")] * 2, ["service_time_untold"]),
        ([LogUnavailableError("gone")] * 2, []),
    ],
)
def test_a_log_that_does_not_take_it_ends_nothing_and_is_asked_again(
    faults: Sequence[RoadstreamError], events: list[str]
) -> None:
    made = Teller(*faults)

    async def main() -> None:
        await make_topic(made.log)
        await made.for_seconds(125.5)
        assert len(told(made.log)) == 1
        assert not made.log.faults

    with capture_logs() as said, VirtualRunner() as runner:
        runner.run(main())
    assert [one["event"] for one in said if one["log_level"] == "warning"] == events


def test_where_there_is_no_topic_nothing_is_told() -> None:
    made = Teller()

    async def main() -> None:
        await made.for_seconds(200.0)

    with capture_logs() as said, VirtualRunner() as runner:
        runner.run(main())
    assert (said, made.log.topics) == ([], {})


def test_a_worker_tells_what_images_with_a_deadline_took_waiting_included() -> None:
    async def test(bench: Slow, running: Running) -> None:
        bench.cascade = TWO
        bench.engines["b"] = GreyEngine()
        await bench.create_topics()
        await make_topic(bench.log)
        steady = Steady(0.0, 0.0)
        judge = bench.slow_judge("two", latency=steady)
        worker = running.start(bench.slow(judge=judge, name="w"))
        await anyio.sleep(1.0)
        assert told(bench.log) == []  # nothing is known yet
        patient = bench.clock.now() + 1000.0
        some = [image(f"{i}", UNSURE, deadline_at=patient) for i in range(6)]
        await bench.send("tier.two.live", *[Escalation(b.head, b.payload, []) for b in some])
        await anyio.sleep(4 * SECONDS)
        (first, *_, last) = told(bench.log)
        assert first.seconds == pytest.approx(SECONDS, abs=0.5)
        assert last.seconds == pytest.approx(2 * SECONDS, abs=0.5)
        assert {(one.tier, one.worker) for one in told(bench.log)} == {("two", "w")}
        assert worker.service_time is not None

    virtually(test)


def test_an_image_that_waited_in_vain_counts_as_what_it_would_have_taken() -> None:
    async def test(bench: Slow, running: Running) -> None:
        bench.cascade = TWO
        bench.engines["b"] = GreyEngine()
        await bench.create_topics()
        await make_topic(bench.log)
        judge = bench.slow_judge("two", latency=Steady(1.0, 0.0))
        worker = bench.slow(judge=judge)
        archive = [image(f"{i}", UNSURE) for i in range(8)]
        await bench.send("tier.two.archive", *[Escalation(b.head, b.payload, []) for b in archive])
        running.start(worker)
        await anyio.sleep(1.0)
        late = image("late", UNSURE, deadline_at=bench.clock.now() + 5.0)
        await bench.send("tier.two.live", Escalation(late.head, late.payload, []))
        await anyio.sleep(20.0)
        assert worker.stats.expired == 1
        assert worker.service_time is not None
        assert worker.service_time.told.seconds == pytest.approx(6.0, abs=0.5)

    virtually(test)


def test_a_first_tier_tells_nothing() -> None:
    async def test(bench: Slow, running: Running) -> None:
        await make_topic(bench.log)
        assert running.start(bench.slow()).service_time is None
        await anyio.sleep(70.0)
        assert told(bench.log) == []

    virtually(test)
