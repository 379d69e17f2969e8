"""decode(): every format and colour mode made here; real files: test_decode_odd.py."""

import struct
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from roadstream.stages.decoding import exif as exif_blocks
from roadstream.stages.decoding.decode import decode, encode_jpeg, resize
from tests.kits.decode_kit import JPEG, SCENE, difference, full, saved, scene


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("JPEG", {"quality": 95}, 4),
        ("JPEG", {"quality": 95, "progressive": True}, 4),
        ("PNG", {}, 0),
        ("WEBP", {"quality": 95}, 5),
        ("WEBP", {"lossless": True}, 0),
        ("GIF", {}, 12),
        ("BMP", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("AVIF", {"quality": 95}, 5),
        ("JPEG2000", {}, 3),
        ("PPM", {}, 0),
    ],
)
def test_formats_decode_to_the_same_picture(
    kind: str, options: dict[str, object], tolerance: float
) -> None:
    image = full(saved(Image.fromarray(SCENE), kind, **options))

    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.shape == SCENE.shape
    assert difference(image, SCENE) <= tolerance


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "LA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_colour_modes_become_rgb(mode: str) -> None:
    grey = Image.fromarray(SCENE).convert("L")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    elif mode == "I":
        image = Image.fromarray(np.asarray(grey).astype(np.int32) * 257)
    elif mode == "F":
        image = Image.fromarray(np.asarray(grey).astype(np.float32) / 255)
    else:
        image = Image.fromarray(SCENE).convert(mode)
    if mode in {"P", "1"}:  # dithered
        expected = np.asarray(image.convert("RGB"))
    else:
        expected = SCENE if mode in {"RGBA", "CMYK", "YCbCr"} else np.asarray(grey)[..., None]

    decoded = full(saved(image, "TIFF"))

    assert decoded.shape == SCENE.shape
    assert difference(decoded, np.broadcast_to(expected, SCENE.shape)) < 4


def test_cmyk_and_grey_jpegs_keep_their_colours() -> None:
    cmyk = full(saved(Image.fromarray(SCENE).convert("CMYK"), "JPEG", quality=95))
    grey = full(saved(Image.fromarray(SCENE).convert("L"), "JPEG", quality=95))

    assert difference(cmyk, SCENE) < 4
    assert difference(grey, np.asarray(Image.fromarray(SCENE).convert("L"))[..., None]) < 4


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("JPEG2000", {}),
        ("AVIF", {"quality": 100}),
    ],
)
def test_what_is_transparent_shows_a_white_page(kind: str, options: dict[str, object]) -> None:
    image = np.dstack([SCENE, np.full(SCENE.shape[:2], 255, np.uint8)])
    image[:48, :, 3] = 0

    decoded = full(saved(Image.fromarray(image), kind, **options))

    assert decoded[:48].min() >= 254
    assert difference(decoded[48:], SCENE[48:]) < 2


def test_a_palette_with_transparency_becomes_white_without_a_warning() -> None:
    palette = Image.fromarray(SCENE).convert("P")
    index = palette.getpixel((3, 3))

    decoded = full(
        saved(palette, "PNG", transparency=bytes([0 if i == index else 255 for i in range(256)]))
    )

    assert decoded[3, 3].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1", "LA", "RGBA"])
@given(size=st.tuples(st.integers(1, 70), st.integers(1, 70)), levels=st.sets(st.integers(0, 255)))
@settings(deadline=None)
def test_small_and_flat_pngs_decode(mode: str, size: tuple[int, int], levels: set[int]) -> None:
    grey = np.resize(np.array([*levels, 190], np.uint8), size)
    image = Image.fromarray(grey).convert(mode)

    decoded = full(saved(image, "PNG"))

    assert np.array_equal(decoded, np.asarray(image.convert("RGB")))


def test_animations_give_their_first_frame() -> None:
    frames = [Image.fromarray(np.full((20, 30, 3), value, np.uint8)) for value in (200, 10)]
    for kind in ("GIF", "WEBP", "PNG"):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:])

        assert abs(float(full(data).mean()) - 200) < 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = Image.fromarray(SCENE)
    data = saved(source, kind, exif=exif, quality=95)
    source.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(source))

    decoded = full(data)

    assert decoded.shape == expected.shape
    assert difference(decoded, expected) < 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_orientation_counts_when_the_scale_is_chosen(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(scene(800, 400)), kind, exif=exif)  # upright: 400×800

    assert decode(data, min_width=101, min_height=200).shape == (400, 200, 3)
    assert decode(data, min_width=100, min_height=200).shape == (200, 100, 3)


def test_corrupt_exif_is_ignored() -> None:
    exif = b"Exif\0\0II*\0\xff\xff\xff\x7f"
    broken = JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + JPEG[2:]

    assert np.array_equal(full(broken), full(JPEG))
    assert exif_blocks.orientation(b"Exif\0\0MM\0*\0\0\0\x08\0\xff") == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ((641, 1), (1280, 720)),
        ((640, 360), (640, 360)),
        ((500, 281), (640, 360)),
        ((320, 180), (320, 180)),
        ((200, 181), (640, 360)),
        ((100, 50), (160, 90)),
        ((1, 1), (160, 90)),
        ((5000, 5000), (1280, 720)),
    ],
)
def test_the_smallest_power_of_two_scale_is_taken(
    kind: str, wanted: tuple[int, int], expected: tuple[int, int]
) -> None:
    data = saved(Image.fromarray(scene(1280, 720)), kind)

    image = decode(data, min_width=wanted[0], min_height=wanted[1])

    assert image.shape == (expected[1], expected[0], 3)


def test_odd_sizes_round_up() -> None:
    assert decode(encode_jpeg(scene(1281, 751)), min_width=600, min_height=300).shape == (
        376,
        641,
        3,
    )


def test_resize_stretches_and_does_not_alias() -> None:
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255

    small = resize(stripes, 50, 30)

    assert small.shape == (30, 50, 3)
    assert small.flags.c_contiguous
    assert 120 <= small.min() <= small.max() <= 135
    assert resize(small, 50, 30) is small
    assert resize(SCENE, 333, 111).shape == (111, 333, 3)


def test_resize_keeps_the_picture() -> None:
    small = resize(scene(1280, 720), 160, 96)

    assert difference(small, SCENE) < 3


def test_threads_decode_side_by_side() -> None:
    kinds = {kind: saved(Image.fromarray(SCENE), kind) for kind in ("PNG", "AVIF", "TIFF", "WEBP")}
    results: list[float] = []

    def work(data: bytes) -> None:
        results.extend(difference(full(data), SCENE) for _ in range(5))

    threads = [threading.Thread(target=work, args=(data,)) for data in kinds.values() for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(results) == 40
    assert max(results) < 8
