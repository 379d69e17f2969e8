"""A real vLLM is killed under the stream: answers say so, go on without it, and have it back."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from msgspec.structs import replace

from roadstream.schemas import codec
from roadstream.schemas.cascade.model import Member
from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.topics import ANSWERS, all_topics
from roadstream.stages.breaker import Cooldown, MemberPolicy
from roadstream.stages.decoding.decode import encode_jpeg
from roadstream.streams.memory.log import MemoryLog
from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.engines.rules import NoopEngine
from roadstream.workers.engines.vllm.engine import VllmEngine
from roadstream.workers.job.submit import Submitter
from roadstream.workers.service.deciding import build_consensus
from roadstream.workers.tier.judge import Judge, JudgeOptions
from roadstream.workers.tier.worker import TierWorker
from tests.kits.builders import cascade, member, tier
from tests.kits.checkpoints.qwen3_vl import write_qwen3_vl
from tests.kits.tier_bench import LIMITS
from tests.kits.vllm_kit import pixels, vllm_member

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]
PATIENCE = 300.0
# Trials come soon, so that the test need not wait for them.
POLICY = MemberPolicy(cooldown=Cooldown(first=0.05, longest=0.05))


class Stream:
    """A tier with a quick member and a vLLM, and its answers."""

    def __init__(self, log: MemoryLog, engine: VllmEngine) -> None:
        self._log, self.engine = log, engine

    async def asks(self, name: str) -> Answer:
        """Send a picture and wait for its answer."""
        picture = encode_jpeg(pixels(1)[0], 95)
        async with self._log.reader(ANSWERS, "end") as reader:
            await self.sends(name, picture)
            while True:
                polled = await reader.poll(max_records=10, timeout=1)
                for records in polled.values():
                    for record in records:
                        return codec.decode_answer(record.value or b"")

    async def sends(self, name: str, picture: bytes) -> None:
        """Send a picture."""
        async with self._log.producer() as producer:
            image = Image(Head(image_id=name, uri=name), Inline(picture))
            await Submitter(producer, None, 1).submit([image])


@asynccontextmanager
async def streaming(engine: VllmEngine, asked: Member) -> AsyncIterator[Stream]:
    quick = replace(member("quick"), width=160, height=96)
    chosen = cascade(tier("look", quick, asked))
    log = MemoryLog()
    await log.create_topics(all_topics(chosen.tier_names), 1)
    engines = {"quick": NoopEngine(), asked.name: engine}
    judge = Judge(chosen, "look", engines, options=JudgeOptions(breaker=POLICY))
    stopping = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(TierWorker(log, judge, limits=LIMITS).run, stopping)
        tasks.start_soon(build_consensus(log, chosen).run, stopping)
        yield Stream(log, engine)
        stopping.set()


def voters(answer: Answer) -> set[str]:
    return {vote.member for vote in answer.votes}


def core_of(leader: int) -> int:
    """Return the process of the engine's core: the youngest child of its front end."""
    children = Path(f"/proc/{leader}/task/{leader}/children").read_text().split()
    return max(map(int, children), key=started_at)


def started_at(pid: int) -> int:
    """Return when a process began, in clock ticks: process ids begin anew after a while."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


async def test_a_killed_engine_is_missed_named_and_comes_back(tmp_path: Path) -> None:
    asked = vllm_member("vlm", write_qwen3_vl(tmp_path / "model"))
    chosen = replace(cascade(tier("look", asked)), folder="/")
    engine = VllmEngine(chosen, asked, EngineOptions())
    await to_thread.run_sync(engine.load)
    try:
        async with streaming(engine, asked) as stream:
            whole = await stream.asks("before")
            first = engine.managed.pid
            assert first is not None
            os.kill(core_of(first), signal.SIGKILL)
            assert await to_thread.run_sync(engine.managed.reached, "off", PATIENCE)
            lacking = await stream.asks("meanwhile")
            assert await to_thread.run_sync(engine.managed.reached, "up", PATIENCE)
            with anyio.fail_after(PATIENCE):
                count = 0
                while "vlm" not in voters(again := await stream.asks(f"after-{count}")):
                    count += 1
            second = engine.managed.pid
    finally:
        await to_thread.run_sync(engine.close)

    assert (whole.status, whole.flags, voters(whole)) == ("answered", [], {"quick", "vlm"})
    assert whole.votes[1].model_version == "1+active-roadwork@1"
    assert (lacking.status, lacking.flags, voters(lacking)) == ("answered", ["degraded"], {"quick"})
    assert lacking.missing == ["vlm"]
    assert (again.flags, voters(again)) == ([], {"quick", "vlm"})
    assert again.votes[1].raw == pytest.approx(whole.votes[1].raw, abs=1e-4)
    assert first != second
