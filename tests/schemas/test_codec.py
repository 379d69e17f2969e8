"""Codecs: round trips, bytes of yesterday, bytes of strangers, and the exported JSON Schema."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from roadstream.schemas import codec
from roadstream.schemas.errors import RecordError
from roadstream.schemas.records.answer import Answer, AnswerTier
from roadstream.schemas.records.dead_letters import DeadLetter
from roadstream.schemas.records.image import Head, Image, Inline, Reference, Unreadable
from roadstream.schemas.records.votes import (
    Box,
    Escalation,
    ImageVotes,
    MemberRun,
    PriorVote,
    VotesPack,
)
from tests.kits.examples import examples

Record = Image | Escalation | VotesPack | Answer | DeadLetter
DECODERS: dict[type, Callable[[bytes], Any]] = {
    Image: codec.decode_image,
    Escalation: codec.decode_escalation,
    VotesPack: codec.decode_votes,
    Answer: codec.decode_answer,
    DeadLetter: codec.decode_dead_letter,
}
HEAD = Head(
    image_id="img-1",
    uri="a/ö.jpg",
    session_id="drive",
    frame_index=3,
    captured_at=1.5,
    latitude=52.5,
    longitude=13.25,
    lane="live",
    submitted_at=10.0,
    deadline_at=20.0,
    run_id="run",
    sequence=7,
)
BOX = Box(0.125, 0.25, 0.5, 0.75, 0.875, "cone")
V1: dict[str, tuple[Record, str]] = {
    "image inline": (
        Image(HEAD, Inline(b"\xff\xd8")),
        (
            "83a6736368656d61a8696d6167652e7631a4686561648ca8696d6167655f6964a5696d672d31a3757269"
            "a8612fc3b62e6a7067aa73657373696f6e5f6964a56472697665ab6672616d655f696e64657803ab6361"
            "7074757265645f6174cb3ff8000000000000a86c61746974756465cb404a400000000000a96c6f6e6769"
            "74756465cb402a800000000000a46c616e65a46c697665ac7375626d69747465645f6174cb4024000000"
            "000000ab646561646c696e655f6174cb4034000000000000a672756e5f6964a372756ea873657175656e"
            "636507a77061796c6f616482a46b696e64a6696e6c696e65a464617461c402ffd8"
        ),
    ),
    "image reference": (
        Image(Head(image_id="i"), Reference(path="/a/b.jpg", size=9, sha256=b"\x01\x02")),
        (
            "83a6736368656d61a8696d6167652e7631a46865616481a8696d6167655f6964a169a77061796c6f6164"
            "84a46b696e64a97265666572656e6365a470617468a82f612f622e6a7067a473697a6509a67368613235"
            "36c4020102"
        ),
    ),
    "image unreadable": (
        Image(Head(image_id="i", uri="x"), Unreadable("truncated", "ends early")),
        (
            "83a6736368656d61a8696d6167652e7631a46865616482a8696d6167655f6964a169a3757269a178a770"
            "61796c6f616483a46b696e64aa756e7265616461626c65a56661756c74a97472756e6361746564a77072"
            "6f626c656daa656e6473206561726c79"
        ),
    ),
    "escalation": (
        Escalation(HEAD, Inline(b"\xff\xd8"), [PriorVote("tiny", 1.5, 0.75)], "no route held"),
        (
            "85a6736368656d61ad657363616c6174696f6e2e7631a4686561648ca8696d6167655f6964a5696d672d"
            "31a3757269a8612fc3b62e6a7067aa73657373696f6e5f6964a56472697665ab6672616d655f696e6465"
            "7803ab63617074757265645f6174cb3ff8000000000000a86c61746974756465cb404a400000000000a9"
            "6c6f6e676974756465cb402a800000000000a46c616e65a46c697665ac7375626d69747465645f6174cb"
            "4024000000000000ab646561646c696e655f6174cb4034000000000000a672756e5f6964a372756ea873"
            "657175656e636507a77061796c6f616482a46b696e64a6696e6c696e65a464617461c402ffd8a5766f74"
            "65739193a474696e79cb3ff8000000000000cb3fe8000000000000a6726561736f6ead6e6f20726f7574"
            "652068656c64"
        ),
    ),
    "votes": (
        VotesPack(
            tier="glance",
            cascade="lite",
            cascade_hash="0123",
            sent_at=12.5,
            runs=[
                MemberRun("tiny", "2", 1.5, True, 0.25, 2),
                MemberRun("shadow", "1", 0.0, False, 0.5, 2),
            ],
            images=[
                ImageVotes(
                    HEAD, [2.5, None], [0.875, None], "look", "unsure", 1.0, 2.0, 3.0, [[BOX], []]
                ),
                ImageVotes(Head(image_id="j"), [None, None], [None, None], error="empty: no bytes"),
            ],
        ),
        (
            "87a6736368656d61a8766f7465732e7631a474696572a6676c616e6365a763617363616465a46c697465"
            "ac636173636164655f68617368a430313233a773656e745f6174cb4029000000000000a472756e739296"
            "a474696e79a132cb3ff8000000000000c3cb3fd00000000000000296a6736861646f77a131cb00000000"
            "00000000c2cb3fe000000000000002a6696d61676573929a8ca8696d6167655f6964a5696d672d31a375"
            "7269a8612fc3b62e6a7067aa73657373696f6e5f6964a56472697665ab6672616d655f696e64657803ab"
            "63617074757265645f6174cb3ff8000000000000a86c61746974756465cb404a400000000000a96c6f6e"
            "676974756465cb402a800000000000a46c616e65a46c697665ac7375626d69747465645f6174cb402400"
            "0000000000ab646561646c696e655f6174cb4034000000000000a672756e5f6964a372756ea873657175"
            "656e63650792cb4004000000000000c092cb3fec000000000000c0a46c6f6f6ba6756e73757265cb3ff0"
            "000000000000cb4000000000000000cb4008000000000000929196cb3fc0000000000000cb3fd0000000"
            "000000cb3fe0000000000000cb3fe8000000000000cb3fec000000000000a4636f6e6590c09a81a8696d"
            "6167655f6964a16a92c0c092c0c0c0a0cb0000000000000000cb0000000000000000cb00000000000000"
            "00c0af656d7074793a206e6f206279746573"
        ),
    ),
    "answer": (
        Answer(
            head=HEAD,
            status="partial",
            label="roadwork",
            probability=0.875,
            confidence=0.75,
            threshold=0.65,
            exit_tier="glance",
            tiers=[
                AnswerTier(
                    "glance",
                    [
                        MemberRun("tiny", "2", 1.5, True, 0.25, 2),
                        MemberRun("shadow", "1", 0.0, False, 0.5, 2),
                        MemberRun("cones", "1", 1.0, True, 0.125, 2),
                    ],
                    [2.5, -1.0, None],
                    [0.875, 0.25, None],
                    1.0,
                    2.0,
                    3.0,
                    [[BOX], [], []],
                )
            ],
            disagreement=0.5,
            losing=1,
            flags=["partial", "degraded", "shadow"],
            error="expired: late",
            cascade="lite",
            cascade_hash="0123",
            answered_at=21.0,
            took=11.0,
            joining=2.5,
        ),
        (
            "de0012a6736368656d61a9616e737765722e7631a4686561648ca8696d6167655f6964a5696d672d31a3"
            "757269a8612fc3b62e6a7067aa73657373696f6e5f6964a56472697665ab6672616d655f696e64657803"
            "ab63617074757265645f6174cb3ff8000000000000a86c61746974756465cb404a400000000000a96c6f"
            "6e676974756465cb402a800000000000a46c616e65a46c697665ac7375626d69747465645f6174cb4024"
            "000000000000ab646561646c696e655f6174cb4034000000000000a672756e5f6964a372756ea8736571"
            "75656e636507a6737461747573a77061727469616ca56c6162656ca8726f6164776f726bab70726f6261"
            "62696c697479cb3fec000000000000aa636f6e666964656e6365cb3fe8000000000000a9746872657368"
            "6f6c64cb3fe4cccccccccccda9657869745f74696572a6676c616e6365a574696572739198a6676c616e"
            "63659396a474696e79a132cb3ff8000000000000c3cb3fd00000000000000296a6736861646f77a131cb"
            "0000000000000000c2cb3fe00000000000000296a5636f6e6573a131cb3ff0000000000000c3cb3fc000"
            "00000000000293cb4004000000000000cbbff0000000000000c093cb3fec000000000000cb3fd0000000"
            "000000c0cb3ff0000000000000cb4000000000000000cb4008000000000000939196cb3fc00000000000"
            "00cb3fd0000000000000cb3fe0000000000000cb3fe8000000000000cb3fec000000000000a4636f6e65"
            "9090ac64697361677265656d656e74cb3fe0000000000000a66c6f73696e6701a5666c61677393a77061"
            "727469616ca86465677261646564a6736861646f77a56572726f72ad657870697265643a206c617465a7"
            "63617363616465a46c697465ac636173636164655f68617368a430313233ab616e7377657265645f6174"
            "cb4035000000000000a4746f6f6bcb4026000000000000a76a6f696e696e67cb4004000000000000"
        ),
    ),
    "answer failed": (
        Answer(
            head=Head(image_id="j"),
            status="failed",
            flags=["failed"],
            error="empty: x",
        ),
        (
            "de0005a6736368656d61a9616e737765722e7631a46865616481a8696d6167655f6964a16aa673746174"
            "7573a66661696c6564a5666c61677391a66661696c6564a56572726f72a8656d7074793a2078"
        ),
    ),
    "dead letter": (
        DeadLetter(
            topic="votes",
            partition=3,
            offset=99,
            key=None,
            value=b"\xc1",
            error="votes[3]@99: no",
            group="roadstream.consensus",
            failed_at=5.5,
        ),
        (
            "8aa6736368656d61ae646561645f6c65747465722e7631a5746f706963a5766f746573a9706172746974"
            "696f6e03a66f666673657463a36b6579c0a576616c7565c401c1a56572726f72af766f7465735b335d40"
            "39393a206e6fa567726f7570b4726f616473747265616d2e636f6e73656e737573a96661696c65645f61"
            "74cb4016000000000000a8617474656d70747301"
        ),
    ),
}
RECORDS = [record for record, _ in V1.values()]


@pytest.mark.parametrize("name", V1)
def test_bytes_of_the_first_version_still_decode(name: str) -> None:
    record, old = V1[name]
    assert DECODERS[type(record)](bytes.fromhex(old)) == record


@pytest.mark.parametrize("name", V1)
def test_what_is_written_today_a_reader_of_the_first_version_understands(name: str) -> None:
    # Fields may be added; those that stood in version 1 keep their names and meaning.
    record, old = V1[name]
    before, now = (
        msgspec.msgpack.decode(bytes.fromhex(old)),
        msgspec.msgpack.decode(codec.encode(record)),
    )
    assert holds(now, before)


def holds(now: object, before: object) -> bool:
    """Return whether a reader of ``before`` finds in ``now`` what it knows, where it knows it.

    What is new stands under keys of its own, or at the end of an array, as nothing.
    """
    if isinstance(now, dict) and isinstance(before, dict):
        return all(key in now and holds(now[key], old) for key, old in before.items())
    if isinstance(now, list) and isinstance(before, list):
        known, new = now[: len(before)], now[len(before) :]
        return len(known) == len(before) and all(map(holds, known, before)) and not any(new)
    return now == before


@pytest.mark.parametrize("record", RECORDS, ids=list(V1))
def test_records_come_back_as_they_went_in(record: Record) -> None:
    assert DECODERS[type(record)](codec.encode(record)) == record
    assert msgspec.json.decode(codec.encode_json(record), type=type(record)) == record


TEXT = st.text(max_size=20)
NUMBER = st.floats(-1e11, 1e11)
HEADS = st.builds(
    Head,
    image_id=st.text(min_size=1, max_size=20),
    uri=TEXT,
    session_id=st.none() | TEXT,
    frame_index=st.none() | st.integers(0, 2**40),
    captured_at=st.none() | NUMBER,
    lane=st.sampled_from(["live", "archive"]),
    submitted_at=NUMBER,
    deadline_at=st.none() | NUMBER,
)


@settings(deadline=None)
@given(HEADS, st.binary(max_size=50) | TEXT)
def test_any_image_comes_back_as_it_went_in(head: Head, content: bytes | str) -> None:
    payload = Inline(content) if isinstance(content, bytes) else Unreadable("unreadable", content)
    image = Image(head, payload)
    assert codec.decode_image(codec.encode(image)) == image


@pytest.mark.parametrize("record", RECORDS, ids=list(V1))
def test_every_record_carries_its_schema_and_version(record: Record) -> None:
    schema = msgspec.msgpack.decode(codec.encode(record))["schema"]
    name, _, version = schema.partition(".v")
    assert name
    assert int(version) == 1


@pytest.mark.parametrize("record", RECORDS, ids=list(V1))
def test_fields_of_a_later_minor_change_are_ignored(record: Record) -> None:
    later = msgspec.msgpack.decode(codec.encode(record)) | {"added_later": {"x": [1, 2]}}
    assert DECODERS[type(record)](msgspec.msgpack.encode(later)) == record


def test_values_added_at_the_end_of_an_array_are_ignored() -> None:
    vote = PriorVote("tiny", 1.0, 0.5)
    later = msgspec.msgpack.encode([*msgspec.msgpack.decode(codec.encode(vote)), "added later"])
    assert msgspec.msgpack.decode(later, type=PriorVote) == vote


@pytest.mark.parametrize("record", RECORDS, ids=list(V1))
def test_an_unknown_version_is_an_error_that_names_the_place(record: Record) -> None:
    newer = codec.encode(record).replace(b".v1", b".v7", 1)
    with pytest.raises(RecordError, match=r"^t\[3\]@42: Invalid value '\w+\.v7' - at `\$\.schema`"):
        codec.decode(DECODERS[type(record)], newer, "t", 3, 42)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "Input data was truncated"),
        (b"", "Input data was truncated"),
        (b"\xc1", "MessagePack data is malformed"),
        (b"\x2a", "Expected `object`, got `int`"),
        (b"\x80", "Object missing required field `head`"),
        (b"\x81\xa4head\xa2\xff\xfe", "Expected `object`, got `str`"),
        (b"\x81\xa6schema\xa2\xff\xfe", "can't decode byte 0xff"),
        (b"\x81\xa1x" + b"\x91" * 100_000, "recursion depth"),
        (b"\x81\xa1x\xdd\xff\xff\xff\xff", "truncated"),
    ],
    ids=["tombstone", "empty", "malformed", "number", "fields", "type", "utf-8", "depth", "length"],
)
def test_bytes_that_are_no_record_are_an_error_that_says_why(
    value: bytes | None, problem: str
) -> None:
    with pytest.raises(RecordError, match=r"^votes\[0\]@5: ") as caught:
        codec.decode(codec.decode_image, value, "votes", 0, 5)
    assert problem in str(caught.value)
    assert (caught.value.topic, caught.value.partition, caught.value.offset) == ("votes", 0, 5)


@settings(deadline=None, max_examples=examples(300))
@given(st.sampled_from(RECORDS), st.sampled_from([*DECODERS.values()]), st.data())
def test_damaged_bytes_decode_or_are_a_record_error(
    record: Record, decoder: Callable[[bytes], Any], data: st.DataObject
) -> None:
    encoded = bytearray(codec.encode(record))
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(encoded)))
    try:
        codec.decode(decoder, bytes(encoded[:cut]), "t", 0, 1)
    except RecordError as error:
        assert str(error).startswith("t[0]@1: ")  # noqa: PT017 (either may happen)


@given(st.binary(max_size=60))
@example(b"\x81\xa6schema\xa8image.v1")
def test_random_bytes_are_a_record_error(value: bytes) -> None:
    for decoder in DECODERS.values():
        with pytest.raises(RecordError, match=r"^t\[0\]@1: "):
            codec.decode(decoder, value, "t", 0, 1)


@pytest.mark.parametrize("name", codec.SCHEMAS)
def test_the_json_schema_of_every_record_is_exported(name: str) -> None:
    schema = json.loads(codec.json_schema(name))

    title = schema["$ref"].removeprefix("#/$defs/")
    assert title == codec.SCHEMAS[name].__name__
    described = schema["$defs"][title]
    assert described["type"] == "object"
    assert described["description"]
    if name not in ("cascade", "prompt", "concepts") and not name.endswith("-settings"):
        version = described["properties"]["schema"]["enum"]
        assert version == [f"{name.replace('-', '_')}.v1"]


def test_the_key_of_a_record_is_its_drive_or_else_its_image() -> None:
    assert Head(image_id="i", session_id="drive").key == b"drive"
    assert Head(image_id="ö").key == "ö".encode()
