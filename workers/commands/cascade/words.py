"""What a cascade says, in words."""

from collections.abc import Iterator

from roadstream.schemas.cascade.model import Cascade, Member, Platt, Pool, Tier
from roadstream.schemas.cascade.routes import EXIT, Route


def conditions(route: Route) -> str:
    """Return when a route holds."""
    return " and ".join(_conditions(route)) or "always"


def _conditions(route: Route) -> Iterator[str]:
    if route.min_confidence is not None:
        yield f"confidence at least {route.min_confidence:g}"
    if route.max_confidence is not None:
        yield f"confidence below {route.max_confidence:g}"
    if route.max_disagreement is not None:
        yield f"disagreement at most {route.max_disagreement:g}"
    if route.tags_all:
        yield f"tagged {' and '.join(route.tags_all)}"
    if route.tags_any:
        yield f"tagged {' or '.join(route.tags_any)}"
    if route.tags_none:
        yield f"not tagged {' or '.join(route.tags_none)}"
    if route.tiers_down:
        yield f"nobody works for {' and '.join(route.tiers_down)}"


def ways(cascade: Cascade, tier: Tier) -> Iterator[tuple[str, str]]:
    """Yield each way out of a tier: when it is taken, and where it leads, left out or not."""
    for route in tier.routes:
        yield conditions(route), route.to
    if not any(route.unconditional for route in tier.routes):
        names = cascade.named_tiers
        later = names[names.index(tier.name) + 1 :]
        yield ("else" if tier.routes else "always"), (later or [EXIT])[0]


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
