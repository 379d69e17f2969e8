"""From scores to votes: calibrate, pool with the votes so far, route. Pure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import NamedTuple

import structlog

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import EngineDownError, EngineError, ImageError, OutOfServiceError
from roadstream.schemas.records.bounds import MOST_TEXT
from roadstream.schemas.records.dead_letters import DeadLetterReason
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import (
    NO_TAGS,
    Box,
    Evidence,
    ImageVotes,
    PriorVote,
    merged_tags,
)
from roadstream.stages.inference import Abstained, Finding, Score, is_late
from roadstream.stages.voting.fusion import BoxRules, fusion_of
from roadstream.stages.voting.picture_rules import NOTHING_SEEN, JudgedImage, Seen
from roadstream.stages.voting.route import (
    EXPLORED,
    NONE_DOWN,
    NOTHING_LEARNT,
    Decision,
    Facts,
    Router,
)
from roadstream.stages.voting.rules import VoteRules, Votes
from roadstream.stages.voting.vote import (
    calibrator,
    decision_confidence,
    disagreement,
    losing_votes,
    pooled,
)

logger = structlog.get_logger()

LATE = ImageError("expired", "the deadline passed in the queue")


class Failure(NamedTuple):
    """An image that a member failed on, or that leaves unjudged as its members are out of service.

    Attributes:
        row: Its position in the batch.
        member: The first such member; ``None`` if it is no member's failure.
        error: What went wrong.
        attempts: Calls of the engine with it.
        final: Whether it ends here without any vote.
        reason: Which kind of failure it is.
    """

    row: int
    member: str | None
    error: str
    attempts: int
    final: bool
    reason: DeadLetterReason = "model_failed"


class Timing(NamedTuple):
    """Seconds that an image spent at a tier: waiting, being decoded, and being inferred."""

    queued: float
    decoding: float
    inferring: float


class TierVoting:
    """Makes one tier's votes.

    Args:
        cascade: For its pool and its rules.
        tier: Name of the tier.

    Attributes:
        targets: Tiers that images may be escalated to from here.
        watched: Tiers of which it matters whether anybody works for them.
        down: Those that nobody works for now. Another thread may set it at any time.
        needed: Seconds that images take at later tiers, where that is known; likewise.
    """

    def __init__(self, cascade: Cascade, tier: str) -> None:
        self._members = [*cascade.tier(tier).members, *cascade.absent.get(tier, ())]
        self._seats = [(calibrator(one.calibration), one.weight) for one in self._members]
        self._names = [one.name for one in self._members]
        self._counting = [one.name for one in self._members if one.weight > 0]
        self._router = Router(cascade, tier)
        self._pool = pooled(cascade.pool)
        self._rules = VoteRules(cascade) if cascade.ruled else None
        # Few cascades ask for more than confidence and disagreement of their votes.
        router = self._router
        self._plain = not router.needs_more and self._rules is None
        self._fusion, self._box_rules = fusion_of(cascade.tier(tier)), BoxRules(cascade)
        self.targets, self.watched = router.targets, router.watched
        self.down, self.needed = NONE_DOWN, NOTHING_LEARNT

    def fused(
        self, columns: Sequence[Sequence[Finding | EngineError]], images: Sequence[JudgedImage]
    ) -> Iterator[list[Box] | None]:
        """Yield the fused boxes per image; ``None`` if that is not asked for.

        Args:
            columns: Per member its findings.
            images: Those that were shown to the members.
        """
        if self._fusion is None:
            return repeat(None)
        if not self._box_rules:
            return iter(self._fusion.fuse(columns))
        adapted = [
            self._box_rules.adaptation(merged_tags(image.evidence.tags, self._tags_of(found)))
            for image, found in zip(images, zip(*columns, strict=True), strict=True)
        ]
        return iter(self._fusion.fuse(columns, adapted))

    def _tags_of(self, found: Sequence[Finding | EngineError]) -> list[Mapping[str, str]]:
        """Return the tags that an image's members gave; those of shadow members count not."""
        given = zip(self._members, found, strict=False)
        return [
            one.tags
            for member, one in given
            if member.weight > 0 and isinstance(one, Score | Abstained)
        ]

    def vote(
        self,
        image: JudgedImage,
        found: Sequence[Finding | EngineError],
        timing: Timing,
        fused: list[Box] | None = None,
        seen: Seen = NOTHING_SEEN,
        now: float = 0.0,
    ) -> ImageVotes:
        """Return the tier's votes on an image.

        Args:
            image: The image, with what earlier tiers said of it.
            found: Per member its score, or why there is none.
            timing: What it took.
            fused: The fused boxes of its detectors.
            seen: What rules say of its picture.
            now: The time; only looked at if the image has a deadline.
        """
        raws: list[float | None] = []
        ps: list[float | None] = []
        prior = image.prior
        voted = [vote.probability for vote in prior]
        weights = [vote.weight for vote in prior]
        for score, (calibrate, weight) in zip(found, self._seats, strict=True):
            if not isinstance(score, Score):
                raws.append(None)
                ps.append(None)
                continue
            p = calibrate(score.raw)
            raws.append(score.raw)
            ps.append(p)
            if weight > 0:
                voted.append(p)
                weights.append(weight)
        told = _told(found)
        given: Mapping[str, str] = NO_TAGS
        waits = not self.needed or image.head.deadline_at is None
        if self._plain and waits and seen is NOTHING_SEEN:
            confidence = decision_confidence(self._pool(voted, weights)) if weights else 0.0
            spread = disagreement(voted, weights) if self._router.needs_disagreement else 0.0
            decision = self._router.decide(Facts(confidence, spread), self.down)
        else:
            votes = Votes(self._voters(prior, ps, len(voted)), voted, weights)
            decision, given = self._decided(image, votes, (told, fused, seen), now)
        counted = len(voted) > len(prior)
        revised = self._revised(prior, ps, seen.factors) if seen.factors else None
        return ImageVotes(
            image.head,
            raws,
            ps,
            decision.next_tier,
            decision.reason,
            *timing,
            told.boxes,
            None if counted else _error(found),
            told.texts,
            fused,
            told.tags,
            decision.down,
            dict(given) if given else None,
            revised,
            decision.skipped,
            list(seen.effects) if seen.effects else None,
        )

    def _decided(
        self,
        image: JudgedImage,
        votes: Votes,
        found: "tuple[_Told, list[Box] | None, Seen]",
        now: float,
    ) -> tuple[Decision, Mapping[str, str]]:
        """Return where an image goes, and the tags that rules give it, by all that is known."""
        told, fused, seen = found
        router = self._router
        if seen.factors:
            votes = votes._replace(ps=_multiplied(votes, seen.factors))
        given = self._members_tags(told)
        tags = merged_tags(image.evidence.tags, [seen.tags, *given])
        if self._rules is not None:
            p, told_tags = self._rules.so_far(votes, tags)
            rule_tags = {**seen.tags, **told_tags}
            tags |= told_tags
        else:
            p, rule_tags = self._pool(votes.ps, votes.ws), dict(seen.tags)
        head = image.head
        facts = Facts(
            decision_confidence(p) if votes.ws else 0.0,
            disagreement(votes.ps, votes.ws) if router.needs_disagreement else 0.0,
            tags,
            p,
            losing_votes(votes.ps, p) if router.needs_losing else 0,
            self._boxes(image.evidence, told, fused) if router.needs_boxes else (),
            head.session_id is not None,
            math.inf if head.deadline_at is None else head.deadline_at - now,
        )
        if router.explored(head):
            return router.explore(), {**rule_tags, EXPLORED: "yes"}
        decision = router.decide(facts, self.down, self.needed)
        return decision, {**rule_tags, **decision.gives} if decision.gives else rule_tags

    def _voters(
        self, prior: Sequence[PriorVote], ps: Sequence[float | None], votes: int
    ) -> list[str]:
        """Return whose votes count so far, of so many, in their order."""
        names = [vote.member for vote in prior]
        if len(names) + len(self._counting) == votes:
            return names + self._counting
        own = zip(self._names, ps, self._seats, strict=True)
        return names + [name for name, p, (_, weight) in own if p is not None and weight > 0]

    def _revised(
        self, prior: Sequence[PriorVote], ps: Sequence[float | None], factors: Mapping[str, float]
    ) -> dict[str, float]:
        """Return the probabilities of the members that rules revised."""
        cast = {vote.member: vote.probability for vote in prior}
        cast |= {name: p for name, p in zip(self._names, ps, strict=True) if p is not None}
        return {name: cast[name] * factor for name, factor in factors.items() if name in cast}

    def _members_tags(self, told: "_Told") -> list[Mapping[str, str]]:
        """Return the tags that members gave; those of shadow members decide nothing."""
        if told.tags is None:
            return []
        given = zip(self._seats, told.tags, strict=False)
        return [tags for (_, weight), tags in given if weight > 0 and tags]

    def _boxes(self, evidence: Evidence, told: "_Told", fused: list[Box] | None) -> Sequence[Box]:
        """Return the boxes of earlier tiers and of this one's members that count."""
        if fused is None:
            found = zip(self._members, told.boxes or (), strict=False)
            fused = [box for member, boxes in found if member.weight > 0 for box in boxes]
        return [*evidence.boxes, *fused]

    def failure(
        self,
        row: int,
        prior: Sequence[PriorVote],
        said: ImageVotes,
        found: Sequence[tuple[Finding | EngineError, int]],
    ) -> Failure | None:
        """Return the failure that calls for a dead letter, if there is one.

        Args:
            row: Position of the image in its batch.
            prior: The votes of earlier tiers on it.
            said: The tier's votes on it.
            found: Per member its score, or why there is none, and the calls of its engine with it.
        """
        unvoted = said.error is not None and not prior
        final = unvoted and said.next_tier is None
        faults = [
            (member.name, str(score), tries)
            for (score, tries), member in zip(found, self._members, strict=True)
            # What a shadow member fails on is counted, and harms nobody; a deadline that passed at
            # a member is as little worth a second try as one that passed in the queue.
            if (isinstance(score, ImageError) and not is_late(score) and member.weight > 0)
            # It ends here without a single vote, and not by its own fault.
            or (final and isinstance(score, EngineDownError | OutOfServiceError))
        ]
        if not faults:
            return None
        error = "; ".join(f"{name}: {problem}" for name, problem, _ in faults)
        logger.warning("member_failed", uri=said.head.uri, error=error)
        return Failure(row, faults[0][0], error, max(tries for _, _, tries in faults), final)


def _multiplied(votes: Votes, factors: Mapping[str, float]) -> list[float]:
    """Return the votes' probabilities, by what rules multiply those of some members."""
    return [p * factors.get(name, 1.0) for name, p in zip(votes.names, votes.ps, strict=True)]


def _error(found: Sequence[Finding | EngineError]) -> str | None:
    """Return why the first member gave no vote that gave no tags instead; ``None`` without one."""
    for one in found:
        if isinstance(one, Abstained):
            if not one.tags:
                return f"model_abstained: {one.reason or 'no reason given'}"
        elif not isinstance(one, Score):
            return str(one)
    return None


class _Told(NamedTuple):
    """What members say besides their scores: a list with an entry for each, or ``None``.

    Attributes:
        boxes: What they found.
        texts: What they read or reasoned, or why they gave no vote.
        tags: What they said of the picture in a word each.
    """

    boxes: list[list[Box]] | None = None
    texts: list[str] | None = None
    tags: list[dict[str, str]] | None = None


_NOTHING = _Told()


def _told(found: Sequence[Finding | EngineError]) -> _Told:
    """Return what members say besides their scores."""
    for one in found:
        if not isinstance(one, Score) or one.boxes or one.text or one.tags:
            break
    else:
        return _NOTHING
    boxes: list[list[Box]] = []
    texts: list[str] = []
    tags: list[dict[str, str]] = []
    for one in found:
        if isinstance(one, Score):
            boxes.append(one.boxes)
            texts.append(one.text)
            tags.append({**one.tags})
        else:
            boxes.append([])
            texts.append(one.reason if isinstance(one, Abstained) else "")
            tags.append({**one.tags} if isinstance(one, Abstained) else {})
    return _Told(
        boxes if any(boxes) else None, texts if any(texts) else None, tags if any(tags) else None
    )


def unjudged(head: Head, members: int, error: str, queued: float = 0.0) -> ImageVotes:
    """Return the votes of a tier that could not judge an image: none, an exit, and why."""
    nothing: list[float | None] = [None] * members
    error = error[:MOST_TEXT]  # it may quote a path of another client
    return ImageVotes(head, nothing, nothing, None, "not judged", queued, error=error)
