"""Runs tier workers in this process, from cascade and log to the end."""

import time
from functools import partial
from pathlib import Path

import anyio
import msgspec
import structlog

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.topics import tier_inputs
from roadstream.stages.batching.policy import load_policy
from roadstream.stages.decoding.decode import DEFAULT
from roadstream.streams.group.member import GroupMemberOptions
from roadstream.streams.log import Log, Start
from roadstream.streams.topics.versions import register_version
from roadstream.workers.observe.logging import speaking_as
from roadstream.workers.service.access.beginning import begin_tier
from roadstream.workers.service.access.rights import to_work
from roadstream.workers.service.access.topics import check_topics, enter_service
from roadstream.workers.service.deciding import persistent
from roadstream.workers.service.loading import EnginePool
from roadstream.workers.service.process import Process, ServiceOptions, serve, wait_for_log
from roadstream.workers.service.versions import LoadedVersions
from roadstream.workers.tier.crash_notes import CrashNotes
from roadstream.workers.tier.hangs import HANG_TIMEOUT, Calls, watched
from roadstream.workers.tier.judge import JudgeOptions
from roadstream.workers.tier.worker import ProcessParts, TierWorker, WorkerLimits

logger = structlog.get_logger()

# Seconds until tiers of a new version are looked for.
LOOKED_AFTER = 1.0


class WorkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a process of tier workers runs.

    Attributes:
        tiers: Names of the tiers it works for; empty for all.
        threads: Threads per engine call.
        roots: Folders that payload references may point into; ``None`` for any.
        max_bytes: Largest picture that is read.
        max_memory: Most bytes that decoding one picture may take.
        limits: What each of its workers may hold.
        member: How it takes part in its groups.
        state: Folder for the notes of what ran when the process died, which it keeps if its member
            has a name; ``None`` keeps none.
        start: Where a first tier begins that is new where others have answered.
        hang_timeout: Seconds after which a call that does not return ends the process; 0 for never.
        batch_policy: Import path of the batching policy; ``None`` for ``DeadlinePolicy``.
    """

    tiers: list[str] = []
    threads: int = 1
    roots: list[Path] | None = None
    max_bytes: int = 64 << 20
    max_memory: int = DEFAULT.max_memory
    limits: WorkerLimits = WorkerLimits()
    member: GroupMemberOptions = GroupMemberOptions()
    state: Path | None = None
    start: Start | None = None
    hang_timeout: float = HANG_TIMEOUT
    batch_policy: str | None = None


async def wait_for_topics(
    log: Log, cascade: Cascade, stopping: anyio.Event, process: Process | None
) -> None:
    """Check the topics as ``check_topics`` does, once the log answers; raises as it does."""

    async def check(_: anyio.Event) -> None:
        await check_topics(log, cascade)

    await wait_for_log(check, stopping, None if process is None else process.health)


async def run_workers(
    log: Log,
    cascade: Cascade,
    options: WorkOptions,
    stopping: anyio.Event,
    process: Process | None = None,
) -> None:
    """Load models, warm them, then join the groups and work until ``stopping`` is set.

    What passes by itself (a log that does not answer, a full disk) is waited out, models loaded.

    Args:
        log: The log, open.
        cascade: What is judged.
        options: How.
        stopping: Set to end it.
        process: Is told what runs here.

    Raises:
        RoadstreamError: The log does not answer at the start, the cascade cannot be run, or the
            state folder cannot be written.
    """
    for name in options.tiers:
        cascade.tier(name)
    await wait_for_topics(log, cascade, stopping, process)
    workers = TierWorkers(log, cascade, EnginePool(options.threads), options, process)
    if await workers.load(stopping):
        await workers.run(stopping)


class TierWorkers:
    """A worker for each tier that a process works for, by whatever versions of the cascade.

    Args:
        log: The log, open; its topics are there.
        cascade: What is judged, until another version is rolled.
        pool: Loads the models, and has them until ``run`` ends.
        options: How they work.
        process: Is told what runs here.
    """

    def __init__(
        self,
        log: Log,
        cascade: Cascade,
        pool: EnginePool,
        options: WorkOptions,
        process: Process | None = None,
    ) -> None:
        self._log, self._pool = log, pool
        self._options, self._process = options, process
        self._reading = JudgeOptions(
            roots=options.roots,
            max_bytes=options.max_bytes,
            max_memory=options.max_memory,
            calls=Calls(),
        )
        self._versions = LoadedVersions(log, cascade, options.tiers, pool, self._reading)

    async def load(self, stopping: anyio.Event) -> bool:
        """Load the models, and warm them; return whether it was done before ``stopping`` was set.

        Raises:
            RoadstreamError: They cannot be loaded, or the log does not answer.
        """
        return await self._versions.start(stopping)

    async def run(self, stopping: anyio.Event) -> None:
        """Join the groups and work until ``stopping`` is set, then close the models.

        Raises:
            RoadstreamError: See ``run_workers``.
        """
        notes = CrashNotes(_notes(self._options))
        policy = partial(load_policy, self._options.batch_policy)
        parts = ProcessParts(notes=notes, policy=policy)
        hangs = watched(self._reading.calls, self._options.hang_timeout)
        try:
            async with hangs, anyio.create_task_group() as beside:
                beside.start_soon(self._versions.run, stopping)
                await self._start_all(parts, stopping)
                beside.cancel_scope.cancel()
        finally:
            notes.close()
            self._pool.close()

    async def _start_all(self, parts: ProcessParts, stopping: anyio.Event) -> None:
        """Run a worker per tier, also of tiers that only a later version has."""
        started: set[str] = set()
        async with anyio.create_task_group() as tasks:
            while not stopping.is_set():
                if self._process is not None:
                    self._process.cascade = self._versions.cascade
                for tier in self._versions.tiers:
                    if tier not in started:
                        started.add(tier)
                        tasks.start_soon(self._work, tier, parts, stopping)
                with anyio.move_on_after(LOOKED_AFTER):
                    await stopping.wait()

    async def _work(self, tier: str, parts: ProcessParts, stopping: anyio.Event) -> None:
        judge = self._versions.newest(tier)
        worker = TierWorker(
            self._log,
            judge,
            limits=self._options.limits,
            options=self._options.member,
            process=parts,
            versions=self._versions,
        )
        running = persistent(worker, tier)
        if self._process is not None:
            inputs = tier_inputs(tier, first=tier == judge.cascade.tier_names[0])
            self._process.watch_worker(worker, running, inputs)
        who = {"tier": tier, "group": self._log.real_name(worker.member.group)}
        await speaking_as(who, running.run, worker.run, stopping)


def _notes(options: WorkOptions) -> Path | None:
    """Return the file of this process's suspects; ``None`` where nobody could recognise it."""
    member = options.member.member_id
    if options.state is None or member is None:
        return None
    return options.state / (member.replace("/", "_") + ".suspects")


async def serve_workers(
    log: Log, cascade: Cascade, options: WorkOptions, service: ServiceOptions
) -> None:
    """Be a worker process: until a signal, or until the supervisor ends.

    Raises:
        RoadstreamError: See ``run_workers``.
    """
    process = Process(log, cascade)

    async def work(stopping: anyio.Event) -> None:
        tiers = [cascade.tier(name).name for name in options.tiers] or cascade.tier_names

        async def begin(_: anyio.Event) -> None:
            await enter_service(log, cascade, to_work(cascade, tiers))
            await register_version(log, cascade, time.time())
            for name in tiers:
                await begin_tier(log, cascade, name, options.start, time.time())

        await wait_for_log(begin, stopping, process.health)
        if not stopping.is_set():
            await run_workers(log, cascade, options, stopping, process)

    await serve(process, log, service, work)
