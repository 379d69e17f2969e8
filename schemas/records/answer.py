"""The answer to an image."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import msgspec

from roadstream.schemas.records.bounds import (
    Count,
    NonNegative,
    Raw,
    Seconds,
    Share,
    Tags,
    Text,
    Time,
    Word,
)
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import NO_TAGS, Box, ImageVotes, MemberRun, merged_tags

Status = Literal["answered", "partial", "failed"]
Label = Literal["roadwork", "none"]
Flag = Literal["partial", "degraded", "failed", "shadow"]


def uneven(said: "ImageVotes | AnswerTier", runs: int) -> str | None:
    """Return which list of ``said`` does not hold an entry per member run; ``None`` if all do."""
    if len(said.raw) != runs:
        return "raw"
    if len(said.probability) != runs:
        return "probability"
    if said.boxes is not None and len(said.boxes) != runs:
        return "boxes"
    if said.texts is not None and len(said.texts) != runs:
        return "texts"
    if said.tags is not None and len(said.tags) != runs:
        return "tags"
    return None


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What votes amount to: the vote math hands it to whoever writes answers.

    Attributes:
        probability: Pooled probability of roadwork in [0, 1].
        confidence: ``2·|probability − 0.5|``.
        disagreement: Weighted standard deviation of the votes' log-odds.
        losing: Number of votes on the other side of 0.5.
        effects: What rules did to the probability, in words.
        tags: Tags that rules give by it.
    """

    probability: float
    confidence: float
    disagreement: float
    losing: int
    effects: list[str] = []
    tags: Mapping[str, str] = NO_TAGS


class CountedVotes(Protocol):
    """Votes that count, as columns of equal length."""

    @property
    def names(self) -> Sequence[str]:
        """Their members."""

    @property
    def ps(self) -> Sequence[float]:
        """Calibrated probabilities in [0, 1]."""

    @property
    def ws(self) -> Sequence[float]:
        """Weights ≥ 0."""


VoteMath = Callable[[CountedVotes, Mapping[str, str]], Verdict]
"""Votes, and the image's tags by name, become a verdict."""


class Vote(NamedTuple):
    """One member's vote as people see it; made from an answer's tiers when asked for.

    Attributes:
        tier: Tier the member belongs to.
        member: Its name in the cascade file.
        model_version: Version of its weights or rules.
        raw: Raw score, as the engine gave it.
        probability: Calibrated probability of roadwork in [0, 1].
        weight: Weight in the pool; 0 for a shadow member.
        latency: Seconds its engine took for the batch.
        batch_size: Images in that batch.
        boxes: Boxes it found.
        calibrated: False for a member without a fitted calibrator.
        text: What it read or reasoned.
        tags: What it said of the picture in a word each, by name.
    """

    tier: str
    member: str
    model_version: str
    raw: float
    probability: float
    weight: float
    latency: float
    batch_size: int
    boxes: Sequence[Box] = ()
    calibrated: bool = True
    text: str = ""
    tags: Mapping[str, str] = NO_TAGS


class TierLatency(NamedTuple):
    """Seconds an image spent at one tier."""

    tier: str
    queued: float
    decoding: float
    inferring: float


class Latency(NamedTuple):
    """Where an answer's time went, in seconds.

    Attributes:
        total: From ``submitted_at`` to the answer.
        joining: From its first votes' arrival at the consensus to the answer.
        tiers: Per tier passed, in order.
    """

    total: float
    joining: float
    tiers: Sequence[TierLatency]


class AnswerTier(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one tier said about an answered image.

    The votes stay as they came in their pack, parallel to the member runs: making an object of each
    would cost more than the join, the pool and the decision together.

    Attributes:
        tier: Its name.
        runs: The member runs over the image's batch.
        raw: Raw score per run; ``None`` where the member gave none.
        probability: Calibrated probability per run, likewise.
        queued: Seconds from arrival in the tier's topic until its batch began.
        decoding: Seconds spent reading and decoding its batch.
        inferring: Seconds from then until its scores were there.
        boxes: Boxes per run, if any member found some.
        texts: What each run's member read or reasoned, if any did.
        fused: The boxes of its detectors as one set, if the tier fuses them.
        tags: The tags that each run's member gave, if any did.
        reason: The route by which the image left it.
        given: Tags that the cascade's rules gave there, if any did.
        revised: What probabilities of members became, where a rule changed them there.
    """

    tier: Word
    runs: list[MemberRun]
    raw: list[Raw | None]
    probability: list[Share | None]
    queued: Seconds = 0.0
    decoding: Seconds = 0.0
    inferring: Seconds = 0.0
    boxes: list[list[Box]] | None = None
    texts: list[Text] | None = None
    fused: list[Box] | None = None
    tags: list[Tags] | None = None
    reason: Text = ""
    given: Tags | None = None
    revised: dict[Word, Share] | None = None

    def votes(self) -> Iterator[Vote]:
        """Yield the votes of the members that gave one."""
        boxes = self.boxes or [[]] * len(self.runs)
        texts = self.texts or [""] * len(self.runs)
        tagged: Sequence[Mapping[str, str]] = self.tags or [NO_TAGS] * len(self.runs)
        columns = zip(self.runs, self.raw, self.probability, boxes, texts, tagged, strict=True)
        for run, raw, p, found, text, tags in columns:
            if raw is not None and p is not None:
                yield Vote(
                    self.tier,
                    run.member,
                    run.model_version,
                    raw,
                    p,
                    run.weight,
                    run.latency,
                    run.batch_size,
                    found,
                    run.calibrated,
                    text,
                    tags,
                )


class Answer(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    tag_field="schema",
    tag="answer.v1",
    gc=False,
):
    """The one terminal answer of an image, on ``answers``.

    Attributes:
        head: The image.
        status: ``answered``, ``partial`` (its deadline passed, or tiers are missing) or ``failed``
            (no member voted).
        label: ``roadwork``, ``none``; ``None`` when failed.
        probability: Pooled probability of roadwork in [0, 1]; ``None`` when failed.
        confidence: ``2·|probability − 0.5|`` in [0, 1]; ``None`` when failed.
        threshold: Probability from which the label is ``roadwork``.
        exit_tier: Last tier that voted.
        tiers: The tiers passed, in order, with every vote; see ``votes``, ``shadow_votes``,
            ``missing`` and ``latency`` for people's views of them.
        disagreement: Weighted standard deviation of the votes' log-odds.
        losing: Number of votes on the other side of the answer.
        flags: Any of ``partial``, ``degraded``, ``failed``, ``shadow``.
        error: What went wrong, for a person; the part before the colon is the fault.
        cascade: Name of the cascade.
        cascade_hash: Hash of its file and weights.
        answered_at: When the answer was made.
        took: Seconds from ``submitted_at`` to the answer.
        joining: Seconds from its first votes' arrival at the consensus to the answer.
        missing_tiers: Tiers that would have judged the image, and that nobody worked for, or that
            were not done with it in time.
        effects: What the cascade's rules did to its probability, one by one.
    """

    head: Head
    status: Status
    label: Label | None = None
    probability: Share | None = None
    confidence: Share | None = None
    threshold: Share = 0.5
    exit_tier: Word | None = None
    tiers: list[AnswerTier] = []
    disagreement: NonNegative | None = None
    losing: Count = 0
    flags: list[Flag] = []
    error: Text | None = None
    cascade: Word = ""
    cascade_hash: Word = ""
    answered_at: Time = 0.0
    took: Seconds = 0.0
    joining: Seconds = 0.0
    missing_tiers: list[Word] = []
    effects: list[Text] = []

    @property
    def votes(self) -> list[Vote]:
        """Every vote that counted, in tier order."""
        return [vote for tier in self.tiers for vote in tier.votes() if vote.weight > 0]

    @property
    def shadow_votes(self) -> list[Vote]:
        """Votes of members of weight 0, apart."""
        return [vote for tier in self.tiers for vote in tier.votes() if vote.weight <= 0]

    @property
    def losing_members(self) -> list[str]:
        """Members whose votes counted and lie on the other side of 0.5 than the answer."""
        if self.probability is None:
            return []
        yes = self.probability >= 0.5
        return [
            run.member
            for tier in self.tiers
            for run, p in zip(tier.runs, tier.probability, strict=True)
            if p is not None and (p >= 0.5) != yes and run.weight > 0
        ]

    @property
    def way(self) -> str:
        """The tiers it passed, each with the route by which it left: ``tier: route → tier: …``."""
        return " → ".join([f"{t.tier}: {t.reason}" if t.reason else t.tier for t in self.tiers])

    @property
    def missing(self) -> list[str]:
        """Members that should have voted and gave neither a vote nor tags."""
        return [
            run.member
            for tier in self.tiers
            for i, (run, p) in enumerate(zip(tier.runs, tier.probability, strict=True))
            if p is None and not (tier.tags and tier.tags[i])
        ]

    @property
    def tags(self) -> dict[str, str]:
        """What members and rules said of it in a word each, by name; a later tier's word holds."""
        return tags_of(self.tiers)

    @property
    def latency(self) -> Latency:
        """Where the time went."""
        tiers = [TierLatency(t.tier, t.queued, t.decoding, t.inferring) for t in self.tiers]
        return Latency(self.took, self.joining, tiers)


def tags_of(tiers: Iterable[AnswerTier]) -> dict[str, str]:
    """Return an image's tags after the tiers that it passed; those of shadow members count not."""
    tags: dict[str, str] = {}
    for tier in tiers:
        if tier.tags or tier.given:
            told = zip(tier.runs, tier.tags or (), strict=False)
            said = [given for run, given in told if run.weight > 0]
            tags = merged_tags(tags, [tier.given or NO_TAGS, *said])
    return tags
