"""Reading the records of a topic as they come, or to its end: for commands that show them."""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import anyio
import structlog
from anyio import to_thread

from roadstream.schemas import codec
from roadstream.schemas.errors import RecordError
from roadstream.streams.log import Log, Polled, Start
from roadstream.workers.service.access.connect import open_log
from roadstream.workers.service.access.rights import to_read
from roadstream.workers.service.lifecycle import stop_on_signal

logger = structlog.get_logger()
READ_BATCH = 512
T = TypeVar("T")
Take = Callable[[list[T]], None]


class Kind(NamedTuple, Generic[T]):
    """What is read.

    Attributes:
        topic: From where.
        decode: How a value is decoded; raises as ``codec.decode`` expects.
    """

    topic: str
    decode: Callable[[bytes], T]


class Span(NamedTuple):
    """From where to where records are read.

    Attributes:
        begin: Where reading begins.
        going_on: Whether it waits for more at the end, until a signal comes.
    """

    begin: Start
    going_on: bool


async def follow(url: str, kind: Kind[T], span: Span, take: Take[T]) -> int:
    """Hand what is read to ``take``, in a thread; return how many records are of another kind.

    Each of those is named in a warning: a stranger's must not keep the others from anybody.
    """
    stopping = anyio.Event()
    async with anyio.create_task_group() as tasks, open_log(url) as log:
        tasks.start_soon(stop_on_signal, stopping)
        strays = await _follow(log, kind, span, take, stopping)
        tasks.cancel_scope.cancel()
    return strays


async def _follow(log: Log, kind: Kind[T], span: Span, take: Take[T], stopping: anyio.Event) -> int:
    strays = 0
    await log.check_rights(to_read(kind.topic))
    async with log.reader(kind.topic, span.begin) as reader:
        ends = await reader.ends()
        while not stopping.is_set():
            polled = await reader.poll(max_records=READ_BATCH, timeout=0.5)
            found, others = _decoded(polled, kind)
            strays += others
            if found or span.going_on:  # even of nothing, it may hear that nobody reads on
                await to_thread.run_sync(take, found)
            positions = reader.positions
            if not span.going_on and all(positions[p] >= end for p, end in ends.items()):
                break
    return strays


def _decoded(polled: Polled, kind: Kind[T]) -> tuple[list[T], int]:
    """Return what could be decoded, and how many records could not."""
    found: list[T] = []
    strays = 0
    for tp, records in polled.items():
        for record in records:
            try:
                found.append(codec.decode(kind.decode, record.value, *tp, record.offset))
            except RecordError as error:
                strays += 1
                logger.warning("unreadable_record", error=str(error))
    return found, strays
