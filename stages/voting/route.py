"""Where an image goes after a tier: the first rule of the cascade file that holds. Pure."""

from typing import NamedTuple

from roadstream.schemas.cascade.model import EXIT, Cascade, Route


class Decision(NamedTuple):
    """Where to, and why. ``next_tier`` is ``None`` for an exit."""

    next_tier: str | None
    reason: str


class Router:
    """The routes of one tier, ready to be asked once per image."""

    def __init__(self, cascade: Cascade, tier: str) -> None:
        names = cascade.tier_names
        rest = names[names.index(tier) + 1 :]
        self.targets = {r.to for r in cascade.tier(tier).routes if r.to != EXIT} | set(rest[:1])
        self._default = (
            Decision(rest[0], "no route held: next tier") if rest else Decision(None, "last tier")
        )
        self._rules = [
            (
                r.min_confidence if r.min_confidence is not None else 0.0,
                r.max_confidence if r.max_confidence is not None else 2.0,
                r.max_disagreement,
                Decision(None if r.to == EXIT else r.to, r.reason or describe(r)),
            )
            for r in cascade.tier(tier).routes
        ]
        self.needs_disagreement = any(rule[2] is not None for rule in self._rules)

    def decide(self, confidence: float, disagreement: float) -> Decision:
        """Return the decision for a confidence in [0, 1] and a disagreement in log-odds."""
        for low, high, spread, decision in self._rules:
            if low <= confidence < high and (spread is None or disagreement <= spread):
                return decision
        return self._default


def describe(route: Route) -> str:
    """Return a route's conditions in words, for the votes' ``reason``."""
    parts = []
    if route.min_confidence is not None:
        parts.append(f"confidence ≥ {route.min_confidence:g}")
    if route.max_confidence is not None:
        parts.append(f"confidence < {route.max_confidence:g}")
    if route.max_disagreement is not None:
        parts.append(f"disagreement ≤ {route.max_disagreement:g}")
    return " and ".join(parts) or "always"
