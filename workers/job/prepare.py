"""The scoring job as a whole, from paths to the output file: what ``roadstream score`` runs."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import msgspec
from anyio import to_thread
from rich.console import Console

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import LogUnavailableError, RunError, UsageError
from roadstream.sinks.consensus.worker import Consensus
from roadstream.sinks.sink import check_output
from roadstream.stages.batching.policy import load_policy
from roadstream.streams.group.member import GroupMemberOptions
from roadstream.streams.ledgers.event_ledger import EventLedger
from roadstream.streams.ledgers.run_ledger import RunLedger
from roadstream.streams.log import Log, Start
from roadstream.streams.sources.listing import StandardInput
from roadstream.streams.sources.scan import ScanOptions, ScanStats, count_ahead, scan_places
from roadstream.streams.sources.source import VideoOptions
from roadstream.workers.job.progress import Progress, Tally
from roadstream.workers.job.run import Heard, Images, Notes, ScoringRun, export, follow_back
from roadstream.workers.job.run_folder import RunFolder, RunKey, resume, working_folder
from roadstream.workers.job.submit import encoded
from roadstream.workers.observe.logging import Level, identify, pass_on
from roadstream.workers.service.access.connect import address, open_log
from roadstream.workers.service.access.topics import check_settings, create_topics
from roadstream.workers.service.deciding import build_consensus
from roadstream.workers.service.machine import usable_cpus
from roadstream.workers.service.option_checks import (
    DECODE_MEMORY,
    MOST_FPS,
    MOST_WORKERS,
    check_above,
    check_decode_memory,
    check_hang_timeout,
    check_number,
    check_paths,
    check_stream,
)
from roadstream.workers.service.supervision.supervisor import (
    ChildSpec,
    OnLine,
    Supervisor,
    SupervisorOptions,
)
from roadstream.workers.tier.hangs import HANG_TIMEOUT

# Enough partitions for as many worker processes as a large machine has cores.
EMBEDDED_PARTITIONS = 16


class ScoreOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is scored, and how: the options of ``roadstream score``.

    Attributes:
        paths: Folders, picture files, globs, videos, or ``-`` for a list on standard input.
        out: The output file: .parquet, .jsonl or .csv; or the target of another sink.
        cascade: Name of a shipped cascade, or the path of a file.
        without: Members and tiers of it to leave out.
        log: ``embedded``, or ``kafka://host:port``.
        namespace: Stands before the names of topics and groups on a shared log.
        workers: Worker processes; one per core by default, 0 to use those on Kafka.
        fps: Pictures per second of video; keyframes by default.
        stream: Number of the video stream, or ``all``; the largest by default.
        sort: Whether the output is in input order.
        restart: Whether to forget what an earlier run of this output left.
        start: Where a group begins that is new on a log where others have answered.
        hang_timeout: Seconds that a call of a model may take; 0 for no limit.
        ledger: Folder for the event ledgers that ``roadstream verify`` reads.
        decode_memory: Most MiB that decoding one picture may take.
        batch_policy: Import path of the workers' batching policy; ``None`` for the usual one.
        log_level: Level from which workers log.
        kept: Whether the output stays, so that an interrupted run can be resumed.
    """

    paths: list[str]
    out: str
    cascade: str = "lite"
    without: list[str] = []
    log: str = "embedded"
    namespace: str | None = None
    workers: int | None = None
    fps: float | None = None
    stream: str | None = None
    sort: bool = False
    restart: bool = False
    start: Start | None = None
    hang_timeout: float = HANG_TIMEOUT
    ledger: Path | None = None
    decode_memory: int = DECODE_MEMORY
    batch_policy: str | None = None
    log_level: Level = "warning"
    kept: bool = True


def check(options: ScoreOptions) -> None:
    """Check what can be checked before anything is touched.

    Raises:
        UsageError: An option is not what it should be, or the output cannot be written.
    """
    check_paths("score", tuple(options.paths))
    workers, embedded = options.workers, options.log == "embedded"
    if workers is not None and (workers < 0 or (workers == 0 and embedded)):
        raise UsageError(f"--workers: expected 1 or more (0 on Kafka only), got {workers}")
    check_number("--workers", workers, 0, MOST_WORKERS, "processes")
    check_above("--fps", options.fps, MOST_FPS, "pictures per second")
    check_hang_timeout(options.hang_timeout)
    check_decode_memory(options.decode_memory)
    load_policy(options.batch_policy)
    check_stream(options.stream)
    check_output(options.out)


# Runs a scoring run to its end, or until it is told to stop; tells whether it came to its end.
Runner = Callable[[ScoringRun, Supervisor, Consensus | None, Progress], Awaitable[bool]]


class ScoringJob:
    """One run of scoring; made by ``prepared``.

    Attributes:
        options: What it does.
        folder: What it keeps beside its output.
        stats: What its scan has met.
    """

    def __init__(
        self,
        options: ScoreOptions,
        cascade: Cascade,
        folder: RunFolder,
        key: RunKey,
        stdin: BinaryIO | None,
    ) -> None:
        self.options, self.folder, self.stats = options, folder, ScanStats()
        self._cascade, self._key, self._stdin = cascade, key, stdin
        self._embedded = options.log == "embedded"
        self._workers = usable_cpus() if options.workers is None else options.workers

    async def run(
        self,
        run: Runner,
        shown: Console,
        on_line: OnLine = pass_on,
        heard: Heard | None = None,
    ) -> tuple[Tally, bool]:
        """Do it, and write the output.

        Args:
            run: Runs it to its end, or until it is stopped.
            shown: Where its progress is shown.
            on_line: Is given each line that a worker process logs.
            heard: Is given answers, encoded, as they come, and all of them at the end.

        Returns:
            Its counts, and whether it came to its end.

        Raises:
            RunError: It cannot go on; what was answered is kept.
        """
        try:
            return await self._run(run, shown, on_line, heard)
        except BaseExceptionGroup as group:
            raise _first_failure(group, self.folder if self.options.kept else None) from None
        except LogUnavailableError as error:  # to those who run a job it has failed, whatever for
            raise RunError(str(error)) from None

    async def _run(
        self, run: Runner, shown: Console, on_line: OnLine, heard: Heard | None
    ) -> tuple[Tally, bool]:
        folder, cascade = self.folder, self._cascade
        url = address(
            f"embedded:{folder.log}" if self._embedded else self._key.log, self._key.namespace
        )
        async with RunLedger(folder.ledger) as ledger:
            run_id = await resume(ledger, self._key, folder)
            identify(member_id=run_id)
            progress = Progress(tally := Tally(), cascade.tier_names, shown)
            await self._look_back(url, ledger, progress)
            for group in await ledger.counts():
                tally.count(group)
            if tally.total_answered:
                progress.say(f"going on: {tally.total_answered:,} images were answered before")
            supervisor = Supervisor(
                [self._worker(i, run_id, url) for i in range(self._workers)],
                on_line,
                SupervisorOptions(kind="job", progress=lambda: tally.total_answered),
                cascade,
            )
            async with open_log(url) as log, open_log(url) as consensus_log:
                await create_topics(log, cascade, EMBEDDED_PARTITIONS)
                await check_settings(log, cascade)
                identity = await log.identity()
                events = EventLedger(self.options.ledger, "producer", member=run_id, log=identity)
                notes = Notes(ledger, run_id, events, own_log=self._embedded, heard=heard)
                found = self._found(ledger, run_id)
                job = ScoringRun(log, cascade.tier_names, notes, found, tally)
                consensus = self._consensus(consensus_log, run_id) if self._workers else None
                with contextlib.closing(events), contextlib.closing(found.places):
                    finished = await run(job, supervisor, consensus, progress)
            in_order = self.options.sort
            await to_thread.run_sync(partial(export, ledger, folder.out, in_order=in_order))
            if finished and heard is not None:  # those of an earlier run too
                batches = ledger.answers(in_order=True)
                while batch := await to_thread.run_sync(next, batches, None):
                    await heard(batch)
        if finished and self._embedded:
            folder.remove_log()
        return tally, finished

    async def _look_back(self, url: str, ledger: RunLedger, progress: Progress) -> None:
        """See to it that ledger and log fit together: the log may be gone, or put back."""
        if self._embedded and not self.folder.log.exists():
            await ledger.forget_unanswered()
        elif self._embedded and await _follow_back(url, ledger):
            progress.say("the log was put back to an older state: what has no answer is sent again")

    def _found(self, ledger: RunLedger, run_id: str) -> Images:
        key = self._key
        scanned = ScanOptions(
            run_id=run_id,
            carry="reference" if self._embedded else "inline",
            video=VideoOptions(encode=encoded, fps=key.fps, stream=key.stream),
            stdin=self._stdin,
            known=ledger.known,
            owned=not self._embedded,
        )
        return Images(scan_places(key.paths, scanned, self.stats), count_ahead(key.paths))

    def _consensus(self, log: Log, run_id: str) -> Consensus:
        options = GroupMemberOptions(member_id=run_id, ledger=self.options.ledger)
        return build_consensus(log, self._cascade, options)

    def _worker(self, index: int, run_id: str, url: str) -> ChildSpec:
        options = self.options
        # Said in any case: else the environment's would hold, which the caller has not asked for.
        arguments = ["--namespace", self._key.namespace or ""]
        arguments += ["--log", url, "--cascade", options.cascade, "--state", str(self.folder.state)]
        # A file of its own has no neighbours, who could have answered anything there.
        start: Start | None = "beginning" if self._embedded else options.start
        arguments += [] if start is None else ["--from", start]
        arguments += ["--member", f"score-{run_id[:12]}-{index}", "--log-level", options.log_level]
        arguments += ["--hang-timeout", f"{options.hang_timeout:g}"]
        arguments += ["--decode-memory", str(options.decode_memory)]
        arguments += (
            [] if options.batch_policy is None else ["--batch-policy", options.batch_policy]
        )
        arguments += [] if options.ledger is None else ["--ledger", str(options.ledger)]
        return ChildSpec(f"worker {index}", ["work", *arguments])


@contextlib.contextmanager
def prepared(options: ScoreOptions) -> Iterator[ScoringJob]:
    """Yield a job that holds the lock of its output's folder while the block runs.

    Raises:
        UsageError: Another process is scoring into the same output, or a list on standard input is
            no list.
        ConfigError: The cascade is not what it should be.
        OutputError: The folder cannot be written.
    """
    loaded, folder = load_cascade(options.cascade, without=options.without), RunFolder(options.out)
    with contextlib.ExitStack() as held:
        held.enter_context(folder.locked(restart=options.restart))
        # To its end, before anything is done: another list must not get into the same output.
        stdin, listed = None, None
        if "-" in options.paths:
            stdin, listed = held.enter_context(folder.list_kept(StandardInput()))
        key = RunKey(
            paths=options.paths,
            folder=working_folder(),
            log=options.log,
            namespace=address(options.log, options.namespace).namespace,
            cascade=loaded.name,
            cascade_hash=loaded.hash,
            fps=options.fps,
            stream=check_stream(options.stream),
            listed=listed,
        )
        yield ScoringJob(options, loaded, folder, key, stdin)


def _first_failure(
    group: BaseExceptionGroup[BaseException], folder: RunFolder | None
) -> BaseException:
    """Return why a run has failed; with a folder that stays, what to do about it."""
    matched, _ = group.split(RunError)
    if matched is None:
        return group
    first: BaseException = matched
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    if folder is None:
        return first
    return RunError(
        f"{first} (what was answered is kept in {folder.path}; the same command goes on from there)"
    )


async def _follow_back(url: str, ledger: RunLedger) -> bool:
    async with open_log(url) as log:
        return await follow_back(log, ledger)
