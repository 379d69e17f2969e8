"""What is wrong with the rules and ensembles of a cascade file."""

from collections.abc import Iterator

from roadstream.schemas.cascade.model import CascadeFile, Member, Tier
from roadstream.schemas.cascade.names import each, named, names_of
from roadstream.schemas.cascade.rules import (
    DIFFICULTY_WEIGHTS,
    KINDS,
    Adapt,
    Conflict,
    Difficulty,
    Rule,
    Size,
)
from roadstream.schemas.cascade.structure import known
from roadstream.schemas.errors import ConfigError


def check_rules(file: CascadeFile, where: str) -> Iterator[ConfigError]:
    """Yield what is wrong with the rules.

    Args:
        file: As ``Reader`` made it.
        where: Names it in errors.
    """
    seen: dict[object, int] = {}
    for index, rule in each(file.rules):
        at = f"{where}: rules[{index}]"
        yield from _check_rule(rule, file, at)
        if not (known(rule.enabled) and rule.enabled):
            continue
        for key, said in _purposes(rule):
            if key in seen:
                expected = f"nothing that contradicts rules[{seen[key]}]"
                yield ConfigError(at, expected, said)
            else:
                seen[key] = index


def check_ensemble(tier: Tier, where: str) -> Iterator[ConfigError]:
    """Yield what is wrong with a tier's ensemble.

    Args:
        tier: As ``Reader`` made it.
        where: The file, and the tier's place there.
    """
    ensemble = tier.ensemble
    if not known(ensemble) or ensemble is None or not known(tier.members):
        return
    voting = _counting(tier.members)
    expected = "a member of this tier of weight above 0 ({})"
    for index, name in each(ensemble.members):
        at = f"{where}.ensemble.members[{index}]"
        yield from named(name, names_of(voting), at, expected)
    if known(ensemble.members) and not ensemble.members:
        kinds = [one.kind if known(one) else "detection" for one in voting]
        if all(known(kind) and kind != "detection" for kind in kinds):
            wanted = "names, as no member of the tier is of kind detection"
            yield ConfigError(f"{where}.ensemble.members", wanted, "nothing")


def _counting(members: list[Member]) -> list[Member]:
    """Return all members but shadow members; also those of which that cannot be told."""
    return [one for one in members if not (known(one) and one.weight == 0)]


def _check_rule(rule: Rule, file: CascadeFile, at: str) -> Iterator[ConfigError]:
    members = [one for _, tier in each(file.tiers) for _, one in each(tier.members)]
    if isinstance(rule, Conflict):
        later = names_of(file.tiers[1:]) if known(file.tiers) else []
        yield from named(rule.tier, later, f"{at}.tier", "a tier behind the first ({})")
    elif isinstance(rule, Size):
        expected = "a member of weight above 0 ({})"
        yield from named(rule.depth, names_of(_counting(members)), f"{at}.depth", expected)
        yield from _check_size(rule, at)
    elif isinstance(rule, Difficulty):
        yield from _check_difficulty(rule, at)
    elif known(rule.weights):
        expected = f"a kind ({', '.join(KINDS)}) or a member ({{}})"
        for name in rule.weights:
            if name not in KINDS:
                yield from named(name, names_of(members), f"{at}.weights", expected)


def _check_difficulty(rule: Difficulty, at: str) -> Iterator[ConfigError]:
    if known(rule.bounds) and list(rule.bounds) != sorted({*rule.bounds}):
        yield ConfigError(f"{at}.bounds", "four numbers that rise", f"{list(rule.bounds)}")
    if not known(rule.weights):
        return
    for name in rule.weights:
        yield from named(name, list(DIFFICULTY_WEIGHTS), f"{at}.weights", "a feature ({})")
    if not any((DIFFICULTY_WEIGHTS | rule.weights).values()):
        yield ConfigError(f"{at}.weights", "a feature of weight above 0", "only 0")


def _check_size(rule: Size, at: str) -> Iterator[ConfigError]:
    pairs: dict[str, tuple[float, float]] = {}
    if known(rule.metres):
        pairs |= {f"metres.{name}": pair for name, pair in rule.metres.items()}
    if known(rule.focal_range):
        pairs["focal_range"] = rule.focal_range
    for name, pair in pairs.items():
        if known(pair) and all(map(known, pair)) and pair[0] > pair[1]:
            yield ConfigError(f"{at}.{name}", "the least first, then the greatest", f"{list(pair)}")


def _purposes(rule: Rule) -> Iterator[tuple[object, str]]:
    """Yield what only one rule may do, as a key, with how it is said where a second one does it."""
    if isinstance(rule, Conflict):
        if known(rule.tier):
            yield ("conflict", rule.tier), f"another conflict rule of the tier {rule.tier}"
    elif isinstance(rule, Size):
        yield "size", "another size rule"
    elif isinstance(rule, Difficulty):
        yield "difficulty", "another difficulty rule"
    elif all(map(known, (rule.tags_all, rule.tags_any, rule.tags_none, rule.weights, rule.shift))):
        yield from _adapting(rule)


def _adapting(rule: Adapt) -> Iterator[tuple[object, str]]:
    """Yield what an ``adapt`` rule changes, where it holds; two may not change the same there."""
    lists = (rule.tags_all, rule.tags_any, rule.tags_none)
    if not all(known(one) for conditions in lists for one in conditions):
        return
    when = tuple(frozenset(conditions) for conditions in lists)
    if rule.shift:
        yield ("shift", when), f"a shift of {rule.shift:g} under the same conditions"
    if known(rule.box_confidence) and rule.box_confidence != 1:
        yield ("boxes", when), "another confidence of boxes under the same conditions"
    if known(rule.box_margin) and rule.box_margin:
        yield ("margins", when), "another margin of boxes under the same conditions"
    for name in rule.weights:
        yield ("weights", name, when), f"a weight for {name} under the same conditions"
