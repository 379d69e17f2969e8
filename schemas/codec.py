"""Encoders and decoders of the records, made once: msgpack on the log, JSON for people.

Images are read as JSON too, see ``roadstream.schemas.records.image_formats``.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from roadstream.schemas.cascade.model import CascadeFile
from roadstream.schemas.engines import ENGINES, engine_named, plug_ins
from roadstream.schemas.errors import RecordError, UsageError
from roadstream.schemas.records.answer import Answer, uneven
from roadstream.schemas.records.dead_letters import DeadLetter, DeadLetterSettled
from roadstream.schemas.records.events import Event
from roadstream.schemas.records.image import Image
from roadstream.schemas.records.image_formats import image_decoder
from roadstream.schemas.records.votes import Escalation, VotesPack
from roadstream.schemas.settings.concepts import Concepts
from roadstream.schemas.settings.prompts import Prompt

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()
_json_encoder = msgspec.json.Encoder()

Encode = Callable[[Any], bytes]
encode: Encode = _encoder.encode
encode_json: Encode = _json_encoder.encode

decode_image = image_decoder(Image)
decode_escalation = msgspec.msgpack.Decoder(Escalation).decode
decode_votes = msgspec.msgpack.Decoder(VotesPack).decode
_decode_answer = msgspec.msgpack.Decoder(Answer).decode
decode_dead_letter = msgspec.msgpack.Decoder(DeadLetter).decode
decode_dead_letter_or_settled = msgspec.msgpack.Decoder(DeadLetter | DeadLetterSettled).decode
decode_event = msgspec.json.Decoder(Event).decode

SCHEMAS: dict[str, type] = {
    "image": Image,
    "escalation": Escalation,
    "votes": VotesPack,
    "answer": Answer,
    "dead-letter": DeadLetter,
    "cascade": CascadeFile,
    "prompt": Prompt,
    "concepts": Concepts,
    **{f"{name}-settings": engine.settings for name, engine in ENGINES.items()},
}


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are no such record: wrong, no UTF-8, or nested too deeply."""


class Unreadable(bytes):
    """Bytes that the log could not read as a record; every decoder is told ``problem``.

    Attributes:
        problem: Which offsets cannot be read, and why.
    """

    problem = "cannot be read"


def decode_answer(value: bytes) -> Answer:
    """Decode an answer, in which every tier's lists are as long as that of its member runs.

    Raises:
        msgspec.DecodeError: The bytes are no such answer.
    """
    answer = _decode_answer(value)
    for i, tier in enumerate(answer.tiers):
        if (field := uneven(tier, len(tier.runs))) is not None:
            runs, got = len(tier.runs), len(getattr(tier, field))
            raise msgspec.ValidationError(
                f"Expected `array` of length {runs}, got {got} - at `$.tiers[{i}].{field}`"
            )
    return answer


def decode(
    decoder: Callable[[bytes], T], value: bytes | None, topic: str, partition: int, offset: int
) -> T:
    """Decode one record's value.

    Raises:
        RecordError: The bytes are not such a record; the message says where and why.
    """
    try:
        return decoder(value or b"")
    except UNREADABLE as error:
        problem = value.problem if isinstance(value, Unreadable) else str(error)
        raise RecordError(topic, partition, offset, problem) from None


def _described(name: str) -> type:
    if (ours := SCHEMAS.get(name)) is not None:
        return ours
    engine = name.removesuffix("-settings")
    if engine == name:
        raise UsageError(f"NAME: expected one of {', '.join(SCHEMAS)}, got {name}")
    return engine_named(engine, f"NAME: {name}").settings


_IMAGE_FORMATS = (
    "A record's value is this as JSON (UTF-8, bytes as padded base64), or the same map as msgpack, "
    "in which bytes are bytes (bin) and not base64. Its first byte tells which."
)
_MSGPACK_ONLY = (
    "On the log, this is msgpack, in which bytes are bytes (bin). What is printed here describes "
    "it as JSON, in which bytes are base64."
)
_ON_THE_LOG = {
    "image": _IMAGE_FORMATS,
    **dict.fromkeys(("escalation", "votes", "answer", "dead-letter"), _MSGPACK_ONLY),
}


def json_schema(name: str) -> bytes:
    """Return a JSON Schema, indented, as UTF-8 bytes.

    Args:
        name: One of ``SCHEMAS``, or ``NAME-settings`` for the engine of another distribution.

    Raises:
        UsageError: There is no such schema.
    """
    schema = msgspec.json.schema(_described(name))
    if name == "cascade":
        schema["$defs"]["Member"]["properties"]["engine"] = {"enum": sorted(plug_ins.names())}
    if (described := _ON_THE_LOG.get(name)) is not None:
        schema = {"description": described, **schema}
    return msgspec.json.format(encode_json(schema), indent=2)
