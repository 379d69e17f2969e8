"""``roadstream answers``: shows answers as they come, or writes them to a file."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import anyio
import structlog
from anyio import to_thread
from cyclopts import Parameter

from schemas import codec
from schemas.errors import RecordError
from schemas.records import Answer
from schemas.topics import ANSWERS
from sinks.columns import row
from sinks.writers import open_writer
from streams.log import Log, Polled, Start
from workers.commands.common import DEFAULT_KAFKA, LogLevel, LogUrl, Namespace, console, run_async
from workers.connect import address, open_log
from workers.lifecycle import stop_on_signal

logger = structlog.get_logger()
READ_BATCH = 512
Take = Callable[[list[Answer]], None]


def answers(
    *,
    log: LogUrl = DEFAULT_KAFKA,
    namespace: Namespace = None,
    out: Annotated[
        Path | None, Parameter(help=".parquet, .jsonl or .csv; JSON lines on stdout if absent.")
    ] = None,
    start: Annotated[
        Start | None,
        Parameter(name="--from", help="Where to begin: end when following, else beginning."),
    ] = None,
    follow: Annotated[
        bool | None,
        Parameter(help="Go on until Ctrl-C; the default when no --out is given."),
    ] = None,
    log_level: LogLevel = "warning",
) -> None:
    """Show answers as they come, or write those on the log to a file.

    Records that are no answers are left out, named and counted; the exit status stays 0.
    """
    where = address(log, namespace)
    going_on = out is None if follow is None else follow
    begin: Start = start or ("end" if going_on else "beginning")
    if out is None:
        _warn(run_async(log_level, _read_answers, where, begin, going_on, _print))
        return
    with open_writer(out) as writer:
        strays = run_async(log_level, _read_answers, where, begin, going_on, writer.write)
    console().print(
        f"{writer.rows:,} answers: {out}", highlight=False, markup=False, soft_wrap=True
    )
    _warn(strays)


def _warn(strays: int) -> None:
    if strays:
        console().print(f"{strays:,} records on {ANSWERS} are no answers, and were left out")


def _print(found: list[Answer]) -> None:
    for answer in found:
        sys.stdout.buffer.write(codec.encode_json(row(answer)) + b"\n")
    sys.stdout.buffer.flush()


async def _read_answers(url: str, begin: Start, going_on: bool, take: Take) -> int:
    stopping = anyio.Event()
    async with anyio.create_task_group() as tasks, open_log(url) as log:
        tasks.start_soon(stop_on_signal, stopping)
        unreadable = await _follow(log, begin, going_on, take, stopping)
        tasks.cancel_scope.cancel()
    return unreadable


async def _follow(
    log: Log,
    begin: Start,
    going_on: bool,
    take: Take,
    stopping: anyio.Event,
) -> int:
    """Hand on what is read until the end; return how many records were no answers."""
    unreadable = 0
    async with log.reader(ANSWERS, begin) as reader:
        ends = await reader.ends()
        while not stopping.is_set():
            polled = await reader.poll(max_records=READ_BATCH, timeout=0.5)
            found, strays = _answers_in(polled)
            unreadable += strays
            if found:
                await to_thread.run_sync(take, found)
            positions = reader.positions
            if not going_on and all(positions[p] >= end for p, end in ends.items()):
                break
    return unreadable


def _answers_in(polled: Polled) -> tuple[list[Answer], int]:
    """Return the answers among records, and how many records are none."""
    found: list[Answer] = []
    strays = 0
    for tp, records in polled.items():
        for record in records:
            try:
                found.append(codec.decode(codec.decode_answer, record.value, *tp, record.offset))
            except RecordError as error:  # a stranger's: it must not keep the others from anybody
                strays += 1
                logger.warning("unreadable_answer", error=str(error))
    return found, strays
