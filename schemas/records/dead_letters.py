"""Dead letters: records that could not be worked on, kept whole, and what became of them."""

from typing import Literal

import msgspec

from roadstream.schemas.records.bounds import Count, ImageId, Partition, Text, Time, Word

DeadLetterReason = Literal["unreadable_record", "model_failed", "process_killed", "duplicate"]


class DeadLetter(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="dead_letter.v1", gc=False
):
    """A record that could not be worked on, with its bytes and where it stood.

    Pictures that cannot be decoded are no dead letters: they get a failed answer, and their bytes
    lie where they came from. A dead letter says that something of ours, or a foreign producer, is
    at fault, and that trying again after a repair makes sense.

    Attributes:
        topic: Where the record stood, as is ``partition`` and ``offset``.
        key: Its key.
        value: Its value, whole.
        error: What went wrong, for a person.
        group: Consumer group that gave it up.
        failed_at: When.
        attempts: How often it was tried.
        reason: What kind of failure, for programs.
        image_id: The image, where it could be told.
        tier: Tier at which it failed, if any.
        member: Member that failed on it, if one did.
        headers: The record's headers, but names of more than ``MOST_TEXT`` characters.
    """

    topic: Word
    partition: Partition
    offset: Count
    key: bytes | None
    value: bytes
    error: Text
    group: Word
    failed_at: Time
    attempts: Count = 1
    reason: DeadLetterReason = "unreadable_record"
    image_id: ImageId | None = None
    tier: Word | None = None
    member: Word | None = None
    headers: list[tuple[Text, bytes | None]] | msgspec.UnsetType = msgspec.UNSET


class DeadLetterSettled(
    msgspec.Struct, frozen=True, tag_field="schema", tag="dead_letter_settled.v1", gc=False
):
    """Somebody dealt with a dead letter: appended to the partition that it stands in.

    Attributes:
        offset: The dead letter's.
        action: What was done.
        at: When.
        image_id: The id under which the image was sent again, if it was.
    """

    offset: Count
    action: Literal["replayed", "discarded"]
    at: Time
    image_id: ImageId | None = None
