"""From scores to votes: calibrate, pool with the votes so far, route. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import NamedTuple

import structlog

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import EngineDownError, EngineError, ImageError, OutOfServiceError
from roadstream.schemas.records.bounds import MOST_TEXT
from roadstream.schemas.records.dead_letters import DeadLetterReason
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import NO_TAGS, Box, ImageVotes, PriorVote, merged_tags
from roadstream.stages.inference import Abstained, Finding, Score, is_late
from roadstream.stages.voting.fusion import fusion_of
from roadstream.stages.voting.route import NONE_DOWN, Router
from roadstream.stages.voting.vote import calibrator, decision_confidence, disagreement, pooled

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
        cascade: For its pool.
        tier: Name of the tier.

    Attributes:
        targets: Tiers that images may be escalated to from here.
        watched: Tiers of which it matters whether anybody works for them.
        down: Those that nobody works for now. Another thread may set it at any time.
    """

    def __init__(self, cascade: Cascade, tier: str) -> None:
        self._members = [*cascade.tier(tier).members, *cascade.absent.get(tier, ())]
        self._seats = [(calibrator(one.calibration), one.weight) for one in self._members]
        self._router = Router(cascade, tier)
        self._pool = pooled(cascade.pool)
        self._fusion = fusion_of(cascade.tier(tier))
        self.targets, self.watched = self._router.targets, self._router.watched
        self.down = NONE_DOWN

    def fused(
        self, columns: Sequence[Sequence[Finding | EngineError]]
    ) -> Iterator[list[Box] | None]:
        """Yield the fused boxes per image, given per member its findings; ``None`` if not asked."""
        return repeat(None) if self._fusion is None else iter(self._fusion.fuse(columns))

    def vote(
        self,
        head: Head,
        prior: Sequence[PriorVote],
        found: Sequence[Finding | EngineError],
        timing: Timing,
        fused: list[Box] | None = None,
        earlier_tags: Mapping[str, str] = NO_TAGS,
    ) -> ImageVotes:
        """Return the tier's votes on an image.

        Args:
            head: The image.
            prior: The votes of earlier tiers.
            found: Per member its score, or why there is none.
            timing: What it took.
            fused: The fused boxes of its detectors.
            earlier_tags: What earlier tiers said of it in a word each.
        """
        raws: list[float | None] = []
        ps: list[float | None] = []
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
        confidence = decision_confidence(self._pool(voted, weights)) if weights else 0.0
        spread = disagreement(voted, weights) if self._router.needs_disagreement else 0.0
        tags = self._merged(earlier_tags, told) if self._router.needs_tags else NO_TAGS
        decision = self._router.decide(confidence, spread, tags, self.down)
        counted = len(voted) > len(prior)
        return ImageVotes(
            head,
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
        )

    def _merged(self, earlier: Mapping[str, str], told: "_Told") -> Mapping[str, str]:
        """Return the image's tags; those of shadow members decide nothing."""
        given = zip(self._members, told.tags or (), strict=False)
        return merged_tags(earlier, [tags for member, tags in given if member.weight > 0])

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
    boxes = [one.boxes if isinstance(one, Score) else [] for one in found]
    texts = [_text(one) for one in found]
    tags = [dict(one.tags) if isinstance(one, Score | Abstained) else {} for one in found]
    return _Told(
        boxes if any(boxes) else None, texts if any(texts) else None, tags if any(tags) else None
    )


def _text(one: Finding | EngineError) -> str:
    if isinstance(one, Score):
        return one.text
    return one.reason if isinstance(one, Abstained) else ""


def unjudged(head: Head, members: int, error: str, queued: float = 0.0) -> ImageVotes:
    """Return the votes of a tier that could not judge an image: none, an exit, and why."""
    nothing: list[float | None] = [None] * members
    error = error[:MOST_TEXT]  # it may quote a path of another client
    return ImageVotes(head, nothing, nothing, None, "not judged", queued, error=error)
