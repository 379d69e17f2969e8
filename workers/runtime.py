"""Runs tier workers and the consensus sink in this process, from cascade and log to the end."""

import threading
from collections.abc import Sequence
from pathlib import Path

import anyio
import msgspec
import structlog
from anyio import to_thread

from schemas.cascade import Cascade
from schemas.errors import UsageError
from schemas.topics import all_topics
from sinks.answer import Answerer
from sinks.consensus import Consensus
from sinks.join import Join
from stages.inference import Engine
from stages.vote import verdict
from streams.log import Log
from streams.member import MemberOptions
from workers.engines.registry import build_engine
from workers.judge import Judge
from workers.lifecycle import stop_on_signal, stop_with_parent
from workers.tier import TierWorker, WorkerLimits

logger = structlog.get_logger()
# Two batches in flight per process: one decodes while the other infers.
SLOTS = 2


class WorkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a process of tier workers runs.

    Attributes:
        tiers: Names of the tiers it works for; empty for all.
        threads: Threads per engine call.
        roots: Folders that payload references may point into; ``None`` for any.
        max_bytes: Largest picture that is read.
        limits: What each of its workers may hold.
        member: How it takes part in its groups.
    """

    tiers: list[str] = []
    threads: int = 1
    roots: list[Path] | None = None
    max_bytes: int = 64 << 20
    limits: WorkerLimits = WorkerLimits()
    member: MemberOptions = MemberOptions()


async def check_topics(log: Log, cascade: Cascade) -> int:
    """Check that the cascade's topics exist with equal partition counts; return the count.

    Raises:
        UsageError: Some are missing, or their counts differ.
    """
    topics = all_topics(cascade.tier_names)
    counts = await log.partition_counts(topics)
    missing = [topic for topic in topics if topic not in counts]
    if missing:
        raise UsageError(
            f"expected topics {', '.join(missing)}; create them with `roadstream topics create`"
        )
    if len(set(counts.values())) > 1:
        raise UsageError(f"expected topics of equal partition counts, got {dict(counts)}")
    return next(iter(counts.values()))


def load_engines(cascade: Cascade, tiers: Sequence[str], threads: int) -> dict[str, Engine]:
    """Load and warm the engines of these tiers (blocking).

    Raises:
        ConfigError: A tier or weight file is not there, or a file is not what it should be.
    """
    engines: dict[str, Engine] = {}
    for name in tiers:
        for member in cascade.tier(name).members:
            engine = build_engine(cascade, member, threads)
            engine.load()
            engine.warm_up()
            engines[member.name] = engine
    return engines


async def run_workers(
    log: Log, cascade: Cascade, options: WorkOptions, stopping: anyio.Event
) -> None:
    """Load models, warm them, then join the groups and work until ``stopping`` is set.

    Raises:
        RoadstreamError: The log fails, or the cascade cannot be run.
    """
    tiers = options.tiers or cascade.tier_names
    for name in tiers:
        cascade.tier(name)
    await check_topics(log, cascade)
    engines = await to_thread.run_sync(load_engines, cascade, tiers, options.threads)
    device, slots = threading.Lock(), anyio.Semaphore(SLOTS)
    try:
        async with anyio.create_task_group() as tasks:
            for name in tiers:
                judge = Judge(
                    cascade,
                    name,
                    engines,
                    device=device,
                    roots=options.roots,
                    max_bytes=options.max_bytes,
                )
                worker = TierWorker(
                    log,
                    judge,
                    slots=slots,
                    limits=options.limits,
                    options=options.member,
                )
                tasks.start_soon(worker.run, stopping)
    finally:
        for engine in engines.values():
            engine.close()


def build_consensus(log: Log, cascade: Cascade, options: MemberOptions | None = None) -> Consensus:
    """Return a consensus sink for the cascade."""
    answerer = Answerer(cascade, verdict(cascade.pool))
    return Consensus(log, Join(answerer, cascade.tier_names), options=options)


async def serve_workers(log: Log, cascade: Cascade, options: WorkOptions) -> None:
    """Be a worker process: until a signal, or until the supervisor ends."""
    stopping = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop_on_signal, stopping)
        tasks.start_soon(stop_with_parent, stopping)
        async with log:
            await run_workers(log, cascade, options, stopping)
        tasks.cancel_scope.cancel()


async def serve_consensus(log: Log, cascade: Cascade, options: MemberOptions) -> None:
    """Be a consensus process: until a signal, or until the supervisor ends."""
    stopping = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop_on_signal, stopping)
        tasks.start_soon(stop_with_parent, stopping)
        async with log:
            await check_topics(log, cascade)
            await build_consensus(log, cascade, options).run(stopping)
        tasks.cancel_scope.cancel()
