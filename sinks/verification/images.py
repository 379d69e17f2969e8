"""What became of images that need a second look: unanswered, answered twice or sent twice. Pure.

The path of an image is told by the votes: a tier's votes say which tier comes next. At each step
stands the question whether the group that has the record next has committed past it: if not, it is
still being worked on.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from roadstream.schemas import codec
from roadstream.schemas.records.dead_letters import DeadLetterReason
from roadstream.schemas.records.image import LANES
from roadstream.schemas.records.partial import decode_partial_answer
from roadstream.schemas.topics import CONSENSUS_GROUP, VOTES, images, tier_group
from roadstream.sinks.verification.answers import compare
from roadstream.sinks.verification.commits import GroupHistory
from roadstream.sinks.verification.findings import Findings, Side
from roadstream.streams.log import Offsets, RecordId, TopicPartition, record_name


class TierVote(NamedTuple):
    """A tier's votes for an image.

    Attributes:
        next_tier: Where the image goes next.
        place: Where the pack stands.
        version: The version of the cascade that they are of.
    """

    next_tier: str | None
    place: RecordId
    version: str = ""


class Trail(msgspec.Struct, kw_only=True, gc=False):
    """Everything on the log about one image.

    Attributes:
        acknowledged: Whether a producer's ledger says so.
        sent: Its records on ``images.*``.
        hashes: The contents of those records, as far as they are known.
        sent_at: The latest of their times, in milliseconds since the epoch.
        escalated: Its records per tier.
        stamps: The versions of the cascade by which it was escalated, of those that name one.
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
    stamps: dict[RecordId, str] = {}
    votes: dict[str, list[TierVote]] = {}
    letters: dict[RecordId, DeadLetterReason] = {}
    answers: list[tuple[RecordId, bytes]] = []
    replayed: bool = False

    @property
    def versions(self) -> list[str]:
        """The versions of its votes: several, if a worker died and the next began it anew."""
        return list(dict.fromkeys(v.version for votes in self.votes.values() for v in votes))

    def by(self, version: str) -> "Trail":
        """Return the trail with the votes and escalations of one version only."""
        votes = {
            tier: found
            for tier, some in self.votes.items()
            if (found := [vote for vote in some if vote.version == version])
        }
        escalated = {
            tier: [place for place in places if self.stamps.get(place, version) == version]
            for tier, places in self.escalated.items()
        }
        return msgspec.structs.replace(self, votes=votes, escalated=escalated)


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


_BEST = ("waiting", "dead letter", "unknown", "lost")


def follow(trail: Trail, log: LogState) -> Outcome:
    """Say what became of an image that has no answer, by the version that came furthest."""
    if len(versions := trail.versions) < 2:
        return _follow(trail, log)
    outcomes = [_follow(trail.by(version), log) for version in versions]
    return min(outcomes, key=lambda outcome: _BEST.index(outcome.state))


def _follow(trail: Trail, log: LogState) -> Outcome:
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


def is_mixed(version: str, voted: Collection[str]) -> bool:
    """Return whether a tier of an answer has voted, and never by the version that this names."""
    return bool(version and voted) and not {version, ""} & {*voted}


class ImageCounts(msgspec.Struct):
    """What came of it, apart from anomalies.

    Attributes:
        waiting: Images still being worked on, per place.
        waiting_ids: The first of them.
        letters: Images that ended as dead letters and have no answer, per reason and place.
        refused: Images of which a second picture under the same id was refused.
        unknown: Images whose answer may have been trimmed.
        letterless: Images without an answer whose dead letter may have been trimmed.
        gone: Acknowledged images whose topic was made anew.
        unreadable: Second answers that cannot be read, or cannot be compared with one.
    """

    waiting: Counter[str] = msgspec.field(default_factory=Counter)
    waiting_ids: list[str] = []
    letters: int = 0
    refused: int = 0
    unknown: int = 0
    letterless: int = 0
    gone: int = 0
    unreadable: int = 0


class ImageChecker:
    """Checks trails, one image after the other.

    Args:
        log: The state of the log: what was committed, trimmed and given up.
        findings: Where anomalies go.
        answers_since: Per partition, the time (in milliseconds since the epoch) before which
            answers may have been trimmed; absent where all are there.
        letters_since: The time before which dead letters may have been trimmed; 0 if all are there.
        keep: How many ids of waiting images to keep.
    """

    def __init__(
        self,
        log: LogState,
        findings: Findings,
        answers_since: Mapping[int, int],
        letters_since: int,
        keep: int,
    ) -> None:
        self._log, self._findings, self._since = log, findings, answers_since
        self._letters_since, self._keep = letters_since, keep
        self.result = ImageCounts()

    def check(self, image_id: str, trail: Trail) -> None:
        """ImageChecker one image."""
        if trail.answers:
            self._answered(image_id, trail)
        elif self._may_have_been_trimmed(trail):
            self.result.unknown += 1
        else:
            self._unanswered(image_id, trail)

    def wait(self, image_id: str, where: str) -> None:
        """Note an image that is still being worked on."""
        self.result.waiting[where] += 1
        if len(self.result.waiting_ids) < self._keep:
            self.result.waiting_ids.append(image_id)

    def _may_have_been_trimmed(self, trail: Trail) -> bool:
        """Return whether its answer may have been there and is no longer."""
        if not self._since:
            return False
        partitions = {tp.partition for tp, _ in trail.sent}
        if not partitions:
            return True
        return any(trail.sent_at < self._since.get(partition, 0) for partition in partitions)

    def _unanswered(self, image_id: str, trail: Trail) -> None:
        outcome = follow(trail, self._log)
        match outcome.state:
            case "waiting":
                self.wait(image_id, outcome.detail)
            case "dead letter":
                self.result.letters += 1
            case "unknown":
                self.result.gone += 1
            case "lost" if trail.sent_at < self._letters_since:
                self.result.letterless += 1
            case "lost":
                self._findings.add("lost", image_id, outcome.detail, outcome.side)

    def _answered(self, image_id: str, trail: Trail) -> None:
        self._check_sent(image_id, trail)
        if len(trail.hashes) > 1:
            self._check_refusal(image_id, trail)
        self._check_versions(image_id, trail)
        first, *more = trail.answers
        for later in more:
            places = " and ".join(record_name(place) for place, _ in (first, later))
            try:
                kind, detail = compare(*(codec.decode_answer(value) for _, value in (first, later)))
            except codec.UNREADABLE:
                self.result.unreadable += 1
                continue
            if kind == "doubled" and self._by_zombie(trail):
                kind = "doubled by a zombie"
            self._findings.add(kind, image_id, f"{detail} ({places})")

    def _check_versions(self, image_id: str, trail: Trail) -> None:
        """Every tier of an answer must have voted by the version that the answer names."""
        (tp, offset), value = trail.answers[0]
        try:
            answer = decode_partial_answer(value)
        except codec.UNREADABLE:
            return
        if self._log.oldest.get(TopicPartition(VOTES, tp.partition), 0) > 0:
            return  # the votes that it had may have been trimmed, and those of others not
        for tier in (one.tier for one in answer.tiers):
            votes = trail.votes.get(tier, [])
            if is_mixed(answer.cascade_hash, {vote.version for vote in votes}):
                others = ", ".join(sorted({vote.version for vote in votes}))
                place = record_name(votes[0].place)
                detail = (
                    f"answered by version {answer.cascade_hash} at {record_name((tp, offset))}, "
                    f"with tier {tier}, which voted by {others} ({place})"
                )
                self._findings.add("mixed versions", image_id, detail)
                return

    def _by_zombie(self, trail: Trail) -> bool:
        history = self._log.histories.get(CONSENSUS_GROUP)
        packs = [vote.place for votes in trail.votes.values() for vote in votes]
        return history is not None and history.by_zombie(packs)

    def _check_sent(self, image_id: str, trail: Trail) -> None:
        if trail.sent or trail.acknowledged or trail.replayed:
            return
        (tp, offset), _ = trail.answers[0]
        places = [tp._replace(topic=images(lane)) for lane in LANES]
        if any(self._log.oldest.get(at, 0) > 0 or at in self._log.remade for at in places):
            return  # what it answers was trimmed, or is gone with its topic; said once, for all
        detail = f"answered at {record_name((tp, offset))}, and on no images.* topic"
        self._findings.add("phantom", image_id, detail)

    def _check_refusal(self, image_id: str, trail: Trail) -> None:
        """Two pictures under one id: all but one must have been refused aloud."""
        if "duplicate" in trail.letters.values():
            self.result.refused += 1
            return
        log = self._log
        group = tier_group(log.tiers[0])
        packs = trail.votes.get(log.tiers[0], [])
        if not all(log.passed(group, place) for place in trail.sent):
            self.wait(image_id, f"tier {log.tiers[0]}")
        elif not all(log.passed(CONSENSUS_GROUP, vote.place) for vote in packs):
            self.wait(image_id, "consensus")
        else:
            self._findings.add(
                "lost",
                image_id,
                f"sent {len(trail.sent)} times with {len(trail.hashes)} different pictures, "
                "of which none was refused",
                "sink" if len(packs) > 1 else "worker",
            )
