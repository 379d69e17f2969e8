"""decode(): every format and fault that is made here; real files are in test_decode_odd.py."""

import contextlib
import io
import struct
import threading
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from schemas.errors import ImageError
from stages.decode import DecodeLimits, decode, encode_jpeg, resize
from stages.jpeg import exif_orientation
from stages.sniff import DECODABLE, OTHERS, PICTURES, sniff

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


def test_transparent_pixels_become_black() -> None:
    image = np.dstack([SCENE, np.full(SCENE.shape[:2], 255, np.uint8)])
    image[:48, :, 3] = 0

    decoded = full(saved(Image.fromarray(image), "PNG"))

    assert decoded[:48].max() == 0
    assert difference(decoded[48:], SCENE[48:]) == 0


def test_a_palette_with_transparency_becomes_black_without_a_warning() -> None:
    palette = Image.fromarray(SCENE).convert("P")
    index = palette.getpixel((3, 3))

    decoded = full(
        saved(palette, "PNG", transparency=bytes([0 if i == index else 255 for i in range(256)]))
    )

    assert decoded[3, 3].tolist() == [0, 0, 0]


def test_animations_give_their_first_frame() -> None:
    frames = [Image.fromarray(np.full((20, 30, 3), value, np.uint8)) for value in (200, 10)]
    for kind in ("GIF", "WEBP", "PNG"):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:])

        assert abs(float(full(data).mean()) - 200) < 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
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
    assert exif_orientation(b"Exif\0\0MM\0*\0\0\0\x08\0\xff") == 1


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


def test_bytes_after_the_end_do_not_matter() -> None:
    assert np.array_equal(full(JPEG + b"dashcam metadata" * 99), full(JPEG))


def test_junk_in_a_jpeg_header_does_not_matter() -> None:
    junk = JPEG[:2] + b"\xff\xe0\x00\x04ab" + b"junk!" + JPEG[2:]

    assert np.array_equal(full(junk), full(JPEG))


def test_a_long_fill_of_marker_bytes_is_passed_quickly() -> None:
    assert np.array_equal(full(JPEG[:2] + b"\xff" * 5_000_000 + JPEG[2:]), full(JPEG))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_truncated_files_fail(kind: str, share: float) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (96, 160, 3), np.uint8)
    data = saved(Image.fromarray(noise), kind)

    name, problem = fault(data[: int(len(data) * share)])

    assert name in ({"truncated"} if kind == "JPEG" else {"truncated", "damaged", "not_an_image"})
    assert problem


def test_a_jpeg_without_its_end_marker_is_truncated() -> None:
    assert fault(JPEG[:-2]) == ("truncated", f"JPEG of {len(JPEG) - 2:,} bytes has no end")


def test_corrupt_huffman_data_is_damaged() -> None:
    data = bytearray(encode_jpeg(np.random.default_rng(2).integers(0, 256, (96, 160, 3), np.uint8)))
    middle = len(data) // 2
    data[middle : middle + 300] = bytes(300)

    assert fault(bytes(data))[0] == "damaged"


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    idat = b"IDAT" + zlib.compress(bytes(10_000))
    end = struct.pack(">I", len(idat) - 4) + idat + struct.pack(">I", zlib.crc32(idat))
    return b"\x89PNG\r\n\x1a\n" + chunk + end


def with_size(jpeg: bytes, width: int, height: int) -> bytes:
    at = jpeg.index(b"\xff\xc0")
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def test_a_png_bomb_costs_nothing() -> None:
    name, problem = fault(png_header(50_000, 50_000))

    assert name == "too_many_pixels"
    assert problem == "50,000×50,000 pixels; at most 100 million are allowed"


def test_a_jpeg_bomb_is_refused_by_its_header() -> None:
    assert fault(with_size(JPEG, 65_000, 65_000))[0] == "too_many_pixels"


def test_a_webp_bomb_is_refused_before_its_canvas_is_allocated() -> None:
    size = (16_383 - 1).to_bytes(3, "little") * 2
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + size + bytes(64)

    assert fault(b"RIFF" + struct.pack("<I", len(body)) + body)[0] == "too_many_pixels"


def test_a_large_jpeg_is_fine_when_its_scaled_picture_is() -> None:
    data = encode_jpeg(scene(1600, 1600))
    limits = DecodeLimits(max_pixels=1_000_000, max_jpeg_pixels=4_000_000)

    assert decode(data, min_width=400, min_height=400, limits=limits).shape == (400, 400, 3)
    with pytest.raises(ImageError, match="1,600×1,600 pixels"):
        decode(data, min_width=1600, min_height=400, limits=limits)


def test_a_large_progressive_jpeg_is_not() -> None:
    data = saved(Image.fromarray(scene(1600, 1600)), "JPEG", progressive=True)
    limits = DecodeLimits(max_pixels=1_000_000, max_jpeg_pixels=4_000_000)

    assert fault(data, limits)[0] == "too_many_pixels"


def test_a_file_over_the_byte_limit_is_refused() -> None:
    name, problem = fault(JPEG, DecodeLimits(max_bytes=1000))

    assert name == "too_large"
    assert "at most 1,000 are allowed" in problem


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        (b"", "empty", "no bytes"),
        (b"\xff\xd8", "truncated", "ends in its header"),
        (b"<!DOCTYPE html><html><body>404", "not_an_image", "an HTML page"),
        (b"Not found\n", "not_an_image", "text"),
        ('{"error": "größe"}'.encode(), "not_an_image", "a JSON document"),
        (b"<?xml version='1.0'?><a/>", "not_an_image", "an XML document"),
        (b"PK\3\4" + bytes(40), "not_an_image", "a ZIP archive"),
        (b"%PDF-1.7\n", "not_an_image", "a PDF document"),
        (bytes(5000), "not_an_image", "nothing but zero bytes"),
        (b"\xde\xad\xbe\xef" * 99, "not_an_image", "no known kind"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not_an_image", "Git LFS pointer"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "not_an_image", "a video"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "unsupported", "HEIC"),
        (b"\0\0\1\0\1\0", "unsupported", "Windows icon"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported", "SVG"),
        (JPEG.replace(b"\xff\xc0", b"\xff\xc3", 1), "unsupported", "lossless"),
        (
            JPEG.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c", 1),
            "unsupported",
            "12 bits",
        ),
    ],
)
def test_what_cannot_be_decoded_is_named(data: bytes, name: str, words: str) -> None:
    got, problem = fault(data)

    assert got == name
    assert words in problem


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


SEEDS = [
    JPEG,
    saved(Image.fromarray(scene(40, 30)), "JPEG", progressive=True),
    saved(Image.fromarray(scene(40, 30)), "PNG"),
    saved(Image.fromarray(scene(40, 30)).convert("P"), "PNG", transparency=0),
    saved(Image.fromarray(scene(40, 30)), "WEBP"),
    saved(Image.fromarray(scene(40, 30)), "GIF"),
    saved(Image.fromarray(scene(40, 30)), "TIFF", compression="tiff_lzw"),
    saved(Image.fromarray(scene(40, 30)), "BMP"),
    saved(Image.fromarray(scene(40, 30)), "AVIF"),
    saved(Image.fromarray(scene(40, 30)), "JPEG2000"),
    saved(Image.fromarray(scene(40, 30)), "PPM"),
]
LIMITS = DecodeLimits(max_bytes=1 << 20, max_pixels=1_000_000, max_jpeg_pixels=2_000_000)


def survives(data: bytes) -> None:
    with contextlib.suppress(ImageError):
        image = decode(data, min_width=16, min_height=16, limits=LIMITS)
        assert image.ndim == 3
        assert image.shape[2] == 3


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_never_raise_anything_else(data: bytes) -> None:
    assert sniff(data) in DECODABLE | PICTURES.keys() | OTHERS.keys()
    survives(data)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(SEEDS), st.data())
def test_mutated_pictures_never_raise_anything_else(seed: bytes, data: st.DataObject) -> None:
    broken = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(broken) - 1) | st.integers(0, min(99, len(broken) - 1)))
        broken[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(broken)) | st.just(len(broken)))
    survives(bytes(broken[:cut]))
