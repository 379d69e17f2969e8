"""Runs tier workers in this process, from cascade and log to the end."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import anyio
import msgspec
import structlog
from structlog.contextvars import bound_contextvars

from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.schemas.topics import tier_inputs
from roadstream.stages.batching.latency_model import AffineLatency
from roadstream.stages.batching.policy import load_policy
from roadstream.stages.batching.shapes import Size
from roadstream.stages.decoding.decode import DEFAULT
from roadstream.stages.inference import Engine
from roadstream.stages.voting.fusion import load_fusions
from roadstream.streams.group.member import GroupMemberOptions
from roadstream.streams.log import Log, Start
from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.engines.registry import build_engine
from roadstream.workers.observe.logging import speaking_as
from roadstream.workers.service.access.beginning import begin_tier
from roadstream.workers.service.access.rights import to_work
from roadstream.workers.service.access.topics import check_topics, enter_service
from roadstream.workers.service.deciding import persistent
from roadstream.workers.service.lifecycle import in_thread_until_stopped
from roadstream.workers.service.machine import trim_heap
from roadstream.workers.service.process import Process, ServiceOptions, serve, wait_for_log
from roadstream.workers.tier.crash_notes import CrashNotes
from roadstream.workers.tier.devices import Devices
from roadstream.workers.tier.hangs import HANG_TIMEOUT, Calls, watched
from roadstream.workers.tier.judge import Judge, JudgeOptions, Learnt
from roadstream.workers.tier.warm_up import learn
from roadstream.workers.tier.worker import ProcessParts, TierWorker, WorkerLimits

logger = structlog.get_logger()


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


def load_engines(cascade: Cascade, tiers: Sequence[str], threads: int) -> dict[str, Engine]:
    """Load and warm the engines of these tiers (blocking).

    Raises:
        ConfigError: A tier or weight file is not there, or a file is not what it should be.
        ChangedError: Weights have changed since the cascade was loaded.
    """
    engines: dict[str, Engine] = {}
    options = EngineOptions(threads)
    load_fusions(cascade, tiers)
    # The largest models mostly stand last. Loaded first, they leave room in which the others run.
    for name in reversed(tiers):
        with bound_contextvars(tier=name):
            for member in cascade.tier(name).members:
                engine = _load_engine(cascade, member, options)
                engine.warm_up(cascade.tier(name).max_batch)
                engines[member.name] = engine
    return engines


def _load_engine(cascade: Cascade, member: Member, options: EngineOptions) -> Engine:
    cascade.check_weights(member)
    engine = build_engine(cascade, member, options)
    try:
        engine.load()
    finally:  # whatever came of it if they changed meanwhile
        cascade.check_weights(member)
    return engine


Loaded = tuple[dict[str, Engine], Learnt]


def load_and_learn(cascade: Cascade, tiers: Sequence[str], threads: int) -> Loaded:
    """Load and warm the engines of these tiers, and learn what their members take (blocking).

    Raises:
        ConfigError, ChangedError: See ``load_engines``.
    """
    engines = load_engines(cascade, tiers, threads)
    learnt = learn_paces(cascade, tiers, engines)
    trim_heap()
    return engines, learnt


async def wait_for_topics(
    log: Log, cascade: Cascade, stopping: anyio.Event, process: Process | None
) -> None:
    """Check the topics as ``check_topics`` does, once the log answers; raises as it does."""

    async def check(_: anyio.Event) -> None:
        await check_topics(log, cascade)

    await wait_for_log(check, stopping, None if process is None else process.health)


def learn_paces(cascade: Cascade, tiers: Sequence[str], engines: Mapping[str, Engine]) -> Learnt:
    """Learn what the members of these tiers take (blocking, about a second per member at most)."""
    found: dict[tuple[str, Size], AffineLatency] = {}
    for name in tiers:
        tier = cascade.tier(name)
        with bound_contextvars(tier=name):
            for member in tier.members:
                found |= learn(engines[member.name], member, tier.max_batch)
    return found


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
    tiers = options.tiers or cascade.tier_names
    for name in tiers:
        cascade.tier(name)
    await wait_for_topics(log, cascade, stopping, process)
    loaded = await in_thread_until_stopped(
        stopping, partial(load_and_learn, cascade, tiers, options.threads)
    )
    if loaded is not None:
        await run_loaded(log, cascade, options, loaded, stopping, process)


async def run_loaded(
    log: Log,
    cascade: Cascade,
    options: WorkOptions,
    loaded: Loaded,
    stopping: anyio.Event,
    process: Process | None = None,
) -> None:
    """Join the groups and work until ``stopping`` is set, then close the engines.

    Args:
        log: The log, open.
        cascade: What is judged.
        options: How.
        loaded: What ``load_and_learn`` returned for the tiers of ``options``.
        stopping: Set to end it.
        process: Is told what runs here.

    Raises:
        RoadstreamError: See ``run_workers``.
    """
    engines, learnt = loaded
    devices = Devices()
    notes = CrashNotes(_notes(options))
    parts = ProcessParts(notes=notes, policy=partial(load_policy, options.batch_policy))
    reading = JudgeOptions(
        roots=options.roots,
        max_bytes=options.max_bytes,
        max_memory=options.max_memory,
        calls=Calls(),
    )
    try:
        async with watched(reading.calls, options.hang_timeout), anyio.create_task_group() as tasks:
            for name in options.tiers or cascade.tier_names:
                worker = TierWorker(
                    log,
                    Judge(cascade, name, engines, devices=devices, options=reading, learnt=learnt),
                    limits=options.limits,
                    options=options.member,
                    process=parts,
                )
                running = persistent(worker, name)
                if process is not None:
                    inputs = tier_inputs(name, first=name == cascade.tier_names[0])
                    process.watch_worker(worker, running, inputs)
                who = {"tier": name, "group": log.real_name(worker.member.group)}
                tasks.start_soon(speaking_as, who, running.run, worker.run, stopping)
    finally:
        notes.close()
        for engine in engines.values():
            engine.close()


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
            for name in tiers:
                await begin_tier(log, cascade, name, options.start, time.time())

        await wait_for_log(begin, stopping, process.health)
        if not stopping.is_set():
            await run_workers(log, cascade, options, stopping, process)

    await serve(process, log, service, work)
