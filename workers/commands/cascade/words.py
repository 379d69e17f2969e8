"""What a cascade says, in words."""

from collections.abc import Iterator

from roadstream.schemas.cascade.model import Cascade, Member, Platt, Pool, Tier
from roadstream.schemas.cascade.routes import EXIT
from roadstream.schemas.cascade.rules import Adapt, Conflict, Rule, Size
from roadstream.stages.voting.route import asked_of_tags, describe


def ways(cascade: Cascade, tier: Tier) -> Iterator[tuple[str, str]]:
    """Yield each way out of a tier: when it is taken, and where it leads, left out or not."""
    for route in tier.routes:
        yield describe(route), route.to
    if not any(route.unconditional for route in tier.routes):
        following = cascade.following(tier.name) or [EXIT]
        yield ("else" if tier.routes else "always"), following[0]


def pool(settings: Pool) -> str:
    """Return how votes become one probability."""
    said = f"{settings.method}, prior {settings.prior:g}"
    if settings.method == "log":
        said += f", effective voters {settings.effective_voters:g}"
    return f"{said}, quorum {settings.quorum:g}"


def size(member: Member) -> str:
    """Return the sizes of the pictures that a member is given."""
    sizes = [(member.width, member.height), *member.sizes]
    return ", ".join(f"{width}×{height}" for width, height in sizes)


def calibration(member: Member) -> str:
    """Return how a member's scores become probabilities."""
    if member.calibration is None:
        return "no"
    return "platt" if isinstance(member.calibration, Platt) else "isotonic"


def licence(member: Member) -> str:
    """Return a member's licence, and whether it must be accepted before the model can be had."""
    gated = "to be accepted" if member.gated else ""
    return ", ".join(filter(None, (member.licence, gated))) or "–"


def weight(member: Member) -> str:
    """Return the weight of a member's vote."""
    return f"{member.weight:.4g}" if member.weight > 0 else "0 (shadow)"


def rule(one: Rule) -> tuple[str, str, str]:
    """Return a rule's kind, when it holds, and what it does."""
    if isinstance(one, Adapt):
        done = [f"weight of {name} × {factor:g}" for name, factor in one.weights.items()]
        done += [f"log-odds {one.shift:+g}"] if one.shift else []
        done += [f"confidence of boxes × {one.box_confidence:g}"] if one.box_confidence != 1 else []
        done += [f"boxes larger by {one.box_margin:.0%}"] if one.box_margin else []
        return "adapt", " and ".join(asked_of_tags(one)) or "always", ", ".join(done) or "nothing"
    if isinstance(one, Conflict):
        says = f"alone says roadwork: its weight × {one.yes_factor:g}; none: × {one.no_factor:g}"
        over = f", above a confidence of {one.override:g} it overrides" if one.override < 1 else ""
        return "conflict", f"{one.tier} contradicts the tiers below", f"{says}{over}"
    if isinstance(one, Size):
        done = [f"boxes of an impossible size × {one.factor:g}, unsurely × {one.soft_factor:g}"]
        return "size", f"{one.depth} measured depth", ", ".join(done)
    bounds = ", ".join(f"{bound:g}" for bound in one.bounds)
    return "difficulty", "after the first tier", f"a tag from 1 to 5, by {bounds}"
