"""The few fields of a record that tell what became of an image; the rest is skipped unread.

Decoding an image this way neither copies its picture nor makes an object per vote, and it still
tells the id of many a record that a worker refuses.
"""

import msgspec

from roadstream.schemas.records.answer import Status
from roadstream.schemas.records.image_formats import image_decoder


class HeadGlimpse(msgspec.Struct, frozen=True, gc=False):
    """Who an image is; see ``Head``."""

    image_id: str
    deadline_at: float | None = None
    content_hash: bytes | None = None


class ImageGlimpse(msgspec.Struct, frozen=True, tag_field="schema", tag="image.v1", gc=False):
    """See ``Image``."""

    head: HeadGlimpse


class EscalationGlimpse(
    msgspec.Struct, frozen=True, tag_field="schema", tag="escalation.v1", gc=False
):
    """See ``Escalation``."""

    head: HeadGlimpse


class ImageVotesGlimpse(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """See ``ImageVotes``; the scores in between are skipped."""

    head: HeadGlimpse
    raw: msgspec.Raw
    probability: msgspec.Raw
    next_tier: str | None = None


class VotesGlimpse(msgspec.Struct, frozen=True, tag_field="schema", tag="votes.v1", gc=False):
    """See ``VotesPack``."""

    tier: str
    images: list[ImageVotesGlimpse]


class AnswerGlimpse(msgspec.Struct, frozen=True, tag_field="schema", tag="answer.v1", gc=False):
    """See ``Answer``."""

    head: HeadGlimpse
    status: Status
    answered_at: float = 0.0


glimpse_image = image_decoder(ImageGlimpse)
glimpse_escalation = msgspec.msgpack.Decoder(EscalationGlimpse).decode
glimpse_votes = msgspec.msgpack.Decoder(VotesGlimpse).decode
glimpse_answer = msgspec.msgpack.Decoder(AnswerGlimpse).decode
