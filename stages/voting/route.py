"""Where an image goes after a tier: the first rule of the cascade file that holds. Pure."""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple

from roadstream.schemas.cascade.model import EXIT, Cascade, Route
from roadstream.schemas.records.votes import NO_TAGS

# In characters: a route may name many tags, and its reason stands in every vote.
MOST_REASON = 1024
NONE_DOWN: frozenset[str] = frozenset()


class Decision(NamedTuple):
    """Where an image goes, and why.

    Attributes:
        next_tier: Where to; ``None`` for an exit.
        reason: The route that held.
        down: The tiers that nobody works for, where that decided; else ``None``.
    """

    next_tier: str | None
    reason: str
    down: list[str] | None = None


class TagRule:
    """What a route asks of an image's tags; a condition without a value holds for any."""

    def __init__(self, route: Route) -> None:
        self._all = [_condition(one) for one in route.tags_all]
        self._any = [_condition(one) for one in route.tags_any]
        self._none = [_condition(one) for one in route.tags_none]

    def holds(self, tags: Mapping[str, str]) -> bool:
        """Return whether it holds for these tags, by name."""
        return (
            all(_has(tags, one) for one in self._all)
            and (not self._any or any(_has(tags, one) for one in self._any))
            and not any(_has(tags, one) for one in self._none)
        )


def _condition(text: str) -> tuple[str, str | None]:
    name, separator, value = text.partition("=")
    return name, value if separator else None


def _has(tags: Mapping[str, str], condition: tuple[str, str | None]) -> bool:
    name, value = condition
    return name in tags if value is None else tags.get(name) == value


def _tag_rule(route: Route) -> TagRule | None:
    return TagRule(route) if route.tags_all or route.tags_any or route.tags_none else None


class Router:
    """The routes of one tier, ready to be asked once per image.

    Attributes:
        targets: Tiers that images may be sent to from here.
        watched: Tiers of which it matters whether anybody works for them.
        needs_disagreement: Whether a route asks for the disagreement.
        needs_tags: Whether a route asks for tags.
    """

    def __init__(self, cascade: Cascade, tier: str) -> None:
        names, left_out = cascade.named_tiers, frozenset(cascade.left_out)
        rest = names[names.index(tier) + 1 :]
        routes = cascade.tier(tier).routes
        self.watched = {name for r in routes for name in r.tiers_down} - left_out
        following = Decision(rest[0], "no route held: next tier") if rest else None
        self._default = _leading(cascade, following or Decision(None, "last tier"))
        self._rules = [
            (
                r.min_confidence if r.min_confidence is not None else 0.0,
                r.max_confidence if r.max_confidence is not None else 2.0,
                r.max_disagreement,
                _tag_rule(r),
                frozenset(r.tiers_down) - left_out,
                _leading(cascade, _decision(r)),
            )
            for r in routes
        ]
        decisions = [self._default, *(rule[-1] for rule in self._rules)]
        self.targets = {one.next_tier for one in decisions if one.next_tier is not None}
        self.needs_disagreement = any(rule[2] is not None for rule in self._rules)
        self.needs_tags = any(rule[3] is not None for rule in self._rules)

    def decide(
        self,
        confidence: float,
        disagreement: float,
        tags: Mapping[str, str] = NO_TAGS,
        down: frozenset[str] = NONE_DOWN,
    ) -> Decision:
        """Return the decision for a confidence in [0, 1] and a disagreement in log-odds.

        Args:
            confidence: Of the votes so far.
            disagreement: Of the votes so far; only looked at if ``needs_disagreement``.
            tags: The image's, by name; only looked at if ``needs_tags``.
            down: The tiers that nobody works for.
        """
        for low, high, spread, tagged, absent, decision in self._rules:
            if (
                low <= confidence < high
                and (spread is None or disagreement <= spread)
                and (tagged is None or tagged.holds(tags))
                and absent <= down
            ):
                return decision
        return self._default


def _decision(route: Route) -> Decision:
    to = None if route.to == EXIT else route.to
    return Decision(to, route.reason or describe(route), route.tiers_down or None)


def _leading(cascade: Cascade, decision: Decision) -> Decision:
    """Return a decision that leads past tiers which are left out, to the next that is there.

    Those that it passes are named among the tiers that are down.
    """
    names, left_out = cascade.named_tiers, cascade.left_out
    if decision.next_tier not in left_out:
        return decision
    later = names[names.index(decision.next_tier) :]
    passed = list(takewhile(left_out.__contains__, later))
    onward = next(iter(later[len(passed) :]), None)
    reason = f"{decision.reason}; left out: {', '.join(passed)}"
    return Decision(
        onward, reason[:MOST_REASON], list(dict.fromkeys([*(decision.down or ()), *passed]))
    )


def describe(route: Route) -> str:
    """Return a route's conditions in words, for the votes' ``reason``."""
    parts = []
    if route.min_confidence is not None:
        parts.append(f"confidence ≥ {route.min_confidence:g}")
    if route.max_confidence is not None:
        parts.append(f"confidence < {route.max_confidence:g}")
    if route.max_disagreement is not None:
        parts.append(f"disagreement ≤ {route.max_disagreement:g}")
    if route.tiers_down:
        parts.append(f"nobody works for {', nor for '.join(route.tiers_down)}")
    parts += [f"tag {one}" for one in route.tags_all]
    if route.tags_any:
        parts.append(_listed("tag", "any of the tags", route.tags_any))
    if route.tags_none:
        parts.append(_listed("no tag", "none of the tags", route.tags_none))
    return " and ".join(parts)[:MOST_REASON] or "always"


def _listed(one: str, several: str, tags: Sequence[str]) -> str:
    return f"{one if len(tags) == 1 else several} {', '.join(tags)}"
