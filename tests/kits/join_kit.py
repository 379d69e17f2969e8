"""What tests of the join share: a join, and what came of a pack."""

from collections.abc import Iterable, Sequence

import msgspec

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.records.image import Head
from roadstream.schemas.topics import CARRIED
from roadstream.sinks.consensus.join import Join, JoinLimits, Resolved
from roadstream.sinks.consensus.versions import KnownVersions
from roadstream.stages.voting.rules import vote_math
from roadstream.streams.log import TopicPartition
from tests.kits.builders import cascade, head, pack, votes

NOW = 1_000.0
TIERS = ["one", "two", "three"]
TP = TopicPartition("votes", 0)
COPIES = TopicPartition(CARRIED, 0)
SMALL = JoinLimits(window=16, carry_after=4, at_once=4)


def new_join(
    answered: Iterable[str] = (),
    partitions: int = 1,
    limits: JoinLimits | None = None,
    versions: Sequence[Cascade] = (),
) -> Join:
    """Return a join that knows these versions; the first is its own, by default ``cascade()``."""
    own, *others = versions or [cascade()]
    known = KnownVersions(own, vote_math)
    for other in others:
        known.learn(other.hash, other)
    join = Join(known, limits)
    join.assign({partition: dict.fromkeys(answered) for partition in range(partitions)})
    return join


def ids(resolved: Resolved) -> list[str]:
    return [answer.head.image_id for _, answer in resolved.answers]


def hashed(image_id: str, content: bytes | None) -> Head:
    return msgspec.structs.replace(head(image_id), content_hash=content)


def flow(join: Join, images: int, offset: int, now: float = NOW) -> list[Resolved]:
    """Have confident images answered, one pack each."""
    return [
        join.add(pack("one", votes(f"flow-{offset + i}")), (TP, offset + i), now)
        for i in range(images)
    ]
