"""What the topic ``cascades`` holds: whose a log's topics are, and which groups have begun there.

The topic is compacted: of each key the last record stays. What it says of the owner is made so that
it does not depend on what compaction has taken meanwhile.
"""

from collections.abc import Iterable

import msgspec

from roadstream.schemas.records.bounds import Text, Time, Word


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


Told = Claim | Begun
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
        elif self.owner is None or one.adopts:
            self.owner = one.cascade
