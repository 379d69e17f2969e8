"""What a later tier takes is learnt by way of the log, and an image that lacks the time leaves."""

import re
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from roadstream.schemas import codec, engines
from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.engines import EngineEntry
from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.topics import ANSWERS, all_topics
from roadstream.stages.inference import Engine, Pictures, Score
from roadstream.streams.log import Log
from roadstream.streams.topics.namespace import NamespacedLog
from roadstream.streams.topics.versions import register_version
from roadstream.workers.job.submit import Submitter
from roadstream.workers.service.deciding import build_consensus
from roadstream.workers.service.process import Process
from roadstream.workers.service.runtime import WorkOptions, run_workers
from roadstream.workers.tier.limits import WorkerLimits
from tests.kits.contract import make_log

DEADLINE, TAKES = 60.0, 2.0
SHORT, LONG = 1.5, 60.0
TOML = """
name = "timed"
[[tiers]]
name = "quick"
[[tiers.members]]
name = "q"
engine = "noop"
[[tiers]]
name = "slow"
max_batch = 1
[[tiers.members]]
name = "s"
engine = "sleepy"
"""


class Sleepy(Engine):
    """Takes its time, whatever it is shown."""

    needs_pixels = False

    def __init__(self, *unused: object) -> None:
        del unused

    def load(self) -> None:
        """Nothing to load."""

    def warm_up(self, largest: int = 1) -> None:
        """Nothing to warm."""

    def infer(self, batch: Pictures) -> list[Score]:
        time.sleep(TAKES)
        return [Score(2.0, [])] * len(batch)

    def close(self) -> None:
        """Nothing to give back."""


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Log:
    return NamespacedLog(make_log(request.param, request, tmp_path), f"t-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def cascade(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cascade:
    entry = EngineEntry(name="sleepy", implementation=f"{__name__}:Sleepy", origin="own 1.0")
    monkeypatch.setitem(engines.plug_ins._loaded, "sleepy", entry)
    path = tmp_path / "timed.toml"
    path.write_text(TOML)
    return load_cascade(str(path))


@asynccontextmanager
async def working(log: Log, cascade: Cascade) -> AsyncIterator[Process]:
    """Run each tier as a process of its own does; give that of the first."""
    stopping = anyio.Event()
    first = Process(log, cascade)
    async with anyio.create_task_group() as tasks:
        for tier, process in (("slow", None), ("quick", first)):
            options = WorkOptions(tiers=[tier], limits=WorkerLimits(poll_timeout=0.05))
            tasks.start_soon(run_workers, log, cascade, options, stopping, process)
        tasks.start_soon(build_consensus(log, cascade).run, stopping)
        yield first
        stopping.set()


async def known(process: Process) -> float:
    """Wait until it is known what the later tier takes; return that."""
    with anyio.fail_after(DEADLINE):
        while True:
            for sample in process.samples():
                if sample.metric.name == "roadstream_later_tier_seconds":
                    assert sample.labels == ("quick", "slow")
                    assert isinstance(sample.value, float)
                    return sample.value
            await anyio.sleep(0.05)


async def answered(log: Log, image: Image, deadline: float | None = None) -> Answer:
    """Send an image, and wait for its answer."""
    async with log.reader(ANSWERS, "end") as reader, log.producer() as producer:
        await Submitter(producer, None, 1, deadline=deadline).submit([image])
        with anyio.fail_after(DEADLINE):
            while True:
                for records in (await reader.poll(max_records=1, timeout=0.2)).values():
                    for record in records:
                        return codec.decode_answer(record.value or b"")


def image(name: str, *, live: bool = True) -> Image:
    head = Head(image_id=name, uri=name, lane="live" if live else "archive")
    return Image(head, Inline(b"x"))


def way(answer: Answer) -> Sequence[str]:
    return [tier.tier for tier in answer.tiers]


async def test_an_image_goes_on_if_there_is_time_and_else_leaves_before_its_deadline(
    log: Log, cascade: Cascade
) -> None:
    async with log:
        await log.create_topics(all_topics(cascade.tier_names), 1)
        await register_version(log, cascade, time.time())
        async with working(log, cascade) as first:
            assert await known(first) == pytest.approx(TAKES, abs=1.0)
            early = await answered(log, image("early"), LONG)
            late = await answered(log, image("late"), SHORT)
            archive = await answered(log, image("archive", live=False))
    for answer in (early, archive):
        assert (answer.status, *way(answer)) == ("answered", "quick", "slow")
        assert answer.missing_tiers == []
    assert (late.status, *way(late), *late.flags) == ("partial", "quick", "partial")
    assert (late.missing_tiers, late.error) == (["slow"], None)
    assert late.head.deadline_at is not None
    assert late.answered_at < late.head.deadline_at
    said = late.tiers[0].reason
    assert re.fullmatch(r"no time: slow takes \d\.\d+ s, 1\.\d+ s left", said), said
