"""The scoring job as a whole, from paths to the output file: what ``roadstream score`` runs."""

import contextlib
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from anyio import to_thread

from roadstream.schemas.cascade import Cascade
from roadstream.schemas.errors import LogUnavailableError, RunError
from roadstream.stages.decode import encode_jpeg
from roadstream.streams.event_ledger import EventLedger
from roadstream.streams.log import Start
from roadstream.streams.member import MemberOptions
from roadstream.streams.run_ledger import RunLedger
from roadstream.streams.sources.files import ScanOptions, ScanStats, scan, scan_places
from roadstream.streams.sources.video import VideoOptions
from roadstream.workers.commands.common import run_async
from roadstream.workers.commands.topics import create_topics
from roadstream.workers.connect import address, open_log
from roadstream.workers.logging import Level, identify, pass_on
from roadstream.workers.progress import Progress, Tally
from roadstream.workers.rundir import RunFolder, RunKey, resume
from roadstream.workers.runtime import build_consensus
from roadstream.workers.score import Found, Notes, Score, export, follow_back, run_until_stopped
from roadstream.workers.supervisor import Care, ChildSpec, Supervisor
from roadstream.workers.terminal import console
from roadstream.workers.topic_checks import check_settings

# Enough partitions for as many worker processes as a large machine has cores.
EMBEDDED_PARTITIONS = 16


def _keep_promise(group: BaseExceptionGroup[BaseException], folder: RunFolder) -> BaseException:
    matched, _ = group.split(RunError)
    if matched is None:
        return group
    first: BaseException = matched
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return RunError(
        f"{first} (what was answered is kept in {folder.path}; the same command goes on from there)"
    )


class _Options(NamedTuple):
    workers: int
    sort: bool
    events: Path | None
    log_level: Level
    stdin: BinaryIO | None
    start: Start | None
    stats: ScanStats
    hang_timeout: float
    decode_memory: int


def _run(
    key: RunKey, cascade: Cascade, cascade_name: str, folder: RunFolder, options: _Options
) -> tuple[Tally, bool]:
    """Run the job to its end, or until it is stopped.

    Raises:
        RunError: It cannot go on; what was answered is kept.
    """
    job = partial(_score, key, cascade, cascade_name, folder, options)
    try:
        return run_async(options.log_level, job)
    except BaseExceptionGroup as group:
        raise _keep_promise(group, folder) from None
    except LogUnavailableError as error:  # to those who run a job it has failed, whatever for
        raise RunError(str(error)) from None


async def _score(
    key: RunKey, cascade: Cascade, cascade_name: str, folder: RunFolder, options: _Options
) -> tuple[Tally, bool]:
    embedded = key.log == "embedded"
    url = address(f"embedded:{folder.log}" if embedded else key.log, key.namespace)
    async with RunLedger(folder.ledger) as ledger:
        run_id = await resume(ledger, key, folder.out)
        identify(member_id=run_id)
        progress = Progress(tally := Tally(), cascade.tier_names, console())
        if embedded and not folder.log.exists():
            await ledger.forget_unanswered()
        elif embedded and await _follow_back(url, ledger):
            progress.say("the log was put back to an older state: what has no answer is sent again")
        for group in await ledger.counts():
            tally.count(group)
        already = tally.total_answered
        scanned = ScanOptions(
            run_id=run_id,
            carry="reference" if embedded else "inline",
            video=VideoOptions(encode=encode_jpeg, fps=key.fps, stream=key.stream),
            stdin=options.stdin,
            known=ledger.known,
            owned=not embedded,
        )
        if already:
            progress.say(f"going on: {already:,} images were answered before")
        common = [] if key.namespace is None else ["--namespace", key.namespace]
        common += ["--log", url, "--cascade", cascade_name, "--state", str(folder.state)]
        # A file of its own has no neighbours, who could have answered anything there.
        start: Start | None = "beginning" if embedded else options.start
        common += [] if start is None else ["--from", start]
        crew = Supervisor(
            [_worker(i, run_id, common, options) for i in range(options.workers)],
            pass_on,
            Care(kind="job", progress=lambda: tally.total_answered),
            cascade,
        )
        async with open_log(url) as log, open_log(url) as consensus_log:
            await create_topics(log, cascade, EMBEDDED_PARTITIONS)
            await check_settings(log, cascade)
            found = Found(
                scan_places(key.paths, scanned, options.stats),
                # A list on standard input can be read once only.
                iter(()) if "-" in key.paths else scan(key.paths, ScanOptions(counted=True)),
            )
            identity = await log.identity()
            events = EventLedger(options.events, "producer", member=run_id, log=identity)
            notes = Notes(ledger, run_id, events, own_log=embedded)
            job = Score(log, cascade.tier_names, notes, found, tally)
            consensus = (
                build_consensus(
                    consensus_log, cascade, MemberOptions(member_id=run_id, ledger=options.events)
                )
                if options.workers
                else None
            )
            with contextlib.closing(events):
                finished = await run_until_stopped(job, crew, consensus, progress)
        await to_thread.run_sync(partial(export, ledger, folder.out, in_order=options.sort))
    if finished and embedded:
        folder.remove_log()
    return tally, finished


async def _follow_back(url: str, ledger: RunLedger) -> bool:
    async with open_log(url) as log:
        return await follow_back(log, ledger)


def _worker(index: int, run_id: str, common: list[str], options: _Options) -> ChildSpec:
    member = ["--member", f"score-{run_id[:12]}-{index}", "--log-level", options.log_level]
    member += ["--hang-timeout", f"{options.hang_timeout:g}"]
    member += ["--decode-memory", str(options.decode_memory)]
    events = [] if options.events is None else ["--ledger", str(options.events)]
    return ChildSpec(f"worker {index}", ["work", *common, *member, *events])
