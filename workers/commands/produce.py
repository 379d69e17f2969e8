"""``roadstream produce``: sends pictures to a log."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import anyio
from anyio import to_thread
from cyclopts import Parameter

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import LogUnavailableError, UsageError
from roadstream.schemas.records.image import Lane
from roadstream.streams.ledgers.event_ledger import EventLedger
from roadstream.streams.ledgers.run_ledger import RunLedger
from roadstream.streams.sources.places import Scanned
from roadstream.streams.sources.scan import ScanOptions, ScanStats, scan_places
from roadstream.streams.sources.source import VideoOptions
from roadstream.workers.commands.common import (
    DEFAULT_KAFKA,
    CascadeName,
    LedgerFolder,
    LogLevel,
    LogUrl,
    Namespace,
    Paths,
    Without,
    run_async,
)
from roadstream.workers.job.submit import Submitter, encoded, next_batch
from roadstream.workers.observe.terminal import console
from roadstream.workers.service.access.connect import address, open_log
from roadstream.workers.service.access.rights import to_produce
from roadstream.workers.service.access.topics import enter
from roadstream.workers.service.option_checks import (
    MOST_FPS,
    MOST_SECONDS,
    check_above,
    check_number,
    check_paths,
    check_stream,
)
from roadstream.workers.service.outage import Persistent

SEND_BATCH = 64
SAY_EVERY = 5.0


def produce(
    *paths: Paths,
    log: LogUrl = DEFAULT_KAFKA,
    namespace: Namespace = None,
    cascade: CascadeName = "lite",
    without: Without = None,
    lane: Annotated[Lane, Parameter(help="live: someone waits; archive: throughput matters.")] = (
        "archive"
    ),
    deadline: Annotated[
        float | None, Parameter(help="Seconds after sending in which a live answer is wanted.")
    ] = None,
    by_reference: Annotated[
        bool, Parameter(negative="", help="Send paths with size and hash instead of the bytes.")
    ] = False,
    by_session: Annotated[
        bool, Parameter(negative="", help="Keep a folder's or video's pictures in one partition.")
    ] = False,
    fps: Annotated[float | None, Parameter(help="As for score.")] = None,
    stream: Annotated[str | None, Parameter(help="As for score.")] = None,
    resume: Annotated[
        Path | None, Parameter(help="File that notes what was sent; what it notes is not resent.")
    ] = None,
    ledger: LedgerFolder = None,
    patience: Annotated[
        float, Parameter(help="Seconds for which it tries again when the log does not answer.")
    ] = 120.0,
    log_level: LogLevel = "warning",
) -> int:
    """Send pictures to a log, to be scored by the workers there. PATHS are as for score.

    An id tells path and content and is sent once; what was sent before is counted, and other
    content at the same path is another picture. Exit status: 0 when everything was sent, now or
    before, 1 when some were refused or there were none, 75 when the log was gone for too long.
    """
    where = address(log, namespace)
    check_paths("produce", paths)
    if deadline is not None and lane != "live":
        raise UsageError(f"--deadline: expected --lane live with it, got --lane {lane}")
    check_above("--deadline", deadline, MOST_SECONDS, "seconds")
    check_above("--fps", fps, MOST_FPS, "pictures per second of video")
    options = ScanOptions(
        lane=lane,
        carry="reference" if by_reference else "inline",
        video=VideoOptions(encode=encoded, fps=fps, stream=check_stream(stream)),
    )
    check_patience(patience)
    sending = _Sending(
        paths,
        options,
        load_cascade(cascade, without=without or ()),
        _Notes(resume, ledger),
        spread=not by_session,
        deadline=deadline,
    )
    try:
        run_async(log_level, sending.run, where, patience)
    finally:
        for line in (*sending.left_out, sending.summary):
            console().print(line, soft_wrap=True)
    return 1 if sending.refused or sending.too_large or sending.nothing else 0


def check_patience(patience: float) -> None:
    """Check ``--patience``.

    Raises:
        UsageError: It is negative, no number, or without end.
    """
    check_number("--patience", patience, 0, MOST_SECONDS, "seconds")


class _Notes(NamedTuple):
    """Files in which it is noted what was sent, if anywhere."""

    resume: Path | None
    events: Path | None


class _Sending:
    """Images on their way to a log, from the scan to the last acknowledgement."""

    def __init__(
        self,
        paths: Sequence[str],
        options: ScanOptions,
        cascade: Cascade,
        notes: _Notes,
        *,
        spread: bool,
        deadline: float | None,
    ) -> None:
        self._paths, self._options, self._cascade, self._notes = paths, options, cascade, notes
        self._found: Iterator[Scanned] = iter(())
        self._stats = ScanStats()
        self._spread, self._deadline = spread, deadline
        # Found and not sent yet: it outlives an outage of the log.
        self._batch: list[Scanned] = []
        self._submitter: Submitter | None = None
        self._events: EventLedger | None = None
        self._worked_at = 0.0
        self._said_at = time.monotonic()

    @property
    def refused(self) -> int:
        """Number of images refused as duplicates."""
        return self._submitter.refused if self._submitter else 0

    @property
    def too_large(self) -> int:
        """Number of pictures that their topic refused."""
        return self._submitter.too_large if self._submitter else 0

    @property
    def nothing(self) -> bool:
        """Whether there was no image to send, now or before."""
        return not self._stats.images

    @property
    def left_out(self) -> list[str]:
        """What else there was, and why it was not sent, in lines."""
        return self._stats.left_out.lines()

    @property
    def summary(self) -> str:
        """What was done, in a line."""
        done = self._submitter
        if done is None:
            return "0 images sent"
        more = {
            "already sent": done.repeated,
            "no longer there": done.vanished,
            "refused as duplicates": done.refused,
            "of them too large for their topic, to be answered as failed": done.too_large,
        }
        parts = [f"{done.sent:,} images sent", *(f"{n:,} {what}" for what, n in more.items() if n)]
        return "; ".join(parts)

    async def run(self, url: str, patience: float) -> None:
        """Send everything; wait for a log that is gone.

        Raises:
            LogUnavailableError: It did not come back within ``patience`` seconds.
            RoadstreamError: The images cannot be sent.
        """
        waiting = Persistent(
            "produce",
            lambda: self._worked_at,
            passing=(LogUnavailableError,),
            patience=patience,
        )
        async with _ledger(self._notes.resume) as ledger:
            known = ledger.known if ledger else None
            options = replace(self._options, known=known)
            with contextlib.closing(scan_places(self._paths, options, self._stats)) as self._found:
                await waiting.run(partial(self._send, url, ledger), anyio.Event())
        if self._events is not None:
            self._events.close()

    async def _send(self, url: str, ledger: RunLedger | None, stopping: anyio.Event) -> None:
        async with open_log(url) as log:
            rights = to_produce(self._cascade, self._options.lane)
            partitions = await enter(log, self._cascade, rights)
            if self._events is None:
                identity = await log.identity()
                self._events = EventLedger(self._notes.events, "producer", log=identity)
            async with log.producer() as producer:
                submitter = self._submitter or Submitter(
                    producer,
                    ledger,
                    partitions if self._spread else None,
                    self._deadline,
                    events=self._events,
                )
                self._submitter, submitter.producer = submitter, producer
                while not stopping.is_set() and await self._more():
                    await self._submit(submitter)

    async def _more(self) -> bool:
        if not self._batch:
            self._batch = await to_thread.run_sync(next_batch, self._found, SEND_BATCH)
        return bool(self._batch)

    async def _submit(self, submitter: Submitter) -> None:
        await submitter.submit_places(self._batch)
        self._batch, self._worked_at = [], time.monotonic()
        if self._worked_at - self._said_at > SAY_EVERY:
            self._said_at = self._worked_at
            console().print(self.summary)


def _ledger(path: Path | None) -> contextlib.AbstractAsyncContextManager[RunLedger | None]:
    return contextlib.nullcontext() if path is None else RunLedger(path)
