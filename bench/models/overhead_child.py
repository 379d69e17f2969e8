"""One measurement of ``bench.overhead``, in a process of its own that may run on an older tree.

Run by path, with the tree to be measured on ``PYTHONPATH``: so it imports only what every tree has.
Prints one JSON object.
"""

import json
import math
import random
import sys
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec

from roadstream import workers
from roadstream.bench.engine.plan import Plan, noop_cascade, preload
from roadstream.bench.engine.product import TimedLog
from roadstream.schemas import codec
from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.topics import all_topics, images
from roadstream.stages.decoding.decode import encode_jpeg
from roadstream.streams.log import Consumer, Log, Offsets, Output, Polled
from roadstream.streams.memory.log import MemoryLog
from roadstream.workers.commands.common import run_async
from roadstream.workers.demo.render import render_drive
from roadstream.workers.service.deciding import build_consensus
from roadstream.workers.service.runtime import WorkOptions, run_workers

TICK = 0.002
QUIET = 1.0


class LoopWatch:
    """Processor time of the event loop's thread, from the first record to the last output.

    Args:
        goal: Committed records, or outputs if ``outputs``, that end it.
        outputs: What is counted.
        warm: Outputs after which ``warmed`` is set.
    """

    def __init__(self, goal: int, *, outputs: bool, warm: int = 0) -> None:
        self._goal, self._outputs, self._warm = goal, outputs, warm
        self._done: dict[object, int] = {}
        self.count = 0
        self.began = self.began_at = self.spent = self.seconds = 0.0
        self.warmed, self.reached = anyio.Event(), anyio.Event()

    def polled(self, found: Polled) -> None:
        """Note what a poll returned."""
        if found and not self.began_at:
            self.began, self.began_at = time.thread_time(), time.perf_counter()

    def published(self, outputs: Sequence[Output], commit: Offsets) -> None:
        """Note what the log has taken."""
        self.spent = time.thread_time() - self.began
        self.seconds = time.perf_counter() - self.began_at
        self._done |= commit
        self.count += len(outputs)
        count = self.count if self._outputs else sum(self._done.values())
        if self._warm and self.count >= self._warm:
            self.warmed.set()
        if count >= self._goal:
            self.reached.set()


class WatchedConsumer(Consumer):
    """Another consumer, watched."""

    def __init__(self, inner: Consumer, watch: LoopWatch) -> None:
        self._inner, self._watch = inner, watch

    @property
    def assignment(self) -> Any:
        """See ``Consumer.assignment``."""
        return self._inner.assignment

    async def poll(
        self, *, max_records: int, timeout: float, topics: Collection[str] | None = None
    ) -> Polled:
        """See ``Consumer.poll``."""
        found = await self._inner.poll(max_records=max_records, timeout=timeout, topics=topics)
        self._watch.polled(found)
        return found

    async def publish(self, outputs: Sequence[Output], commit: Offsets, epoch: int) -> None:
        """See ``Consumer.publish``."""
        await self._inner.publish(outputs, commit, epoch)
        self._watch.published(outputs, commit)

    async def committed(self) -> Offsets:
        """See ``Consumer.committed``."""
        return await self._inner.committed()


class WatchedLog(TimedLog):
    """Another log, with a watch on its consumers."""

    def __init__(self, inner: Log, watch: LoopWatch) -> None:
        super().__init__(inner, {})
        self._log, self._watch = inner, watch

    @asynccontextmanager
    async def _watched(self, *args: Any, **options: Any) -> Any:
        async with self._log.consumer(*args, **options) as inner:
            yield WatchedConsumer(inner, self._watch)

    def consumer(self, *args: Any, **options: Any) -> Any:
        """See ``Log.consumer``."""
        return self._watched(*args, **options)


async def until(watch: LoopWatch, part: Callable[[anyio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run a part of the product until its watch has seen all."""
    stopping = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(part, stopping)
        await watch.reached.wait()
        stopping.set()


def members(cascade: Cascade, count: int) -> Cascade:
    """Return a cascade of one tier with so many members."""
    (tier,) = cascade.tiers
    chosen = [msgspec.structs.replace(tier.members[0], name=f"m{i}") for i in range(count)]
    return msgspec.structs.replace(cascade, tiers=[msgspec.structs.replace(tier, members=chosen)])


async def loop_time(options: dict[str, Any]) -> dict[str, float]:
    """Return microseconds of the loop's thread per image, of the tier worker and the consensus."""
    count = options["images"]
    plan = Plan(log="memory", images=count, payload=1000, max_batch=options["max_batch"])
    cascade = members(noop_cascade(plan), options["members"])
    log = MemoryLog()
    await log.create_topics(all_topics([plan.tier]), plan.partitions)
    async with log.producer() as producer:
        await preload(producer, plan)
    first, second = LoopWatch(count, outputs=False), LoopWatch(count, outputs=True)

    async def work(stopping: anyio.Event) -> None:
        await run_workers(WatchedLog(log, first), cascade, WorkOptions(), stopping)

    async def decide(stopping: anyio.Event) -> None:
        await build_consensus(WatchedLog(log, second), cascade).run(stopping)

    await until(first, work)
    await until(second, decide)
    return {
        "worker": first.spent / count * 1e6,
        "consensus": second.spent / count * 1e6,
        "worker_images_per_second": count / first.seconds,
        "consensus_images_per_second": count / second.seconds,
    }


async def tick(late: list[float]) -> None:
    """Note for ever by how much the loop is late for a timer."""
    while True:
        due = time.perf_counter() + TICK
        await anyio.sleep(TICK)
        late.append(time.perf_counter() - due)


def pictures(count: int) -> list[bytes]:
    """Return rendered pictures as JPEG."""
    return [encode_jpeg(frame.image) for frame in render_drive(count, 1280, 720, 1)]


async def stalls(options: dict[str, Any]) -> dict[str, Any]:
    """Return how late the loop of a process with real engines is, idle and under load."""
    cascade = load_cascade(options["cascade"])
    encoded = pictures(options["pictures"])
    warm, count = options["warm"], options["images"]
    log = MemoryLog()
    await log.create_topics(all_topics(cascade.tier_names), 4)
    watch = LoopWatch(warm + count, outputs=True, warm=warm)
    quiet: list[float] = []
    late: list[float] = []

    async def work(stopping: anyio.Event) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_workers, log, cascade, WorkOptions(), stopping)
            tasks.start_soon(build_consensus(WatchedLog(log, watch), cascade).run, stopping)

    # Loading is no load: it is over when the workers are in their groups.
    async with anyio.create_task_group() as tasks:
        stopping = anyio.Event()
        tasks.start_soon(work, stopping)
        await submit(log, encoded, warm)
        await watch.warmed.wait()
        with anyio.move_on_after(QUIET):
            await tick(quiet)
        began, spent = time.perf_counter(), time.thread_time()
        async with anyio.create_task_group() as ticking:
            ticking.start_soon(tick, late)
            await submit(log, encoded, count)
            await watch.reached.wait()
            ticking.cancel_scope.cancel()
        seconds, spent = time.perf_counter() - began, time.thread_time() - spent
        stopping.set()
    return {
        "images_per_second": count / seconds,
        "loop_share": spent / seconds,
        "idle": summary(quiet),
        "load": summary(late),
    }


async def submit(log: Log, encoded: Sequence[bytes], count: int) -> None:
    """Put pictures on the archive topic."""
    dice = random.Random(count)
    now = time.time()
    async with log.producer() as producer:
        for i in range(count):
            head = Head(image_id=f"{dice.getrandbits(64):016x}", uri=f"{i}.jpg", submitted_at=now)
            image = Image(head, Inline(encoded[i % len(encoded)]))
            topic = images("archive")
            await producer.publish([Output(topic, head.key, codec.encode(image))])


def summary(late: list[float]) -> dict[str, float]:
    """Return percentiles of lateness, in milliseconds."""
    ordered = sorted(late)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] * 1e3

    return {"p50": at(0.5), "p99": at(0.99), "max": ordered[-1] * 1e3, "ticks": len(ordered)}


def main() -> None:
    """Measure what the arguments say."""
    options = json.loads(sys.argv[1])
    found: dict[str, Any] = {}
    function = loop_time if options["what"] == "loop" else stalls

    async def measure() -> None:
        found.update(await function(options))

    run_async("error", measure)
    tree = str(Path(workers.__path__[0]).resolve().parent)
    print(json.dumps({**found, "tree": tree}))


if __name__ == "__main__":
    main()
