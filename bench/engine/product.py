"""The product's two hops, each in a process of its own, with a stopwatch around the log."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from multiprocessing.connection import Connection

import anyio
from anyio import to_thread

from roadstream.bench.engine.plan import Plan, Timing, check_answers, noop_cascade, preload
from roadstream.bench.harness import cpu_seconds
from roadstream.schemas.topics import ANSWERS, VOTES, all_topics, images
from roadstream.streams.forwarding import ForwardingLog
from roadstream.streams.log import (
    Assignment,
    Consumer,
    GroupListener,
    Log,
    Offsets,
    Output,
    Polled,
)
from roadstream.streams.memory.log import MemoryLog
from roadstream.workers.commands.common import run_async
from roadstream.workers.service.access.connect import open_log
from roadstream.workers.service.deciding import build_consensus
from roadstream.workers.service.runtime import WorkOptions, run_workers

Serve = Callable[["TimedLog", Plan, anyio.Event], Awaitable[None]]


def open_planned(plan: Plan) -> Log:
    """Return the log of a plan, not yet connected."""
    if plan.log.startswith("kafka://") and not plan.check_crcs:
        from roadstream.streams.kafka.log import KafkaLog
        from roadstream.streams.kafka.settings import KafkaSettings

        servers = plan.log.removeprefix("kafka://")
        return KafkaLog(KafkaSettings(bootstrap_servers=servers, check_crcs=False))
    return open_log(plan.log)


class Stopwatch:
    """Starts at the first record polled; every acknowledged publish moves its end.

    Args:
        goal: Outputs to ``topic`` after which ``reached`` is set; ``None`` to count none.
        topic: Topic whose outputs are counted.
    """

    def __init__(self, topic: str, goal: int | None) -> None:
        self._topic, self.goal = topic, goal
        self.first_at = self.last_at = self.cpu_first = self.cpu_last = 0.0
        self.outputs = 0
        self.ready, self.reached = anyio.Event(), anyio.Event()

    def polled(self, consumer: Consumer, found: Polled) -> None:
        """Note what a poll returned."""
        if consumer.assignment.partitions:
            self.ready.set()
        if found and not self.first_at:
            self.first_at, self.cpu_first = time.perf_counter(), cpu_seconds()

    def published(self, outputs: Sequence[Output]) -> None:
        """Note that outputs are acknowledged."""
        self.last_at, self.cpu_last = time.perf_counter(), cpu_seconds()
        if self.goal is not None:
            self.outputs += sum(output.topic == self._topic for output in outputs)
            if self.outputs >= self.goal:
                self.reached.set()

    def timing(self) -> Timing:
        """Return what was measured."""
        return Timing(self.first_at, self.last_at, self.cpu_first, self.cpu_last)


class TimedLog(ForwardingLog):
    """Another log, with a stopwatch on its consumers of some topics."""

    def __init__(self, inner: Log, watches: Mapping[str, Stopwatch]) -> None:
        super().__init__(inner)
        self._watches = watches

    @asynccontextmanager
    async def _consumer(
        self,
        group: str,
        topics: Collection[str],
        listener: GroupListener | None,
        member_id: str | None,
    ) -> AsyncIterator[Consumer]:
        watch = next(self._watches[topic] for topic in topics if topic in self._watches)
        async with self.inner.consumer(
            group, topics, listener=listener, member_id=member_id
        ) as inner:
            yield _TimedConsumer(inner, watch)

    def consumer(
        self,
        group: str,
        topics: Collection[str],
        *,
        listener: GroupListener | None = None,
        member_id: str | None = None,
    ) -> AbstractAsyncContextManager[Consumer]:
        """See ``Log.consumer``."""
        return self._consumer(group, topics, listener, member_id)


class _TimedConsumer(Consumer):
    def __init__(self, inner: Consumer, watch: Stopwatch) -> None:
        self._inner, self._watch = inner, watch

    @property
    def assignment(self) -> Assignment:
        return self._inner.assignment

    async def poll(
        self, *, max_records: int, timeout: float, topics: Collection[str] | None = None
    ) -> Polled:
        found = await self._inner.poll(max_records=max_records, timeout=timeout, topics=topics)
        self._watch.polled(self, found)
        return found

    async def publish(self, outputs: Sequence[Output], commit: Offsets, epoch: int) -> None:
        await self._inner.publish(outputs, commit, epoch)
        if outputs:
            self._watch.published(outputs)

    async def committed(self) -> Offsets:
        return await self._inner.committed()


async def _work(log: TimedLog, plan: Plan, stopping: anyio.Event) -> None:
    await run_workers(log, noop_cascade(plan), WorkOptions(), stopping)


async def _decide(log: TimedLog, plan: Plan, stopping: anyio.Event) -> None:
    await build_consensus(log, noop_cascade(plan)).run(stopping)


def worker_process(plan: Plan, parent: Connection) -> None:
    """Be the first hop: images to votes, until told to stop."""
    watch = Stopwatch(VOTES, None)
    _run(plan, parent, _work, {images("archive"): watch}, watch)


def consensus_process(plan: Plan, parent: Connection) -> None:
    """Be the second hop: votes to answers, until the last answer."""
    watch = Stopwatch(ANSWERS, plan.images)
    _run(plan, parent, _decide, {VOTES: watch}, watch)


def _run(
    plan: Plan,
    parent: Connection,
    serve: Serve,
    watches: Mapping[str, Stopwatch],
    watch: Stopwatch,
) -> None:
    async def main() -> None:
        stopping = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_obey, parent, watch, stopping)
            async with TimedLog(open_planned(plan), watches) as log:
                await serve(log, plan, stopping)
        parent.send(watch.timing())

    run_async("warning", main)


async def _obey(parent: Connection, watch: Stopwatch, stopping: anyio.Event) -> None:
    """Tell the parent when partitions are owned and when the goal is reached; stop when told."""
    await watch.ready.wait()
    parent.send("ready")
    if watch.goal is not None:
        await watch.reached.wait()
        parent.send("done")
    await to_thread.run_sync(parent.recv)
    stopping.set()


def memory_process(plan: Plan, parent: Connection) -> None:
    """Be both hops on the log in memory, which one process cannot share with another."""
    votes, answers = Stopwatch(VOTES, None), Stopwatch(ANSWERS, plan.images)

    async def main() -> None:
        memory, stopping = MemoryLog(), anyio.Event()
        await memory.create_topics(all_topics([plan.tier]), plan.partitions)
        async with memory.producer() as producer:
            await preload(producer, plan)
        log = TimedLog(memory, {images("archive"): votes, VOTES: answers})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_work, log, plan, stopping)
            tasks.start_soon(_decide, log, plan, stopping)
            await answers.reached.wait()
            stopping.set()
        await check_answers(memory, ANSWERS, plan)
        parent.send(Timing(votes.first_at, answers.last_at, votes.cpu_first, answers.cpu_last))

    run_async("warning", main)
