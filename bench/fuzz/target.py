"""What a decoder to be fuzzed is: good inputs, a call, and the errors that it documents."""

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Target(NamedTuple):
    """A decoder to be fuzzed.

    Attributes:
        seeds: Good inputs, at least one.
        words: Pieces that mean something in the format.
        call: Takes an input; raises ``AssertionError`` where what it returned is not as promised.
        allowed: The errors that it documents.
        mend: Puts checksums right after a mutation, so that it gets past them.
    """

    seeds: Sequence[bytes]
    words: Sequence[bytes]
    call: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...] = ()
    mend: Callable[[bytearray], None] | None = None


def mend_png(data: bytearray) -> None:
    """Put the checksums of a PNG's chunks right."""
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(data):
            return
        struct.pack_into(">I", data, end, zlib.crc32(data[at + 4 : end]))
        at = end + 4
