"""Tell where recordings begin and end in a video file, from its boxes, elements or chunks.

Files that were put together with ``cat`` hold several; players and decoders see the first alone.
"""

# Paths stay strings as the user spelled them.
# ruff: noqa: PTH123

import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
# What may stand in a Matroska file, its segment and its clusters (RFC 9559).
# fmt: off
_ELEMENTS = frozenset([
    _EBML, _SEGMENT, _CLUSTER, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469,
    0x1043A770, 0x1254C367, 0xEC, 0xBF, 0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF,
])
# fmt: on
_CLUSTER_ID = _CLUSTER.to_bytes(4, "big")
_NO_LENGTH = -1
_TRANSPORT = "mpegts"
# What recordings begin with whose files do not say where they end, by FFmpeg's name of the format:
# a table of programs, a pack header, and the headers of files.
STARTS = {
    _TRANSPORT: b"\x47\x40\x00",
    "mpeg": b"\0\0\1\xba",
    "flv": b"FLV\1",
    "asf": b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    "ogg": b"OggS\0\2",
}
_BLOCK_HEAD = 64  # bytes of a group's or block's own before the picture, and more
_MOST_CLUSTER = 64 << 20  # bytes before a block in which its cluster is looked for
_WINDOW = 1 << 20
# What recordings begin with whose files say where they end.
_BEGINS = (
    re.compile(rb"\0\0\0[\x10-\x40]ftyp"),
    re.compile(rb"\x1a\x45\xdf\xa3.{1,48}?(?:matroska|webm)", re.DOTALL),
    re.compile(rb"RIFF....AVI LIST", re.DOTALL),
)  # one by one: patterns with a fixed beginning are found several times faster
_LONGEST_MARK = 64
_PACKET = 188  # bytes of a transport stream's; each begins with the first byte of its mark
_PADDING = 1 << 16  # bytes at the end that are all the same


class Recording(NamedTuple):
    """The bytes of one recording.

    Attributes:
        start: Its first.
        end: The first after it.
        cut: Whether it says of itself that it is longer.
        sure: Whether there is one for certain.
    """

    start: int
    end: int
    cut: bool = False
    sure: bool = True


class _Piece(NamedTuple):
    """A box, element or chunk, and whether a recording begins with it."""

    start: int
    end: int
    begins: bool


def recordings(path: str, begin: int = 0) -> list[Recording]:
    """Return the recordings of a file from a place on, the first one first.

    MP4, Matroska and AVI say where they end. Anything else is one recording as far as is known.

    Raises:
        OSError: The file cannot be read.
    """
    found: list[Recording] = []
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start: int | None = begin
        while start is not None:
            walk = _walk(_read(file, start))
            if walk is None:
                return [*found, Recording(start, size)]
            whole, doubted, reach = _whole(walk(file, size, start), start)
            start = None if reach == size else _next(file, doubted, reach, size)
            ends = [*whole[1:], size if start is None else start]
            found += map(Recording, whole, ends)
            cut = reach > size or start not in {None, reach}
            found[-1] = found[-1]._replace(cut=cut)
    return found


def _read(file: BinaryIO, at: int) -> bytes:
    file.seek(at)
    return file.read(2 * _PACKET + 1)


def _next(file: BinaryIO, doubted: int, reach: int, size: int) -> int | None:
    """Return where the next recording begins: at the end of the last one, or somewhere in it."""
    head = _read(file, reach)
    transport = set(head[::_PACKET]) == {STARTS[_TRANSPORT][0]}
    if transport or _walk(head) is not None or head.startswith(tuple(STARTS.values())):
        return reach
    return _search(file, _BEGINS, doubted, size)


def _whole(pieces: "Iterator[_Piece]", start: int) -> tuple[list[int], int, int]:
    """Follow pieces as far as they go.

    Returns:
        Where recordings begin, where one may begin within the last pieces, if they are not what
        they say, and where the last one ends.
    """
    starts, places, end = [start], deque([start], maxlen=2), start
    for piece in pieces:
        if piece.begins and piece.start > start:
            starts.append(piece.start)
        places.append(piece.start)
        end = piece.end
    return starts, places[0] + 8, end


def _search(
    file: BinaryIO, begins: Sequence[re.Pattern[bytes]], after: int, until: int
) -> int | None:
    """Return where a recording begins from one place to another."""
    for start in range(after, until, _WINDOW):
        file.seek(start)
        data = file.read(_WINDOW + _LONGEST_MARK)
        found = [match.start() for match in (each.search(data) for each in begins) if match]
        if found and start + min(found) < until:
            return start + min(found)
    return None


def intact(path: str, before: int, after: int, *, block: bool) -> bool:
    """Whether nothing is broken in a stretch of a Matroska file, given by its bytes.

    Args:
        path: The file.
        before: A place in a block.
        after: Where the stretch ends.
        block: Whether a block begins there; else its recording ends there.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        start = _cluster_before(file, before)
        if start is None:
            return False
        reached = start
        for piece in _elements(file, os.fstat(file.fileno()).st_size, start, into=_CLUSTER):
            if block and piece.end > after:  # a length that is broken reaches far beyond it
                return after - piece.start <= _BLOCK_HEAD
            reached = piece.end
            if reached >= after:
                break
    return reached == after and not block


def next_start(path: str, kind: str, before: int, at: int) -> int:
    """Return where a recording begins after a picture and before one at ``at``.

    It is of another format, or what tells how to decode that picture comes a little earlier.

    Args:
        path: The file.
        kind: A key of `STARTS`.
        before: Where a picture of the recording before lies, in bytes.
        at: In bytes too.

    Raises:
        OSError: The file cannot be read.
    """
    start = max(before, at - _WINDOW)
    with open(path, "rb") as file:
        other = _search(file, _BEGINS, before, at)
        if other is not None:
            return other
        file.seek(start)
        data = file.read(at - start)
    found = data.rfind(STARTS[kind])
    if kind == _TRANSPORT:  # its tables are repeated; the first ones have the number 0
        found = next((place for place in _tables(data) if data[place + 3] & 15 == 0), found)
    return at if found < 0 else start + found


def starts_over(path: str, before: int, at: int) -> bool:
    """Whether a transport stream numbers its packets anew at ``at``: tables and picture alike.

    Args:
        path: The file.
        before: Where the last picture before lies, in bytes.
        at: Where the next one lies.

    Raises:
        OSError: The file cannot be read.
    """
    start = max(before, at - _WINDOW)
    with open(path, "rb") as file:
        file.seek(start)
        data = file.read(at - start + 4)
    tables = [data[place + 3] & 15 for place in _tables(data)]
    return bool(tables) and tables[-1] == 0 and data[-1] & 15 == 0


def start_after(path: str, kind: str, after: int, end: int) -> int | None:
    """Return where another recording may begin in what was not read of a file.

    Args:
        path: The file.
        kind: A key of `STARTS`.
        after: Where the last picture ends, in bytes.
        end: Where the file ends.

    Raises:
        OSError: The file cannot be read.
    """
    begins = (*_BEGINS, re.compile(re.escape(STARTS[kind])))
    with open(path, "rb") as file:
        return _search(file, begins, after, end)


def padded(path: str, end: int) -> bool:
    """Whether what comes last is but padding, as in files that are made before they are filled.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        file.seek(max(0, end - _PADDING))
        data = file.read(_PADDING)
    return data.count(data[-1:]) == len(data)


def _tables(data: bytes) -> Iterator[int]:
    """Yield where the first of the tables stands in packets of a transport stream."""
    place = -1
    while (place := data.find(STARTS[_TRANSPORT], place + 1)) >= 0:
        if place + 3 < len(data):
            yield place


def _walk(head: bytes) -> "Callable[[BinaryIO, int, int], Iterator[_Piece]] | None":
    """Return what walks through a file that begins so; ``None``: it does not say where it ends."""
    if head[4:8] in {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"}:
        return _boxes
    if head[:4] == _EBML.to_bytes(4, "big"):
        return _elements
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return _chunks
    return None


def _boxes(file: BinaryIO, size: int, at: int) -> Iterator[_Piece]:
    """Yield the outer boxes of an MP4 file; what cameras put behind them is passed over."""
    media = False
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if not (kind.isascii() and kind.decode("ascii").isprintable()):
            return
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        end = size if length == 0 else at + length
        if end < at + 8:
            return
        begins = kind == b"ftyp" and media
        media = (media and not begins) or kind in {b"moov", b"mdat", b"moof"}
        yield _Piece(at, end, begins)
        at = end


def _elements(file: BinaryIO, size: int, at: int, into: int | None = None) -> Iterator[_Piece]:
    """Yield elements of a Matroska file up to the first that is none.

    Args:
        file: The file.
        size: Its bytes.
        at: Where the first one begins.
        into: Kind that is entered, as those are that do not say how long they are.
    """
    while at < size:
        file.seek(at)
        head = file.read(12)
        kind, data = _number(head, 0, marked=True)
        length, begin = _number(head, data, marked=False)
        if kind not in _ELEMENTS:
            return
        enter = length == _NO_LENGTH or kind == into
        end = at + begin if enter else at + begin + length
        yield _Piece(at, end, kind == _EBML)
        at = end


def _number(head: bytes, at: int, *, marked: bool) -> tuple[int, int]:
    """Read a number of variable length; return it, and where the next thing is.

    All ones stand for a length that is not known: `_NO_LENGTH`. In ids the marker bit stays.
    """
    first = head[at] if at < len(head) else 0
    count = 9 - first.bit_length()
    value = int.from_bytes(head[at : at + count], "big")
    if marked:
        return value, at + count
    value &= (1 << 7 * count) - 1
    return (_NO_LENGTH if value == (1 << 7 * count) - 1 else value), at + count


def _cluster_before(file: BinaryIO, block: int) -> int | None:
    """Return where the cluster that a block lies in begins."""
    stop = block
    while stop > max(0, block - _MOST_CLUSTER):
        start = max(0, stop - _WINDOW)
        file.seek(start)
        found = file.read(stop - start + 3).rfind(_CLUSTER_ID, 0, stop - start + 3)
        if found >= 0:
            return start + found
        stop = start
    return None


def _chunks(file: BinaryIO, size: int, at: int) -> Iterator[_Piece]:
    """Yield the RIFF chunks of an AVI file; files over 1 GB go on in chunks called AVIX."""
    while at + 12 <= size:
        file.seek(at)
        head = file.read(12)
        if head[:4] != b"RIFF":
            return
        length = int.from_bytes(head[4:8], "little")
        end = at + 8 + length + length % 2 if length else size + 1
        yield _Piece(at, end, head[8:] == b"AVI ")
        at = end
