"""RecordDecoder: records become items that share the records' bytes, and hand them on unchanged."""

import pytest

from roadstream.schemas import codec
from roadstream.schemas.records import headers
from roadstream.schemas.records.image import Head, Image, Inline, Payload, Reference, Unreadable
from roadstream.schemas.records.votes import Escalation, PriorVote
from roadstream.streams.log import TopicPartition
from roadstream.streams.memory.log import MemoryRecord
from roadstream.workers.tier.records import (
    HEADER_OVERHEAD,
    OVERHEAD,
    EscalationView,
    InlineView,
    Item,
    RecordDecoder,
)

TP = TopicPartition("images.archive", 0)
HEAD = Head(image_id="a", uri="a.jpg", deadline_at=7.0, content_hash=b"0123456789abcdef")
PAYLOADS: list[Payload] = [
    Inline(b"picture"),
    Reference(path="/a.jpg", size=7, sha256=bytes(32)),
    Unreadable("missing", "gone"),
]
VOTES = [PriorVote("a", 1.0, 0.25)]


def taken(value: bytes, *, first: bool = True) -> list[Item]:
    return (
        RecordDecoder("one", first=first)
        .decode({TP: [MemoryRecord(3, b"k", value, 1500)]}, 0.0)
        .items
    )


def test_an_item_says_all_that_its_record_says() -> None:
    for payload in PAYLOADS:
        value = codec.encode(Image(HEAD, payload))
        (item,) = taken(value)
        assert (item.head, item.readable(), item.prior) == (HEAD, payload, [])
        assert (item.tp, item.offset, item.arrived_at, item.deadline_at) == (TP, 3, 1.5, 7.0)
        assert (item.key, item.value) == (b"k", value)
        assert item.identity == b"0123456789abcdef"


def test_a_picture_is_held_in_memory_once() -> None:
    value = codec.encode(Image(HEAD, Inline(bytes(100_000))))
    (item,) = taken(value)

    assert isinstance(item.payload, InlineView)
    assert item.payload.data.obj is value
    assert item.size == len(value) + OVERHEAD


def test_an_image_in_json_is_taken_as_in_msgpack() -> None:
    for payload in PAYLOADS:
        image = Image(HEAD, payload)
        for mark in (b"", b"\xef\xbb\xbf", b"\r\n\t "):
            value = mark + codec.encode_json(image)
            (item,) = taken(value)
            assert (item.head, item.readable(), item.value) == (HEAD, payload, value)


def test_a_picture_in_json_is_decoded_once_and_counted() -> None:
    value = codec.encode_json(Image(HEAD, Inline(bytes(100_000))))
    (item,) = taken(value)

    assert item.size == len(value) + 100_000 + OVERHEAD


def test_what_a_tier_sends_on_of_an_image_in_json_is_msgpack() -> None:
    payload = Inline(b"picture")
    (item,) = taken(codec.encode_json(Image(HEAD, payload)))

    value = codec.encode(EscalationView(item.head, item.payload, VOTES))

    assert codec.decode_escalation(value) == Escalation(HEAD, payload, VOTES)


@pytest.mark.parametrize(
    ("timestamp", "said", "submitted_at"),
    [
        pytest.param(1500, 0.0, 1.5, id="time of the record"),
        pytest.param(1500, -3.0, 1.5, id="before 1970"),
        pytest.param(0, 0.0, 9.0, id="record without a time"),
        pytest.param(-1, 0.0, 9.0, id="no timestamp"),
        pytest.param(60_000, 0.0, 9.0, id="record from the future"),
        pytest.param(1500, 1.25, 1.25, id="said"),
    ],
)
def test_an_image_was_submitted_when_it_says_or_else_at_the_time_of_its_record(
    timestamp: int, said: float, submitted_at: float
) -> None:
    value = codec.encode(Image(Head(image_id="a", submitted_at=said), Inline(b"")))
    polled = {TP: [MemoryRecord(3, b"k", value, timestamp)]}
    (item,) = RecordDecoder("one", first=True).decode(polled, 9.0).items
    assert item.head.submitted_at == submitted_at


def test_an_escalation_is_handed_on_byte_for_byte() -> None:
    for payload in PAYLOADS:
        value = codec.encode(Escalation(HEAD, payload, VOTES, "because"))
        (item,) = taken(value, first=False)
        assert item.prior == VOTES
        view = EscalationView(item.head, item.payload, item.prior, "because")
        assert codec.encode(view) == value


def test_records_that_are_none_become_dead_letters_at_once() -> None:
    values = [None, b"", b"\xc1", codec.encode(Escalation(HEAD, PAYLOADS[0], []))]
    values.append(codec.encode({"schema": "image.v1", "head": HEAD, "payload": {"kind": "odd"}}))
    records = [MemoryRecord(i, b"k", value, 0) for i, value in enumerate(values)]

    found = RecordDecoder("one", first=True).decode({TP: records}, 5.0)

    assert found.items == []
    assert found.unread == {TP: [0, 1, 2, 3, 4]}
    letters = [codec.decode_dead_letter(output.value) for output in found.letters]
    assert [letter.value for letter in letters] == [value or b"" for value in values]
    assert {(x.reason, x.tier, x.failed_at, x.key) for x in letters} == {
        ("unreadable_record", "one", 5.0, b"k")
    }


def test_a_dead_letter_has_the_headers_and_tells_what_they_said() -> None:
    had = (
        ("Content-Type", b"image/jpeg"),
        ("traceparent", b"00-1"),
        ("schema", None),
        ("schema", b"\xffx" * 500),
    )
    record = MemoryRecord(3, b"k", b"\xff\xd8\xff\xe0", 1500, had)

    (output,) = RecordDecoder("one", first=True).decode({TP: [record]}, 5.0).letters

    letter = codec.decode_dead_letter(output.value)
    assert letter.headers == list(had)
    assert letter.error == (
        "images.archive[0]@3: Expected `object`, got `int`: expected a msgpack map or a JSON "
        "object, got bytes that begin with ff d8 ff e0 (its headers say content-type: image/jpeg, "
        f"schema: {'�x' * 50})"
    )
    assert output.headers == headers.DEAD_LETTER


def test_a_dead_letter_spells_what_is_no_text_in_its_headers() -> None:
    had = (("content-type", b"a\x1b[2J\nb\xc3\xa9"),)
    (output,) = RecordDecoder("one", first=True).decode(
        {TP: [MemoryRecord(3, b"k", b"\xc1", 0, had)]}, 5.0
    )[1]
    error = codec.decode_dead_letter(output.value).error
    assert error.endswith(r"(its headers say content-type: a\x1b[2J\nbé)")


def test_a_batch_that_the_log_cannot_read_becomes_a_dead_letter_with_its_bytes() -> None:
    value = codec.Unreadable(b"a damaged batch")
    value.problem = "offsets 1 to 3 cannot be read"

    (output,) = (
        RecordDecoder("one", first=True)
        .decode({TP: [MemoryRecord(3, None, value, 0)]}, 5.0)
        .letters
    )

    letter = codec.decode_dead_letter(output.value)
    assert (letter.value, letter.error) == (
        b"a damaged batch",
        "images.archive[0]@3: offsets 1 to 3 cannot be read",
    )


def test_what_headers_say_wrongly_of_an_image_does_not_matter() -> None:
    had = (("content-type", b"application/json"), ("schema", b"image.v9"))
    value = codec.encode(Image(HEAD, PAYLOADS[0]))
    found = RecordDecoder("one", first=True).decode(
        {TP: [MemoryRecord(3, b"k", value, 0, had)]}, 5.0
    )
    assert [item.headers for item in found.items] == [had]


def test_headers_of_others_count_as_memory() -> None:
    value = codec.encode(Image(HEAD, PAYLOADS[0]))
    had = (("note", bytes(5000)), ("none", None))
    sizes = []
    for told in ((), headers.IMAGE, had):
        polled = {TP: [MemoryRecord(3, b"k", value, 0, told)]}
        (item,) = RecordDecoder("one", first=True).decode(polled, 5.0).items
        sizes.append(item.size - len(value) - OVERHEAD)
    assert sizes == [0, 0, 5008 + 2 * HEADER_OVERHEAD]


def test_a_header_whose_name_no_dead_letter_holds_is_left_out() -> None:
    had = (("a" * 65_537, b"1"), ("b" * 65_536, b"2"))
    record = MemoryRecord(3, b"k", b"\xc1", 0, had)
    (output,) = RecordDecoder("one", first=True).decode({TP: [record]}, 5.0).letters
    assert codec.decode_dead_letter(output.value).headers == [had[1]]


@pytest.mark.parametrize(
    ("timestamp", "arrived_at"),
    [(1500, 1.5), (-1, 77.0), (0, 77.0), (-(2**63), 77.0), (2**63 - 1, (2**63 - 1) / 1000)],
)
def test_a_record_without_a_time_arrived_when_it_was_read(
    timestamp: int, arrived_at: float
) -> None:
    value = codec.encode(Image(HEAD, PAYLOADS[0]))
    for key in (None, b"", b"\xff"):
        record = MemoryRecord(3, key, value, timestamp)
        (item,) = RecordDecoder("one", first=True).decode({TP: [record]}, 77.0).items
        assert item.arrived_at == arrived_at
