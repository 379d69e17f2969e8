"""Names in a cascade file that must name something, as far as the file can be read."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import TypeVar, cast

from roadstream.schemas.cascade.model import Member, Tier
from roadstream.schemas.cascade.structure import Broken, known
from roadstream.schemas.errors import MOST_SHOWN, ConfigError, shortened

T = TypeVar("T")


def each(found: list[T]) -> Iterator[tuple[int, T]]:
    """Yield what is well of a list, with its position there."""
    if known(found):
        yield from ((index, one) for index, one in enumerate(found) if known(one))


def names_of(found: Sequence[Tier | Member]) -> list[str]:
    """Return the names of tiers or members; those that are broken have a broken one."""
    names = [one.name if known(one) else one for one in found]
    return list(dict.fromkeys(cast("list[str]", names)))


def named(name: str, names: list[str], where: str, expected: str) -> Iterator[ConfigError]:
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
