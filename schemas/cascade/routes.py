"""Routes: where an image goes after a tier, and what they may ask of it."""

from typing import Annotated

import msgspec
from msgspec import Meta

from roadstream.schemas.records.bounds import NonNegative, Share, Short, TagCondition, TagText

EXIT = "exit"
Number = Annotated[int, Meta(ge=0, le=1_000_000)]


class TagConditions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of an image's tags: ``name=value``, or ``name`` for any value.

    Attributes:
        tags_all: Holds when the image has all of these tags.
        tags_any: Holds when it has one of these.
        tags_none: Holds when it has none of these.
    """

    tags_all: list[TagCondition] = []
    tags_any: list[TagCondition] = []
    tags_none: list[TagCondition] = []


class Route(TagConditions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A routing rule: the first whose conditions all hold decides.

    What is asked of votes, boxes and tags is asked of all that the image has so far, those of this
    tier among them; shadow members do not count.

    Attributes:
        to: ``exit``, or the name of a later tier.
        min_confidence: Holds when the decision confidence so far is at least this.
        max_confidence: Holds when it is below this.
        min_probability: Holds when the probability of roadwork so far is at least this.
        max_probability: Holds when it is below this.
        min_disagreement: Holds when the disagreement (log-odds) is above this.
        max_disagreement: Holds when it is at most this.
        min_losing: Holds when at least so many votes are on the other side of 0.5 than the
            probability.
        max_losing: Holds when at most so many are.
        min_boxes: Holds when at least so many boxes were found.
        max_boxes: Holds when at most so many were.
        min_kinds: Holds when the boxes have at least so many different labels.
        session: Holds when the image belongs to a session, or when it does not.
        min_budget: Holds when at least so many seconds are left until the image's deadline, or it
            has none.
        max_budget: Holds when fewer seconds are left.
        tiers_down: Holds while all of these later tiers are down: nobody has worked for any of them
            for its ``down_after``.
        max_share: Holds for at most this share of the images that come to it, of those that a
            worker has seen.
        gives: Tags, ``name=value``, that an image gets which takes this route.
        reason: Said in the votes; made from the conditions when absent.
    """

    to: str
    min_confidence: Share | None = None
    max_confidence: Share | None = None
    min_probability: Share | None = None
    max_probability: Share | None = None
    min_disagreement: NonNegative | None = None
    max_disagreement: NonNegative | None = None
    min_losing: Number | None = None
    max_losing: Number | None = None
    min_boxes: Number | None = None
    max_boxes: Number | None = None
    min_kinds: Number | None = None
    session: bool | None = None
    min_budget: NonNegative | None = None
    max_budget: NonNegative | None = None
    tiers_down: list[str] = []
    max_share: Share | None = None
    gives: list[TagText] = []
    reason: Short = ""

    @property
    def unconditional(self) -> bool:
        """Whether it always holds."""
        return self == Route(to=self.to, gives=self.gives, reason=self.reason)
