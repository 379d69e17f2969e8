"""Images in msgpack and in JSON: told by the first byte, alike once read, and honest errors."""

import re
from collections.abc import Callable

import msgspec
import pytest

from roadstream.schemas import codec
from roadstream.schemas.records.image import Head, Image, Inline, Payload, Reference, Unreadable
from roadstream.schemas.records.image_formats import is_json
from roadstream.schemas.records.partial import decode_partial_image

JSON = b'{"schema":"image.v1","head":{"image_id":"a"},"payload":{"kind":"inline","data":"/+8="}}'
PAYLOADS: list[Payload] = [
    Inline(b"picture"),
    Reference(path="/ä.jpg", size=7, sha256=bytes(32)),
    Unreadable("missing", "gone"),
]
both = pytest.mark.parametrize("decoder", [codec.decode_image, decode_partial_image])


def test_an_image_is_read_as_json_whatever_stands_before_it() -> None:
    for before in (b"", b" ", b"\n\t\r ", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"):
        image = codec.decode_image(before + JSON + b"\n")
        assert image == Image(Head(image_id="a"), Inline(b"\xff\xef"))
        assert decode_partial_image(before + JSON).head.image_id == "a"


@pytest.mark.parametrize("payload", PAYLOADS)
def test_an_image_is_the_same_in_both_formats(payload: Payload) -> None:
    image = Image(Head(image_id="ä", content_hash=bytes(range(16)), deadline_at=7.0), payload)
    packed, told = codec.encode(image), codec.encode_json(image)
    assert (is_json(packed), is_json(told)) == (False, True)
    assert codec.decode_image(packed) == codec.decode_image(told) == image


@both
@pytest.mark.parametrize("value", [b"\0\0\0\0\7{}", b"a", b'"{}"', b"[1]", b"\xff\xfe{", b"\x91\1"])
def test_bytes_in_neither_format_are_told_what_was_expected(
    decoder: Callable[[bytes], object], value: bytes
) -> None:
    wanted = f": expected a msgpack map or a JSON object, got .* {value[:8].hex(' ')}$"
    with pytest.raises(msgspec.DecodeError, match=wanted):
        decoder(value)


@pytest.mark.parametrize("data", ["_-8=", "aGVsbG8", "aGVs\\nbG8=", "data:image/png;base64,aGk="])
def test_other_base64_than_the_standard_is_told_what_was_expected(data: str) -> None:
    with pytest.raises(msgspec.DecodeError, match=r"at `\$.payload.data`: expected standard base6"):
        codec.decode_image(JSON.replace(b"/+8=", data.encode()))


@both
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (JSON.replace(b"image.v1", b"image.v2"), "Invalid value 'image.v2'"),
        (JSON.replace(b'"image_id":"a"', b""), "missing required field `image_id`"),
        (JSON[:-1], "Input data was truncated"),
        (b" not json", "JSON is malformed"),
        (b"", "Input data was truncated"),
    ],
)
def test_json_that_is_no_image_is_an_error_that_says_why(
    decoder: Callable[[bytes], object], value: bytes, problem: str
) -> None:
    with pytest.raises(msgspec.DecodeError, match=re.escape(problem)):
        decoder(value)


def test_schemas_say_in_which_format_a_record_comes() -> None:
    described = msgspec.json.decode(codec.json_schema("image"))["description"]
    assert "as JSON (UTF-8, bytes as padded base64)" in described
    for name in ("escalation", "votes", "answer", "dead-letter"):
        described = msgspec.json.decode(codec.json_schema(name))["description"]
        assert described.startswith("On the log, this is msgpack")
