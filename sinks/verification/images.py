"""Where an image without an answer got stuck, and who lost it. Pure.

The path of an image is told by the votes: a tier's votes say which tier comes next. At each step
stands the question whether the group that has the record next has committed past it: if not, it is
still being worked on.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from roadstream.schemas.records.dead_letters import DeadLetterReason
from roadstream.schemas.records.image import LANES
from roadstream.schemas.topics import CONSENSUS_GROUP, VOTES, images, tier_group
from roadstream.sinks.verification.commits import GroupHistory
from roadstream.sinks.verification.findings import Side
from roadstream.streams.log import Offsets, RecordId, TopicPartition, record_name


class TierVote(NamedTuple):
    """A tier's votes for an image: where the image goes next, and where the pack stands."""

    next_tier: str | None
    place: RecordId


class Trail(msgspec.Struct, kw_only=True, gc=False):
    """Everything on the log about one image.

    Attributes:
        acknowledged: Whether a producer's ledger says so.
        sent: Its records on ``images.*``.
        hashes: The contents of those records, as far as they are known.
        sent_at: The latest of their times, in milliseconds since the epoch.
        escalated: Its records per tier.
        votes: Its votes per tier.
        letters: Its own dead letters, by the place of the record.
        answers: Its answers as they stand on the log, with their places, in order.
        replayed: Whether it was made by the replay of a dead letter.
    """

    acknowledged: bool = False
    sent: list[RecordId] = []
    hashes: set[bytes] = set()
    sent_at: int = 0
    escalated: dict[str, list[RecordId]] = {}
    votes: dict[str, list[TierVote]] = {}
    letters: dict[RecordId, DeadLetterReason] = {}
    answers: list[tuple[RecordId, bytes]] = []
    replayed: bool = False


class LogState(NamedTuple):
    """The state of the log: what was committed, trimmed and given up.

    Attributes:
        tiers: Tiers of the cascade, in order.
        committed: What each group has committed.
        oldest: Oldest offset that each partition still has.
        histories: What the groups did, by their ledgers; groups without any are absent.
        letters: Places of all records of which the whole became a dead letter.
        patchy: Groups of which some work may stand in no ledger that can be read.
        remade: Partitions that were made anew since the ledgers tell of them.
    """

    tiers: Sequence[str]
    committed: Mapping[str, Offsets]
    oldest: Mapping[TopicPartition, int]
    histories: Mapping[str, GroupHistory]
    letters: Collection[RecordId]
    patchy: Collection[str] = ()
    remade: Collection[TopicPartition] = ()

    def passed(self, group: str, place: RecordId) -> bool:
        """Return whether a group has committed past a record."""
        return self.committed.get(group, {}).get(place[0], 0) > place[1]

    def trimmed(self, topics: Iterable[str]) -> bool:
        """Return whether some partition of these topics no longer has its first records."""
        chosen = set(topics)
        return any(oldest > 0 for tp, oldest in self.oldest.items() if tp.topic in chosen)

    def was_done(self, group: str, places: Iterable[RecordId]) -> bool:
        """Return whether a ledger says that the outputs of one of these were acknowledged."""
        history = self.histories.get(group)
        return history is not None and any(
            offset in history.done[tp] for tp, offset in places if tp in history.done
        )

    def culprit(self, group: str, places: Iterable[RecordId]) -> Side:
        """Return who lost the outputs of records: the broker, if a ledger saw them acknowledged."""
        if self.was_done(group, places):
            return "broker"
        return "unknown" if group in self.patchy else "worker"

    def was_missed(self, group: str, places: Iterable[RecordId]) -> bool:
        """Return whether a ledger says that retention took one of these."""
        history = self.histories.get(group)
        return history is not None and any(
            offset in history.missed[tp] for tp, offset in places if tp in history.missed
        )


class Outcome(NamedTuple):
    """What became of an image without an answer."""

    state: Literal["lost", "waiting", "dead letter", "unknown"]
    detail: str
    side: Side | None = None


def follow(trail: Trail, log: LogState) -> Outcome:
    """Say what became of an image that has no answer."""
    if not (trail.sent or trail.votes or trail.escalated):
        return _traceless(trail, log)
    tier, came, passed = log.tiers[0], trail.sent, list[str]()
    while True:
        votes = trail.votes.get(tier)
        if not votes:
            return _unvoted(trail, log, tier, came, passed)
        passed.append(tier)
        onward = _onward(votes)
        if onward is None or onward in passed:
            return _joining(trail, log, passed)
        tier, came = onward, trail.escalated.get(onward, [])


def _onward(votes: Sequence[TierVote]) -> str | None:
    """Return the next tier by the votes that count: the latest, copies aside; ``None`` to exit."""
    fresh = [vote for vote in votes if vote.place[0].topic == VOTES] or votes
    return None if any(vote.next_tier is None for vote in votes) else fresh[-1].next_tier


def _traceless(trail: Trail, log: LogState) -> Outcome:
    if trail.letters:
        return Outcome("dead letter", next(iter(trail.letters.values())))
    if trail.replayed:
        return Outcome("lost", "replayed from the dead letters, but not on the log", "broker")
    topics = [images(lane) for lane in LANES]
    if any(tp.topic in topics for tp in log.remade):
        return Outcome("unknown", "it may have been on images.* before that was made anew")
    if not log.trimmed(topics):
        return Outcome("lost", "acknowledged, but not on images.*", "broker")
    group = tier_group(log.tiers[0])
    behind = any(
        oldest > log.committed.get(group, {}).get(tp, 0)
        for tp, oldest in log.oldest.items()
        if tp.topic in topics
    )
    history = log.histories.get(group)
    if behind or (history is not None and history.missed):
        detail = f"no longer on images.*, and retention passed what {group} had committed"
        return Outcome("lost", detail, "retention")
    detail = "acknowledged and never answered; its records were trimmed, so none can tell the side"
    return Outcome("lost", detail, "unknown")


def _unvoted(
    trail: Trail, log: LogState, tier: str, came: Sequence[RecordId], passed: Sequence[str]
) -> Outcome:
    """ImageChecker an image that reached a tier, or should have, and has no votes of it."""
    group = tier_group(tier)
    if passed and not _held(trail, log, passed):
        packs = [vote.place for tier in passed for vote in trail.votes[tier]]
        return _buried(trail, log, packs) or _dropped(passed)
    if not came:
        return _unsent(trail, log, tier, passed)
    if any(not log.passed(group, place) for place in came):
        return Outcome("waiting", f"tier {tier}")
    if (buried := _buried(trail, log, came)) is not None:
        return buried
    if log.was_missed(group, came):
        return Outcome(
            "lost", f"retention took it before tier {tier} had committed it", "retention"
        )
    return _swallowed(log, tier, came)


def _swallowed(log: LogState, tier: str, came: Sequence[RecordId]) -> Outcome:
    """ImageChecker an image of which the record was committed and which has no votes."""
    done = log.was_done(tier_group(tier), came)
    where = f"read by tier {tier} at {record_name(came[-1])} and committed"
    if any(log.oldest.get(TopicPartition(VOTES, tp.partition), 0) > 0 for tp, _ in came):
        detail = f"{where}; its votes, if there were any, were trimmed"
        return Outcome("lost", detail, "sink" if done else "unknown")
    if done:
        return Outcome("lost", f"{where}; its votes were acknowledged and are not there", "broker")
    return Outcome("lost", f"{where} without votes", log.culprit(tier_group(tier), came))


def _unsent(trail: Trail, log: LogState, tier: str, passed: Sequence[str]) -> Outcome:
    """ImageChecker an image that was escalated to a tier and has no record there."""
    if not passed:  # its records on images.* were trimmed: the group had committed them
        return Outcome("lost", f"its records before tier {tier} were trimmed", "unknown")
    before = passed[-1]
    group = tier_group(before)
    came = trail.sent if before == log.tiers[0] else trail.escalated.get(before, [])
    if came and any(not log.passed(group, place) for place in came):
        return Outcome("waiting", f"tier {before}")
    detail = f"tier {before} voted to escalate it to {tier}, but tier.{tier}.* has no record of it"
    topics = [f"tier.{tier}.{lane}" for lane in LANES]
    if log.trimmed(topics):
        return Outcome("lost", f"{detail} (the topic was trimmed)", "unknown")
    return Outcome("lost", detail, log.culprit(group, came))


def _held(trail: Trail, log: LogState, passed: Sequence[str]) -> bool:
    """Return whether the consensus has yet to commit the votes of every tier passed so far."""
    return all(
        any(not log.passed(CONSENSUS_GROUP, vote.place) for vote in trail.votes[tier])
        for tier in passed
    )


def _joining(trail: Trail, log: LogState, passed: Sequence[str]) -> Outcome:
    """ImageChecker an image whose votes are complete."""
    packs = [vote.place for tier in passed for vote in trail.votes[tier]]
    if any(not log.passed(CONSENSUS_GROUP, place) for place in packs):
        return Outcome("waiting", "consensus")
    return _buried(trail, log, packs) or _dropped(passed)


def _dropped(passed: Sequence[str]) -> Outcome:
    detail = f"the consensus committed its votes of {', '.join(passed)} without an answer"
    return Outcome("lost", detail, "sink")


def _buried(trail: Trail, log: LogState, places: Sequence[RecordId]) -> Outcome | None:
    """Return the outcome of an image of which one of these records became a dead letter."""
    for place in places:
        if place in trail.letters or place in log.letters:
            reason = trail.letters.get(place, "unreadable_record")
            return Outcome("dead letter", f"{reason} at {record_name(place)}")
    return None
