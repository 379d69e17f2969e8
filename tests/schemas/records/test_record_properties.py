"""Every record: any valid value comes back as it went in, and whatever is near one says why not."""

import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstream.bench.fuzz import seeds
from roadstream.schemas import codec
from roadstream.schemas.errors import RecordError
from roadstream.schemas.records.answer import Answer, AnswerTier
from roadstream.schemas.records.dead_letters import DeadLetter, DeadLetterSettled
from roadstream.schemas.records.events import Event
from roadstream.schemas.records.image import Image
from roadstream.schemas.records.partial import (
    decode_partial_answer,
    decode_partial_escalation,
    decode_partial_image,
    decode_partial_votes,
)
from roadstream.schemas.records.votes import Escalation, VotesPack
from tests.kits.examples import examples
from tests.kits.structs import near, values_of

Decode = Callable[[bytes], Any]
# Bytes; the records here have a few kilobytes.
MOST_MEMORY = 4 << 20
RECORDS: list[tuple[Any, Decode, Decode | None]] = [
    (Image, codec.decode_image, decode_partial_image),
    (Escalation, codec.decode_escalation, decode_partial_escalation),
    (VotesPack, codec.decode_votes, decode_partial_votes),
    (Answer, codec.decode_answer, decode_partial_answer),
    (DeadLetter | DeadLetterSettled, codec.decode_dead_letter_or_settled, None),
]
NAMES = ["image", "escalation", "votes", "answer", "dead-letter"]
every_record = pytest.mark.parametrize(("kind", "decode", "partial"), RECORDS, ids=NAMES)


def told(decode: Decode, data: bytes) -> Any:
    """Decode; return the error if it is the documented one, with its place and a reason."""
    try:
        return codec.decode(decode, data, "t", 3, 5)
    except RecordError as error:
        place, _, reason = str(error).partition(": ")
        assert place == "t[3]@5"
        assert reason
        return error


def check(decode: Decode, partial: Decode | None, data: bytes) -> None:
    """Check that it is a record, whole and in part, and encodes to itself; or says why not."""
    record = told(decode, data)
    if partial is not None:
        in_part = told(partial, data)
        assert isinstance(record, RecordError) or not isinstance(in_part, RecordError)
    if not isinstance(record, RecordError):
        once = codec.encode(record)
        assert codec.encode(decode(once)) == once


def even(record: Any) -> Any:
    """Return an answer whose tiers' lists are as long as those of their member runs."""
    if not isinstance(record, Answer):
        return record
    return msgspec.structs.replace(record, tiers=[_even(tier) for tier in record.tiers])


def _even(tier: AnswerTier) -> AnswerTier:
    count = len(tier.runs)
    return msgspec.structs.replace(
        tier,
        raw=(tier.raw + count * [None])[:count],
        probability=(tier.probability + count * [None])[:count],
        boxes=None if tier.boxes is None else (tier.boxes + count * [[]])[:count],
        texts=None if tier.texts is None else (tier.texts + count * [""])[:count],
        tags=None if tier.tags is None else (tier.tags + count * [{}])[:count],
    )


@every_record
def test_any_valid_record_comes_back_as_it_went_in(
    kind: Any, decode: Decode, partial: Decode | None
) -> None:
    @settings(deadline=None, max_examples=examples(200))
    @given(values_of(kind).map(even))
    def comes_back(record: Any) -> None:
        data = codec.encode(record)
        assert told(decode, data) == record
        check(decode, partial, data)

    comes_back()


@every_record
def test_a_record_with_another_value_somewhere_is_one_or_says_why_not(
    kind: Any, decode: Decode, partial: Decode | None
) -> None:
    @settings(deadline=None, max_examples=examples(400))
    @given(values_of(kind).map(even), st.data())
    def is_one_or_not(record: Any, draw: st.DataObject) -> None:
        inside = near(msgspec.msgpack.decode(codec.encode(record)), draw)
        check(decode, partial, msgspec.msgpack.encode(inside))

    is_one_or_not()


@every_record
def test_a_record_with_other_bytes_somewhere_is_one_or_says_why_not_and_takes_no_memory(
    kind: Any, decode: Decode, partial: Decode | None
) -> None:
    words = st.sampled_from(seeds.MSGPACK_WORDS) | st.binary(max_size=6)

    @settings(deadline=2000, max_examples=examples(400))
    @given(values_of(kind).map(even), st.data())
    def is_one_or_not(record: Any, draw: st.DataObject) -> None:
        data = bytearray(codec.encode(record))
        for word in draw.draw(st.lists(words, min_size=1, max_size=3)):
            at = draw.draw(st.integers(0, len(data)))
            data[at : at + draw.draw(st.integers(0, 8))] = word
        tracemalloc.start()
        try:
            check(decode, partial, bytes(data[: draw.draw(st.integers(0, len(data)))]))
            check(decode, partial, bytes(data))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < MOST_MEMORY

    is_one_or_not()


@settings(deadline=None, max_examples=examples(300))
@given(values_of(Event), st.data())
def test_any_event_comes_back_and_one_near_it_is_one_or_no_event(
    event: Event, draw: st.DataObject
) -> None:
    line = codec.encode_json(event)
    assert codec.decode_event(line) == event
    inside = near(msgspec.json.decode(line), draw)
    with suppress(*codec.UNREADABLE):
        once = codec.encode_json(codec.decode_event(msgspec.json.encode(inside)))
        assert codec.encode_json(codec.decode_event(once)) == once
