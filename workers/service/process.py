"""A process that serves for ever: what runs in it, and how it is started, watched and ended."""

import contextlib
import time
from collections.abc import AsyncIterator, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import msgspec
import structlog

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import LogUnavailableError
from roadstream.schemas.topics import CARRIED, VOTES
from roadstream.sinks.consensus.worker import Consensus
from roadstream.streams.log import Log
from roadstream.workers.observe.addresses import Address
from roadstream.workers.observe.metrics import Sample, Shown, serving_metrics
from roadstream.workers.service.access.roll import roll_file
from roadstream.workers.service.lifecycle import (
    DRAIN_TIMEOUT,
    Deadline,
    Heartbeat,
    act_on_hangup,
    drain_within,
    stop_on_signal,
    stop_with_parent,
    supervised,
    until_stopped,
)
from roadstream.workers.service.outage import Persistent, Work
from roadstream.workers.service.status.health import Health, WatchedGroupMember, keep_ticking
from roadstream.workers.service.status.lag import Lags
from roadstream.workers.service.status.minutes import (
    Minutes,
    of_consensus,
    of_tier,
    tell_each_minute,
)
from roadstream.workers.service.status.samples import (
    build_samples,
    consensus_samples,
    group_member_samples,
    health_samples,
    lag_samples,
    log_samples,
    worker_samples,
)

if TYPE_CHECKING:
    from roadstream.workers.tier.worker import TierWorker

logger = structlog.get_logger()


class ServiceOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a process is looked after by whoever runs it.

    Attributes:
        drain_timeout: Seconds within which it ends once it is told to stop.
        metrics: Where it serves metrics and health; ``None`` for nowhere.
        alive_file: File that it touches every second while it is well.
        cascade_file: What SIGHUP rolls: the cascade that it was started with, by name or path.
    """

    drain_timeout: float = DRAIN_TIMEOUT
    metrics: Address | None = None
    alive_file: Path | None = None
    cascade_file: str | None = None


class Process:
    """What runs in this process, for those who watch it.

    Args:
        log: The log of its parts.
        cascade: What they run.

    Attributes:
        cascade: As given, or the version that has been rolled since.
        health: Whether it is well.
        lags: How far it is behind.
    """

    def __init__(self, log: Log, cascade: Cascade) -> None:
        self._log, self.cascade = log, cascade
        self.health = Health()
        self._workers: list[tuple[TierWorker, Persistent]] = []
        self._consensus: list[tuple[Consensus, Persistent]] = []
        self.lags = Lags(log)
        self._minutes: list[Minutes] = []

    def watch_worker(
        self, worker: "TierWorker", running: Persistent, topics: Collection[str]
    ) -> None:
        """Note that a worker begins to run, its models warm, on these topics."""
        self._workers.append((worker, running))
        self.lags.watch(worker.member, topics)
        self.health.watch(WatchedGroupMember(running, worker.paused))
        who = {"tier": worker.tier, "group": self._log.real_name(worker.member.group)}
        lag = partial(self.lags.waiting, worker.member.group)
        self._minutes.append(Minutes(of_tier(worker, running, lag, who), time.monotonic()))

    def watch_consensus(self, consensus: Consensus, running: Persistent) -> None:
        """Note that the consensus begins to run."""
        self._consensus.append((consensus, running))
        self.lags.watch(consensus.member, [CARRIED, VOTES])
        self.health.watch(WatchedGroupMember(running))
        lag = partial(self.lags.waiting, consensus.member.group)
        self._minutes.append(Minutes(of_consensus(consensus, running, lag), time.monotonic()))

    async def tell_each_minute(self) -> None:
        """Log once a minute what its parts did."""
        await tell_each_minute(self.minutes, self.lags.ask)

    def minutes(self) -> list[Minutes]:
        """Return who tells of its parts; while there are none, log why."""
        if not self._minutes:
            logger.info("minute", not_begun=self.health.unready(time.monotonic()))
        return self._minutes

    @property
    def shown(self) -> Shown:
        """What it shows of itself to other threads."""
        return Shown(self.samples, self.health.dead, self.health.unready)

    def samples(self) -> Iterator[Sample]:
        """Yield every metric of this process as it is now."""
        yield from build_samples(self.cascade)
        yield from health_samples(self.health)
        yield from log_samples(self._log)
        for worker, running in self._workers:
            yield from group_member_samples(worker.member, running)
            yield from worker_samples(worker)
        for consensus, running in self._consensus:
            yield from group_member_samples(consensus.member, running)
            yield from consensus_samples(consensus)
        for group, lag in self.lags.known():
            yield from lag_samples(group, lag)


async def serve(process: Process, log: Log, service: ServiceOptions, work: Work) -> None:
    """Do ``work`` until a signal, or until the supervisor ends; then end within the budget.

    Raises:
        UsageError: The metrics cannot be served where they should.
        RoadstreamError: The log refuses us, or what ``work`` raises. One that does not answer is
            waited for.
    """
    stopping, beat = anyio.Event(), Heartbeat(service.alive_file)
    patient = supervised() is not None
    with (
        contextlib.closing(beat),
        serving_metrics(service.metrics, process.shown, patient=patient),
    ):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop_on_signal, stopping)
            tasks.start_soon(stop_with_parent, stopping)
            tasks.start_soon(keep_ticking, process.health, beat, stopping)
            with anyio.CancelScope() as working:
                tasks.start_soon(drain_within, Deadline(service.drain_timeout), stopping, working)
                async with (
                    _opened(log, process.health, stopping),
                    anyio.create_task_group() as beside,
                ):
                    beside.start_soon(process.tell_each_minute)
                    if service.metrics is not None:
                        beside.start_soon(process.lags.keep)
                    if service.cascade_file is not None:
                        without = process.cascade.snapshot.without
                        again = partial(roll_file, log, service.cascade_file, without)
                        beside.start_soon(act_on_hangup, again, stopping)
                    if not stopping.is_set():
                        await work(stopping)
                    beside.cancel_scope.cancel()
            tasks.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def _opened(log: Log, health: Health, stopping: anyio.Event) -> AsyncIterator[None]:
    """Open the log, whenever it answers first; not at all if ``stopping`` is set before."""
    async with contextlib.AsyncExitStack() as stack:

        async def enter(_: anyio.Event) -> None:
            await stack.enter_async_context(log)

        await wait_for_log(enter, stopping, health)
        yield


async def wait_for_log(
    work: Work,
    stopping: anyio.Event,
    health: Health | None = None,
) -> None:
    """Do what needs the log before there is any work, again and again until the log answers.

    It says in a line what it waits for, and ends at once when ``stopping`` is set.
    """
    starting = Persistent("start", lambda: 0.0, passing=(LogUnavailableError,))
    if health is not None:
        health.starting = starting
    await until_stopped(stopping, partial(starting.run, work, stopping))
    if health is not None:
        health.starting = None
