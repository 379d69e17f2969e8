"""Turns good inputs into bad ones: seeded, structured, the same for the same number."""

import random
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

MAX_SIZE = 1 << 16
"""Bytes that an input may grow to; longer ones find little more and cost much."""
_BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF)
_WORDS = (0, 1, 2, 0x7F, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF)
_LONGS = (0, 1, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

Data = bytearray
Step = Callable[["Mutator", Data], None]


class Mutator:
    """Makes inputs of one target from its seeds.

    Args:
        seeds: Good inputs, at least one.
        dictionary: Pieces that mean something in the format.
        salt: Tells this target's inputs from another's.
        mend: Puts checksums right after the mutation; applied to half of the inputs.
    """

    def __init__(
        self,
        seeds: Sequence[bytes],
        dictionary: Sequence[bytes] = (),
        *,
        salt: int = 0,
        mend: Callable[[Data], None] | None = None,
    ) -> None:
        self.seeds, self.dictionary, self._mend = seeds, dictionary or [b"\0"], mend
        self._salt = salt << 64
        self.random = random.Random()

    def input(self, number: int) -> bytes:
        """Return the input of this number: a seed after one to some mutations."""
        rng = self.random
        rng.seed(self._salt | number)
        data = bytearray(rng.choice(self.seeds))
        count = 1
        while count < 16 and rng.random() < 0.5:
            count += 1
        for _ in range(count):
            rng.choice(_STEPS)(self, data)
        if self._mend is not None and rng.random() < 0.5:
            self._mend(data)
        return bytes(data[:MAX_SIZE])

    def place(self, data: Data, width: int = 1) -> int:
        """Return a place in ``data``; headers are chosen more often than the rest."""
        room = max(1, len(data) - width + 1)
        return self.random.randrange(min(room, 64) if self.random.random() < 0.4 else room)

    def piece(self, data: Data) -> slice:
        """Return a piece of ``data``, more often a short one."""
        at = self.place(data)
        longest = len(data) if self.random.random() < 0.2 else 32
        return slice(at, at + self.random.randrange(1, max(2, longest)))


class Target(NamedTuple):
    """A decoder to be fuzzed.

    Attributes:
        share: Part of all inputs, relative to the other targets'.
        mutator: Makes its inputs.
        call: Takes an input; raises ``AssertionError`` where what it returned is not as promised.
        allowed: The errors that it documents.
    """

    share: float
    mutator: Mutator
    call: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...]


def _flip_bit(m: Mutator, data: Data) -> None:
    if data:
        data[m.place(data)] ^= 1 << m.random.randrange(8)


def _set_byte(m: Mutator, data: Data) -> None:
    if data:
        value = m.random.randrange(256) if m.random.random() < 0.5 else m.random.choice(_BYTES)
        data[m.place(data)] = value


def _set_word(m: Mutator, data: Data) -> None:
    if len(data) >= 2:
        at = m.place(data, 2)
        struct.pack_into(m.random.choice("<>") + "H", data, at, m.random.choice(_WORDS))


def _set_long(m: Mutator, data: Data) -> None:
    if len(data) >= 4:
        at = m.place(data, 4)
        value = len(data) if m.random.random() < 0.1 else m.random.choice(_LONGS)
        struct.pack_into(m.random.choice("<>") + "I", data, at, value)


def _add_to_number(m: Mutator, data: Data) -> None:
    form = m.random.choice((">B", ">H", "<H", ">I", "<I"))
    width = struct.calcsize(form)
    if len(data) >= width:
        at = m.place(data, width)
        (value,) = struct.unpack_from(form, data, at)
        change = m.random.randrange(-35, 36)
        struct.pack_into(form, data, at, (value + change) % (1 << 8 * width))


def _cut_end(m: Mutator, data: Data) -> None:
    del data[m.place(data) :]


def _cut_piece(m: Mutator, data: Data) -> None:
    del data[m.piece(data)]


def _repeat_piece(m: Mutator, data: Data) -> None:
    piece = data[m.piece(data)] * m.random.choice((1, 1, 1, 2, 8, 64))
    at = m.place(data)
    data[at:at] = piece[:MAX_SIZE]


def _move_piece(m: Mutator, data: Data) -> None:
    place = m.piece(data)
    piece = data[place]
    del data[place]
    at = m.place(data)
    data[at:at] = piece


def _blank_piece(m: Mutator, data: Data) -> None:
    place = m.piece(data)
    data[place] = bytes([m.random.choice(_BYTES)]) * len(data[place])


def _noise_piece(m: Mutator, data: Data) -> None:
    place = m.piece(data)
    data[place] = m.random.randbytes(len(data[place]))


def _splice(m: Mutator, data: Data) -> None:
    other = m.random.choice(m.seeds)
    at = m.place(data)
    data[at:] = other[m.random.randrange(len(other) + 1) :]


def _insert_word(m: Mutator, data: Data) -> None:
    at = m.place(data)
    data[at:at] = m.random.choice(m.dictionary)


def _overwrite_word(m: Mutator, data: Data) -> None:
    word = m.random.choice(m.dictionary)
    at = m.place(data)
    data[at : at + len(word)] = word


_STEPS: tuple[Step, ...] = (
    _flip_bit, _flip_bit, _set_byte, _set_word, _set_long, _add_to_number, _cut_end, _cut_piece,
    _repeat_piece, _move_piece, _blank_piece, _noise_piece, _splice, _insert_word, _insert_word,
    _overwrite_word,
)  # fmt: skip


def mend_png(data: Data) -> None:
    """Put the checksums of a PNG's chunks right, so that mutations get past them."""
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(data):
            return
        struct.pack_into(">I", data, end, zlib.crc32(data[at + 4 : end]))
        at = end + 4
