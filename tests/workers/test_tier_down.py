"""A tier that nobody works for: answers go on without it, and say so."""

import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from roadstream.schemas import codec
from roadstream.schemas.cascade.routes import Route
from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.topics import ANSWERS, all_topics
from roadstream.streams.log import Log
from roadstream.streams.topics.namespace import NamespacedLog
from roadstream.workers.job.submit import Submitter
from roadstream.workers.service.deciding import build_consensus
from roadstream.workers.tier.judge import Judge
from roadstream.workers.tier.worker import TierWorker, WorkerLimits
from tests.kits.builders import cascade, member, tier
from tests.kits.contract import make_log
from tests.kits.fake_engine import GreyEngine, picture

UNSURE, PARTITIONS, DEADLINE = 130, 2, 60.0
POWER = msgspec.structs.replace(tier("power", member("p", 2.0)), down_after=3.0)
CASCADE = cascade(
    tier("glance", member("g")),
    tier("look", member("l"), routes=[Route(to="exit", tiers_down=["power"])]),
    POWER,
)
Run = Callable[[anyio.Event], Coroutine[Any, Any, None]]


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Log:
    return NamespacedLog(make_log(request.param, request, tmp_path), f"d-{uuid.uuid4().hex[:8]}")


class System:
    """Workers and the consensus on a log, each of them with a member of its own."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.looker = self.worker("look")

    def worker(self, name: str) -> TierWorker:
        engines = {one.name: GreyEngine() for one in CASCADE.tier(name).members}
        judge = Judge(CASCADE, name, dict(engines))
        return TierWorker(self.log, judge, limits=WorkerLimits(poll_timeout=0.05))

    @asynccontextmanager
    async def running(self, *parts: Run) -> AsyncIterator[None]:
        stopping = anyio.Event()
        async with anyio.create_task_group() as tasks:
            for part in parts:
                tasks.start_soon(part, stopping)
            yield
            stopping.set()

    async def until_down(self, *, down: bool) -> None:
        with anyio.fail_after(DEADLINE):
            while ("power" in self.looker.downstream.presence.down) is not down:  # noqa: ASYNC110 (nobody tells)
                await anyio.sleep(0.05)

    async def answered(self, *ids: str) -> list[Answer]:
        """Send images, and wait for their answers."""
        images = [Image(Head(image_id=one, uri=one), Inline(picture(UNSURE))) for one in ids]
        async with self.log.reader(ANSWERS, "end") as reader, self.log.producer() as producer:
            await Submitter(producer, None, PARTITIONS).submit(images)
            found: list[Answer] = []
            with anyio.fail_after(DEADLINE):
                while len(found) < len(ids):
                    polled = await reader.poll(max_records=100, timeout=0.2)
                    records = [record for some in polled.values() for record in some]
                    found += [codec.decode_answer(record.value or b"") for record in records]
            assert {answer.head.image_id for answer in found} == set(ids)
            return found


def ways(answers: list[Answer]) -> set[tuple[str, ...]]:
    return {tuple(tier.tier for tier in answer.tiers) for answer in answers}


async def test_answers_go_on_without_a_tier_that_is_down_say_so_and_have_it_again(
    log: Log,
) -> None:
    async with log:
        await log.create_topics(all_topics(CASCADE.tier_names), PARTITIONS)
        system = System(log)
        consensus = build_consensus(log, CASCADE)
        async with system.running(system.worker("glance").run, system.looker.run, consensus.run):
            async with system.running(system.worker("power").run):
                before = await system.answered("a", "b", "c")
            await system.until_down(down=True)
            without = await system.answered("d", "e", "f")
            async with system.running(system.worker("power").run):
                await system.until_down(down=False)
                again = await system.answered("g", "h", "i")
    for answers in (before, again):
        assert ways(answers) == {("glance", "look", "power")}
        assert {(one.status, *one.flags, *one.missing_tiers) for one in answers} == {("answered",)}
    assert ways(without) == {("glance", "look")}
    lacks = {(one.status, *one.flags, *one.missing_tiers) for one in without}
    assert lacks == {("answered", "degraded", "power")}
