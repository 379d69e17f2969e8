"""``roadstream produce``: sends pictures to a log."""

import contextlib
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated

from anyio import to_thread
from cyclopts import Parameter

from schemas.cascade import Cascade, load_cascade
from schemas.errors import UsageError
from schemas.records import Image, Lane
from stages.decode import encode_jpeg
from streams.run_ledger import RunLedger
from streams.sources.files import ScanOptions, scan
from streams.sources.video import VideoOptions
from workers.commands.common import (
    DEFAULT_KAFKA,
    CascadeName,
    LogLevel,
    LogUrl,
    Paths,
    check_paths,
    console,
    run_async,
)
from workers.connect import open_log
from workers.runtime import check_topics
from workers.submit import Submitter

SEND_BATCH = 64
SAY_EVERY = 5.0


def produce(
    *paths: Paths,
    log: LogUrl = DEFAULT_KAFKA,
    cascade: CascadeName = "lite",
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
    resume: Annotated[
        Path | None, Parameter(help="File that notes what was sent; what it notes is not resent.")
    ] = None,
    log_level: LogLevel = "warning",
) -> None:
    """Send pictures to a log, to be scored by the workers there. PATHS are as for score."""
    check_paths("produce", paths)
    if deadline is not None and (lane != "live" or deadline <= 0):
        raise UsageError("--deadline: expected seconds above 0, with --lane live")
    options = ScanOptions(
        lane=lane,
        carry="reference" if by_reference else "inline",
        hashed=by_reference,
        video=VideoOptions(encode=encode_jpeg, fps=fps),
    )
    job = partial(
        _produce,
        scan(paths, options),
        log,
        load_cascade(cascade),
        resume,
        spread=not by_session,
        deadline=deadline,
    )
    console().print(f"{run_async(log_level, job):,} images sent", highlight=False)


async def _produce(
    found: Iterator[Image],
    url: str,
    cascade: Cascade,
    resume: Path | None,
    *,
    spread: bool,
    deadline: float | None,
) -> int:
    sent, said_at, screen = 0, time.monotonic(), console()
    async with open_log(url) as log:
        partitions = await check_topics(log, cascade)
        async with log.producer() as producer, _ledger(resume) as ledger:
            submitter = Submitter(producer, ledger, partitions if spread else None, deadline)
            while batch := await to_thread.run_sync(lambda: list(islice(found, SEND_BATCH))):
                sent += await submitter.submit(batch)
                if time.monotonic() - said_at > SAY_EVERY:
                    said_at = time.monotonic()
                    screen.print(f"{sent:,} images sent", highlight=False)
    return sent


def _ledger(path: Path | None) -> contextlib.AbstractAsyncContextManager[RunLedger | None]:
    return contextlib.nullcontext() if path is None else RunLedger(path)
