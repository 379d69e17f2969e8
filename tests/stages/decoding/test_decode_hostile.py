"""decode() on what is cut short, broken, or larger than it says; made here."""

import contextlib
import struct
import time
import zlib

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from roadstream.schemas.errors import ImageError
from roadstream.stages.decoding.decode import DecodeLimits, decode, encode_jpeg
from roadstream.streams.sources.sniff import DECODABLE, OTHERS, PICTURES, sniff
from tests.kits.decode_kit import JPEG, fault, full, saved, scene
from tests.kits.examples import examples
from tests.kits.odd_pictures import chunk, png


def test_bytes_after_the_end_do_not_matter() -> None:
    assert np.array_equal(full(JPEG + b"dashcam metadata" * 99), full(JPEG))


def test_junk_in_a_jpeg_header_does_not_matter() -> None:
    junk = JPEG[:2] + b"\xff\xe0\x00\x04ab" + b"junk!" + JPEG[2:]

    assert np.array_equal(full(junk), full(JPEG))


def test_a_long_fill_of_marker_bytes_is_passed_quickly() -> None:
    assert np.array_equal(full(JPEG[:2] + b"\xff" * 5_000_000 + JPEG[2:]), full(JPEG))


def test_header_fields_that_no_decoder_needs_do_not_matter() -> None:
    jfif, scan = JPEG.index(b"JFIF\0") + 5, JPEG.index(b"\xff\xda")
    data_at = scan + 2 + int.from_bytes(JPEG[scan + 2 : scan + 4], "big")
    other_version = JPEG[:jfif] + b"\2\1" + JPEG[jfif + 2 :]
    no_range = other_version[: data_at - 3] + bytes(3) + JPEG[data_at:]

    assert np.array_equal(full(other_version), full(JPEG))
    assert np.array_equal(full(no_range), full(JPEG))


def test_a_second_fault_behind_a_harmless_one_is_found() -> None:
    at = JPEG.index(b"JFIF\0") + 5
    rotten = bytearray(JPEG[:at] + b"\2\1" + JPEG[at + 2 :])
    rotten[-800:-400] = bytes(400)

    assert fault(bytes(rotten))[0] == "damaged"


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("lost", [8, 16, 40])
def test_data_that_is_left_over_is_no_padding(options: dict[str, object], lost: int) -> None:
    data = saved(Image.fromarray(scene()), "JPEG", subsampling=0, **options)
    size = scene().shape

    assert fault(with_size(data, size[1], size[0] - lost))[0] == "damaged"


def test_padding_does_not_make_up_for_an_end_and_scans_that_are_missing() -> None:
    data = saved(Image.fromarray(scene()), "JPEG", progressive=True)
    third = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"][2]

    assert fault(data[: data.rindex(b"\xff\xc4", 0, third)] + bytes(50))[0] == "truncated"


def test_a_flood_of_markers_costs_little() -> None:
    started = time.process_time()

    assert fault(JPEG[:-400] + b"\xff\x01" * 5_000_000 + JPEG[-2:])[0] == "damaged"
    assert time.process_time() - started < 10


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


def test_a_changed_byte_of_png_pixels_never_passes() -> None:
    noise = np.random.default_rng(8).normal(0, 4, (96, 160, 3))
    alpha = np.tile(np.linspace(0, 255, 96)[:, None], (1, 160))
    rough = np.dstack([scene() + noise, alpha]).clip(0, 255).astype(np.uint8)
    whole = saved(Image.fromarray(rough), "PNG")

    for at in range(60, len(whole) - 20, len(whole) // 60):
        assert fault(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])[0] == "damaged", at


def test_rows_behind_those_of_a_png_are_not_inflated_for_ever() -> None:
    pixels = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    block = pixels.compress(bytes(1 << 24)) + pixels.flush(zlib.Z_FULL_FLUSH)
    checksum = (64 << 24) % 65521 << 16 | 1  # of so many zeros
    stream = b"\x78\x9c" + 64 * block + pixels.flush() + checksum.to_bytes(4, "big")
    began = time.process_time()

    full(png(b"", pixels=[chunk(b"IDAT", stream)]))

    assert time.process_time() - began < 1


def test_a_tile_of_a_tiff_that_is_larger_than_the_picture_counts() -> None:
    size = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1}
    tile = {322: 32_768, 323: 32_768, 324: 134, 325: 99}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in (size | tile).items()]
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))

    assert fault(head + b"".join(entries) + bytes(103))[0] == "too_many_pixels"


def test_coefficients_of_a_jpeg_in_a_tiff_count() -> None:
    flat = Image.new("RGB", (4000, 4000))
    limits = DecodeLimits(max_memory=160 << 20)

    assert fault(saved(flat, "TIFF", compression="jpeg"), limits)[0] == "too_many_pixels"
    decode(saved(flat, "TIFF", compression="tiff_lzw"), min_width=64, min_height=64, limits=limits)


def test_what_damage_leaves_over_before_a_restart_is_no_padding() -> None:
    noise = np.random.default_rng(8).normal(0, 25, (96, 160, 3))
    rough = Image.fromarray((scene() + noise).clip(0, 255).astype(np.uint8))
    jpeg = saved(rough, "JPEG", quality=85, restart_marker_blocks=6)
    scan = jpeg.index(b"\xff\xda") + 14
    passed = 0
    for at in range(scan, len(jpeg) - 2, len(jpeg) // 200):
        with contextlib.suppress(ImageError):
            changed = jpeg[:at] + bytes([jpeg[at] ^ 0x5A]) + jpeg[at + 1 :]
            full(changed)
            passed += not _passes(changed)

    assert passed <= 2


def _passes(jpeg: bytes) -> bool:
    """Whether libjpeg-turbo says nothing of a JPEG."""
    with contextlib.suppress(ValueError):
        simplejpeg.decode_jpeg(jpeg, strict=True)
        return True
    return False


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


@settings(max_examples=examples(400), deadline=None)
@given(st.sampled_from(SEEDS), st.data())
def test_mutated_pictures_never_raise_anything_else(seed: bytes, data: st.DataObject) -> None:
    broken = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(broken) - 1) | st.integers(0, min(99, len(broken) - 1)))
        broken[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(broken)) | st.just(len(broken)))
    survives(bytes(broken[:cut]))
