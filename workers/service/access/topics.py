"""Whether the topics of a cascade are there, alike, and set so that no record is lost."""

import time
from collections.abc import Collection, Mapping
from contextlib import suppress

import structlog

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import ForbiddenError, UsageError
from roadstream.schemas.topics import CASCADES, all_topics
from roadstream.streams.log import Log, Right, TopicFault
from roadstream.streams.topics.claims import check_owner, claim_topics
from roadstream.workers.service.lifecycle import supervised

logger = structlog.get_logger()


async def create_topics(log: Log, cascade: Cascade, partitions: int) -> dict[str, int]:
    """Claim a cascade's topics for it, and create those that do not exist.

    Args:
        log: The log, open.
        cascade: Whose topics.
        partitions: Of each that is made.

    Returns:
        The partition count of each.

    Raises:
        UsageError: They are another cascade's; or some exist with other counts than those that are
            missing would get, and none is made; or the log refuses one.
        ForbiddenError: A right is missing.
    """
    await claim_topics(log, cascade, time.time())
    topics = all_topics(cascade.named_tiers)
    there = await log.partition_counts(topics)
    _check_alike(log, there)
    _check_new(log, [topic for topic in topics if topic not in there], there, partitions)
    await log.create_topics(topics, partitions)
    counts = await log.partition_counts(topics)
    _check_alike(log, counts)  # somebody else may have made some meanwhile
    return {topic: counts[topic] for topic in topics}


def _check_alike(log: Log, counts: Mapping[str, int]) -> None:
    if len(set(counts.values())) > 1:
        named = {log.real_name(topic): counts[topic] for topic in sorted(counts)}
        raise UsageError(
            f"expected topics of equal partition counts, got {named}; alter all to the largest "
            "with `kafka-topics --alter --topic NAME --partitions NUMBER`"
        )


def _check_new(log: Log, new: list[str], there: Mapping[str, int], partitions: int) -> None:
    have = next(iter(there.values()), partitions)
    if new and have != partitions:
        raise UsageError(
            f"{', '.join(map(log.real_name, new))} would get {partitions} partitions, but "
            f"{', '.join(map(log.real_name, sorted(there)))} exist with {have}: give "
            f"--partitions {have} to `roadstream topics create`, or alter those that exist"
        )


async def check_topics(log: Log, cascade: Cascade) -> int:
    """Check that the cascade's topics exist with equal partition counts; return the count.

    Raises:
        UsageError: Some are missing, or their counts differ.
        ForbiddenError: Some may not be described, so nobody knows whether they exist.
    """
    topics = all_topics(cascade.named_tiers)
    counts = await log.partition_counts(topics)
    missing = [log.real_name(topic) for topic in topics if topic not in counts]
    if missing:
        raise UsageError(
            f"expected topics {', '.join(missing)}; create them with `roadstream topics create`"
        )
    _check_alike(log, counts)
    return next(iter(counts.values()))


async def settings_faults(log: Log, cascade: Cascade) -> list[TopicFault]:
    """Return what is wrong with how the cascade's topics are set, the worst first.

    Raises:
        ForbiddenError: This client may not ask.
    """
    found = list(await log.topic_faults(all_topics(cascade.named_tiers)))
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


async def enter(log: Log, cascade: Cascade, rights: Collection[Right]) -> int:
    """Check that the cascade's topics exist, and that they are its own; return their partitions.

    Args:
        log: The log, open.
        cascade: What is judged.
        rights: What this process will need.

    Raises:
        UsageError: Some are missing, their counts differ, or they are another cascade's.
        ForbiddenError: Rights are missing.
    """
    await log.check_rights(rights)
    await check_owner(log, cascade)
    partitions = await check_topics(log, cascade)
    await claim_topics(log, cascade, time.time())
    return partitions


async def enter_service(log: Log, cascade: Cascade, rights: Collection[Right]) -> None:
    """Enter as ``enter`` does, and say what about the topics could cost records.

    Raises:
        UsageError: As ``enter``; or records would be lost for certain.
        ForbiddenError: Rights are missing.
    """
    await enter(log, cascade, rights)
    if supervised() is None:  # else the supervisor has said it
        await check_settings(log, cascade)
