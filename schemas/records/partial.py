"""Partial decoding: the few fields that tell what became of an image; the rest is skipped unread.

Decoding an image this way neither copies its picture nor makes an object per vote, and it still
tells the id of many a record that a worker refuses.
"""

import msgspec

from roadstream.schemas.records.answer import Status
from roadstream.schemas.records.image_formats import image_decoder


class PartialHead(msgspec.Struct, frozen=True, gc=False):
    """Who an image is; see ``Head``."""

    image_id: str
    deadline_at: float | None = None
    content_hash: bytes | None = None


class PartialImage(msgspec.Struct, frozen=True, tag_field="schema", tag="image.v1", gc=False):
    """See ``Image``."""

    head: PartialHead


class PartialEscalation(
    msgspec.Struct, frozen=True, tag_field="schema", tag="escalation.v1", gc=False
):
    """See ``Escalation``."""

    head: PartialHead
    cascade_hash: str = ""


class PartialImageVotes(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """See ``ImageVotes``; the scores in between are skipped."""

    head: PartialHead
    raw: msgspec.Raw
    probability: msgspec.Raw
    next_tier: str | None = None


class PartialVotes(msgspec.Struct, frozen=True, tag_field="schema", tag="votes.v1", gc=False):
    """See ``VotesPack``."""

    tier: str
    images: list[PartialImageVotes]
    cascade_hash: str = ""


class PartialAnswerTier(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """See ``AnswerTier``; all but the name is skipped."""

    tier: str


class PartialAnswer(msgspec.Struct, frozen=True, tag_field="schema", tag="answer.v1", gc=False):
    """See ``Answer``."""

    head: PartialHead
    status: Status
    answered_at: float = 0.0
    tiers: list[PartialAnswerTier] = []
    cascade_hash: str = ""


decode_partial_image = image_decoder(PartialImage)
decode_partial_escalation = msgspec.msgpack.Decoder(PartialEscalation).decode
decode_partial_votes = msgspec.msgpack.Decoder(PartialVotes).decode
decode_partial_answer = msgspec.msgpack.Decoder(PartialAnswer).decode
