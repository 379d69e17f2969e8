"""What is wrong between the keys of a cascade file, where each alone may be well.

Of what is ``Broken`` nothing more is said, nor of what may be wrong only because of it.
"""

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import TypeVar, cast

from roadstream.schemas.cascade.model import CascadeFile, Isotonic, Member, Tier
from roadstream.schemas.cascade.routes import EXIT, Route
from roadstream.schemas.cascade.structure import Broken, known
from roadstream.schemas.engines import MODEL_KINDS, EngineEntry
from roadstream.schemas.errors import MOST_SHOWN, ConfigError, shortened
from roadstream.schemas.settings.base import EngineSettings

T = TypeVar("T")


def check_file(file: CascadeFile, where: str) -> Iterator[ConfigError]:
    """Yield what is wrong between its names, routes and weights.

    Args:
        file: As ``Reader`` made it.
        where: Names it in errors.
    """
    tiers = dict(each(file.tiers))
    members = {(i, j): one for i, tier in tiers.items() for j, one in each(tier.members)}
    tier_names = {f"tiers[{i}]": tier.name for i, tier in tiers.items()}
    yield from _repeated("tier", tier_names, where)
    spelled = {f"tiers[{i}].members[{j}]": one.name for (i, j), one in members.items()}
    yield from _repeated("member", spelled, where)
    for at, name in tier_names.items():
        if name == EXIT:
            yield ConfigError(f"{where}: {at}.name", f"tier names other than '{EXIT}'", EXIT)
    for index, tier in tiers.items():
        later = _names(file.tiers[index + 1 :])
        yield from _check_tier(tier, later, f"{where}: tiers[{index}]", first=index == 0)


def check_member(member: Member, engine: EngineEntry, where: str) -> Iterator[ConfigError]:
    """Yield what is wrong between a member and its engine, settings aside.

    Args:
        member: As ``Reader`` made it.
        engine: Its engine.
        where: The file, and its place there.
    """
    if member.model is None and engine.model != "none":
        yield ConfigError(f"{where}.model", MODEL_KINDS[engine.model], "nothing")
    if known(member.sizes) and member.sizes and not engine.several_sizes:
        expected = f"no further sizes for the engine {engine.name}"
        yield ConfigError(f"{where}.sizes", expected, f"{member.sizes}")


def check_settings(
    settings: EngineSettings, engine: EngineEntry, where: str
) -> Iterator[ConfigError]:
    """Yield what is wrong between a member's settings and its engine."""
    if settings.evidence and not engine.evidence:
        expected = f"none for the engine {engine.name}, which can make no use of it"
        yield ConfigError(f"{where}.settings.evidence", expected, ", ".join(settings.evidence))


def doubts(file: CascadeFile) -> Iterator[str]:
    """Yield what a file says that can be meant, and hardly is: routes and tiers of no use."""
    reached = {file.tiers[0].name}
    for index, tier in enumerate(file.tiers):
        useful: list[Route] = []
        for place, route in enumerate(tier.routes):
            why = _useless(route, tier.routes[:place])
            if why is None:
                useful.append(route)
            else:
                yield f"tiers[{index}].routes[{place}]: {why}"
        if tier.name not in reached:
            yield f"tiers[{index}]: nothing leads to {tier.name}"
            continue
        reached |= {route.to for route in useful}
        if not any(route.unconditional for route in useful):
            reached |= {other.name for other in file.tiers[index + 1 : index + 2]}


def _useless(route: Route, before: list[Route]) -> str | None:
    """Return why no picture takes a route, if so."""
    low, high = _confidences(route)
    if low >= high:
        return f"it never holds: no confidence is at least {low:g} and below {high:g}"
    for place, other in enumerate(before):
        if _covers(other, route):
            return f"nothing reaches it: whenever it holds, routes[{place}] before it does"
    return None


def _confidences(route: Route) -> tuple[float, float]:
    low = 0.0 if route.min_confidence is None else route.min_confidence
    return low, 2.0 if route.max_confidence is None else route.max_confidence


def _covers(wide: Route, narrow: Route) -> bool:
    """Tell whether a route holds whenever another does, as far as its conditions tell."""
    (low, high), (least, most) = _confidences(wide), _confidences(narrow)
    spread, less = wide.max_disagreement, narrow.max_disagreement
    return (
        low <= least
        and most <= high
        and (spread is None or (less is not None and less <= spread))
        and {*wide.tags_all} <= {*narrow.tags_all}
        and {*wide.tags_none} <= {*narrow.tags_none}
        and (not wide.tags_any or {*wide.tags_any} == {*narrow.tags_any})
        and {*wide.tiers_down} <= {*narrow.tiers_down}
    )


def each(found: list[T]) -> Iterator[tuple[int, T]]:
    """Yield what is well of a list, with its position there."""
    if known(found):
        yield from ((index, one) for index, one in enumerate(found) if known(one))


def _repeated(kind: str, names: dict[str, str], where: str) -> Iterator[ConfigError]:
    seen: dict[str, int] = {}
    for at, name in names.items():
        if known(name):
            seen[name] = times = seen.get(name, 0) + 1
            if times > 1:
                got = f"{name} {'twice' if times == 2 else f'{times} times'}"
                yield ConfigError(f"{where}: {at}.name", f"{kind} names to be unique", got)


def _check_tier(tier: Tier, later: list[str], where: str, *, first: bool) -> Iterator[ConfigError]:
    voting = _voting(tier.members)
    if not voting:
        yield ConfigError(f"{where}.members", "a member of weight above 0", "only shadow members")
    if first and known(tier.give_up_after) and tier.give_up_after is not None:
        expected = "nothing for the first tier, which nobody can answer without"
        yield ConfigError(f"{where}.give_up_after", expected, f"{tier.give_up_after:g}")
    for index, route in each(tier.routes):
        yield from _check_route(route, later, f"{where}.routes[{index}]")
    if known(tier.fusion) and tier.fusion is not None and voting:
        names = _names(voting)
        expected = "a member of this tier of weight above 0 ({})"
        for index, name in each(tier.fusion.members):
            yield from _named(name, names, f"{where}.fusion.members[{index}]", expected)
    for index, member in each(tier.members):
        yield from _check_calibration(member, f"{where}.members[{index}].calibration")


def _voting(members: list[Member]) -> list[Member]:
    """Return members whose votes may count: also those of which that cannot be read."""
    if not known(members):
        return [cast("Member", members)]  # what is broken stands for all of them
    return [one for one in members if not (known(one) and one.weight == 0)]


def _names(found: Sequence[Tier | Member]) -> list[str]:
    """Return the names of tiers or members; those that are broken have a broken one."""
    names = [one.name if known(one) else one for one in found]
    return list(dict.fromkeys(cast("list[str]", names)))


def _check_route(route: Route, later: list[str], where: str) -> Iterator[ConfigError]:
    yield from _named(route.to, [EXIT, *later], f"{where}.to", "one of {}")
    for index, name in each(route.tiers_down):
        yield from _named(name, later, f"{where}.tiers_down[{index}]", "a later tier ({})")


def _named(name: str, names: list[str], where: str, expected: str) -> Iterator[ConfigError]:
    """Yield that a name names nothing, unless what it names may have lost its name only."""
    there = [one for one in names if known(one)]
    lost = [one.given for one in names if isinstance(one, Broken)]
    if known(name) and name not in there and not any(_may_be(name, one) for one in lost):
        said = expected.format(", ".join(there) or "there is none")
        yield ConfigError(where, said, shortened(name))


def _may_be(name: str, lost: object) -> bool:
    """Tell whether a name may be that of something whose own is misspelled or missing."""
    return not isinstance(lost, str) or bool(
        get_close_matches(name[:MOST_SHOWN], [lost[:MOST_SHOWN]])
    )


def _check_calibration(member: Member, where: str) -> Iterator[ConfigError]:
    fitted = member.calibration
    if isinstance(fitted, Isotonic) and _all_known(fitted.raw, fitted.probability):
        pairs = zip(fitted.raw, fitted.raw[1:], strict=False)
        same = len(fitted.raw) == len(fitted.probability) >= 2
        if not (same and all(a < b for a, b in pairs)):
            expected = "as many probabilities as raw scores, at least 2, raw increasing"
            got = f"raw={fitted.raw}, probability={fitted.probability}"
            yield ConfigError(where, expected, shortened(got))


def _all_known(*lists: Iterable[object]) -> bool:
    return all(known(one) and all(map(known, one)) for one in lists)
