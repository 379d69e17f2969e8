"""An image record comes as msgpack or as JSON; its first byte tells which.

A msgpack map begins with 0x80 to 0x8f, 0xde or 0xdf; JSON with ``{``, white space or a byte order
mark, none of which begins a msgpack map. In msgpack bytes are bytes, in JSON they are base64.
"""

from collections.abc import Callable
from typing import TypeVar

import msgspec

T = TypeVar("T")

_MARK = b"\xef\xbb\xbf"
JSON = frozenset(b"{ \t\r\n" + _MARK[:1])
"""First bytes of a value that is to be read as JSON."""
_MAP = frozenset([*range(0x80, 0x90), 0xDE, 0xDF])
_BASE64 = "standard base64 of RFC 4648, padded, without line breaks or a `data:` prefix"


def is_json(value: bytes | None) -> bool:
    """Return whether a record's value is to be read as JSON."""
    return bool(value and value[0] in JSON)


def image_decoder(kind: type[T]) -> Callable[[bytes], T]:
    """Return a decoder of image records in either format, as ``kind``.

    What it returns raises ``msgspec.DecodeError``: the bytes are neither, or no such record.
    """
    from_msgpack = msgspec.msgpack.Decoder(kind).decode
    from_json = msgspec.json.Decoder(kind).decode

    def decode(value: bytes) -> T:
        try:
            return from_msgpack(value)
        except msgspec.DecodeError as error:  # at the first byte, if it begins as JSON does
            if not is_json(value):
                raise _explained(error, value) from None
        try:
            return from_json(value.removeprefix(_MARK))
        except msgspec.DecodeError as error:
            raise _explained(error, value) from None

    return decode


def _explained(error: msgspec.DecodeError, value: bytes) -> msgspec.DecodeError:
    """Return an error that also says what was expected, where msgspec's does not."""
    if value and value[0] not in JSON and value[0] not in _MAP:
        got = f"bytes that begin with {value[:8].hex(' ')}"
        return msgspec.DecodeError(f"{error}: expected a msgpack map or a JSON object, got {got}")
    if str(error).startswith("Invalid base64"):
        return msgspec.ValidationError(f"{error}: expected {_BASE64}")
    return error
