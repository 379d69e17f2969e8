"""Whether the topics of a cascade are there, alike, and set so that no record is lost."""

from contextlib import suppress

import structlog

from schemas.cascade import Cascade
from schemas.errors import ForbiddenError, UsageError
from schemas.topics import CASCADES, all_topics
from streams.log import Log, TopicFault

logger = structlog.get_logger()


async def check_topics(log: Log, cascade: Cascade) -> int:
    """Check that the cascade's topics exist with equal partition counts; return the count.

    Raises:
        UsageError: Some are missing, or their counts differ.
        ForbiddenError: Some may not be described, so nobody knows whether they exist.
    """
    topics = all_topics(cascade.tier_names)
    counts = await log.partition_counts(topics)
    missing = [log.real_name(topic) for topic in topics if topic not in counts]
    if missing:
        raise UsageError(
            f"expected topics {', '.join(missing)}; create them with `roadstream topics create`"
        )
    if len(set(counts.values())) > 1:
        named = {log.real_name(topic): count for topic, count in counts.items()}
        raise UsageError(f"expected topics of equal partition counts, got {named}")
    return next(iter(counts.values()))


async def settings_faults(log: Log, cascade: Cascade) -> list[TopicFault]:
    """Return what is wrong with how the cascade's topics are set, the worst first.

    Raises:
        ForbiddenError: This client may not ask.
    """
    found = list(await log.topic_faults(all_topics(cascade.tier_names)))
    with suppress(ForbiddenError):  # who claims the topics says so
        found += await log.topic_faults([CASCADES])
    return found


async def check_settings(log: Log, cascade: Cascade) -> None:
    """Log what is wrong with how the cascade's topics are set, or that nobody may know.

    Raises:
        UsageError: Records would be lost for certain.
    """
    try:
        for fault in await settings_faults(log, cascade):
            if fault.harm == "loses":
                raise UsageError(str(fault))
            logger.warning("topic_fault", **fault._asdict())
    except ForbiddenError as error:
        logger.warning("topics_unchecked", reason=str(error))
