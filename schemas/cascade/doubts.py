"""What a cascade file says that can be meant, and hardly is: routes, rules and tiers of no use."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from roadstream.schemas.cascade.model import CascadeFile, Member, Tier
from roadstream.schemas.cascade.routes import Route, TagConditions
from roadstream.schemas.cascade.rules import Adapt, Conflict, Difficulty, Size
from roadstream.schemas.settings.base import TagsGiven

GivenBy = Callable[[Member], TagsGiven | None]
# Fields of a route that bound a number from below and from above, and how the range is said.
_RANGES = (
    ("confidence", "min_confidence", "max_confidence"),
    ("probability", "min_probability", "max_probability"),
    ("disagreement", "min_disagreement", "max_disagreement"),
    ("number of losing votes", "min_losing", "max_losing"),
    ("number of boxes", "min_boxes", "max_boxes"),
    ("number of kinds", "min_kinds", None),
    ("time left", "min_budget", "max_budget"),
)
# How the ends of a range are said; of counts both belong to it.
_HALF_OPEN, _CLOSED = "at least {:g} and below {:g}", "at least {:g} and at most {:g}"
_ENDS = {
    "disagreement": "above {:g} and at most {:g}",
    "number of losing votes": _CLOSED,
    "number of boxes": _CLOSED,
}


def doubts(file: CascadeFile, given_by: GivenBy) -> Iterator[str]:
    """Yield what is doubtful about a file with which nothing is wrong.

    Args:
        file: The file.
        given_by: Tells which tags a member may give; asked only where something asks for tags.
    """
    yield from _ways(file)
    yield from _rules(file)
    yield from dict.fromkeys(_unset_tags(file, given_by))
    yield from _blind(file, given_by)


def _ways(file: CascadeFile) -> Iterator[str]:
    """Yield routes that no image takes, and tiers that none comes to."""
    reached = {file.tiers[0].name}
    for index, tier in enumerate(file.tiers):
        useful: list[Route] = []
        for place, route in enumerate(tier.routes):
            at, why = f"tiers[{index}].routes[{place}]", _useless(route, tier.routes[:place])
            if why is None:
                useful.append(route)
            else:
                yield f"{at}: {why}"
            for name in _repeated(route.gives):
                yield f"{at}: of the tag {name} only the last value counts"
        if tier.name not in reached:
            yield f"tiers[{index}]: nothing leads to {tier.name}"
            continue
        reached |= {route.to for route in useful}
        # Images that are explored go on whatever routes say.
        if file.exploration.share or not any(route.unconditional for route in useful):
            reached |= {other.name for other in _following(file.tiers[index + 1 :])}


def _repeated(tags: Sequence[str]) -> list[str]:
    """Return the names that several of these tags have."""
    counts = Counter(one.partition("=")[0] for one in tags)
    return [name for name, count in counts.items() if count > 1]


def _following(later: Sequence[Tier]) -> Sequence[Tier]:
    """Return the next tier, in a list of its own; none at the end."""
    return [tier for tier in later if not tier.off_path][:1]


def _useless(route: Route, before: list[Route]) -> str | None:
    """Return why no picture takes a route, if so."""
    if (why := _impossible(route) or _never(route)) is not None:
        return f"it never holds: {why}"
    for place, other in enumerate(before):
        if _covers(other, route):
            return f"nothing reaches it: whenever it holds, routes[{place}] before it does"
    return None


def _impossible(route: Route) -> str | None:
    """Return why no image has the numbers that a route asks for, if so."""
    for said, low, high in _bounds(route):
        ends = _ENDS.get(said, _HALF_OPEN)
        if low > high or (low == high and ends != _CLOSED):
            return f"no {said} is {ends.format(low, high)}"
    if 0 in (route.max_confidence, route.max_probability):
        return "no confidence or probability is below 0"
    if route.max_boxes is not None and (route.min_kinds or 0) > route.max_boxes:
        return f"at most {route.max_boxes} boxes are of less than {route.min_kinds} kinds"
    return "its share is 0" if route.max_share == 0 else None


def _bounds(route: Route) -> Iterator[tuple[str, float, float]]:
    for said, least, most in _RANGES:
        low = getattr(route, least)
        high = None if most is None else getattr(route, most)
        yield said, -math.inf if low is None else low, math.inf if high is None else high


def _covers(wide: Route, narrow: Route) -> bool:
    """Tell whether a route holds whenever another does, as far as its conditions tell."""
    return (
        wide.max_share is None
        and wide.session in (None, narrow.session)
        and all(
            low <= least and most <= high
            for (_, low, high), (_, least, most) in zip(_bounds(wide), _bounds(narrow), strict=True)
        )
        and {*wide.tags_all} <= {*narrow.tags_all}
        and {*wide.tags_none} <= {*narrow.tags_none}
        and (not wide.tags_any or {*wide.tags_any} == {*narrow.tags_any})
        and {*wide.tiers_down} <= {*narrow.tiers_down}
    )


def _never(asked: TagConditions) -> str | None:
    """Return why what is asked of tags never holds, if so."""
    values: dict[str, str] = {}
    for condition in asked.tags_all:
        name, separator, value = condition.partition("=")
        if condition in asked.tags_none or name in asked.tags_none:
            return f"it wants the tag {condition}, and wants it not"
        if separator and values.setdefault(name, value) != value:
            return f"no tag {name} is both {values[name]} and {value}"
    if asked.tags_any and all(_refused(one, asked.tags_none) for one in asked.tags_any):
        return "it wants one of the tags that it wants none of"
    return None


def _refused(condition: str, none: Collection[str]) -> bool:
    return condition in none or condition.partition("=")[0] in none


def _rules(file: CascadeFile) -> Iterator[str]:
    """Yield rules of no use, and rules that leave a tier without a vote."""
    for index, rule in enumerate(file.rules):
        if isinstance(rule, Size) and rule.enabled and not _detecting(file, rule):
            yield f"rules[{index}]: no vote changes by it: nobody so far is of kind detection"
        if not isinstance(rule, Adapt) or not rule.enabled:
            continue
        if not rule.votes and not rule.boxes:
            yield f"rules[{index}]: it changes nothing"
        if (why := _never(rule)) is not None:
            yield f"rules[{index}]: it never holds: {why}"
        for place, tier in enumerate(file.tiers):
            if _silenced(tier, rule.weights):
                yield f"rules[{index}]: while it holds, no vote of tiers[{place}] counts"


def _detecting(file: CascadeFile, rule: Size) -> bool:
    """Tell whether there is a detector no later than the member that measures depth."""
    for tier in file.tiers:
        if any(one.kind == "detection" for one in tier.members):
            return True
        if any(one.name == rule.depth for one in tier.members):
            break
    return False


def _silenced(tier: Tier, factors: Mapping[str, float]) -> bool:
    """Tell whether factors leave no weight in a tier."""
    left = [
        one.weight * factors.get(one.name, factors.get(one.kind or "", 1.0)) for one in tier.members
    ]
    return not any(left)


def _unset_tags(file: CascadeFile, given_by: GivenBy) -> Iterator[str]:
    """Yield conditions on tags that nobody gives, where that can be told."""
    conditions = [
        (where, condition)
        for where, asked in _asking(file)
        for condition in (*asked.tags_all, *asked.tags_any, *asked.tags_none)
    ]
    known = tags_given(file, given_by) if conditions else None
    if known is not None:
        for where, condition in conditions:
            name, separator, value = condition.partition("=")
            if name not in known:
                yield f"{where}: nobody gives the tag {name}"
            elif separator and (values := known[name]) is not None and value not in values:
                yield f"{where}: the tag {name} is never {value}: {', '.join(sorted(values))}"


def _asking(file: CascadeFile) -> Iterator[tuple[str, TagConditions]]:
    for i, tier in enumerate(file.tiers):
        for j, route in enumerate(tier.routes):
            yield f"tiers[{i}].routes[{j}]", route
    for i, rule in enumerate(file.rules):
        if isinstance(rule, Adapt) and rule.enabled:
            yield f"rules[{i}]", rule


def _blind(file: CascadeFile, given_by: GivenBy) -> Iterator[str]:
    """Yield rules that go by the depth of a member that measures none: it would give the tag."""
    members = {one.name: one for tier in file.tiers for one in tier.members}
    for i, rule in enumerate(file.rules):
        if isinstance(rule, Size) and rule.enabled and (sight := members.get(rule.depth)):
            given = given_by(sight)
            if given is not None and "depth" not in given:
                yield f"rules[{i}]: {sight.name}, of the engine {sight.engine}, measures no depth"


def tags_given(file: CascadeFile, given_by: GivenBy) -> dict[str, frozenset[str] | None] | None:
    """Return the tags that members and rules may give, each with its values where these are known.

    ``None`` if that cannot be told of a member.
    """
    found: dict[str, frozenset[str] | None] = {}
    for tier in file.tiers:
        for member in tier.members:
            given = given_by(member)
            if given is None:
                return None
            found |= given
    for name, value in _by_file(file):
        values = found.get(name, frozenset())
        found[name] = None if values is None else values | {value}
    return found


def _by_file(file: CascadeFile) -> Iterator[tuple[str, str]]:
    """Yield the tags, name and value, that rules, routes and exploration give."""
    for rule in [rule for rule in file.rules if rule.enabled]:
        if isinstance(rule, Conflict):
            yield from (("conflict", f"{rule.tier}-{said}") for said in ("yes", "no"))
        elif isinstance(rule, Size):
            yield from (("size", said) for said in ("plausible", "impossible", "unknown"))
        elif isinstance(rule, Difficulty):
            yield from (("difficulty", number) for number in "12345")
    for route in [route for tier in file.tiers for route in tier.routes]:
        for given in route.gives:
            name, _, value = given.partition("=")
            yield name, value
    if file.exploration.share:
        yield "explored", "yes"
