"""The records on the log: image, escalation, votes, answer, dead letter.

Every top-level record carries its schema and version in the field ``schema``. A field is only ever
added with a default, so old bytes still decode; anything else is a new version with a new tag.
Times are seconds since the epoch (``…_at``) or plain seconds, as float. Numbers and strings are
bounded by their types, see ``roadstream.schemas.bounds``: what lies outside does not decode.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec

from roadstream.schemas.bounds import (
    Coordinate,
    Count,
    Digest,
    ImageId,
    Latitude,
    Longitude,
    NonNegative,
    Raw,
    Seconds,
    Share,
    Text,
    Time,
    Uri,
    Word,
)
from roadstream.schemas.errors import ImageFault

Lane = Literal["live", "archive"]
LANES: tuple[Lane, ...] = ("live", "archive")
Status = Literal["answered", "partial", "failed"]
Label = Literal["roadwork", "none"]
Flag = Literal["partial", "degraded", "failed", "shadow"]


class Head(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Who an image is: everything about it except its pixels.

    Attributes:
        image_id: Identity of the image; two records with one id are one image.
        uri: Where the picture came from, exactly as the user gave it.
        session_id: The drive or folder it belongs to, if any.
        frame_index: Position in that session, counted from 0.
        captured_at: Seconds into the video, or epoch seconds when the camera says so.
        latitude: Degrees, −90 to 90, if known.
        longitude: Degrees, −180 to 180, if known.
        lane: ``live`` (someone waits) or ``archive`` (throughput matters).
        submitted_at: When the producer sent it; the time of the record if it does not say.
        deadline_at: When an answer is no longer worth anything; ``None`` for never. It passes: the
            answer is ``partial`` with the votes so far, or ``failed``, ``expired``, without any.
        run_id: The job that asked, so that it finds its answers on a shared log.
        sequence: Position in that job's input order, counted from 0.
        content_hash: First 16 bytes of the SHA-256 of the picture's bytes; for a video's frame, of
            what its id tells, as encoders differ. Two records of one id
            with different hashes are two pictures: the second is refused.
    """

    image_id: ImageId
    uri: Uri = ""
    session_id: Uri | None = None
    frame_index: Count | None = None
    captured_at: Time | None = None
    latitude: Latitude | None = None
    longitude: Longitude | None = None
    lane: Lane = "archive"
    submitted_at: Time = 0.0
    deadline_at: Time | None = None
    run_id: Word | None = None
    sequence: Count | None = None
    content_hash: Digest | None = None

    @property
    def key(self) -> bytes:
        """Record key: all frames of a drive, and all votes of an image, share a partition."""
        return (self.session_id or self.image_id).encode()


class Inline(msgspec.Struct, frozen=True, tag_field="kind", tag="inline", gc=False):
    """The encoded picture itself (JPEG, PNG, WebP, …), as bytes; in JSON as base64."""

    data: bytes


class Reference(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="reference", gc=False
):
    """A picture kept outside the log, by file path.

    Attributes:
        path: Absolute path of the file; as a URI, ``file:///…``, where it is not UTF-8.
        size: Its size in bytes when it was sent; another size on reading is an error.
        sha256: Content hash, checked on reading; ``None`` leaves only the size to be checked.
    """

    path: Uri
    size: Count
    sha256: Digest | None = None


class Unreadable(msgspec.Struct, frozen=True, tag_field="kind", tag="unreadable", gc=False):
    """A picture that its source could not read; it still gets its answer, a failed one."""

    fault: ImageFault
    problem: Text


Payload = Inline | Reference | Unreadable


class Image(msgspec.Struct, frozen=True, tag_field="schema", tag="image.v1", gc=False):
    """One picture to be judged, on ``images.live`` or ``images.archive``."""

    head: Head
    payload: Payload


class Box(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A box in [0, 1] of the upright picture's width and height, with a confidence in [0, 1]."""

    x1: Coordinate
    y1: Coordinate
    x2: Coordinate
    y2: Coordinate
    confidence: Share
    label: Word = ""


class PriorVote(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A vote already cast by an earlier tier, as far as routing needs it."""

    member: Word
    weight: NonNegative
    probability: Share


class Escalation(msgspec.Struct, frozen=True, tag_field="schema", tag="escalation.v1", gc=False):
    """An image handed on to a later tier: the same payload, and the votes so far."""

    head: Head
    payload: Payload
    votes: list[PriorVote]
    reason: Text = ""


class MemberRun(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One member's run over one batch; the votes of the batch refer to it by position.

    Attributes:
        member: Name in the cascade file.
        model_version: Version of its weights or rules.
        weight: Weight of its vote in the pool; 0 marks a shadow member.
        calibrated: Whether its probabilities passed a fitted calibrator.
        latency: Seconds its engine took for the batch.
        batch_size: Images in that batch.
    """

    member: Word
    model_version: Word
    weight: NonNegative
    calibrated: bool
    latency: Seconds
    batch_size: Count


class ImageVotes(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one tier says about one image.

    Attributes:
        head: The image.
        raw: Raw score per member run of the pack; ``None`` where the member gave none.
        probability: Calibrated probability of roadwork in [0, 1], likewise.
        next_tier: The tier that the image was escalated to; ``None`` for an exit.
        reason: The route that decided it.
        queued: Seconds from arrival in this tier's topic until its batch began.
        decoding: Seconds spent reading and decoding its batch.
        inferring: Seconds from then until its scores were there.
        boxes: Boxes per member run, if any member found some.
        error: Why this tier could not judge the image, or a member could not.
        texts: What each member run read or reasoned, if any did.
        fused: The boxes of its detectors as one set, the most confident first; ``None`` if the tier
            fuses none, or none of its detectors looked.
    """

    head: Head
    raw: list[Raw | None]
    probability: list[Share | None]
    next_tier: Word | None = None
    reason: Text = ""
    queued: Seconds = 0.0
    decoding: Seconds = 0.0
    inferring: Seconds = 0.0
    boxes: list[list[Box]] | None = None
    error: Text | None = None
    texts: list[Text] | None = None
    fused: list[Box] | None = None


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
    return None


class VotesPack(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="votes.v1", gc=False
):
    """All votes of one tier batch for one partition, on ``votes``: one record, many images."""

    tier: Word
    cascade: Word
    cascade_hash: Word
    sent_at: Time
    runs: list[MemberRun]
    images: list[ImageVotes]


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What votes amount to: the vote math hands it to whoever writes answers.

    Attributes:
        probability: Pooled probability of roadwork in [0, 1].
        confidence: ``2·|probability − 0.5|``.
        disagreement: Weighted standard deviation of the votes' log-odds.
        losing: Number of votes on the other side of 0.5.
    """

    probability: float
    confidence: float
    disagreement: float
    losing: int


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

    def votes(self) -> Iterator[Vote]:
        """Yield the votes of the members that gave one."""
        boxes = self.boxes or [[]] * len(self.runs)
        texts = self.texts or [""] * len(self.runs)
        columns = zip(self.runs, self.raw, self.probability, boxes, texts, strict=True)
        for run, raw, p, found, text in columns:
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

    @property
    def votes(self) -> list[Vote]:
        """Every vote that counted, in tier order."""
        return [vote for tier in self.tiers for vote in tier.votes() if vote.weight > 0]

    @property
    def shadow_votes(self) -> list[Vote]:
        """Votes of members of weight 0, apart."""
        return [vote for tier in self.tiers for vote in tier.votes() if vote.weight <= 0]

    @property
    def missing(self) -> list[str]:
        """Members that should have voted and did not."""
        return [
            run.member
            for tier in self.tiers
            for run, p in zip(tier.runs, tier.probability, strict=True)
            if p is None
        ]

    @property
    def latency(self) -> Latency:
        """Where the time went."""
        tiers = [TierLatency(t.tier, t.queued, t.decoding, t.inferring) for t in self.tiers]
        return Latency(self.took, self.joining, tiers)
