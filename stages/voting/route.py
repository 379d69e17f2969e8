"""Where an image goes after a tier: the first rule of the cascade file that holds. Pure."""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple
from zlib import crc32

import msgspec

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.cascade.routes import EXIT, Route, TagConditions
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import NO_TAGS, Box

# In characters: a route may name many tags, and its reason stands in every vote.
MOST_REASON = 1024
NONE_DOWN: frozenset[str] = frozenset()
NOTHING_LEARNT: Mapping[str, float] = {}
EXPLORED = "explored"


class Decision(NamedTuple):
    """Where an image goes, and why.

    Attributes:
        next_tier: Where to; ``None`` for an exit.
        reason: The route that held.
        down: The tiers that nobody works for, where that decided; else ``None``.
        skipped: The tiers that the image's deadline would have passed at; else ``None``.
        gives: Tags that the image gets by it, by name.
    """

    next_tier: str | None
    reason: str
    down: list[str] | None = None
    skipped: list[str] | None = None
    gives: Mapping[str, str] = NO_TAGS


class Facts(msgspec.Struct, frozen=True, gc=False):
    """What routes ask of an image; what none of a tier's routes asks for need not be told.

    Attributes:
        confidence: Decision confidence of the votes so far, in [0, 1].
        disagreement: Of the votes so far, in log-odds.
        tags: The image's, by name.
        probability: Of roadwork, by the votes so far, in [0, 1].
        losing: Number of votes on the other side of 0.5 than the probability.
        boxes: The boxes found so far.
        session: Whether it belongs to one.
        left: Seconds until its deadline; infinity without one.
    """

    confidence: float
    disagreement: float = 0.0
    tags: Mapping[str, str] = NO_TAGS
    probability: float = 0.5
    losing: int = 0
    boxes: Sequence[Box] = ()
    session: bool = False
    left: float = math.inf


Holds = Callable[[Facts], bool]


class TagRule:
    """What is asked of an image's tags; a condition without a value holds for any."""

    def __init__(self, asked: TagConditions) -> None:
        self._all = [_condition(one) for one in asked.tags_all]
        self._any = [_condition(one) for one in asked.tags_any]
        self._none = [_condition(one) for one in asked.tags_none]

    def holds(self, tags: Mapping[str, str]) -> bool:
        """Return whether it holds for these tags, by name."""
        # Plain loops: generators cost more than what they ask.
        for one in self._all:
            if not _has(tags, one):
                return False
        for one in self._none:
            if _has(tags, one):
                return False
        for one in self._any:
            if _has(tags, one):
                return True
        return not self._any


def _condition(text: str) -> tuple[str, str | None]:
    name, separator, value = text.partition("=")
    return name, value if separator else None


def _has(tags: Mapping[str, str], condition: tuple[str, str | None]) -> bool:
    name, value = condition
    return name in tags if value is None else tags.get(name) == value


class _Portion:
    """Lets at most a share of what comes by through; threads may share it."""

    def __init__(self, share: float) -> None:
        self._share, self._seen, self._taken = share, 0, 0
        self._guard = threading.Lock()

    def see(self) -> None:
        """Count an image that comes by."""
        with self._guard:
            self._seen += 1

    def take(self) -> bool:
        """Return whether one more is within the share; it is taken then."""
        with self._guard:
            if self._taken + 1 > self._share * self._seen:
                return False
            self._taken += 1
            return True


def _any_of(routes: Sequence[Route], *names: str) -> bool:
    return any(getattr(route, name) is not None for route in routes for name in names)


def _asks_tags(asked: TagConditions) -> bool:
    return bool(asked.tags_all or asked.tags_any or asked.tags_none)


def _conditions(route: Route) -> list[Holds]:
    """Return what a route asks beside what ``_Rule`` names."""
    found: list[Holds] = []
    ranges: list[tuple[Callable[[Facts], float], float | None, float | None]] = [
        (lambda facts: facts.probability, route.min_probability, route.max_probability),
        (lambda facts: facts.left, route.min_budget, route.max_budget),
    ]
    for fact, low, high in ranges:
        if low is not None or high is not None:
            found.append(_from_until(fact, low, high))
    counts: list[tuple[Callable[[Facts], int], int | None, int | None]] = [
        (lambda facts: facts.losing, route.min_losing, route.max_losing),
        (lambda facts: len(facts.boxes), route.min_boxes, route.max_boxes),
        (lambda facts: len({box.label for box in facts.boxes}), route.min_kinds, None),
    ]
    for count, least, most in counts:
        if least is not None or most is not None:
            found.append(_from_to(count, least, most))
    if (spread := route.min_disagreement) is not None:
        found.append(lambda facts: facts.disagreement > spread)
    if (session := route.session) is not None:
        found.append(lambda facts: facts.session is session)
    return found


def _from_until(fact: Callable[[Facts], float], low: float | None, high: float | None) -> Holds:
    least, below = -math.inf if low is None else low, high
    return lambda facts: least <= fact(facts) and (below is None or fact(facts) < below)


def _from_to(count: Callable[[Facts], int], low: int | None, high: int | None) -> Holds:
    least, most = low or 0, math.inf if high is None else high
    return lambda facts: least <= count(facts) <= most


class _Rule(NamedTuple):
    """A route, ready to be asked.

    Attributes:
        low: Least confidence.
        high: Confidence that it is below.
        spread: Greatest disagreement.
        tags: What it asks of tags.
        absent: Tiers that must be down.
        more: What else must hold.
        share: Lets only a share of the images through.
        decision: What it decides.
    """

    low: float
    high: float
    spread: float | None
    tags: TagRule | None
    absent: frozenset[str]
    more: list[Holds]
    share: _Portion | None
    decision: Decision


class Router:
    """The routes of one tier, ready to be asked once per image.

    Attributes:
        targets: Tiers that images may be sent to from here.
        watched: Tiers of which it matters whether anybody works for them.
        needs_disagreement: Whether a route asks for the disagreement.
        needs_boxes: Whether a route asks for boxes.
        needs_losing: Whether a route asks for losing votes.
        explores: Whether some images pass all tiers.
        needs_more: Whether a route asks for anything but confidence and disagreement, or gives
            tags, or some images are explored.
    """

    def __init__(self, cascade: Cascade, tier: str) -> None:
        left_out = frozenset(cascade.left_out)
        routes = cascade.tier(tier).routes
        self.watched = {name for r in routes for name in r.tiers_down} - left_out
        onward = cascade.following(tier)
        following = Decision(onward[0], "no route held: next tier") if onward else None
        self._default = _leading(cascade, following or Decision(None, "last tier"))
        explored = Decision(onward[0], "explored: all tiers") if onward else None
        self._explored = _leading(cascade, explored or Decision(None, "explored: last tier"))
        self._share = round(cascade.exploration.share * 2**32)
        self.explores = self._share > 0
        self._rules = [
            _Rule(
                r.min_confidence if r.min_confidence is not None else 0.0,
                r.max_confidence if r.max_confidence is not None else 2.0,
                r.max_disagreement,
                TagRule(r) if _asks_tags(r) else None,
                frozenset(r.tiers_down) - left_out,
                _conditions(r),
                _Portion(r.max_share) if r.max_share is not None else None,
                _leading(cascade, _decision(r)),
            )
            for r in routes
        ]
        self._portions = [rule.share for rule in self._rules if rule.share is not None]
        decisions = [self._default, *(rule.decision for rule in self._rules)]
        decisions += [self._explored] if self.explores else []
        self.targets = {one.next_tier for one in decisions if one.next_tier is not None}
        self.needs_disagreement = any(
            r.max_disagreement is not None or r.min_disagreement is not None for r in routes
        )
        self.needs_losing = any(
            r.min_losing is not None or r.max_losing is not None for r in routes
        )
        self.needs_boxes = any(
            one is not None for r in routes for one in (r.min_boxes, r.max_boxes, r.min_kinds)
        )
        asking = any(rule.more or rule.tags or rule.decision.gives for rule in self._rules)
        self.needs_more = self.explores or asking

    def explored(self, head: Head) -> bool:
        """Return whether an image is one of those that pass all tiers; the same in all of them."""
        if not self.explores or head.lane != "archive":
            return False
        return crc32(head.image_id.encode(), 0x5EED) < self._share

    def explore(self) -> Decision:
        """Return where an image goes that passes all tiers."""
        return self._explored

    def decide(
        self,
        facts: Facts,
        down: frozenset[str] = NONE_DOWN,
        needed: Mapping[str, float] = NOTHING_LEARNT,
    ) -> Decision:
        """Return where an image goes.

        A tier that could not be done with it before its deadline is passed by.

        Args:
            facts: What is known of the image.
            down: The tiers that nobody works for.
            needed: Seconds that an image takes at a later tier, of those that it is known of.
        """
        skipped: list[str] = []
        for portion in self._portions:
            portion.see()
        # Every condition is passed by at the least cost where a route does not have it.
        confidence, left = facts.confidence, facts.left
        for low, high, spread, tagged, absent, more, share, decision in self._rules:
            if (
                low <= confidence < high
                and (spread is None or facts.disagreement <= spread)
                and (tagged is None or tagged.holds(facts.tags))
                and (not absent or absent <= down)
                and (not more or all(holds(facts) for holds in more))
                and (not needed or self._in_time(decision, left, needed, skipped))
                and (share is None or share.take())
            ):
                return decision
        if not needed or self._in_time(self._default, left, needed, skipped):
            return self._default
        return Decision(None, _no_time(left, needed, skipped), None, skipped)

    def _in_time(
        self, decision: Decision, left: float, needed: Mapping[str, float], skipped: list[str]
    ) -> bool:
        """Return whether an image can be through with a tier in time; note it if not."""
        to = decision.next_tier
        if to is None or left == math.inf or to not in needed or left >= needed[to]:
            return True
        if to not in skipped:
            skipped.append(to)
        return False


def _no_time(left: float, needed: Mapping[str, float], skipped: Sequence[str]) -> str:
    taking = ", ".join(f"{name} takes {needed[name]:.3g} s" for name in skipped)
    return f"no time: {taking}, {max(0.0, left):.3g} s left"[:MOST_REASON]


def _decision(route: Route) -> Decision:
    to = None if route.to == EXIT else route.to
    gives = dict(one.split("=", 1) for one in route.gives)
    reason = route.reason or describe(route)
    return Decision(to, reason, route.tiers_down or None, None, gives or NO_TAGS)


def _leading(cascade: Cascade, decision: Decision) -> Decision:
    """Return a decision that leads past tiers which are left out, to the next that is there.

    Those that it passes are named among the tiers that are down.
    """
    left_out = cascade.left_out
    if decision.next_tier not in left_out:
        return decision
    later = [decision.next_tier, *cascade.following(decision.next_tier)]
    passed = list(takewhile(left_out.__contains__, later))
    onward = next(iter(later[len(passed) :]), None)
    reason = f"{decision.reason}; left out: {', '.join(passed)}"
    down = list(dict.fromkeys([*(decision.down or ()), *passed]))
    return decision._replace(next_tier=onward, reason=reason[:MOST_REASON], down=down)


def describe(route: Route) -> str:
    """Return a route's conditions in words, for the votes' ``reason``."""
    return " and ".join(_described(route))[:MOST_REASON] or "always"


def _described(route: Route) -> list[str]:
    pairs = [
        (route.min_confidence, "confidence ≥ {:g}"),
        (route.max_confidence, "confidence < {:g}"),
        (route.min_probability, "probability ≥ {:g}"),
        (route.max_probability, "probability < {:g}"),
        (route.min_disagreement, "disagreement > {:g}"),
        (route.max_disagreement, "disagreement ≤ {:g}"),
        (route.min_losing, "losing votes ≥ {:g}"),
        (route.max_losing, "losing votes ≤ {:g}"),
        (route.min_boxes, "boxes ≥ {:g}"),
        (route.max_boxes, "boxes ≤ {:g}"),
        (route.min_kinds, "kinds of boxes ≥ {:g}"),
        (route.min_budget, "seconds left ≥ {:g}"),
        (route.max_budget, "seconds left < {:g}"),
    ]
    parts = [text.format(value) for value, text in pairs if value is not None]
    if route.session is not None:
        parts.append("in a session" if route.session else "in no session")
    if route.tiers_down:
        parts.append(f"nobody works for {', nor for '.join(route.tiers_down)}")
    parts += asked_of_tags(route)
    if route.max_share is not None:
        parts.append(f"at most {route.max_share:.10g} of the images")
    return parts


def asked_of_tags(asked: TagConditions) -> list[str]:
    """Return what is asked of tags, in words."""
    parts = [f"tag {one}" for one in asked.tags_all]
    if asked.tags_any:
        parts.append(_listed("tag", "any of the tags", asked.tags_any))
    if asked.tags_none:
        parts.append(_listed("no tag", "none of the tags", asked.tags_none))
    return parts


def _listed(one: str, several: str, tags: Sequence[str]) -> str:
    return f"{one if len(tags) == 1 else several} {', '.join(tags)}"
