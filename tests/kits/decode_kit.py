"""What tests of decoding share: a picture, its file, and what is said of a bad one."""

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from roadstream.schemas.errors import ImageError
from roadstream.stages.decoding.decode import DecodeLimits, decode, encode_jpeg

FULL = 1 << 20
Pixels = npt.NDArray[np.uint8]


def scene(width: int = 160, height: int = 96) -> Pixels:
    """A smooth picture without any symmetry: red grows rightwards, green downwards."""
    x = np.linspace(20, 235, width)[None, :]
    y = np.linspace(20, 235, height)[:, None]
    blue = 128 + 80 * np.sin(x / 30) * np.cos(y / 40)
    planes = np.broadcast_arrays(x, y, blue)
    return np.stack(planes, axis=-1).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def full(data: bytes) -> Pixels:
    return decode(data, min_width=FULL, min_height=FULL)


def fault(data: bytes, limits: DecodeLimits | None = None) -> tuple[str, str]:
    with pytest.raises(ImageError) as caught:
        decode(data, min_width=64, min_height=64, limits=limits or DecodeLimits())
    return caught.value.fault, caught.value.problem


def difference(one: Pixels, other: Pixels) -> float:
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


SCENE = scene()
JPEG = encode_jpeg(SCENE)
