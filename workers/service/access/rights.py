"""The least rights of each command on a cluster with ACLs, as docs/guide/kafka.md lists them. Pure.

READ and WRITE include DESCRIBE. What nobody must have is left out: on ``cascades``, without which
commands go on with a warning, and CREATE, which a right on the cluster may stand for.
"""

from collections.abc import Iterable

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.records.image import Lane
from roadstream.schemas.topics import (
    ANSWERS,
    CARRIED,
    CONSENSUS_GROUP,
    DEAD_LETTERS,
    VOTES,
    all_topics,
    images,
    tier_group,
    tier_inputs,
)
from roadstream.stages.voting.route import Router
from roadstream.streams.log import Operation, Right


def to_read(*topics: str) -> list[Right]:
    """Return what it takes to read topics without a group."""
    return _on("READ", topics)


def to_settle() -> list[Right]:
    """Return what it takes to say that a dead letter is dealt with."""
    return [*_on("READ", [DEAD_LETTERS]), *_on("WRITE", [DEAD_LETTERS])]


def to_produce(cascade: Cascade, lane: Lane) -> list[Right]:
    """Return what ``produce`` needs."""
    return _among(cascade, _on("WRITE", [images(lane)]))


def to_work(cascade: Cascade, tiers: Iterable[str]) -> list[Right]:
    """Return what ``work`` for some tiers needs."""
    rights: list[Right] = []
    for tier in tiers:
        router = Router(cascade, tier)
        later = sorted(router.targets)
        onward = [topic for name in later for topic in tier_inputs(name, first=False)]
        rights += _on("READ", tier_inputs(tier, first=tier == cascade.tier_names[0]))
        rights += _on("WRITE", [*onward, VOTES, DEAD_LETTERS])
        rights.append(Right("READ", "group", tier_group(tier)))
        rights += [
            Right("DESCRIBE", "group", tier_group(name))
            for name in sorted({*later, *router.watched})
        ]
    return _among(cascade, rights)


def to_decide(cascade: Cascade) -> list[Right]:
    """Return what ``consensus`` needs."""
    rights = _on("READ", [VOTES, CARRIED, ANSWERS]) + _on("WRITE", [CARRIED, ANSWERS, DEAD_LETTERS])
    return _among(cascade, [*rights, Right("READ", "group", CONSENSUS_GROUP)])


def to_verify(cascade: Cascade) -> list[Right]:
    """Return what ``verify`` needs."""
    groups = [*map(tier_group, cascade.tier_names), CONSENSUS_GROUP]
    topics = _on("READ", all_topics(cascade.tier_names))
    return [*topics, *(Right("DESCRIBE", "group", group) for group in groups)]


def _on(operation: Operation, topics: Iterable[str]) -> list[Right]:
    return [Right(operation, "topic", topic) for topic in topics]


def _among(cascade: Cascade, rights: list[Right]) -> list[Right]:
    """Return rights, each once, with DESCRIBE on the cascade's other topics."""
    more = {right[1:] for right in rights if right.operation != "DESCRIBE"}
    wanted = dict.fromkeys([*rights, *_on("DESCRIBE", all_topics(cascade.named_tiers))])
    return [right for right in wanted if right.operation != "DESCRIBE" or right[1:] not in more]
