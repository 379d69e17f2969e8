"""Finishing work on a log: outputs first, then the offsets they allow to be committed."""

from collections.abc import Sequence

import structlog

from schemas.errors import FencedError
from streams.log import Consumer, Offsets, Output, TopicPartition
from streams.tracker import OffsetTracker

logger = structlog.get_logger()


async def finish(
    consumer: Consumer,
    tracker: OffsetTracker,
    outputs: Sequence[Output],
    done: dict[TopicPartition, list[int]],
    epoch: int,
) -> None:
    """Publish the outputs of ``done`` and commit what that allows; then note both.

    Work of a partition that was lost meanwhile is dropped: its next owner does it again.

    Raises:
        LogUnavailableError: The outputs were not acknowledged; nothing is noted as done.
        OutputError: The log refuses the outputs; likewise.
    """
    if await _publish(consumer, tracker, outputs, tracker.commit_after(done, epoch), epoch):
        tracker.done(done, epoch)


async def flush(consumer: Consumer, tracker: OffsetTracker) -> None:
    """Commit what work that ended out of order left behind; raises as ``finish``."""
    if commit := tracker.committable():
        await _publish(consumer, tracker, [], commit, tracker.epoch)


async def _publish(
    consumer: Consumer,
    tracker: OffsetTracker,
    outputs: Sequence[Output],
    commit: Offsets,
    epoch: int,
) -> bool:
    try:
        await consumer.publish(outputs, commit, epoch)
    except FencedError as error:
        logger.warning("fenced", error=str(error))
        return False
    tracker.committed(commit, epoch)
    return True
