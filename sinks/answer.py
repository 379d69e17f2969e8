"""Making the one answer of an image from the votes of the tiers it passed. Pure."""

from collections.abc import Callable, Sequence

import msgspec

from schemas.cascade import Cascade
from schemas.records import (
    Answer,
    Flag,
    Head,
    ImageVotes,
    Latency,
    TierLatency,
    Verdict,
    Vote,
    VotesPack,
)

VoteMath = Callable[[Sequence[float], Sequence[float]], Verdict]


class TierVotes(msgspec.Struct, frozen=True, gc=False):
    """What one tier said about one image, with the pack it came in."""

    pack: VotesPack
    votes: ImageVotes


class _Tally:
    """The votes of all tiers an image passed, sorted; one pass over them, as this runs per image.

    Attributes:
        votes: Votes that count.
        ps: Their probabilities.
        ws: Their weights.
        shadows: Votes of members of weight 0.
        missing: Members that did not vote.
        degraded: Whether one of them counts, being no shadow member.
        error: The first error that a tier noted.
    """

    __slots__ = ("degraded", "error", "missing", "ps", "shadows", "votes", "ws")

    def __init__(self, passed: Sequence[TierVotes]) -> None:
        self.votes: list[Vote] = []
        self.ps: list[float] = []
        self.ws: list[float] = []
        self.shadows: list[Vote] = []
        self.missing: list[str] = []
        self.degraded = False
        self.error: str | None = None
        for voted in passed:
            self.error = self.error or voted.votes.error
            self._add(voted.pack, voted.votes)

    def _add(self, pack: VotesPack, said: ImageVotes) -> None:
        tier, boxes = pack.tier, said.boxes
        for i, (run, raw, p) in enumerate(zip(pack.runs, said.raw, said.probability, strict=True)):
            weight = run.weight
            if raw is None or p is None:
                self.missing.append(run.member)
                self.degraded = self.degraded or weight > 0
                continue
            vote = Vote(
                tier,
                run.member,
                run.model_version,
                raw,
                p,
                weight,
                run.latency,
                run.batch_size,
                boxes[i] if boxes else [],
                run.calibrated,
            )
            if weight > 0:
                self.votes.append(vote)
                self.ps.append(p)
                self.ws.append(weight)
            else:
                self.shadows.append(vote)


class Answerer:
    """Turns the votes of the tiers an image passed into its terminal answer.

    Args:
        cascade: For its threshold.
        vote_math: The pool of that cascade.
    """

    def __init__(self, cascade: Cascade, vote_math: VoteMath) -> None:
        self._threshold = cascade.threshold
        self._vote_math = vote_math

    def answer(
        self, passed: Sequence[TierVotes], *, first_at: float, now: float, complete: bool = True
    ) -> Answer:
        """Return the answer.

        Args:
            passed: The tiers that voted, in cascade order; not empty.
            first_at: When the first of these votes arrived at the consensus.
            now: The time of the answer.
            complete: False when a tier that the image was escalated to has not voted.
        """
        tally = _Tally(passed)
        last = passed[-1]
        head = last.votes.head
        latency = _latency(passed, head, first_at, now)
        if not tally.votes:
            return self._failed(tally, last, latency, now)
        late = head.deadline_at is not None and now > head.deadline_at
        whole = complete and not late and last.votes.error is None
        verdict = self._vote_math(tally.ps, tally.ws)
        # By position: names cost half a microsecond per image, a twentieth of the sink's time.
        return Answer(
            head,
            "answered" if whole else "partial",
            latency,
            "roadwork" if verdict.probability >= self._threshold else "none",
            verdict.probability,
            verdict.confidence,
            self._threshold,
            last.pack.tier,
            tally.votes,
            tally.shadows,
            verdict.disagreement,
            verdict.losing,
            self._flags(tally, whole=whole),
            tally.missing,
            tally.error,
            last.pack.cascade,
            last.pack.cascade_hash,
            now,
        )

    def _flags(self, tally: _Tally, *, whole: bool) -> list[Flag]:
        flags: list[Flag] = [] if whole else ["partial"]
        if tally.degraded:
            flags.append("degraded")
        if tally.shadows:
            flags.append("shadow")
        return flags

    def _failed(self, tally: _Tally, last: TierVotes, latency: Latency, now: float) -> Answer:
        return Answer(
            head=last.votes.head,
            status="failed",
            threshold=self._threshold,
            exit_tier=last.pack.tier,
            shadow_votes=tally.shadows,
            flags=["failed"],
            missing=tally.missing,
            error=tally.error or "model_failed: no member voted",
            cascade=last.pack.cascade,
            cascade_hash=last.pack.cascade_hash,
            answered_at=now,
            latency=latency,
        )


def _latency(passed: Sequence[TierVotes], head: Head, first_at: float, now: float) -> Latency:
    total = now - head.submitted_at if head.submitted_at else 0.0
    joining = now - first_at
    return Latency(
        max(0.0, total),
        max(0.0, joining),
        [
            TierLatency(
                voted.pack.tier, voted.votes.queued, voted.votes.decoding, voted.votes.inferring
            )
            for voted in passed
        ],
    )
