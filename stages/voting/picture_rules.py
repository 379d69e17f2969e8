"""What the cascade's rules say of a picture, beside its members. Pure."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from roadstream.schemas.cascade.model import Cascade, Tier
from roadstream.schemas.cascade.rules import Difficulty, Size
from roadstream.schemas.errors import EngineError, ImageError
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import NO_TAGS, Box, Evidence, PriorVote, merged_tags
from roadstream.stages.inference import Abstained, DepthMap, Finding, Picture, Score
from roadstream.stages.rules.difficulty import Bins, features, surface
from roadstream.stages.rules.size import SizeCheck, ratio
from roadstream.stages.voting.vote import calibrator


class JudgedImage(Protocol):
    """An image that a tier votes on."""

    @property
    def head(self) -> Head:
        """Who it is."""

    @property
    def prior(self) -> Sequence[PriorVote]:
        """The votes of earlier tiers that count."""

    @property
    def evidence(self) -> Evidence:
        """What earlier tiers found in it."""


class Seen(NamedTuple):
    """What rules say of a picture.

    Attributes:
        tags: By name.
        factors: What probabilities are multiplied by, in [0, 1], by member: of this tier, or of an
            earlier one.
        lowered: Boxes whose confidence changes, with what they become for later tiers.
        effects: What was found and done, in words.
    """

    tags: Mapping[str, str] = NO_TAGS
    factors: Mapping[str, float] = {}
    lowered: Mapping[Box, Box] = {}
    effects: Sequence[str] = ()


NOTHING_SEEN = Seen()
Found = Sequence[Finding | EngineError]


class PictureRule(Protocol):
    """Looks at a picture after a tier's members did."""

    def look(
        self, image: JudgedImage, picture: Picture, found: Found, fused: Sequence[Box] | None
    ) -> Seen:
        """Return what it says.

        Args:
            image: The image, with what earlier tiers said of it.
            picture: Its picture, as the tier's members were given it.
            found: Per member of the tier its finding, or why there is none.
            fused: The fused boxes of the tier's detectors; ``None`` if it fuses none.
        """


class PictureRules:
    """The rules that look at pictures at one tier, one after the other.

    Args:
        rules: In the order of the cascade file.
    """

    def __init__(self, rules: Sequence[PictureRule]) -> None:
        self._rules = rules

    def look(
        self, image: JudgedImage, picture: Picture, found: Found, fused: Sequence[Box] | None = None
    ) -> Seen:
        """Return what they say together: of tags the first holds, and factors multiply."""
        if len(self._rules) == 1:
            return self._rules[0].look(image, picture, found, fused)
        told = [rule.look(image, picture, found, fused) for rule in self._rules]
        factors: dict[str, float] = {}
        lowered: dict[Box, Box] = {}
        for seen in told:
            lowered |= seen.lowered
            for name, factor in seen.factors.items():
                factors[name] = factors.get(name, 1.0) * factor
        effects = [effect for seen in told for effect in seen.effects]
        return Seen(merged_tags(NO_TAGS, [seen.tags for seen in told]), factors, lowered, effects)


class SizeRule:
    """Lowers boxes of an impossible size, and the votes of the detectors that they come from.

    Args:
        rule: Its settings.
        cascade: For the kinds of its members.
        tier: The tier of the member that measures depth.
    """

    def __init__(self, rule: Size, cascade: Cascade, tier: str) -> None:
        self._check, self._name = SizeCheck(rule), rule.depth
        members = cascade.tier(tier).members
        self._place = [one.name for one in members].index(rule.depth)
        self._counting = [place for place, one in enumerate(members) if one.weight > 0]
        self._own = {p: members[p].name for p in self._counting if members[p].kind == "detection"}
        before = cascade.tiers[: cascade.tier_names.index(tier)]
        self._earlier = {
            one.name for other in before for one in other.members if one.kind == "detection"
        }

    def look(
        self, image: JudgedImage, picture: Picture, found: Found, fused: Sequence[Box] | None
    ) -> Seen:
        """Return what the sizes of boxes say."""
        earlier = image.evidence.boxes
        own = {p: one.boxes for p in self._counting if isinstance(one := found[p], Score)}
        boxes = [*earlier, *(fused or ()), *(box for some in own.values() for box in some)]
        sizes = self._check.check(boxes, self._depth(found[self._place]), picture.focal)
        if not sizes.tag:
            return NOTHING_SEEN
        factors = {name: ratio(own.get(p, []), sizes.lowered) for p, name in self._own.items()}
        factor = ratio(earlier, sizes.lowered)
        factors |= {vote.member: factor for vote in image.prior if vote.member in self._earlier}
        changed = {name: one for name, one in factors.items() if one != 1}
        return Seen({"size": sizes.tag}, changed, sizes.lowered, [sizes.said])

    def _depth(self, found: Finding | EngineError) -> DepthMap | str:
        """Return the depth, or why there is none."""
        if isinstance(found, Abstained) and found.depth is not None:
            return found.depth
        if isinstance(found, ImageError | EngineError):
            return f"{self._name}: {found}"
        return f"{self._name} measured no metres"


class DifficultyRule:
    """Says how hard an image is, by what the first tier finds in it.

    Args:
        rule: Its settings.
        tier: The first tier.
    """

    def __init__(self, rule: Difficulty, tier: Tier) -> None:
        self._bins = Bins(rule)
        self._seats = [
            (place, calibrator(one.calibration))
            for place, one in enumerate(tier.members)
            if one.weight > 0
        ]

    def look(
        self, image: JudgedImage, picture: Picture, found: Found, fused: Sequence[Box] | None
    ) -> Seen:
        """Return its bin."""
        scores = [(found[place], calibrate) for place, calibrate in self._seats]
        ps = [calibrate(one.raw) for one, calibrate in scores if isinstance(one, Score)]
        boxes = [len(one.boxes) for one, _ in scores if isinstance(one, Score)]
        given = [one.tags for one, _ in scores if isinstance(one, Score | Abstained)]
        weather = merged_tags(image.evidence.tags, given).get("weather")
        count = max(boxes, default=None) if fused is None else len(fused)
        known = features(ps, count, weather, surface(picture.smallest()))
        level = self._bins.level(known)
        return NOTHING_SEEN if level is None else Seen({"difficulty": level})


def picture_rules(cascade: Cascade, tier: str) -> PictureRules | None:
    """Return the rules that look at pictures at a tier; ``None`` if none does."""
    rules: list[PictureRule] = []
    rules += [SizeRule(rule, cascade, tier) for rule in _size_rules(cascade, tier)]
    if tier == cascade.tier_names[0]:
        asked = [rule for rule in cascade.rules if isinstance(rule, Difficulty) and rule.enabled]
        rules += [DifficultyRule(rule, cascade.tier(tier)) for rule in asked]
    return PictureRules(rules) if rules else None


def asks_focal_length(cascade: Cascade, tier: str) -> bool:
    """Tell whether a rule at a tier goes by what a picture's file says of its focal length."""
    return any(rule.focal is None for rule in _size_rules(cascade, tier))


def _size_rules(cascade: Cascade, tier: str) -> list[Size]:
    names = {member.name for member in cascade.tier(tier).members}
    rules = [rule for rule in cascade.rules if isinstance(rule, Size) and rule.enabled]
    return [rule for rule in rules if rule.depth in names]
