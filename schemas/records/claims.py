"""What the topic ``cascades`` holds: whose a log's topics are, which groups have begun there, the
versions of the cascade, with the one that new images are judged by, and what its tiers take.

The topic is compacted: of each key the last record stays. What it says of the owner is made so that
it does not depend on what compaction has taken meanwhile.
"""

from collections.abc import Iterable

import msgspec

from roadstream.schemas.cascade.model import Snapshot
from roadstream.schemas.records.bounds import NonNegative, Share, Text, Time, Word


class Claim(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="cascade_claim.v1"):
    """A cascade says that a log's topics are its own. Its key is the cascade's name.

    Attributes:
        cascade: Its name.
        cascade_hash: Its hash at that time; only told, as another version is no other cascade.
        claimed_at: When.
        adopts: Whether it takes them over from the cascade that has them.
    """

    cascade: Text
    cascade_hash: Text
    claimed_at: Time
    adopts: bool = False

    @property
    def key(self) -> bytes:
        """Key of the record."""
        return b"cascade:" + self.cascade.encode()


class Begun(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="group_begun.v1"):
    """A group that had committed nothing begins; its key is the group's name.

    Attributes:
        group: Its name, without a namespace.
        start: Where it begins.
        begun_at: When.
    """

    group: Word
    start: Word
    begun_at: Time

    @property
    def key(self) -> bytes:
        """Key of the record."""
        return b"group:" + self.group.encode()


class CascadeVersion(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="cascade_version.v1"
):
    """A version of the cascade; its key is its hash.

    Attributes:
        snapshot: Its file, what that names, and the digests of its weights, which lie elsewhere.
        told_at: When.
    """

    snapshot: Snapshot
    told_at: Time

    @property
    def key(self) -> bytes:
        """Key of the record."""
        return b"version:" + self.snapshot.hash.encode()


class Roll(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="cascade_roll.v1"):
    """By which versions images are judged that begin from now on; there is one record of it.

    Attributes:
        main: Hash of the version of all, or of all but a share.
        candidate: Hash of the version that judges a share of them; ``None`` without one.
        share: That share, in [0, 1].
        previous: Hashes of the main versions before, the latest first.
        rolled_at: When.
    """

    main: Word
    candidate: Word | None = None
    share: Share = 0.0
    previous: list[Word] = []
    rolled_at: Time = 0.0

    @property
    def key(self) -> bytes:
        """Key of the record."""
        return b"roll"


class ServiceTime(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="service_time.v1"
):
    """What a live image takes that is sent to a tier now, as one of the tier's workers finds.

    Attributes:
        tier: Name of the tier.
        worker: Name of the worker.
        seconds: From the image's record on the tier's topic until its votes are on the log.
        told_at: When.
    """

    tier: Word
    worker: Word
    seconds: NonNegative
    told_at: Time

    @property
    def key(self) -> bytes:
        """Key of the record."""
        return b"service:" + self.tier.encode()


Told = Claim | Begun | CascadeVersion | Roll | ServiceTime
decode_told = msgspec.msgpack.Decoder(Told).decode


class Claims:
    """What the records of the topic say together, told in their order. Pure.

    The first claim holds until another cascade adopts; of two that claim at once, the first.
    """

    def __init__(self, told: Iterable[Told] = ()) -> None:
        self.owner: str | None = None
        self.begun: dict[str, Begun] = {}
        for one in told:
            self._add(one)

    def _add(self, one: Told) -> None:
        if isinstance(one, Begun):
            self.begun[one.group] = one
        elif isinstance(one, Claim) and (self.owner is None or one.adopts):
            self.owner = one.cascade
