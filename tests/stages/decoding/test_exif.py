"""The focal length that a picture's file tells, as a multiple of its width."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from roadstream.stages.decoding import exif
from roadstream.stages.decoding.decode import decode, focal_length
from tests.kits.decode_kit import saved


def photo(kind: str, size: tuple[int, int], film: object, orientation: int = 1) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    block.get_ifd(0x8769)[0xA405] = film
    return saved(Image.new("RGB", size), kind, exif=block)


def read(data: bytes) -> float | None:
    pixels = decode(data, min_width=8, min_height=8)
    return focal_length(data, (pixels.shape[1], pixels.shape[0]))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("size", "orientation", "expected"),
    [
        ((96, 64), 1, 28 / 36),  # 3:2, as the film
        ((64, 96), 1, 28 / 24),  # upright
        ((96, 64), 6, 28 / 24),  # stored on its side
        ((160, 120), 1, 28 / 34.6),  # 4:3, by the diagonal
    ],
)
def test_the_focal_length_is_that_of_the_upright_picture(
    kind: str, size: tuple[int, int], orientation: int, expected: float
) -> None:
    assert read(photo(kind, size, 28, orientation)) == pytest.approx(expected, rel=0.01)


def test_zero_is_told_as_it_stands_there() -> None:
    assert read(photo("JPEG", (96, 64), 0)) == 0


@pytest.mark.parametrize(
    "data",
    [
        saved(Image.new("RGB", (96, 64)), "JPEG"),
        saved(Image.new("RGB", (96, 64)), "PNG"),
        saved(Image.new("RGB", (96, 64)), "WEBP"),
        photo("JPEG", (96, 64), (28, 35)),
        photo("JPEG", (96, 64), "28"),
    ],
)
def test_files_that_do_not_tell_it(data: bytes) -> None:
    assert read(data) is None


@given(st.binary(max_size=80), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
def test_whatever_the_block_holds_nothing_is_raised(block: bytes, begins: bytes) -> None:
    found = exif.focal_length(begins + block, (3, 2))

    assert found is None or 0 <= found < 2000
    assert 1 <= exif.orientation(begins + block) <= 8


def test_the_first_directory_that_holds_it_counts() -> None:
    entry = struct.pack(">HHIHH", 0xA405, 3, 1, 50, 0)
    block = b"MM\0*\0\0\0\x08" + struct.pack(">H", 1) + entry

    assert exif.focal_length(block, (36, 24)) == pytest.approx(50 / 36)
    assert exif.focal_length(block[:-4], (36, 24)) is None
    assert math.isclose(exif.focal_length(block, (24, 36)) or 0, 50 / 24)
