"""Write a JPEG anew without the faults of its header and markers that touch no pixel."""

import re
from collections.abc import Sequence
from itertools import chain, count, product
from typing import NamedTuple

_ADOBE, _END, _JFIF, SCAN, _RESTART = 0xEE, 0xD9, 0xE0, 0xDA, 0xD0
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDD})
_NO_BODY = frozenset({0x01, 0xD8})  # TEM and SOI
_MARKER = re.compile(rb"\xff+([^\xff\x00\xd0-\xd7])")  # that ends a scan: not a restart
_RESTARTS = re.compile(rb"\xff+([\xd0-\xd7])")
_MOST_PARTS = 10_000
_ALL_COEFFICIENTS = b"\0\x3f\0"
_PLAIN_JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
# What libjpeg takes an unknown colour transform for, by the number of components.
_USUAL_TRANSFORM = {b"\3": (1, {0, 1}), b"\4": (2, {0, 2})}


class Part(NamedTuple):
    """A segment between a JPEG's header and its end; if it begins a scan, with the scan's data."""

    segment: bytes
    data: bytes = b""


def mended(segments: Sequence[bytes], scans: Sequence[Part]) -> bytes:
    """Put a JPEG together from what its pixels depend on.

    Mended in its header are the version of JFIF and an unknown colour transform.

    Args:
        segments: The segments before the first scan, with one frame.
        scans: The parts behind them.
    """
    components = next(segment[9:10] for segment in segments if segment[1] in FRAMES)
    header = [_mended_segment(segment, components) for segment in segments]
    return b"".join([b"\xff\xd8", *header, *chain.from_iterable(scans), b"\xff\xd9"])


def parts(data: bytes, at: int, components: int) -> list[Part]:
    """List the scans, and the tables between them, mended.

    Mended are coefficient ranges that sequential scans do not have, and wrong numbers of restarts
    where libjpeg passes over them. Left out is what stands behind tables, and behind a sequential
    scan of all components.

    Args:
        data: The JPEG.
        at: Where the marker of the first one stands.
        components: Colour components of a sequential JPEG; 0 for a progressive one, whose scans
            give coefficients bit by bit.

    Raises:
        ValueError: There are too many.
    """
    found: list[Part] = []
    while at < len(data) and data[at + 1] != _END:
        marker = data[at + 1]
        length = 0 if marker in _NO_BODY else int.from_bytes(data[at + 2 : at + 4], "big")
        end = at + 2 + length
        following = _MARKER.search(data, end)
        stop = following.start() if following else len(data)
        if marker == SCAN:
            segment = data[at : end - 3] + _ALL_COEFFICIENTS if components else data[at:end]
            found.append(Part(segment, _renumbered(data[end:stop])))
        else:  # what damage has made of a scan's data must not vanish here
            found.append(Part(data[at : end if marker in _TABLES else stop]))
        whole = marker == SCAN and data[at + 4 : at + 5] == bytes([components])
        at = following.end() - 2 if following and not whole else len(data)
        if len(found) > _MOST_PARTS:
            raise ValueError(f"more than {_MOST_PARTS:,} segments")
    return found


def complete(scans: Sequence[Part]) -> bool:
    """Whether progressive scans give all bits of all coefficients of the components they name."""
    named: set[int] = set()
    found: set[tuple[int, int]] = set()
    for segment, _ in scans:
        if segment[1] == SCAN and len(segment) >= 10:
            components, (first, last, bits) = segment[5:-3:2], segment[-3:]
            named.update(components)
            if bits & 15 == 0:
                found.update(product(components, range(first, last + 1)))
    return 0 < 64 * len(named) == len(found)


def _mended_segment(segment: bytes, components: bytes) -> bytes:
    marker, body = segment[1], segment[4:]
    if marker == _JFIF:
        return _PLAIN_JFIF if body.startswith(b"JFIF\0") and len(body) >= 14 else b""
    if marker == _ADOBE and body.startswith(b"Adobe") and len(body) >= 12:
        usual, known = _USUAL_TRANSFORM.get(components, (0, {0}))
        transform = body[11] if body[11] in known else usual
        return segment[:15] + bytes([transform]) + segment[16:]
    return segment


def _renumbered(scan: bytes) -> bytes:
    """Number restarts as they come, where libjpeg goes on with the data behind a wrong number.

    It does not where a number is off by one or two: it takes data for lost then.
    """
    numbers = count()

    def number(found: re.Match[bytes]) -> bytes:
        expected, came = next(numbers) % 8, found[1][0] - _RESTART
        passed_over = (came - expected) % 8 in {3, 4, 5}
        return bytes([0xFF, _RESTART + (expected if passed_over else came)])

    return _RESTARTS.sub(number, scan)
