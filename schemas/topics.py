"""Topic and consumer-group names, and which topic carries what."""

import zlib

from roadstream.schemas.records.image import LANES, Lane

VOTES = "votes"
# Votes of images that have waited long, published again by the consensus that reads them.
CARRIED = "votes.carried"
ANSWERS = "answers"
DEAD_LETTERS = "dead-letters"
# Whose the topics are, and which groups have begun: one partition, the last record of each key.
CASCADES = "cascades"
CONSENSUS_GROUP = "roadstream.consensus"


_FIRST_WORDS = frozenset({"images", "tier", VOTES, ANSWERS, DEAD_LETTERS, CASCADES})


def without_namespace(topic: str) -> str:
    """Return a topic's name without the namespace that may stand before it."""
    first, _, rest = topic.partition(".")
    return topic if first in _FIRST_WORDS else rest


def images(lane: Lane) -> str:
    """Return the topic on which new images of a lane arrive."""
    return f"images.{lane}"


def spread(image_id: str, partitions: int) -> int:
    """Return the partition of an image whose drive need not stay together.

    The record's key stays the drive's. Spreading by image lets every worker share one large folder.
    """
    return zlib.crc32(image_id.encode()) % partitions


def tier(name: str, lane: Lane) -> str:
    """Return the topic of images escalated to a tier."""
    return f"tier.{name}.{lane}"


def tier_inputs(name: str, *, first: bool) -> dict[str, Lane]:
    """Return the topics a tier reads, with their lanes: live first.

    The first tier reads new images; every other tier reads escalations.
    """
    return {images(lane) if first else tier(name, lane): lane for lane in LANES}


def tier_group(name: str) -> str:
    """Return the consumer group of a tier's workers."""
    return f"roadstream.tier.{name}"


def all_topics(tiers: list[str]) -> list[str]:
    """Return every topic a cascade with these tiers needs, in reading order."""
    inputs = [t for i, name in enumerate(tiers) for t in tier_inputs(name, first=i == 0)]
    return [*inputs, VOTES, CARRIED, ANSWERS, DEAD_LETTERS]
