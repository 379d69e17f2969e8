"""``roadstream answers``: shows answers as they come, or writes them to a file."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import anyio
from anyio import to_thread
from cyclopts import Parameter

from schemas import codec
from schemas.records import Answer
from schemas.topics import ANSWERS
from sinks.columns import row
from sinks.writers import open_writer
from streams.log import Log, Start
from workers.commands.common import DEFAULT_KAFKA, LogLevel, LogUrl, console, run_async
from workers.connect import open_log
from workers.lifecycle import stop_on_signal

READ_BATCH = 512
Take = Callable[[list[Answer]], None]


def answers(
    *,
    log: LogUrl = DEFAULT_KAFKA,
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
    """Show answers as they come, or write those on the log to a file."""
    going_on = out is None if follow is None else follow
    begin: Start = start or ("end" if going_on else "beginning")
    if out is None:
        run_async(log_level, _read_answers, log, begin, going_on, _print)
        return
    with open_writer(out) as writer:
        run_async(log_level, _read_answers, log, begin, going_on, writer.write)
    console().print(f"{writer.rows:,} answers: {out}", highlight=False, soft_wrap=True)


def _print(found: list[Answer]) -> None:
    for answer in found:
        sys.stdout.buffer.write(codec.encode_json(row(answer)) + b"\n")
    sys.stdout.buffer.flush()


async def _read_answers(url: str, begin: Start, going_on: bool, take: Take) -> None:
    stopping = anyio.Event()
    async with anyio.create_task_group() as tasks, open_log(url) as log:
        tasks.start_soon(stop_on_signal, stopping)
        await _follow(log, begin, going_on, take, stopping)
        tasks.cancel_scope.cancel()


async def _follow(
    log: Log,
    begin: Start,
    going_on: bool,
    take: Take,
    stopping: anyio.Event,
) -> None:
    async with log.reader(ANSWERS, begin) as reader:
        ends = await reader.ends()
        while not stopping.is_set():
            polled = await reader.poll(max_records=READ_BATCH, timeout=0.5)
            found = [
                codec.decode(codec.decode_answer, record.value, *tp, record.offset)
                for tp, records in polled.items()
                for record in records
            ]
            if found:
                await to_thread.run_sync(take, found)
            positions = reader.positions
            if not going_on and all(positions[p] >= end for p, end in ends.items()):
                return
