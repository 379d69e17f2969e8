"""Leaves members and whole tiers of a cascade out, by name."""

from collections.abc import Collection

import msgspec

from roadstream.schemas.cascade.model import Cascade, CascadeFile, Member, Tier
from roadstream.schemas.cascade.names import each
from roadstream.schemas.errors import ConfigError
from roadstream.schemas.settings.base import EngineSettings

WITHOUT = "--without"


def named_members(file: CascadeFile, names: Collection[str]) -> set[str]:
    """Return the members that are left out by names: members, or tiers with all of theirs.

    A name that a member and a tier share is the member's. Of a tier that no vote is left of, all
    members are left out.

    Args:
        file: A cascade file, as far as it could be read.
        names: What is to be left out.
    """
    if not names:
        return set()
    tiers = [[one for _, one in each(tier.members)] for _, tier in each(file.tiers)]
    only_tiers = {*names} - {one.name for members in tiers for one in members}
    absent: set[str] = set()
    for (_, tier), members in zip(each(file.tiers), tiers, strict=True):
        named = {one.name for one in members if one.name in names or tier.name in only_tiers}
        voting = {one.name for one in members if one.weight != 0}
        absent |= {one.name for one in members} if voting <= named else named
    return absent


def check_without(file: CascadeFile, names: Collection[str]) -> None:
    """Check that names can be left out of a cascade file with which nothing is wrong.

    Raises:
        ConfigError: There is no member or tier of such a name; or nothing is left of the first
            tier, where all images begin.
    """
    members = [member.name for tier in file.tiers for member in tier.members]
    there = dict.fromkeys([*members, *(tier.name for tier in file.tiers)])
    for name in names:
        if name not in there:
            raise ConfigError(WITHOUT, f"one of {', '.join(there)}", name)
    first = file.tiers[0]
    if _without(first, named_members(file, names)) is None:
        votes = ", ".join(member.name for member in first.members if member.weight > 0)
        expected = f"a member of the first tier, {first.name}, to be left ({votes})"
        raise ConfigError(WITHOUT, expected, ", ".join(names))


def leave_out(cascade: Cascade, names: Collection[str]) -> Cascade:
    """Return a cascade without some members; a tier that no vote is left of goes as a whole.

    Args:
        cascade: The whole cascade.
        names: Members and tiers to be left out, checked.
    """
    absent = named_members(cascade, names)
    tiers = [(tier, _without(tier, absent)) for tier in cascade.tiers]
    return msgspec.structs.replace(
        cascade,
        tiers=[rest for _, rest in tiers if rest is not None],
        all_tiers=cascade.tier_names,
        all_off_path=[tier.name for tier in cascade.tiers if tier.off_path],
        absent={
            tier.name: [_bare(one) for one in tier.members if one.name in absent]
            for tier, rest in tiers
            if rest is not None and rest is not tier
        },
    )


def _without(tier: Tier, absent: set[str]) -> Tier | None:
    """Return what is left of a tier; ``None`` if nobody is left whose vote counts."""
    left = [member for member in tier.members if member.name not in absent]
    if len(left) == len(tier.members):
        return tier
    if not any(member.weight > 0 for member in left):
        return None
    rest = msgspec.structs.replace(tier, members=left)
    return rest if rest.fused else msgspec.structs.replace(rest, fusion=None)


def _bare(member: Member) -> Member:
    """Return a member without settings: those of engines that are not here cannot be read."""
    return msgspec.structs.replace(member, settings=EngineSettings())
