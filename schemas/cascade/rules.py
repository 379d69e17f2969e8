"""Rules over one picture: what changes votes, boxes and tags beside the members.

Each has a switch, ``enabled``, and what it did to an image stands in the answer's ``effects``.
"""

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from roadstream.schemas.cascade.routes import TagConditions
from roadstream.schemas.records.bounds import Name, NonNegative, Positive, Share, Short

Kind = Literal["detection", "segmentation", "zero-shot", "fast-vlm", "power-vlm", "precision-vlm"]
KINDS: tuple[str, ...] = get_args(Kind)
KIND_WEIGHTS: dict[str, float] = {
    "detection": 1.0,
    "segmentation": 1.4,
    "zero-shot": 0.8,
    "fast-vlm": 1.2,
    "power-vlm": 1.5,
    "precision-vlm": 2.0,
}
"""Weight of a member's vote by its kind, where the file gives none."""

# Log-odds that a rule may add: as much as a member may say at most, twice.
Shift = Annotated[float, Meta(ge=-12, le=12)]
Factor = Annotated[float, Meta(ge=0, le=10)]


class Adapt(
    TagConditions, frozen=True, kw_only=True, tag_field="rule", tag="adapt",
    forbid_unknown_fields=True,
):  # fmt: skip
    """Adapts votes and boxes to what the image's tags say, such as its weather.

    Attributes:
        enabled: Whether it is in use.
        name: Names it in answers; made from its conditions when absent.
        shift: Log-odds that are added to the pooled probability.
        weights: Factors of the weights of votes, by the name of a member or by a kind.
        box_confidence: Factor of the confidence below which boxes are not fused.
        box_margin: Share of its sides by which a fused box is enlarged.
    """

    enabled: bool = True
    name: Short = ""
    shift: Shift = 0.0
    weights: dict[str, Factor] = msgspec.field(default_factory=dict)
    box_confidence: Annotated[float, Meta(gt=0, le=10)] = 1.0
    box_margin: Share = 0.0

    @property
    def votes(self) -> bool:
        """Whether it changes how votes are pooled."""
        return self.shift != 0 or any(factor != 1 for factor in self.weights.values())

    @property
    def boxes(self) -> bool:
        """Whether it changes how boxes are fused."""
        return self.box_confidence != 1 or self.box_margin != 0


class Conflict(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="rule", tag="conflict",
    forbid_unknown_fields=True,
):  # fmt: skip
    """What happens where a strong tier contradicts all tiers below it.

    The image gets the tag ``conflict``, which is ``TIER-yes`` or ``TIER-no`` by what the tier says,
    so that routes may go by it.

    Attributes:
        enabled: Whether it is in use.
        tier: The strong tier; not the first.
        yes_factor: Factor of its votes' weights where it says roadwork and those below say none.
        no_factor: The same where it says none and those below say roadwork.
        override: Where it says none with more than this confidence, the votes below it count no
            more; 1 is never.
    """

    tier: str
    enabled: bool = True
    yes_factor: Factor = 0.7
    no_factor: Factor = 1.3
    override: Share = 0.85


# In metres, of what stands at roadwork: cascade files may name others.
METRES: dict[str, tuple[float, float]] = {
    "cone": (0.25, 0.40),
    "barrier": (0.80, 1.50),
    "barricade": (0.80, 1.50),
    "excavator": (2.0, 5.0),
}


class Size(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="rule", tag="size",
    forbid_unknown_fields=True,
):  # fmt: skip
    """Checks that boxes are as wide as what they show can be: ``pixels · depth / focal length``.

    It looks at the boxes of earlier tiers and of the depth member's own. Where the most confident
    box changes, so do the votes of the members of kind ``detection``, in proportion; the image gets
    the tag ``size``: ``plausible`` or ``impossible``, or ``unknown``. What was measured stands in
    its effects. See ``roadstream.stages.rules.size``.

    Attributes:
        enabled: Whether it is in use.
        depth: The member that measures depth, in metres; of weight above 0.
        metres: Least and greatest width in metres, by the words that a box's label must have.
        factor: Factor of the confidence of a box of an impossible size.
        soft_factor: The same where nobody knows the focal length, and so none in ``focal_range``
            makes its size possible.
        focal: Focal length as a multiple of the picture's width, of the camera that all pictures
            come from; absent: as the depth member or the picture's EXIF says.
        focal_range: Least and greatest focal length of cameras, where it is not known.
        slack: Share by which a size may be missed.
    """

    depth: str
    enabled: bool = True
    metres: dict[Name, tuple[Positive, Positive]] = msgspec.field(default_factory=METRES.copy)
    factor: Share = 0.3
    soft_factor: Share = 0.6
    focal: Positive | None = None
    focal_range: tuple[Positive, Positive] = (0.35, 1.4)
    slack: NonNegative = 0.25


DIFFICULTY_WEIGHTS: dict[str, float] = {
    "variance": 1.0,
    "objects": 1.0,
    "weather": 1.0,
    "exposure": 0.25,
    "edges": 1.0,
    "past": 1.0,
}
"""Weights of what makes an image hard: see ``roadstream.stages.rules.difficulty``."""


class Difficulty(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="rule", tag="difficulty",
    forbid_unknown_fields=True,
):  # fmt: skip
    """Says after the first tier how hard an image is, as the tag ``difficulty``: 1 to 5.

    Attributes:
        enabled: Whether it is in use.
        bounds: Scores in [0, 1] from which the bins 2, 3, 4 and 5 begin.
        weights: Of its features, by name, where they are not those of ``DIFFICULTY_WEIGHTS``.
    """

    enabled: bool = True
    bounds: tuple[Share, Share, Share, Share] = (0.23, 0.29, 0.32, 0.4)
    weights: dict[str, NonNegative] = {}


Rule = Adapt | Conflict | Size | Difficulty


class Ensemble(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Makes members of a tier one voter: their log-odds' weighted mean, and whether they agree.

    Where so large a share of those that voted says roadwork, the ensemble says it too; where not,
    it does not, and its probability is 0.5 at most.

    Attributes:
        members: Who belongs to it; empty for all of kind ``detection``.
        agreement: That share: 7 of 10.
        weight: Weight of its one vote.
    """

    members: list[str] = []
    agreement: Annotated[float, Meta(gt=0, le=1)] = 0.7
    weight: Positive = 1.0


class Exploration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Images that pass all tiers whatever their routes say, so that labels stay unbiased.

    They have the tag ``explored``. Live images are never among them, and tiers that are
    ``off_path`` are left out.

    Attributes:
        share: Share of the archive's images, chosen by their id.
    """

    share: Annotated[float, Meta(ge=0, le=0.5)] = 0.0
