"""Making the one answer of an image from the votes of the tiers it passed, and counting. Pure."""

from collections.abc import Callable, Sequence

import msgspec

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import ImageError
from roadstream.schemas.histogram import (
    ARCHIVE_BOUNDS,
    LATENCY_BOUNDS,
    PROBABILITY_BOUNDS,
    Histogram,
)
from roadstream.schemas.records.answer import Answer, AnswerTier, Flag, Label, Status, Verdict
from roadstream.schemas.records.image import Lane
from roadstream.schemas.records.votes import ImageVotes, VotesPack

LATE = str(ImageError("expired", "the deadline passed before any member voted"))

VoteMath = Callable[[Sequence[float], Sequence[float]], Verdict]


class Times(msgspec.Struct, frozen=True, gc=False):
    """When an answer was given, and after how many seconds: as the answer has them."""

    answered_at: float
    took: float
    joining: float


class TierVotes(msgspec.Struct, frozen=True, gc=False):
    """A tier's votes for one image, with the pack they came in."""

    pack: VotesPack
    votes: ImageVotes


class _CountedVotes:
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
        counted = _CountedVotes(passed)
        last = passed[-1]
        head = last.votes.head
        took = now - head.submitted_at if head.submitted_at else 0.0
        times = Times(now, max(0.0, took), now - first_at if now > first_at else 0.0)
        if not counted.ps:
            return self._failed(counted, last, times, LATE if expired else None)
        late = head.deadline_at is not None and now > head.deadline_at
        whole = complete and not late and last.votes.error is None
        verdict = self._vote_math(counted.ps, counted.ws)
        # By position: names cost half a microsecond per image, a twentieth of the sink's time.
        return Answer(
            head,
            "answered" if whole else "partial",
            "roadwork" if verdict.probability >= self._threshold else "none",
            verdict.probability,
            verdict.confidence,
            self._threshold,
            last.pack.tier,
            counted.tiers,
            verdict.disagreement,
            verdict.losing,
            self._flags(counted, whole=whole),
            counted.error,
            last.pack.cascade,
            last.pack.cascade_hash,
            times.answered_at,
            times.took,
            times.joining,
        )

    def _flags(self, counted: _CountedVotes, *, whole: bool) -> list[Flag]:
        flags: list[Flag] = [] if whole else ["partial"]
        if counted.degraded:
            flags.append("degraded")
        if counted.shadow:
            flags.append("shadow")
        return flags

    def _failed(
        self,
        counted: _CountedVotes,
        last: TierVotes,
        times: Times,
        late: str | None,
    ) -> Answer:
        said = last.votes.error
        if late is None and said is not None and said.startswith("expired:"):
            late = said
        return Answer(
            head=last.votes.head,
            status="failed",
            threshold=self._threshold,
            exit_tier=last.pack.tier,
            tiers=counted.tiers,
            flags=["failed"],
            error=late or counted.error or "model_failed: no member voted",
            cascade=last.pack.cascade,
            cascade_hash=last.pack.cascade_hash,
            answered_at=times.answered_at,
            took=times.took,
            joining=times.joining,
        )


# All that there are, so that each is shown from the beginning, as 0.
_KINDS: tuple[tuple[Status, Label | None], ...] = (
    ("answered", "roadwork"),
    ("answered", "none"),
    ("partial", "roadwork"),
    ("partial", "none"),
    ("failed", None),
)


class AnswerStats:
    """Counters of the answers that were given since the process began.

    Attributes:
        given: Answers by status and label.
        probability: Probabilities of roadwork, in [0, 1], of the answers that have one.
        joining: Seconds from an image's first votes to its answer, of images that had to wait.
        latency: Per lane, seconds from submission to answer, of images that tell when they were
            submitted.
    """

    def __init__(self) -> None:
        self.given = dict.fromkeys(_KINDS, 0)
        self.probability = Histogram(PROBABILITY_BOUNDS)
        self.joining = Histogram()
        self.latency: dict[Lane, Histogram] = {
            "live": Histogram(LATENCY_BOUNDS),
            "archive": Histogram(ARCHIVE_BOUNDS),
        }

    @property
    def total(self) -> int:
        """Number of answers given."""
        return sum(self.given.values())

    def count(self, answer: Answer) -> None:
        """Count an answer."""
        self.given[answer.status, answer.label] += 1
        if answer.probability is not None:
            self.probability.observe(answer.probability)
        if answer.joining:
            self.joining.observe(answer.joining)
        head = answer.head
        if head.submitted_at > 0:
            self.latency[head.lane].observe(answer.took)
