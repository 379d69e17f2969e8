"""Tier workers on a loop whose time is virtual, with batches that take long."""

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import anyio
import anyio.abc

from roadstream.bench.simulation.virtual_loop import VirtualLoop, VirtualRunner
from roadstream.bench.simulation.virtual_time import InlineThreads, VirtualClock
from roadstream.schemas.topics import VOTES
from roadstream.stages.batching.latency_model import AffineLatency, Run, TierLatency
from roadstream.stages.breaker import MemberPolicy
from roadstream.streams.group.member import GroupMemberOptions
from roadstream.streams.log import TopicPartition
from roadstream.streams.memory.log import MemoryLog
from roadstream.workers.tier.crash_notes import CrashNotes
from roadstream.workers.tier.devices import Devices
from roadstream.workers.tier.judge import Judge, JudgeOptions
from roadstream.workers.tier.worker import ProcessParts, TierWorker, WorkerLimits
from tests.kits.builders import cascade, member, tier
from tests.kits.tier_bench import Bench

TOPIC = "images.archive"
SECONDS = 10.0
ONE = cascade(tier("one", member("a"), max_batch=2))


class Steady(TierLatency):
    """What batches are expected to take, whatever they take."""

    def __init__(self, alpha: float, beta: float, **others: tuple[str, AffineLatency]) -> None:
        super().__init__({"a": ("cpu", AffineLatency(alpha, beta))} | others)

    def observe(self, size: int, decoding: float, runs: Iterable[Run]) -> None:
        """Learn nothing."""


class Slow(Bench):
    """A bench whose batches take ``SECONDS``, and whose sessions end after a silence of six."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__(ONE)
        self.clock = VirtualClock(loop)
        self.log = MemoryLog(self.clock, session_timeout=6.0, monotonic=loop.time)
        self.loop = loop

    def slow_judge(
        self,
        tier_name: str = "one",
        *,
        devices: Devices | None = None,
        latency: TierLatency | None = None,
        breaker: MemberPolicy | None = None,
    ) -> Judge:
        options = JudgeOptions(
            max_bytes=1 << 20,
            clock=self.clock,
            timer=self.loop.time,
            breaker=breaker or MemberPolicy(),
        )
        judge = Judge(self.cascade, tier_name, dict(self.engines), options=options, devices=devices)
        judge.latency = latency or judge.latency
        return judge

    def slow(
        self,
        limits: WorkerLimits | None = None,
        notes: CrashNotes | None = None,
        name: str | None = None,
        judge: Judge | None = None,
        ledger: Path | None = None,
    ) -> TierWorker:
        around = ProcessParts(
            notes=notes or CrashNotes(),
            clock=self.clock,
            run_blocking=InlineThreads(lambda: SECONDS),
        )
        return TierWorker(
            self.log,
            judge or self.slow_judge(),
            limits=limits or WorkerLimits(),
            options=GroupMemberOptions(member_id=name, ledger=ledger),
            process=around,
        )

    def published(self, topic: str = VOTES) -> int:
        return sum(len(part) for part in self.log.topics[topic])


class Running:
    """Workers that run, each to be stopped on its own."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self._tasks = tasks
        self._stopping: dict[TierWorker, anyio.Event] = {}
        self.ended_at: dict[TierWorker, float] = {}

    def start(self, worker: TierWorker) -> TierWorker:
        self._stopping[worker] = anyio.Event()
        self._tasks.start_soon(self._run, worker)
        return worker

    async def _run(self, worker: TierWorker) -> None:
        await worker.run(self._stopping[worker])
        self.ended_at[worker] = anyio.current_time()

    def stop(self, *workers: TierWorker) -> None:
        for worker in workers or self._stopping:
            self._stopping[worker].set()


Test = Callable[[Slow, Running], Awaitable[None]]


def virtually(test: Test) -> None:
    async def bounded() -> None:
        bench = Slow(runner.loop)
        await bench.create_topics()
        with anyio.fail_after(500):
            async with anyio.create_task_group() as tasks:
                running = Running(tasks)
                await test(bench, running)
                running.stop()

    with VirtualRunner() as runner:
        runner.run(bounded())


async def at(moment: float) -> None:
    """Wait until so many seconds after the beginning."""
    await anyio.sleep_until(moment)


class Place:
    """Where an image's record stands."""

    def __init__(self, offset: int, topic: str = TOPIC) -> None:
        self.tp, self.offset = TopicPartition(topic, 0), offset


def dies(notes: Path, places: list[Place], *, alone: bool = False) -> None:
    """Leave the notes of a process that was killed while these images ran."""
    suspects = CrashNotes(notes)
    with suspects.running(places, alone=alone):
        suspects.close()
