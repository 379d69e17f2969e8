"""Where a group begins that has committed nothing yet."""

import structlog

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import OutputError, UsageError
from roadstream.schemas.records.claims import Begun
from roadstream.schemas.topics import ANSWERS, tier_group, tier_inputs
from roadstream.streams.log import Log, Offsets, Start, TopicPartition
from roadstream.streams.topics.claims import read_claims, tell

logger = structlog.get_logger()

# A group that has begun commits within seconds. If it has no commit after this, it had, and the log
# has forgotten: Kafka forgets what a group had that was away for a week (offsets.retention).
FORGOTTEN_AFTER = 86_400.0


async def begin_tier(
    log: Log, cascade: Cascade, tier: str, start: Start | None, now: float
) -> None:
    """Let the group of a tier begin where it should; does nothing for one that has commits.

    Tiers behind the first begin at the beginning: what waits there was escalated to them. So does
    the first on topics without answers, whoever has sent pictures to them.

    Args:
        log: The log, open.
        cascade: What is judged.
        tier: The tier.
        start: Where to begin, as the user was asked; ``None`` for as it should be.
        now: Seconds since the epoch.

    Raises:
        UsageError: The images there were answered before, and nobody said where to begin.
        LogUnavailableError: The log does not answer.
    """
    group = tier_group(tier)
    if tier != cascade.tier_names[0]:
        return
    inputs = list(tier_inputs(tier, first=True))
    if await log.committed(group, inputs):
        return
    try:
        begun = (await read_claims(log)).begun.get(group)
    except (UsageError, OutputError) as error:
        logger.warning("beginning_unchecked", group=log.real_name(group), reason=str(error))
        begun = None
    if start is None and (begun is None or now - begun.begun_at > FORGOTTEN_AFTER):
        await _check_unanswered(log, group, inputs)
    if start == "end":
        await log.commit(group, await _ends(log, inputs))
    if begun is not None and start is None:
        return
    try:
        await tell(log, Begun(group=group, start=start or "beginning", begun_at=now))
    except OutputError as error:
        logger.warning("beginning_untold", group=log.real_name(group), reason=str(error))


async def _check_unanswered(log: Log, group: str, inputs: list[str]) -> None:
    answers = await _kept(log, ANSWERS)
    images = sum([await _kept(log, topic) for topic in inputs]) if answers else 0
    # Another process of the group may have begun since.
    if images and not await log.committed(group, inputs):
        raise UsageError(
            f"group {log.real_name(group)} is new, and {images:,} images lie on "
            f"{', '.join(map(log.real_name, inputs))}, of which another group has answered some or "
            f"all ({answers:,} answers): say --from beginning to judge them all again, or "
            "--from end to begin with those that come from now on"
        )


async def _kept(log: Log, topic: str) -> int:
    """Return how many records a topic holds."""
    async with log.reader(topic, "beginning") as reader:
        first, ends = reader.positions, await reader.ends()
    return sum(ends[p] - at for p, at in first.items())


async def _ends(log: Log, topics: list[str]) -> Offsets:
    found: dict[TopicPartition, int] = {}
    for topic in topics:
        async with log.reader(topic, "end") as reader:
            found |= {TopicPartition(topic, p): at for p, at in reader.positions.items()}
    return found
