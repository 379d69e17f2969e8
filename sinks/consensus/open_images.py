"""What the join keeps of images whose path has not ended, and of the packs that wait for them."""

from collections import OrderedDict
from math import inf

from roadstream.schemas.records.votes import ImageVotes, VotesPack
from roadstream.schemas.topics import CARRIED
from roadstream.sinks.consensus.answer import TierVotes
from roadstream.sinks.consensus.answered import AnsweredIds, Content
from roadstream.streams.log import RecordId


class OpenPack:
    """A pack with open images.

    Attributes:
        pack: The pack.
        source: Where it stands.
        count: Answers of its partition when it was delivered.
        copied: Whether it holds votes carried forward.
        left: Votes in it whose images are open.
    """

    __slots__ = ("copied", "count", "left", "pack", "source")

    def __init__(self, pack: VotesPack, source: RecordId, count: int) -> None:
        self.pack, self.source, self.count = pack, source, count
        self.copied = source[0].topic == CARRIED
        self.left = 0


class OpenVotes:
    """A tier's votes for an open image.

    Attributes:
        pack: The open pack that it is in; ``None`` while a copy is on its way.
        voted: The votes.
    """

    __slots__ = ("pack", "voted")

    def __init__(self, pack: OpenPack, votes: ImageVotes) -> None:
        self.pack: OpenPack | None = pack
        self.voted = TierVotes(pack.pack, votes)


class OpenImage:
    """An image whose path has not ended.

    Attributes:
        partition: Where its votes come from.
        content_hash: Hash of its content, if known.
        first_at: When its first votes came.
        votes: Its votes, by tier.
        sources: The packs that wait for it, once per vote.
    """

    __slots__ = ("content_hash", "first_at", "partition", "sources", "votes")

    def __init__(self, partition: int, first_at: float) -> None:
        self.partition, self.first_at = partition, first_at
        self.content_hash: Content = None
        self.votes: dict[str, OpenVotes] = {}
        self.sources: list[OpenPack] = []

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


class OwnedPartition:
    """What is kept of one partition.

    Attributes:
        answered: The images answered on it lately.
        packs: Those with open images, in order of delivery.
        replayed_from: Lowest count at which an image was answered before the takeover whose votes
            came again since any is open: they stay uncommitted with it.
        travelling: Copies on their way, by tier and image, with the count at which they left.
    """

    __slots__ = ("answered", "packs", "replayed_from", "travelling")

    def __init__(self, answered: AnsweredIds) -> None:
        self.answered = answered
        self.packs: OrderedDict[RecordId, OpenPack] = OrderedDict()
        self.replayed_from = inf
        self.travelling: dict[tuple[str, str], int] = {}
