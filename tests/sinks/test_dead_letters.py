"""Dead letters in a list: folded, filtered, settled; and how their records go out again."""

import msgspec
import pytest

from roadstream.schemas import codec
from roadstream.schemas.errors import RecordError, UsageError
from roadstream.schemas.records import headers
from roadstream.schemas.records.dead_letters import DeadLetter, DeadLetterReason, DeadLetterSettled
from roadstream.schemas.records.headers import Headers
from roadstream.schemas.records.image import Head, Image, Inline, Reference
from roadstream.schemas.records.votes import Escalation, PriorVote
from roadstream.sinks.dead_letters import (
    Choice,
    LetterPosition,
    Letters,
    contents,
    is_whole,
    parse_position,
    picture,
    replay,
)
from roadstream.streams.log import Output
from tests.kits.builders import pack, votes

HEAD = Head(image_id="a", uri="a.jpg", lane="live", deadline_at=5.0, run_id="run", sequence=3)
IMAGE = codec.encode(Image(HEAD, Inline(b"jpeg")))


def letter(
    image_id: str | None = "a",
    *,
    reason: DeadLetterReason = "model_failed",
    topic: str = "images.live",
    offset: int = 7,
    value: bytes = IMAGE,
    tier: str | None = "one",
) -> DeadLetter:
    return DeadLetter(
        topic=topic,
        partition=2,
        offset=offset,
        key=b"k",
        value=value,
        error="model_failed: x",
        group="g",
        failed_at=1.0,
        reason=reason,
        image_id=image_id,
        tier=tier,
    )


def duplicate(tier: str, target: str | None, content: bytes, offset: int) -> DeadLetter:
    said = votes(Head(image_id="a", content_hash=content * 16), 0.9, next_tier=target)
    value = codec.encode(pack(tier, said))
    return letter(reason="duplicate", topic="votes", offset=offset, value=value, tier=tier)


def letters(*records: DeadLetter | DeadLetterSettled | bytes) -> Letters:
    found = Letters()
    for offset, record in enumerate(records):
        value = record if isinstance(record, bytes) else codec.encode(record)
        found.add(LetterPosition(2, offset), value)
    return found


def places(found: Letters, choice: Choice | None = None) -> list[int]:
    return [one.place.offset for one in found.waiting(choice or Choice())]


def test_settled_letters_wait_no_longer() -> None:
    found = letters(letter("a"), letter("b"), DeadLetterSettled(0, "discarded", 1.0))

    assert places(found) == [1]
    assert [one.settled is not None for one in found.all()] == [True, False]
    with pytest.raises(UsageError, match=r"dead-letters\[2\]@0: was discarded already"):
        found.unsettled([LetterPosition(2, 0)])


def test_a_letter_written_twice_counts_once_and_is_settled_once() -> None:
    found = letters(letter(), letter(), DeadLetterSettled(1, "replayed", 1.0))

    assert places(found) == []
    assert found.at(LetterPosition(2, 1)).place == LetterPosition(2, 0)


def test_settling_in_one_partition_leaves_the_others() -> None:
    found = letters(letter())
    found.add(LetterPosition(0, 0), codec.encode(letter("z")))
    found.add(LetterPosition(0, 1), codec.encode(DeadLetterSettled(0, "discarded", 1.0)))

    assert [one.place for one in found.waiting(Choice())] == [LetterPosition(2, 0)]


def test_letters_are_chosen_by_reason_tier_and_image() -> None:
    found = letters(letter("a"), letter("b", tier="two"), letter(None, reason="unreadable_record"))

    assert places(found, Choice(reason="model_failed")) == [0, 1]
    assert places(found, Choice(tier="two")) == [1]
    assert places(found, Choice(image_id="a")) == [0]


def test_strangers_records_are_told_apart() -> None:
    found = letters(b"garbage", letter())

    assert (found.unreadable, places(found)) == ([LetterPosition(2, 0)], [1])


@pytest.mark.parametrize("text", ["dead-letters[2]@0", "2@0", "[2]@0"])
def test_places_are_read_as_they_are_written(text: str) -> None:
    assert str(letters(letter()).at(parse_position(text)).place) == "dead-letters[2]@0"


@pytest.mark.parametrize("text", ["", "3", "votes[1]@2", "-1@2", "1@x"])
def test_a_wrong_place_says_what_is_expected(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected a place such as dead-letters\[3\]@17"):
        parse_position(text)


def test_a_place_without_a_letter_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"dead-letters\[2\]@9: there is no dead letter"):
        letters(letter()).at(LetterPosition(2, 9))


def test_a_failed_image_begins_again_under_an_id_of_its_own() -> None:
    again = replay(letter(), 17, 9.0)

    assert again.image_id == "a~replay-17"
    assert (again.output.topic, again.output.key, again.output.partition) == (
        "images.live",
        b"k",
        2,
    )
    image = codec.decode_image(again.output.value)
    assert image.payload == Inline(b"jpeg")
    assert (image.head.image_id, image.head.uri) == ("a~replay-17", "a.jpg")
    assert (image.head.submitted_at, image.head.deadline_at, image.head.run_id) == (9.0, None, None)


def test_a_failed_image_in_json_begins_again_as_well() -> None:
    value = b"\xef\xbb\xbf" + codec.encode_json(Image(HEAD, Inline(b"jpeg")))
    one = letter(value=value)

    assert picture(one) == b"jpeg"
    assert (contents(one) or {})["payload"] == {"kind": "inline", "data": "4 bytes"}
    assert codec.decode_image(replay(one, 17, 9.0).output.value).payload == Inline(b"jpeg")


def test_an_image_replayed_before_keeps_one_suffix() -> None:
    value = codec.encode(Image(Head(image_id="a~replay-3"), Inline(b"")))

    assert replay(letter("a~replay-3", value=value), 17, 9.0).image_id == "a~replay-17"


def test_an_escalated_image_begins_again_at_the_first_tier() -> None:
    escalation = Escalation(HEAD, Inline(b"jpeg"), [PriorVote("m", 1.0, 0.5)])
    again = replay(letter(topic="tier.two.live", value=codec.encode(escalation)), 17, 9.0)

    assert again.output.topic == "images.live"
    assert codec.decode_image(again.output.value).payload == Inline(b"jpeg")


def test_an_unreadable_record_goes_out_as_it_was() -> None:
    one = letter(None, reason="unreadable_record", topic="votes", value=b"\xc1")

    assert replay(one, 17, 9.0) == (Output("votes", b"k", b"\xc1", 2), None)


HAD: Headers = (
    ("traceparent", b"00-01-02-00"),
    ("Content-Type", b"application/json"),
    ("note", None),
    ("note", b""),
)


def test_an_unreadable_record_goes_out_with_the_headers_it_had() -> None:
    one = msgspec.structs.replace(
        letter(None, reason="unreadable_record", topic="votes", value=b"\xc1"), headers=list(HAD)
    )
    told = codec.decode_dead_letter(codec.encode(one))

    assert replay(told, 17, 9.0).output == Output("votes", b"k", b"\xc1", 2, HAD)


def test_what_is_encoded_anew_says_so_beside_the_other_headers_it_had() -> None:
    value = codec.encode(pack("one", votes("a")))
    for one, ours in (
        (letter(), headers.IMAGE),
        (letter(topic="votes", value=value, reason="duplicate"), headers.VOTES),
    ):
        had = msgspec.structs.replace(one, headers=list(HAD))
        rest = (HAD[0], *HAD[2:])
        assert replay(had, 17, 9.0).output.headers == (*ours, *rest)
        assert replay(one, 17, 9.0).output.headers == ours


def test_a_letter_that_is_not_what_it_says_is_an_error() -> None:
    with pytest.raises(RecordError, match=r"images.live\[2\]@7"):
        replay(letter(value=b"\xc1"), 17, 9.0)


def test_votes_of_a_refused_picture_go_together_under_one_id() -> None:
    found = letters(
        duplicate("one", "two", b"2", 4),
        duplicate("one", None, b"3", 5),
        letter("b"),
        duplicate("two", None, b"2", 6),
    )
    chosen = found.with_companions(found.unsettled([LetterPosition(2, 3)]))

    assert [one.place.offset for one in chosen] == [0, 3]
    assert {found.number(one) for one in chosen} == {0}
    assert found.number(found.at(LetterPosition(2, 2))) == 2
    assert [len(group) for group in found.together(found.waiting(Choice()))] == [2, 1, 1]
    again = replay(duplicate("two", None, b"2", 6), 0, 9.0)
    pack_again = codec.decode_votes(again.output.value)
    assert (again.output.topic, again.image_id) == ("votes", "a~replay-0")
    assert pack_again.images[0].head.image_id == "a~replay-0"


def test_votes_are_whole_when_their_path_ends() -> None:
    first, second = pack("one", votes("a", next_tier="two")), pack("two", votes("a"))

    assert is_whole([first, second])
    assert is_whole([pack("one", votes("a"))])
    assert not is_whole([first])
    assert not is_whole([])


def test_the_picture_can_be_taken_out() -> None:
    assert picture(letter()) == b"jpeg"
    reference = codec.encode(Image(HEAD, Reference(path="/x.jpg", size=1)))
    with pytest.raises(UsageError, match=r"only its path: /x\.jpg"):
        picture(letter(value=reference))
    with pytest.raises(UsageError, match="holds votes"):
        picture(duplicate("one", None, b"2", 4))


def test_what_a_letter_holds_is_shown_without_its_bytes() -> None:
    shown = contents(letter())

    assert shown is not None
    assert shown["payload"] == {"kind": "inline", "data": "4 bytes"}
    assert contents(letter(value=b"\xc1")) is None
