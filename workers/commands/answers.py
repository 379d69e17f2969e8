"""``roadstream answers`` and ``votes``: show what comes; answers are written to a file too."""

import sys
from collections.abc import Iterable
from typing import Annotated, Any

from cyclopts import Parameter

from roadstream.schemas import codec
from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.votes import VotesPack
from roadstream.schemas.topics import ANSWERS, VOTES
from roadstream.sinks.columns import row
from roadstream.sinks.sink import open_writer, target_of
from roadstream.streams.log import Start
from roadstream.workers.commands.common import DEFAULT_KAFKA, LogLevel, LogUrl, Namespace, run_async
from roadstream.workers.commands.follow import Kind, Span
from roadstream.workers.commands.follow import (
    follow as read_on,  # the commands have an option of its name
)
from roadstream.workers.observe.terminal import check_reader, console
from roadstream.workers.service.access.connect import address

Begin = Annotated[
    Start | None,
    Parameter(name="--from", help="Where to begin: end when following, else beginning."),
]
_ANSWERS = Kind(ANSWERS, codec.decode_answer)
_VOTES = Kind(VOTES, codec.decode_votes)


def answers(
    *,
    log: LogUrl = DEFAULT_KAFKA,
    namespace: Namespace = None,
    out: Annotated[
        str | None,
        Parameter(
            help=".parquet, .jsonl or .csv, or SCHEME://… of a sink of your own; JSON lines on "
            "stdout if absent."
        ),
    ] = None,
    start: Begin = None,
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
    span = _span(start, out is None if follow is None else follow)
    if out is None:
        _warn(run_async(log_level, read_on, where, _ANSWERS, span, _print_answers), ANSWERS)
        return
    with open_writer(out) as writer:
        strays = run_async(log_level, read_on, where, _ANSWERS, span, writer.write)
    console().print(f"{writer.rows:,} answers: {target_of(out)}", soft_wrap=True)
    _warn(strays, ANSWERS)


def votes(
    *,
    log: LogUrl = DEFAULT_KAFKA,
    namespace: Namespace = None,
    start: Begin = None,
    follow: Annotated[bool, Parameter(help="Go on until Ctrl-C.")] = True,
    log_level: LogLevel = "warning",
) -> None:
    """Show the votes of the tiers as they come: a pack of a tier's batch as a line of JSON.

    `roadstream schema votes` describes a line. Records that are no votes are left out, named and
    counted; the exit status stays 0.
    """
    where = address(log, namespace)
    span = _span(start, follow)
    _warn(run_async(log_level, read_on, where, _VOTES, span, _print_packs), VOTES)


def _span(start: Start | None, going_on: bool) -> Span:
    return Span(start or ("end" if going_on else "beginning"), going_on)


def _warn(strays: int, topic: str) -> None:
    if strays:
        console().print(f"{strays:,} records on {topic} are no {topic}, and were left out")


def _print_answers(found: list[Answer]) -> None:
    _print(map(row, found))


def _print_packs(found: list[VotesPack]) -> None:
    _print(found)


def _print(found: Iterable[Any]) -> None:
    check_reader()
    for one in found:
        sys.stdout.buffer.write(codec.encode_json(one) + b"\n")
    sys.stdout.buffer.flush()
