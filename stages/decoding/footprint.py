"""Tell from a picture's header how much memory its decoding will take at most."""

from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from PIL.TiffImagePlugin import TiffImageFile

# Bytes per pixel that Pillow keeps a picture in, by its mode; 4 for all others.
_KEPT = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
_BITS_PER_SAMPLE, _ORIENTATION, _SAMPLES_PER_PIXEL = 258, 274, 277
_TILE_WIDTH, _TILE_LENGTH = 322, 323

WEBP = 16  # bytes per pixel of a WebP's canvas

BAND = 1 << 21  # pixels that are converted to RGB at once
_BAND_COST = 24  # bytes for each of them
_FIXED = 4 << 20


def as_rgb(size: tuple[int, int], scale: int, orientation: int, *, step: int = 8) -> int:
    """Return the bytes that RGB at 1/``scale`` of a size takes, and the conversion to it.

    Args:
        size: Width and height in pixels.
        scale: What they are divided by.
        orientation: EXIF orientation; from 5 on the picture is copied to turn it.
        step: Fewest rows that are converted at once.
    """
    width, height = size
    pixels = -(-width // scale) * -(-height // scale)
    copies = 2 if orientation > 1 else 1
    band = min(width * height, max(BAND, step * width))
    return 3 * pixels * copies + _BAND_COST * band + _FIXED


def in_pillow(image: Image.Image, file: bytes, converting: int) -> int:
    """Return the bytes that decoding an opened picture takes.

    Args:
        image: The picture.
        file: Its file, of which Pillow makes a copy.
        converting: Bytes that are taken once it is loaded.
    """
    pixels = image.size[0] * image.size[1]
    kept = _KEPT.get(image.mode, 4)
    staying, passing = _held(image, file, kept)
    loading = passing * max(pixels, _tile_pixels(image)) + _FIXED
    return (kept + staying) * pixels + max(loading, converting) + len(file)


def _held(image: Image.Image, file: bytes, kept: int) -> tuple[int, int]:
    """Return the bytes per pixel, as measured, that a decoder holds besides what Pillow keeps.

    Returns:
        Those that it holds as long as the picture is open, and those only while it is loaded.
    """
    match image.format:
        case "WEBP":  # a canvas, the one before it, and a copy
            return WEBP - kept, 0
        case "AVIF":  # planes of YUV and alpha, RGB, and a copy
            return 12 if _has_high_depth(file) else 8, 0
        case "JPEG2000":  # 32 bits a sample
            return 0, 5 * len(image.getbands())
        case "GIF":  # a screen with the frame on it
            frame = image.dispose_extent if isinstance(image, GifImageFile) else None
            return 0 if frame in {None, (0, 0, *image.size)} else 9, 0
        case "TIFF":  # a strip, which may hold all rows; and a copy that is turned
            turned = image.getexif().get(_ORIENTATION, 1) != 1
            # Of a progressive JPEG in it, all coefficients are held.
            held = 3 if image.info.get("compression") == "jpeg" else 1
            return 0, held * _sample_bytes(image) + (kept if turned else 0)
        case _:
            return 0, 0


def _has_high_depth(data: bytes) -> bool:
    """Whether an AVIF has more than 8 bits a sample."""
    at = data.find(b"av1C")
    return at >= 0 and bool(data[at + 6 : at + 7] > b"\x3f" and data[at + 6] & 0x40)


def _tile_pixels(image: Image.Image) -> int:
    """Return the pixels of a TIFF's tile, which may be larger than the picture; 0 of others."""
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    return int(tags.get(_TILE_WIDTH, 0)) * int(tags.get(_TILE_LENGTH, 0))


def _sample_bytes(image: Image.Image) -> int:
    """Return the bytes that a TIFF's file has per pixel, uncompressed."""
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    bits = tags.get(_BITS_PER_SAMPLE, 8)
    each: tuple[int, ...] = bits if isinstance(bits, tuple) else (bits,)
    return -(-max(each) * max(len(each), int(tags.get(_SAMPLES_PER_PIXEL, 1))) // 8)
