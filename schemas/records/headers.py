"""Headers of records: what a value is, for whoever looks before decoding it.

Everything that Roadstream sends has ``content-type`` and ``schema``. What comes is told by its
bytes, whatever its headers say; they are repeated where the bytes cannot be read.
"""

import msgspec

from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.claims import Begun, CascadeVersion, Claim, Roll, ServiceTime
from roadstream.schemas.records.dead_letters import DeadLetter, DeadLetterSettled
from roadstream.schemas.records.image import Image
from roadstream.schemas.records.votes import Escalation, VotesPack

Headers = tuple[tuple[str, bytes | None], ...]
"""Names and values in their order, as Kafka has them: names may repeat, values may be ``None``."""

_CONTENT_TYPE, _SCHEMA = "content-type", "schema"
_TOLD = 100
"""As much of a header as an error repeats, in characters."""


def _headers(kind: type[msgspec.Struct]) -> Headers:
    tag = kind.__struct_config__.tag
    return ((_CONTENT_TYPE, b"application/msgpack"), (_SCHEMA, str(tag).encode()))


IMAGE = _headers(Image)
ESCALATION = _headers(Escalation)
VOTES = _headers(VotesPack)
ANSWER = _headers(Answer)
DEAD_LETTER = _headers(DeadLetter)
SETTLED = _headers(DeadLetterSettled)
CLAIM = _headers(Claim)
BEGUN = _headers(Begun)
VERSION = _headers(CascadeVersion)
ROLL = _headers(Roll)
SERVICE_TIME = _headers(ServiceTime)


def replaced(headers: Headers, ours: Headers) -> Headers:
    """Return ``ours``, and what else stood beside a value that is encoded anew."""
    return ours + tuple(one for one in headers if one[0].lower() not in {_CONTENT_TYPE, _SCHEMA})


def with_headers(error: object, headers: Headers) -> str:
    """Return why a value cannot be read, and what its headers say that it is."""
    said = ", ".join(
        f"{name.lower()}: {repr(value.decode(errors='replace')[:_TOLD])[1:-1]}"
        for name, value in headers
        if value is not None and name.lower() in {_CONTENT_TYPE, _SCHEMA}
    )
    return f"{error} (its headers say {said})" if said else str(error)
