"""``roadstream work``, ``consensus`` and ``up``: the processes that judge and decide."""

import socket
from pathlib import Path
from typing import Annotated

import anyio
from cyclopts import Parameter

from schemas.cascade import load_cascade
from schemas.errors import UsageError
from schemas.topics import all_topics
from streams.member import MemberOptions
from workers.commands.common import (
    DEFAULT_KAFKA,
    AliveFile,
    CascadeName,
    LedgerFolder,
    LogLevel,
    LogUrl,
    console,
    run_async,
)
from workers.commands.topics import create_topics
from workers.connect import open_log
from workers.lifecycle import Heartbeat, stop_on_signal
from workers.runtime import WorkOptions, serve_consensus, serve_workers
from workers.supervisor import ChildSpec, Supervisor

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
    cascade: CascadeName = "lite",
    threads: Annotated[int, Parameter(help="Threads per model call.")] = 1,
    root: Roots = None,
    member: Annotated[
        str | None, Parameter(help="Static group membership: who comes back under it goes on.")
    ] = None,
    ledger: LedgerFolder = None,
    alive_file: AliveFile = None,
    log_level: LogLevel = "info",
) -> None:
    """Work for one or more tiers: judge images, publish votes, escalate.

    Run as many as there are partitions, on any hosts. A worker joins its group only when its models
    are loaded and warm. Stop it with Ctrl-C or SIGTERM: it finishes its batches first.
    """
    loaded = load_cascade(cascade)
    options = WorkOptions(
        tiers=tier or [],
        threads=threads,
        roots=root if root or log.startswith("embedded:") else [],
        member=MemberOptions(member_id=member, ledger=ledger, alive=Heartbeat(alive_file)),
    )
    run_async(log_level, serve_workers, open_log(log), loaded, options)


def consensus(
    *,
    log: LogUrl = DEFAULT_KAFKA,
    cascade: CascadeName = "lite",
    member: Annotated[str | None, Parameter(help="Static group membership.")] = None,
    ledger: LedgerFolder = None,
    alive_file: AliveFile = None,
    log_level: LogLevel = "info",
) -> None:
    """Join the votes of each image into its one answer. Run as many as there are partitions."""
    options = MemberOptions(member_id=member, ledger=ledger, alive=Heartbeat(alive_file))
    run_async(log_level, serve_consensus, open_log(log), load_cascade(cascade), options)


def up(
    *,
    log: LogUrl = DEFAULT_KAFKA,
    cascade: CascadeName = "lite",
    workers: Annotated[int, Parameter(help="Worker processes per tier.")] = 1,
    partitions: Annotated[int, Parameter(help="Partitions of topics that do not exist yet.")] = 16,
    root: Roots = None,
    name: Annotated[
        str | None,
        Parameter(
            help="Names its group members, the host's name by default: two on one host need "
            "two names. Under the same name a restart takes its partitions at once."
        ),
    ] = None,
    ledger: LedgerFolder = None,
    log_level: LogLevel = "info",
) -> None:
    """Run a whole cascade under one supervisor: topics, a worker per tier, consensus.

    Processes that die are started again. Ctrl-C stops them all; each finishes its batches first.
    """
    loaded = load_cascade(cascade)
    if workers < 1:
        raise UsageError(f"--workers: expected 1 or more, got {workers}")
    common = ["--log", log, "--cascade", cascade, "--log-level", log_level]
    if ledger is not None:
        common += ["--ledger", str(ledger)]
    roots = [word for folder in root or [] for word in ("--root", str(folder))]
    name = name or socket.gethostname()
    specs = [
        ChildSpec(
            f"{tier} {i}",
            ["work", "--tier", tier, "--member", f"{name}-{tier}-{i}", *roots, *common],
        )
        for tier in loaded.tier_names
        for i in range(workers)
    ]
    specs.append(ChildSpec("consensus", ["consensus", "--member", f"{name}-consensus", *common]))
    run_async(log_level, _up, log, all_topics(loaded.tier_names), partitions, specs)


async def _up(url: str, names: list[str], partitions: int, specs: list[ChildSpec]) -> None:
    await create_topics(url, names, partitions)
    screen = console()
    screen.print(f"{len(specs)} processes on {url}; Ctrl-C stops them", highlight=False)
    stopping = anyio.Event()

    def say(line: str) -> None:
        screen.print(line, markup=False, highlight=False, soft_wrap=True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop_on_signal, stopping)
        await Supervisor(specs, say).run(stopping)
        tasks.cancel_scope.cancel()
