"""EXIF: how a picture is turned, and the focal length that it was taken with."""

import math
import struct
from collections.abc import Iterator
from contextlib import suppress

_ORIENTATION, _DIRECTORY, _FOCAL_35MM, _SHORT, _LONG = 0x0112, 0x8769, 0xA405, 3, 4
# The diagonal of 35 mm film, 36 × 24 mm, to which CIPA DCG-001 relates focal lengths.
_DIAGONAL = math.hypot(36, 24)


def orientation(exif: bytes) -> int:
    """Read the orientation from an EXIF block, without the ``Exif`` before it.

    As in Chromium, the first valid entry counts, of the first directory and the EXIF directory that
    it points to; one that is not of type SHORT, or not a single value, is none.

    Returns:
        1 to 8; 1 when the block is corrupt or says nothing.
    """
    return next((one for one in _shorts(exif, _ORIENTATION) if 1 <= one <= 8), 1)


def focal_length(exif: bytes, size: tuple[int, int]) -> float | None:
    """Read the focal length from an EXIF block, as a multiple of the picture's width.

    It is that of ``FocalLengthIn35mmFilm``, by the diagonal: so it holds for pictures of any shape,
    upright or not, unless they were cut.

    Args:
        exif: The block, without the ``Exif`` before it.
        size: Width and height of the upright picture in pixels, or whatever they are in proportion
            to; above 0.

    Returns:
        ``None`` if the block is corrupt or does not say it; 0 if it says that it is not known.
    """
    film = next(_shorts(exif, _FOCAL_35MM), None)
    return None if film is None else film / _DIAGONAL * math.hypot(*size) / size[0]


def _shorts(exif: bytes, wanted: int) -> Iterator[int]:
    """List the values of a tag, as far as the block can be read."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is not None:
        with suppress(struct.error):
            (at,) = struct.unpack_from(order + "I", exif, 4)
            yield from _entries(exif, order, at, wanted)


def _entries(
    exif: bytes, order: str, at: int, wanted: int, *, inner: bool = False
) -> Iterator[int]:
    """List the values of a tag in a directory, and in the first one it points to."""
    (count,) = struct.unpack_from(order + "H", exif, at)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, values, value, _ = struct.unpack_from(order + "HHIHH", exif, entry)
        if (tag, kind, values) == (wanted, _SHORT, 1):
            yield value
        elif (tag, kind, values) == (_DIRECTORY, _LONG, 1) and not inner:
            inner = True
            (pointer,) = struct.unpack_from(order + "I", exif, entry + 8)
            with suppress(struct.error):
                yield from _entries(exif, order, pointer, wanted, inner=True)
