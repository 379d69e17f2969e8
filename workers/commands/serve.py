"""``roadstream work``, ``consensus`` and ``up``: the processes that judge and decide."""

import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import anyio
import anyio.abc
import structlog
from anyio.streams.memory import MemoryObjectSendStream
from cyclopts import Parameter
from rich.table import Table

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import (
    ConfigError,
    LogUnavailableError,
    OutputError,
    UsageError,
)
from roadstream.schemas.topics import CONSENSUS_GROUP, tier_group
from roadstream.stages.batching.policy import load_policy
from roadstream.streams.group.member import GroupMemberOptions
from roadstream.streams.topics.versions import Versions
from roadstream.workers.commands.common import (
    DEFAULT_KAFKA,
    AliveFile,
    Beginning,
    CascadeName,
    DecodeMemory,
    DrainTimeout,
    HangTimeout,
    LedgerFolder,
    LogFormat,
    LogLevel,
    LogUrl,
    MemberName,
    MetricsAddress,
    Namespace,
    PolicyPath,
    StateFolder,
    Without,
    check_drain_timeout,
    member_name,
    run_async,
    state_folder,
)
from roadstream.workers.observe.addresses import Address, check_free, free_ports, parse_address
from roadstream.workers.observe.logging import for_people, identify, pass_on
from roadstream.workers.observe.metrics import Shown, serving_metrics
from roadstream.workers.observe.terminal import console
from roadstream.workers.service.access.connect import address, open_log
from roadstream.workers.service.access.roll import roll_file
from roadstream.workers.service.access.topics import check_settings, create_topics
from roadstream.workers.service.deciding import serve_consensus
from roadstream.workers.service.lifecycle import (
    DRAIN_TIMEOUT,
    act_on_hangup,
    stop_on_signal,
    supervised,
)
from roadstream.workers.service.machine import share_heap
from roadstream.workers.service.option_checks import (
    DECODE_MEMORY,
    MOST_PARTITIONS,
    MOST_WORKERS,
    check_decode_memory,
    check_hang_timeout,
    check_number,
)
from roadstream.workers.service.process import ServiceOptions, wait_for_log
from roadstream.workers.service.status.minutes import Minutes, of_supervisor, tell_each_minute
from roadstream.workers.service.status.samples import supervisor_samples
from roadstream.workers.service.supervision.pinned import given_cascade
from roadstream.workers.service.supervision.supervisor import (
    ChildSpec,
    Supervisor,
    SupervisorOptions,
)
from roadstream.workers.tier.hangs import HANG_TIMEOUT

logger = structlog.get_logger()
# Seconds in which the children of an `up` that was killed end.
ENDING = 3.0

Roots = Annotated[
    list[Path] | None,
    Parameter(
        help="Folder that pictures sent by reference may lie in; repeatable. Without it, "
        "references from Kafka are refused, and those of an embedded log may point anywhere."
    ),
]


def work(
    *,
    tier: Annotated[
        list[str] | None, Parameter(help="Tier to work for; repeatable; all by default.")
    ] = None,
    log: LogUrl = DEFAULT_KAFKA,
    namespace: Namespace = None,
    cascade: CascadeName = "lite",
    without: Without = None,
    threads: Annotated[int, Parameter(help="Threads per model call.")] = 1,
    root: Roots = None,
    decode_memory: DecodeMemory = DECODE_MEMORY,
    member: MemberName = None,
    start: Beginning = None,
    state: StateFolder = None,
    ledger: LedgerFolder = None,
    metrics: MetricsAddress = None,
    alive_file: AliveFile = None,
    batch_policy: PolicyPath = None,
    hang_timeout: HangTimeout = HANG_TIMEOUT,
    drain_timeout: DrainTimeout = DRAIN_TIMEOUT,
    log_level: LogLevel = "info",
    log_format: LogFormat = "auto",
) -> None:
    """Work for one or more tiers: judge images, publish votes, escalate.

    Run as many as there are partitions, on any hosts. A worker joins its group only when its models
    are loaded and warm, and keeps them when the log is away. Stop it with Ctrl-C or SIGTERM: it
    finishes its batches first.
    """
    from roadstream.workers.service.runtime import WorkOptions, serve_workers

    share_heap()
    where = address(log, namespace)
    check_number("--threads", threads, 1, MOST_WORKERS, "threads")
    loaded, member = given_cascade(cascade, without or ()), member_name(member)
    load_policy(batch_policy)  # told now if it cannot be had, and not when all models are loaded
    tiers = [loaded.tier(name).name for name in tier or []]
    alone = tiers[0] if len(tiers) == 1 else None
    identify(tier=alone, member_id=member)
    work_log = open_log(where)
    identify(group=None if alone is None else work_log.real_name(tier_group(alone)))
    options = WorkOptions(
        tiers=tiers,
        threads=threads,
        roots=root if root or log.startswith("embedded:") else [],
        max_memory=check_decode_memory(decode_memory) << 20,
        member=GroupMemberOptions(member_id=member, ledger=ledger),
        state=state_folder(state, member),
        start=start,
        hang_timeout=check_hang_timeout(hang_timeout),
        batch_policy=batch_policy,
    )
    service = _service(metrics, alive_file, drain_timeout, cascade)
    run_async(log_level, serve_workers, work_log, loaded, options, service, log_format=log_format)


def consensus(
    *,
    log: LogUrl = DEFAULT_KAFKA,
    namespace: Namespace = None,
    cascade: CascadeName = "lite",
    without: Without = None,
    member: MemberName = None,
    ledger: LedgerFolder = None,
    metrics: MetricsAddress = None,
    alive_file: AliveFile = None,
    drain_timeout: DrainTimeout = DRAIN_TIMEOUT,
    log_level: LogLevel = "info",
    log_format: LogFormat = "auto",
) -> None:
    """Join the votes of each image into its one answer. Run as many as there are partitions."""
    where = address(log, namespace)
    options = GroupMemberOptions(member_id=member_name(member), ledger=ledger)
    service = _service(metrics, alive_file, drain_timeout, cascade)
    loaded = given_cascade(cascade, without or ())
    identify(member_id=options.member_id)
    votes_log = open_log(where)
    identify(group=votes_log.real_name(CONSENSUS_GROUP))
    run_async(
        log_level, serve_consensus, votes_log, loaded, options, service, log_format=log_format
    )


def _service(
    metrics: str | None, alive_file: Path | None, drain_timeout: float, cascade: str
) -> ServiceOptions:
    return ServiceOptions(
        drain_timeout=check_drain_timeout(drain_timeout),
        metrics=parse_address(metrics) if metrics else None,
        alive_file=alive_file,
        cascade_file=cascade,
    )


def up(
    *,
    log: LogUrl = DEFAULT_KAFKA,
    namespace: Namespace = None,
    cascade: CascadeName = "lite",
    without: Without = None,
    workers: Annotated[int, Parameter(help="Worker processes per tier.")] = 1,
    partitions: Annotated[int, Parameter(help="Partitions of topics that do not exist yet.")] = 16,
    root: Roots = None,
    decode_memory: DecodeMemory = DECODE_MEMORY,
    name: Annotated[
        str | None,
        Parameter(
            help="Names its group members, the host's name by default: two on one host need "
            "two names. Under the same name a restart takes its partitions at once."
        ),
    ] = None,
    start: Beginning = None,
    state: StateFolder = None,
    ledger: LedgerFolder = None,
    metrics: MetricsAddress = None,
    batch_policy: PolicyPath = None,
    hang_timeout: HangTimeout = HANG_TIMEOUT,
    drain_timeout: DrainTimeout = DRAIN_TIMEOUT,
    log_level: LogLevel = "info",
    log_format: LogFormat = "auto",
) -> None:
    """Run a whole cascade under one supervisor: topics, a worker per tier, consensus.

    Processes that die, or stand still for a minute, are started again. Ctrl-C stops them all; each
    finishes its batches first. With --metrics its processes serve theirs at the ports that follow.
    """
    where = address(log, namespace)
    check_number("--workers", workers, 1, MOST_WORKERS, "processes")
    check_number("--partitions", partitions, 1, MOST_PARTITIONS, "partitions")
    loaded = load_cascade(cascade, without=without or ())
    common = [] if where.namespace is None else ["--namespace", where.namespace]
    common += ["--log", log, "--cascade", cascade, "--log-level", log_level]
    common += ["--drain-timeout", f"{check_drain_timeout(drain_timeout):g}"]
    if ledger is not None:
        common += ["--ledger", str(ledger)]
    only_workers = [word for folder in root or [] for word in ("--root", str(folder))]
    only_workers += ["--hang-timeout", f"{check_hang_timeout(hang_timeout):g}"]
    only_workers += ["--decode-memory", str(check_decode_memory(decode_memory))]
    if load_policy(batch_policy) is not None:
        only_workers += ["--batch-policy", str(batch_policy)]
    if start is not None:
        only_workers += ["--from", start]
    if state is not None:
        only_workers += ["--state", str(state)]
    children = _Children(workers, name or socket.gethostname(), common, only_workers)
    options = _UpOptions(where, cascade, partitions, metrics, drain_timeout)
    run_async(log_level, _Up(options, loaded, children).run, log_format=log_format)


class _UpOptions(NamedTuple):
    """How ``up`` was called.

    Attributes:
        url: The log.
        file: Name or path of the cascade, which SIGHUP rolls.
        partitions: Of topics that do not exist yet.
        metrics: Where the supervisor serves its own.
        drain_timeout: Seconds in which each child ends.
    """

    url: str
    file: str
    partitions: int
    metrics: str | None
    drain_timeout: float


class _Children(NamedTuple):
    """The processes of ``up``.

    Attributes:
        workers: Of each tier.
        name: Of this ``up``, in the names of its group members.
        common: Arguments of all.
        only_workers: Arguments of tier workers besides.
    """

    workers: int
    name: str
    common: list[str]
    only_workers: list[str]

    def of_tiers(self, tiers: Iterable[str]) -> list[ChildSpec]:
        """Return the workers of some tiers."""
        rest = [*self.only_workers, *self.common]
        return [
            ChildSpec(
                f"{tier} {i}",
                ["work", "--tier", tier, "--member", f"{self.name}-{tier}-{i}", *rest],
            )
            for tier in tiers
            for i in range(self.workers)
        ]

    def consensus(self) -> ChildSpec:
        """Return the consensus."""
        name = f"{self.name}-consensus"
        return ChildSpec("consensus", ["consensus", "--member", name, *self.common])


def _with_metrics(spec: ChildSpec, at: Address | None) -> ChildSpec:
    if at is None:
        return spec
    return ChildSpec(spec.name, [*spec.arguments, "--metrics", str(at)])


def _addresses(metrics: str | None, count: int) -> list[Address | None]:
    """Return where the supervisor serves its metrics, then where each child does."""
    if not metrics:  # an empty variable of the environment is none
        return [None] * count
    host, first = parse_address(metrics)
    if first + count > 65536:
        raise UsageError(f"--metrics: expected {count} ports from {first} on, which do not exist")
    ports = range(first, first + count) if first else free_ports(host, count)
    return [Address(host, port) for port in ports]


def _say(heard: MemoryObjectSendStream[None]) -> None:
    with suppress(anyio.WouldBlock):  # it will look anyway
        heard.send_nowait(None)


class _Up:
    """The supervisor of ``up``."""

    def __init__(self, options: _UpOptions, cascade: Cascade, children: _Children) -> None:
        self._options, self._cascade, self._children = options, cascade, children
        specs = [*children.of_tiers(cascade.tier_names), children.consensus()]
        self._addresses = _addresses(options.metrics, len(specs) + 1)
        self._specs = list(map(_with_metrics, specs, self._addresses[1:]))
        looked_after = SupervisorOptions(drain_timeout=options.drain_timeout)
        self._supervisor = Supervisor(self._specs, pass_on, looked_after, cascade)

    async def run(self) -> None:
        async def make_topics(_: anyio.Event) -> None:
            async with open_log(self._options.url) as log:
                await create_topics(log, self._cascade, self._options.partitions)
                await check_settings(log, self._cascade)

        stopping = anyio.Event()
        supervisor = self._supervisor
        read = partial(supervisor_samples, supervisor, self._cascade)
        shown = Shown(read, lambda now: [], supervisor.unready)
        await self._wait_for_ports()
        with serving_metrics(self._addresses[0], shown, patient=supervised() is not None):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stop_on_signal, stopping)
                await wait_for_log(make_topics, stopping)
                if not stopping.is_set():
                    self._show()
                    minutes = [Minutes(of_supervisor(supervisor), time.monotonic())]
                    tasks.start_soon(tell_each_minute, lambda: minutes)
                    tasks.start_soon(self._follow_versions, stopping)
                    await supervisor.run(stopping)
                tasks.cancel_scope.cancel()

    async def _follow_versions(self, stopping: anyio.Event) -> None:
        """Roll the file at SIGHUP, and start processes for tiers that only later versions have."""
        options = self._options
        while True:
            try:
                async with open_log(options.url) as log, anyio.create_task_group() as tasks:
                    hangup = partial(roll_file, log, options.file, self._cascade.snapshot.without)
                    tasks.start_soon(act_on_hangup, hangup, stopping)
                    await self._follow(Versions(log), tasks)
            except* (LogUnavailableError, OutputError) as errors:
                logger.warning("versions_unread", reason=str(errors.exceptions[0]))
            await anyio.sleep(ENDING)

    async def _follow(self, versions: Versions, tasks: anyio.abc.TaskGroup) -> None:
        heard, told = anyio.create_memory_object_stream[None](1)
        tasks.start_soon(versions.follow, partial(_say, heard))
        async for _ in told:
            if (roll := versions.roll) is not None:
                for version in filter(None, (roll.main, roll.candidate)):
                    await self._start_tiers_of(versions, version)

    async def _start_tiers_of(self, versions: Versions, version: str) -> None:
        try:
            cascade = await versions.cascade(version)
        except ConfigError as error:
            logger.error("version_refused", version=version, reason=str(error))
            return
        here = {spec.name for spec in self._specs}
        for spec in [] if cascade is None else self._children.of_tiers(cascade.tier_names):
            if spec.name not in here:
                at = self._next_address()
                self._specs.append(spec)
                self._addresses.append(at)
                self._supervisor.add(_with_metrics(spec, at), cascade)
                logger.info("tier_added", child=spec.name, metrics=None if at is None else str(at))

    def _next_address(self) -> Address | None:
        last = self._addresses[-1]
        return None if last is None else Address(last.host, free_ports(last.host, 1)[0])

    async def _wait_for_ports(self) -> None:
        """Wait a moment for ports of processes that are about to end.

        Raises:
            UsageError: One stays taken: its numbers would be another's.
        """
        wanted = [at for at in self._addresses if at is not None]
        until = time.monotonic() + ENDING
        while True:
            try:
                return check_free(wanted)
            except UsageError:
                if time.monotonic() > until:
                    raise
            await anyio.sleep(0.2)

    def _show(self) -> None:
        names = ["supervisor", *(spec.name for spec in self._specs)]
        served = {
            name: f"http://{at}/metrics"
            for name, at in zip(names, self._addresses, strict=True)
            if at is not None
        }
        if not for_people():
            logger.info("up", processes=len(self._specs), log=self._options.url, metrics=served)
            return
        screen = console()
        screen.print(f"{len(self._specs)} processes on {self._options.url}; Ctrl-C stops them")
        if served:
            table = Table("process", "metrics", box=None, pad_edge=False)
            for row in served.items():
                table.add_row(*row)
            screen.print(table, soft_wrap=True)
