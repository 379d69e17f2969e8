"""What the join keeps of images whose path has not ended, and of the packs that wait for them."""

from math import inf

import msgspec

from roadstream.schemas.records.votes import VotesPack
from roadstream.sinks.consensus.answer import TierVotes
from roadstream.sinks.consensus.answered import AnsweredIds, Content
from roadstream.sinks.consensus.versions import Rules
from roadstream.streams.log import RecordId


class OpenPack(msgspec.Struct, eq=False):
    """A pack with open images.

    Attributes:
        pack: The pack.
        rules: Those of its version.
        source: Where it stands.
        count: Answers of its partition when it was delivered.
        copied: Whether it holds votes carried forward.
        left: Votes in it whose images are open.
    """

    pack: VotesPack
    rules: Rules
    source: RecordId
    count: int
    copied: bool
    left: int = 0


class OpenVotes(msgspec.Struct, eq=False):
    """A tier's votes for an open image.

    Attributes:
        pack: The open pack that it is in; ``None`` while a copy is on its way.
        voted: The votes.
    """

    pack: OpenPack | None
    voted: TierVotes


class OpenPath(msgspec.Struct, eq=False):
    """The way of an open image by one version of the cascade.

    Attributes:
        rules: Those of the version.
        votes: Its votes, by tier.
        limited: The tier that it waits for, as far as that may have a limit.
        gives_up_at: Steady time, in seconds, at which it goes on without that tier.
    """

    rules: Rules
    votes: dict[str, OpenVotes] = {}
    limited: str | None = None
    gives_up_at: float = inf

    @property
    def awaited(self) -> str | None:
        """The tier whose votes are to come next; ``None`` once the path has ended in an exit."""
        tier = self.rules.first
        for _ in self.votes:  # a path that goes in circles, as no router makes, ends too
            cast = self.votes.get(tier)
            if cast is None:
                return tier
            onward = cast.voted.votes.next_tier
            if onward is None:
                return None
            tier = onward
        return None if tier in self.votes else tier

    @property
    def is_orphan(self) -> bool:
        """Whether it may wait for ever: its path has no beginning, or misses an exit.

        To be asked of a path that has not ended.
        """
        if self.rules.first not in self.votes:
            return True
        return any(cast.voted.votes.next_tier is None for cast in self.votes.values())

    def wait_for(self, tier: str, steady: float) -> bool:
        """Note the tier that it waits for from now on; return whether that changes anything."""
        if tier == self.limited:
            return False
        self.limited = tier
        patience = None if tier == self.rules.first else self.rules.give_up_after.get(tier)
        self.gives_up_at = inf if patience is None else steady + patience
        return True

    def answered_by(self, first_at: float) -> float:
        """Return when an image was answered at the latest, if its first tier's votes had come.

        Args:
            first_at: When these votes came, in seconds since the epoch.

        Returns:
            Its deadline, or when the consensus gave up one of the tiers that have voted now;
            infinity if it may wait for as long as it takes.
        """
        patience, found = self.rules.give_up_after, inf
        for tier, cast in self.votes.items():
            votes = cast.voted.votes
            came = first_at - votes.queued - votes.decoding - votes.inferring
            deadline_at = votes.head.deadline_at
            found = min(found, inf if deadline_at is None else deadline_at)
            found = min(found, came + patience.get(tier, inf))
        return found

    @property
    def passed(self) -> list[TierVotes]:
        """The votes in the order of their tiers."""
        order = self.rules.order
        voted = [cast.voted for cast in self.votes.values()]
        return sorted(voted, key=lambda one: order[one.pack.tier])


class OpenImage(msgspec.Struct, eq=False):
    """An image that has votes and no answer.

    Attributes:
        partition: Where its votes come from.
        first_at: When its first votes came.
        content_hash: Hash of its content, if known.
        paths: Its paths by the version of the cascade, in the order in which they began: there are
            several if a worker died and the next began the image anew by another version.
        sources: The packs that wait for it, once per vote.
    """

    partition: int
    first_at: float
    content_hash: Content = None
    paths: dict[str, OpenPath] = {}
    sources: list[OpenPack] = []

    @property
    def is_orphan(self) -> bool:
        """Whether it may wait for ever, whichever way it goes."""
        return all(path.is_orphan for path in self.paths.values())

    @property
    def has_beginning(self) -> bool:
        """Whether its first tier has voted, by whichever version."""
        return any(path.rules.first in path.votes for path in self.paths.values())

    def was_answered(self, forgotten_until: float) -> bool:
        """Return whether it has had an answer that is remembered no more: its votes are late.

        Its first tier's votes are not there: retention took them, or they came before, and with
        them what ended its wait.

        Args:
            forgotten_until: Time of the last answer that is remembered no more.
        """
        if self.has_beginning:
            return False
        return any(
            path.answered_by(self.first_at) <= forgotten_until for path in self.paths.values()
        )

    @property
    def furthest(self) -> OpenPath:
        """The path on which most tiers have voted; of several, the one that began first."""
        return max(self.paths.values(), key=lambda path: len(path.votes))


class OwnedPartition(msgspec.Struct, eq=False):
    """What is kept of one partition.

    Attributes:
        answered: The images answered on it lately.
        packs: Those with open images, in order of delivery.
        replayed_from: Lowest count at which an image was answered before the takeover whose votes
            came again since any is open: they stay uncommitted with it.
        travelling: Copies on their way, by version, tier and image, with the count at which they
            left.
    """

    answered: AnsweredIds
    packs: dict[RecordId, OpenPack] = {}
    replayed_from: float = inf
    travelling: dict[tuple[str, str, str], int] = {}
