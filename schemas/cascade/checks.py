"""What is wrong between the keys of a cascade file, where each alone may be well.

Of what is ``Broken`` nothing more is said, nor of what may be wrong only because of it.
"""

from collections.abc import Iterable, Iterator
from typing import cast

from roadstream.schemas.cascade.model import CascadeFile, Isotonic, Member, Tier
from roadstream.schemas.cascade.names import each, named, names_of
from roadstream.schemas.cascade.routes import EXIT, Route
from roadstream.schemas.cascade.rule_checks import check_ensemble, check_rules
from roadstream.schemas.cascade.structure import known
from roadstream.schemas.engines import MODEL_KINDS, EngineEntry
from roadstream.schemas.errors import ConfigError, shortened
from roadstream.schemas.settings.base import EngineSettings


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
        later = names_of(file.tiers[index + 1 :])
        at = f"{where}: tiers[{index}]"
        yield from _check_tier(tier, later, at, first=index == 0)
        yield from check_ensemble(tier, at)
    yield from check_rules(file, where)


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
    for key, expected, got in settings.mistakes():
        yield ConfigError(f"{where}.settings.{key}", expected, got)


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
    if first and known(tier.off_path) and tier.off_path:
        yield ConfigError(f"{where}.off_path", "false for the first tier, where all begin", "true")
    for index, route in each(tier.routes):
        yield from _check_route(route, later, f"{where}.routes[{index}]")
    if known(tier.fusion) and tier.fusion is not None and voting:
        names = names_of(voting)
        expected = "a member of this tier of weight above 0 ({})"
        for index, name in each(tier.fusion.members):
            yield from named(name, names, f"{where}.fusion.members[{index}]", expected)
    for index, member in each(tier.members):
        yield from _check_calibration(member, f"{where}.members[{index}].calibration")


def _voting(members: list[Member]) -> list[Member]:
    """Return members whose votes may count: also those of which that cannot be read."""
    if not known(members):
        return [cast("Member", members)]  # what is broken stands for all of them
    return [one for one in members if not (known(one) and one.weight == 0)]


def _check_route(route: Route, later: list[str], where: str) -> Iterator[ConfigError]:
    yield from named(route.to, [EXIT, *later], f"{where}.to", "one of {}")
    for index, name in each(route.tiers_down):
        yield from named(name, later, f"{where}.tiers_down[{index}]", "a later tier ({})")


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
