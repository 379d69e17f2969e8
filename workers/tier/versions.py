"""Which versions of the cascade a tier worker judges by: the port, and what has but one."""

import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import MemberRun
from roadstream.stages.voting.route import NOTHING_LEARNT
from roadstream.workers.tier.judge import Judge


class Unavailable(NamedTuple):
    """A version that this process cannot judge by.

    Attributes:
        reason: Why.
        since: Since when it is known, in monotonic seconds.
        cascade: Name of its cascade; empty if that is not known.
        runs: Runs of its members, none of which was called.
    """

    reason: str
    since: float
    cascade: str = ""
    runs: Sequence[MemberRun] = ()


class Versions(Protocol):
    """Says by which version an image is judged, and has the judges."""

    @property
    def main(self) -> str:
        """Hash of the version that images begin with, or most of them."""

    @property
    def current(self) -> Collection[str]:
        """Hashes of the versions that images begin with now."""

    @property
    def needed(self) -> Mapping[str, float]:
        """Seconds that an image takes at later tiers until it is answered, where that is known.

        Any thread may ask.
        """

    def begun(self, head: Head) -> str:
        """Return the version that an image begins with which has none yet."""

    def judge(self, tier: str, version: str) -> Judge | Unavailable | None:
        """Return a version's judge of a tier; ``None`` while it is being loaded.

        To ask is to want it: who asks for one that is not loaded has it loaded.
        """

    def done(self, tier: str, version: str) -> None:
        """Say that no image of a version is at a tier of this process any more."""


class OneVersion:
    """The version of a judge, and no other.

    Args:
        judge: The judge.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.main = judge.cascade.hash
        self.current = (self.main,)
        self.needed: Mapping[str, float] = NOTHING_LEARNT

    def begun(self, head: Head) -> str:
        """See ``Versions``."""
        return self.main

    def judge(self, tier: str, version: str) -> Judge | Unavailable | None:
        """See ``Versions``."""
        if version == self.main:
            return self._judge
        return Unavailable(f"this process judges by {self.main or 'one version'} only", 0.0)

    def done(self, tier: str, version: str) -> None:
        """See ``Versions``."""


def place(head: Head) -> float:
    """Return where in [0, 1) an image lies by its session, so that a drive stays together."""
    return zlib.crc32(head.key) / 2**32
