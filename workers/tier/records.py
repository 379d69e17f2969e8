"""What a tier worker takes off the log: records decoded to items, or the dead letters of others."""

from typing import NamedTuple

import msgspec
import structlog

from roadstream.schemas import codec
from roadstream.schemas.errors import RecordError
from roadstream.schemas.records import headers
from roadstream.schemas.records.bounds import Text, Word
from roadstream.schemas.records.headers import Headers, with_headers
from roadstream.schemas.records.image import Head, Inline, Payload, Reference, Unreadable
from roadstream.schemas.records.image_formats import JSON, image_decoder
from roadstream.schemas.records.votes import NO_EVIDENCE, Evidence, PriorVote
from roadstream.schemas.topics import DEAD_LETTERS, tier_group
from roadstream.stages.batching.shapes import Shape, Shapes
from roadstream.stages.voting.evidence import checked
from roadstream.streams.group.dead_letter import Cause, dead_letter
from roadstream.streams.log import Output, Polled, Record, TopicPartition

logger = structlog.get_logger()

# Bytes that an item takes besides its record, about, and that a header takes besides its own.
OVERHEAD, HEADER_OVERHEAD = 512, 256


class InlineView(msgspec.Struct, frozen=True, tag_field="kind", tag="inline", gc=False):
    """`Inline` without a copy: a view into the record, which is kept for a dead letter anyway.

    Of a picture in JSON, which is base64 there, it is a view of the decoded bytes.
    """

    data: memoryview


PayloadView = InlineView | Reference | Unreadable


class _Image(msgspec.Struct, frozen=True, tag_field="schema", tag="image.v1", gc=False):
    """`Image`, its picture left in the record."""

    head: Head
    payload: PayloadView


class EscalationView(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    tag_field="schema",
    tag="escalation.v1",
    gc=False,
):
    """`Escalation`, its picture left in the record; encoded, it is the same."""

    head: Head
    payload: PayloadView
    votes: list[PriorVote]
    reason: Text = ""
    cascade_hash: Word = ""
    evidence: Evidence = NO_EVIDENCE


decode_image_view = image_decoder(_Image)
decode_escalation_view = msgspec.msgpack.Decoder(EscalationView).decode


def _foreign(had: Headers, ours: Headers) -> int:
    """Return the bytes that a record's headers take, where they are not those that ours have."""
    if not had or had == ours:
        return 0
    return sum(len(name) + len(value or b"") + HEADER_OVERHEAD for name, value in had)


class Item(msgspec.Struct, gc=False):
    """An image waiting at a tier, with the record it came in and its place in the log.

    Attributes:
        head: The image, with the time at which it was submitted.
        payload: Its picture, in the record.
        prior: Votes of earlier tiers.
        tp: Partition it was read from.
        offset: Its offset there.
        arrived_at: When it was appended to this tier's topic, or read where the record has no time.
        deadline_at: Copied from the head.
        size: Bytes held in memory.
        key: The record's key.
        value: The record's value, whole.
        shape: The sizes of its picture, if members take several; items of one may share a batch.
        headers: The record's headers.
        evidence: What earlier tiers found in its picture.
        version: Version of the cascade that it is judged by; empty if nobody has said so yet.
    """

    head: Head
    payload: PayloadView
    prior: list[PriorVote]
    tp: TopicPartition
    offset: int
    arrived_at: float
    deadline_at: float | None
    size: int
    key: bytes | None
    value: bytes | None
    shape: Shape | None = None
    headers: Headers = ()
    evidence: Evidence = NO_EVIDENCE
    version: str = ""

    @property
    def identity(self) -> bytes | str:
        """What tells its picture from others."""
        return self.head.content_hash or self.head.image_id

    def shape_among(self, shapes: Shapes) -> Shape:
        """Return the shape of its picture; of one kept elsewhere it is not known yet."""
        payload = self.payload
        return shapes.of(payload.data) if isinstance(payload, InlineView) else shapes.plain

    def readable(self) -> Payload:
        """Return its payload, an inline picture as a copy that may be kept."""
        payload = self.payload
        return Inline(bytes(payload.data)) if isinstance(payload, InlineView) else payload


class Decoded(NamedTuple):
    """What came of polled records.

    Attributes:
        items: Images to be judged, in the order of the records.
        letters: Dead letters of records that cannot be read.
        unread: Where these stood.
    """

    items: list[Item]
    letters: list[Output]
    unread: dict[TopicPartition, list[int]]


class RecordDecoder:
    """Decodes the records of one tier's topics.

    Args:
        tier: Name of the tier.
        first: Whether it is the first, which reads new images and not escalations.
    """

    def __init__(self, tier: str, *, first: bool) -> None:
        self._tier, self._first = tier, first

    def decode(self, polled: Polled, now: float) -> Decoded:
        """Decode what was polled."""
        decoded = Decoded([], [], {})
        item = self._image if self._first else self._escalation
        for tp, records in polled.items():
            for record in records:
                try:
                    decoded.items.append(item(tp, record, now))
                except RecordError as error:
                    decoded.letters.append(self._letter(tp, record, error, now))
                    decoded.unread.setdefault(tp, []).append(record.offset)
        return decoded

    def _image(self, tp: TopicPartition, record: Record, now: float) -> Item:
        value, timestamp = record.value, record.timestamp
        image = codec.decode(decode_image_view, value, *tp, record.offset)
        head, payload = image.head, image.payload
        arrived_at = timestamp / 1000 if timestamp > 0 else now
        if head.submitted_at <= 0:  # its producer does not say
            head = msgspec.structs.replace(head, submitted_at=min(arrived_at, now))
        size = len(value or b"") + OVERHEAD + _foreign(record.headers, headers.IMAGE)
        if value and value[0] in JSON and isinstance(payload, InlineView):  # decoded from base64
            size += len(payload.data)
        return Item(
            head,
            payload,
            [],
            tp,
            record.offset,
            arrived_at,
            head.deadline_at,
            size,
            record.key,
            value,
            None,
            record.headers,
        )

    def _escalation(self, tp: TopicPartition, record: Record, now: float) -> Item:
        value, timestamp = record.value, record.timestamp
        escalated = codec.decode(decode_escalation_view, value, *tp, record.offset)
        head = escalated.head
        return Item(
            head,
            escalated.payload,
            escalated.votes,
            tp,
            record.offset,
            timestamp / 1000 if timestamp > 0 else now,
            head.deadline_at,
            len(value or b"") + OVERHEAD + _foreign(record.headers, headers.ESCALATION),
            record.key,
            value,
            None,
            record.headers,
            checked(escalated.evidence),
            escalated.cascade_hash,
        )

    def _letter(self, tp: TopicPartition, record: Record, error: RecordError, now: float) -> Output:
        logger.error("dead_letter", reason="unreadable_record", error=str(error))
        cause = Cause(tier=self._tier)
        said = with_headers(error, record.headers)
        letter = dead_letter(tp, record, said, tier_group(self._tier), now, cause)
        return Output(DEAD_LETTERS, record.key, letter, tp.partition, headers.DEAD_LETTER)
