"""Making the one answer of an image from the votes of the tiers it passed. Pure."""

from collections.abc import Callable, Sequence

import msgspec

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import ImageError
from roadstream.schemas.records.answer import Answer, AnswerTier, Flag, Verdict
from roadstream.schemas.records.votes import ImageVotes, VotesPack

LATE = str(ImageError("expired", "the deadline passed before any member voted"))

VoteMath = Callable[[Sequence[float], Sequence[float]], Verdict]


class TierVotes(msgspec.Struct, frozen=True, gc=False):
    """A tier's votes for one image, with the pack they came in."""

    pack: VotesPack
    votes: ImageVotes


class _Tally:
    """The votes of all tiers an image passed; one pass over them, as this runs per image.

    Attributes:
        tiers: The tiers, as the answer carries them.
        ps: Probabilities of the votes that count.
        ws: Their weights.
        shadow: Whether a shadow member voted.
        degraded: Whether a member that counts did not vote.
        error: The first error that a tier noted.
    """

    __slots__ = ("degraded", "error", "ps", "shadow", "tiers", "ws")

    def __init__(self, passed: Sequence[TierVotes]) -> None:
        self.tiers: list[AnswerTier] = []
        self.ps: list[float] = []
        self.ws: list[float] = []
        self.shadow = self.degraded = False
        self.error: str | None = None
        for voted in passed:
            self.error = self.error or voted.votes.error
            self._add(voted.pack, voted.votes)

    def _add(self, pack: VotesPack, votes: ImageVotes) -> None:
        for run, p in zip(pack.runs, votes.probability, strict=True):
            weight = run.weight
            if p is None:
                self.degraded = self.degraded or weight > 0
            elif weight > 0:
                self.ps.append(p)
                self.ws.append(weight)
            else:
                self.shadow = True
        self.tiers.append(
            AnswerTier(
                pack.tier,
                pack.runs,
                votes.raw,
                votes.probability,
                votes.queued,
                votes.decoding,
                votes.inferring,
                votes.boxes,
                votes.texts,
                votes.fused,
            )
        )


class Answerer:
    """Turns the votes of the tiers an image passed into its terminal answer.

    Args:
        cascade: For its threshold.
        vote_math: The pool of that cascade.
    """

    def __init__(self, cascade: Cascade, vote_math: VoteMath) -> None:
        self._threshold, self.cascade_hash = cascade.threshold, cascade.hash
        self._vote_math = vote_math

    def answer(
        self,
        passed: Sequence[TierVotes],
        *,
        first_at: float,
        now: float,
        complete: bool = True,
        expired: bool = False,
    ) -> Answer:
        """Return the answer.

        After its deadline, an image with a vote that counts is ``partial``; one without any is
        ``failed``, with the fault ``expired``, unless it was judged in full and has another one.

        Args:
            passed: The tiers that voted, in cascade order; not empty.
            first_at: When the first of these votes arrived at the consensus.
            now: The time of the answer.
            complete: False when a tier that the image was escalated to has not voted.
            expired: Whether it goes out so since its deadline has passed.
        """
        tally = _Tally(passed)
        last = passed[-1]
        head = last.votes.head
        took = now - head.submitted_at if head.submitted_at else 0.0
        times = (now, max(0.0, took), now - first_at if now > first_at else 0.0)
        if not tally.ps:
            return self._failed(tally, last, times, LATE if expired else None)
        late = head.deadline_at is not None and now > head.deadline_at
        whole = complete and not late and last.votes.error is None
        verdict = self._vote_math(tally.ps, tally.ws)
        # By position: names cost half a microsecond per image, a twentieth of the sink's time.
        return Answer(
            head,
            "answered" if whole else "partial",
            "roadwork" if verdict.probability >= self._threshold else "none",
            verdict.probability,
            verdict.confidence,
            self._threshold,
            last.pack.tier,
            tally.tiers,
            verdict.disagreement,
            verdict.losing,
            self._flags(tally, whole=whole),
            tally.error,
            last.pack.cascade,
            last.pack.cascade_hash,
            *times,
        )

    def _flags(self, tally: _Tally, *, whole: bool) -> list[Flag]:
        flags: list[Flag] = [] if whole else ["partial"]
        if tally.degraded:
            flags.append("degraded")
        if tally.shadow:
            flags.append("shadow")
        return flags

    def _failed(
        self,
        tally: _Tally,
        last: TierVotes,
        times: tuple[float, float, float],
        late: str | None,
    ) -> Answer:
        answered_at, took, joining = times
        said = last.votes.error
        if late is None and said is not None and said.startswith("expired:"):
            late = said
        return Answer(
            head=last.votes.head,
            status="failed",
            threshold=self._threshold,
            exit_tier=last.pack.tier,
            tiers=tally.tiers,
            flags=["failed"],
            error=late or tally.error or "model_failed: no member voted",
            cascade=last.pack.cascade,
            cascade_hash=last.pack.cascade_hash,
            answered_at=answered_at,
            took=took,
            joining=joining,
        )
