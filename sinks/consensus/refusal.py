"""What the consensus does not take in, and the dead letters that become of it. Pure."""

from collections.abc import Container
from typing import NamedTuple

import msgspec

from roadstream.schemas import codec
from roadstream.schemas.errors import RecordError
from roadstream.schemas.records import headers
from roadstream.schemas.records.answer import uneven
from roadstream.schemas.records.headers import Headers
from roadstream.schemas.records.votes import ImageVotes, VotesPack
from roadstream.schemas.topics import CONSENSUS_GROUP, DEAD_LETTERS
from roadstream.sinks.consensus.answered import Content
from roadstream.streams.group.dead_letter import UNREADABLE, Cause, dead_letter
from roadstream.streams.log import Output, RecordId, record_name


class Refused(NamedTuple):
    """Votes for a picture whose id belongs to another one.

    Attributes:
        source: Where they stood.
        pack: Their pack, with no other votes.
        known: Content of the picture that has the id.
    """

    source: RecordId
    pack: VotesPack
    known: Content


class Buried(NamedTuple):
    """What stood in a record, or a part of it, and why it is given up.

    Attributes:
        source: Where it stood.
        key: The record's key.
        value: The record's bytes, or a pack of those votes alone that are at fault.
        error: For a person.
        cause: For programs.
        headers: Those of the record, or of votes.
    """

    source: RecordId
    key: bytes | None
    value: bytes | None
    error: str
    cause: Cause = UNREADABLE
    headers: Headers = headers.VOTES

    @property
    def offset(self) -> int:
        """Where in its partition it stood."""
        return self.source[1]

    def output(self, now: float) -> Output:
        """Return the dead letter."""
        tp, _ = self.source
        letter = dead_letter(tp, self, self.error, CONSENSUS_GROUP, now, self.cause)
        return Output(DEAD_LETTERS, self.key, letter, tp.partition, headers.DEAD_LETTER)


def check(pack: VotesPack, tiers: Container[str], source: RecordId) -> list[ImageVotes]:
    """Return the votes of a pack that would wait for a tier that nobody runs.

    Raises:
        RecordError: Its votes do not match its member runs, or its own tier is unknown.
    """
    tp, offset = source
    if pack.tier not in tiers:
        raise RecordError(*tp, offset, f"expected votes of a tier of the cascade, got {pack.tier}")
    runs, lost = len(pack.runs), list[ImageVotes]()
    for i, votes in enumerate(pack.images):
        if (field := uneven(votes, runs)) is not None:
            got = len(getattr(votes, field))
            problem = (
                f"expected {runs} votes for {votes.head.image_id}, "
                f"got {got} - at `$.images[{i}].{field}`"
            )
            raise RecordError(*tp, offset, problem)
        if votes.next_tier is not None and votes.next_tier not in tiers:
            lost.append(votes)
    return lost


def without_exit(pack: VotesPack, votes: ImageVotes, source: RecordId) -> Buried:
    """Return what becomes of votes that escalate to an unknown tier."""
    image_id = votes.head.image_id
    to = f"escalated to {votes.next_tier}, which is no tier here"
    error = f"{record_name(source)}: {image_id}: {to}"
    cause = Cause(image_id=image_id, tier=pack.tier)
    alone = msgspec.structs.replace(pack, images=[votes])
    return Buried(source, votes.head.key, codec.encode(alone), error, cause)


def duplicate(refused: Refused) -> Buried:
    """Return what becomes of votes for a second picture of one id: an image has one answer."""
    head, tier = refused.pack.images[0].head, refused.pack.tier
    error = (
        f"{record_name(refused.source)}: {head.image_id}: duplicate: expected content "
        f"{_hex(refused.known)}, as of the picture that came first under this id, "
        f"got {_hex(head.content_hash)} ({head.uri or 'no uri'})"
    )
    cause = Cause("duplicate", head.image_id, tier)
    return Buried(refused.source, head.key, codec.encode(refused.pack), error, cause)


def _hex(content: Content) -> str:
    return "unknown" if content is None else content.hex()
