"""What a tier says of images, and images that it hands on."""

from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from types import MappingProxyType

import msgspec

from roadstream.schemas.records.bounds import (
    MOST_TAGS,
    Coordinate,
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
from roadstream.schemas.records.image import Head, Payload
from roadstream.schemas.settings.base import EvidenceKind


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


class Evidence(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What earlier tiers found in a picture, for later members to look at and for routes.

    Attributes:
        boxes: The fused boxes where tiers fuse them, else those of their members; of all at most
            ``MOST_BOXES``, the most confident first.
        tags: Tags by name; of several members that gave one, the latest tier's holds.
        texts: What members read or reasoned, or why they gave no vote, by member; of all at most
            ``MOST_TEXTS``, the latest first.
        disagreement: Weighted standard deviation of the log-odds of the votes so far.
    """

    boxes: list[Box] = []
    tags: Tags = {}
    texts: dict[Word, Text] = {}
    disagreement: NonNegative = 0.0

    def only(self, kinds: Collection[EvidenceKind]) -> "Evidence":
        """Return so much of it as these kinds, to do with as one likes; nothing of the others."""
        return Evidence(
            list(self.boxes) if "boxes" in kinds else [],
            dict(self.tags) if "tags" in kinds else {},
            dict(self.texts) if "texts" in kinds else {},
            self.disagreement if "disagreement" in kinds else 0.0,
        )


NO_TAGS: Mapping[str, str] = MappingProxyType({})
NO_EVIDENCE = Evidence()
MOST_BOXES, MOST_TEXTS = 20, 16
# Characters of each: enough for what signs say and for the gist of what a model reasoned.
LONGEST_TEXT = 1000


class Escalation(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    tag_field="schema",
    tag="escalation.v1",
    gc=False,
):
    """An image handed on to a later tier: the same payload, and the votes so far.

    Attributes:
        head: The image.
        payload: Its picture.
        votes: The votes of earlier tiers that count.
        reason: The route that led here.
        cascade_hash: Version of the cascade that it is judged by, to its end; empty in records of
            older releases, which did not say.
        evidence: What earlier tiers found.
    """

    head: Head
    payload: Payload
    votes: list[PriorVote]
    reason: Text = ""
    cascade_hash: Word = ""
    evidence: Evidence = NO_EVIDENCE


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
        tags: The tags that each member run gave, if any did.
        down: Tiers that nobody worked for, where that decided the route.
        given: Tags that the cascade's rules gave, if any did.
        revised: What earlier or its own members' probabilities became, where a rule changed them.
        skipped: Tiers that it was not sent to, as its deadline would have passed there.
        effects: What rules found in its picture and did by it, in words.
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
    tags: list[Tags] | None = None
    down: list[Word] | None = None
    given: Tags | None = None
    revised: dict[Word, Share] | None = None
    skipped: list[Word] | None = None
    effects: list[Text] | None = None


def merged_tags(earlier: Mapping[str, str], given: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return an image's tags after a tier, at most ``MOST_TAGS``: the latest come first.

    Args:
        earlier: Its tags before; the tier's hold where both name one.
        given: What members of the tier gave, in the order of the cascade file; the first holds.
    """
    merged: dict[str, str] = {}
    for tags in (*given, earlier):
        if not tags:
            continue
        if not merged:
            merged = dict(tags)
            continue
        for name, value in tags.items():
            merged.setdefault(name, value)
    return merged if len(merged) <= MOST_TAGS else dict(islice(merged.items(), MOST_TAGS))


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
