"""Turn a picture file's bytes into upright RGB pixels, at the size that is needed, or say why not.

JPEG goes to libjpeg-turbo at a power-of-two scale, everything else to Pillow; the format is told by
content. All functions are thread-safe, and the heavy parts release the interpreter lock.
"""

import ctypes
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError, _imaging

from schemas.errors import ImageError
from stages import jpeg
from stages.sniff import DECODABLE, PICTURES, describe, sniff

Pixels = npt.NDArray[np.uint8]

# Sizes are checked here, from the header, with other limits than Pillow's; its warning stays quiet.
Image.MAX_IMAGE_PIXELS = None


def _hush_libtiff() -> None:
    """Stop libtiff from writing to standard error; what it finds wrong is raised all the same."""
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        try:
            set_handler = getattr(ctypes.CDLL(_imaging.__file__), name)
        except (OSError, AttributeError):  # Pillow built without it, or with it hidden inside
            continue
        set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        set_handler(None)


_hush_libtiff()
logging.getLogger("PIL").addHandler(logging.NullHandler())

_PILLOW_NAMES = {"jpeg2000": "JPEG2000"}
# Formats whose Pillow readers warn about odd metadata; catching warnings takes a lock.
_TALKATIVE = frozenset({"tiff", "avif"})
_warnings_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What a picture may cost.

    Attributes:
        max_bytes: Largest file.
        max_pixels: Most pixels to be decoded; checked from the header, before decoding.
        max_jpeg_pixels: Most pixels that a JPEG's header may tell when it is decoded at a reduced
            scale (progressive JPEGs need memory for all, so `max_pixels` holds for them).
    """

    max_bytes: int = 64 << 20
    max_pixels: int = 100_000_000
    max_jpeg_pixels: int = 200_000_000


DEFAULT = DecodeLimits()


def decode(
    data: bytes, *, min_width: int, min_height: int, limits: DecodeLimits = DEFAULT
) -> Pixels:
    """Decode a picture at the smallest of the scales 1, 1/2, 1/4, 1/8 that is large enough.

    The EXIF orientation is applied (a corrupt one is ignored). Grey, palette, CMYK and 16-bit
    pictures become 8-bit RGB; what is transparent becomes black; of an animation, the first frame.

    Args:
        data: The whole file.
        min_width: Width that is needed, of the upright picture. A smaller picture is not enlarged.
        min_height: Height that is needed, likewise.
        limits: What a picture may cost.

    Returns:
        RGB uint8 [H, W, 3], C-contiguous, upright, values 0 to 255.

    Raises:
        ImageError: ``empty``, ``not_an_image``, ``truncated``, ``damaged``, ``unsupported``,
            ``too_large`` or ``too_many_pixels``; nothing else, whatever the bytes are.
    """
    if not data:
        raise ImageError("empty", "the file has no bytes")
    if len(data) > limits.max_bytes:
        raise ImageError(
            "too_large", f"{len(data):,} bytes; at most {limits.max_bytes:,} are allowed"
        )
    kind = sniff(data)
    if kind not in DECODABLE:
        raise _refusal(kind)
    if kind == "jpeg":
        return _decode_jpeg(data, (min_width, min_height), limits)
    return _decode_other(data, kind, (min_width, min_height), limits)


def resize(image: Pixels, width: int, height: int) -> Pixels:
    """Stretch a picture to exactly ``width`` × ``height``, smoothly and without aliasing.

    Args:
        image: uint8 [H, W, 3].
        width: Wanted width in pixels, at least 1.
        height: Wanted height in pixels, at least 1.

    Returns:
        uint8 [height, width, 3], C-contiguous; the very input where it has that size already.
    """
    # Linear interpolation looks at two neighbours, so it is right down to half size: halve first.
    while image.shape[0] > 2 * height or image.shape[1] > 2 * width:
        rows, columns = image.shape[:2]
        half = (
            (columns + 1) // 2 if columns > 2 * width else columns,
            (rows + 1) // 2 if rows > 2 * height else rows,
        )
        image = np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_LINEAR), np.uint8)
    if image.shape[:2] != (height, width):
        size = (width, height)
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    return np.ascontiguousarray(image)


def encode_jpeg(image: Pixels, quality: int = 92) -> bytes:
    """Encode RGB uint8 [H, W, 3] as JPEG with 4:2:0 colour, ``quality`` 1 to 100."""
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=quality, colorspace="RGB", colorsubsampling="420"
    )
    return encoded


def _refusal(kind: str) -> ImageError:
    if kind in PICTURES:
        return ImageError(
            "unsupported", f"{PICTURES[kind]} pictures are not decoded; convert it to JPEG or PNG"
        )
    return ImageError("not_an_image", f"expected a picture, the file is {describe(kind)}")


def _decode_jpeg(data: bytes, wanted: tuple[int, int], limits: DecodeLimits) -> Pixels:
    header = jpeg.read_header(data)
    turned = header.orientation >= 5
    upright = (header.height, header.width) if turned else (header.width, header.height)
    scale = _scale(upright, wanted)
    stored = header.width * header.height
    allowed = limits.max_pixels if header.progressive else limits.max_jpeg_pixels
    if stored > allowed or stored // scale**2 > limits.max_pixels:
        raise _too_many(header.width, header.height, limits)
    return _turn(jpeg.decode_scaled(data, header, scale), header.orientation)


def _decode_other(data: bytes, kind: str, wanted: tuple[int, int], limits: DecodeLimits) -> Pixels:
    _check_webp_canvas(data, kind, limits)
    talks = kind in _TALKATIVE or (kind == "png" and b"acTL" in data[:1024])
    try:
        if talks:
            with _quiet():
                return _pillow(data, kind, wanted, limits)
        return _pillow(data, kind, wanted, limits)
    except ImageError:
        raise
    except Exception as error:  # Pillow's readers raise a dozen types on damaged files
        raise _pillow_fault(error, kind) from None


def _pillow(data: bytes, kind: str, wanted: tuple[int, int], limits: DecodeLimits) -> Pixels:
    """Decode by the one Pillow reader that the content asks for."""
    with Image.open(BytesIO(data), formats=[_PILLOW_NAMES.get(kind, kind.upper())]) as image:
        width, height = image.size
        if width * height > limits.max_pixels:
            raise _too_many(width, height, limits)
        image.load()
        # TIFF has been turned by Pillow; the others say how in an EXIF block.
        exif = b"" if kind == "tiff" else image.info.get("exif", b"")
        orientation = jpeg.exif_orientation(exif)
        upright = (height, width) if orientation >= 5 else image.size
        colour = _colour(image)
        scale = _scale(upright, wanted)
        reduced = colour.reduce(scale) if scale > 1 else colour
        return _turn(np.asarray(reduced, np.uint8)[..., :3], orientation)


def _colour(image: Image.Image) -> Image.Image:
    """Convert to RGB, or to premultiplied RGBa, whose colours are those over black."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode in {"LA", "PA", "RGBA"} or "transparency" in image.info:
        return image.convert("RGBA").convert("RGBa")
    if image.mode in {"RGB", "RGBa"}:
        return image
    return image.convert("RGB")


def _eight_bits(grey: npt.NDArray[np.generic]) -> Pixels:
    """Scale a 16-bit, 32-bit or float grey picture [H, W] to 0 to 255."""
    values = np.nan_to_num(grey.astype(np.float32), posinf=0.0, neginf=0.0)
    top = float(values.max(initial=0.0))
    if grey.dtype.kind == "f" and top <= 1.0:
        full = 1.0
    else:
        full = 65535.0 if grey.dtype.itemsize == 2 or top > 255 else 255.0
    return (values * (255.0 / max(full, top))).clip(0, 255).astype(np.uint8)


def _scale(upright: tuple[int, int], wanted: tuple[int, int]) -> int:
    """Pick the largest divisor of 8, 4, 2, 1 that leaves at least the wanted size."""
    for scale in jpeg.SCALES:
        if all(-(-have // scale) >= want for have, want in zip(upright, wanted, strict=True)):
            return scale
    return 1


def _turn(image: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation (1 to 8) and make the result C-contiguous."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in {3, 4, 7, 8}:
        image = image[::-1]
    if orientation in {2, 3, 6, 7}:
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def _too_many(width: int, height: int, limits: DecodeLimits) -> ImageError:
    return ImageError(
        "too_many_pixels",
        f"{width:,}×{height:,} pixels; at most {limits.max_pixels / 1e6:,.0f} million are allowed",
    )


def _check_webp_canvas(data: bytes, kind: str, limits: DecodeLimits) -> None:
    """Check an extended WebP's canvas here, as its reader allocates it on opening."""
    if kind != "webp":
        return
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise ImageError("truncated", f"WebP breaks off after {len(data):,} bytes")
    if data[12:16] == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        if width * height > limits.max_pixels:
            raise _too_many(width, height, limits)


@contextmanager
def _quiet() -> Iterator[None]:
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _pillow_fault(error: Exception, kind: str) -> ImageError:
    """Turn what a Pillow reader raised into a fault."""
    words = " ".join(str(error).split())[:200]
    name = kind.upper()
    if isinstance(error, MemoryError):
        return ImageError("too_many_pixels", f"{name} needs more memory than there is")
    if isinstance(error, UnidentifiedImageError):
        return ImageError("damaged", f"{name} has a damaged header")
    if isinstance(error, EOFError) or any(w in words.lower() for w in ("truncated", "end of")):
        return ImageError("truncated", f"{name} breaks off ({words})")
    if "unsupported" in words.lower() or "unknown" in words.lower():
        return ImageError("unsupported", f"{name} of a rare kind ({words})")
    return ImageError("damaged", f"{name} is damaged ({words or type(error).__name__})")
