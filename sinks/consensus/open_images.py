"""What the join keeps of images whose path has not ended, and of the packs that wait for them."""

from math import inf

import msgspec

from roadstream.schemas.records.votes import VotesPack
from roadstream.sinks.consensus.answer import TierVotes
from roadstream.sinks.consensus.answered import AnsweredIds, Content
from roadstream.streams.log import RecordId


class OpenPack(msgspec.Struct, eq=False):
    """A pack with open images.

    Attributes:
        pack: The pack.
        source: Where it stands.
        count: Answers of its partition when it was delivered.
        copied: Whether it holds votes carried forward.
        left: Votes in it whose images are open.
    """

    pack: VotesPack
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


class OpenImage(msgspec.Struct, eq=False):
    """An image whose path has not ended.

    Attributes:
        partition: Where its votes come from.
        content_hash: Hash of its content, if known.
        first_at: When its first votes came.
        votes: Its votes, by tier.
        sources: The packs that wait for it, once per vote.
    """

    partition: int
    first_at: float
    content_hash: Content = None
    votes: dict[str, OpenVotes] = {}
    sources: list[OpenPack] = []

    def is_complete(self, first: str) -> bool:
        """Return whether the path that begins at the tier ``first`` ends in an exit."""
        tier: str | None = first
        for _ in self.votes:  # a path that goes in circles, as no router makes, ends too
            cast = self.votes.get(tier) if tier is not None else None
            if cast is None:
                break
            tier = cast.voted.votes.next_tier
        return tier is None or tier in self.votes

    def is_orphan(self, first: str) -> bool:
        """Return whether it may wait for ever: its path has no beginning, or misses an exit.

        To be asked of an image whose path is not complete.
        """
        if first not in self.votes:
            return True
        return any(cast.voted.votes.next_tier is None for cast in self.votes.values())


class OwnedPartition(msgspec.Struct, eq=False):
    """What is kept of one partition.

    Attributes:
        answered: The images answered on it lately.
        packs: Those with open images, in order of delivery.
        replayed_from: Lowest count at which an image was answered before the takeover whose votes
            came again since any is open: they stay uncommitted with it.
        travelling: Copies on their way, by tier and image, with the count at which they left.
    """

    answered: AnsweredIds
    packs: dict[RecordId, OpenPack] = {}
    replayed_from: float = inf
    travelling: dict[tuple[str, str], int] = {}
