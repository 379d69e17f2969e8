"""Checks, before anything is done on a log, that it is fit for a cascade."""

import time
from collections.abc import Collection

from roadstream.schemas.cascade.model import Cascade
from roadstream.streams.log import Log, Right
from roadstream.streams.topics.claims import check_owner, claim_topics
from roadstream.workers.service.access.topics import check_settings, check_topics
from roadstream.workers.service.lifecycle import supervised


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
