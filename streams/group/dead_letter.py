"""Dead letters: records that could not be worked on, with their bytes and where they stood."""

from typing import Protocol

import msgspec

from roadstream.schemas import codec
from roadstream.schemas.records.bounds import MOST_TEXT
from roadstream.schemas.records.dead_letters import DeadLetter, DeadLetterReason
from roadstream.schemas.records.headers import Headers
from roadstream.streams.log import TopicPartition


class Source(Protocol):
    """What a dead letter repeats of its record; every log's records have it."""

    @property
    def offset(self) -> int:
        """Position in its partition."""

    @property
    def key(self) -> bytes | None:
        """Key, or ``None``."""

    @property
    def value(self) -> bytes | None:
        """Value, whole."""

    @property
    def headers(self) -> Headers:
        """Headers, as they were sent."""


class Cause(msgspec.Struct, frozen=True):
    """What a dead letter says besides its error; see ``DeadLetter`` for the fields."""

    reason: DeadLetterReason = "unreadable_record"
    image_id: str | None = None
    tier: str | None = None
    member: str | None = None
    attempts: int = 1


UNREADABLE = Cause()


def dead_letter(
    tp: TopicPartition,
    record: Source,
    error: Exception | str,
    group: str,
    now: float,
    cause: Cause = UNREADABLE,
) -> bytes:
    """Encode the dead letter of a record that ``group`` gave up at ``now``."""
    headers = [(name, told) for name, told in record.headers if len(name) <= MOST_TEXT]
    return codec.encode(
        DeadLetter(
            topic=tp.topic,
            partition=tp.partition,
            offset=record.offset,
            key=record.key,
            value=bytes(record.value or b""),  # exactly bytes, whatever its log hands out
            error=str(error)[:MOST_TEXT],
            group=group,
            failed_at=now,
            attempts=cause.attempts,
            reason=cause.reason,
            image_id=cause.image_id,
            tier=cause.tier,
            member=cause.member,
            headers=headers or msgspec.UNSET,
        )
    )
