"""Lets another version of the cascade judge what begins from now on."""

import time
from collections.abc import Collection
from functools import partial

import structlog
from anyio import to_thread

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import ConfigError, RoadstreamError, UsageError
from roadstream.schemas.records.claims import Roll
from roadstream.schemas.topics import all_topics
from roadstream.streams.log import Log
from roadstream.streams.topics.claims import check_owner, tell
from roadstream.streams.topics.versions import Versions
from roadstream.workers.service.access.topics import create_topics

logger = structlog.get_logger()

# Main versions that can be rolled back to.
MOST_PREVIOUS = 20


async def roll(log: Log, cascade: Cascade, share: float | None, now: float) -> Roll:
    """Let a cascade judge all images that begin from now on, or a share of them.

    Its topics are made where it has new tiers. Workers take it up as soon as they have loaded it;
    what is under way is judged to its end by the version that it began with.

    Args:
        log: The log, open.
        cascade: The new version.
        share: Of the images, or rather of their sessions, in (0, 1); ``None`` for all.
        now: Seconds since the epoch.

    Returns:
        What holds from now on.

    Raises:
        UsageError: The log's topics are another cascade's, its first tier has another name, no
            version judges there yet that could judge the rest, or a topic cannot be made.
        OutputError: This client may not write the topic ``cascades``.
        LogUnavailableError: The log does not answer.
    """
    await check_owner(log, cascade)
    versions = Versions(log)
    await versions.refresh()
    before = versions.roll
    main = before.main if before is not None else versions.latest
    if main is not None:
        await _check_first_tier(versions, main, cascade)
    await _make_topics(log, cascade)
    await versions.register(cascade, now)
    previous = [] if before is None else before.previous
    if share is None:
        if main is not None and main != cascade.hash:
            previous = [main, *(one for one in previous if one != main)][:MOST_PREVIOUS]
        told = Roll(main=cascade.hash, previous=previous, rolled_at=now)
    elif main is None or main == cascade.hash:
        got = "none" if main is None else "this one"
        raise UsageError(f"--share: expected another version that judges the rest, got {got}")
    else:
        told = Roll(
            main=main, candidate=cascade.hash, share=share, previous=previous, rolled_at=now
        )
    await tell(log, told)
    return told


async def roll_file(log: Log, file: str, without: Collection[str]) -> None:
    """Roll the cascade file that a process was started with, read anew; log what comes of it.

    Args:
        log: The log, open.
        file: As of ``load_cascade``.
        without: What the process was told to leave out of it.
    """
    try:
        cascade = await to_thread.run_sync(partial(load_cascade, file, without=without))
        told = await roll(log, cascade, None, time.time())
    except RoadstreamError as error:
        logger.error("roll_refused", file=file, reason=str(error))
    else:
        logger.info("rolled", file=file, version=told.main)


async def roll_back(log: Log, now: float) -> Roll:
    """Let the version judge again that did before the last roll; return what holds from now on.

    A candidate is dropped first: the main version then judges all again.

    Raises:
        UsageError: There is nothing to go back to.
        OutputError: This client may not write the topic ``cascades``.
        LogUnavailableError: The log does not answer.
    """
    versions = Versions(log)
    await versions.refresh()
    before = versions.roll
    if before is not None and before.candidate is not None:
        told = Roll(main=before.main, previous=before.previous, rolled_at=now)
    elif before is not None and before.previous:
        main, *rest = before.previous
        told = Roll(main=main, previous=rest, rolled_at=now)
    else:
        raise UsageError("nothing to roll back to: no version has been rolled here before")
    await tell(log, told)
    return told


async def _check_first_tier(versions: Versions, main: str, cascade: Cascade) -> None:
    """Check that the same group goes on to read what begins: else two groups would judge it."""
    try:
        before = await versions.cascade(main)
    except ConfigError as error:  # it has an engine that is not installed here
        logger.warning("first_tier_unchecked", version=main, reason=str(error))
        return
    if before is not None and before.tier_names[0] != cascade.tier_names[0]:
        raise UsageError(
            f"expected {before.tier_names[0]} as the name of the first tier, as in the version "
            f"that judges now ({main}), got {cascade.tier_names[0]}: its workers read what is new. "
            "Keep the name, or begin anew with --namespace"
        )


async def _make_topics(log: Log, cascade: Cascade) -> None:
    counts = await log.partition_counts(all_topics(cascade.tier_names))
    if not counts:
        raise UsageError(
            "no topics of a cascade are here; make them with `roadstream topics create`"
        )
    await create_topics(log, cascade, next(iter(counts.values())))
