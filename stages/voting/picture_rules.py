"""What the cascade's rules say of a picture, beside its members. Pure."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import EngineError
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import NO_TAGS, Evidence, PriorVote, merged_tags
from roadstream.stages.inference import Finding, Picture


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
    """

    tags: Mapping[str, str] = NO_TAGS
    factors: Mapping[str, float] = {}


NOTHING_SEEN = Seen()


class PictureRule(Protocol):
    """Looks at a picture after a tier's members did."""

    def look(
        self, image: JudgedImage, picture: Picture, found: Sequence[Finding | EngineError]
    ) -> Seen:
        """Return what it says.

        Args:
            image: The image, with what earlier tiers said of it.
            picture: Its picture, as the tier's members were given it.
            found: Per member of the tier its finding, or why there is none.
        """


class PictureRules:
    """The rules that look at pictures at one tier, one after the other.

    Args:
        rules: In the order of the cascade file.
    """

    def __init__(self, rules: Sequence[PictureRule]) -> None:
        self._rules = rules

    def look(
        self, image: JudgedImage, picture: Picture, found: Sequence[Finding | EngineError]
    ) -> Seen:
        """Return what they say together: of tags the first holds, and factors multiply."""
        told = [rule.look(image, picture, found) for rule in self._rules]
        factors: dict[str, float] = {}
        for seen in told:
            for name, factor in seen.factors.items():
                factors[name] = factors.get(name, 1.0) * factor
        return Seen(merged_tags(NO_TAGS, [seen.tags for seen in told]), factors)


def picture_rules(cascade: Cascade, tier: str) -> PictureRules | None:
    """Return the rules that look at pictures at a tier; ``None`` if none does."""
    rules: list[PictureRule] = []
    del cascade, tier
    return PictureRules(rules) if rules else None
