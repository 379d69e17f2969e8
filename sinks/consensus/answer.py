"""Making the one answer of an image from the votes of the tiers it passed, and counting. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import ImageError
from roadstream.schemas.histogram import (
    ARCHIVE_BOUNDS,
    LATENCY_BOUNDS,
    PROBABILITY_BOUNDS,
    Histogram,
)
from roadstream.schemas.records.answer import (
    Answer,
    AnswerTier,
    Flag,
    Label,
    Status,
    VoteMath,
    tags_of,
)
from roadstream.schemas.records.bounds import MOST_TEXT
from roadstream.schemas.records.image import Lane
from roadstream.schemas.records.votes import NO_TAGS, ImageVotes, VotesPack

LATE = str(ImageError("expired", "the deadline passed before any member voted"))
# What a tier says of an image that it has not looked at.
_UNJUDGED = ("expired:", "version_unavailable:")
# Shares of weights are compared but for their rounding.
_ROUNDING = 1e-9


class Ending(NamedTuple):
    """Why an image is answered.

    Attributes:
        kind: Its path has ended, its deadline has passed, it waited in vain for votes that nobody
            knows to come, or for a tier for as long as the cascade allows.
        awaited: The tier that it waited for; ``None`` at the end of its path.
        patience: Seconds that it waited, where the cascade limits them.
    """

    kind: Literal["complete", "expired", "orphan", "given up"]
    awaited: str | None = None
    patience: float = 0.0

    @property
    def error(self) -> str | None:
        """Why the answer lacks a tier, where nothing else says so."""
        if self.kind != "given up":
            return None
        return f"tier_unavailable: no votes of tier {self.awaited} within {self.patience:g} s"


COMPLETE = Ending("complete")


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
        names: Members of the votes that count.
        ps: Their probabilities, as rules revised them.
        effects: What rules did at the tiers, in words.
        ws: Their weights.
        shadow: Whether a shadow member voted.
        absent: Weight of the members that did not vote, and gave no tags instead.
        error: The first error that a tier noted.
        down: Tiers that nobody worked for, as routes found.
        skipped: Tiers that there was no time for.
        whole: Whether there is no error, no tier down and no member without a vote.
    """

    __slots__ = (
        "absent", "down", "effects", "error", "names", "ps", "shadow", "skipped", "tiers",
        "whole", "ws",
    )  # fmt: skip

    def __init__(self, passed: Sequence[TierVotes]) -> None:
        self.tiers: list[AnswerTier] = []
        self.names: list[str] = []
        self.ps: list[float] = []
        self.ws: list[float] = []
        self.shadow, self.whole, self.absent = False, True, 0.0
        self.error: str | None = None
        self.down: list[str] = []
        self.skipped: list[str] = []
        self.effects: list[str] = []
        revised: dict[str, float] = {}
        for voted in passed:
            pack, votes = voted.pack, voted.votes
            if votes.error is not None or votes.down or votes.skipped:
                self.whole = False
                self.error = self.error or votes.error
                self.down += votes.down or ()
                self.skipped += votes.skipped or ()
            if votes.effects:
                self.effects += votes.effects
            if votes.revised:
                revised |= votes.revised
            self._count(pack, votes)
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
                    votes.tags,
                    votes.reason,
                    votes.given,
                    votes.revised,
                )
            )
        if revised:
            self._revise(revised)

    def _revise(self, revised: Mapping[str, float]) -> None:
        for i, name in enumerate(self.names):
            if (p := revised.get(name)) is not None:
                self.effects.append(f"probability of {name}: {self.ps[i]:.3g} → {p:.3g}")
                self.ps[i] = p

    def _count(self, pack: VotesPack, votes: ImageVotes) -> None:
        missed = False
        for run, p in zip(pack.runs, votes.probability, strict=True):
            weight = run.weight
            if p is None:
                missed = True
            elif weight > 0:
                self.names.append(run.member)
                self.ps.append(p)
                self.ws.append(weight)
            else:
                self.shadow = True
        if missed:
            self._miss(pack, votes)

    def _miss(self, pack: VotesPack, votes: ImageVotes) -> None:
        """Add up who is absent: not who gave tags and no score, which has done its work."""
        self.whole = False
        tags = votes.tags or [{}] * len(pack.runs)
        for run, p, given in zip(pack.runs, votes.probability, tags, strict=True):
            if p is None and not given:
                self.absent += run.weight

    def reaches(self, quorum: float) -> bool:
        """Return whether so large a share of the weight has voted."""
        voted = sum(self.ws)
        return self.absent == 0 or (
            quorum < 1 and voted / (voted + self.absent) >= quorum - _ROUNDING
        )


class _Lacking(NamedTuple):
    """What an answer lacks.

    Attributes:
        tiers: The tiers that should have judged the image and did not, in cascade order.
        degraded: Whether it is the worse for what it lacks.
        error: What went wrong, the reason for its status first.
    """

    tiers: list[str]
    degraded: bool
    error: str | None


_NOTHING = _Lacking([], degraded=False, error=None)


class Answerer:
    """Turns the votes of the tiers an image passed into its terminal answer.

    Args:
        cascade: For its threshold, its quorum and its tiers.
        vote_math: How its votes become a verdict.
        note: An error that every answer is to carry, as one that is ``degraded``.
    """

    def __init__(self, cascade: Cascade, vote_math: VoteMath, note: str | None = None) -> None:
        self._threshold, self._quorum = cascade.threshold, cascade.pool.quorum
        self._ruled = cascade.ruled
        self._order = {name: i for i, name in enumerate(cascade.tier_names)}
        self._vote_math, self.note = vote_math, note

    def answer(
        self,
        passed: Sequence[TierVotes],
        *,
        first_at: float,
        now: float,
        ending: Ending = COMPLETE,
    ) -> Answer:
        """Return the answer.

        After its deadline, an image with a vote that counts is ``partial``; one without any is
        ``failed``, with the fault ``expired``, unless it was judged in full and has another one.

        Args:
            passed: The tiers that voted, in cascade order; not empty.
            first_at: When the first of these votes arrived at the consensus.
            now: The time of the answer.
            ending: Why it is answered.
        """
        counted = _CountedVotes(passed)
        last = passed[-1]
        head = last.votes.head
        took = now - head.submitted_at if head.submitted_at else 0.0
        times = Times(now, max(0.0, took), now - first_at if now > first_at else 0.0)
        lacking = _NOTHING
        if not counted.whole or ending is not COMPLETE or self.note is not None:
            lacking = self._lacking(counted, passed, ending)
        if not counted.ps:
            expired = LATE if ending.kind == "expired" else None
            return self._failed(counted, last, times, lacking, expired)
        late = head.deadline_at is not None and now > head.deadline_at
        whole = ending is COMPLETE and not late and last.votes.error is None and not counted.skipped
        tags = tags_of(counted.tiers) if self._ruled else NO_TAGS
        verdict = self._vote_math(counted, tags)
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
            _flags(lacking, counted, whole=whole),
            lacking.error,
            last.pack.cascade,
            last.pack.cascade_hash,
            times.answered_at,
            times.took,
            times.joining,
            lacking.tiers,
            [*counted.effects, *verdict.effects] if counted.effects else verdict.effects,
        )

    def _lacking(
        self, counted: _CountedVotes, passed: Sequence[TierVotes], ending: Ending
    ) -> _Lacking:
        missing = {*counted.down, *counted.skipped, *_unjudged(passed)}
        if ending.awaited is not None:
            missing.add(ending.awaited)
        last = len(self._order)
        degraded = (
            ending.kind == "given up"
            or bool(counted.down)
            or self.note is not None
            or not counted.reaches(self._quorum)
        )
        return _Lacking(
            sorted(missing, key=lambda name: (self._order.get(name, last), name)),
            degraded,
            _joined(ending.error, self.note, counted.error),
        )

    def _failed(
        self,
        counted: _CountedVotes,
        last: TierVotes,
        times: Times,
        lacking: _Lacking,
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
            error=late or lacking.error or "model_failed: no member voted",
            cascade=last.pack.cascade,
            cascade_hash=last.pack.cascade_hash,
            answered_at=times.answered_at,
            took=times.took,
            joining=times.joining,
            missing_tiers=lacking.tiers,
        )


def _unjudged(passed: Sequence[TierVotes]) -> Iterator[str]:
    """Yield the tiers that came to an image too late, or had not its version."""
    for voted in passed:
        error = voted.votes.error
        if error is not None and error.startswith(_UNJUDGED):
            yield voted.pack.tier


def _joined(*errors: str | None) -> str | None:
    """Return errors as one that an answer can hold; the first is the fault."""
    return "; ".join(error for error in errors if error is not None)[:MOST_TEXT] or None


def _flags(lacking: _Lacking, counted: _CountedVotes, *, whole: bool) -> list[Flag]:
    flags: list[Flag] = [] if whole else ["partial"]
    if lacking.degraded:
        flags.append("degraded")
    if counted.shadow:
        flags.append("shadow")
    return flags


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
