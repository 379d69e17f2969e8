"""Small JPEGs of pictures, as data URIs that a page carries in itself."""

import base64
import io
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LARGEST = 32_000
"""Bytes of one JPEG: 72 pictures stay under 3.1 MB as base64."""
_TRIES = ((400, 80), (400, 60), (320, 45), (240, 40), (160, 30))
"""Longest side in pixels and JPEG quality: noise and foliage need the later ones."""


class Thumbnail(NamedTuple):
    """A picture for a page: its data URI, and its size in pixels."""

    uri: str
    width: int
    height: int


def thumbnail(pixels: NDArray[np.uint8]) -> Thumbnail:
    """Shrink a picture to at most 400 pixels a side and ``LARGEST`` bytes.

    Args:
        pixels: Upright RGB picture, uint8, shape (height, width, 3), not empty.
    """
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(pixels))
    for side, quality in _TRIES:
        small = picture.copy() if max(picture.size) <= side else _shrunk(picture, side)
        data = io.BytesIO()
        small.save(data, "JPEG", quality=quality, optimize=True)
        if data.tell() <= LARGEST:
            break
    text = base64.b64encode(data.getvalue()).decode()
    return Thumbnail(f"data:image/jpeg;base64,{text}", *small.size)


def _shrunk(picture: Any, side: int) -> Any:
    ratio = side / max(picture.size)
    size = tuple(max(1, round(length * ratio)) for length in picture.size)
    return picture.resize(size, reducing_gap=2.0)
