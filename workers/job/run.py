"""The scoring job: scans pictures, feeds a log, runs workers and consensus, keeps the answers."""

import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import anyio
import structlog
from anyio import to_thread

from roadstream.schemas import codec
from roadstream.schemas.errors import LogUnavailableError, RecordError
from roadstream.schemas.records.answer import Answer
from roadstream.schemas.topics import (
    ANSWERS,
    CONSENSUS_GROUP,
    images,
)
from roadstream.sinks.consensus.worker import Consensus
from roadstream.sinks.sink import open_writer
from roadstream.streams.ledgers.event_ledger import EventLedger
from roadstream.streams.ledgers.run_ledger import LedgerRow, RunLedger
from roadstream.streams.ledgers.run_places import UNREAD
from roadstream.streams.log import Log, Polled, Start
from roadstream.streams.sources.places import Scanned
from roadstream.workers.job.progress import Progress, Tally
from roadstream.workers.job.submit import Submitter, next_batch
from roadstream.workers.observe.logging import speaking_as
from roadstream.workers.service.deciding import trim_log
from roadstream.workers.service.lifecycle import (
    DRAIN_TIMEOUT,
    LEAVING,
    Deadline,
    drain_within,
    stop_on_signal,
)
from roadstream.workers.service.outage import Persistent
from roadstream.workers.service.supervision.supervisor import GRACE, Supervisor

logger = structlog.get_logger()

# What is scored is archive work.
INPUT = images("archive")
SCAN_BATCH = 256
COUNT_SLICE = 1024
# Images submitted and not answered, at most: bounds the log and what a stop leaves behind.
WINDOW = 8192
COLLECT_RECORDS = 512
REFRESH = 0.5
TRIM_INTERVAL = 5.0
# A job ends when its log does not come back in this time; its state is kept.
PATIENCE = 300.0
# After Ctrl-C: the workers' drain, what they get beyond it, and the rest to leave in order.
STOP_BUDGET = DRAIN_TIMEOUT + GRACE + 2 * LEAVING


Heard = Callable[[Sequence[bytes]], Awaitable[None]]


class Images(NamedTuple):
    """The images to be scored, in input order, as blocking iterators.

    Attributes:
        places: Where they are found, with what is scored.
        ahead: How many there are, step by step, for the time left; nothing if nobody knows.
    """

    places: Generator[Scanned, None, None]
    ahead: Iterator[int]


class Notes(NamedTuple):
    """Where a run notes what it did.

    Attributes:
        ledger: Makes it resumable; open.
        run_id: Its id there.
        events: For ``roadstream verify``.
        own_log: Whether the log is the run's own, in files that a power cut can put back.
        heard: Is given the answers that are new, encoded.
    """

    ledger: RunLedger
    run_id: str
    events: EventLedger
    own_log: bool = False
    heard: Heard | None = None


class ScoringRun:
    """One run of scoring, from ``scan`` to the last answer in the ledger.

    Args:
        log: The log to run on, open, with the cascade's topics.
        tiers: Names of the cascade's tiers, in order.
        notes: Where it notes what it did.
        found: The images.
        tally: Counted in as the run goes.
    """

    def __init__(
        self,
        log: Log,
        tiers: list[str],
        notes: Notes,
        found: Images,
        tally: Tally,
    ) -> None:
        self._log, self._tiers, self._ledger, self._run_id = log, tiers, notes.ledger, notes.run_id
        self._found, self._tally = found, tally
        self._events, self._own_log, self._heard = notes.events, notes.own_log, notes.heard
        self._answered = anyio.Event()
        # Found and not submitted yet: it outlives an outage of the log.
        self._batch: list[Scanned] = []
        self._submitted_at = self._collected_at = 0.0

    async def run(
        self,
        supervisor: Supervisor,
        consensus: Consensus | None,
        progress: Progress,
        stopping: anyio.Event,
    ) -> None:
        """Run until every image is answered, or until ``stopping`` is set.

        Raises:
            RoadstreamError: A process, the log or the disk fails; what was answered is kept.
        """
        halting = anyio.Event()
        partitions = (await self._log.partition_counts([ANSWERS]))[ANSWERS]
        # Before anything is sent: an answer from now on is one that is read.
        async with self._log.reader(ANSWERS, await self._start()) as reader:
            await self._ledger.record([], reader.positions)
        submit = partial(self._submit, partitions)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervisor.run, halting)
            if consensus is not None:
                stats = consensus.member.stats
                deciding = _patient("consensus", lambda: stats.polled_at)
                who = {"group": self._log.real_name(CONSENSUS_GROUP)}
                tasks.start_soon(speaking_as, who, deciding.run, consensus.run, halting)
            tasks.start_soon(_patient("submit", lambda: self._submitted_at).run, submit, stopping)
            tasks.start_soon(self._count_ahead, halting)
            tasks.start_soon(self._trim, halting)
            tasks.start_soon(_show, progress, halting)
            await _patient("collect", lambda: self._collected_at).run(self._collect, stopping)
            halting.set()
        await self._collect_rest()
        progress.refresh()

    async def _collect(self, stopping: anyio.Event) -> None:
        async with self._log.reader(ANSWERS, await self._start()) as reader:
            while not (self._complete or stopping.is_set()):
                await self._keep(await reader.poll(max_records=COLLECT_RECORDS, timeout=0.25))
                self._collected_at = time.monotonic()

    async def _collect_rest(self) -> None:
        """Keep what was still answered while the processes ended; a log that is gone has none."""
        try:
            async with self._log.reader(ANSWERS, await self._start()) as reader:
                ends = await reader.ends()
                while any(reader.positions[p] < end for p, end in ends.items()):
                    polled = await reader.poll(max_records=COLLECT_RECORDS, timeout=1.0)
                    if not polled:
                        break
                    await self._keep(polled)
        except LogUnavailableError as error:
            logger.warning("rest_not_collected", error=str(error))

    async def _start(self) -> Start | Mapping[int, int]:
        return await self._ledger.positions() or "end"

    @property
    def _complete(self) -> bool:
        return self._tally.found_all and self._tally.total_answered >= self._tally.submitted

    async def _submit(self, partitions: int, stopping: anyio.Event) -> None:
        async with self._log.producer() as producer:
            submitter = Submitter(producer, self._ledger, partitions, events=self._events)
            while not stopping.is_set():
                if not self._batch:
                    self._batch = await to_thread.run_sync(self._next_batch)
                if not self._batch:
                    self._tally.found_all = True
                    return
                for change in await submitter.submit_places(self._batch):
                    self._tally.count(change)
                self._tally.vanished = submitter.vanished
                if self._own_log:
                    await self._ledger.note_ends(await _ends(self._log, INPUT))
                self._submitted_at, self._batch = time.monotonic(), []
                await self._wait_for_room(stopping)

    async def _wait_for_room(self, stopping: anyio.Event) -> None:
        while self._tally.submitted - self._tally.total_answered > WINDOW:
            if stopping.is_set():
                return
            with anyio.move_on_after(REFRESH):
                await self._answered.wait()

    async def _count_ahead(self, halting: anyio.Event) -> None:
        """Count what is to come, in slices, so that a long scan never delays the work for long."""
        while not (halting.is_set() or self._tally.found_all):
            more = await to_thread.run_sync(_count, self._found.ahead)
            self._tally.expected += more
            if more == 0:
                return

    async def _trim(self, halting: anyio.Event) -> None:
        """Keep the log small: what every worker is done with is let go of."""
        while not halting.is_set():
            with anyio.move_on_after(TRIM_INTERVAL):
                await halting.wait()
            with contextlib.suppress(LogUnavailableError):  # an outage: there is a next time
                await trim_log(self._log, self._tiers)

    def _next_batch(self) -> list[Scanned]:
        return next_batch(self._found.places, SCAN_BATCH)

    async def _keep(self, polled: Polled) -> None:
        rows: list[LedgerRow] = []
        positions: dict[int, int] = {}
        for tp, records in polled.items():
            positions[tp.partition] = records[-1].offset + 1
            for record in records:
                value = record.value or b""
                try:
                    answer = codec.decode(codec.decode_answer, value, *tp, record.offset)
                except RecordError as error:
                    logger.warning("foreign_answer", error=str(error))
                    continue
                if answer.head.run_id == self._run_id:
                    rows.append(ledger_row(answer, value))
        if not positions:
            return
        new = await self._ledger.record(rows, positions)
        for row in new:
            self._tally.add(row.status, row.exit_tier, row.label)
        if self._heard is not None:
            await self._heard([row.answer for row in new])
        self._answered.set()
        self._answered = anyio.Event()


async def follow_back(log: Log, ledger: RunLedger) -> bool:
    """Go back with a log that was put back to an older state; return whether it was.

    Raises:
        LogUnavailableError: The log does not answer.
    """
    if not await log.partition_counts([ANSWERS]):
        return False  # the first start
    return await ledger.follow_back(await _ends(log, INPUT), await _ends(log, ANSWERS))


async def _ends(log: Log, topic: str) -> Mapping[int, int]:
    async with log.reader(topic, "end") as reader:
        return reader.positions


def _count(ahead: Iterator[int]) -> int:
    return sum(itertools.islice(ahead, COUNT_SLICE))


def ledger_row(answer: Answer, value: bytes) -> LedgerRow:
    """Return what is kept of an answer.

    Whatever its status, one that tells that a picture could not be read is no last word.
    """
    head = answer.head
    unread = (answer.error or "").split(":", 1)[0] in UNREAD
    return LedgerRow(
        head.image_id,
        head.sequence or 0,
        answer.status,
        answer.exit_tier,
        answer.label,
        value,
        unread,
    )


async def _show(progress: Progress, halting: anyio.Event) -> None:
    while not halting.is_set():
        progress.refresh()
        with anyio.move_on_after(REFRESH):
            await halting.wait()


async def run_until_stopped(
    scoring: ScoringRun, supervisor: Supervisor, consensus: Consensus | None, progress: Progress
) -> bool:
    """Run a scoring run; return whether it ended by itself and not by Ctrl-C."""
    stopping, deadline = anyio.Event(), Deadline(STOP_BUDGET)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop_on_signal, stopping)
            tasks.start_soon(drain_within, deadline, stopping, tasks.cancel_scope)
            with progress:
                await scoring.run(supervisor, consensus, progress, stopping)
            tasks.cancel_scope.cancel()
    finally:
        deadline.take_back()
    return not stopping.is_set()


def _patient(name: str, worked_at: Callable[[], float]) -> Persistent:
    """Return what waits an outage of the log out, for as long as somebody would wait for a job."""
    return Persistent(name, worked_at, passing=(LogUnavailableError,), patience=PATIENCE)


def export(ledger: RunLedger, out: str, *, in_order: bool) -> int:
    """Write the ledger's answers to a sink (blocking); return how many.

    Raises:
        OutputError: It takes no more, or not all; the sink has aborted.
    """
    with open_writer(out) as writer:
        for batch in ledger.answers(in_order=in_order):
            writer.write([codec.decode_answer(value) for value in batch])
        return writer.rows
