"""Runs the consensus sink in this process; who only decides loads no decoder and no model."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import LogUnavailableError, MachineError
from roadstream.schemas.topics import CARRIED, CONSENSUS_GROUP, VOTES, tier_group, tier_inputs
from roadstream.sinks.consensus.join import Join
from roadstream.sinks.consensus.versions import KnownVersions
from roadstream.sinks.consensus.worker import Consensus
from roadstream.stages.voting.rules import vote_math
from roadstream.streams.group.member import GroupMemberOptions
from roadstream.streams.log import Log
from roadstream.streams.topics.versions import Versions, register_version
from roadstream.workers.service.access.rights import to_decide
from roadstream.workers.service.access.topics import enter_service
from roadstream.workers.service.lifecycle import supervised
from roadstream.workers.service.outage import PASSING, Persistent
from roadstream.workers.service.process import Process, ServiceOptions, serve, wait_for_log

if TYPE_CHECKING:
    from roadstream.workers.tier.worker import TierWorker


def build_consensus(
    log: Log, cascade: Cascade, options: GroupMemberOptions | None = None
) -> Consensus:
    """Return a consensus sink for the cascade."""
    join = Join(KnownVersions(cascade, vote_math))
    return Consensus(log, join, versions=Versions(log), options=options)


def persistent(runner: "TierWorker | Consensus", name: str) -> Persistent:
    """Return what runs a worker or the consensus through outages.

    In a job a full disk is final, so that the job can say so and end.
    """
    stats = runner.member.stats
    passing = (LogUnavailableError, MachineError) if supervised() == "job" else PASSING
    return Persistent(name, lambda: stats.polled_at, passing=passing, done_at=lambda: stats.done_at)


async def trim_log(log: Log, tiers: Sequence[str]) -> None:
    """Let go of the images and votes that all workers and the consensus are done with.

    Args:
        log: A log that nobody else needs them on.
        tiers: Names of the cascade's tiers, in order.

    Raises:
        LogUnavailableError: The log does not answer.
    """
    for i, tier in enumerate(tiers):
        await log.trim(list(tier_inputs(tier, first=i == 0)), tier_group(tier))
    await log.trim([CARRIED, VOTES], CONSENSUS_GROUP)


async def serve_consensus(
    log: Log, cascade: Cascade, options: GroupMemberOptions, service: ServiceOptions
) -> None:
    """Be a consensus process: until a signal, or until the supervisor ends.

    Raises:
        RoadstreamError: The log does not answer at the start, or lacks the cascade's topics.
    """
    process = Process(log, cascade)

    async def decide(stopping: anyio.Event) -> None:
        async def begin(_: anyio.Event) -> None:
            await enter_service(log, cascade, to_decide(cascade))
            await register_version(log, cascade, time.time())

        await wait_for_log(begin, stopping, process.health)
        if stopping.is_set():
            return
        consensus = build_consensus(log, cascade, options)
        running = persistent(consensus, "consensus")
        process.watch_consensus(consensus, running)
        await running.run(consensus.run, stopping)

    await serve(process, log, service, decide)
