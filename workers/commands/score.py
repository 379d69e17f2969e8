"""``roadstream score``: pictures in, answers out."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from roadstream.schemas.errors import UsageError
from roadstream.sinks.sink import FORMATS, name_of, target_of
from roadstream.workers.commands.common import (
    Beginning,
    CascadeName,
    DecodeMemory,
    HangTimeout,
    LedgerFolder,
    LogLevel,
    Namespace,
    Paths,
    PolicyPath,
    Without,
    run_async,
)
from roadstream.workers.job.prepare import ScoreOptions, check, prepared
from roadstream.workers.job.progress import Tally
from roadstream.workers.job.run import run_until_stopped
from roadstream.workers.observe.terminal import console, screen
from roadstream.workers.service.option_checks import DECODE_MEMORY
from roadstream.workers.tier.hangs import HANG_TIMEOUT

STOPPED = 130

Output = Annotated[
    str, Parameter(help="Answers: .parquet, .jsonl or .csv; or SCHEME://… of a sink of your own.")
]
JobLog = Annotated[str, Parameter(help="embedded (a file beside the output) or kafka://host:port.")]
Workers = Annotated[
    int | None,
    Parameter(help="Worker processes; one per core by default, 0 to use those on Kafka."),
]
Fps = Annotated[
    float | None,
    Parameter(
        help="Pictures per second of video; keyframes by default, and one picture in 10 s where "
        "they are farther apart."
    ),
]
Stream = Annotated[
    str | None,
    Parameter(
        help="Video stream to score, by its number in the file; all; the largest by default."
    ),
]
InOrder = Annotated[bool, Parameter(negative="", help="Write answers in input order.")]
WithReport = Annotated[
    bool, Parameter(negative="", help="Write an HTML report beside the answers too.")
]
Restart = Annotated[
    bool, Parameter(negative="", help="Forget what an earlier run of this output left.")
]


def score(
    *paths: Paths,
    out: Output = "answers.parquet",
    cascade: CascadeName = "lite",
    without: Without = None,
    log: JobLog = "embedded",
    namespace: Namespace = None,
    workers: Workers = None,
    fps: Fps = None,
    stream: Stream = None,
    sort: InOrder = False,
    report: WithReport = False,
    restart: Restart = False,
    start: Beginning = None,
    hang_timeout: HangTimeout = HANG_TIMEOUT,
    ledger: LedgerFolder = None,
    decode_memory: DecodeMemory = DECODE_MEMORY,
    batch_policy: PolicyPath = None,
    log_level: LogLevel = "warning",
) -> int:
    """Score pictures and videos; write one answer per picture.

    PATHS are folders, picture files, globs, videos, SCHEME://… of an installed source, or - for a
    list on standard input. A run that was stopped, or killed, goes on where it was when the same
    command is given again: files that changed since are judged again, and those that could not be
    read are tried again. Its state is kept beside the output, in a folder that ends in .roadstream.

    Of a folder, all files are taken that are pictures or videos by their names or their first
    bytes; what is left out is said at the end.

    Exit status: 0 if every picture was answered, 1 if some failed or there was none, 130 if
    stopped by Ctrl-C.
    """
    options = ScoreOptions(
        paths=list(paths),
        out=target_of(out),
        cascade=cascade,
        without=without or [],
        log=log,
        namespace=namespace,
        workers=workers,
        fps=fps,
        stream=stream,
        sort=sort,
        restart=restart,
        start=start,
        hang_timeout=hang_timeout,
        ledger=ledger,
        decode_memory=decode_memory,
        batch_policy=batch_policy,
        log_level=log_level,
    )
    check(options)
    if report and name_of(options.out) not in FORMATS:
        raise UsageError(
            f"--report: expected an --out that can be read again ({', '.join(FORMATS)}), "
            f"got {options.out}"
        )
    with prepared(options) as job:
        tally, finished = run_async(log_level, job.run, run_until_stopped, console())
    if finished and report:
        from roadstream.workers.commands.evaluate import report as write

        write(Path(options.out))
    # Last: a standard output that is full must not cost the report.
    _summarise(tally, options.out, job.stats.left_out.lines(), finished=finished)
    if not finished:
        return STOPPED
    if not tally.submitted:
        console().print("nothing to score: there is no picture and no video", soft_wrap=True)
        return 1
    return 0 if tally.answered.get("failed", 0) == 0 else 1


def _summarise(tally: Tally, out: str, left_out: list[str], *, finished: bool) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    total = tally.total_answered
    table.add_row("images", f"{total:,}")
    for status in ("answered", "partial", "failed"):
        if tally.answered.get(status):
            table.add_row(status, f"{tally.answered[status]:,}")
    table.add_row("roadwork", f"{tally.roadwork:,}")
    decided = max(1, sum(tally.exits.values()))
    for tier, images in sorted(tally.exits.items()):
        if images:
            table.add_row(f"left at {tier}", f"{images:,} ({images / decided:.0%})")
    if tally.vanished:
        table.add_row("no longer there", f"{tally.vanished:,} (their answers stay)")
    shown = screen()
    shown.print(table)
    for line in left_out:
        shown.print(line, soft_wrap=True, highlight=False)
    shown.print(f"answers: {out}", soft_wrap=True)
    if not finished:
        shown.print(
            f"stopped: {total:,} of {tally.submitted:,} found so far are answered; "
            "the same command goes on from here",
            soft_wrap=True,
            highlight=False,
        )
