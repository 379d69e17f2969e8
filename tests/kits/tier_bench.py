"""A log, a cascade, engines, and the tier workers to run on them."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel

from roadstream.schemas import codec
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.cascade.routes import Route
from roadstream.schemas.records.dead_letters import DeadLetter
from roadstream.schemas.records.image import Head, Image, Inline, Payload
from roadstream.schemas.records.votes import ImageVotes, VotesPack
from roadstream.schemas.topics import DEAD_LETTERS, VOTES, all_topics, tier_group
from roadstream.streams.log import Output
from roadstream.streams.memory.log import MemoryLog
from roadstream.workers.tier.batch import TierBatch
from roadstream.workers.tier.devices import Slot
from roadstream.workers.tier.judge import Judge, JudgeOptions
from roadstream.workers.tier.records import Item
from roadstream.workers.tier.worker import ProcessParts, TierWorker, WorkerLimits
from tests.kits.builders import cascade, member, tier
from tests.kits.fake_engine import GreyEngine, picture

DEADLINE = 20.0
SURE, UNSURE = 240, 130
LIMITS = WorkerLimits(poll_timeout=0.02)
OPTIONS = JudgeOptions(max_bytes=1 << 20)
CASCADE = cascade(
    tier("one", member("a"), member("b", 2.0), member("shade", 0.0),
         routes=[Route(to="exit", min_confidence=0.9)], max_batch=8),
    tier("two"),
)  # fmt: skip


class Bench:
    """A log, a cascade, and engines; makes workers and reads what they publish."""

    def __init__(self, chosen: Cascade = CASCADE) -> None:
        self.log = MemoryLog()
        self.cascade = chosen
        self.engines = {m.name: GreyEngine() for t in chosen.tiers for m in t.members}

    async def create_topics(self, partitions: int = 1) -> None:
        await self.log.create_topics(all_topics(self.cascade.tier_names), partitions)

    def judge(self, name: str = "one", options: JudgeOptions = OPTIONS) -> Judge:
        return Judge(self.cascade, name, dict(self.engines), options=options)

    def worker(
        self,
        name: str = "one",
        limits: WorkerLimits = LIMITS,
        judge: Judge | None = None,
        around: ProcessParts | None = None,
    ) -> TierWorker:
        return TierWorker(
            self.log,
            judge or self.judge(name),
            limits=limits,
            process=around,
        )

    async def send(self, topic: str, *values: object, partition: int = 0) -> None:
        outputs = [
            Output(topic, b"k", v if isinstance(v, bytes) else codec.encode(v), partition)
            for v in values
        ]
        async with self.log.producer() as producer:
            await producer.publish(outputs)

    async def receive(self, topic: str, count: int) -> list[tuple[int, bytes]]:
        """Wait for ``count`` records; return all that are there then, with their partitions."""
        found: list[tuple[int, bytes]] = []
        async with self.log.reader(topic, "beginning") as reader:
            with anyio.fail_after(DEADLINE):
                while len(found) < count:
                    polled = await reader.poll(max_records=1000, timeout=1)
                    found += [(tp[1], r.value or b"") for tp, rs in polled.items() for r in rs]
        return found

    async def packs(self, images: int) -> list[tuple[int, VotesPack]]:
        """Wait until votes for ``images`` are there."""
        found: list[tuple[int, VotesPack]] = []
        async with self.log.reader(VOTES, "beginning") as reader:
            with anyio.fail_after(DEADLINE):
                while sum(len(one.images) for _, one in found) < images:
                    polled = await reader.poll(max_records=1000, timeout=1)
                    for tp, records in polled.items():
                        found += [
                            (tp.partition, codec.decode_votes(r.value or b"")) for r in records
                        ]
        return found

    async def said(self, images: int) -> dict[str, ImageVotes]:
        """Wait until votes for ``images`` are there; return them by image."""
        return {s.head.image_id: s for _, one in await self.packs(images) for s in one.images}

    async def letters(self, count: int) -> list[DeadLetter]:
        """Wait for ``count`` dead letters; return all that are there then."""
        found = await self.receive(DEAD_LETTERS, count)
        return [codec.decode_dead_letter(value) for _, value in found]

    async def lag(self, name: str = "one", topic: str = "images.archive") -> int:
        return await self.log.lag(tier_group(name), [topic])


def judged(judge: Judge, items: Sequence[Item], slot: Slot | None = None) -> TierBatch:
    """Have a batch judged in this thread, and return it."""
    batch = TierBatch(list(items), slot=slot)
    judge.judge(batch)
    return batch


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until the condition holds."""
    with anyio.fail_after(DEADLINE):
        while not condition():
            await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def running(*workers: TierWorker) -> AsyncIterator[None]:
    """Run the workers; stop them in good order afterwards."""
    stopping = anyio.Event()
    async with anyio.create_task_group() as tasks:
        for worker in workers:
            tasks.start_soon(worker.run, stopping)
        yield
        stopping.set()


def image(
    image_id: str,
    level: int = SURE,
    *,
    payload: Payload | None = None,
    deadline_at: float | None = None,
) -> Image:
    head = Head(
        image_id=image_id,
        uri=f"{image_id}.png",
        lane="archive" if deadline_at is None else "live",
        submitted_at=1.5,
        deadline_at=deadline_at,
    )
    return Image(head, payload or Inline(picture(level)))


def voted(packs: Sequence[tuple[int, VotesPack]]) -> Counter[str]:
    return Counter(said.head.image_id for _, one in packs for said in one.images)
