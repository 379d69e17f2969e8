"""The versions of the cascade whose votes come in, and the rules by which each is joined. Pure."""

from collections.abc import Callable
from typing import Protocol
from weakref import WeakValueDictionary

import msgspec

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.records.answer import VoteMath
from roadstream.schemas.topics import CASCADES
from roadstream.sinks.consensus.answer import Answerer

# Versions whose rules are kept, beside those that open images need.
VERSIONS_KEPT = 64


class VersionSource(Protocol):
    """Where versions of the cascade are looked up."""

    async def cascade(self, version: str) -> Cascade | None:
        """Return the version of that hash; ``None`` if nobody has told of it.

        Raises:
            ConfigError: It was told of, and cannot be read on this machine.
            LogUnavailableError: The log does not answer.
        """


class Rules(msgspec.Struct, frozen=True, eq=False, weakref=True):
    """How votes of one version become answers.

    Attributes:
        version: Its hash.
        answerer: Makes the answers.
        order: Its tiers' places, by name.
        first: Its first tier.
        give_up_after: Seconds after which an image is answered without a tier, where there is such
            a limit.
        joined_as: The version as whose votes these are joined: the own cascade's for one that
            nobody told of. What a Roadstream without versions began comes to later tiers without
            one, and what they say must meet what the first has said.
    """

    version: str
    answerer: Answerer
    order: dict[str, int]
    first: str
    give_up_after: dict[str, float]
    joined_as: str


class KnownVersions:
    """The rules of a few versions; those of the own cascade stand in for versions nobody knows.

    Args:
        own: The cascade that this process was started with.
        vote_math: Gives the vote math of a cascade.
    """

    def __init__(self, own: Cascade, vote_math: Callable[[Cascade], VoteMath]) -> None:
        self._own_cascade, self._vote_math = own, vote_math
        self._own = self._rules(own.hash, own)
        self._kept: dict[str, Rules] = {}
        self._in_use: WeakValueDictionary[str, Rules] = WeakValueDictionary()

    def __contains__(self, version: str) -> bool:
        """Return whether the rules of a version are here."""
        return version == self._own.version or version in self._kept or version in self._in_use

    @property
    def own(self) -> Rules:
        """The rules of the version that this process was started with."""
        return self._own

    def rules(self, version: str) -> Rules:
        """Return the rules of a version that was learnt.

        Raises:
            KeyError: It was not.
        """
        if version == self._own.version:
            return self._own
        rules = self._kept.pop(version, None) or self._in_use[version]
        self._keep(rules)
        return rules

    def learn(self, version: str, cascade: Cascade | None, unread: str = "") -> None:
        """Keep the rules of a version; forget those that were used least lately.

        Args:
            version: Its hash.
            cascade: What it is; ``None`` if nobody knows.
            unread: Why it cannot be read, where it is known.
        """
        if cascade is not None:
            rules = self._rules(version, cascade)
        else:
            why = unread or f"the topic {CASCADES} has no cascade version {version}"
            note = f"version_unknown: {why}; judged by the rules of {self._own.version}"
            rules = self._rules(version, self._own_cascade, note)
            if not unread:
                rules = msgspec.structs.replace(rules, joined_as=self._own.version)
        self._in_use[version] = rules
        self._keep(rules)

    def _keep(self, rules: Rules) -> None:
        """Keep rules as those used last."""
        self._kept[rules.version] = rules
        if len(self._kept) > VERSIONS_KEPT:
            del self._kept[next(iter(self._kept))]

    def _rules(self, version: str, cascade: Cascade, note: str | None = None) -> Rules:
        names = cascade.tier_names
        return Rules(
            version,
            Answerer(cascade, self._vote_math(cascade), note),
            {name: i for i, name in enumerate(names)},
            names[0],
            {t.name: t.give_up_after for t in cascade.tiers if t.give_up_after is not None},
            version,
        )
