"""Numbers and strings of records from anyone: what lies outside their bounds does not decode."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from roadstream.bench.fuzz import seeds
from roadstream.schemas import codec
from roadstream.schemas.errors import RecordError
from roadstream.workers.tier.records import decode_escalation_view, decode_image_view

DECODERS: dict[str, tuple[Callable[[bytes], Any], ...]] = {
    "image": (codec.decode_image, decode_image_view),
    "escalation": (codec.decode_escalation, decode_escalation_view),
    "votes": (codec.decode_votes,),
    "answer": (codec.decode_answer,),
    "dead-letter": (codec.decode_dead_letter_or_settled,),
}
Path_ = tuple[str | int, ...]
# Bytes of a picture or of a record: bounded by the log alone.
UNBOUNDED = {("payload", "data"), ("key",), ("value",)}
ABSURD: dict[type, list[object]] = {
    float: [math.nan, math.inf, -math.inf, 1e300, -1e300, 2**64 - 1, True, "1"],
    int: [-(2**63), 2**63, 2**64 - 1, 1e300, math.nan],
    str: ["x" * 70_000],
    bytes: [b"x" * 70_000],
}


def leaves(value: object, path: Path_ = ()) -> Iterator[tuple[Path_, object]]:
    """Yield every number and string of a record, with its path in the encoded form."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from leaves(one, (*path, key))
    elif isinstance(value, list):
        for i, one in enumerate(value):
            yield from leaves(one, (*path, i))
    elif value is not None and not isinstance(value, bool):
        yield path, value


def put(value: Any, path: Path_, new: object) -> Any:
    """Return ``value`` with another leaf."""
    if not path:
        return new
    first, rest = path[0], path[1:]
    copy: Any = value.copy()
    copy[first] = put(value[first], rest, new)
    return copy


def plain(record: object) -> Any:
    return msgspec.msgpack.decode(codec.encode(record))


def cases(folder: Path) -> Iterator[tuple[str, Any, Path_, object]]:
    for name, records in seeds.records(folder).items():
        for record in records:
            whole = plain(record)
            for path, leaf in leaves(whole):
                if path not in UNBOUNDED:
                    yield name, whole, path, leaf


def test_a_number_or_string_out_of_bounds_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    tried = 0
    for name, whole, path, leaf in cases(tmp_path):
        for absurd in ABSURD[type(leaf)]:
            # A score may be any number; a picture's may be large.
            if absurd in (1e300, -1e300, 2**64 - 1) and raw(path):
                continue
            value = msgspec.msgpack.encode(put(whole, path, absurd))
            for decoder in DECODERS[name]:
                tried += 1
                with pytest.raises(RecordError, match=r"^t\[0\]@1: .*\$"):
                    codec.decode(decoder, value, "t", 0, 1)
    assert tried > 1000


def raw(path: Path_) -> bool:
    """Return whether the leaf is a raw score: ``images[i][1][j]`` and ``tiers[i][2][j]``."""
    return len(path) == 4 and (path[0], path[2]) in {("images", 1), ("tiers", 2)}


@pytest.mark.parametrize(
    ("name", "path", "absurd", "problem"),
    [
        ("image", ("head", "deadline_at"), math.inf,
         "Expected `float` <= 100000000000.0 - at `$.head.deadline_at`"),
        ("image", ("head", "deadline_at"), math.nan,
         "Expected `float` >= -100000000000.0 - at `$.head.deadline_at`"),
        ("image", ("head", "latitude"), 90.5, "Expected `float` <= 90.0 - at `$.head.latitude`"),
        ("image", ("head", "longitude"), -181,
         "Expected `float` >= -180.0 - at `$.head.longitude`"),
        ("image", ("head", "frame_index"), -1, "Expected `int` >= 0 - at `$.head.frame_index`"),
        ("image", ("head", "sequence"), 2**63,
         "Expected `int` <= 9223372036854775807 - at `$.head.sequence`"),
        ("image", ("head", "image_id"), "", "Expected `str` of length >= 1 - at `$.head.image_id`"),
        ("image", ("head", "image_id"), "x" * 4097,
         "Expected `str` of length <= 4096 - at `$.head.image_id`"),
        ("image", ("head", "uri"), "x" * 32_769,
         "Expected `str` of length <= 32768 - at `$.head.uri`"),
        ("image", ("head", "content_hash"), b"",
         "Expected `bytes` of length >= 1 - at `$.head.content_hash`"),
        ("escalation", ("votes", 0, 1), 1e308,
         "Expected `float` <= 1000000000.0 - at `$.votes[0][1]`"),
        ("escalation", ("votes", 0, 2), 1.5, "Expected `float` <= 1.0 - at `$.votes[0][2]`"),
        ("votes", ("runs", 0, 2), -1.0, "Expected `float` >= 0.0 - at `$.runs[0][2]`"),
        ("votes", ("runs", 0, 5), -1, "Expected `int` >= 0 - at `$.runs[0][5]`"),
        ("votes", ("images", 1, 1, 0), math.nan, "- at `$.images[1][1][0]`"),
        ("votes", ("images", 0, 2, 0), -0.5, "Expected `float` >= 0.0 - at `$.images[0][2][0]`"),
        ("votes", ("sent_at",), 2e11, "Expected `float` <= 100000000000.0 - at `$.sent_at`"),
        ("answer", ("tiers", 0, 7, 0, 0, 0), 1e7,
         "Expected `float` <= 1000000.0 - at `$.tiers[0][7][0][0][0]`"),
        ("answer", ("tiers", 0, 7, 0, 0, 4), 1.5,
         "Expected `float` <= 1.0 - at `$.tiers[0][7][0][0][4]`"),
        ("dead-letter", ("partition",), 2**31, "Expected `int` <= 2147483647 - at `$.partition`"),
        ("dead-letter", ("offset",), -1, "Expected `int` >= 0 - at `$.offset`"),
    ],
)  # fmt: skip
def test_the_error_names_the_field_and_what_was_expected(
    name: str, path: Path_, absurd: object, problem: str, tmp_path: Path
) -> None:
    whole = plain(seeds.records(tmp_path)[name][0])
    for decoder in DECODERS[name]:
        with pytest.raises(RecordError) as caught:
            codec.decode(decoder, msgspec.msgpack.encode(put(whole, path, absurd)), "t", 0, 1)
        assert problem in str(caught.value)


def test_the_ends_of_the_bounds_are_within_them(tmp_path: Path) -> None:
    whole = plain(seeds.records(tmp_path)["image"][0])
    ends: dict[str, list[object]] = {
        "submitted_at": [-1e11, 1e11],
        "deadline_at": [-1e11, 1e11, None],
        "captured_at": [-1e11, 1e11],
        "latitude": [-90, 90],
        "longitude": [-180.0, 180.0],
        "frame_index": [0, 2**63 - 1],
        "sequence": [0, 2**63 - 1],
        "image_id": ["x", "ö" * 4096],
        "uri": ["", "x" * 32_768],
        "session_id": ["", "x" * 32_768],
        "content_hash": [b"x", b"x" * 64],
    }
    for field, values in ends.items():
        for value in values:
            image = codec.decode_image(msgspec.msgpack.encode(put(whole, ("head", field), value)))
            assert getattr(image.head, field) == value


@pytest.mark.parametrize("field", [1, 2, 3, 7, 8])
def test_an_answer_whose_lists_do_not_match_its_member_runs_does_not_decode(
    field: int, tmp_path: Path
) -> None:
    names = {1: "raw", 2: "raw", 3: "probability", 7: "boxes", 8: "texts"}
    whole = plain(seeds.answers()[0])
    shorter = whole["tiers"][1][field][:1] if field < 8 else ["only one"]
    value = msgspec.msgpack.encode(put(whole, ("tiers", 1, field), shorter))
    with pytest.raises(
        RecordError, match=rf"of length \d, got \d - at `\$\.tiers\[1\]\.{names[field]}`"
    ):
        codec.decode(codec.decode_answer, value, "t", 0, 1)


def test_the_json_schema_states_the_bounds() -> None:
    described = msgspec.json.decode(codec.json_schema("image"))["$defs"]["Head"]["properties"]

    assert described["submitted_at"] | {"default": 0.0} == {
        "type": "number", "minimum": -1e11, "maximum": 1e11, "default": 0.0,
    }  # fmt: skip
    assert described["deadline_at"]["anyOf"][0]["maximum"] == 1e11
    assert described["image_id"] == {"type": "string", "minLength": 1, "maxLength": 4096}
    assert described["sequence"]["anyOf"][0]["maximum"] == 2**63 - 1
